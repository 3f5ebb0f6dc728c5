//! What looks wrong and is no proof: prekeys that nobody was given, receipts for what never came, no `phash`.

use wacore::libsignal::protocol::{IdentityKey, KeyPair, PreKeySignalMessage, SignalMessage};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, NodeContent};
use whatsapp_rust::Jid;
use whatsapp_simulator::{Handle, NoticeKind};

use crate::client::{TestClient, jid, simulator};
use crate::http::json;
use crate::raw::{RawConnection, text};

const VERSION: u8 = 3;

fn key_pair() -> KeyPair {
    KeyPair::generate(&mut rand::rng())
}

fn kinds(simulator: &Handle) -> Vec<NoticeKind> {
    simulator.noticed().iter().map(|n| n.kind).collect()
}

/// The server has handled all that was sent before.
async fn handled(raw: &mut RawConnection) {
    let answer = raw.iq("handled", "get", "w:p", NodeBuilder::new("ping").build()).await;
    assert_eq!(text(&answer, "type"), "result");
}

/// A message that opens a session with these prekeys, known by its base key.
fn opening(one_time: u32, signed: u32, base: &KeyPair) -> Node {
    let identity = IdentityKey::new(key_pair().public_key);
    let ratchet = key_pair().public_key;
    let inner = SignalMessage::new(VERSION, &[7; 32], ratchet, 0, 0, &[9; 32], &identity, &identity).unwrap();
    let whole =
        PreKeySignalMessage::new(VERSION, 5, Some(one_time.into()), signed.into(), base.public_key, identity, inner);
    let ciphertext = whole.unwrap().serialized().to_vec();
    NodeBuilder::new("enc").attr("v", "2").attr("type", "pkmsg").bytes(ciphertext).build()
}

/// The number of a key in a bundle.
fn key_id(user: &Node, tag: &str) -> u32 {
    let id = user.get_optional_child(tag).unwrap().get_optional_child("id").unwrap();
    let Some(NodeContent::Bytes(id)) = &id.content else { panic!("no id of {tag}") };
    id.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_opened_with_anothers_prekey_is_noticed() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15557101").await;
    simulator.phone("15557102");
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    let user = NodeBuilder::new("user").attr("jid", jid("15557102")).build();
    let bundle = raw.iq("1", "get", "encrypt", NodeBuilder::new("key").children([user]).build()).await;
    let user = bundle.get_optional_child("list").unwrap().get_optional_child("user").unwrap();
    let (given, signed) = (key_id(user, "key"), key_id(user, "skey"));
    let (first, second) = (key_pair(), key_pair());
    let mut send = async |id: &'static str, enc: Node| {
        let message = NodeBuilder::new("message").attr("id", id).attr("to", jid("15557102")).attr("type", "text");
        raw.send(&message.children([enc]).build()).await;
        handled(&mut raw).await;
    };
    send("A", opening(given, signed, &first)).await;
    send("B", opening(given, signed, &first)).await;
    assert_eq!(simulator.noticed(), [], "one session with what the server gave");
    send("C", opening(given, signed, &second)).await;
    assert_eq!(kinds(&simulator), [NoticeKind::PrekeyUsedAgain]);
    send("D", opening(0x00ab_cdef, signed, &second)).await;
    send("E", opening(given, 0x00ab_cdef, &first)).await;
    let unknown = NoticeKind::UnknownPrekey;
    assert_eq!(kinds(&simulator), [NoticeKind::PrekeyUsedAgain, unknown, unknown]);
    let evidence = &simulator.noticed()[1].evidence;
    assert!(evidence.contains("15557101:1 -> 15557102:0: message D"), "{evidence}");
    let stats = simulator.stats();
    assert_eq!((stats.count("prekey used again"), stats.count("unknown prekey")), (1, 2));
    assert_eq!(json(&simulator, "/noticed").await.as_array().unwrap().len(), 3);
    assert_eq!(simulator.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_for_what_never_came_is_noticed() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15557103").await;
    let (bob, carol) = (simulator.phone("15557104"), simulator.phone("15557105"));
    let mine = bob.send_text("15557103", "for alice").unwrap();
    let carols = bob.send_text("15557105", "for carol").unwrap();
    let group = bob.create_group("receipts", &["15557103", "15557105"]).unwrap();
    let ours = bob.send_text(&group, "for all").unwrap();
    carol.send_text(&group, "so that she has written").unwrap();
    let group: Jid = group.parse().unwrap();
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    let receipt = |kind: &str, id: &str, to: &Jid| {
        let receipt = NodeBuilder::new("receipt").attr("id", id).attr("to", to);
        if kind.is_empty() { receipt } else { receipt.attr("type", kind) }
    };
    let (bobs, own) = (jid("15557104"), jid("15557103"));
    for kind in ["", "retry", "read", "played", "inactive"] {
        raw.send(&receipt(kind, &mine, &bobs).build()).await;
        raw.send(&receipt(kind, &ours, &group).attr("participant", &bobs).build()).await;
    }
    // History that the phone gave, and what only the account's own devices know.
    raw.send(&receipt("read", "H0-1", &bobs).build()).await;
    raw.send(&receipt("peer_msg", "unknown", &own).build()).await;
    handled(&mut raw).await;
    assert_eq!(simulator.noticed(), []);

    for kind in ["", "retry", "read", "played"] {
        raw.send(&receipt(kind, "never sent", &bobs).build()).await;
    }
    raw.send(&receipt("", &carols, &bobs).build()).await;
    raw.send(&receipt("", &ours, &group).attr("participant", jid("15557105")).build()).await;
    let more = NodeBuilder::new("item").attr("id", "nor this").build();
    let list = NodeBuilder::new("list").children([more]).build();
    raw.send(&receipt("read", &mine, &bobs).children([list]).build()).await;
    handled(&mut raw).await;
    assert_eq!(kinds(&simulator), [NoticeKind::UnknownReceipt; 7]);
    let evidence: Vec<_> = simulator.noticed().into_iter().map(|n| n.evidence).collect();
    assert!(evidence[1].contains("15557103:1: `retry` for message never sent"), "{evidence:?}");
    assert!(evidence[4].contains(&carols) && evidence[6].contains("nor this"), "{evidence:?}");
    assert_eq!(simulator.stats().count("unknown receipt"), 7);
    assert_eq!(simulator.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_message_without_the_hash_of_its_devices_is_noticed() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15557106").await;
    let group: Jid = simulator.phone("15557106").create_group("hashed", &[]).unwrap().parse().unwrap();
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    let message = |id: &'static str| NodeBuilder::new("message").attr("id", id).attr("to", &group).attr("type", "text");
    raw.send(&message("A").attr("phash", "2:stale").build()).await;
    handled(&mut raw).await;
    let stats = simulator.stats();
    assert_eq!((stats.count("stale devices"), stats.count("missing phash")), (1, 0));
    raw.send(&message("B").build()).await;
    handled(&mut raw).await;
    assert_eq!(kinds(&simulator), [NoticeKind::MissingPhash]);
    assert!(simulator.noticed()[0].evidence.contains("message B"));
    assert_eq!(simulator.stats().count("missing phash"), 1);
}
