//! Certificates that are not accepted, each with a line in the log that says why, and certificates that are replaced.

use crate::{
    cluster::{Node, introduce, setup, start},
    node::{Answer, Setup},
    pki,
    strangers::greet,
};
use rustix::process::Signal;
use std::{fs, path::Path, time::Duration};

const HOUR: Duration = Duration::from_secs(3600);

/// Greets as run 2 of node `b` with this certificate and waits for the node's complaint.
async fn refused(node: &Node, dir: &Path, shows: Option<(&Path, &str)>, complaint: &str) {
    if let Ok(mut stream) = pki::connect(&node.address, dir, shows).await {
        // Whether the refusal comes as a verdict or as an end of the connection, it is no acceptance.
        assert_ne!(greet(&mut stream, "b", 2, "c", (1, 1)).await.ok(), Some(0), "{complaint}");
    }
    node.wait_log(&["link refused", complaint]).await;
}

#[tokio::test]
async fn every_wrong_certificate_is_refused_with_its_reason() {
    let (dir, other) = (pki::cluster("c", &["a", "b", "x"]), pki::cluster("c", &["a", "b"]));
    let (dir, other) = (dir.path(), other.path());
    pki::issue(dir, "old", "rookery://c/b", 2 * HOUR, None);
    pki::issue(dir, "elsewhere", "rookery://d/b", HOUR, Some(HOUR));
    pki::issue(dir, "nameless", "https://c/b", HOUR, Some(HOUR));
    let mut a = Node::start(setup("a", 1, Some(dir))).await;
    a.order(&crate::node::Order::Members(vec![a.member(), ("b".into(), 2, "127.0.0.1:1".into())])).await;

    refused(&a, dir, None, "shows no certificate").await;
    refused(&a, dir, Some((other, "b")), "certificate is of another authority").await;
    refused(&a, dir, Some((dir, "old")), "certificate has expired").await;
    refused(&a, dir, Some((dir, "elsewhere")), "belongs to another cluster").await;
    refused(&a, dir, Some((dir, "x")), "shows a certificate of another node").await;
    refused(&a, dir, Some((dir, "nameless")), "shows a certificate that names no node").await;

    // The right one is taken, so that it was the certificates that were wrong.
    let mut stream = pki::connect(&a.address, dir, Some((dir, "b"))).await.unwrap();
    assert_eq!(greet(&mut stream, "b", 2, "c", (1, 1)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_node_with_the_wrong_authority_is_refused_and_both_say_so() {
    let (dir, other) = (pki::cluster("c", &["a"]), pki::cluster("c", &["b"]));
    let [a, mut b] = start([setup("a", 1, Some(dir.path())), setup("b", 2, Some(other.path()))]).await;
    b.wait_log(&["no link", "node=a", "certificate is of another authority"]).await;
    a.wait_log(&["link refused", "refuses our certificate"]).await;
    assert_eq!(b.call("a", "/echo").await, Answer::NotSent("NoLink".into()));
}

#[tokio::test]
async fn a_node_does_not_start_with_a_certificate_that_no_peer_would_take() {
    let dir = pki::cluster("c", &["b"]);
    let dir = dir.path();
    pki::issue(dir, "a", "rookery://c/a", 2 * HOUR, None);
    let problem = async |setup: Setup| Node::try_start(setup).await.err().expect("it starts");
    let expired = problem(setup("a", 1, Some(dir))).await;
    assert!(expired.contains("a.crt") && expired.contains("expired"), "{expired}");
    fs::copy(dir.join("b.crt"), dir.join("a.crt")).unwrap();
    fs::copy(dir.join("b.key"), dir.join("a.key")).unwrap();
    let foreign = problem(setup("a", 1, Some(dir))).await;
    assert!(foreign.contains("names rookery://c/b, but this node is rookery://c/a"), "{foreign}");
    let missing = problem(setup("z", 1, Some(dir))).await;
    assert!(missing.contains("z.crt"), "{missing}");
}

/// Puts the files of another folder in place, whole ones at once.
fn replace(from: &Path, to: &Path, files: &[&str]) {
    for file in files {
        fs::copy(from.join(file), to.join("new")).unwrap();
        fs::rename(to.join("new"), to.join(file)).unwrap();
    }
}

#[tokio::test]
async fn certificates_are_replaced_while_the_nodes_run() {
    let (a_dir, b_dir) = (pki::cluster("c", &["a", "b"]), pki::cluster("c", &[]));
    let (a_dir, b_dir) = (a_dir.path(), b_dir.path());
    replace(a_dir, b_dir, &["ca.crt", "b.crt", "b.key"]);
    let old = pki::cluster("c", &[]);
    replace(a_dir, old.path(), &["ca.crt", "b.crt", "b.key"]);
    // One node notices by itself, the other is told.
    let noticing = Setup { reload_ms: Some(100), ..setup("a", 1, Some(a_dir)) };
    let [mut a, mut b] = start([noticing, setup("b", 2, Some(b_dir))]).await;
    b.linked("a").await;

    fs::write(b_dir.join("b.crt"), "broken").unwrap();
    assert!(b.reload().await.unwrap().contains("b.crt"));

    let new = pki::cluster("c", &["a", "b"]);
    replace(new.path(), a_dir, &["ca.crt", "a.crt", "a.key"]);
    replace(new.path(), b_dir, &["ca.crt", "b.crt", "b.key"]);
    a.wait_log(&["certificates of links read again"]).await;
    assert_eq!(b.reload().await, None);
    assert!(matches!(b.call("a", "/echo").await, Answer::Http { .. }), "the link stays");

    // A new handshake uses the new authority, and the old one is worth nothing any more.
    let mut stale = pki::connect(&a.address, new.path(), Some((old.path(), "b"))).await.unwrap();
    assert!(greet(&mut stale, "b", 2, "c", (1, 1)).await.is_err());
    a.wait_log(&["link refused", "certificate is of another authority"]).await;
    b.signal(Signal::KILL);
    let mut b = Node::start(setup("b", 3, Some(b_dir))).await;
    introduce(&mut [&mut a, &mut b]).await;
    b.linked("a").await;
    assert!(matches!(b.call("a", "/echo").await, Answer::Http { .. }));
}
