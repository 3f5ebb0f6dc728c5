//! One client and phones: linking in both ways, texts, receipts, logging in again, being unlinked.

use crate::{
    node::eventually,
    peer::{self, Peer},
    tools::Kind,
};
use whatsapp_simulator::{Config, Handle, ReceiptKind, Simulator};

const NUMBER: &str = "15550101001";
const FRIEND: &str = "15550102002";

async fn simulator() -> Handle {
    let simulator = Simulator::start(Config::default()).await.unwrap();
    simulator.phone(FRIEND);
    simulator
}

/// By QR; a text each way with its receipts; what waited while the program was closed; logging out.
async fn lives_with_a_phone(kind: Kind) {
    let Some(tool) = kind.ready().await else { return };
    let simulator = simulator().await;
    let friend = simulator.phone(FRIEND);
    let mut peer = Peer::linked(&tool, &simulator, NUMBER).await;

    let sent = peer.send_text(FRIEND, "to a phone").await;
    peer.phone_has(&friend, &sent, "to a phone").await;
    peer.has_receipt(&sent, FRIEND, "delivered").await;
    friend.mark_read(&sent).unwrap();
    peer.has_receipt(&sent, FRIEND, "read").await;
    peer.phone_has(&peer.phone(), &sent, "to a phone").await;

    let received = friend.send_text(NUMBER, "from a phone").unwrap();
    assert_eq!(peer.has_text(FRIEND, FRIEND, "from a phone").await, received);
    peer.read(&received).await;
    receipt(&simulator, &received, ReceiptKind::Delivered).await;
    receipt(&simulator, &received, ReceiptKind::Read).await;

    peer.quit().await;
    let texts: Vec<_> = (0..20).map(|n| format!("while it was away {n}")).collect();
    for text in &texts {
        friend.send_text(NUMBER, text).unwrap();
    }
    let own = peer.phone().send_text(FRIEND, "from its own phone").unwrap();
    let waiting = peer.phone().devices()[0].queued;
    assert!(waiting > texts.len(), "{waiting} wait for it");
    peer.log_in_again().await;
    for text in &texts {
        peer.has_text(FRIEND, FRIEND, text).await;
    }
    assert_eq!(peer.has_text(FRIEND, NUMBER, "from its own phone").await, own);
    peer.nothing_waits().await;
    let sent = peer.send_text(FRIEND, "again").await;
    peer.phone_has(&friend, &sent, "again").await;

    peer.log_out().await;
    no_companion(&simulator).await;
    peer.finish();
    peer::finish(&simulator);
}

/// By code; a text to a LID; the phone unlinks it.
async fn pairs_by_code(kind: Kind) {
    let Some(tool) = kind.ready().await else { return };
    let simulator = simulator().await;
    let friend = simulator.phone(FRIEND);
    let mut peer = Peer::new(&tool, &simulator, NUMBER);
    peer.pair_by_code().await;

    let sent = peer.send_text(&format!("{}@lid", friend.lid()), "to a LID").await;
    peer.phone_has(&friend, &sent, "to a LID").await;
    friend.send_text(NUMBER, "the answer").unwrap();
    peer.has_text(FRIEND, FRIEND, "the answer").await;

    peer.phone().unlink(1).unwrap();
    peer.event("disconnected", |event| event["logged_out"] == true).await;
    peer.finish();
    peer::finish(&simulator);
}

/// Waits until the friend has this receipt of the client itself, not only of its phone.
async fn receipt(simulator: &Handle, id: &str, kind: ReceiptKind) {
    let from = format!("{NUMBER}:1");
    eventually("the client's receipt", async || {
        let receipts = simulator.phone(FRIEND).receipts(id);
        let found = receipts.iter().any(|r| r.kind == kind && r.from == from);
        found.then_some(()).ok_or_else(|| format!("{receipts:?}"))
    })
    .await;
}

async fn no_companion(simulator: &Handle) {
    eventually("a phone without companions", async || {
        let devices = simulator.phone(NUMBER).devices();
        devices.is_empty().then_some(()).ok_or_else(|| format!("{devices:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn baileys_lives_with_a_phone() {
    lives_with_a_phone(Kind::Baileys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatsmeow_lives_with_a_phone() {
    lives_with_a_phone(Kind::Whatsmeow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn baileys_pairs_by_code() {
    pairs_by_code(Kind::Baileys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatsmeow_pairs_by_code() {
    pairs_by_code(Kind::Whatsmeow).await;
}

/// The certificates are as good as WhatsApp's: a client that trusts another root key goes no further. (Baileys 7.0.0-rc14
/// does not look at the result of its verification, so that it says nothing about certificates.)
#[tokio::test(flavor = "multi_thread")]
async fn whatsmeow_verifies_the_certificates() {
    let Some(tool) = Kind::Whatsmeow.ready().await else { return };
    let simulator = simulator().await;
    let mut root = simulator.root_key();
    root[7] ^= 0x10;
    let why = Peer::trusting(root, &tool, &simulator, NUMBER).cannot_connect().await;
    assert!(why.contains("verify") && why.contains("cert"), "{why}");
}
