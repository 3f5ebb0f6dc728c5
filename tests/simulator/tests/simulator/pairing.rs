//! Pairing, and what a client learns with it.

use std::time::Duration;

use wacore::types::events::Event;
use whatsapp_simulator::{Config, PhoneError, Simulator};

use crate::client::{DEADLINE, PairBy, TestClient, assert_clean, eventually, simulator};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_pairs_by_qr_and_exchanges_texts_over_tls() {
    let simulator = Simulator::start(Config::default()).await.unwrap();
    assert!(simulator.websocket_url().starts_with("wss://127.0.0.1:"));
    let alice = TestClient::pair(&simulator, "15550001").await;
    let bob = simulator.phone("15550002");
    let id = alice.send("15550002", "hello bob").await;
    let got = bob.wait_for(DEADLINE, |m| m.text == "hello bob").await.unwrap();
    assert_eq!((got.from.as_str(), got.chat.as_str()), ("15550001", "15550001"));
    assert_eq!((got.id, got.from_me), (id, false));
    let id = bob.send_text("15550001", "hello alice").unwrap();
    let from = alice.text("hello alice").await;
    assert_eq!(from, "15550002@s.whatsapp.net/15550002@s.whatsapp.net");
    eventually("receipts of the phone and the client", || {
        let receipts = bob.receipts(&id);
        ["15550001:0", "15550001:1"].iter().all(|d| receipts.iter().any(|r| r.from == *d))
    })
    .await;
    assert_clean(&simulator);
    simulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_pairs_by_code() {
    let simulator = simulator().await;
    let store = std::sync::Arc::default();
    let client = TestClient::start(&simulator, "15550003", store, PairBy::Code).await;
    client.connected().await;
    let devices = simulator.phone("15550003").devices();
    assert_eq!(devices.len(), 1);
    assert!(devices[0].connected);
    let stats = simulator.stats();
    assert_eq!(stats.count("bad stanza"), 0, "what it acknowledges while it pairs is no mistake\n{stats}");
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qr_code_works_once_and_as_a_link() {
    let simulator = simulator().await;
    let store = std::sync::Arc::default();
    let client = TestClient::start(&simulator, "15550004", store, PairBy::Nothing).await;
    let qr = client
        .wait("a QR code", |e| match e {
            Event::PairingQrCode(qr) => Some(qr.code.clone()),
            _ => None,
        })
        .await;
    let plain = qr.rsplit('#').next().unwrap();
    let link = format!("https://wa.me/settings/linked_devices#{plain}");
    let phone = simulator.phone("15550004");
    assert_eq!(phone.scan(&link).unwrap(), "15550004:1");
    assert!(matches!(phone.scan(plain), Err(PhoneError::UnknownReference)));
    assert!(matches!(phone.scan("nonsense"), Err(PhoneError::InvalidQr(_))));
    client.connected().await;
    let wrong = phone.enter_code("ABCD-EFGH");
    assert!(matches!(wrong, Err(PhoneError::NoPendingCode)));
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_links_as_many_devices_as_it_may() {
    let mut config = Config::default();
    config.limits.companion_devices = 2;
    let simulator = crate::client::simulator_with(config).await;
    let first = TestClient::pair(&simulator, "15550005").await;
    let second = TestClient::pair(&simulator, "15550005").await;
    let third = std::sync::Arc::default();
    let third = TestClient::start(&simulator, "15550005", third, PairBy::Nothing).await;
    let phone = simulator.phone("15550005");
    let refused = third
        .wait("a QR code", |e| match e {
            Event::PairingQrCode(qr) => Some(phone.scan(&qr.code)),
            _ => None,
        })
        .await;
    assert!(matches!(refused, Err(PhoneError::TooManyDevices(2))));
    // What one device sends appears on the other, and on the phone.
    simulator.phone("15550006");
    first.send("15550006", "from the first").await;
    second.text("from the first").await;
    let own = phone.wait_for(DEADLINE, |m| m.text == "from the first").await.unwrap();
    assert!(own.from_me);
    assert_eq!(own.chat, "15550006");
    // What the phone sends appears on both.
    phone.send_text("15550006", "from the phone").unwrap();
    first.text("from the phone").await;
    second.text("from the phone").await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_phone_shares_its_push_name_and_history() {
    let simulator = simulator().await;
    let client = TestClient::pair(&simulator, "15550007").await;
    eventually("the app state was fetched", || simulator.stats().count("iq set w:sync:app:state <sync>") > 0).await;
    simulator.phone("15550007").send_history(4, 25).unwrap();
    let (chats, messages) = client
        .wait("history", |e| match e {
            Event::HistorySync(history) => {
                let history = history.get()?;
                let messages = history.conversations.iter().map(|c| c.messages.len()).sum();
                Some((history.conversations.len(), messages))
            }
            _ => None,
        })
        .await;
    assert_eq!((chats, messages), (4, 100usize));
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_reference_cannot_be_scanned() {
    let config = Config { pairing_refs_ttl: Duration::ZERO, ..Config::default() };
    let simulator = crate::client::simulator_with(config).await;
    let store = std::sync::Arc::default();
    let client = TestClient::start(&simulator, "15550008", store, PairBy::Nothing).await;
    let phone = simulator.phone("15550008");
    let refused = client
        .wait("a QR code", |e| match e {
            Event::PairingQrCode(qr) => Some(phone.scan(&qr.code)),
            _ => None,
        })
        .await;
    assert!(matches!(refused, Err(PhoneError::UnknownReference)));
}
