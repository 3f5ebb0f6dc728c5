//! Clients that do wrong: each violation is caught when a real client commits it.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use buffa::Message as _;
use wacore::libsignal::protocol::KeyPair;
use wacore::store::traits::SignalStore;
use wacore::types::jid::JidExt;
use wacore_binary::builder::NodeBuilder;
use waproto::whatsapp as wa;
use whatsapp_rust::{Jid, SendOptions};
use whatsapp_simulator::{Config, ViolationKind};

use crate::client::{DEADLINE, PairBy, TestClient, eventually, jid, message, simulator, simulator_with};
use crate::raw::{RawConnection, text};

fn key_pair() -> KeyPair {
    KeyPair::generate(&mut rand::rng())
}

/// More than a client may reserve at once.
const COUNTERS: usize = 140;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_keys_are_older_than_what_it_sent_is_caught() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15557001").await;
    let bob = simulator.phone("15557002");
    alice.send("15557002", "first").await;
    // The session as it is stored now; the address is by number or LID, as the client likes.
    let lid = Jid::lid(bob.lid());
    let addresses = [jid("15557002"), lid].map(|j| j.to_protocol_address().as_str().to_string());
    let mut stored = Vec::new();
    for address in addresses {
        if let Some(session) = alice.store.get_session(&address).await.unwrap() {
            stored.push((address, session));
        }
    }
    assert!(!stored.is_empty());
    for n in 0..COUNTERS {
        alice.send("15557002", &format!("text {n}")).await;
    }
    assert_eq!(simulator.violations(), []);
    let store = alice.stop().await;
    for (address, session) in stored {
        store.put_session(&address, &session).await.unwrap();
    }
    let alice = TestClient::start(&simulator, "15557001", store, PairBy::Nothing).await;
    alice.connected().await;
    alice.send("15557002", "with an old counter").await;
    eventually("a violation", || !simulator.violations().is_empty()).await;
    let violations = simulator.violations();
    assert!(violations.iter().all(|v| v.kind == ViolationKind::RatchetCounterReused), "{violations:?}");
    assert!(violations[0].evidence.contains("15557001:1 -> 15557002:0"), "{}", violations[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_id_used_for_two_texts_is_caught() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15557003").await;
    let bob = simulator.phone("15557004");
    for text in ["one thing", "one thing", "another thing"] {
        assert_eq!(simulator.violations(), []);
        let options = SendOptions::default().with_message_id("3EB0AAAAAAAAAAAAAAAAAA");
        alice.client.send_message_with_options(jid("15557004"), message(text), options).await.unwrap();
        bob.wait_for(DEADLINE, |m| m.text == "one thing").await.unwrap();
    }
    eventually("a violation", || !simulator.violations().is_empty()).await;
    assert_eq!(simulator.violations()[0].kind, ViolationKind::MessageIdReused);
    assert_eq!(bob.inbox().len(), 1, "the phone keeps the first text");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_goes_on_after_it_was_replaced_is_caught() {
    let config = Config { replaced_grace: Duration::from_millis(1), ..Config::default() };
    let simulator = simulator_with(config).await;
    let alice = TestClient::pair(&simulator, "15557005").await;
    let mut first = RawConnection::log_in_as(&simulator, &alice).await;
    let mut second = RawConnection::log_in_as(&simulator, &alice).await;
    let told = first.wait("replaced", |node| node.tag == "stream:error").await;
    assert_eq!(text(told.get_optional_child("conflict").unwrap(), "type"), "replaced");
    let answer = second.iq("1", "get", "w:p", NodeBuilder::new("ping").build()).await;
    assert_eq!(text(&answer, "type"), "result");
    assert_eq!(simulator.violations(), []);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let presence = NodeBuilder::new("presence").attr("type", "available").attr("name", "old").build();
    first.send(&presence).await;
    eventually("a violation", || !simulator.violations().is_empty()).await;
    assert_eq!(simulator.violations()[0].kind, ViolationKind::TwoConnections);
}

/// Pairs by hand with a signature that `forge` has changed.
async fn pair_with(number: &str, forge: impl FnOnce(&mut wa::ADVSignedDeviceIdentity, &KeyPair)) -> Vec<ViolationKind> {
    let simulator = simulator().await;
    let (noise, identity) = (key_pair(), key_pair());
    let secret = [7; 32];
    let mut connection = RawConnection::connect(&simulator, noise.clone(), &wa::ClientPayload::default()).await;
    let offer = connection.wait("references", |n| n.get_optional_child("pair-device").is_some()).await;
    let reference = offer.get_optional_child("pair-device").unwrap().get_optional_child("ref").unwrap();
    let Some(wacore_binary::NodeContent::Bytes(reference)) = &reference.content else {
        panic!("no reference");
    };
    let fields = [noise.public_key.public_key_bytes(), identity.public_key.public_key_bytes(), &secret[..]];
    let fields = fields.map(|f| BASE64_STANDARD.encode(f)).join(",");
    simulator.phone(number).scan(&format!("{},{fields}", String::from_utf8_lossy(reference))).unwrap();
    let success = connection.wait("pair-success", |n| n.get_optional_child("pair-success").is_some()).await;
    let container = success.get_optional_child("pair-success").unwrap().get_optional_child("device-identity").unwrap();
    let Some(wacore_binary::NodeContent::Bytes(container)) = &container.content else {
        panic!("no identity");
    };
    let container = wa::ADVSignedDeviceIdentityHMAC::decode_from_slice(container).unwrap();
    let mut signed = wa::ADVSignedDeviceIdentity::decode_from_slice(&container.details.unwrap()).unwrap();
    let details = signed.details.clone().unwrap();
    let account = signed.account_signature_key.clone().unwrap();
    let content = [&[6, 1][..], &details, identity.public_key.public_key_bytes(), &account].concat();
    let signature = identity.private_key.calculate_signature(&content, &mut rand::rng()).unwrap();
    signed.device_signature = Some(signature.to_vec());
    forge(&mut signed, &identity);
    let signed = NodeBuilder::new("device-identity").attr("key-index", 1).bytes(signed.encode_to_vec()).build();
    let sign = NodeBuilder::new("pair-device-sign").children([signed]).build();
    let id = text(&success, "id");
    connection.send(&NodeBuilder::new("iq").attr("id", id).attr("type", "result").children([sign]).build()).await;
    let told = connection.wait("an end", |n| n.tag == "stream:error").await;
    let linked = simulator.phone(number).devices().len();
    let good = simulator.violations().is_empty();
    assert_eq!((text(&told, "code").as_str(), linked), if good { ("515", 1) } else { ("401", 0) });
    simulator.violations().into_iter().map(|v| v.kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_sign_its_identity_is_not_linked() {
    assert_eq!(pair_with("15557006", |_, _| ()).await, []);
    let bad = [ViolationKind::BadSignature];
    assert_eq!(pair_with("15557007", |signed, _| signed.device_signature = None).await, bad);
    let by_another = |signed: &mut wa::ADVSignedDeviceIdentity, _: &KeyPair| {
        let signature = key_pair().private_key.calculate_signature(b"anything", &mut rand::rng()).unwrap();
        signed.device_signature = Some(signature.to_vec());
    };
    assert_eq!(pair_with("15557008", by_another).await, bad);
    let other_details = |signed: &mut wa::ADVSignedDeviceIdentity, _: &KeyPair| signed.details = Some(vec![8, 1]);
    assert_eq!(pair_with("15557009", other_details).await, bad);
}
