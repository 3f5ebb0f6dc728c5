//! What else than texts is sent: reactions, edits, revocations, polls and media, by phones and to them.

use bytes::Bytes;
use wacore::types::events::Event;
use waproto::whatsapp as wa;
use whatsapp_simulator::{Content, MediumKind, MessageKind, PhoneError};

use crate::client::{DEADLINE, TestClient, assert_clean, jid, simulator};

/// Waits for a message from which something can be taken.
async fn receive<T>(client: &TestClient, what: &str, take: impl Fn(&wa::Message) -> Option<T>) -> T {
    client
        .wait(what, |e| match e {
            Event::Messages(batch) => batch.iter().find_map(|m| take(&m.message)),
            _ => None,
        })
        .await
}

/// The id that a message is about, and its new text.
fn protocol(message: &wa::Message) -> Option<(String, Option<String>)> {
    let inner = message.edited_message.as_option().and_then(|e| e.message.as_option()).unwrap_or(message);
    let protocol = inner.protocol_message.as_option()?;
    let text = protocol.edited_message.as_option().and_then(|m| m.conversation.clone());
    Some((protocol.key.as_option()?.id.clone()?, text))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_reacts_edits_and_revokes() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550201").await;
    let bob = simulator.phone("15550202");
    let from_alice = alice.send("15550202", "react to me").await;
    bob.wait_for(DEADLINE, |m| m.id == from_alice).await.unwrap();
    let reaction = Content::Reaction { message_id: from_alice.clone(), emoji: "👍".into() };
    bob.send("15550201", &reaction).unwrap();
    let (about, emoji) = receive(&alice, "a reaction", |m| {
        let reaction = m.reaction_message.as_option()?;
        Some((reaction.key.as_option()?.id.clone()?, reaction.text.clone()?))
    })
    .await;
    assert_eq!((about, emoji.as_str()), (from_alice.clone(), "👍"));
    let own = bob.send_text("15550201", "with a tpyo").unwrap();
    alice.text("with a tpyo").await;
    bob.send("15550201", &Content::Edit { message_id: own.clone(), text: "with a typo".into() }).unwrap();
    assert_eq!(receive(&alice, "an edit", protocol).await, (own.clone(), Some("with a typo".into())));
    bob.send("15550201", &Content::Revoke { message_id: own.clone() }).unwrap();
    assert_eq!(receive(&alice, "a revocation", protocol).await, (own, None));
    let not_his = bob.send("15550201", &Content::Revoke { message_id: from_alice });
    assert!(matches!(not_his, Err(PhoneError::Invalid(_))));
    let unknown = bob.send("15550201", &Content::Edit { message_id: "X".into(), text: "y".into() });
    assert!(matches!(unknown, Err(PhoneError::UnknownMessage(_))));
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_shows_what_a_client_reacts_edits_and_revokes() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550203").await;
    let bob = simulator.phone("15550204");
    let id = alice.send("15550204", "first version").await;
    let text = wa::Message { conversation: Some("second version".into()), ..Default::default() };
    alice.client.edit_message(jid("15550204"), id.clone(), text).await.unwrap();
    let edit = bob.wait_for(DEADLINE, |m| m.kind == MessageKind::Edit).await.unwrap();
    assert_eq!((edit.text.as_str(), edit.target), ("second version", Some(id.clone())));
    alice.client.revoke_message(jid("15550204"), id.clone(), whatsapp_rust::RevokeType::Sender).await.unwrap();
    let revoke = bob.wait_for(DEADLINE, |m| m.kind == MessageKind::Revoke).await.unwrap();
    assert_eq!(revoke.target, Some(id));
    let options = ["yes".to_string(), "no".to_string()];
    alice.client.polls().create(&jid("15550204"), "really?", &options, 1).await.unwrap();
    bob.wait_for(DEADLINE, |m| m.kind == MessageKind::Poll).await.unwrap();
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_sends_polls_and_media() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550205").await;
    let (bob, phone) = (simulator.phone("15550206"), simulator.phone("15550205"));
    let options = vec!["tea".to_string(), "coffee".to_string()];
    let poll = Content::Poll { question: "what?".into(), options };
    bob.send("15550205", &poll).unwrap();
    let asked = receive(&alice, "a poll", |m| {
        let poll = m.poll_creation_message_v3.as_option()?;
        Some((poll.name.clone()?, poll.options.len()))
    })
    .await;
    assert_eq!(asked, ("what?".to_string(), 2));
    let too_few = Content::Poll { question: "what?".into(), options: vec![] };
    assert!(matches!(bob.send("15550205", &too_few), Err(PhoneError::Invalid(_))));
    let data = Bytes::from(vec![9; 200_000]);
    let medium = |kind, mimetype: &str, caption: Option<&str>, view_once| Content::Medium {
        kind,
        data: data.clone(),
        mimetype: mimetype.into(),
        caption: caption.map(str::to_string),
        view_once,
    };
    bob.send("15550205", &medium(MediumKind::Image, "image/jpeg", Some("a view"), false)).unwrap();
    let image = receive(&alice, "an image", |m| m.image_message.as_option().cloned()).await;
    assert_eq!(image.caption.as_deref(), Some("a view"));
    assert_eq!(alice.client.download(&image).await.unwrap(), data);
    bob.send("15550205", &medium(MediumKind::Audio, "audio/ogg; codecs=opus", None, false)).unwrap();
    let audio = receive(&alice, "a sound", |m| m.audio_message.as_option().cloned()).await;
    assert_eq!(alice.client.download(&audio).await.unwrap(), data);
    bob.send("15550205", &medium(MediumKind::Document, "text/plain", None, false)).unwrap();
    let document = receive(&alice, "a document", |m| m.document_message.as_option().cloned()).await;
    assert_eq!(alice.client.download(&document).await.unwrap(), data);
    bob.send("15550205", &medium(MediumKind::Image, "image/jpeg", None, true)).unwrap();
    for kind in [MessageKind::Poll, MessageKind::Image, MessageKind::Audio, MessageKind::Document] {
        phone.wait_for(DEADLINE, |m| m.kind == kind).await.unwrap();
    }
    phone.wait_for(DEADLINE, |m| m.text == "<image>").await.unwrap();
    assert_clean(&simulator);
}
