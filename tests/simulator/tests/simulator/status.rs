//! Statuses: shown by phones and clients to those whom they choose.

use wacore::types::events::Event;
use waproto::whatsapp as wa;
use whatsapp_rust::StatusSendOptions;
use whatsapp_simulator::Content;

use crate::client::{DEADLINE, TestClient, assert_clean, eventually, jid, simulator};

/// Waits for a status with a text and gives the number of its author.
async fn status(client: &TestClient, text: &str) -> String {
    let says = |m: &wa::Message| {
        let extended = m.extended_text_message.as_option().and_then(|e| e.text.as_deref());
        m.conversation.as_deref().or(extended) == Some(text)
    };
    client
        .wait("a status", |e| {
            let Event::Messages(batch) = e else { return None };
            let found = batch.iter().find(|m| says(&m.message))?;
            assert_eq!(found.info.source.chat.to_string(), "status@broadcast");
            Some(found.info.source.sender.user.to_string())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_shows_its_status() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15567001"), TestClient::pair(&simulator, "15567002"));
    let (carol, dave) = (simulator.phone("15567003"), simulator.phone("15567004"));
    for n in 0..2 {
        let text = format!("a nice day {n}");
        let id = carol.post_status(&Content::Text(text.clone()), &["15567001", "15567004"]).unwrap();
        assert_eq!(status(&alice, &text).await, "15567003");
        let seen = dave.wait_for(DEADLINE, |m| m.id == id).await.unwrap();
        assert_eq!(seen.chat, "status@broadcast");
    }
    // Whoever is not among them sees nothing.
    carol.send_text("15567002", "to bob alone").unwrap();
    bob.wait("the text", |e| {
        let Event::Messages(batch) = e else { return None };
        assert!(batch.iter().all(|m| m.info.source.chat == jid("15567003")), "no status");
        Some(())
    })
    .await;
    let phone = simulator.phone("15567001");
    eventually("acknowledged", || phone.devices()[0].queued == 0).await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_shows_its_status() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15567005"), TestClient::pair(&simulator, "15567006"));
    let carol = simulator.phone("15567007");
    let recipients = [jid("15567006"), jid("15567007")];
    for number in ["15567006", "15567007"] {
        // The client shows its status to those whose LID it knows.
        alice.send(number, "hello").await;
    }
    let font = wa::message::extended_text_message::FontType::FB_SCRIPT;
    for n in 0..2 {
        let text = format!("look {n}");
        let options = StatusSendOptions::default();
        alice.client.status().send_text(&text, 0, font, &recipients, options).await.unwrap();
        status(&bob, &text).await;
        let seen = carol.wait_for(DEADLINE, |m| m.text == text).await.unwrap();
        assert_eq!((seen.chat.as_str(), seen.from.as_str()), ("status@broadcast", "15567005"));
    }
    assert_clean(&simulator);
}
