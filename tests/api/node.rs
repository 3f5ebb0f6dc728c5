//! A gateway process: started, watched, stopped and killed.
//!
//! It takes a free port and says so on its standard output. Its log goes to a file beside its data; both are kept
//! when a test fails. The process never outlives its [`Node`].

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use whatsapp_simulator::Handle;

/// How long anything may take that a test waits for. Long, because a loaded machine is no defect.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `probe` answers `Ok`; fails with its last `Err` when it does not within [`PATIENCE`].
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(last) => assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}; last seen: {last}"),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The gateway's program with these settings and none of the environment's.
pub(crate) fn rookery(settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rookery"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROOKERY_")) {
        command.env_remove(name);
    }
    command.envs(settings.iter().copied());
    command.stdin(Stdio::null());
    command
}

/// What a program did that was to end by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program that must end by itself within [`PATIENCE`].
pub(crate) async fn run_to_end(mut command: Command) -> Ended {
    let folder = TempDir::new().unwrap();
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut child = Reaped(command.spawn().unwrap());
    let status = eventually("the end of the program", async || child.status()).await;
    let read = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    Ended { status, stdout: read(out), stderr: read(err) }
}

/// A child process that is killed when it is dropped.
pub(crate) struct Reaped(pub Child);

impl Reaped {
    /// How it ended.
    pub(crate) fn status(&mut self) -> Result<ExitStatus, String> {
        self.0.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A gateway on a data directory of its own.
pub(crate) struct Node {
    process: Reaped,
    settings: Vec<(String, String)>,
    folder: TempDir,
    stdout: Arc<Mutex<Vec<String>>>,
    base: String,
    admin_key: String,
}

impl Node {
    /// Starts a gateway that knows this simulator, with settings over those that make tests quick.
    pub(crate) async fn start(simulator: &Handle, settings: &[(&str, &str)]) -> Self {
        let url = simulator.websocket_url();
        let usual = [
            ("ROOKERY_API__LISTEN", "127.0.0.1:0"),
            ("ROOKERY_WHATSAPP__URL", url.as_str()),
            ("ROOKERY_WHATSAPP__VERSION", "2.3000.1023456789"),
            ("ROOKERY_WHATSAPP__PREKEYS", "20"),
            ("ROOKERY_SENDS__BURST", "100000"),
        ];
        let engine = crate::storage::of_environment();
        let engine = engine.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>();
        let all = usual
            .iter()
            .chain(&engine)
            .chain(settings)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut node = Stopped { folder: TempDir::new().unwrap(), settings: all }.start().await;
        let printed = node.printed("admin key (shown this once): ");
        let configured = settings.iter().find(|(name, _)| *name == "ROOKERY_API__ADMIN_KEY");
        node.admin_key = match configured {
            None => printed.expect("the first start prints an admin key"),
            Some((_, key)) => {
                assert_eq!(printed, None, "a configured key is not printed");
                (*key).to_owned()
            }
        };
        node
    }

    /// A copy of the data of a gateway that has ended, for another gateway.
    pub(crate) fn copy(&mut self) -> Stopped {
        self.process.status().expect("it has ended before");
        let folder = TempDir::new().unwrap();
        copy_folder(&self.data_dir(), &folder.path().join("data"));
        Stopped { folder, settings: self.settings.clone() }
    }

    /// Starts it again on the same data after it has ended.
    pub(crate) async fn start_again(&mut self) {
        self.process.status().expect("it has ended before");
        (self.process, self.stdout) = spawn(&self.folder, &self.settings);
        self.up().await;
    }

    /// Kills it with SIGKILL, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    /// Stops it with SIGTERM; it must end with 0 within ten seconds.
    pub(crate) async fn stop(&mut self) {
        let asked = Instant::now();
        self.signal(Signal::TERM);
        let status = self.ended().await;
        assert!(status.success(), "SIGTERM ends it with {status}");
        assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?} to stop", asked.elapsed());
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        eventually("the end of the gateway", async || self.process.status()).await
    }

    /// `http://ADDRESS:PORT` of its API.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// `ADDRESS:PORT` of its API.
    pub(crate) fn address(&self) -> &str {
        self.base.strip_prefix("http://").unwrap()
    }

    /// The admin key that its first start printed.
    pub(crate) fn admin_key(&self) -> &str {
        &self.admin_key
    }

    /// Where it keeps its data.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What all its runs have logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("log")).unwrap()).into_owned()
    }

    /// What stands behind `prefix` on a line of this run's standard output.
    pub(crate) fn printed(&self, prefix: &str) -> Option<String> {
        let lines = self.stdout.lock().unwrap();
        lines.iter().find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
    }

    async fn up(&mut self) {
        self.base = eventually("the start of the gateway", async || {
            if let Ok(status) = self.process.status() {
                panic!("the gateway ended with {status}:\n{}", self.log());
            }
            self.printed("listening on ").ok_or_else(|| "no `listening on`".to_owned())
        })
        .await;
    }
}

/// A gateway that does not run.
pub(crate) struct Stopped {
    folder: TempDir,
    settings: Vec<(String, String)>,
}

impl Stopped {
    /// Starts it.
    pub(crate) async fn start(self) -> Node {
        let Self { folder, settings } = self;
        let (process, stdout) = spawn(&folder, &settings);
        let mut node = Node { process, settings, folder, stdout, base: String::new(), admin_key: String::new() };
        node.up().await;
        node
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("kept for a look: {} (log and data)", self.folder.path().display());
        }
    }
}

fn spawn(folder: &TempDir, settings: &[(String, String)]) -> (Reaped, Arc<Mutex<Vec<String>>>) {
    let log = OpenOptions::new().create(true).append(true).open(folder.path().join("log")).unwrap();
    let mut command = rookery(&[]);
    command.env("ROOKERY_NODE__DATA_DIR", folder.path().join("data"));
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    let mut child = Reaped(command.stdout(Stdio::piped()).stderr(log).spawn().unwrap());
    let output = child.0.stdout.take().expect("piped");
    let lines = Arc::new(Mutex::new(vec![]));
    let read = Arc::clone(&lines);
    // Ends with the process.
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            read.lock().unwrap().push(line);
        }
    });
    (child, lines)
}
