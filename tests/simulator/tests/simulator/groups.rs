//! Groups: phones that write to them, and changes that everybody learns of.

use wacore::types::events::Event;
use wacore_binary::builder::NodeBuilder;
use whatsapp_rust::{GroupCreateOptions, GroupParticipantOptions, Jid};
use whatsapp_simulator::PhoneError;

use crate::client::{DEADLINE, TestClient, assert_clean, eventually, jid, message, simulator};

/// Waits for a notification of a group's change, by the name of the change in the event.
pub(crate) async fn told(client: &TestClient, group: &str, change: &str) {
    client
        .wait(&format!("`{change}` of the group"), |e| {
            let Event::GroupUpdate(update) = e else { return None };
            let action = format!("{:?}", update.action);
            (update.group_jid.to_string() == group && action.starts_with(change)).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_writes_to_a_group() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15550101"), TestClient::pair(&simulator, "15550102"));
    let (carol, dave) = (simulator.phone("15550103"), simulator.phone("15550104"));
    let group = carol.create_group("phones", &["15550101", "15550102", "15550104"]).unwrap();
    told(&alice, &group, "Create").await;
    for n in 0..3 {
        let text = format!("hello {n}");
        let id = carol.send_text(&group, &text).unwrap();
        assert_eq!(alice.text(&text).await, format!("{group}/15550103@s.whatsapp.net"));
        bob.text(&text).await;
        let got = dave.wait_for(DEADLINE, |m| m.text == text).await.unwrap();
        assert_eq!((got.chat, got.id), (group.clone(), id));
    }
    // A client answers to the group that a phone has made.
    alice.client.send_message(group.parse::<Jid>().unwrap(), message("an answer")).await.unwrap();
    bob.text("an answer").await;
    for phone in [&carol, &dave] {
        phone.wait_for(DEADLINE, |m| m.text == "an answer").await.unwrap();
    }
    assert!(matches!(carol.send_text("1@g.us", "x"), Err(PhoneError::UnknownNumber(_))));
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_lacks_the_sender_key_gets_the_message_again() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550105").await;
    let bob = simulator.phone("15550106");
    let group = bob.create_group("retry", &["15550105"]).unwrap();
    let id = bob.send_text(&group, "first").unwrap();
    alice.text("first").await;
    let device = alice.client.persistence_manager().get_device_snapshot();
    let retry = NodeBuilder::new("retry").attr("v", 1).attr("count", 1).attr("id", id.as_str()).attr("t", 1).build();
    let registration = NodeBuilder::new("registration").bytes(device.registration_id.to_be_bytes()).build();
    let receipt = NodeBuilder::new("receipt")
        .attr("to", group.parse::<Jid>().unwrap())
        .attr("participant", jid("15550106"))
        .attr("id", id.as_str())
        .attr("type", "retry")
        .children([retry, registration]);
    alice.client.send_node(receipt.build()).await.unwrap();
    eventually("sent again", || simulator.stats().count("phone: sent again") == 1).await;
    bob.send_text(&group, "second").unwrap();
    alice.text("second").await;
    let phone = simulator.phone("15550105");
    eventually("acknowledged", || phone.devices()[0].queued == 0).await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_by_phone() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15550107"), TestClient::pair(&simulator, "15550108"));
    let carol = simulator.phone("15550109");
    let group = carol.create_group("changing", &["15550107"]).unwrap();
    carol.send_text(&group, "for two").unwrap();
    alice.text("for two").await;
    carol.add_to_group(&group, &["15550108"]).unwrap();
    told(&alice, &group, "Add").await;
    told(&bob, &group, "Add").await;
    carol.send_text(&group, "for three").unwrap();
    alice.text("for three").await;
    bob.text("for three").await;
    carol.set_group_subject(&group, "changed").unwrap();
    told(&bob, &group, "Subject").await;
    let known = bob.client.groups().get_metadata(&group.parse::<Jid>().unwrap()).await.unwrap();
    assert_eq!(known.subject, "changed");
    carol.remove_from_group(&group, &["15550107"]).unwrap();
    told(&alice, &group, "Remove").await;
    carol.send_text(&group, "without alice").unwrap();
    bob.text("without alice").await;
    carol.send_text("15550107", "to alice alone").unwrap();
    alice
        .wait("a text of the chat alone", |e| {
            let Event::Messages(batch) = e else { return None };
            let texts: Vec<_> = batch.iter().filter_map(|m| m.message.conversation.clone()).collect();
            assert!(!texts.contains(&"without alice".to_string()), "she is no member");
            texts.contains(&"to alice alone".to_string()).then_some(())
        })
        .await;
    let refused = simulator.phone("15550108").add_to_group(&group, &["15550107"]);
    assert!(matches!(refused, Err(PhoneError::Refused(_))), "no admin");
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_by_client() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15550110"), TestClient::pair(&simulator, "15550111"));
    let carol = simulator.phone("15550112");
    let member = |number| GroupParticipantOptions::builder().jid(jid(number)).build();
    let options = GroupCreateOptions::builder().subject("clients").participants(vec![member("15550111")]).build();
    let group = alice.client.groups().create_group(options).await.unwrap().metadata.id.clone();
    alice.client.send_message(group.clone(), message("for two")).await.unwrap();
    bob.text("for two").await;
    alice.client.groups().add_participants(&group, &[jid("15550112")]).await.unwrap();
    told(&bob, &group.to_string(), "Add").await;
    alice.client.send_message(group.clone(), message("for three")).await.unwrap();
    bob.text("for three").await;
    carol.wait_for(DEADLINE, |m| m.text == "for three").await.unwrap();
    carol.send_text(&group.to_string(), "thanks").unwrap();
    alice.text("thanks").await;
    bob.client.groups().leave(group.clone()).await.unwrap();
    told(&alice, &group.to_string(), "Remove").await;
    let members = alice.client.groups().get_metadata(&group).await.unwrap().participants.len();
    assert_eq!(members, 2);
    assert_clean(&simulator);
}
