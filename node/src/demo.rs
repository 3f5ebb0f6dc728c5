//! `rookery demo`: a simulated WhatsApp and a gateway in one process, from pairing to history.
//!
//! Everything goes over the gateway's HTTP, as a user's program would; each step prints the `curl` that does
//! the same.

use crate::{
    app::App,
    config::{Config, Overrides},
    metrics, qr, telemetry,
};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};
use whatsapp_simulator::{Handle, Phone, Simulator};

/// The account that is linked.
const OWNER: &str = "15550001001";
/// A phone to write to.
const FRIEND: &str = "15550002002";
/// A phone that answers whatever it gets.
const ECHO: &str = "15550003003";
/// How long a step may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Arguments of the demo.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Exit when all steps held (0), or at the first that did not (1).
    #[arg(long)]
    once: bool,
    /// Where the gateway listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))]
    listen: SocketAddr,
    /// Write addresses, keys and phones to this file as JSON once all is up.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the demo.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let simulator = Simulator::start(whatsapp_simulator::Config::default()).await.context("simulator")?;
    let data_dir = tempfile::tempdir().context("temporary data directory")?;
    let config = demo_config(&options, &simulator, data_dir.path())?;
    telemetry::install(&config.log)?;
    let mut app = App::start(config, metrics::install()?).await?;
    let admin_key = app.take_new_admin_key().context("a fresh node makes an admin key")?;
    let demo = Demo {
        base: format!("http://{}", app.address()),
        http: reqwest::Client::builder().timeout(STEP_TIMEOUT).build()?,
        admin_key,
        simulator: simulator.clone(),
    };
    let played = tokio::select! {
        played = demo.play(&options) => played,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    if played.is_ok() && !options.once {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    app.shut_down().await?;
    simulator.shutdown().await;
    played
}

fn demo_config(options: &Options, simulator: &Handle, data_dir: &Path) -> anyhow::Result<Config> {
    let values = vec![
        ("api.listen", options.listen.to_string()),
        ("node.id", "demo".to_owned()),
        ("node.data_dir", data_dir.join("data").display().to_string()),
        ("whatsapp.url", simulator.websocket_url()),
        ("whatsapp.version", "2.3000.1023456789".to_owned()),
    ];
    let mut config = Config::load(&Overrides { file: None, values })?;
    // The demo shows the contract as existing clients use it: token management needs no key on this machine.
    config.api.open_token_management = config.api.listen.ip().is_loopback();
    if std::env::var_os("ROOKERY_LOG__FILTER").is_none() {
        config.log.filter = "warn".into();
    }
    Ok(config)
}

/// What the steps work with.
struct Demo {
    base: String,
    http: reqwest::Client,
    admin_key: String,
    simulator: Handle,
}

impl Demo {
    async fn play(&self, options: &Options) -> anyhow::Result<()> {
        println!("Rookery demo (sandbox build): a simulated WhatsApp and a gateway at {}\n", self.base);
        let user_id = rookery_protocol::UserId::generate().to_string();
        let token = self.make_token(&user_id).await.context("step 1, a token")?;
        let session = self.create_session(&token).await.context("step 2, a session")?;
        let owner = self.simulator.phone(OWNER);
        self.link(&token, &session, &owner).await.context("step 3, linking")?;
        self.send(&token, &session).await.context("step 4, sending")?;
        self.receive(&token, &session).await.context("step 5, receiving")?;
        self.history(&token, &session).await.context("step 6, the history")?;
        let violations = self.simulator.violations();
        ensure!(violations.is_empty(), "the simulator saw the protocol violated: {violations:?}");
        println!("\nAll steps held.");
        self.simulator.phone(ECHO).set_echo(true);
        if let Some(file) = &options.json {
            self.write_json(file, &token, &user_id, &session).await?;
        }
        if !options.once {
            println!("\nStill up. Phone {ECHO} answers whatever it gets. Press Ctrl-C to stop.");
            println!("  TOKEN={token} SESSION={session}");
            println!(
                "  {}",
                curl_post(
                    &self.base,
                    "/api/whatsapp/messages/text",
                    &json!({"session_id": session, "to": ECHO, "message": "hi"})
                )
            );
            println!(
                "  simulator: {} (GET /inbox?phone={FRIEND}, POST /inject?from={FRIEND}&to={OWNER})",
                self.simulator.admin_url()
            );
        }
        Ok(())
    }

    async fn make_token(&self, user_id: &str) -> anyhow::Result<String> {
        let body = json!({"name": "demo", "user_id": user_id});
        let step = Step::begin("1. Make a token", &curl_post(&self.base, "/api/api-tokens/generate", &body));
        let made = self.post("/api/api-tokens/generate", &self.admin_key, &body, 201).await?;
        step.end("201");
        text(&made, "token")
    }

    async fn create_session(&self, token: &str) -> anyhow::Result<String> {
        let body = json!({"session_name": "demo"});
        let step = Step::begin("2. Create a session", &curl_post(&self.base, "/api/whatsapp/sessions", &body));
        let session = self.post("/api/whatsapp/sessions", token, &body, 201).await?;
        step.end(&format!("201, {}", text(&session, "status")?));
        text(&session, "session_id")
    }

    async fn link(&self, token: &str, session: &str, owner: &Phone) -> anyhow::Result<()> {
        let path = format!("/api/whatsapp/sessions/{session}/status");
        let step = Step::begin("3. Scan the QR code with the phone", &curl_get(&self.base, &path));
        let waiting = self.status_until(token, &path, "SCAN_QR_CODE").await?;
        let code = text(&waiting, "qr")?;
        println!("{}", qr::terminal(&code).map_err(anyhow::Error::new)?);
        owner.scan(&code).context("the phone could not scan the code")?;
        let working = self.status_until(token, &path, "WORKING").await?;
        step.end(&format!("WORKING as {}", text(&working, "device_id")?));
        Ok(())
    }

    async fn send(&self, token: &str, session: &str) -> anyhow::Result<()> {
        let body = json!({"session_id": session, "to": FRIEND, "message": "Hello from Rookery"});
        let step = Step::begin("4. Send a text", &curl_post(&self.base, "/api/whatsapp/messages/text", &body));
        let friend = self.simulator.phone(FRIEND);
        let sent = self.post("/api/whatsapp/messages/text", token, &body, 200).await?;
        let id = text(&sent, "message_id")?;
        let arrived = friend.wait_for(STEP_TIMEOUT, |message| message.id == id).await?;
        ensure!(arrived.text == "Hello from Rookery", "the phone shows another text: {:?}", arrived.text);
        step.end(&format!("200, arrived on phone {FRIEND} as {id}"));
        Ok(())
    }

    async fn receive(&self, token: &str, session: &str) -> anyhow::Result<()> {
        let path = format!("/api/whatsapp/sessions/{session}/messages?direction=inbound");
        let step = Step::begin("5. Receive the reply", &curl_get(&self.base, &path));
        let id = self.simulator.phone(FRIEND).send_text(OWNER, "Hello back")?;
        self.page_until(token, &path, |rows| rows.iter().any(|row| row["message_id"] == id.as_str())).await?;
        step.end("200, the reply is in the history");
        Ok(())
    }

    async fn history(&self, token: &str, session: &str) -> anyhow::Result<()> {
        let path = format!("/api/whatsapp/sessions/{session}/messages?chat={FRIEND}");
        let step = Step::begin("6. Read the history", &curl_get(&self.base, &path));
        let rows = self.page_until(token, &path, |rows| rows.len() >= 2).await?;
        for row in rows.iter().rev() {
            let arrow = if row["from_me"] == true { "->" } else { "<-" };
            println!("     {} {arrow} {} ({})", row["timestamp"], row["text"], row["status"]);
        }
        ensure!(rows.len() == 2, "the history holds {} messages, not 2", rows.len());
        step.end("200, both messages are there");
        Ok(())
    }

    async fn status_until(&self, token: &str, path: &str, status: &str) -> anyhow::Result<Value> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        loop {
            let session = self.get(path, token).await?;
            if session["status"] == status {
                return Ok(session);
            }
            ensure!(Instant::now() < deadline, "the session is {} and not {status}", session["status"]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn page_until(&self, token: &str, path: &str, done: impl Fn(&[Value]) -> bool) -> anyhow::Result<Vec<Value>> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        loop {
            let page = self.get(path, token).await?;
            let rows = page["data"].as_array().cloned().unwrap_or_default();
            if done(&rows) {
                return Ok(rows);
            }
            ensure!(Instant::now() < deadline, "the history does not show it in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn get(&self, path: &str, token: &str) -> anyhow::Result<Value> {
        let response = self.http.get(format!("{}{path}", self.base)).bearer_auth(token).send().await?;
        answer(response, 200).await
    }

    async fn post(&self, path: &str, token: &str, body: &Value, expected: u16) -> anyhow::Result<Value> {
        let response = self.http.post(format!("{}{path}", self.base)).bearer_auth(token).json(body).send().await?;
        answer(response, expected).await
    }

    async fn write_json(&self, file: &Path, token: &str, user_id: &str, session: &str) -> anyhow::Result<()> {
        let content = json!({
            "base_url": self.base,
            "admin_key": self.admin_key,
            "token": token,
            "user_id": user_id,
            "session_id": session,
            "phones": [OWNER, FRIEND, ECHO],
            "simulator_admin": self.simulator.admin_url(),
        });
        // A reader that waits for the file must never see half of it.
        let partial = file.with_extension("partial");
        tokio::fs::write(&partial, serde_json::to_vec_pretty(&content)?).await?;
        tokio::fs::rename(&partial, file).await.with_context(|| file.display().to_string())
    }
}

async fn answer(response: reqwest::Response, expected: u16) -> anyhow::Result<Value> {
    let status = response.status().as_u16();
    let body: Value = response.json().await?;
    ensure!(status == expected, "the gateway answered {status} and not {expected}: {body}");
    Ok(body)
}

fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    let text = value[field].as_str().with_context(|| format!("the answer has no {field}: {value}"))?;
    Ok(text.to_owned())
}

fn curl_get(base: &str, path: &str) -> String {
    format!("curl -H \"Authorization: Bearer $TOKEN\" '{base}{path}'")
}

fn curl_post(base: &str, path: &str, body: &Value) -> String {
    let auth = if path.starts_with("/api/api-tokens") { "" } else { "-H \"Authorization: Bearer $TOKEN\" " };
    format!("curl {auth}-H 'Content-Type: application/json' -d '{body}' {base}{path}")
}

/// A step on the screen.
struct Step(Instant);

impl Step {
    fn begin(title: &str, command: &str) -> Self {
        println!("{title}\n   $ {command}");
        Self(Instant::now())
    }

    fn end(self, result: &str) {
        println!("   ok: {result} ({:.0} ms)\n", self.0.elapsed().as_secs_f64() * 1000.0);
    }
}
