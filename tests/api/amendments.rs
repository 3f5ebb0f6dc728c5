//! Edits, revokes and reactions: they change the message that they are about, in whatever order they come.

use crate::{
    hosts::picture,
    world::{FRIEND, OWNER, World},
};
use image::ImageFormat;
use serde_json::{Value, json};
use whatsapp_simulator::{Content, MediumKind, SendOptions};

const MEMBER: &str = "15550003003";

fn edit(id: &str, text: &str) -> Content {
    Content::Edit { message_id: id.into(), text: text.into() }
}

fn react(id: &str, emoji: &str) -> Content {
    Content::Reaction { message_id: id.into(), emoji: emoji.into() }
}

fn revoke(id: &str) -> Content {
    Content::Revoke { message_id: id.into() }
}

fn held() -> SendOptions {
    SendOptions { held: true, ..SendOptions::default() }
}

impl World {
    /// The friend writes to the account; the message stays on the friend's phone until it is released.
    fn write(&self, content: &Content) -> String {
        self.phone(FRIEND).send_with(OWNER, content, &held()).unwrap()
    }

    /// Sends what was held back, one after the other, each when the one before has been taken in: a text that comes
    /// behind it has.
    async fn release(&self, session: &str, ids: &[&str]) {
        for id in ids {
            self.phone(FRIEND).release(id).unwrap();
            let behind = self.phone(FRIEND).send_text(OWNER, "behind").unwrap();
            self.message_where(session, &behind, |_| true).await;
        }
    }
}

/// What a user sees of a message.
fn shown(message: &Value) -> Value {
    let reactions: Vec<_> = message["reactions"].as_array().unwrap().iter().map(|r| r["emoji"].clone()).collect();
    let (edited, revoked) = (message["edited_at"].is_string(), message["revoked_at"].is_string());
    json!([message["text"], edited, revoked, reactions])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_of_arrival_gives_the_same_message() {
    let (world, session) = World::linked(&[]).await;
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
        let message = world.write(&Content::Text("first".into()));
        let mut written = vec![message.clone()];
        for text in ["second", "third"] {
            // Edits count by their own times.
            tokio::task::yield_now().await;
            written.push(world.write(&edit(&message, text)));
        }
        written.push(world.write(&react(&message, "👍")));
        let ids: Vec<&str> = order.iter().map(|place: &usize| written[*place].as_str()).collect();
        world.release(&session, &ids).await;
        let expected = json!(["third", true, false, ["👍"]]);
        let row = world.message_where(&session, &message, |row| shown(row) == expected).await;
        assert_eq!(row["reactions"][0]["sender"], format!("{FRIEND}@s.whatsapp.net"));
        for id in &written[1..] {
            let path = format!("/api/whatsapp/sessions/{session}/messages/{id}");
            world.client.get(&path).await.error(404, "message_not_found");
        }
        world.phone(FRIEND).send(OWNER, &revoke(&message)).unwrap();
        world.message_where(&session, &message, |row| shown(row) == json!([null, false, true, []])).await;
    }
    // A revoke before everything else is still the last word.
    let message = world.write(&Content::Text("first".into()));
    let written = [world.write(&revoke(&message)), world.write(&edit(&message, "second")), message.clone()];
    world.release(&session, &written.each_ref().map(String::as_str)).await;
    world.message_where(&session, &message, |row| shown(row) == json!([null, false, true, []])).await;
    let rows = world.client.history(&session).await;
    assert!(rows.iter().all(|row| row["type"] == "text"), "no amendment shows as a message: {rows:?}");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn reactions_are_set_changed_and_taken_back_by_both_sides() {
    let (mut world, session) = World::linked(&[]).await;
    let ours = world.send(&session, FRIEND, "from the gateway").await;
    world.arrived(FRIEND, &ours).await;
    let friend = world.phone(FRIEND);
    friend.send(OWNER, &react(&ours, "👍")).unwrap();
    world.message_where(&session, &ours, |row| shown(row)[3] == json!(["👍"])).await;
    friend.send(OWNER, &react(&ours, "❤️")).unwrap();
    world.message_where(&session, &ours, |row| shown(row)[3] == json!(["❤️"])).await;
    // From the account's own phone, which tells its devices.
    world.arrived(OWNER, &ours).await;
    world.phone(OWNER).send(FRIEND, &react(&ours, "🎉")).unwrap();
    let both = world.message_where(&session, &ours, |row| row["reactions"].as_array().unwrap().len() == 2).await;
    let senders: Vec<_> = both["reactions"].as_array().unwrap().iter().map(|r| r["sender"].clone()).collect();
    assert!(senders.contains(&json!(format!("{OWNER}@s.whatsapp.net"))), "{both}");
    friend.send(OWNER, &react(&ours, "")).unwrap();
    world.message_where(&session, &ours, |row| shown(row)[3] == json!(["🎉"])).await;
    world.restart().await;
    world.message_where(&session, &ours, |row| shown(row)[3] == json!(["🎉"])).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_phone_edits_and_revokes_what_the_account_wrote() {
    let (world, session) = World::linked(&[]).await;
    let phone = world.phone(OWNER);
    let message = phone.send_text(FRIEND, "from the phone").unwrap();
    world.message_where(&session, &message, |row| row["from_me"] == true).await;
    phone.send(FRIEND, &edit(&message, "edited on the phone")).unwrap();
    let edited = json!(["edited on the phone", true, false, []]);
    world.message_where(&session, &message, |row| shown(row) == edited).await;
    phone.send(FRIEND, &revoke(&message)).unwrap();
    world.message_where(&session, &message, |row| shown(row)[2] == true).await;
    // What the gateway has sent is the phone's to take back as well.
    let ours = world.send(&session, FRIEND, "from the gateway").await;
    world.arrived(OWNER, &ours).await;
    phone.send(FRIEND, &revoke(&ours)).unwrap();
    world.message_where(&session, &ours, |row| shown(row)[2] == true).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_takes_back_what_a_member_wrote_and_nobody_edits_for_others() {
    let (world, session) = World::linked(&[]).await;
    world.phone(MEMBER);
    let group = world.phone(FRIEND).create_group("friends", &[OWNER, MEMBER]).unwrap();
    let member = world.phone(MEMBER);
    let message = member.send_text(&group, "to all").unwrap();
    let row = world.message_where(&session, &message, |_| true).await;
    assert_eq!((&row["chat"], &row["sender"]), (&json!(group), &json!(format!("{MEMBER}@s.whatsapp.net"))));
    world.arrived(FRIEND, &message).await;
    world.phone(FRIEND).send(&group, &react(&message, "👀")).unwrap();
    member.send(&group, &edit(&message, "to everyone")).unwrap();
    world.message_where(&session, &message, |row| shown(row) == json!(["to everyone", true, false, ["👀"]])).await;
    world.phone(FRIEND).send(&group, &revoke(&message)).unwrap();
    world.message_where(&session, &message, |row| shown(row) == json!([null, false, true, []])).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_file_is_gone() {
    let (world, session) = World::linked(&[]).await;
    let content = Content::Medium {
        kind: MediumKind::Image,
        data: picture(ImageFormat::Jpeg, 40, 30).into(),
        mimetype: "image/jpeg".into(),
        caption: Some("a caption".into()),
        view_once: false,
    };
    let message = world.phone(FRIEND).send(OWNER, &content).unwrap();
    let url = world.message_where(&session, &message, |_| true).await["media"]["url"].as_str().unwrap().to_owned();
    world.client.get(&url).await.expect(200);
    world.phone(FRIEND).send(OWNER, &edit(&message, "another caption")).unwrap();
    let edited = world.message_where(&session, &message, |row| row["edited_at"].is_string()).await;
    assert_eq!((&edited["caption"], &edited["text"]), (&json!("another caption"), &Value::Null));
    world.phone(FRIEND).send(OWNER, &revoke(&message)).unwrap();
    let revoked = world.message_where(&session, &message, |row| row["revoked_at"].is_string()).await;
    assert_eq!(
        (&revoked["caption"], &revoked["media"], &revoked["type"]),
        (&Value::Null, &Value::Null, &json!("image"))
    );
    world.client.get(&url).await.error(410, "media_gone");
    world.finish();
}
