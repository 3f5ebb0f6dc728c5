//! The process that is a node: told what to do by lines on its standard input, telling what happens by lines on its
//! standard output.

use async_trait::async_trait;
use bytes::Bytes;
use rookery_cluster::link::{
    CallError, CertificateFiles, Config, Event, Handler, Inbound, LOG_CAP, Limits, LinkState, Links, PeerAddress,
    Security,
};
use rookery_protocol::{
    Incarnation, SessionId, UserId,
    cluster::{Forwarded, HttpReply, Pong, Principal, Reply, Request, Versions},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

/// The variable in which such a process finds its [`Setup`].
pub(crate) const VARIABLE: &str = "ROOKERY_LINK_NODE";

/// What a node is started with.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) node: String,
    pub(crate) incarnation: u64,
    pub(crate) cluster: String,
    /// Where `ca.crt`, and the node's `.crt` and `.key`, are; without them links are insecure.
    pub(crate) certificates: Option<PathBuf>,
    pub(crate) reload_ms: Option<u64>,
    pub(crate) fast_death: bool,
    pub(crate) calls_per_peer: usize,
    pub(crate) versions: (u16, u16),
}

/// What a node is told.
#[derive(Serialize, Deserialize)]
pub(crate) enum Order {
    /// These are the members: node, incarnation, address.
    Members(Vec<(String, u64, String)>),
    Call {
        id: u64,
        to: String,
        what: What,
        body_bytes: usize,
        deadline_ms: u64,
    },
    Peers {
        id: u64,
    },
    Counts {
        id: u64,
    },
    Reload {
        id: u64,
    },
    Shutdown {
        id: u64,
        grace_ms: u64,
    },
}

/// What is asked of a peer.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum What {
    Ping,
    Path(String),
}

/// What a node tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Ready { address: String },
    CannotStart { reason: String },
    Up { node: String, incarnation: u64 },
    Down { node: String, incarnation: u64, cause: String },
    Gone { node: String, incarnation: u64 },
    Answer { id: u64, answer: Answer },
    Peers { id: u64, peers: Vec<PeerLine> },
    Counts { id: u64, handled: u64, evicted: u64, half_open: u64 },
    Reloaded { id: u64, problem: Option<String> },
    ShutDown { id: u64 },
}

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Http { status: u16, headers: BTreeMap<String, String>, body_bytes: usize },
    Other(String),
    NotSent(String),
    Unknown(String),
}

/// A peer as the node sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeerLine {
    pub(crate) node: String,
    pub(crate) up: bool,
    pub(crate) version: Option<u16>,
    pub(crate) calls: usize,
    pub(crate) last_failure: Option<String>,
}

/// Not a test of its own but the node that other tests start. Started as a test among others it starts itself with a
/// setup that cannot work, and expects to hear so.
#[test]
fn node_process() {
    let Ok(setup) = std::env::var(VARIABLE) else {
        let out = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["node::node_process", "--exact", "--nocapture"])
            .env(VARIABLE, "no setup")
            .output()
            .unwrap();
        assert!(!out.status.success());
        return;
    };
    let setup: Setup = serde_json::from_str(&setup).unwrap();
    let filter = format!("info,{LOG_CAP}");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(setup));
}

fn tell(told: &Told) {
    // One write: lines of several tasks must not mix. The leading line break ends what the test harness printed.
    let line = format!("\n@{}\n", serde_json::to_string(told).unwrap());
    std::io::Write::write_all(&mut std::io::stdout().lock(), line.as_bytes()).unwrap();
}

async fn run(setup: Setup) {
    let (members, view) = watch::channel(vec![]);
    let links = match Links::start(config(&setup), view, Arc::new(Executor::default())).await {
        Ok(links) => links,
        Err(error) => return tell(&Told::CannotStart { reason: error.to_string() }),
    };
    tokio::spawn(tell_events(links.clone()));
    tell(&Told::Ready { address: links.address().to_string() });
    let (orders, mut ordered) = mpsc::unbounded_channel();
    std::thread::spawn(move || std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| orders.send(line)));
    while let Some(line) = ordered.recv().await {
        match serde_json::from_str(&line).unwrap() {
            Order::Members(list) => {
                members.send_replace(list.into_iter().map(address).collect());
            }
            Order::Call { id, to, what, body_bytes, deadline_ms } => {
                let links = links.clone();
                tokio::spawn(async move {
                    let answer = call(&links, id, &to, what, body_bytes, deadline_ms).await;
                    tell(&Told::Answer { id, answer });
                });
            }
            Order::Peers { id } => tell(&Told::Peers { id, peers: peers(&links) }),
            Order::Counts { id } => {
                let counts = links.counts();
                tell(&Told::Counts {
                    id,
                    handled: counts.calls_handled,
                    evicted: counts.handshakes_evicted,
                    half_open: counts.handshakes_open,
                });
            }
            Order::Reload { id } => {
                tell(&Told::Reloaded { id, problem: links.reload().err().map(|error| error.to_string()) });
            }
            Order::Shutdown { id, grace_ms } => {
                links.shutdown(Duration::from_millis(grace_ms)).await;
                tell(&Told::ShutDown { id });
            }
        }
    }
}

fn config(setup: &Setup) -> Config {
    let security = setup.certificates.as_ref().map_or(Security::InsecureLoopback, |dir| Security::MutualTls {
        files: CertificateFiles {
            authority: dir.join("ca.crt"),
            certificate: dir.join(format!("{}.crt", setup.node)),
            key: dir.join(format!("{}.key", setup.node)),
        },
        reload_interval: setup.reload_ms.map(Duration::from_millis),
    });
    Config {
        node: setup.node.parse().unwrap(),
        incarnation: Incarnation(setup.incarnation),
        cluster: setup.cluster.parse().unwrap(),
        listen: "127.0.0.1:0".parse().unwrap(),
        security,
        limits: Limits { calls_per_peer: setup.calls_per_peer, ..Limits::default() },
        fast_death: setup.fast_death,
        versions: Versions { oldest: setup.versions.0, newest: setup.versions.1 },
    }
}

fn address((node, incarnation, address): (String, u64, String)) -> PeerAddress {
    PeerAddress { node: node.parse().unwrap(), incarnation: Incarnation(incarnation), address }
}

async fn tell_events(links: Links) {
    let mut events = links.events();
    while let Ok(event) = events.recv().await {
        let of = |peer: rookery_cluster::link::Peer| (peer.node.to_string(), peer.incarnation.0);
        tell(&match event {
            Event::Up(peer) => {
                let (node, incarnation) = of(peer);
                Told::Up { node, incarnation }
            }
            Event::Down { peer, cause } => {
                let (node, incarnation) = of(peer);
                Told::Down { node, incarnation, cause: cause.to_string() }
            }
            Event::Gone(peer) => {
                let (node, incarnation) = of(peer);
                Told::Gone { node, incarnation }
            }
        });
    }
}

fn peers(links: &Links) -> Vec<PeerLine> {
    let line = |state: rookery_cluster::link::PeerState| PeerLine {
        node: state.peer.node.to_string(),
        up: matches!(state.link, LinkState::Up { .. }),
        version: match state.link {
            LinkState::Up { version, .. } => Some(version),
            _ => None,
        },
        calls: state.calls,
        last_failure: state.last_failure,
    };
    links.peers().into_iter().map(line).collect()
}

async fn call(links: &Links, id: u64, to: &str, what: What, body_bytes: usize, deadline_ms: u64) -> Answer {
    let request = match what {
        What::Ping => Request::Ping,
        What::Path(path) => Request::Http(Forwarded {
            session: Some(SessionId::generate()),
            principal: Principal::User(UserId::generate()),
            method: "POST".into(),
            path,
            headers: vec![],
            body: Bytes::from(vec![b'x'; body_bytes]),
            hops: 1,
        }),
    };
    let deadline = Instant::now() + Duration::from_millis(deadline_ms);
    match links.call(&to.parse().unwrap(), &format!("request-{id}"), request, deadline).await {
        Ok(Reply::Http(reply)) => Answer::Http {
            status: reply.status,
            headers: reply
                .headers
                .into_iter()
                .map(|(name, value)| (name, String::from_utf8(value.to_vec()).unwrap()))
                .collect(),
            body_bytes: reply.body.len(),
        },
        Ok(other) => Answer::Other(format!("{other:?}")),
        Err(CallError::NotSent(reason)) => Answer::NotSent(format!("{reason:?}")),
        Err(CallError::Unknown(reason)) => Answer::Unknown(format!("{reason:?}")),
    }
}

/// What the node does for its peers.
#[derive(Default)]
struct Executor {
    executed: AtomicU64,
}

#[async_trait]
impl Handler for Executor {
    async fn handle(&self, inbound: Inbound) -> Reply {
        let Inbound { from, request_id, deadline, request } = inbound;
        let Request::Http(forwarded) = request else {
            return Reply::Pong(Pong { version: "test".into(), unix_ms: 0 });
        };
        let mut parts = forwarded.path.trim_start_matches('/').split('/');
        let (verb, number) = (parts.next().unwrap(), parts.next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0));
        let mut body = forwarded.body;
        match verb {
            "sleep" => sleep(Duration::from_millis(number)).await,
            "large" => body = Bytes::from(vec![b'y'; usize::try_from(number).unwrap()]),
            "panic" => panic!("as asked for"),
            _ => {}
        }
        let executed = self.executed.fetch_add(u64::from(verb != "count"), Ordering::SeqCst);
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let header = |name: &str, value: String| (name.to_owned(), Bytes::from(value));
        Reply::Http(HttpReply {
            status: 200,
            headers: vec![
                header("from", from.to_string()),
                header("request-id", request_id),
                header("left-ms", left.to_string()),
                header("executed", executed.to_string()),
            ],
            body,
        })
    }
}
