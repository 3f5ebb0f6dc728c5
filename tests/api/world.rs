//! A simulated WhatsApp, a gateway that knows it, and a user of the gateway.

use crate::{
    client::{Answer, Client},
    node::{Node, PATIENCE, eventually},
};
use serde_json::{Value, json};
use std::{sync::Mutex, time::Duration};
use tokio::task::JoinHandle;
use whatsapp_simulator::{Config, Handle, InboxMessage, Phone, Simulator, StateChange};

/// The account that tests link.
pub(crate) const OWNER: &str = "15550001001";
/// A phone to write to.
pub(crate) const FRIEND: &str = "15550002002";
/// A user id.
pub(crate) const USER: &str = "7f8f3a52-60a5-4a8e-9d38-d5a2b5a1c001";
/// Another user's id.
pub(crate) const STRANGER: &str = "7f8f3a52-60a5-4a8e-9d38-d5a2b5a1c002";

/// Everything that a test needs.
pub(crate) struct World {
    pub simulator: Handle,
    pub node: Node,
    pub client: Client,
    /// Announces a change of the owner's app state again and again.
    announcing: Mutex<Option<JoinHandle<()>>>,
}

impl World {
    /// A simulator, a gateway with the usual settings and a user with a token.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same with settings over the usual ones.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let simulator = Simulator::start(Config::default()).await.unwrap();
        // Whoever is written to has to be on WhatsApp.
        for number in [OWNER, FRIEND] {
            simulator.phone(number);
        }
        let node = Node::start(&simulator, settings).await;
        let client = Client::new(node.base(), "");
        let mut world = Self { simulator, node, client, announcing: Mutex::default() };
        world.client = world.client.with_token(&world.token(USER).await);
        world
    }

    /// With a linked session, whose id is answered.
    pub(crate) async fn linked(settings: &[(&str, &str)]) -> (Self, String) {
        let world = Self::with(settings).await;
        let session = world.link(OWNER).await;
        (world, session)
    }

    /// The administrator.
    pub(crate) fn admin(&self) -> Client {
        self.client.at(self.node.base()).with_token(self.node.admin_key())
    }

    /// A fresh token of this user.
    pub(crate) async fn token(&self, user: &str) -> String {
        let body = json!({"name": "test", "user_id": user});
        self.admin().post("/api/api-tokens/generate", &body).await.expect(201).text("token")
    }

    /// Another user.
    pub(crate) async fn stranger(&self) -> Client {
        self.client.with_token(&self.token(STRANGER).await)
    }

    /// A new session that is not linked.
    pub(crate) async fn create(&self) -> String {
        let body = json!({"session_name": "test"});
        self.client.post("/api/whatsapp/sessions", &body).await.expect(201).text("session_id")
    }

    /// A new session that the phone with this number has linked, and that is connected.
    pub(crate) async fn link(&self, number: &str) -> String {
        let session = self.create().await;
        self.pair(&session, number).await;
        session
    }

    /// Links an existing session.
    pub(crate) async fn pair(&self, session: &str, number: &str) -> Value {
        self.scan(session, number).await;
        // The account's name and its history come last; from then on the session shows no more changes by itself.
        let settled = |now: &Value| {
            now["status"] == "WORKING" && now["push_name"].is_string() && now["history_sync"]["done"] == true
        };
        self.session_where(session, "WORKING", settled).await
    }

    /// Lets the phone with this number scan a session's QR code.
    pub(crate) async fn scan(&self, session: &str, number: &str) {
        let waiting = self.status_is(session, "SCAN_QR_CODE").await;
        self.phone(number).scan(waiting["qr"].as_str().expect("a QR code")).unwrap();
    }

    /// The session as its status route shows it.
    pub(crate) async fn status(&self, session: &str) -> Value {
        self.client.get(&format!("/api/whatsapp/sessions/{session}/status")).await.expect(200).body
    }

    /// Waits until the session has this status.
    pub(crate) async fn status_is(&self, session: &str, status: &str) -> Value {
        self.session_where(session, status, |now| now["status"] == status).await
    }

    /// Waits until the session is as described.
    pub(crate) async fn session_where(&self, session: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || {
            let now = self.status(session).await;
            if is(&now) { Ok(now) } else { Err(now.to_string()) }
        })
        .await
    }

    /// Waits until the session's history is as described.
    pub(crate) async fn history_where(&self, session: &str, what: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        eventually(what, async || {
            let rows = self.client.history(session).await;
            if is(&rows) { Ok(rows) } else { Err(format!("{rows:?}")) }
        })
        .await
    }

    /// Waits until every message of ours has arrived, so that the history shows no more changes by itself.
    pub(crate) async fn all_delivered(&self, session: &str) {
        let settled = |row: &Value| row["from_me"] == false || row["status"] == "delivered";
        self.history_where(session, "all delivered", |rows| rows.iter().all(settled)).await;
    }

    /// Waits until a message of the session is as described.
    pub(crate) async fn message_where(&self, session: &str, id: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually("the message's state", async || {
            let now = self.client.get(&format!("/api/whatsapp/sessions/{session}/messages/{id}")).await;
            if now.status == 200 && is(&now.body) { Ok(now.body) } else { Err(format!("{} {}", now.status, now.body)) }
        })
        .await
    }

    /// Sends a text that must be acknowledged; answers its message id.
    pub(crate) async fn send(&self, session: &str, to: &str, text: &str) -> String {
        sent(self.client.send(session, to, text).await)
    }

    /// What the user has; compared before and after what must change nothing.
    pub(crate) async fn everything(&self) -> Value {
        let sessions = self.client.all("/api/whatsapp/sessions?limit=200").await;
        let mut histories = vec![];
        for session in &sessions {
            histories.push(self.client.history(session["session_id"].as_str().unwrap()).await);
        }
        let tokens = self.admin().get(&format!("/api/api-tokens?user_id={USER}")).await.expect(200).body;
        json!({"sessions": sessions, "histories": histories, "tokens": tokens})
    }

    /// The phone with this number.
    pub(crate) fn phone(&self, number: &str) -> Phone {
        self.simulator.phone(number)
    }

    /// The owner's phone changes the account's app state, again and again until [`World::has_changed`]: the WhatsApp
    /// library passes over a change that is announced while it fetches the one before, and the next brings both.
    pub(crate) fn change_state(&self, changes: &[StateChange]) {
        const PERIOD: Duration = Duration::from_secs(3);
        let (phone, changes) = (self.phone(OWNER), changes.to_vec());
        phone.change_state(&changes).unwrap();
        let again = tokio::spawn(async move {
            loop {
                tokio::time::sleep(PERIOD).await;
                phone.change_state(&changes).unwrap();
            }
        });
        self.announce(Some(again));
    }

    /// The change of the app state is there.
    pub(crate) fn has_changed(&self) {
        self.announce(None);
    }

    fn announce(&self, again: Option<JoinHandle<()>>) {
        let before = std::mem::replace(&mut *self.announcing.lock().unwrap(), again);
        if let Some(before) = before {
            before.abort();
        }
    }

    /// Waits until a phone has the message with this id.
    pub(crate) async fn arrived(&self, number: &str, id: &str) -> InboxMessage {
        self.phone(number).wait_for(PATIENCE, |message| message.id == id).await.expect("the message arrives")
    }

    /// Stops the gateway with SIGTERM and starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        self.node.stop().await;
        self.start_again().await;
    }

    /// Starts the gateway again after it has ended.
    pub(crate) async fn start_again(&mut self) {
        self.node.start_again().await;
        self.client = self.client.at(self.node.base());
    }

    /// Everything that every test checks at its end.
    #[track_caller]
    pub(crate) fn finish(&self) {
        self.finish_after_panics();
        let log = self.node.log();
        let panics: Vec<_> = log.lines().filter(|line| line.contains("panicked")).collect();
        assert!(panics.is_empty(), "{panics:#?}");
    }

    /// The same after a test that made something panic.
    #[track_caller]
    pub(crate) fn finish_after_panics(&self) {
        let violations = self.simulator.violations();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

/// The message id of an acknowledged send.
#[track_caller]
pub(crate) fn sent(answer: Answer) -> String {
    let answer = answer.expect(200);
    assert_eq!(answer.body["status"], "sent", "{}", answer.body);
    answer.text("message_id")
}

/// The seed of a random test, from the environment or fresh; printed so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("ROOKERY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("ROOKERY_SEED={seed}");
    seed
}
