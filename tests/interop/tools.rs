//! The programs that drive the clients: where they come from and how they are started.
//!
//! They are installed once per target folder, below its `tmp`, from what the packages' lock files pin. Later runs
//! find them there.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tokio::{sync::OnceCell, time::timeout};

/// How long an installation may take. whatsmeow's store alone compiles for a minute on a fast machine.
const INSTALLATION: Duration = Duration::from_secs(900);
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop");
/// What `npm ci` may not do: run scripts of packages, fetch what Baileys does without, talk.
const NPM: [&str; 6] = ["ci", "--ignore-scripts", "--omit=optional", "--omit=peer", "--no-audit", "--no-fund"];

/// Another author's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Baileys,
    Whatsmeow,
}

impl Kind {
    /// Installs what drives this client, if that has not been done. `None`, and a line on standard error, when this
    /// machine cannot.
    pub(crate) async fn ready(self) -> Option<Tool> {
        static BAILEYS: OnceCell<Option<PathBuf>> = OnceCell::const_new();
        static WHATSMEOW: OnceCell<Option<PathBuf>> = OnceCell::const_new();
        let program = match self {
            Self::Baileys => BAILEYS.get_or_init(|| install("baileys", &["node", "npm"], baileys)).await,
            Self::Whatsmeow => WHATSMEOW.get_or_init(|| install("whatsmeow", &["go"], whatsmeow)).await,
        };
        program.clone().map(|program| Tool { kind: self, program })
    }
}

/// A program that drives a client.
#[derive(Clone)]
pub(crate) struct Tool {
    pub kind: Kind,
    program: PathBuf,
}

impl Tool {
    /// The command that starts it, but for its arguments.
    pub(crate) fn command(&self) -> Command {
        match self.kind {
            Kind::Baileys => {
                let mut node = Command::new("node");
                // The simulator's certificate is self-signed; Baileys has no option to trust it.
                node.arg(&self.program).env("NODE_TLS_REJECT_UNAUTHORIZED", "0").env("NODE_NO_WARNINGS", "1");
                node
            }
            Kind::Whatsmeow => Command::new(&self.program),
        }
    }
}

/// Installs in a folder of its own, which only one process does at a time.
async fn install(name: &str, needs: &[&str], build: impl AsyncFnOnce(&Path) -> PathBuf) -> Option<PathBuf> {
    let missing: Vec<_> = needs.iter().filter(|program| !runs(program)).collect();
    if !missing.is_empty() {
        let said = format!("{missing:?} cannot be run");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no interoperability with {name}: {said}");
        // Past the capture of the test harness, which would swallow it because the test passes.
        let line = format!("\n!!!! NOT TESTED: interoperability with {name}, because {said} !!!!\n\n");
        std::io::stderr().lock().write_all(line.as_bytes()).unwrap();
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop").join(name);
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.unwrap().unwrap();
    let program = build(&folder).await;
    drop(lock);
    Some(program)
}

fn runs(program: &str) -> bool {
    // Go knows `version` and refuses `--version`; either way it has run.
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// The driver beside its `node_modules`, which are installed anew when the lock file has changed.
async fn baileys(folder: &Path) -> PathBuf {
    let sources = Path::new(SOURCES).join("baileys");
    for file in ["package.json", "package-lock.json", "protocol.mjs", "driver.mjs"] {
        fs::copy(sources.join(file), folder.join(file)).unwrap();
    }
    let (wanted, installed) = (folder.join("package-lock.json"), folder.join("installed-lock.json"));
    if fs::read(&wanted).ok() != fs::read(&installed).ok() {
        let mut npm = Command::new("npm");
        run(npm.args(NPM).current_dir(folder)).await;
        fs::copy(&wanted, &installed).unwrap();
    }
    folder.join("driver.mjs")
}

/// The driver, compiled. Go knows itself whether anything has changed.
async fn whatsmeow(folder: &Path) -> PathBuf {
    let program = folder.join("driver");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).arg(".").env("CGO_ENABLED", "0");
    run(go.current_dir(Path::new(SOURCES).join("whatsmeow"))).await;
    program
}

async fn run(command: &mut Command) {
    let shown = format!("{command:?}");
    let mut command = tokio::process::Command::from(std::mem::replace(command, Command::new("")));
    let output = command.kill_on_drop(true).stdin(Stdio::null()).output();
    let output = timeout(INSTALLATION, output).await.unwrap_or_else(|_| panic!("{shown}: not within {INSTALLATION:?}"));
    let output = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = output.status;
    assert!(status.success(), "{shown}: {status}\n{}\n{}", text(&output.stdout), text(&output.stderr));
}
