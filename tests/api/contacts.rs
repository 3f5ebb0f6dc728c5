//! Contacts: where they come from, that a person is one, how they are found, and their pictures.

use crate::{
    node::eventually,
    world::{FRIEND, OWNER, World},
};
use serde_json::Value;
use whatsapp_simulator::{Content, SendOptions, StateChange};

const OTHER: &str = "15550003003";

fn path(session: &str) -> String {
    format!("/api/whatsapp/sessions/{session}/contacts?limit=200")
}

/// Waits until the contacts are as described.
async fn contacts_where(world: &World, session: &str, what: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let rows = eventually(what, async || {
        let rows = world.client.all(&path(session)).await;
        if is(&rows) { Ok(rows) } else { Err(format!("{rows:?}")) }
    })
    .await;
    world.has_changed();
    rows
}

fn of<'a>(rows: &'a [Value], phone: &str) -> Option<&'a Value> {
    rows.iter().find(|row| row["phone"] == phone)
}

fn name(chat: &str, name: &str) -> StateChange {
    StateChange::Contact { chat: chat.into(), name: name.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_come_from_messages_and_from_the_address_book() {
    let (mut world, session) = World::linked(&[]).await;
    world.phone(FRIEND).send_text(OWNER, "hello").unwrap();
    let rows = contacts_where(&world, &session, "a push name", |rows| of(rows, FRIEND).is_some()).await;
    let friend = of(&rows, FRIEND).unwrap();
    assert_eq!(friend["jid"], format!("{FRIEND}@s.whatsapp.net"));
    assert_eq!(friend["push_name"], world.phone(FRIEND).push_name());
    assert_eq!(friend["name"], friend["push_name"]);
    assert_eq!(friend["full_name"], Value::Null);

    world.change_state(&[name(FRIEND, "Ärne Friend"), name(OTHER, "Olga Other")]);
    let named = |rows: &[Value]| of(rows, FRIEND).is_some_and(|row| row["full_name"] == "Ärne Friend");
    let rows = contacts_where(&world, &session, "names", |rows| named(rows) && of(rows, OTHER).is_some()).await;
    assert_eq!(of(&rows, FRIEND).unwrap()["name"], "Ärne Friend");
    assert_eq!(of(&rows, FRIEND).unwrap()["short_name"], "Ärne");
    assert_eq!(of(&rows, OTHER).unwrap()["push_name"], Value::Null);

    world.change_state(&[name(FRIEND, "Anna Friend")]);
    let renamed = |rows: &[Value]| of(rows, FRIEND).is_some_and(|row| row["name"] == "Anna Friend");
    let rows = contacts_where(&world, &session, "another name", renamed).await;
    world.restart().await;
    assert_eq!(world.client.all(&path(&session)).await, rows, "they survive a restart");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lid_and_a_phone_number_are_one_contact_in_both_orders() {
    let (world, session) = World::linked(&[]).await;
    let [friend_lid, other_lid] = [FRIEND, OTHER].map(|phone| format!("{}@lid", world.phone(phone).lid()));
    // One is known by the LID first, the other by the number.
    world.change_state(&[name(&friend_lid, "By Lid"), name(OTHER, "By Number")]);
    let both = |rows: &[Value]| rows.iter().any(|r| r["name"] == "By Lid") && of(rows, OTHER).is_some();
    let rows = contacts_where(&world, &session, "two names", both).await;
    let by_lid = rows.iter().find(|row| row["name"] == "By Lid").unwrap();
    assert_eq!(
        (&by_lid["jid"], &by_lid["lid"], &by_lid["phone"]),
        (&friend_lid.clone().into(), &friend_lid.clone().into(), &Value::Null)
    );

    // A message tells both addresses.
    for phone in [FRIEND, OTHER] {
        let options = SendOptions { by_lid: true, ..SendOptions::default() };
        world.phone(phone).send_with(OWNER, &Content::Text("from a LID".into()), &options).unwrap();
    }
    let merged = |rows: &[Value]| {
        [(FRIEND, &friend_lid), (OTHER, &other_lid)]
            .iter()
            .all(|(phone, lid)| of(rows, phone).is_some_and(|row| row["lid"] == **lid))
    };
    let rows = contacts_where(&world, &session, "one contact each", merged).await;
    assert_eq!(of(&rows, FRIEND).unwrap()["name"], "By Lid");
    assert_eq!(of(&rows, OTHER).unwrap()["name"], "By Number");
    for lid in [&friend_lid, &other_lid] {
        assert_eq!(rows.iter().filter(|row| row["lid"] == **lid).count(), 1, "{rows:?}");
    }

    // What is learned under the LID from now on is the number's.
    world.change_state(&[name(&friend_lid, "Renamed")]);
    let renamed = |rows: &[Value]| of(rows, FRIEND).is_some_and(|row| row["name"] == "Renamed");
    contacts_where(&world, &session, "a new name", renamed).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_meet_while_contacts_are_added_and_a_query_finds_names_and_numbers() {
    let (mut world, session) = World::linked(&[]).await;
    let many: Vec<_> = (0..12).map(|n| name(&format!("1555777{n:04}"), &format!("Përson Nr{n}"))).collect();
    world.change_state(&many);
    let all = contacts_where(&world, &session, "all names", |rows| rows.len() >= 12).await;

    let short = format!("/api/whatsapp/sessions/{session}/contacts?limit=5");
    let (mut rows, mut next) = world.client.page(&short).await;
    let mut page = 0;
    while let Some(cursor) = next {
        page += 1;
        if page == 1 {
            world.change_state(&[name("15550000001", "Added Meanwhile")]);
            contacts_where(&world, &session, "one more", |rows| rows.len() > all.len()).await;
            world.restart().await;
        }
        let (more, after) = world.client.page(&format!("{short}&cursor={cursor}")).await;
        assert!(more.len() <= 5);
        rows.extend(more);
        next = after;
    }
    assert_eq!(rows, all, "what was there, each once");

    let find = async |query: &str| world.client.all(&format!("{}&query={query}", path(&session))).await.len();
    assert_eq!(find("PERSON").await, 12);
    assert_eq!(find("person%20nr11").await, 1);
    assert_eq!(find("p%C3%A9RSON%20nr11").await, 1, "without case and diacritics on either side");
    assert_eq!(find("%CC%81").await, 0, "a diacritic alone is nowhere");
    assert_eq!(find("%2B1555777").await, 12);
    assert_eq!(find("7770003").await, 1);
    assert_eq!(find("nobody").await, 0);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_named() {
    let (world, session) = World::linked(&[]).await;
    let path = format!("/api/whatsapp/sessions/{session}/contacts");
    for limit in ["0", "201", "x", ""] {
        world.client.get(&format!("{path}?limit={limit}")).await.names("limit");
    }
    let (_, chats) = ("", format!("/api/whatsapp/sessions/{session}/messages?limit=1"));
    world.phone(FRIEND).send_text(OWNER, "one").unwrap();
    world.phone(FRIEND).send_text(OWNER, "two").unwrap();
    world.history_where(&session, "two messages", |rows| rows.len() == 2).await;
    let foreign = world.client.page(&chats).await.1.expect("a second page");
    for cursor in ["x", "", "%00", &foreign] {
        world.client.get(&format!("{path}?cursor={cursor}")).await.names("cursor");
    }
    for query in ["", "%20", &"x".repeat(256)] {
        world.client.get(&format!("{path}?query={query}")).await.names("query");
    }
    let stranger = world.stranger().await;
    for path in [path.clone(), format!("{path}/{FRIEND}/picture")] {
        stranger.get(&path).await.error(404, "session_not_found");
    }
    let nobody = "01900000-0000-7000-8000-000000000000";
    world.client.get(&format!("/api/whatsapp/sessions/{nobody}/contacts")).await.error(404, "session_not_found");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_given_while_there_is_one() {
    let (world, session) = World::linked(&[]).await;
    let path = format!("/api/whatsapp/sessions/{session}/contacts/{FRIEND}/picture");
    world.client.get(&path).await.error(404, "picture_not_found");
    world.phone(FRIEND).set_picture(Some(b"a picture"), Some(b"small")).unwrap();
    let full = world.client.get(&path).await.expect(200).body;
    assert_eq!(full["jid"], format!("{FRIEND}@s.whatsapp.net"));
    let preview = world.client.get(&format!("{path}?type=preview")).await.expect(200).body;
    assert_eq!(full["id"], preview["id"]);
    assert!(full["url"].as_str().unwrap().starts_with("http") && full["url"] != preview["url"], "{full} {preview}");

    world.client.get(&format!("{path}?type=large")).await.names("type");
    let bad = format!("/api/whatsapp/sessions/{session}/contacts/nobody/picture");
    world.client.get(&bad).await.names("jid");
    world.finish();
}
