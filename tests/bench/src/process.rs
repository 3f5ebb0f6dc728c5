//! The programs that are measured: built, started, watched through `/proc`, stopped by their process id.
//!
//! Invariant: a child never outlives the value that stands for it. Knows nothing of what the programs do.

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde::Serialize;
use std::{
    ffi::OsStr,
    fs::File,
    ops::AddAssign,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// How long a program may take to say that it is up.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a program may take to stop by itself before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a program's log that an error quotes.
const LOG_TAIL_BYTES: usize = 2_000;

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub gateway: PathBuf,
    pub simulator: PathBuf,
    /// Writes long histories.
    pub filler: PathBuf,
    /// Many devices.
    pub load: PathBuf,
}

impl Programs {
    /// Builds all in release mode, with one command, so that what they share is built once.
    pub(crate) fn build() -> anyhow::Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut command = std::process::Command::new(cargo);
        // `cargo run` describes the benchmark's package in these. Build scripts watch them, and would have half of
        // the dependencies built again by every run, and by the next build that is no run.
        for (name, _) in std::env::vars_os().filter(|(name, _)| describes_package(name)) {
            command.env_remove(name);
        }
        let output = command
            .current_dir(workspace)
            .args(["build", "--release", "--features", "sandbox,fill,load", "--bins"])
            .args(["-p", "rookery", "-p", "whatsapp-simulator", "-p", "rookery-bench"])
            .arg("--message-format=json-render-diagnostics")
            .stderr(Stdio::inherit())
            .output()
            .context("cargo could not be run")?;
        ensure!(output.status.success(), "the build failed");
        let built = String::from_utf8(output.stdout)?;
        let program = |name: &str| {
            let messages = built.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let mut named = messages.filter(|message| message["target"]["name"] == name);
            let path = named.find_map(|message| message["executable"].as_str().map(PathBuf::from));
            path.with_context(|| format!("the build made no {name}"))
        };
        let [gateway, simulator, filler, load] =
            ["rookery", "whatsapp-simulator", "fill-history", "simulator-load"].map(program);
        Ok(Self { gateway: gateway?, simulator: simulator?, filler: filler?, load: load? })
    }

    /// Programs that were built before.
    pub(crate) fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.canonicalize().with_context(|| folder.display().to_string())?;
        let [gateway, simulator, filler, load] =
            ["rookery", "whatsapp-simulator", "fill-history", "simulator-load"].map(|name| folder.join(name));
        for program in [&gateway, &simulator, &filler, &load] {
            ensure!(program.is_file(), "{}: no such program", program.display());
        }
        Ok(Self { gateway, simulator, filler, load })
    }
}

/// Whether cargo sets this variable for one package's sake.
fn describes_package(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Raises the limit of open files to the most that is allowed; children inherit it.
pub(crate) fn allow_many_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// A running program. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Process {
    /// Starts a program that logs to the file `log`.
    pub(crate) fn start(program: &Path, log: PathBuf, set: impl FnOnce(&mut Command)) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        let log_file = File::create(&log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file).kill_on_drop(true);
        set(&mut command);
        let mut child = command.spawn().with_context(|| program.display().to_string())?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the process has no id")?;
        let stdout = child.stdout.take().context("the process has no output")?;
        Ok(Self { child, pid, lines: BufReader::new(stdout).lines(), log })
    }

    /// What follows `prefix` on the first line that begins with it.
    pub(crate) async fn line(&mut self, prefix: &str) -> anyhow::Result<String> {
        let search = async {
            while let Some(line) = self.lines.next_line().await? {
                if let Some(rest) = line.strip_prefix(prefix) {
                    return Ok(rest.to_owned());
                }
            }
            bail!("the program ended: {}", tail(&self.log))
        };
        tokio::time::timeout(START_TIMEOUT, search).await.context("the program did not start in time")?
    }

    /// Writes to its standard input, which must have been piped.
    pub(crate) async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self.child.stdin.as_mut().context("the process takes no input")?;
        input.write_all(line.as_bytes()).await.with_context(|| format!("the program ended: {}", tail(&self.log)))?;
        Ok(input.flush().await?)
    }

    /// Its resident memory in KiB.
    pub(crate) fn rss_kib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// CPU seconds that it has used.
    pub(crate) fn cpu_secs(&self) -> anyhow::Result<f64> {
        cpu_secs(&self.pid.as_raw_nonzero().to_string())
    }

    /// Asks it to stop and waits until it has; kills it when it does not.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        kill_process(self.pid, Signal::TERM)?;
        let Ok(status) = tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await else {
            self.child.kill().await?;
            bail!("the program did not stop: {}", tail(&self.log))
        };
        let status = status?;
        ensure!(status.success(), "the program ended with {status}: {}", tail(&self.log));
        Ok(())
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES)..]).trim().to_owned()
}

/// User and system time of a process, of all its threads.
fn cpu_secs(process: &str) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Fields 14 and 15; after the name in parentheses they are the 12th and 13th.
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// CPU seconds of each process over a span of time.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Cpu {
    pub gateway: f64,
    pub simulator: f64,
    pub bench: f64,
    /// The span, in seconds.
    pub wall: f64,
}

impl Cpu {
    /// Ticks of the clock are hundredths.
    pub(crate) fn rounded(self) -> Self {
        let round = |secs: f64| (secs * 100.0).round() / 100.0;
        let Self { gateway, simulator, bench, wall } = self;
        Self { gateway: round(gateway), simulator: round(simulator), bench: round(bench), wall: round(wall) }
    }
}

impl AddAssign for Cpu {
    fn add_assign(&mut self, other: Self) {
        self.gateway += other.gateway;
        self.simulator += other.simulator;
        self.bench += other.bench;
        self.wall += other.wall;
    }
}

/// Measures the CPU time of a span.
pub(crate) struct Meter {
    before: Cpu,
    start: Instant,
}

impl Meter {
    /// From now on. A gateway that is not started yet has used nothing.
    pub(crate) fn start(gateway: Option<&Process>, simulator: &Process) -> anyhow::Result<Self> {
        let gateway = gateway.map_or(Ok(0.0), Process::cpu_secs)?;
        let before = Cpu { gateway, simulator: simulator.cpu_secs()?, bench: cpu_secs("self")?, wall: 0.0 };
        Ok(Self { before, start: Instant::now() })
    }

    /// Until now.
    pub(crate) fn stop(&self, gateway: &Process, simulator: &Process) -> anyhow::Result<Cpu> {
        Ok(Cpu {
            gateway: gateway.cpu_secs()? - self.before.gateway,
            simulator: simulator.cpu_secs()? - self.before.simulator,
            bench: cpu_secs("self")? - self.before.bench,
            wall: self.start.elapsed().as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_describes_a_package_is_hidden_from_the_build() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "OUT_DIR"] {
            assert!(describes_package(OsStr::new(name)), "{name}");
        }
        for name in ["CARGO_TARGET_DIR", "CARGO_HOME", "CARGO", "PATH", "RUSTFLAGS"] {
            assert!(!describes_package(OsStr::new(name)), "{name}");
        }
    }
}
