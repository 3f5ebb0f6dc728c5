//! The gateway under test: its process and the requests that the benchmark makes.

use crate::{
    http::{self, Client},
    process::{Process, Programs},
};
use anyhow::{Context, ensure};
use std::{net::SocketAddr, path::Path};

const ADMIN_KEY: &str = "bench-admin-key-of-no-use";
/// WhatsApp's own number of one-time prekeys; they are part of what a session costs.
pub(crate) const PREKEYS: u32 = 812;

/// A running gateway.
pub(crate) struct Gateway {
    pub process: Process,
    pub address: SocketAddr,
}

impl Gateway {
    /// Starts a gateway on the data in `dir` that connects to the simulator at `url`.
    pub(crate) async fn start(programs: &Programs, dir: &Path, url: &str) -> anyhow::Result<Self> {
        let mut process = Process::start(&programs.gateway, dir.join("gateway.log"), |command| {
            command
                .env("ROOKERY_NODE__DATA_DIR", dir.join("data"))
                .env("ROOKERY_NODE__SHUTDOWN_TIMEOUT_MS", "55000")
                .env("ROOKERY_API__LISTEN", "127.0.0.1:0")
                .env("ROOKERY_API__ADMIN_KEY", ADMIN_KEY)
                .env("ROOKERY_WHATSAPP__URL", url)
                .env("ROOKERY_WHATSAPP__VERSION", "2.3000.1023456789")
                .env("ROOKERY_WHATSAPP__PREKEYS", PREKEYS.to_string())
                .env("ROOKERY_SESSIONS__LOGINS_PER_SECOND", "100000")
                .env("ROOKERY_SESSIONS__PAIRINGS_PER_SECOND", "100000")
                .env("ROOKERY_SESSIONS__LOGIN_BURST", "100000")
                .env("ROOKERY_SESSIONS__LOGINS_UNDER_WAY", "100000")
                .env("ROOKERY_SENDS__BURST", "1000000")
                .env("ROOKERY_SENDS__PER_SECOND", "1000000")
                .env("ROOKERY_LOG__FILTER", "warn");
        })?;
        let address = process.line("listening on http://").await.context("gateway")?.parse()?;
        Ok(Self { process, address })
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Makes a user with a token.
    pub(crate) async fn make_token(&self) -> anyhow::Result<String> {
        let body = r#"{"name":"bench","user_id":"0b5e7a51-9d0c-4f0e-8f6a-2f5d3a1c7e90"}"#;
        let request = http::request("POST", "/api/api-tokens/generate", Some(ADMIN_KEY), body);
        let made = self.client().send(&request).await?.json(201)?;
        Ok(made["token"].as_str().context("no token")?.to_owned())
    }

    /// The sum of the series of a metric that carry all these labels, as in `status="WORKING"`.
    pub(crate) async fn metric(&self, client: &mut Client, name: &str, labels: &[&str]) -> anyhow::Result<f64> {
        let request = http::request("GET", "/metrics", None, "");
        let answer = client.send(&request).await?;
        let page = answer.text(200)?;
        let series = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        let values = series.filter_map(|line| {
            let (given, value) = line.rsplit_once("} ")?;
            labels
                .iter()
                .all(|label| given.split(',').any(|given| given == *label))
                .then(|| value.parse::<f64>().ok())?
        });
        Ok(values.sum())
    }

    /// How many sessions are connected.
    pub(crate) async fn working(&self, client: &mut Client) -> anyhow::Result<usize> {
        Ok(self.metric(client, "rookery_sessions", &[r#"status="WORKING""#]).await? as usize)
    }

    /// How many incoming messages are stored since the start.
    pub(crate) async fn received(&self, client: &mut Client) -> anyhow::Result<u64> {
        let labels = [r#"direction="inbound""#, r#"outcome="stored""#];
        Ok(self.metric(client, "rookery_messages_total", &labels).await? as u64)
    }
}

/// A request that sends a text.
pub(crate) fn text_request(token: &str, session: &str, to: &str) -> Vec<u8> {
    let body =
        serde_json::json!({"session_id": session, "to": to, "message": "A text of a usual length, as people send it."});
    http::request("POST", "/api/whatsapp/messages/text", Some(token), &body.to_string())
}

/// Sends a message; WhatsApp must have acknowledged it.
pub(crate) async fn send(client: &mut Client, request: &[u8]) -> anyhow::Result<()> {
    let answer = client.send(request).await?;
    let sent = br#""status":"sent""#;
    ensure!(
        answer.status == 200 && answer.body.windows(sent.len()).any(|part| part == sent),
        "a message was not sent: {} {}",
        answer.status,
        String::from_utf8_lossy(answer.body)
    );
    Ok(())
}
