//! How fast a session may send, and typing before a message.

use crate::{
    client::{TEXT, answer},
    hosts::Host,
    media::{MEDIA, body, linked_with},
    node::eventually,
    world::{FRIEND, sent},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SLOW: [(&str, &str); 2] = [("ROOKERY_SENDS__BURST", "3"), ("ROOKERY_SENDS__PER_SECOND", "0.5")];

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_sends_too_fast_is_told_when_to_go_on() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &SLOW).await;
    let first = world.client.send_keyed(&session, FRIEND, "1", "k").await.expect(200);
    for text in ["2", "3"] {
        world.send(&session, FRIEND, text).await;
    }
    let refused = world.client.send(&session, FRIEND, "4").await.error(429, "too_many_requests");
    let wait: u64 = refused.says_when_to_retry().header("retry-after").parse().unwrap();
    assert!(wait <= 2, "half a message a second: {wait} s");
    let url = host.file("/a", b"x");
    world.client.post(MEDIA, &body(&session, "document", &url)).await.error(429, "too_many_requests");
    let spool = world.node.data_dir().join("media/spool");
    assert_eq!(spool.read_dir().unwrap().count(), 0, "nothing stays of what was refused");
    // A repeat is no new message.
    let again = world.client.send_keyed(&session, FRIEND, "1", "k").await.expect(200);
    assert_eq!(again.body, first.body);
    // Another session is not slowed down.
    let other = world.link("15550004004").await;
    world.send(&other, FRIEND, "from another").await;
    let started = Instant::now();
    eventually("room for one more", async || {
        let answer = world.client.send(&session, FRIEND, "4").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(world.client.history(&session).await.len(), 4, "what was refused is nowhere");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_comes_before_the_message_and_keeps_the_order() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[]).await;
    let text =
        |text: &str, typing: Value| json!({"session_id": session, "to": FRIEND, "message": text, "typing_ms": typing});
    let (started, first) = (Instant::now(), text("typed", json!(700)));
    let (typed, behind) = tokio::join!(world.client.post(TEXT, &first), async {
        world.history_where(&session, "the first is accepted", |rows| rows.len() == 1).await;
        world.client.post(TEXT, &text("behind", json!(0))).await
    });
    assert!(started.elapsed() >= Duration::from_millis(700));
    let ids = [sent(typed), sent(behind)];
    world.arrived(FRIEND, &ids[1]).await;
    let inbox: Vec<_> = world.phone(FRIEND).inbox().into_iter().map(|message| message.id).collect();
    assert_eq!(inbox, ids);
    for wrong in [json!(-1), json!(25_001), json!(1.5), json!("700"), json!(true), json!([])] {
        world.client.post(TEXT, &text("x", wrong)).await.names("typing_ms");
    }
    // In a form everything is text.
    let (kind, form) = crate::media::form(&[
        ("session_id", None, session.as_bytes()),
        ("to", None, FRIEND.as_bytes()),
        ("type", None, b"document"),
        ("typing_ms", None, b"10"),
        ("file", Some("a"), b"x"),
    ]);
    let upload = world.client.request(Method::POST, MEDIA).header("content-type", kind).body(form);
    sent(answer(upload).await);
    world.finish();
}
