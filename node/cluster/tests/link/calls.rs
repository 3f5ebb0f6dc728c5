//! Calls between nodes whose links are as they should be.

use crate::{
    cluster::{Node, SOON, header, setup, start},
    node::{Answer, What},
    pki,
};
use std::time::{Duration, Instant};
use tokio::time::sleep;

async fn call_each_other(nodes: &mut [Node]) {
    let names: Vec<String> = nodes.iter().map(|node| node.name().to_owned()).collect();
    for node in nodes {
        let me = format!("{}~{}", node.name(), node.setup.incarnation);
        for to in names.iter().filter(|name| *name != node.name()).cloned().collect::<Vec<_>>() {
            node.linked(&to).await;
            let call = node.begin_with(&to, What::Path("/echo".into()), 1000, 20_000).await;
            let answer = node.answer(call).await;
            assert_eq!(header(&answer, "from"), me);
            assert_eq!(header(&answer, "request-id"), format!("request-{call}"));
            assert!(matches!(answer, Answer::Http { status: 200, body_bytes: 1000, .. }), "{answer:?}");
            let ping = node.begin_with(&to, What::Ping, 0, 20_000).await;
            assert!(matches!(node.answer(ping).await, Answer::Other(reply) if reply.starts_with("Pong")));
        }
    }
}

#[tokio::test]
async fn two_processes_call_each_other_without_certificates() {
    let mut nodes = start([setup("a", 11, None), setup("b", 12, None)]).await;
    call_each_other(&mut nodes).await;
}

#[tokio::test]
async fn three_processes_call_each_other_over_mutual_tls() {
    let dir = pki::cluster("c", &["a", "b", "B"]);
    let dir = Some(dir.path());
    let mut nodes = start([setup("a", 1, dir), setup("b", 2, dir), setup("B", 3, dir)]).await;
    call_each_other(&mut nodes).await;
}

#[tokio::test]
async fn what_was_not_sent_is_told_from_what_failed() {
    let [mut a, mut b] = start([setup("a", 1, None), setup("b", 2, None)]).await;
    a.linked("b").await;
    b.linked("a").await;
    assert_eq!(a.call("nobody", "/echo").await, Answer::NotSent("NoLink".into()));
    let late = a.begin("b", "/echo", 0).await;
    assert_eq!(a.answer(late).await, Answer::NotSent("DeadlinePassed".into()));
    let large = a.begin_with("b", What::Path("/echo".into()), 4 << 20, 20_000).await;
    assert_eq!(a.answer(large).await, Answer::NotSent("TooLarge".into()));
    assert_eq!(header(&a.call("b", "/count").await, "executed"), "0", "none of these was executed");

    let largest = a.begin_with("b", What::Path("/echo".into()), (4 << 20) - 1024, 20_000).await;
    assert!(matches!(a.answer(largest).await, Answer::Http { body_bytes, .. } if body_bytes == (4 << 20) - 1024));
    assert!(matches!(a.call("b", "/large/5000000").await, Answer::Other(reply) if reply.contains("ReplyTooLarge")));
    let started = Instant::now();
    assert!(matches!(a.call("b", "/panic").await, Answer::Other(reply) if reply.contains("Internal")));
    assert!(started.elapsed() < Duration::from_secs(10), "a handler that panics answers, its caller need not wait");
    let slow = a.begin("b", "/sleep/2000", 200).await;
    assert_eq!(a.answer(slow).await, Answer::Unknown("Deadline".into()));
    assert!(matches!(a.call("b", "/echo").await, Answer::Http { .. }), "the link is as it was");
    assert_eq!(b.count_logged("link down"), 0);
}

#[tokio::test]
async fn the_deadline_goes_along() {
    let [mut a, _b] = start([setup("a", 1, None), setup("b", 2, None)]).await;
    a.linked("b").await;
    let call = a.begin("b", "/sleep/300", 15_000).await;
    let left: u64 = header(&a.answer(call).await, "left-ms").parse().unwrap();
    assert!((1..=14_700).contains(&left), "{left}");
}

#[tokio::test]
async fn only_so_many_calls_are_under_way_and_the_rest_is_refused_at_once() {
    let small = |node, incarnation| crate::node::Setup { calls_per_peer: 4, ..setup(node, incarnation, None) };
    let [mut a, _b] = start([small("a", 1), small("b", 2)]).await;
    a.linked("b").await;
    let mut under_way = vec![];
    for _ in 0..4 {
        under_way.push(a.begin("b", "/sleep/4000", 1500).await);
    }
    while a.peers().await[0].calls < 4 {
        sleep(Duration::from_millis(10)).await;
    }
    let more = a.begin("b", "/echo", 20_000).await;
    assert_eq!(a.answer(more).await, Answer::NotSent("Busy".into()));
    assert!(under_way.iter().all(|call| !a.answered(*call)), "refused without waiting for the others");
    for call in under_way {
        assert_eq!(a.answer(call).await, Answer::Unknown("Deadline".into()));
    }
    // Their callers have given up, but the peer still works for them.
    assert_eq!(a.call("b", "/echo").await, Answer::NotSent("Busy".into()));
    let deadline = Instant::now() + SOON;
    while !matches!(a.call("b", "/echo").await, Answer::Http { .. }) {
        assert!(Instant::now() < deadline, "places are not given back");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn large_calls_are_bounded_in_bytes_and_leave_room_for_small_ones() {
    let [mut a, _b] = start([setup("a", 1, None), setup("b", 2, None)]).await;
    a.linked("b").await;
    let large = (4 << 20) - 1024;
    let mut under_way = vec![];
    for _ in 0..16 {
        under_way.push(a.begin_with("b", What::Path("/sleep/5000".into()), large, 25_000).await);
    }
    while a.peers().await[0].calls < 16 {
        sleep(Duration::from_millis(10)).await;
    }
    let more = a.begin_with("b", What::Path("/echo".into()), large, 25_000).await;
    assert_eq!(a.answer(more).await, Answer::NotSent("Busy".into()));
    assert!(matches!(a.call("b", "/echo").await, Answer::Http { .. }));
    assert!(under_way.iter().all(|call| !a.answered(*call)), "neither has waited for the large ones");
    for call in under_way {
        assert!(matches!(a.answer(call).await, Answer::Http { body_bytes, .. } if body_bytes == large));
    }
}
