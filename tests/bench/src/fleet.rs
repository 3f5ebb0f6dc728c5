//! A gateway and a simulator with linked sessions: where every figure is measured.

use crate::{
    gateway::Gateway,
    http::{self, Client},
    process::{Cpu, Meter, Programs},
    simulator::{self, Simulator},
};
use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Sessions that are linked side by side.
const LINKING: usize = 16;
/// How long one session may take to be linked.
const LINK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long all sessions may take to be connected after a start.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(180);
/// How often it is looked whether something has happened.
const POLL: Duration = Duration::from_millis(10);
/// How long the gateway may take to come to rest.
const REST_TIMEOUT: Duration = Duration::from_secs(60);
/// The share of one core below which it is at rest.
const REST_SHARE: f64 = 0.03;

/// A session and the phone that it is linked to.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub id: String,
    pub phone: String,
}

/// A gateway, a simulator, and the sessions that are linked. Dropping it kills both and removes the data.
pub(crate) struct Fleet {
    programs: Programs,
    gateway: Option<Gateway>,
    pub simulator: Simulator,
    pub token: String,
    pub sessions: Vec<Session>,
    dir: TempDir,
}

impl Fleet {
    /// Starts both on empty data and links so many sessions.
    pub(crate) async fn start(programs: &Programs, sessions: usize) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("rookery-bench-").tempdir()?;
        let simulator = Simulator::start(programs, dir.path()).await?;
        let gateway = Gateway::start(programs, dir.path(), &simulator.url).await?;
        let token = gateway.make_token().await?;
        let programs = programs.clone();
        let mut fleet = Self { programs, gateway: Some(gateway), simulator, token, sessions: vec![], dir };
        fleet.grow(sessions).await?;
        Ok(fleet)
    }

    /// The gateway.
    pub(crate) fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("it runs but between stop and start")
    }

    /// Where the gateway keeps its data.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts to measure CPU time.
    pub(crate) fn meter(&self) -> anyhow::Result<Meter> {
        Meter::start(self.gateway.as_ref().map(|gateway| &gateway.process), &self.simulator.process)
    }

    /// The CPU time since `meter` was started.
    pub(crate) fn used(&self, meter: &Meter) -> anyhow::Result<Cpu> {
        meter.stop(&self.gateway().process, &self.simulator.process)
    }

    /// Links sessions until there are `target`, and waits until all are connected.
    pub(crate) async fn grow(&mut self, target: usize) -> anyhow::Result<()> {
        let start = Instant::now();
        let missing = self.sessions.len()..target;
        let linked = {
            let this = &*self;
            let lanes = stream::iter(0..LINKING).map(|lane| {
                let mine = missing.clone().skip(lane).step_by(LINKING);
                this.link_all(mine)
            });
            lanes.buffer_unordered(LINKING).try_concat().await?
        };
        self.sessions.extend(linked);
        self.all_working().await?;
        if !missing.is_empty() {
            let took = start.elapsed().as_secs_f64();
            eprintln!("  linked {} sessions in {took:.1} s, {} in all", missing.len(), self.sessions.len());
        }
        Ok(())
    }

    async fn link_all(&self, numbers: impl Iterator<Item = usize>) -> anyhow::Result<Vec<Session>> {
        let (mut gateway, mut simulator) = (self.gateway().client(), self.simulator.client());
        let mut linked = Vec::new();
        for number in numbers {
            let phone = format!("1555{number:07}");
            let linking = self.link(&mut gateway, &mut simulator, phone);
            linked.push(tokio::time::timeout(LINK_TIMEOUT, linking).await.context("a session could not be linked")??);
        }
        Ok(linked)
    }

    async fn link(&self, gateway: &mut Client, simulator: &mut Client, phone: String) -> anyhow::Result<Session> {
        let token = Some(self.token.as_str());
        let body = serde_json::json!({ "session_name": phone }).to_string();
        let create = http::request("POST", "/api/whatsapp/sessions", token, &body);
        let made = gateway.send(&create).await?.json(201)?;
        let id = made["session_id"].as_str().context("no session id")?.to_owned();
        let status = http::request("GET", &format!("/api/whatsapp/sessions/{id}/status"), token, "");
        loop {
            let session = gateway.send(&status).await?.json(200)?;
            if let Some(qr) = session["qr"].as_str() {
                simulator::scan(simulator, &phone, qr).await?;
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        loop {
            let session = gateway.send(&status).await?.json(200)?;
            match session["status"].as_str() {
                Some("WORKING") => return Ok(Session { id, phone }),
                Some("FAILED" | "STOPPED" | "LOGGED_OUT") => bail!("a session failed: {session}"),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Waits until all sessions are connected.
    async fn all_working(&self) -> anyhow::Result<()> {
        let mut client = self.gateway().client();
        let deadline = Instant::now() + RECONNECT_TIMEOUT;
        loop {
            let working = self.gateway().working(&mut client).await?;
            if working >= self.sessions.len() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "only {working} of {} sessions are connected", self.sessions.len());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops the gateway; the simulator and the data stay.
    pub(crate) async fn stop_gateway(&mut self) -> anyhow::Result<()> {
        match self.gateway.take() {
            Some(gateway) => gateway.process.stop().await.context("gateway"),
            None => Ok(()),
        }
    }

    /// Starts the gateway again on the same data; how long it took until all sessions were connected.
    pub(crate) async fn start_gateway(&mut self) -> anyhow::Result<(Duration, Cpu)> {
        let meter = self.meter()?;
        let start = Instant::now();
        self.gateway = Some(Gateway::start(&self.programs, self.dir.path(), &self.simulator.url).await?);
        self.all_working().await?;
        Ok((start.elapsed(), self.used(&meter)?))
    }

    /// Waits until the gateway has nothing more to do, or has had enough time for it.
    pub(crate) async fn rest(&self) -> anyhow::Result<()> {
        const WINDOW: Duration = Duration::from_secs(1);
        let deadline = Instant::now() + REST_TIMEOUT;
        let mut before = self.gateway().process.cpu_secs()?;
        while Instant::now() < deadline {
            tokio::time::sleep(WINDOW).await;
            let now = self.gateway().process.cpu_secs()?;
            if now - before <= REST_SHARE * WINDOW.as_secs_f64() {
                return Ok(());
            }
            before = now;
        }
        Ok(())
    }

    /// Ends both in order. The simulator must have seen nothing that no client may do.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.simulator.check().await?;
        self.stop_gateway().await?;
        self.simulator.process.stop().await.context("simulator")
    }
}
