//! The simulated WhatsApp: its process and what the benchmark asks of its phones.

use crate::{
    http::{self, Client},
    process::{Process, Programs},
};
use anyhow::{Context, ensure};
use std::{net::SocketAddr, path::Path};

/// A running simulator.
pub(crate) struct Simulator {
    pub process: Process,
    pub url: String,
    pub admin: SocketAddr,
}

impl Simulator {
    /// Starts a simulator that logs into `dir`.
    pub(crate) async fn start(programs: &Programs, dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(programs, dir, &[], "wss://").await
    }

    /// Starts a simulator without TLS.
    pub(crate) async fn start_plain(programs: &Programs, dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(programs, dir, &["--plain"], "ws://").await
    }

    async fn start_with(programs: &Programs, dir: &Path, more: &[&str], scheme: &str) -> anyhow::Result<Self> {
        let mut process = Process::start(&programs.simulator, dir.join("simulator.log"), |command| {
            command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).args(more).env("RUST_LOG", "warn");
        })?;
        let url = process.line("websocket ").await.context("simulator")?;
        ensure!(url.starts_with(scheme), "the simulator does not listen for {scheme}: {url}");
        let admin = process.line("admin ").await.context("simulator")?;
        let admin = admin.trim_start_matches("http://").trim_end_matches('/').parse().with_context(|| admin.clone())?;
        Ok(Self { process, url, admin })
    }

    /// A client of the admin routes with a connection of its own.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.admin)
    }

    /// The counters; see `GET /stats`.
    pub(crate) async fn stats(&self, client: &mut Client) -> anyhow::Result<serde_json::Value> {
        client.send(&http::request("GET", "/stats?format=json", None, "")).await?.json(200)
    }

    /// Stanzas that devices have not acknowledged.
    pub(crate) async fn queued(&self, client: &mut Client) -> anyhow::Result<u64> {
        self.stats(client).await?["queued"].as_u64().context("no count of queued stanzas")
    }

    /// Fails when a client did what no correct client may do.
    pub(crate) async fn check(&self) -> anyhow::Result<()> {
        let mut client = self.client();
        let answer = client.send(&http::request("GET", "/violations", None, "")).await?;
        let violations = answer.text(200)?;
        ensure!(violations.trim() == "[]", "the protocol was violated: {violations:.2000}");
        Ok(())
    }
}

/// A phone scans a QR code.
pub(crate) async fn scan(client: &mut Client, phone: &str, qr: &str) -> anyhow::Result<()> {
    let request = http::request("POST", &format!("/scan?phone={phone}"), None, qr);
    client.send(&request).await?.text(200)?;
    Ok(())
}

/// Makes sure that a phone exists.
pub(crate) async fn make_phone(client: &mut Client, phone: &str) -> anyhow::Result<()> {
    let request = http::request("GET", &format!("/devices?phone={phone}"), None, "");
    client.send(&request).await?.text(200)?;
    Ok(())
}

/// A phone sends so many texts to another as fast as it can.
pub(crate) async fn burst(client: &mut Client, from: &str, to: &str, count: usize) -> anyhow::Result<()> {
    let path = format!("/burst?from={from}&to={to}&count={count}");
    let request = http::request("POST", &path, None, "A text of a usual length, as people send it.");
    client.send(&request).await?.text(200)?;
    Ok(())
}
