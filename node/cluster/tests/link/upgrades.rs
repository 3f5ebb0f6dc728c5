//! Nodes of neighbouring releases side by side.

use crate::{
    cluster::{Node, introduce, setup, start},
    node::{Answer, Setup},
    pki,
};
use rustix::process::Signal;

#[tokio::test]
async fn neighbouring_versions_link_and_distant_ones_say_why_not() {
    let dir = pki::cluster("c", &["a", "b", "d"]);
    let of = |node, incarnation, versions| Setup { versions, ..setup(node, incarnation, Some(dir.path())) };
    // The old release, the one between, and one that no longer speaks with the old.
    let [mut a, mut b, mut d] = start([of("a", 1, (1, 1)), of("b", 2, (1, 2)), of("d", 3, (2, 2))]).await;
    assert_eq!(a.linked("b").await.version, Some(1));
    assert_eq!(b.linked("a").await.version, Some(1));
    assert_eq!(b.linked("d").await.version, Some(2));
    for node in [&mut a, &mut d] {
        assert!(matches!(node.call("b", "/echo").await, Answer::Http { status: 200, .. }));
    }
    for to in ["a", "d"] {
        assert!(matches!(b.call(to, "/echo").await, Answer::Http { status: 200, .. }));
    }
    a.wait_log(&["link refused", "speaks no common version"]).await;
    d.wait_log(&["no link", "node=a", "speaks no common version"]).await;
    let failure = d.peers().await.into_iter().find(|peer| peer.node == "a").unwrap().last_failure;
    assert!(failure.unwrap().contains("no common version"));

    // The old one is replaced, and all speak the new version.
    a.signal(Signal::KILL);
    let mut a = Node::start(of("a", 4, (1, 2))).await;
    introduce(&mut [&mut a, &mut b, &mut d]).await;
    assert_eq!(a.linked("b").await.version, Some(2));
    assert_eq!(a.linked("d").await.version, Some(2));
    assert!(matches!(d.call("a", "/echo").await, Answer::Http { status: 200, .. }));
}
