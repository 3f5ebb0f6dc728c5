//! What is not a message: history, the state of chats, calls, pictures, and media that have expired; and polls.

use crate::{
    exchange::Pair,
    node::{PATIENCE, eventually},
    peer::{self, Peer},
    tools::{Kind, Tool},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::time::timeout;
use whatsapp_simulator::{
    CallState, Config, Content, Handle, HistorySize, MediumKind, PhoneEvent, SendOptions, Simulator, StateChange,
};

const NUMBER: &str = "15550501001";
const FRIEND: &str = "15550502002";

async fn simulator() -> Handle {
    let simulator = Simulator::start(Config::default()).await.unwrap();
    simulator.phone(FRIEND);
    simulator
}

/// All of a phone's history arrives, in several chunks of which the larger ones are media.
async fn gets_the_history(tool: &Tool) {
    const MESSAGES: u64 = 4_500;
    let simulator = simulator().await;
    simulator.phone(NUMBER).set_history(HistorySize { chats: 3, messages: MESSAGES });
    let peer = Peer::linked(tool, &simulator, NUMBER).await;
    eventually("all of the history", async || {
        let got: u64 = peer.all("history").iter().filter_map(|h| h["messages"].as_u64()).sum();
        if got == MESSAGES { Ok(()) } else { Err(format!("{got} messages")) }
    })
    .await;
    assert!(simulator.stats().count("phone: history chunk") >= 4);
    peer.finish();
    peer::finish(&simulator);
}

/// A phone changes something until the client tells of it: what a client fetches for the first time makes no events.
async fn sees(peer: &Peer, change: &StateChange, is: impl Fn(&Value) -> bool) {
    for _ in 0..20 {
        peer.phone().change_state(std::slice::from_ref(change)).unwrap();
        if timeout(Duration::from_secs(2), peer.event("state", &is)).await.is_ok() {
            return;
        }
    }
    panic!("never seen: {change:?}");
}

/// What a phone changes the client learns of, and the other way round.
async fn agrees_with_its_phone(tool: &Tool) {
    let simulator = simulator().await;
    let mut peer = Peer::linked(tool, &simulator, NUMBER).await;
    let phone = peer.phone();
    let chat = || FRIEND.to_owned();
    let changes = [
        (StateChange::Mute { chat: chat(), on: true, until: None }, json!({"muted": true})),
        (StateChange::Pin { chat: chat(), on: true }, json!({"pinned": true})),
        (StateChange::Archive { chat: chat(), on: true }, json!({"archived": true})),
        (StateChange::Contact { chat: chat(), name: "A Friend".into() }, json!({"name": "A Friend"})),
        (StateChange::Mute { chat: chat(), on: false, until: None }, json!({"muted": false})),
    ];
    for (change, expected) in changes {
        let (key, value) = expected.as_object().unwrap().iter().next().unwrap();
        sees(&peer, &change, |s| s["chat"] == FRIEND && s[key] == *value).await;
        peer.nothing_waits().await;
    }
    peer.set_muted(FRIEND).await;
    eventually("a muted chat", async || {
        let state = phone.chat_state(FRIEND);
        if state.muted { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    assert_eq!(simulator.stats().count("app state flaw"), 0, "the client's MACs are right");
    peer.set_about("out for lunch").await;
    assert_eq!(phone.about(), "out for lunch");
    peer.finish();
    peer::finish(&simulator);
}

/// Calls of a friend, one refused and one given up; the friend's picture.
async fn is_called_and_sees_the_caller(tool: &Tool) {
    let simulator = simulator().await;
    let mut peer = Peer::linked(tool, &simulator, NUMBER).await;
    let friend = simulator.phone(FRIEND);
    let call = friend.call(NUMBER, true).unwrap();
    let offer = peer.event("call", |c| c["call"] == call.as_str() && c["state"] == "offered").await;
    assert_eq!(offer["video"], true, "{offer}");
    peer.reject_call(&call).await;
    let refused = |e: &PhoneEvent| matches!(e, PhoneEvent::Call { state: CallState::Rejected, .. });
    friend.wait_for_event(PATIENCE, refused).await.unwrap();
    let call = friend.call(NUMBER, false).unwrap();
    peer.event("call", |c| c["call"] == call.as_str() && c["state"] == "offered").await;
    friend.end_call(&call).unwrap();
    peer.event("call", |c| c["call"] == call.as_str() && c["state"] == "ended").await;
    peer.nothing_waits().await;

    assert_eq!(peer.picture(FRIEND).await, "");
    let picture = vec![9; 3_000];
    friend.set_picture(Some(&picture), None).unwrap();
    assert_eq!(peer.picture(FRIEND).await, hex::encode(Sha256::digest(&picture)));
    peer.finish();
    peer::finish(&simulator);
}

/// An image that has expired is uploaded again by the client's phone.
async fn gets_what_has_expired(tool: &Tool) {
    let simulator = simulator().await;
    let mut peer = Peer::linked(tool, &simulator, NUMBER).await;
    let data = vec![4; 30_000];
    let image = Content::Medium {
        kind: MediumKind::Image,
        data: data.clone().into(),
        mimetype: "image/png".into(),
        caption: Some("later".into()),
        view_once: false,
    };
    let options = SendOptions::default();
    let id = simulator.phone(FRIEND).send_with(NUMBER, &image, &options).unwrap();
    peer.event("message", |m| m["id"] == id.as_str()).await;
    peer.phone().wait_for(PATIENCE, |m| m.id == id).await.unwrap();
    peer.nothing_waits().await;
    assert!(simulator.faults().expire_media(None) > 0);
    assert_eq!(peer.download_again(&id).await, hex::encode(Sha256::digest(&data)));
    peer.finish();
    peer::finish(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn baileys_shares_the_account_with_its_phone() {
    let Some(tool) = Kind::Baileys.ready().await else { return };
    gets_the_history(&tool).await;
    agrees_with_its_phone(&tool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatsmeow_shares_the_account_with_its_phone() {
    let Some(tool) = Kind::Whatsmeow.ready().await else { return };
    gets_the_history(&tool).await;
    agrees_with_its_phone(&tool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn baileys_is_called_and_gets_what_has_expired() {
    let Some(tool) = Kind::Baileys.ready().await else { return };
    is_called_and_sees_the_caller(&tool).await;
    gets_what_has_expired(&tool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatsmeow_is_called_and_gets_what_has_expired() {
    let Some(tool) = Kind::Whatsmeow.ready().await else { return };
    is_called_and_sees_the_caller(&tool).await;
    gets_what_has_expired(&tool).await;
}

/// Baileys has no command to vote: it asks, and phones and whatsmeow vote.
#[tokio::test(flavor = "multi_thread")]
async fn two_clients_and_a_phone_vote() {
    let Some(mut pair) = Pair::start().await else { return };
    let (asking, voting) = (&mut pair.baileys, &mut pair.whatsmeow);
    let poll = asking.send_poll(&voting.number, "drink?", &["tea", "coffee"]).await;
    voting.event("message", |m| m["id"] == poll.as_str()).await;
    voting.nothing_waits().await;
    voting.vote(&asking.number, &poll, &["tea"]).await;
    asking.has_vote(&poll, &voting.number, "tea").await;
    asking.nothing_waits().await;

    let friend = pair.simulator.phone(FRIEND);
    for client in [asking, voting] {
        let poll = client.send_poll(FRIEND, "eat?", &["bread", "rice"]).await;
        friend.wait_for(PATIENCE, |m| m.id == poll).await.unwrap();
        client.nothing_waits().await;
        let vote = Content::Vote { message_id: poll.clone(), options: vec!["rice".into()] };
        friend.send(&client.number, &vote).unwrap();
        client.has_vote(&poll, FRIEND, "rice").await;
        client.nothing_waits().await;
    }
    pair.finish();
}
