//! What WhatsApp does to a session: lost connections, removed links, other clients, refused logins, redelivery.

use crate::{
    node::eventually,
    world::{FRIEND, OWNER, World},
};
use serde_json::{Value, json};
use std::time::Duration;
use whatsapp_simulator::Handle;

/// The statuses that a session remembers, newest first.
fn statuses(session: &Value) -> Vec<&str> {
    session["history"].as_array().unwrap().iter().map(|change| change["status"].as_str().unwrap()).collect()
}

/// Nothing waits for the account's first device any more.
async fn all_acknowledged(simulator: &Handle) {
    eventually("everything acknowledged", async || {
        let devices = simulator.phone(OWNER).devices();
        if devices[0].queued == 0 { Ok(()) } else { Err(format!("{devices:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_made_again_and_nothing_is_lost() {
    let (world, session) = World::linked(&[]).await;
    world.send(&session, FRIEND, "before").await;
    for _ in 0..2 {
        assert!(world.simulator.faults().drop_connection(OWNER, 1));
        let missed = world.phone(FRIEND).send_text(OWNER, "while away").unwrap();
        // Accepted whether or not the session has noticed, and sent when it is back.
        let answer = world.client.send(&session, FRIEND, "through the break").await.expect(200);
        world.arrived(FRIEND, &answer.text("message_id")).await;
        world.message_where(&session, &missed, |message| message["text"] == "while away").await;
        let back = world.status_is(&session, "WORKING").await;
        assert_eq!(statuses(&back)[..2], ["WORKING", "RECONNECTING"], "{back}");
        assert!(back["last_error"].is_null(), "{back}");
    }
    all_acknowledged(&world.simulator).await;
    let rows = world.client.history(&session).await;
    assert_eq!(rows.len(), 5, "{rows:?}");
    assert_eq!(world.phone(FRIEND).inbox().len(), 3);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_while_reconnecting_are_queued_and_then_sent() {
    let (world, session) = World::linked(&[("ROOKERY_SENDS__WAIT_MS", "200")]).await;
    world.send(&session, FRIEND, "first").await;
    // 503: a failure after which a client tries again.
    world.simulator.faults().refuse_logins(Some(503));
    assert!(world.simulator.faults().drop_connection(OWNER, 1));
    let away = world.status_is(&session, "RECONNECTING").await;
    assert!(away["last_error"].is_string(), "{away}");
    let queued = world.client.send(&session, FRIEND, "queued").await.expect(202).text("message_id");
    assert_eq!(world.message_where(&session, &queued, |_| true).await["status"], "pending");
    world.simulator.faults().refuse_logins(None);
    world.arrived(FRIEND, &queued).await;
    world.status_is(&session, "WORKING").await;
    world.message_where(&session, &queued, |message| message["status"] == "delivered").await;
    assert_eq!(world.phone(FRIEND).inbox().len(), 2);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_the_phone_removes_is_gone_for_good() {
    let (mut world, session) = World::linked(&[]).await;
    world.send(&session, FRIEND, "before").await;
    world.phone(OWNER).unlink(1).unwrap();
    let gone = world.status_is(&session, "LOGGED_OUT").await;
    assert!(gone["device_id"].is_null() && gone["last_error"].is_string(), "{gone}");
    world.client.send(&session, FRIEND, "after").await.error(409, "session_state");
    let logins = world.simulator.stats().count("login");
    world.restart().await;
    assert_eq!(world.status(&session).await["status"], "LOGGED_OUT");
    assert_eq!(world.client.history(&session).await.len(), 1, "the history stays");
    assert_eq!(world.simulator.stats().count("login"), logins, "it does not try again");
    world.client.post(&format!("/api/whatsapp/sessions/{session}/connect"), &json!({})).await.expect(200);
    world.pair(&session, OWNER).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_was_removed_while_the_gateway_was_down_is_noticed() {
    let (mut world, session) = World::linked(&[]).await;
    world.node.stop().await;
    world.phone(OWNER).unlink(1).unwrap();
    world.start_again().await;
    world.status_is(&session, "LOGGED_OUT").await;
    world.finish();
}

/// Two gateways on copies of one session: each takes the connection from the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_taken_by_another_client_is_taken_back_once() {
    let settings = [("ROOKERY_SESSIONS__REPLACED_RETRY_MS", "300"), ("ROOKERY_SESSIONS__REPLACED_WINDOW_MS", "600000")];
    let (mut world, session) = World::linked(&settings).await;
    world.node.stop().await;
    let other = world.node.copy();
    world.start_again().await;
    world.status_is(&session, "WORKING").await;

    let mut other = other.start().await;
    let replaced = world.session_where(&session, "replaced", |now| now["history"][0]["status"] == "RECONNECTING").await;
    assert!(replaced["last_error"].as_str().is_some_and(|error| error.contains("another client")), "{replaced}");
    // It takes the connection back, the other one does the same, and then it gives up.
    let failed = world.status_is(&session, "FAILED").await;
    assert!(failed["last_error"].as_str().is_some_and(|error| error.contains("conflict")), "{failed}");
    let logins = world.simulator.stats().count("login");
    other.stop().await;
    let found = world.client.get(&format!("/api/whatsapp/sessions/{OWNER}")).await.expect(200).body;
    assert_eq!((&found["active"], &found["status"]), (&json!(false), &json!("FAILED")));
    assert_eq!(world.simulator.stats().count("login"), logins, "no fight");
    world.client.post(&format!("/api/whatsapp/sessions/{session}/connect"), &json!({})).await.expect(200);
    world.status_is(&session, "WORKING").await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_whatsapp_refuses_fails_with_the_reason() {
    let (world, session) = World::linked(&[]).await;
    // 405: this client is outdated; trying again cannot help.
    world.simulator.faults().refuse_logins(Some(405));
    assert!(world.simulator.faults().drop_connection(OWNER, 1));
    let failed = world.status_is(&session, "FAILED").await;
    assert!(failed["last_error"].as_str().is_some_and(|error| error.contains("version")), "{failed}");
    world.simulator.faults().refuse_logins(None);
    world.client.post(&format!("/api/whatsapp/sessions/{session}/connect"), &json!({})).await.expect(200);
    world.status_is(&session, "WORKING").await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_again_is_stored_once() {
    let (world, session) = World::linked(&[]).await;
    let friend = world.phone(FRIEND);
    let ids: Vec<_> = (0..5).map(|n| friend.send_text(OWNER, &format!("text {n}")).unwrap()).collect();
    world.simulator.faults().redeliver(OWNER, 1);
    world.history_where(&session, "all five", |rows| rows.len() >= 5).await;
    world.simulator.faults().redeliver(OWNER, 1);
    all_acknowledged(&world.simulator).await;
    let last = friend.send_text(OWNER, "last").unwrap();
    world.message_where(&session, &last, |_| true).await;
    let mut rows = world.client.history(&session).await;
    rows.reverse();
    let stored: Vec<_> = rows.iter().map(|row| row["message_id"].as_str().unwrap()).collect();
    assert_eq!(stored, ids.iter().chain([&last]).collect::<Vec<_>>(), "{rows:?}");
    assert!(rows.iter().all(|row| row["type"] == "text"), "{rows:?}");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_connection_does_not_hold_up_callers() {
    let (world, session) = World::linked(&[("ROOKERY_SENDS__WAIT_MS", "300")]).await;
    world.send(&session, FRIEND, "first").await;
    assert!(world.simulator.faults().freeze(OWNER, 1, true));
    let queued = world.client.send(&session, FRIEND, "into the ice").await.expect(202).text("message_id");
    let started = std::time::Instant::now();
    world.client.get(&format!("/api/whatsapp/sessions/{session}/status")).await.expect(200);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(world.simulator.faults().freeze(OWNER, 1, false));
    world.arrived(FRIEND, &queued).await;
    world.message_where(&session, &queued, |message| message["status"] == "delivered").await;
    world.finish();
}
