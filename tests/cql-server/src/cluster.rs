//! A server of a test's own, whose nodes can be disturbed.

use crate::{
    Access,
    cassandra::{self, CLIENT_PORT, STORAGE_PORT, Settings},
    registration::{Registration, watch},
    tls::Certificates,
    unavailable,
};
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Child,
};

/// How long the nodes outlive the process that started them, in seconds.
const PATIENCE_SECS: u32 = 2;

/// What a server asks of its clients.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asks {
    pub(crate) login: bool,
    pub(crate) tls: bool,
}

/// Nodes of Apache Cassandra, with as many copies of the data as a test wants. They end when this is dropped.
pub struct Cluster {
    dir: PathBuf,
    addresses: Vec<Ipv4Addr>,
    nodes: Vec<Child>,
    libraries: PathBuf,
    login: bool,
    tls: Option<Certificates>,
    registration: Option<Registration>,
}

impl Cluster {
    /// Starts so many nodes side by side. None where no such server can be had.
    pub fn start(nodes: usize) -> Result<Option<Self>> {
        if let Some(missing) = cassandra::missing() {
            return unavailable(&missing).map(|()| None);
        }
        let dir = tempfile::Builder::new().prefix("rookery-cql-").tempdir()?.keep();
        let cluster = Self::start_in(&dir, nodes, Asks::default(), PATIENCE_SECS)?;
        Ok(Some(cluster))
    }

    /// Starts one node that lets nobody in without TLS, a certificate of the client's and a password.
    pub fn start_guarded() -> Result<Option<Self>> {
        if let Some(missing) = cassandra::missing() {
            return unavailable(&missing).map(|()| None);
        }
        let dir = tempfile::Builder::new().prefix("rookery-cql-").tempdir()?.keep();
        Self::start_in(&dir, 1, Asks { login: true, tls: true }, PATIENCE_SECS).map(Some)
    }

    /// Starts nodes that keep everything in this folder.
    pub(crate) fn start_in(dir: &Path, nodes: usize, asks: Asks, patience_secs: u32) -> Result<Self> {
        let libraries = cassandra::libraries()?;
        watch(dir, patience_secs)?;
        let registration = Some(Registration::enter(dir)?);
        let addresses = free_addresses(nodes)?;
        let (dir, nodes) = (dir.to_owned(), Vec::new());
        let tls = asks.tls.then(|| Certificates::make(&addresses, &dir)).transpose()?;
        let login = asks.login;
        let mut cluster = Self { dir, addresses, nodes, libraries, login, tls, registration };
        for node in 0..cluster.addresses.len() {
            let child = cassandra::start(&cluster.settings(node), &cluster.libraries)?;
            cluster.nodes.push(child);
        }
        for node in 0..cluster.addresses.len() {
            cluster.wait(node)?;
        }
        Ok(cluster)
    }

    /// How to reach it.
    pub fn access(&self) -> Access {
        Access {
            contact_points: self.addresses.iter().map(|address| format!("{address}:{CLIENT_PORT}")).collect(),
            login: self.login.then(|| ("cassandra".to_owned(), "cassandra".to_owned())),
            tls: self.tls.clone(),
            nodes: self.addresses.len(),
        }
    }

    /// Ends a node's process at once, as a crash would.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.nodes[node].kill()?;
        self.nodes[node].wait()?;
        Ok(())
    }

    /// Starts a node again that was killed, with the data that it had, and waits until it takes clients.
    pub fn restart(&mut self, node: usize) -> Result<()> {
        self.nodes[node] = cassandra::start(&self.settings(node), &self.libraries)?;
        self.wait(node)
    }

    /// Stops a node's process without ending it: its connections stay open and nothing answers.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.signal(node, Signal::STOP)
    }

    /// Lets a paused node go on.
    pub fn resume(&self, node: usize) -> Result<()> {
        self.signal(node, Signal::CONT)
    }

    /// Leaves the nodes running for other processes: the watching process ends them. Answers this process's entry.
    pub(crate) fn share(mut self) -> Option<Registration> {
        self.nodes.clear();
        self.registration.take()
    }

    fn signal(&self, node: usize, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.nodes[node].id()).ok().and_then(Pid::from_raw).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }

    fn wait(&mut self, node: usize) -> Result<()> {
        let (dir, all) = (self.dir.join("nodes").join(node.to_string()), self.addresses.clone());
        let tls = self.tls.as_ref().map(|_| self.dir.as_path());
        let settings = Settings { dir, address: all[node], all: &all, login: self.login, tls };
        cassandra::wait(&settings, &mut self.nodes[node])
    }

    fn settings(&self, node: usize) -> Settings<'_> {
        let dir = self.dir.join("nodes").join(node.to_string());
        let tls = self.tls.as_ref().map(|_| self.dir.as_path());
        Settings { dir, address: self.addresses[node], all: &self.addresses, login: self.login, tls }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
        if !self.nodes.is_empty() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Loopback addresses in a row on which nobody listens at the ports of a node.
fn free_addresses(count: usize) -> Result<Vec<Ipv4Addr>> {
    for _ in 0..50 {
        let (a, b) = (rand::random_range(1..=254), rand::random_range(1..=254));
        let addresses: Vec<_> = (1..=count).map(|last| Ipv4Addr::new(127, a, b, last as u8)).collect();
        let free = |address: &Ipv4Addr| {
            [CLIENT_PORT, STORAGE_PORT].iter().all(|port| TcpListener::bind((*address, *port)).is_ok())
        };
        if addresses.iter().all(free) {
            return Ok(addresses);
        }
    }
    anyhow::bail!("no free loopback addresses: the tests need all of 127.0.0.0/8, as Linux has it")
}
