//! Receipts: of members of groups, and those that come before their message.

use crate::{
    node::eventually,
    world::{FRIEND, OWNER, World},
};
use serde_json::{Value, json};
use whatsapp_simulator::{GroupOptions, SendOptions};

const MEMBERS: [&str; 3] = ["15550003001", "15550003002", "15550003003"];

fn participants(message: &Value) -> Vec<Value> {
    message["receipts"]["participants"]["data"].as_array().expect("a group's message").clone()
}

fn of<'a>(participants: &'a [Value], number: &str) -> Option<&'a Value> {
    participants.iter().find(|row| row["participant"] == format!("{number}@s.whatsapp.net"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_member_of_a_group_has_receipts() {
    let (mut world, session) = World::linked(&[]).await;
    for number in MEMBERS {
        world.phone(number);
    }
    let group = world.phone(FRIEND).create_group("friends", &[&[OWNER], &MEMBERS[..]].concat()).unwrap();
    let message = world.send(&session, &group, "to all").await;
    let all = world.message_where(&session, &message, |row| participants(row).len() == 4).await;
    assert_eq!(all["status"], "delivered");
    assert!(all["receipts"]["server_at"].is_string() && all["receipts"]["read_at"].is_null(), "{all}");
    world.arrived(MEMBERS[0], &message).await;
    world.phone(MEMBERS[0]).mark_read(&message).unwrap();
    let is_read = |row: &Value| of(&participants(row), MEMBERS[0]).is_some_and(|one| one["read_at"].is_string());
    let read = world.message_where(&session, &message, is_read).await;
    assert_eq!(read["status"], "read", "somebody has");
    assert!(of(&participants(&read), MEMBERS[1]).unwrap()["read_at"].is_null(), "and somebody has not: {read}");
    for row in participants(&read) {
        assert_eq!(row["jid"], row["participant"]);
        assert_eq!(format!("{}@s.whatsapp.net", row["phone"].as_str().unwrap()), row["jid"], "{row}");
    }
    let first = of(&participants(&read), MEMBERS[0]).unwrap()["read_at"].clone();
    world.phone(MEMBERS[0]).mark_read(&message).unwrap();
    world.arrived(MEMBERS[1], &message).await;
    world.phone(MEMBERS[1]).mark_read(&message).unwrap();
    let path = format!("/api/whatsapp/sessions/{session}/messages/{message}");
    eventually("the other member's receipt", async || {
        let row = world.client.get(&path).await.expect(200).body;
        let one = of(&participants(&row), MEMBERS[1]).cloned().unwrap_or_default();
        if one["read_at"].is_string() { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
    world.restart().await;
    let row = world.client.get(&path).await.expect(200).body;
    assert_eq!(of(&participants(&row), MEMBERS[0]).unwrap()["read_at"], first, "the first time stays");

    let mut seen = vec![];
    let mut next = Some(String::new());
    while let Some(cursor) = next {
        let cursor = if cursor.is_empty() { cursor } else { format!("&cursor={cursor}") };
        let page = world.client.get(&format!("{path}?limit=3{cursor}")).await.expect(200).body;
        seen.extend(participants(&page));
        next = page["receipts"]["participants"]["next_cursor"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, participants(&row), "pages meet");
    for bad in ["limit=0", "limit=x"] {
        world.client.get(&format!("{path}?{bad}")).await.names("limit");
    }
    world.client.get(&format!("{path}?cursor=nonsense")).await.names("cursor");
    let private = world.send(&session, FRIEND, "to one").await;
    let row = world.message_where(&session, &private, |row| row["status"] == "delivered").await;
    assert!(row["receipts"].get("participants").is_none(), "{row}");
    world.finish();
}

/// A group that addresses its members by LID tells nobody's number; what the contacts know of them is shown beside.
#[tokio::test(flavor = "multi_thread")]
async fn members_are_named_by_all_addresses_that_are_known() {
    let (world, session) = World::linked(&[]).await;
    let [known, unknown] = [MEMBERS[0], MEMBERS[1]].map(|number| format!("{}@lid", world.phone(number).lid()));
    // One has written from the LID, which tells the number as well.
    let by_lid = SendOptions { by_lid: true, ..SendOptions::default() };
    let text = whatsapp_simulator::Content::Text("hello".into());
    let hello = world.phone(MEMBERS[0]).send_with(OWNER, &text, &by_lid).unwrap();
    world.message_where(&session, &hello, |_| true).await;

    let options = GroupOptions { by_lid: true, ..GroupOptions::default() };
    let group = world.phone(OWNER).create_group_with("by LID", &MEMBERS[..2], options).unwrap();
    let message = world.send(&session, &group, "to all").await;
    let all = world.message_where(&session, &message, |row| participants(row).len() >= 2).await;
    let of = |lid: &str| {
        let rows = participants(&all);
        rows.into_iter().find(|row| row["participant"] == lid).unwrap_or_else(|| panic!("{lid}: {all}"))
    };
    let row = of(&known);
    assert_eq!(
        (&row["jid"], &row["lid"], &row["phone"]),
        (&json!(format!("{}@s.whatsapp.net", MEMBERS[0])), &json!(known), &json!(MEMBERS[0]))
    );
    let row = of(&unknown);
    assert_eq!((&row["jid"], &row["lid"]), (&json!(unknown), &json!(unknown)), "of whom nothing is known");
    world.finish();
}

/// The phone writes, the friend reads, and only then does the copy of the message come to the gateway.
#[tokio::test(flavor = "multi_thread")]
async fn receipts_wait_for_their_message() {
    let (world, session) = World::linked(&[]).await;
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/disconnect")).await.expect(200);
    let message = world
        .phone(OWNER)
        .send_with(FRIEND, &whatsapp_simulator::Content::Text("x".into()), &SendOptions::default())
        .unwrap();
    world.arrived(FRIEND, &message).await;
    world.phone(FRIEND).mark_read(&message).unwrap();
    world.client.post(&format!("/api/whatsapp/sessions/{session}/connect"), &json!({})).await.expect(200);
    let row = world.message_where(&session, &message, |row| row["receipts"]["read_at"].is_string()).await;
    assert_eq!(row["status"], "read");
    world.finish();
}
