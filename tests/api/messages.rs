//! Texts out and in: answers, receipts, waiting, limits and idempotency.

use crate::{
    client::{TEXT, answer},
    node::eventually,
    world::{FRIEND, OWNER, World, sent},
};
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};
use whatsapp_simulator::ReceiptKind;

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_sent_delivered_and_read() {
    let (world, session) = World::linked(&[]).await;
    let text = "Grüße 🐦 \"quoted\"\nsecond line\u{200b}";
    let answer = world.client.send(&session, "+1 555 000-2002", text).await.expect(200);
    let expected = json!({
        "success": true,
        "message_id": answer.body["message_id"],
        "session_id": session,
        "to": "+1 555 000-2002",
        "chat": format!("{FRIEND}@s.whatsapp.net"),
        "status": "sent",
        "timestamp": answer.body["timestamp"],
    });
    assert_eq!(answer.body, expected);
    let id = answer.text("message_id");
    assert!(id.starts_with("3EB0") && id.len() == 22, "{id}");
    let arrived = world.arrived(FRIEND, &id).await;
    assert_eq!((arrived.text.as_str(), arrived.from.as_str()), (text, OWNER));
    // The account's own phone shows it as well.
    assert!(world.arrived(OWNER, &id).await.from_me);

    let delivered = world.message_where(&session, &id, |message| message["status"] == "delivered").await;
    assert!(delivered["receipts"]["server_at"].is_string() && delivered["receipts"]["delivered_at"].is_string());
    assert!(delivered["receipts"]["read_at"].is_null());
    world.phone(FRIEND).mark_read(&id).unwrap();
    let read = world.message_where(&session, &id, |message| message["status"] == "read").await;
    assert!(read["receipts"]["read_at"].is_string(), "{read}");
    let fields = [
        ("message_id", json!(id)),
        ("chat", json!(format!("{FRIEND}@s.whatsapp.net"))),
        ("from_me", json!(true)),
        ("type", json!("text")),
        ("text", json!(text)),
        ("caption", json!(null)),
        ("media", json!(null)),
        ("reply_to", json!(null)),
        ("edited_at", json!(null)),
        ("revoked_at", json!(null)),
        ("reactions", json!([])),
        ("timestamp", answer.body["timestamp"].clone()),
    ];
    for (field, value) in fields {
        assert_eq!(read.get(field), Some(&value), "{field}");
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_received_text_is_stored_and_acknowledged_to_its_sender() {
    let (world, session) = World::linked(&[]).await;
    let friend = world.phone(FRIEND);
    let id = friend.send_text(OWNER, "hello there").unwrap();
    let message = world.message_where(&session, &id, |_| true).await;
    assert_eq!((&message["from_me"], &message["text"]), (&json!(false), &json!("hello there")));
    assert_eq!(message["chat"], format!("{FRIEND}@s.whatsapp.net"));
    assert_eq!(message["sender"], format!("{FRIEND}@s.whatsapp.net"));
    assert_eq!(message["type"], "text");
    eventually("the sender's receipt from the linked device", async || {
        let receipts = friend.receipts(&id);
        let from = format!("{OWNER}:1");
        let delivered = receipts.iter().any(|receipt| receipt.kind == ReceiptKind::Delivered && receipt.from == from);
        if delivered { Ok(()) } else { Err(format!("{receipts:?}")) }
    })
    .await;
    eventually("nothing waits for the device", async || {
        let devices = world.phone(OWNER).devices();
        if devices[0].queued == 0 { Ok(()) } else { Err(format!("{devices:?}")) }
    })
    .await;
    // What the account's phone sends is in the history as well, as its own.
    let own = world.phone(OWNER).send_text(FRIEND, "from the phone").unwrap();
    let message = world.message_where(&session, &own, |_| true).await;
    assert_eq!((&message["from_me"], &message["chat"]), (&json!(true), &json!(format!("{FRIEND}@s.whatsapp.net"))));
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_recipient_reaches_the_same_chat() {
    let (world, session) = World::linked(&[]).await;
    let lid = format!("{}@lid", world.phone(FRIEND).lid());
    let forms = [
        FRIEND.to_owned(),
        format!("+{FRIEND}"),
        format!("00{FRIEND}"),
        "1 (555) 000-20.02".to_owned(),
        format!("{FRIEND}@s.whatsapp.net"),
        format!("{FRIEND}@c.us"),
        lid,
    ];
    for to in forms {
        let answer = world.client.send(&session, &to, &to).await.expect(200);
        assert_eq!(answer.body["to"], to);
        let arrived = world.arrived(FRIEND, &answer.text("message_id")).await;
        assert_eq!((arrived.text.as_str(), arrived.from.as_str()), (to.as_str(), OWNER));
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lid_whose_number_is_known_is_the_same_chat() {
    let (world, session) = World::linked(&[]).await;
    let friend = world.phone(FRIEND);
    let question = friend.send_text(OWNER, "who is there?").unwrap();
    world.message_where(&session, &question, |_| true).await;
    let lid = format!("{}@lid", friend.lid());
    let contacts = format!("/api/whatsapp/sessions/{session}/contacts?query={FRIEND}");
    eventually("the LID is known", async || match world.client.get(&contacts).await.expect(200).body {
        list if list["data"][0]["lid"] == lid => Ok(()),
        list => Err(list.to_string()),
    })
    .await;
    let sent = world.client.send(&session, &lid, "it is me").await.expect(200);
    assert_eq!((&sent.body["to"], &sent.body["chat"]), (&json!(lid), &json!(format!("{FRIEND}@s.whatsapp.net"))));
    let id = sent.text("message_id");
    let chat = world.client.all(&format!("/api/whatsapp/sessions/{session}/messages?chat={FRIEND}")).await;
    let shown: Vec<_> = chat.iter().map(|row| row["message_id"].as_str().unwrap()).collect();
    assert_eq!(shown, [id.as_str(), &question]);
    assert_eq!(chat[0]["sender"], format!("{OWNER}@s.whatsapp.net"), "who sent it");
    world.arrived(FRIEND, &id).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_acknowledgement_in_time_a_send_is_queued() {
    let (world, session) = World::linked(&[("ROOKERY_SENDS__WAIT_MS", "300")]).await;
    world.send(&session, FRIEND, "first").await;
    world.simulator.faults().hold_acks(true);
    // By the configured wait, and by the caller's.
    for wait in [None, Some(0), Some(100)] {
        let started = Instant::now();
        let queued = world.client.send_waiting(&session, FRIEND, "held", wait).await.expect(202);
        assert_eq!(queued.body["status"], "queued");
        assert!(started.elapsed() >= Duration::from_millis(wait.unwrap_or(300)));
        let id = queued.text("message_id");
        let stored = world.message_where(&session, &id, |_| true).await;
        assert!(stored["receipts"]["server_at"].is_null(), "WhatsApp has not acknowledged it: {stored}");
    }
    world.simulator.faults().hold_acks(false);
    let rows = world
        .history_where(&session, "everything sent", |rows| rows.iter().all(|row| row["status"] != "pending"))
        .await;
    for row in &rows {
        world.arrived(FRIEND, row["message_id"].as_str().unwrap()).await;
    }
    assert_eq!(world.phone(FRIEND).inbox().len(), 4, "each once");
    // A long wait ends with the acknowledgement, not with the time.
    let quick = world.client.send_waiting(&session, FRIEND, "quick", Some(60_000)).await;
    sent(quick);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnected_session_queues_at_once_and_sends_when_it_is_connected() {
    let (world, session) = World::linked(&[]).await;
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/disconnect")).await.expect(200);
    let started = Instant::now();
    let mut ids = vec![];
    for number in 0..3 {
        let queued = world.client.send(&session, FRIEND, &format!("kept {number}")).await.expect(202);
        ids.push(queued.text("message_id"));
    }
    assert!(started.elapsed() < Duration::from_secs(8), "nobody waits for a session that nobody connects");
    assert!(world.phone(FRIEND).inbox().is_empty());
    world.client.post(&format!("/api/whatsapp/sessions/{session}/connect"), &json!({})).await.expect(200);
    for id in &ids {
        world.arrived(FRIEND, id).await;
    }
    let order: Vec<_> = world.phone(FRIEND).inbox().into_iter().map(|message| message.id).collect();
    assert_eq!(order, ids, "in order, each once");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_says_when_to_come_back() {
    let (world, session) = World::linked(&[("ROOKERY_SENDS__QUEUE_LIMIT", "2")]).await;
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/disconnect")).await.expect(200);
    for _ in 0..2 {
        world.client.send(&session, FRIEND, "fits").await.expect(202);
    }
    let refused = world.client.send(&session, FRIEND, "too much").await;
    refused.error(429, "too_many_requests").says_when_to_retry();
    assert_eq!(world.client.history(&session).await.len(), 2, "what was refused is nowhere");
    world.client.post(&format!("/api/whatsapp/sessions/{session}/connect"), &json!({})).await.expect(200);
    world.history_where(&session, "the queue is empty", |rows| rows.iter().all(|row| row["status"] != "pending")).await;
    world.send(&session, FRIEND, "there is room again").await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_sends_once() {
    let (mut world, session) = World::linked(&[]).await;
    let first = world.client.send_keyed(&session, FRIEND, "once", "order-1").await.expect(200);
    let again = world.client.send_keyed(&session, FRIEND, "once", "order-1").await.expect(200);
    assert_eq!(again.body, first.body, "the stored answer");
    let spelt = world.client.send_keyed(&session, &format!("+{FRIEND}"), "once", "order-1").await.expect(200);
    assert_eq!(spelt.body["message_id"], first.body["message_id"]);
    world.client.send_keyed(&session, FRIEND, "other", "order-1").await.error(409, "idempotency_conflict");
    world.client.send_keyed(&session, OWNER, "once", "order-1").await.error(409, "idempotency_conflict");
    let slower = json!({"session_id": session, "to": FRIEND, "message": "once", "typing_ms": 10});
    let slower = world.client.request(Method::POST, TEXT).header("idempotency-key", "order-1").json(&slower);
    answer(slower).await.error(409, "idempotency_conflict");
    let other = sent(world.client.send_keyed(&session, FRIEND, "once", "order-2").await);
    assert_ne!(other, first.text("message_id"), "another key is another message");

    world.restart().await;
    world.status_is(&session, "WORKING").await;
    let later = world.client.send_keyed(&session, FRIEND, "once", "order-1").await.expect(200);
    assert_eq!(later.body, first.body, "also after a restart");
    world.client.send_keyed(&session, FRIEND, "other", "order-1").await.error(409, "idempotency_conflict");
    world.arrived(FRIEND, &other).await;
    assert_eq!(world.phone(FRIEND).inbox().len(), 2);
    assert_eq!(world.client.history(&session).await.len(), 2);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_twins_become_one_message() {
    let (world, session) = World::linked(&[]).await;
    let mut twins = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, session) = (world.client.clone(), session.clone());
        twins.spawn(async move { client.send_keyed(&session, FRIEND, "twin", "same").await });
    }
    let mut ids = vec![];
    while let Some(answer) = twins.join_next().await {
        ids.push(sent(answer.unwrap()));
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    world.arrived(FRIEND, &ids[0]).await;
    let last = world.send(&session, FRIEND, "after them").await;
    world.arrived(FRIEND, &last).await;
    assert_eq!(world.phone(FRIEND).inbox().len(), 2);
    assert_eq!(world.client.history(&session).await.len(), 2);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_send_answers_its_twin_with_what_has_become_of_it() {
    let (world, session) = World::linked(&[]).await;
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/disconnect")).await.expect(200);
    let queued = world.client.send_keyed(&session, FRIEND, "later", "k").await.expect(202);
    let again = world.client.send_keyed(&session, FRIEND, "later", "k").await.expect(202);
    assert_eq!(again.body, queued.body);
    world.client.post(&format!("/api/whatsapp/sessions/{session}/connect"), &json!({})).await.expect(200);
    let id = queued.text("message_id");
    world.message_where(&session, &id, |message| message["status"] == "delivered").await;
    assert_eq!(sent(world.client.send_keyed(&session, FRIEND, "later", "k").await), id);
    assert_eq!(world.phone(FRIEND).inbox().len(), 1);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_text_passes_and_one_character_more_does_not() {
    let (world, session) = World::linked(&[]).await;
    // Characters count, not bytes.
    let longest = "ü".repeat(65_536);
    let id = world.send(&session, FRIEND, &longest).await;
    assert_eq!(world.arrived(FRIEND, &id).await.text, longest);
    world.client.send(&session, FRIEND, &format!("{longest}x")).await.names("message");
    world.client.send(&session, FRIEND, "").await.names("message");
    let stored = world.message_where(&session, &id, |_| true).await;
    assert_eq!(stored["text"], longest);
    assert_eq!(world.client.history(&session).await.len(), 1);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_an_accepted_message() {
    let (world, session) = World::linked(&[]).await;
    world.simulator.faults().hold_acks(true);
    let body = json!({"session_id": session, "to": FRIEND, "message": "gone"});
    let request = world.client.request(Method::POST, "/api/whatsapp/messages/text").json(&body);
    let impatient = request.header("idempotency-key", "gone").timeout(Duration::from_millis(500)).send().await;
    assert!(impatient.is_err_and(|error| error.is_timeout()));
    world.simulator.faults().hold_acks(false);
    let again = world.client.request(Method::POST, "/api/whatsapp/messages/text").json(&body);
    let id = sent(answer(again.header("idempotency-key", "gone")).await);
    world.arrived(FRIEND, &id).await;
    assert_eq!(world.phone(FRIEND).inbox().len(), 1);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_whatsapp_refuses_for_good_is_422_and_failed() {
    let (world, session) = World::linked(&[]).await;
    let nobody = "15559999999";
    let refused = world.client.send_keyed(&session, nobody, "to nobody", "k").await.error(422, "rejected");
    assert!(!refused.text("message").is_empty() && refused.body.get("errors").is_none(), "{}", refused.body);
    let rows = world.client.history(&session).await;
    assert_eq!((rows.len(), &rows[0]["status"]), (1, &json!("failed")));
    assert!(rows[0]["error"].is_string(), "{rows:?}");
    world.client.send_keyed(&session, nobody, "to nobody", "k").await.error(422, "rejected");
    assert_eq!(world.client.history(&session).await.len(), 1, "the stored answer, not another try");
    // One that fails holds up no other.
    world.send(&session, FRIEND, "to somebody").await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_waits_as_long_as_its_own_caller_wants() {
    let (world, session) = World::linked(&[]).await;
    world.phone(FRIEND);
    world.simulator.faults().hold_acks(true);
    let body = json!({"session_id": session, "to": FRIEND, "message": "held"});
    let send = |wait: u64| {
        let request = world.client.request(Method::POST, &format!("{TEXT}?wait_ms={wait}"));
        answer(request.header("Idempotency-Key", "twin").json(&body))
    };
    let (long, short) = tokio::join!(send(30_000), async {
        let short = send(0).await;
        world.simulator.faults().hold_acks(false);
        short
    });
    assert_eq!((long.status, short.status), (200, 202), "only the one that waits sees the end");
    assert_eq!(long.text("message_id"), short.text("message_id"));
    world.all_delivered(&session).await;
    world.finish();
}
