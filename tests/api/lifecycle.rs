//! Stopping and starting: what is under way finishes, what was linked comes back.

use crate::{
    client::{answer, read_answer},
    node::eventually,
    world::{FRIEND, OWNER, World, sent},
};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{io::AsyncWriteExt, net::TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_requests_under_way_finish_and_no_new_ones_begin() {
    let (mut world, session) = World::linked(&[]).await;
    world.simulator.faults().hold_acks(true);
    let (client, id) = (world.client.clone(), session.clone());
    let under_way = tokio::spawn(async move { client.send(&id, FRIEND, "under way").await });
    let arrived =
        world.phone(FRIEND).wait_for(crate::node::PATIENCE, |message| message.text == "under way").await.unwrap();
    // Connected before the signal, asks after it.
    let mut early = TcpStream::connect(world.node.address()).await.unwrap();
    early.write_all(b"GET /api/health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n").await.unwrap();
    world.client.get("/api/health/ready").await.expect(200);

    let asked = Instant::now();
    world.node.signal(Signal::TERM);
    let address = world.node.address().to_owned();
    eventually("nobody listens", async || match TcpStream::connect(&address).await {
        Ok(_) => Err("the port is open".to_owned()),
        Err(_) => Ok(()),
    })
    .await;
    early.write_all(b"\r\n").await.unwrap();
    read_answer(&mut early).await.error(503, "unavailable").says_when_to_retry();
    world.simulator.faults().hold_acks(false);
    assert_eq!(sent(under_way.await.unwrap()), arrived.id);
    assert!(world.node.ended().await.success());
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(world.node.log().contains("node stopped"), "stopped in order");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_end_cannot_hold_up_the_stop() {
    let (mut world, session) = World::linked(&[]).await;
    world.simulator.faults().hold_acks(true);
    let (client, id) = (world.client.clone(), session.clone());
    let stuck = tokio::spawn(async move {
        let body = json!({"session_id": id, "to": FRIEND, "message": "stuck"});
        client.request(Method::POST, "/api/whatsapp/messages/text?wait_ms=60000").json(&body).send().await
    });
    world.phone(FRIEND).wait_for(crate::node::PATIENCE, |message| message.text == "stuck").await.unwrap();
    let idle = TcpStream::connect(world.node.address()).await.unwrap();
    world.node.stop().await;
    // It is told that the message will be sent later, or cut off when the process is faster.
    let told = stuck.await.unwrap();
    assert!(told.is_err() || told.is_ok_and(|answer| answer.status() == 202));
    drop(idle);
    // It was accepted, so it is sent by the next run; the recipient knows its id.
    world.simulator.faults().hold_acks(false);
    world.start_again().await;
    world.history_where(&session, "sent", |rows| rows.len() == 1 && rows[0]["status"] != "pending").await;
    assert_eq!(world.phone(FRIEND).inbox().len(), 1);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn linked_sessions_come_back_and_disconnected_ones_stay_so() {
    let (mut world, first) = World::linked(&[]).await;
    let second = world.link("15550003003").await;
    let stopped = world.link("15550004004").await;
    let waiting = world.create().await;
    world.client.delete(&format!("/api/whatsapp/sessions/{stopped}/disconnect")).await.expect(200);
    let before = world.status(&first).await;
    for crash in [false, true] {
        if crash {
            world.node.kill();
            world.start_again().await;
        } else {
            world.restart().await;
        }
        for session in [&first, &second] {
            world.status_is(session, "WORKING").await;
        }
        // A session that waits for its QR code asks for a new one.
        world.status_is(&waiting, "SCAN_QR_CODE").await;
        let now = world.status(&stopped).await;
        assert_eq!((&now["status"], &now["phone"]), (&json!("STOPPED"), &json!("15550004004")));
        assert!(!world.phone("15550004004").devices()[0].connected, "its device stays away");
    }
    let after = world.status(&first).await;
    for field in ["session_id", "session_name", "device_id", "lid", "created_at"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert!(after["epoch"].as_u64() > before["epoch"].as_u64(), "epochs grow: {after}");
    let id = world.send(&first, FRIEND, "back").await;
    world.arrived(FRIEND, &id).await;
    // The disconnected one still has its link.
    world.client.post(&format!("/api/whatsapp/sessions/{stopped}/connect"), &json!({})).await.expect(200);
    world.status_is(&stopped, "WORKING").await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_after_a_restart_are_paced() {
    let settings = [("ROOKERY_SESSIONS__LOGIN_BURST", "1"), ("ROOKERY_SESSIONS__LOGINS_PER_SECOND", "4")];
    let (mut world, session) = World::linked(&settings).await;
    let mut sessions = vec![session];
    for number in 2..5 {
        sessions.push(world.link(&format!("1555000100{number}")).await);
    }
    world.node.stop().await;
    let logins = world.simulator.stats().count("login");
    let started = Instant::now();
    world.start_again().await;
    world.client.get("/api/health/ready").await.expect(200);
    for session in &sessions {
        world.status_is(session, "WORKING").await;
    }
    // One at once, three more a quarter of a second apart.
    assert!(started.elapsed() >= Duration::from_millis(750), "{:?}", started.elapsed());
    assert_eq!(world.simulator.stats().count("login") - logins, 4);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_offered_while_the_gateway_was_down_arrives_once() {
    let (mut world, session) = World::linked(&[]).await;
    world.node.stop().await;
    let friend = world.phone(FRIEND);
    let mut ids: Vec<_> = (0..20).map(|n| friend.send_text(OWNER, &format!("offline {n}")).unwrap()).collect();
    world.start_again().await;
    let rows = world.history_where(&session, "all offline messages", |rows| rows.len() >= 20).await;
    let stored: Vec<_> = rows.iter().map(|row| row["message_id"].as_str().unwrap().to_owned()).collect();
    ids.reverse();
    assert_eq!(stored, ids, "in order, each once");
    answer(world.client.without_token(Method::GET, "/api/health")).await.expect(200);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_stops_it_as_well() {
    let mut world = World::start().await;
    world.node.signal(Signal::INT);
    assert!(world.node.ended().await.success());
    world.finish();
}
