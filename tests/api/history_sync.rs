//! The history that a phone sends: it fills messages, contacts and chats, once, whatever happens in between.

use crate::{
    node::eventually,
    world::{FRIEND, OWNER, World},
};
use serde_json::Value;
use std::collections::HashSet;
use whatsapp_simulator::{HistorySize, PhoneEvent};

/// A gateway, and a session that the phone with so much history has linked.
async fn linked_with(size: HistorySize) -> (World, String) {
    let world = World::start().await;
    world.phone(OWNER).set_history(size);
    let session = world.create().await;
    world.scan(&session, OWNER).await;
    (world, session)
}

async fn synced(world: &World, session: &str) -> Value {
    let done = |now: &Value| now["history_sync"]["done"] == true;
    world.session_where(session, "the history is here", done).await["history_sync"].clone()
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["message_id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_fills_messages_chats_and_contacts() {
    const SIZE: HistorySize = HistorySize { chats: 12, messages: 4_500 };
    let (world, session) = linked_with(SIZE).await;
    let sync = synced(&world, &session).await;
    assert_eq!((&sync["progress"], &sync["messages"]), (&100.into(), &4_500.into()));

    let rows = world.client.history(&session).await;
    assert_eq!(rows.len(), 4_500);
    assert_eq!(ids(&rows).into_iter().collect::<HashSet<_>>().len(), 4_500);
    let times: Vec<_> = rows.iter().map(|row| row["timestamp"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "newest first");
    let chat = "1888000003";
    let path = format!("/api/whatsapp/sessions/{session}/messages?limit=200&chat={chat}");
    let in_chat = world.client.all(&path).await;
    let expected: Vec<String> = (0..375).rev().map(|n| format!("H3-{n}")).collect();
    assert_eq!(ids(&in_chat), expected);
    let of = |id: &str| in_chat.iter().find(|row| row["message_id"] == id).unwrap();
    assert_eq!((&of("H3-4")["from_me"], &of("H3-4")["status"]), (&true.into(), &"read".into()));
    assert_eq!((&of("H3-2")["from_me"], &of("H3-2")["status"]), (&true.into(), &"delivered".into()));
    assert_eq!((&of("H3-1")["from_me"], &of("H3-1")["text"]), (&false.into(), &"old message 1".into()));

    let chats = world.client.all(&format!("/api/whatsapp/sessions/{session}/chats?limit=5")).await;
    assert_eq!(chats.len(), 12);
    for row in &chats {
        let number: u32 = row["phone"].as_str().unwrap()[4..].parse().unwrap();
        assert_eq!(row["unread_count"], number % 3, "{row}");
        assert_eq!(row["archived"], number % 5 == 4, "{row}");
        assert_eq!(row["pinned_at"].is_string(), number % 7 == 6, "{row}");
        assert_eq!((row["muted"] == true, &row["muted_until"]), (number % 11 == 10, &Value::Null), "{row}");
        assert_eq!(row["name"], format!("Chat {number}"));
        assert_eq!(row["last_message"]["message_id"], format!("H{number}-374"));
    }
    let contacts = world.client.all(&format!("/api/whatsapp/sessions/{session}/contacts?limit=5&query=person")).await;
    assert_eq!(contacts.len(), 12);
    for row in &contacts {
        let number: u32 = row["phone"].as_str().unwrap()[4..].parse().unwrap();
        assert_eq!(row["push_name"], format!("Person {number}"));
        assert_eq!(row["full_name"], format!("Chat {number}"));
        assert_eq!(row["lid"], format!("1889{number:06}@lid"));
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_phone_really_has_comes_like_live_messages() {
    let world = World::start().await;
    let (phone, friend) = (world.phone(OWNER), world.phone(FRIEND));
    let question = friend.send_text(OWNER, "before you were linked").unwrap();
    phone.wait_for(crate::node::PATIENCE, |m| m.id == question).await.unwrap();
    let options = whatsapp_simulator::SendOptions { reply_to: Some(question.clone()), ..Default::default() };
    let answer = phone.send_with(FRIEND, &whatsapp_simulator::Content::Text("an answer".into()), &options).unwrap();
    let session = world.link(OWNER).await;
    let sync = synced(&world, &session).await;
    assert_eq!(sync["messages"], 2);
    let row = world.message_where(&session, &answer, |_| true).await;
    assert_eq!((&row["from_me"], &row["reply_to"]), (&true.into(), &question.clone().into()));
    let row = world.message_where(&session, &question, |_| true).await;
    assert_eq!((&row["from_me"], &row["text"]), (&false.into(), &"before you were linked".into()));
    assert_eq!(row["sender"], format!("{FRIEND}@s.whatsapp.net"));
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_comes_again_changes_nothing() {
    let (world, session) = linked_with(HistorySize { chats: 4, messages: 40 }).await;
    synced(&world, &session).await;
    world.phone("1888000001");
    let sent = world.send(&session, "1888000001", "a new message").await;
    let received = world.phone(FRIEND).send_text(OWNER, "another").unwrap();
    world.message_where(&session, &received, |_| true).await;
    world.message_where(&session, &sent, |row| row["status"] == "delivered").await;
    let chats = format!("/api/whatsapp/sessions/{session}/chats?limit=200");
    let before = (world.client.history(&session).await, world.client.all(&chats).await);

    let taken = || world.phone(OWNER).events().iter().filter(|e| matches!(e, PhoneEvent::HistoryTaken { .. })).count();
    let chunks = taken();
    world.phone(OWNER).send_history(4, 10).unwrap();
    // Something new at its end shows that all of it has been taken in.
    world.phone(OWNER).send_history(5, 1).unwrap();
    eventually("the chunks are taken", async || if taken() >= chunks + 2 { Ok(()) } else { Err(taken().to_string()) })
        .await;
    world.message_where(&session, "H4-0", |_| true).await;
    let mut after = (world.client.history(&session).await, world.client.all(&chats).await);
    after.0.retain(|row| row["message_id"] != "H4-0");
    after.1.retain(|row| row["phone"] != "1888000004");
    assert_eq!(after, before);
    assert_eq!(synced(&world, &session).await["messages"], 41);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_loses_nothing() {
    const SIZE: HistorySize = HistorySize { chats: 9, messages: 20_000 };
    let (mut world, session) = linked_with(SIZE).await;
    for least in [500, 8_000] {
        let some = |now: &Value| now["history_sync"]["messages"].as_u64().is_some_and(|many| many >= least);
        world.session_where(&session, "some of the history", some).await;
        world.node.kill();
        world.start_again().await;
    }
    world.status_is(&session, "WORKING").await;
    let all = |now: &Value| now["history_sync"]["messages"] == 20_000;
    world.session_where(&session, "all of the history", all).await;
    synced(&world, &session).await;
    let rows = world.client.history(&session).await;
    assert_eq!(ids(&rows).into_iter().collect::<HashSet<_>>().len(), 20_000);
    assert_eq!(rows.len(), 20_000);
    world.finish();
}
