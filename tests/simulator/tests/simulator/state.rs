//! What the server keeps for an account: app state, prekeys, and what it knows of devices.

use std::time::Duration;

use wacore::types::events::Event;
use wacore_binary::builder::NodeBuilder;
use whatsapp_simulator::ReceiptKind;

use crate::client::{DEADLINE, TestClient, assert_clean, eventually, jid, simulator};
use crate::raw::{RawConnection, text};

/// One device pins chats until the other learns of one.
async fn pin_until_seen(changing: &TestClient, other: &TestClient, offset: usize) {
    for n in offset..offset + 30 {
        let chat = jid(&format!("15559100{n:03}"));
        changing.client.chat_actions().pin_chat(&chat).await.unwrap();
        let pinned = other.wait("a pinned chat", |e| match e {
            Event::PinUpdate(update) if update.jid == chat => Some(()),
            _ => None,
        });
        if tokio::time::timeout(Duration::from_secs(2), pinned).await.is_ok() {
            return;
        }
    }
    panic!("{} learns of no change", other.number);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_app_state_reaches_the_other_devices() {
    let simulator = simulator().await;
    let first = TestClient::pair(&simulator, "15558001").await;
    let second = TestClient::pair(&simulator, "15558001").await;
    // What changes before a client has fetched a collection for the first time is part of that fetch and
    // makes no event, so that several chats are tried.
    pin_until_seen(&first, &second, 0).await;
    // And the other way round, some versions later.
    pin_until_seen(&second, &first, 100).await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_to_an_old_version_is_a_conflict() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15558003").await;
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    let mut change = async |id: &str, version: usize| {
        let patch = NodeBuilder::new("patch").bytes(Vec::new()).build();
        let collection = NodeBuilder::new("collection")
            .attr("name", "regular")
            .attr("version", version)
            .attr("return_snapshot", "false")
            .children([patch]);
        let sync = NodeBuilder::new("sync").children([collection.build()]).build();
        let answer = raw.iq(id, "set", "w:sync:app:state", sync).await;
        let sync = answer.get_optional_child("sync").expect("an answer");
        sync.get_optional_child("collection").expect("the collection").clone()
    };
    let accepted = change("1", 1).await;
    assert_eq!((text(&accepted, "type"), text(&accepted, "version")), ("result".into(), "2".into()));
    let refused = change("2", 1).await;
    assert_eq!((text(&refused, "type"), text(&refused, "version")), ("error".into(), "2".into()));
    assert_eq!(text(refused.get_optional_child("error").unwrap(), "code"), "409");
    let patches = refused.get_optional_child("patches").expect("what the client lacks");
    assert_eq!(patches.children().map(<[_]>::len), Some(1));
    let accepted = change("3", 2).await;
    assert_eq!(text(&accepted, "version"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_push_name_comes_with_the_app_state() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15558004").await;
    eventually("the account's name", || alice.client.push_name() == "Phone 15558004").await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn prekeys_are_rotated_and_their_digest_is_the_clients() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15558005").await;
    alice.client.rotate_signed_pre_key().await.unwrap();
    assert_eq!(simulator.stats().count("iq set encrypt <rotate>"), 1);
    let uploads = || simulator.stats().count("iq set encrypt <registration>");
    let (before, digests) = (uploads(), simulator.stats().count("iq get encrypt <digest>"));
    alice.client.validate_digest_key().await.unwrap();
    assert!(simulator.stats().count("iq get encrypt <digest>") > digests);
    assert_eq!(uploads(), before, "the digest is right: nothing is uploaded again");
    // What is handed out now opens a session.
    simulator.phone("15558006").send_text("15558005", "with the new key").unwrap();
    alice.text("with the new key").await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_can_be_sent_again() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15558007").await;
    let (phone, device) = (simulator.phone("15558007"), alice.device(&simulator));
    let queued = || phone.devices()[0].queued;
    eventually("nothing is queued", || queued() == 0).await;
    assert!(simulator.faults().freeze("15558007", device, true));
    simulator.phone("15558008").send_text("15558007", "twice on the wire").unwrap();
    assert_eq!(queued(), 1);
    assert_eq!(simulator.faults().redeliver("15558007", device), 1);
    assert!(simulator.faults().freeze("15558007", device, false));
    alice.text("twice on the wire").await;
    eventually("acknowledged", || queued() == 0).await;
    simulator.phone("15558008").send_text("15558007", "once").unwrap();
    let texts: Vec<String> = alice
        .wait("the next text", |e| match e {
            Event::Messages(batch) => Some(batch.iter().filter_map(|m| m.message.conversation.clone()).collect()),
            _ => None,
        })
        .await;
    assert_eq!(texts, ["once".to_string()], "the client took the second copy for what it is");
    assert_eq!(simulator.faults().redeliver("15558009", 1), 0);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_cannot_read_asks_again() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15558010").await;
    let bob = simulator.phone("15558011");
    alice.send("15558011", "first").await;
    bob.wait_for(DEADLINE, |m| m.text == "first").await.unwrap();
    // The answer confirms the session: from now on the client sends no prekey messages.
    bob.send_text("15558010", "answer").unwrap();
    alice.text("answer").await;
    bob.forget_sessions();
    alice.send("15558011", "second").await;
    bob.wait_for(DEADLINE, |m| m.text == "second").await.unwrap();
    assert!(simulator.stats().count("phone: undecryptable") >= 1);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_cannot_read_gets_it_again() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15558012").await;
    let bob = simulator.phone("15558013");
    let id = bob.send_text("15558012", "read me").unwrap();
    alice.text("read me").await;
    let device = alice.client.persistence_manager().get_device_snapshot();
    let retry = NodeBuilder::new("retry").attr("v", 1).attr("count", 1).attr("id", id.as_str()).attr("t", 1).build();
    let registration = NodeBuilder::new("registration").bytes(device.registration_id.to_be_bytes()).build();
    let receipt = NodeBuilder::new("receipt")
        .attr("to", jid("15558013"))
        .attr("id", id.as_str())
        .attr("type", "retry")
        .children([retry, registration]);
    alice.client.send_node(receipt.build()).await.unwrap();
    eventually("sent again", || simulator.stats().count("phone: sent again") == 1).await;
    assert!(bob.receipts(&id).iter().any(|r| r.kind == ReceiptKind::Retry));
    let phone = simulator.phone("15558012");
    eventually("acknowledged", || phone.devices()[0].queued == 0).await;
    // The new session is the one in use.
    bob.send_text("15558012", "after it").unwrap();
    alice.text("after it").await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_knows_too_few_devices_is_told() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15558014").await;
    let _bob = TestClient::pair(&simulator, "15558015").await;
    alice.send("15558015", "to all devices").await;
    assert_eq!(simulator.stats().count("stale devices"), 0);
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    let enc = || NodeBuilder::new("enc").attr("v", "2").attr("type", "msg").bytes(vec![0x33; 40]).build();
    let mut send = async |id: &str, devices: Vec<whatsapp_rust::Jid>| {
        let to = devices.into_iter().map(|d| NodeBuilder::new("to").attr("jid", d).children([enc()]).build());
        let participants = NodeBuilder::new("participants").children(to).build();
        let message = NodeBuilder::new("message")
            .attr("id", id)
            .attr("to", jid("15558015"))
            .attr("type", "text")
            .children([participants]);
        raw.send(&message.build()).await;
        let ack = raw.wait("an acknowledgement", |n| n.tag == "ack" && text(n, "id") == id).await;
        text(&ack, "phash")
    };
    let all = || vec![jid("15558015"), whatsapp_rust::Jid::pn_device("15558015", 1), jid("15558014")];
    assert_eq!(send("A", all()).await, "");
    let told = send("B", vec![jid("15558015"), jid("15558014")]).await;
    assert_eq!(told, wacore::messages::MessageUtils::participant_list_hash(&all()).unwrap());
    assert_eq!(simulator.stats().count("stale devices"), 1);
    assert!(!raw.closed(Duration::from_millis(1)).await);
}
