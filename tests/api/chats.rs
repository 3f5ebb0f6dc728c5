//! Chats: their order, what is unread, what the account's devices decide about them, and pages.

use crate::{
    node::eventually,
    world::{FRIEND, OWNER, World},
};
use serde_json::Value;
use whatsapp_simulator::StateChange;

const OTHER: &str = "15550003003";

fn path(session: &str) -> String {
    format!("/api/whatsapp/sessions/{session}/chats")
}

/// Waits until the chats are as described.
async fn chats_where(world: &World, session: &str, what: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let rows = eventually(what, async || {
        let rows = world.client.all(&format!("{}?limit=200", path(session))).await;
        if is(&rows) { Ok(rows) } else { Err(format!("{rows:?}")) }
    })
    .await;
    world.has_changed();
    rows
}

fn of<'a>(rows: &'a [Value], phone: &str) -> &'a Value {
    rows.iter().find(|row| row["phone"] == phone).unwrap_or(&Value::Null)
}

/// A message from a phone, once it is stored.
async fn receive(world: &World, session: &str, from: &str, text: &str) -> String {
    let id = world.phone(from).send_text(OWNER, text).unwrap();
    world.message_where(session, &id, |_| true).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_in_a_chat_shows() {
    let (mut world, session) = World::linked(&[]).await;
    assert_eq!(world.client.page(&path(&session)).await, (vec![], None));
    receive(&world, &session, FRIEND, "one").await;
    let second = receive(&world, &session, FRIEND, "two").await;
    let rows = chats_where(&world, &session, "a chat", |rows| rows.len() == 1).await;
    let chat = &rows[0];
    assert_eq!(chat["jid"], format!("{FRIEND}@s.whatsapp.net"));
    assert_eq!((&chat["unread_count"], &chat["is_group"]), (&2.into(), &false.into()));
    assert_eq!(chat["last_message"]["message_id"], second);
    assert_eq!(chat["last_message"]["from_me"], false);
    assert_eq!(chat["name"], world.phone(FRIEND).push_name());
    for field in ["archived", "muted", "marked_unread"] {
        assert_eq!(chat[field], false, "{field}");
    }

    // A text to somebody makes a chat, and the latest is first.
    tokio::time::timeout(crate::node::PATIENCE, next_second()).await.unwrap();
    world.phone(OTHER);
    world.send(&session, OTHER, "to the other").await;
    let rows = world.client.all(&format!("{}?limit=1", path(&session))).await;
    assert_eq!(rows.iter().map(|row| row["phone"].as_str().unwrap()).collect::<Vec<_>>(), [OTHER, FRIEND]);
    assert_eq!(of(&rows, OTHER)["unread_count"], 0);

    // Whoever answers has read.
    tokio::time::timeout(crate::node::PATIENCE, next_second()).await.unwrap();
    let answer = world.send(&session, FRIEND, "an answer").await;
    let rows = world.client.all(&format!("{}?limit=200", path(&session))).await;
    assert_eq!(rows[0]["phone"], FRIEND);
    assert_eq!((&rows[0]["unread_count"], &rows[0]["last_message"]["message_id"]), (&0.into(), &answer.into()));
    world.restart().await;
    assert_eq!(world.client.all(&format!("{}?limit=200", path(&session))).await, rows);
    world.finish();
}

/// Waits for the clock's next second: activity is ordered by seconds first.
async fn next_second() {
    let second = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = second();
    while second() == now {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_phone_reads_and_its_companions_know() {
    let (world, session) = World::linked(&[]).await;
    let first = receive(&world, &session, FRIEND, "one").await;
    let second = receive(&world, &session, FRIEND, "two").await;
    receive(&world, &session, OTHER, "elsewhere").await;
    world.phone(OWNER).wait_for(crate::node::PATIENCE, |m| m.id == second).await.unwrap();
    chats_where(&world, &session, "two unread", |rows| of(rows, FRIEND)["unread_count"] == 2).await;
    world.phone(OWNER).mark_read(&first).unwrap();
    chats_where(&world, &session, "one is read", |rows| of(rows, FRIEND)["unread_count"] == 1).await;
    world.phone(OWNER).mark_read(&second).unwrap();
    let rows = chats_where(&world, &session, "both are read", |rows| of(rows, FRIEND)["unread_count"] == 0).await;
    assert_eq!(of(&rows, OTHER)["unread_count"], 1, "only the chat that was read");

    world.change_state(&[StateChange::Read { chat: FRIEND.into(), on: false }]);
    chats_where(&world, &session, "marked as unread", |rows| of(rows, FRIEND)["marked_unread"] == true).await;
    let both = [FRIEND, OTHER].map(|chat| StateChange::Read { chat: chat.into(), on: true });
    world.change_state(&both);
    let read = |row: &Value| row["marked_unread"] == false && row["unread_count"] == 0;
    chats_where(&world, &session, "all is read", |rows| rows.iter().all(read)).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_about_chats_show() {
    let (world, session) = World::linked(&[]).await;
    receive(&world, &session, FRIEND, "one").await;
    receive(&world, &session, OTHER, "two").await;
    let chat = || FRIEND.to_owned();
    let until = 4_000_000_000_u64;
    world.change_state(&[
        StateChange::Archive { chat: chat(), on: true },
        StateChange::Pin { chat: chat(), on: true },
        StateChange::Mute { chat: chat(), on: true, until: Some(until) },
    ]);
    let decided = |row: &Value| row["archived"] == true && row["muted"] == true && row["pinned_at"].is_string();
    let rows = chats_where(&world, &session, "decisions", |rows| decided(of(rows, FRIEND))).await;
    assert_eq!(of(&rows, FRIEND)["muted_until"], "2096-10-02T07:06:40.000000Z");
    assert_eq!(of(&rows, OTHER)["archived"], false);

    world.change_state(&[
        StateChange::Archive { chat: chat(), on: false },
        StateChange::Pin { chat: chat(), on: false },
        StateChange::Mute { chat: chat(), on: false, until: None },
        StateChange::Mute { chat: OTHER.into(), on: true, until: None },
    ]);
    let undone = |row: &Value| row["archived"] == false && row["muted"] == false && row["pinned_at"].is_null();
    let forever = |row: &Value| row["muted"] == true && row["muted_until"].is_null();
    let both = |rows: &[Value]| undone(of(rows, FRIEND)) && forever(of(rows, OTHER));
    chats_where(&world, &session, "taken back", both).await;

    world.change_state(&[StateChange::ClearChat { chat: OTHER.into() }]);
    let cleared = |row: &Value| row["last_message"].is_null() && row["unread_count"] == 0;
    chats_where(&world, &session, "a cleared chat", |rows| rows.len() == 2 && cleared(of(rows, OTHER))).await;
    world.change_state(&[StateChange::DeleteChat { chat: chat() }]);
    chats_where(&world, &session, "one chat", |rows| rows.len() == 1 && rows[0]["phone"] == OTHER).await;
    assert_eq!(world.client.history(&session).await.len(), 2, "the messages stay");
    next_second().await;
    receive(&world, &session, FRIEND, "again").await;
    let rows = chats_where(&world, &session, "it is back", |rows| rows.len() == 2).await;
    assert_eq!(of(&rows, FRIEND)["unread_count"], 1);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_chats() {
    let (world, session) = World::linked(&[]).await;
    world.phone(OTHER);
    let group = world.phone(FRIEND).create_group("friends", &[OWNER, OTHER]).unwrap();
    let content = whatsapp_simulator::Content::Text("to all".into());
    let id = world.phone(FRIEND).send(&group, &content).unwrap();
    world.message_where(&session, &id, |_| true).await;
    let rows = chats_where(&world, &session, "a group", |rows| rows.len() == 1).await;
    assert_eq!((&rows[0]["jid"], &rows[0]["is_group"]), (&group.into(), &true.into()));
    assert_eq!((&rows[0]["unread_count"], &rows[0]["phone"]), (&1.into(), &Value::Null));
    world.finish();
}

/// Its name comes with what WhatsApp tells of it and, where it tells nothing, with the first message.
#[tokio::test(flavor = "multi_thread")]
async fn groups_have_names() {
    let world = World::start().await;
    world.phone(OTHER);
    let friend = world.phone(FRIEND);
    let before = friend.create_group("made before", &[OWNER, OTHER]).unwrap();
    let session = world.link(OWNER).await;
    let after = friend.create_group("made after", &[OWNER, OTHER]).unwrap();
    let joined = friend.create_group("joined", &[OTHER]).unwrap();
    friend.add_to_group(&joined, &[OWNER]).unwrap();
    let named = |rows: &[Value], group: &str, name: &str| {
        rows.iter().any(|row| row["jid"] == group && row["name"] == name && row["is_group"] == true)
    };
    let content = whatsapp_simulator::Content::Text("to all".into());
    for (group, name) in [(&before, "made before"), (&after, "made after"), (&joined, "joined")] {
        friend.send(group, &content).unwrap();
        chats_where(&world, &session, name, |rows| named(rows, group, name)).await;
    }
    for group in [&before, &after] {
        friend.set_group_subject(group, "renamed").unwrap();
        chats_where(&world, &session, "another name", |rows| named(rows, group, "renamed")).await;
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_meet_while_chats_are_added() {
    let (mut world, session) = World::linked(&[]).await;
    let phones: Vec<String> = (0..7).map(|n| format!("1555888{n:04}")).collect();
    for phone in &phones {
        receive(&world, &session, phone, "hello").await;
    }
    let all = chats_where(&world, &session, "all chats", |rows| rows.len() == 7).await;
    let short = format!("{}?limit=2", path(&session));
    let (mut rows, mut next) = world.client.page(&short).await;
    let mut page = 0;
    while let Some(cursor) = next {
        page += 1;
        if page == 1 {
            next_second().await;
            receive(&world, &session, FRIEND, "a new chat").await;
        }
        if page == 2 {
            world.restart().await;
        }
        let (more, after) = world.client.page(&format!("{short}&cursor={cursor}")).await;
        assert!(more.len() <= 2);
        rows.extend(more);
        next = after;
    }
    assert_eq!(rows, all, "what was there, each once");
    assert_eq!(world.client.page(&short).await.0[0]["phone"], FRIEND);

    for limit in ["0", "201", "x"] {
        world.client.get(&format!("{}?limit={limit}", path(&session))).await.names("limit");
    }
    for cursor in ["x", "", "aDEuMQ"] {
        world.client.get(&format!("{}?cursor={cursor}", path(&session))).await.names("cursor");
    }
    world.stranger().await.get(&path(&session)).await.error(404, "session_not_found");
    world.finish();
}
