//! Polls with votes, replies, disappearing and view-once messages, by phone number and by LID.

use bytes::Bytes;
use wacore::types::events::Event;
use waproto::whatsapp as wa;
use whatsapp_rust::Jid;
use whatsapp_simulator::{Content, MediumKind, MessageKind, SendOptions};

use crate::client::{DEADLINE, TestClient, assert_clean, jid, simulator};

/// Waits for a message from which something can be taken, with its id.
async fn receive<T>(client: &TestClient, what: &str, take: impl Fn(&wa::Message) -> Option<T>) -> (String, T) {
    client
        .wait(what, |e| match e {
            Event::Messages(batch) => batch.iter().find_map(|m| Some((m.info.id.clone(), take(&m.message)?))),
            _ => None,
        })
        .await
}

fn poll() -> Content {
    Content::Poll { question: "drink?".into(), options: vec!["tea".into(), "coffee".into()] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_votes_in_a_phones_poll() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15568001").await;
    let bob = simulator.phone("15568002");
    let poll = bob.send("15568001", &poll()).unwrap();
    let secret = |m: &wa::Message| m.message_context_info.as_option()?.message_secret.clone();
    let (id, secret) = receive(&alice, "a poll", secret).await;
    assert_eq!(id, poll);
    let vote = ["coffee".to_string()];
    alice.client.polls().vote(jid("15568002"), &id, &jid("15568002"), &secret, &vote).await.unwrap();
    let seen = bob.wait_for(DEADLINE, |m| m.kind == MessageKind::PollVote).await.unwrap();
    assert_eq!((seen.text.as_str(), seen.target), ("coffee", Some(poll)));
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_votes_in_a_clients_poll() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15568003").await;
    let bob = simulator.phone("15568004");
    let options = ["tea".to_string(), "coffee".to_string()];
    let (sent, secret) = alice.client.polls().create(jid("15568004"), "drink?", &options, 1).await.unwrap();
    let poll = bob.wait_for(DEADLINE, |m| m.kind == MessageKind::Poll).await.unwrap();
    let vote = Content::Vote { message_id: poll.id.clone(), options: vec!["tea".into()] };
    bob.send("15568003", &vote).unwrap();
    let vote = |m: &wa::Message| m.poll_update_message.as_option()?.vote.as_option().cloned();
    let (_, vote) = receive(&alice, "a vote", vote).await;
    let (payload, iv) = (vote.enc_payload.unwrap(), vote.enc_iv.unwrap());
    let ciphertext = whatsapp_rust::PollVoteCiphertext { enc_payload: &payload, enc_iv: &iv };
    let (creator, voter) = (jid("15568003"), jid("15568004"));
    let polls = alice.client.polls();
    let chosen = polls.decrypt_vote(ciphertext, &secret, &sent.message_id, &creator, &voter).await.unwrap();
    assert_eq!(chosen, [wacore::poll::compute_option_hash("tea").to_vec()]);
    let none = Content::Vote { message_id: poll.id, options: vec!["beer".into()] };
    assert!(bob.send("15568003", &none).is_err(), "no such option");
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_answers_and_lets_messages_disappear() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15568005").await;
    let (bob, phone) = (simulator.phone("15568006"), simulator.phone("15568005"));
    let asked = alice.send("15568006", "how are you?").await;
    bob.wait_for(DEADLINE, |m| m.id == asked).await.unwrap();
    let options = SendOptions { reply_to: Some(asked.clone()), ephemeral_seconds: 604_800, ..Default::default() };
    bob.send_with("15568005", &Content::Text("well".into()), &options).unwrap();
    let context = |m: &wa::Message| m.extended_text_message.as_option()?.context_info.as_option().cloned();
    let (_, context) = receive(&alice, "an answer", context).await;
    assert_eq!((context.stanza_id.as_ref(), context.expiration), (Some(&asked), Some(604_800)));
    assert_eq!(context.quoted_message.conversation.as_deref(), Some("how are you?"));
    let seen = phone.wait_for(DEADLINE, |m| m.text == "well").await.unwrap();
    assert_eq!((seen.reply_to, seen.ephemeral_seconds), (Some(asked), 604_800));
    bob.send("15568005", &Content::Disappearing { seconds: 86_400 }).unwrap();
    let setting = |m: &wa::Message| m.protocol_message.as_option()?.ephemeral_expiration;
    assert_eq!(receive(&alice, "a timer", setting).await.1, 86_400);
    let data = Bytes::from_static(b"only once");
    let (kind, mimetype) = (MediumKind::Image, "image/jpeg".to_string());
    bob.send("15568005", &Content::Medium { kind, data, mimetype, caption: None, view_once: true }).unwrap();
    let once = phone.wait_for(DEADLINE, |m| m.kind == MessageKind::Image).await.unwrap();
    assert!(once.view_once);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_addressed_by_lid_in_both_directions() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15568007").await;
    let (bob, phone) = (simulator.phone("15568008"), simulator.phone("15568007"));
    let by_lid = SendOptions { by_lid: true, ..Default::default() };
    let first = bob.send_with("15568007", &Content::Text("to your lid".into()), &by_lid).unwrap();
    let from = alice.text("to your lid").await;
    assert!(from.contains(&bob.lid()) || from.contains("15568008"), "{from}");
    let seen = phone.wait_for(DEADLINE, |m| m.id == first).await.unwrap();
    assert!(seen.by_lid && seen.from == "15568008");
    let lid: Jid = format!("{}@lid", bob.lid()).parse().unwrap();
    let sent = alice.client.send_message(lid, crate::client::message("to yours")).await.unwrap();
    let got = bob.wait_for(DEADLINE, |m| m.id == sent.message_id).await.unwrap();
    assert_eq!((got.chat.as_str(), got.from.as_str()), ("15568007", "15568007"));
    let reaction = Content::Reaction { message_id: got.id.clone(), emoji: "👍".into() };
    bob.send_with("15568007", &reaction, &by_lid).unwrap();
    let about = |m: &wa::Message| m.reaction_message.as_option()?.key.as_option()?.id.clone();
    assert_eq!(receive(&alice, "a reaction", about).await.1, got.id);
    let poll = bob.send_with("15568007", &poll(), &by_lid).unwrap();
    phone.wait_for(DEADLINE, |m| m.id == poll).await.unwrap();
    let vote = Content::Vote { message_id: poll.clone(), options: vec!["tea".into()] };
    phone.send_with("15568008", &vote, &by_lid).unwrap();
    let voted = bob.wait_for(DEADLINE, |m| m.kind == MessageKind::PollVote).await.unwrap();
    assert_eq!((voted.text.as_str(), voted.target), ("tea", Some(poll)));
    // The same chat by phone number again: the sessions are the same.
    bob.send_text("15568007", "to your number").unwrap();
    alice.text("to your number").await;
    assert_clean(&simulator);
}
