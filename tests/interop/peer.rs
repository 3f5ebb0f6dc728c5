//! A client of another author, as a test drives it.
//!
//! What the client tells is kept, so that a test may ask for an event after it has happened.

use crate::{
    node::{PATIENCE, Reaped, eventually},
    tools::Tool,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Stdio},
    sync::{Arc, Mutex},
    thread,
};
use tempfile::TempDir;
use whatsapp_simulator::{Handle, Phone};

/// What the simulator counts that no test here provokes.
const UNWANTED: [&str; 5] = ["bad stanza", "unknown iq", "unknown stanza", "message to nobody", "phone: undecryptable"];

/// A client whose phone has `number`.
pub(crate) struct Peer {
    pub number: String,
    pub tool: Tool,
    simulator: Handle,
    /// The key that it trusts.
    root: [u8; 32],
    folder: TempDir,
    process: Option<(Reaped, ChildStdin)>,
    lines: Arc<Mutex<Vec<Value>>>,
    asked: u64,
}

impl Peer {
    /// A client that is not linked and not connected.
    pub(crate) fn new(tool: &Tool, simulator: &Handle, number: &str) -> Self {
        Self::trusting(simulator.root_key(), tool, simulator, number)
    }

    /// The same, but it trusts another key than the simulator's.
    pub(crate) fn trusting(root: [u8; 32], tool: &Tool, simulator: &Handle, number: &str) -> Self {
        let mut peer = Self {
            number: number.to_owned(),
            tool: tool.clone(),
            simulator: simulator.clone(),
            root,
            folder: TempDir::new().unwrap(),
            process: None,
            lines: Arc::default(),
            asked: 0,
        };
        peer.spawn();
        peer
    }

    /// A client that is linked by QR and has settled.
    pub(crate) async fn linked(tool: &Tool, simulator: &Handle, number: &str) -> Self {
        let mut peer = Self::new(tool, simulator, number);
        peer.pair_by_qr().await;
        peer
    }

    pub(crate) async fn pair_by_qr(&mut self) {
        self.run("connect", json!({})).await;
        let shown = self.event("qr", |_| true).await;
        self.phone().scan(shown["qr"].as_str().unwrap()).unwrap();
        self.settle().await;
    }

    pub(crate) async fn pair_by_code(&mut self) {
        self.run("connect", json!({"code_for": self.number})).await;
        let shown = self.event("code", |_| true).await;
        let (phone, code) = (self.phone(), shown["code"].as_str().unwrap().to_owned());
        tokio::task::spawn_blocking(move || phone.enter_code(&code)).await.unwrap().unwrap();
        self.settle().await;
    }

    /// Waits until the first login is over: keys of the app state and history have arrived. Before that the phone
    /// still sends, and what the client sends would cross it.
    async fn settle(&mut self) {
        self.event("connected", |_| true).await;
        self.event("offline_done", |_| true).await;
        self.event("history", |_| true).await;
        self.nothing_waits().await;
    }

    /// Why it cannot connect.
    pub(crate) async fn cannot_connect(&mut self) -> String {
        let answer = self.ask("connect", json!({})).await;
        answer["error"].as_str().unwrap_or_else(|| panic!("it has connected: {answer}")).to_owned()
    }

    /// The WhatsApp that it is a client of.
    pub(crate) fn simulator(&self) -> &Handle {
        &self.simulator
    }

    /// The phone that it is linked to.
    pub(crate) fn phone(&self) -> Phone {
        self.simulator.phone(&self.number)
    }

    /// The program ends, as when its user closes it.
    pub(crate) async fn quit(&mut self) {
        self.run("disconnect", json!({})).await;
        let (mut process, stdin) = self.process.take().expect("it runs");
        drop(stdin);
        eventually("the end of the driver", async || process.status()).await;
    }

    /// Another process with the same credentials logs in. It begins to tell anew.
    pub(crate) async fn log_in_again(&mut self) {
        self.lines = Arc::default();
        self.spawn();
        self.run("connect", json!({})).await;
        self.event("connected", |_| true).await;
    }

    /// Sends a text; answers the message id.
    pub(crate) async fn send_text(&mut self, to: &str, text: &str) -> String {
        self.send("send_text", json!({"to": to, "text": text})).await
    }

    /// Sends an image; answers the message id.
    pub(crate) async fn send_image(&mut self, to: &str, image: &[u8], caption: &str) -> String {
        let base64 = BASE64_STANDARD.encode(image);
        self.send("send_image", json!({"to": to, "base64": base64, "caption": caption})).await
    }

    /// Reacts to a message that it sent or received; answers the reaction's id.
    pub(crate) async fn react(&mut self, to: &str, target: &str, text: &str) -> String {
        self.send("react", json!({"to": to, "target": target, "text": text})).await
    }

    /// Its user reads a message.
    pub(crate) async fn read(&mut self, target: &str) {
        self.run("read", json!({"target": target})).await;
    }

    /// Makes a group of these and itself; answers its JID.
    pub(crate) async fn create_group(&mut self, subject: &str, members: &[&str]) -> String {
        let answer = self.run("create_group", json!({"subject": subject, "members": members})).await;
        answer["group"].as_str().unwrap().to_owned()
    }

    /// Sends a poll; answers the message id.
    pub(crate) async fn send_poll(&mut self, to: &str, question: &str, options: &[&str]) -> String {
        self.send("send_poll", json!({"to": to, "text": question, "members": options})).await
    }

    /// Votes in a poll, if the client can.
    pub(crate) async fn vote(&mut self, to: &str, poll: &str, options: &[&str]) {
        self.run("vote", json!({"to": to, "target": poll, "members": options})).await;
    }

    /// Waits for somebody's vote in a poll.
    pub(crate) async fn has_vote(&self, poll: &str, from: &str, option: &str) {
        let hash = hex::encode(Sha256::digest(option));
        self.event("vote", |v| v["poll"] == poll && v["from"] == from && v["options"] == json!([hash])).await;
    }

    /// Refuses a call.
    pub(crate) async fn reject_call(&mut self, call: &str) {
        self.run("reject_call", json!({"target": call})).await;
    }

    /// Downloads a contact's picture; answers its hash, or nothing when there is none.
    pub(crate) async fn picture(&mut self, of: &str) -> String {
        let answer = self.run("picture", json!({"to": of})).await;
        answer["sha256"].as_str().unwrap().to_owned()
    }

    /// Says something of itself.
    pub(crate) async fn set_about(&mut self, text: &str) {
        self.run("set_about", json!({"text": text})).await;
    }

    /// Mutes a chat.
    pub(crate) async fn set_muted(&mut self, chat: &str) {
        self.run("set_muted", json!({"to": chat})).await;
    }

    /// Downloads an image that has expired; answers its hash.
    pub(crate) async fn download_again(&mut self, message: &str) -> String {
        let answer = self.run("download_again", json!({"target": message})).await;
        answer["sha256"].as_str().unwrap().to_owned()
    }

    /// Its user logs out.
    pub(crate) async fn log_out(&mut self) {
        self.run("logout", json!({})).await;
    }

    async fn send(&mut self, command: &str, parameters: Value) -> String {
        let answer = self.run(command, parameters).await;
        answer["message"].as_str().unwrap().to_owned()
    }

    /// Waits for a text in this chat.
    pub(crate) async fn has_text(&self, chat: &str, from: &str, text: &str) -> String {
        let message = self.message(|m| m["kind"] == "text" && m["text"] == text).await;
        assert_eq!((&message["chat"], &message["from"]), (&json!(chat), &json!(from)), "{message}");
        assert_eq!(message["from_me"], json!(from == self.number), "{message}");
        message["id"].as_str().unwrap().to_owned()
    }

    /// Waits for an image, which must have this content.
    pub(crate) async fn has_image(&self, id: &str, image: &[u8], caption: &str) {
        let message = self.message(|m| m["id"] == id).await;
        assert_eq!((&message["kind"], &message["text"]), (&json!("image"), &json!(caption)), "{message}");
        assert_eq!(message["sha256"], hex::encode(Sha256::digest(image)), "{message}");
    }

    /// Waits for a reaction to a message.
    pub(crate) async fn has_reaction(&self, from: &str, target: &str, text: &str) {
        let message = self.message(|m| m["kind"] == "reaction" && m["target"] == target).await;
        assert_eq!((&message["from"], &message["text"]), (&json!(from), &json!(text)), "{message}");
    }

    /// Waits for a receipt of a contact.
    pub(crate) async fn has_receipt(&self, id: &str, from: &str, kind: &str) {
        self.event("receipt", |r| r["id"] == id && r["from"] == from && r["kind"] == kind).await;
    }

    async fn message(&self, is: impl Fn(&Value) -> bool) -> Value {
        self.event("message", is).await
    }

    /// Waits until its phone has what `from` sent it, or what it sent itself.
    pub(crate) async fn phone_has(&self, phone: &Phone, id: &str, text: &str) {
        let found = phone.wait_for(PATIENCE, |message| message.id == id).await;
        let found = found.unwrap_or_else(|error| panic!("{} has no {text}: {error}", phone.number()));
        assert_eq!((found.from.as_str(), found.text.as_str()), (self.number.as_str(), text));
    }

    /// Waits until it and all other devices of its account have acknowledged everything.
    pub(crate) async fn nothing_waits(&self) {
        eventually("an empty queue", async || {
            let devices = self.phone().devices();
            if devices.iter().all(|d| d.queued == 0) { Ok(()) } else { Err(format!("{devices:?}")) }
        })
        .await;
    }

    /// Everything that every test checks of a client at its end.
    #[track_caller]
    pub(crate) fn finish(&self) {
        let lines = self.lines.lock().unwrap();
        let failed: Vec<_> = lines.iter().filter(|line| line["event"] == "failed").collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }

    /// All events of a kind until now.
    pub(crate) fn all(&self, event: &str) -> Vec<Value> {
        self.lines.lock().unwrap().iter().filter(|line| line["event"] == event).cloned().collect()
    }

    /// Waits for an event.
    pub(crate) async fn event(&self, event: &str, is: impl Fn(&Value) -> bool) -> Value {
        let what = format!("`{event}` of {}", self.name());
        eventually(&what, async || {
            let lines = self.lines.lock().unwrap();
            let found = lines.iter().find(|line| line["event"] == event && is(line));
            found.cloned().ok_or_else(|| shown(&lines))
        })
        .await
    }

    /// Runs a command, which must succeed.
    async fn run(&mut self, command: &str, parameters: Value) -> Value {
        let answer = self.ask(command, parameters).await;
        assert_eq!(answer["error"], Value::Null, "{command} of {}", self.name());
        answer
    }

    /// Runs a command.
    async fn ask(&mut self, command: &str, parameters: Value) -> Value {
        self.asked += 1;
        let mut line = parameters;
        line["id"] = json!(self.asked);
        line["run"] = json!(command);
        let (_, stdin) = self.process.as_mut().expect("it runs");
        writeln!(stdin, "{line}").unwrap();
        let what = format!("the answer of {} to {command}", self.name());
        eventually(&what, async || {
            let lines = self.lines.lock().unwrap();
            let found = lines.iter().find(|line| line["answer"] == self.asked);
            found.cloned().ok_or_else(|| shown(&lines))
        })
        .await
    }

    fn name(&self) -> String {
        format!("{:?} {}", self.tool.kind, self.number)
    }

    fn spawn(&mut self) {
        let log = self.folder.path().join("log");
        let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = self.tool.command();
        command.arg(self.simulator.websocket_url()).arg(hex::encode(self.root));
        command.arg(self.folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = Reaped(command.spawn().unwrap());
        let (stdin, stdout) = (process.0.stdin.take().expect("piped"), process.0.stdout.take().expect("piped"));
        self.process = Some((process, stdin));
        let lines = Arc::clone(&self.lines);
        // Ends with the process.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| json!({"event": "failed", "what": line}));
                lines.lock().unwrap().push(line);
            }
        });
    }
}

/// Everything that every test checks of a simulator at its end: nobody did what no client may do, nothing that a client
/// asked for or said was unknown or refused, and no phone failed to decrypt.
#[track_caller]
pub(crate) fn finish(simulator: &Handle) {
    let violations = simulator.violations();
    assert!(violations.is_empty(), "{violations:#?}");
    let stats = simulator.stats();
    for kind in UNWANTED {
        assert_eq!(stats.count(kind), 0, "{kind}\n{stats}");
    }
}

fn shown(lines: &[Value]) -> String {
    let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl Drop for Peer {
    fn drop(&mut self) {
        if thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("kept for a look: {} (log and store of {})", self.folder.path().display(), self.name());
        }
    }
}
