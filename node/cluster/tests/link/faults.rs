//! Nodes that are killed, frozen, stopped, started again, or there twice.

use crate::{
    cluster::{Node, SOON, introduce, setup, start},
    node::{Answer, Order, Setup, Told},
    pki,
};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use tokio::time::sleep;

fn down(of: &str) -> impl Fn(&Told) -> Option<String> {
    move |told| match told {
        Told::Down { node, cause, .. } if node == of => Some(cause.clone()),
        _ => None,
    }
}

fn gone(of: &str) -> impl Fn(&Told) -> Option<u64> {
    move |told| match told {
        Told::Gone { node, incarnation } if node == of => Some(*incarnation),
        _ => None,
    }
}

#[tokio::test]
async fn a_killed_node_is_noticed_by_all_and_comes_back_as_another_run() {
    let dir = pki::cluster("c", &["a", "b", "d"]);
    let dir = Some(dir.path());
    let [mut a, mut b, mut d] = start([setup("a", 1, dir), setup("b", 2, dir), setup("d", 3, dir)]).await;
    for (node, peer) in [(&mut a, "b"), (&mut b, "a"), (&mut d, "b")] {
        node.linked(peer).await;
    }
    let under_way = a.begin("b", "/sleep/20000", 25_000).await;
    while b.counts().await.0 == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    let killed = Instant::now();
    b.signal(Signal::KILL);
    assert_eq!(a.answer(under_way).await, Answer::Unknown("LinkLost".into()));
    for (node, is_gone) in [(&a, gone("b")), (&d, gone("b"))] {
        assert_eq!(node.wait_told("that b is down", down("b")).await, "reset by the peer");
        assert_eq!(node.wait_told("that b is gone", &is_gone).await, 2);
        let noticed = node.told_at(0, |told| is_gone(told).is_some()).unwrap() - killed;
        println!("{} noticed after {noticed:?}", node.name());
        assert!(noticed < Duration::from_secs(4), "{noticed:?}");
    }
    assert_eq!(a.call("b", "/echo").await, Answer::NotSent("NoLink".into()));

    let mut b = Node::start(setup("b", 4, dir)).await;
    introduce(&mut [&mut a, &mut b, &mut d]).await;
    a.linked("b").await;
    b.linked("d").await;
    assert!(matches!(a.call("b", "/echo").await, Answer::Http { .. }));
}

#[tokio::test]
async fn nobody_is_declared_gone_when_that_is_switched_off() {
    let patient = |node, incarnation| Setup { fast_death: false, ..setup(node, incarnation, None) };
    let [mut a, mut b, mut d] = start([patient("a", 1), patient("b", 2), setup("d", 3, None)]).await;
    a.linked("b").await;
    d.linked("b").await;
    b.linked("a").await;
    b.signal(Signal::KILL);
    a.wait_told("that b is down", down("b")).await;
    // The other one, with the same news, has had the time to find out.
    d.wait_told("that b is gone", gone("b")).await;
    d.wait_log(&["no link", "cannot be reached"]).await;
    assert!(a.told_at(0, |told| gone("b")(told).is_some()).is_none());
}

#[tokio::test]
async fn a_frozen_node_is_cut_off_in_time_and_linked_again_when_it_thaws() {
    let dir = pki::cluster("c", &["a", "b"]);
    let dir = Some(dir.path());
    let [mut a, mut b] = start([setup("a", 1, dir), setup("b", 2, dir)]).await;
    a.linked("b").await;
    b.linked("a").await;
    let under_way = a.begin("b", "/sleep/25000", 29_000).await;
    while b.counts().await.0 == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    b.signal(Signal::STOP);
    let frozen = Instant::now();
    assert_eq!(a.wait_told("that b is down", down("b")).await, "peer is silent");
    let noticed = frozen.elapsed();
    println!("noticed after {noticed:?}");
    // The last byte came at most 5 s before, and the time is 8 s.
    assert!((Duration::from_millis(2900)..Duration::from_secs(10)).contains(&noticed), "{noticed:?}");
    assert_eq!(a.answer(under_way).await, Answer::Unknown("LinkLost".into()));
    assert!(a.told_at(0, |told| gone("b")(told).is_some()).is_none(), "its process is there");
    let mark = a.mark();
    b.signal(Signal::CONT);
    a.wait_told_since("that b is up again", mark, |told| matches!(told, Told::Up { .. }).then_some(())).await;
    a.linked("b").await;
    assert!(matches!(a.call("b", "/echo").await, Answer::Http { .. }));
    assert!(matches!(b.call("a", "/echo").await, Answer::Http { .. }));
}

#[tokio::test]
async fn a_node_that_stops_answers_what_it_has_begun_and_is_not_gone_before_it_is() {
    let [mut a, mut b] = start([setup("a", 1, None), setup("b", 2, None)]).await;
    b.linked("a").await;
    let under_way = b.begin("a", "/sleep/1000", 20_000).await;
    while a.counts().await.0 == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    let stopping = a.begin_shutdown(10_000).await;
    let deadline = Instant::now() + SOON;
    loop {
        match b.call("a", "/echo").await {
            Answer::Other(reply) if reply.contains("Stopping") => break,
            Answer::Http { .. } => {}
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < deadline);
    }
    assert!(matches!(b.answer(under_way).await, Answer::Http { status: 200, .. }));
    a.shut_down(stopping).await;
    b.wait_told("that a is down", down("a")).await;
    assert_eq!(b.call("a", "/echo").await, Answer::NotSent("NoLink".into()));
    // Its port is open as long as its process lives.
    b.wait_log(&["no link", "handshake took too long"]).await;
    assert!(b.told_at(0, |told| gone("a")(told).is_some()).is_none());
}

#[tokio::test]
async fn of_two_nodes_with_one_name_the_member_is_linked() {
    let dir = pki::cluster("c", &["a", "b"]);
    let dir = Some(dir.path());
    let [mut a, mut b] = start([setup("a", 1, dir), setup("b", 2, dir)]).await;
    b.linked("a").await;
    let mut twin = Node::start(setup("b", 3, dir)).await;
    twin.order(&Order::Members(vec![a.member(), twin.member()])).await;
    a.wait_log(&["link refused", "is not the run of this node that is a member"]).await;
    twin.wait_log(&["no link", "is not the run of this node that is a member"]).await;
    assert!(matches!(a.call("b", "/echo").await, Answer::Http { .. }));
    assert_eq!(twin.call("a", "/echo").await, Answer::NotSent("NoLink".into()));
    assert_eq!(a.count_logged("link down"), 0);

    // The membership changes its mind, and so do the links.
    a.order(&Order::Members(vec![a.member(), twin.member()])).await;
    assert_eq!(a.wait_told("that b is down", down("b")).await, "ended by this node");
    twin.linked("a").await;
    a.linked("b").await;
    assert!(matches!(a.call("b", "/echo").await, Answer::Http { .. }));
    assert_eq!(twin.counts().await.0, 1, "the call went to the member");
    assert_eq!(b.call("a", "/echo").await, Answer::NotSent("NoLink".into()));
}
