//! Several gateways with one database: every session on exactly one of them, served by all, and taken over when its
//! node is lost.

use crate::{
    client::{Client, answer},
    media::form,
    node::{Node, PATIENCE, eventually},
    storage,
    world::{FRIEND, OWNER, USER, sent},
};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::task::block_in_place;
use whatsapp_simulator::{Config, Handle, Simulator};

/// The key that all nodes have.
const ADMIN_KEY: &str = "the key of all nodes";

/// Gateways that share a database.
struct Cluster {
    simulator: Handle,
    settings: Vec<(String, String)>,
    nodes: Vec<Node>,
    token: String,
}

impl Cluster {
    /// So many nodes with these settings over the usual ones; none where there is no server.
    async fn start(count: usize, settings: &[(&str, &str)]) -> Option<Self> {
        let mut all = block_in_place(storage::cql)?;
        all.push(("ROOKERY_API__ADMIN_KEY".to_owned(), ADMIN_KEY.to_owned()));
        all.push(("ROOKERY_CLUSTER__LISTEN".to_owned(), "127.0.0.1:0".to_owned()));
        all.push(("ROOKERY_CLUSTER__INSECURE".to_owned(), "true".to_owned()));
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let simulator = Simulator::start(Config::default()).await.unwrap();
        for number in [OWNER, FRIEND] {
            simulator.phone(number);
        }
        let mut cluster = Self { simulator, settings: all, nodes: vec![], token: String::new() };
        for _ in 0..count {
            cluster.add().await;
        }
        let body = json!({"name": "test", "user_id": USER});
        let admin = Client::new(cluster.nodes[0].base(), ADMIN_KEY);
        cluster.token = admin.post("/api/api-tokens/generate", &body).await.expect(201).text("token");
        Some(cluster)
    }

    /// Starts one more node and waits until all see it.
    async fn add(&mut self) {
        let id = format!("node-{}", self.nodes.len() + 1);
        let mut settings: Vec<_> = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        settings.push(("ROOKERY_NODE__ID", &id));
        let node = Node::start(&self.simulator, &settings).await;
        self.nodes.push(node);
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.seen(&all).await;
    }

    /// Waits until each of these nodes sees exactly these as active.
    async fn seen(&self, nodes: &[usize]) {
        let mut names: Vec<_> = nodes.iter().map(|at| name(*at)).collect();
        names.sort();
        for at in nodes {
            let admin = Client::new(self.nodes[*at].base(), ADMIN_KEY);
            eventually("all nodes see each other", async || {
                let answer = admin.get("/api/cluster").await;
                let nodes = answer.body["nodes"].as_array().cloned().unwrap_or_default();
                let active = nodes.iter().filter(|node| node["state"] == "active");
                let active: Vec<_> = active.filter_map(|node| node["node_id"].as_str().map(str::to_owned)).collect();
                if active == names { Ok(()) } else { Err(format!("{} {}", answer.status, answer.body)) }
            })
            .await;
        }
    }

    /// A caller of this node.
    fn client(&self, at: usize) -> Client {
        Client::new(self.nodes[at].base(), &self.token)
    }

    /// A session that the phone with this number has linked through the API of this node.
    async fn link(&self, at: usize, number: &str) -> String {
        let client = self.client(at);
        let body = json!({"session_name": number});
        let session = client.post("/api/whatsapp/sessions", &body).await.expect(201).text("session_id");
        let waiting = self.status_where(at, &session, "a QR code", |now| now["status"] == "SCAN_QR_CODE").await;
        self.simulator.phone(number).scan(waiting["qr"].as_str().expect("a QR code")).unwrap();
        let settled = |now: &Value| now["status"] == "WORKING" && now["history_sync"]["done"] == true;
        self.status_where(at, &session, "linked", settled).await;
        session
    }

    /// Waits until the session is as described, as this node's API shows it.
    async fn status_where(&self, at: usize, session: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let client = self.client(at);
        eventually(what, async || {
            let answer = client.get(&format!("/api/whatsapp/sessions/{session}/status")).await;
            if answer.status == 200 && is(&answer.body) { Ok(answer.body) } else { Err(format!("{answer:?}")) }
        })
        .await
    }

    /// On which node the session is, as this node's API shows it.
    async fn owner(&self, at: usize, session: &str) -> usize {
        let working = |now: &Value| now["status"] == "WORKING" && now["node"].is_string();
        let now = self.status_where(at, session, "working somewhere", working).await;
        let node = now["node"].as_str().unwrap().to_owned();
        (0..self.nodes.len()).find(|at| name(*at) == node).expect("one of the nodes")
    }

    /// Where all sessions of the user are.
    async fn owners(&self, at: usize) -> BTreeMap<String, String> {
        let rows = self.client(at).all("/api/whatsapp/sessions?limit=200").await;
        let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
        rows.iter().map(|row| (text(row, "session_id"), text(row, "node"))).collect()
    }

    /// Sends a text through this node's API; it must be acknowledged.
    async fn send(&self, at: usize, session: &str, text: &str) -> String {
        sent(self.client(at).send(session, FRIEND, text).await)
    }

    async fn arrived(&self, id: &str) {
        self.simulator.phone(FRIEND).wait_for(PATIENCE, |message| message.id == id).await.expect("the message arrives");
    }

    #[track_caller]
    fn finish(&self) {
        let violations = self.simulator.violations();
        assert!(violations.is_empty(), "{violations:#?}");
        for node in &self.nodes {
            let log = node.log();
            let panics: Vec<_> = log.lines().filter(|line| line.contains("panicked")).collect();
            assert!(panics.is_empty(), "{panics:#?}");
        }
    }
}

fn name(at: usize) -> String {
    format!("node-{}", at + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_serves_every_session() {
    let Some(cluster) = Cluster::start(3, &[]).await else { return };
    let session = cluster.link(0, OWNER).await;
    let owner = cluster.owner(0, &session).await;
    let path = format!("/api/whatsapp/sessions/{session}");
    for at in 0..3 {
        assert_eq!(cluster.owner(at, &session).await, owner, "all say the same");
        let id = cluster.send(at, &session, &format!("by node {at}")).await;
        cluster.arrived(&id).await;
    }
    let delivered = |rows: &[Value]| rows.len() >= 3 && rows.iter().all(|row| row["status"] == "delivered");
    let mut keyed = vec![];
    for at in 0..3 {
        let client = cluster.client(at);
        eventually("the same history everywhere", async || {
            let rows = client.history(&session).await;
            if delivered(&rows) { Ok(()) } else { Err(format!("{rows:?}")) }
        })
        .await;
        assert_eq!(client.all("/api/whatsapp/sessions?limit=200").await.len(), 1);
        client.post("/api/whatsapp/messages/text", &json!({"session_id": session, "to": "?"})).await.expect(422);
        keyed.push(client.send_keyed(&session, FRIEND, "once", "the same key").await.expect(200).text("message_id"));
        client.get(&format!("{path}/qr")).await.expect(409);
        client.get(&format!("{path}/contacts")).await.expect(200);
        client.get(&format!("{path}/chats")).await.expect(200);
        client.get(&format!("/api/whatsapp/sessions/{OWNER}")).await.expect(200);
        client.get(&format!("/api/whatsapp/sessions/{}/status", uuid::Uuid::nil())).await.expect(404);
    }
    assert!(keyed.iter().all(|id| *id == keyed[0]), "one key, one message: {keyed:?}");
    let other = (owner + 1) % 3;
    let client = cluster.client(other);
    let send = |size| {
        let file = vec![b'x'; size];
        let fields: [(&str, Option<&str>, &[u8]); 4] = [
            ("session_id", None, session.as_bytes()),
            ("to", None, FRIEND.as_bytes()),
            ("type", None, b"document"),
            ("file", Some("notes.txt"), &file),
        ];
        let (content_type, body) = form(&fields);
        let request = client.request(Method::POST, "/api/whatsapp/messages/media");
        answer(request.header("content-type", content_type).body(body))
    };
    let id = sent(send(500_000).await);
    cluster.arrived(&id).await;
    let file = client.get(&format!("{path}/messages/{id}/media")).await.expect(200);
    assert_eq!(file.bytes.len(), 500_000);
    let refused = send(2_000_000).await.expect(413);
    assert!(refused.text("message").contains("media_url"), "{refused:?}");
    cluster.client(other).delete(&format!("{path}/disconnect")).await.expect(200);
    cluster.status_where(other, &session, "stopped", |now| now["status"] == "STOPPED").await;
    cluster.client(other).post(&format!("{path}/connect"), &json!({})).await.expect(200);
    cluster.status_where(other, &session, "working", |now| now["status"] == "WORKING").await;
    cluster.client(other).delete(&path).await.expect(200);
    for at in 0..3 {
        cluster.client(at).get(&format!("{path}/status")).await.expect(404);
    }
    cluster.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_of_a_killed_node_go_on_elsewhere() {
    let Some(mut cluster) = Cluster::start(3, &[]).await else { return };
    let numbers: Vec<_> = (0..6).map(|at| format!("1555010{at:04}")).collect();
    let mut sessions = vec![];
    for (at, number) in numbers.iter().enumerate() {
        sessions.push(cluster.link(at % 3, number).await);
    }
    let victim = cluster.owner(0, &sessions[0]).await;
    let before = cluster.owners((victim + 1) % 3).await;
    cluster.nodes[victim].kill();
    let left: Vec<_> = (0..3).filter(|at| *at != victim).collect();
    cluster.seen(&left).await;
    for session in &sessions {
        let owner = cluster.owner(left[0], session).await;
        assert_ne!(owner, victim);
        if before[session] != name(victim) {
            assert_eq!(name(owner), before[session], "nobody else's session moves");
        }
        let id = cluster.send(left[1], session, "after the loss").await;
        cluster.arrived(&id).await;
    }
    cluster.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_in_order_hands_its_sessions_over() {
    let Some(mut cluster) = Cluster::start(2, &[]).await else { return };
    let session = cluster.link(0, OWNER).await;
    let owner = cluster.owner(0, &session).await;
    let other = 1 - owner;
    cluster.nodes[owner].stop().await;
    assert_eq!(cluster.owner(other, &session).await, other);
    let id = cluster.send(other, &session, "from the other").await;
    cluster.arrived(&id).await;
    cluster.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_finds_itself_dead_and_ends() {
    let quick = [
        ("ROOKERY_CLUSTER__RENEW_MS", "500"),
        ("ROOKERY_CLUSTER__RENEW_TIMEOUT_MS", "1500"),
        ("ROOKERY_CLUSTER__LEASE_MS", "3000"),
        ("ROOKERY_CLUSTER__OBSERVE_MS", "5000"),
        ("ROOKERY_CLUSTER__POLL_MS", "500"),
    ];
    let Some(mut cluster) = Cluster::start(2, &quick).await else { return };
    let session = cluster.link(0, OWNER).await;
    let owner = cluster.owner(0, &session).await;
    let other = 1 - owner;
    cluster.nodes[owner].signal(Signal::STOP);
    assert_eq!(cluster.owner(other, &session).await, other);
    let id = cluster.send(other, &session, "while it sleeps").await;
    cluster.arrived(&id).await;
    cluster.nodes[owner].signal(Signal::CONT);
    let status = cluster.nodes[owner].ended().await;
    assert!(!status.success(), "it says that it was declared dead: {status}");
    assert_eq!(cluster.owner(other, &session).await, other, "nothing was taken from the new owner");
    let id = cluster.send(other, &session, "afterwards").await;
    cluster.arrived(&id).await;
    cluster.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_gets_its_part_and_nothing_else_moves() {
    let Some(mut cluster) = Cluster::start(2, &[]).await else { return };
    let mut sessions = vec![];
    for at in 0..20 {
        sessions.push(cluster.link(at % 2, &format!("1555020{at:04}")).await);
    }
    let before = cluster.owners(0).await;
    cluster.add().await;
    let after = eventually("the new node has sessions, and all work", async || {
        let rows = cluster.client(2).all("/api/whatsapp/sessions?limit=200").await;
        let settled = rows.iter().all(|row| row["status"] == "WORKING" && row["node"].is_string());
        let after = cluster.owners(0).await;
        let moved = after.values().filter(|node| **node == name(2)).count();
        // That it gets none of twenty by chance is one in three thousand.
        if settled && moved > 0 { Ok(after) } else { Err(format!("{after:?}")) }
    });
    let after = tokio::time::timeout(Duration::from_secs(60), after).await.expect("the new node gets its part");
    for session in &sessions {
        assert!(after[session] == before[session] || after[session] == name(2), "{before:?} {after:?}");
        let id = cluster.send(2, session, "wherever it is").await;
        cluster.arrived(&id).await;
    }
    cluster.finish();
}
