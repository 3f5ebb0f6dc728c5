//! How fast two nodes call each other on this machine: calls a second and latency, with and without TLS.
//!
//! `cargo run --release -p rookery-cluster --example link_throughput [SECONDS]`. Starts itself again as the node that
//! is called. Bodies are 200 bytes each way.

use async_trait::async_trait;
use bytes::Bytes;
use rookery_cluster::{
    certs,
    link::{CertificateFiles, Config, Handler, Inbound, Limits, LinkState, Links, PeerAddress, Security},
};
use rookery_protocol::{
    Incarnation, NodeId, SessionId, UserId,
    cluster::{Forwarded, HttpReply, Principal, Reply, Request, Versions},
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// In which the process that is called finds the folder of the certificates; empty without.
const CALLED: &str = "ROOKERY_LINK_CALLED";

const BODY_BYTES: usize = 200;

struct Echo;

#[async_trait]
impl Handler for Echo {
    async fn handle(&self, inbound: Inbound) -> Reply {
        let Request::Http(forwarded) = inbound.request else { return Reply::Frozen };
        Reply::Http(HttpReply { status: 200, headers: vec![], body: forwarded.body })
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let Ok(dir) = std::env::var(CALLED) {
        return runtime.block_on(be_called(&dir));
    }
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3);
    let dir = std::env::temp_dir().join(format!("link-throughput-{}", std::process::id()));
    certs::init(&dir, &"c".parse().expect("a name"), 1).expect("an authority");
    for node in ["a", "b"] {
        certs::node(&dir, &node.parse().expect("a name"), &[], 1).expect("a certificate");
    }
    println!("{:<12} {:>9} {:>9} {:>9} {:>9} {:>7}", "link", "in flight", "calls/s", "p50 ms", "p99 ms", "failed");
    for (name, certificates) in [("plain", ""), ("mutual TLS", dir.to_str().expect("a path in UTF-8"))] {
        runtime.block_on(measure(name, certificates, Duration::from_secs(seconds)));
    }
    std::fs::remove_dir_all(&dir).expect("the folder made above");
}

fn config(node: &str, dir: &str) -> Config {
    let path = |name: String| Path::new(dir).join(name);
    Config {
        node: node.parse().expect("a name"),
        incarnation: Incarnation(1),
        cluster: "c".parse().expect("a name"),
        listen: ([127, 0, 0, 1], 0).into(),
        security: if dir.is_empty() {
            Security::InsecureLoopback
        } else {
            Security::MutualTls {
                files: CertificateFiles {
                    authority: path("ca.crt".into()),
                    certificate: path(format!("{node}.crt")),
                    key: path(format!("{node}.key")),
                },
                reload_interval: None,
            }
        },
        limits: Limits { calls_per_peer: 1024, ..Limits::default() },
        fast_death: true,
        versions: Versions::OURS,
    }
}

fn member(node: &str, address: String) -> PeerAddress {
    PeerAddress { node: node.parse().expect("a name"), incarnation: Incarnation(1), address }
}

/// Tells where it listens and is called until its standard input ends.
async fn be_called(dir: &str) {
    let (_members, view) = watch::channel(vec![member("b", "127.0.0.1:1".into())]);
    let links = Links::start(config("a", dir), view, Arc::new(Echo)).await.expect("links");
    println!("{}", links.address());
    std::io::stdout().flush().expect("a pipe");
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut vec![]));
    let _ = ended.await;
}

async fn measure(name: &str, dir: &str, time: Duration) {
    let mut called = Command::new(std::env::current_exe().expect("this program"))
        .env(CALLED, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program again");
    let mut address = String::new();
    BufReader::new(called.stdout.as_mut().expect("piped")).read_line(&mut address).expect("its address");
    let (_members, view) = watch::channel(vec![member("a", address.trim().to_owned())]);
    let links = Links::start(config("b", dir), view, Arc::new(Echo)).await.expect("links");
    while !links.peers().iter().any(|peer| matches!(peer.link, LinkState::Up { .. })) {
        sleep(Duration::from_millis(10)).await;
    }
    for in_flight in [1, 64, 512] {
        let (mut latencies, failed, took) = load(&links, in_flight, time).await;
        latencies.sort_unstable();
        let at =
            |share: f64| latencies.get((latencies.len() as f64 * share) as usize).map_or(0.0, Duration::as_secs_f64);
        println!(
            "{name:<12} {in_flight:>9} {:>9.0} {:>9.2} {:>9.2} {failed:>7}",
            latencies.len() as f64 / took.as_secs_f64(),
            at(0.5) * 1e3,
            at(0.99) * 1e3,
        );
    }
    links.shutdown(Duration::from_secs(1)).await;
    drop(called.stdin.take());
    called.wait().expect("the process started above");
}

/// Keeps so many calls in flight for this time; answers the latencies, how many failed, and how long it took.
async fn load(links: &Links, in_flight: usize, time: Duration) -> (Vec<Duration>, usize, Duration) {
    let to: NodeId = "a".parse().expect("a name");
    let (start, end) = (Instant::now(), Instant::now() + time);
    let callers: Vec<_> = (0..in_flight)
        .map(|_| {
            let (links, to) = (links.clone(), to.clone());
            tokio::spawn(async move {
                let (mut latencies, mut failed) = (vec![], 0);
                while Instant::now() < end {
                    let began = Instant::now();
                    match links.call(&to, "r", request(), began + Duration::from_secs(10)).await {
                        Ok(Reply::Http(reply)) if reply.body.len() == BODY_BYTES => latencies.push(began.elapsed()),
                        _ => failed += 1,
                    }
                }
                (latencies, failed)
            })
        })
        .collect();
    let (mut latencies, mut failed) = (vec![], 0);
    for caller in callers {
        let (of_caller, failures) = caller.await.expect("no panic");
        latencies.extend(of_caller);
        failed += failures;
    }
    (latencies, failed, start.elapsed())
}

fn request() -> Request {
    Request::Http(Forwarded {
        session: Some(SessionId::from_bytes([1; 16])),
        principal: Principal::User(UserId::from_bytes([2; 16])),
        method: "POST".into(),
        path: "/api/whatsapp/messages/text".into(),
        headers: vec![("content-type".into(), Bytes::from_static(b"application/json"))],
        body: Bytes::from(vec![b'x'; BODY_BYTES]),
        hops: 1,
    })
}
