//! Texts between clients and phones.

use wacore::types::events::Event;
use whatsapp_rust::{GroupCreateOptions, GroupParticipantOptions};
use whatsapp_simulator::ReceiptKind;

use crate::client::{DEADLINE, TestClient, assert_clean, eventually, jid, message, simulator};

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_exchange_texts_with_receipts() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15551001"), TestClient::pair(&simulator, "15551002"));
    let id = alice.send("15551002", "one").await;
    bob.text("one").await;
    alice
        .wait("a receipt", |e| match e {
            Event::Receipt(r) => r.message_ids.contains(&id).then_some(()),
            _ => None,
        })
        .await;
    bob.send("15551001", "two").await;
    alice.text("two").await;
    for n in 0..30 {
        alice.send("15551002", &format!("burst {n}")).await;
    }
    bob.text("burst 29").await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_by_lid_arrives() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15551003").await;
    let bob = TestClient::pair(&simulator, "15551004").await;
    let lid = whatsapp_rust::Jid::lid(simulator.phone("15551004").lid());
    alice.client.send_message(lid, message("by lid")).await.unwrap();
    bob.text("by lid").await;
    let phone = simulator.phone("15551004");
    let got = phone.wait_for(DEADLINE, |m| m.text == "by lid").await.unwrap();
    assert_eq!(got.from, "15551003");
    let own = simulator.phone("15551003");
    let own = own.wait_for(DEADLINE, |m| m.text == "by lid").await.unwrap();
    assert_eq!(own.chat, "15551004");
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_phone_answers_and_reads() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15551005").await;
    let bob = simulator.phone("15551006");
    bob.set_echo(true);
    let id = alice.send("15551006", "anybody there?").await;
    alice.text("echo: anybody there?").await;
    bob.mark_read(&id).unwrap();
    alice
        .wait("a read receipt", |e| match e {
            Event::Receipt(r) => {
                let read = format!("{:?}", r.r#type) == "Read";
                (read && r.message_ids.contains(&id)).then_some(())
            }
            _ => None,
        })
        .await;
    bob.set_echo(false);
    alice.send("15551006", "still there?").await;
    bob.wait_for(DEADLINE, |m| m.text == "still there?").await.unwrap();
    // Two echo phones do not talk for ever.
    let carol = simulator.phone("15551007");
    bob.set_echo(true);
    carol.set_echo(true);
    carol.send_text("15551006", "ping").unwrap();
    carol.wait_for(DEADLINE, |m| m.text == "echo: ping").await.unwrap();
    assert!(bob.inbox().iter().all(|m| m.text != "echo: echo: ping"));
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_sees_who_got_and_read_its_text() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15551008").await;
    let bob = simulator.phone("15551009");
    let id = bob.send_text("15551008", "read me").unwrap();
    alice.text("read me").await;
    alice.client.mark_as_read(&jid("15551009"), None, &[id.as_str()]).await.unwrap();
    eventually("delivered and read", || {
        let kinds: Vec<_> = bob.receipts(&id).into_iter().map(|r| r.kind).collect();
        kinds.contains(&ReceiptKind::Delivered) && kinds.contains(&ReceiptKind::Read)
    })
    .await;
    let read = bob.receipts(&id).into_iter().find(|r| r.kind == ReceiptKind::Read);
    assert_eq!(read.unwrap().from, "15551008:1");
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_text_reaches_clients_and_phones() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15551010"), TestClient::pair(&simulator, "15551011"));
    let carol = simulator.phone("15551012");
    let member = |number| GroupParticipantOptions::builder().jid(jid(number)).build();
    let options = GroupCreateOptions::builder()
        .subject("friends")
        .participants(vec![member("15551011"), member("15551012")])
        .build();
    let created = alice.client.groups().create_group(options).await.unwrap();
    let group = created.metadata.id.clone();
    assert_eq!(created.metadata.participants.len(), 3);
    for n in 0..3 {
        let text = format!("hello group {n}");
        alice.client.send_message(group.clone(), message(&text)).await.unwrap();
        bob.text(&text).await;
        let got = carol.wait_for(DEADLINE, |m| m.text == text).await.unwrap();
        assert_eq!((got.from.as_str(), got.chat), ("15551010", group.to_string()));
    }
    bob.client.send_message(group.clone(), message("hello back")).await.unwrap();
    alice.text("hello back").await;
    carol.wait_for(DEADLINE, |m| m.text == "hello back").await.unwrap();
    assert_eq!(simulator.stats().count("stale devices"), 0, "both hash the same devices");
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn media_are_uploaded_and_downloaded_over_tls() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15551013").await;
    let bob = TestClient::pair(&simulator, "15551014").await;
    let data = vec![7u8; 300_000];
    let kind = whatsapp_rust::download::MediaType::Image;
    let upload = alice.client.upload(data.clone(), kind, whatsapp_rust::UploadOptions::default()).await.unwrap();
    let image = waproto::whatsapp::message::ImageMessage {
        url: Some(upload.url.clone()),
        direct_path: Some(upload.direct_path.clone()),
        media_key: Some(upload.media_key.to_vec()),
        file_sha256: Some(upload.file_sha256.to_vec()),
        file_enc_sha256: Some(upload.file_enc_sha256.to_vec()),
        file_length: Some(upload.file_length),
        mimetype: Some("image/jpeg".into()),
        caption: Some("a picture".into()),
        ..Default::default()
    };
    let message = waproto::whatsapp::Message { image_message: buffa::MessageField::some(image), ..Default::default() };
    alice.client.send_message(jid("15551014"), message).await.unwrap();
    let image = bob
        .wait("an image", |e| match e {
            Event::Messages(batch) => batch.iter().find_map(|m| m.message.image_message.as_option().cloned()),
            _ => None,
        })
        .await;
    assert_eq!(bob.client.download(&image).await.unwrap(), data);
    let phone = simulator.phone("15551014");
    phone.wait_for(DEADLINE, |m| m.text == "a picture").await.unwrap();
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_typing_and_blocking() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15551015"), TestClient::pair(&simulator, "15551016"));
    alice.client.presence().subscribe(jid("15551016")).await.unwrap();
    bob.client.presence().set_available().await.unwrap();
    alice.wait("presence", |e| matches!(e, Event::Presence(_)).then_some(())).await;
    bob.client.chatstate().send_composing(&jid("15551015")).await.unwrap();
    alice.wait("typing", |e| matches!(e, Event::ChatPresence(_)).then_some(())).await;
    // A client blocks by LID, which it learns from a message.
    bob.send("15551015", "hello").await;
    alice.text("hello").await;
    alice.client.blocking().block(&jid("15551016")).await.unwrap();
    let blocked = alice.client.blocking().get_blocklist().await.unwrap();
    assert_eq!(blocked.len(), 1);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_on_whatsapp() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15551017").await;
    simulator.phone("15551018");
    let asked = [jid("15551018"), jid("19990000000")];
    let answers = alice.client.contacts().is_on_whatsapp(&asked).await.unwrap();
    let mut answers: Vec<_> = answers.iter().map(|a| (a.jid.user.to_string(), a.is_registered)).collect();
    answers.sort();
    assert_eq!(answers, [("15551018".to_string(), true), ("19990000000".to_string(), false)]);
    assert_clean(&simulator);
}
