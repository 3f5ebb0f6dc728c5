//! ScyllaDB in a container, where a daemon runs.

use crate::Access;
use anyhow::{Context, Result, bail};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// The server's image, and what keeps it small.
const IMAGE: &str = "scylladb/scylla:2025.4";
const ARGUMENTS: [&str; 7] = ["--smp", "1", "--memory", "750M", "--overprovisioned", "1", "--developer-mode=1"];

/// How long the image may take to come and the server to start.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// The program of a container daemon that answers.
pub(crate) fn daemon() -> Option<&'static str> {
    ["docker", "podman"].into_iter().find(|daemon| {
        Command::new(daemon).args(["info", "--format", "{{.ID}}"]).output().is_ok_and(|output| output.status.success())
    })
}

/// Starts the server; the process that watches the folder removes it.
pub(crate) fn start(daemon: &str, dir: &Path) -> Result<Access> {
    let id = run(daemon, &[&["run", "--detach", "--publish", "127.0.0.1::9042", IMAGE], &ARGUMENTS[..]].concat())?;
    fs::write(dir.join("container"), format!("{daemon} {id}\n"))?;
    let published = run(daemon, &["port", &id, "9042/tcp"])?;
    let port = published.lines().next().and_then(|line| line.rsplit_once(':')).context("a published port")?.1;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.trim().parse()?));
    let end = Instant::now() + START_TIMEOUT;
    // The daemon accepts connections at once; the server says in its log when it does.
    while !run(daemon, &["logs", &id])?.contains("Starting listening for CQL clients") {
        if Instant::now() > end {
            bail!("ScyllaDB did not start in its container");
        }
        crate::wait_a_while(Duration::from_millis(500));
    }
    TcpStream::connect(address).context("connect to the container")?;
    Ok(Access { contact_points: vec![address.to_string()], login: None, tls: None, nodes: 1 })
}

fn run(daemon: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(daemon).args(arguments).output().with_context(|| format!("run {daemon}"))?;
    if !output.status.success() {
        bail!("{daemon}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}
