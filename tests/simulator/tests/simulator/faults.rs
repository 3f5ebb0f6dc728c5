//! Faults on demand: each is felt by a real client, and gets over it.

use std::time::{Duration, Instant};

use rand::RngExt;
use wacore::types::events::Event;
use wacore_binary::builder::NodeBuilder;
use whatsapp_simulator::{Content, MediaFault, MediumKind, ReceiptKind};

use crate::client::{DEADLINE, TestClient, assert_clean, eventually, jid, simulator};
use crate::raw::{RawConnection, text};

/// `ROOKERY_SEED`, or a random seed; printed, so that a run can be repeated.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("ROOKERY_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().random());
    println!("ROOKERY_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_frame_and_a_stream_error_cost_no_message() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550301").await;
    let (bob, device) = (simulator.phone("15550302"), alice.device(&simulator));
    let logins = || simulator.stats().count("login");
    let before = logins();
    assert!(simulator.faults().cut_frame("15550301", device));
    bob.send_text("15550301", "after the cut").unwrap();
    alice.text("after the cut").await;
    eventually("a new login", || logins() > before).await;
    let phone = simulator.phone("15550301");
    eventually("active", || phone.devices()[0].active).await;
    let before = logins();
    assert!(simulator.faults().stream_error("15550301", device, 503));
    eventually("a new login", || logins() > before).await;
    bob.send_text("15550301", "after the error").unwrap();
    alice.text("after the error").await;
    assert!(!simulator.faults().cut_frame("15550302", 1));
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stanza_that_nobody_knows_disturbs_nothing() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550303").await;
    assert!(simulator.faults().unknown_stanza("15550303", alice.device(&simulator)));
    simulator.phone("15550304").send_text("15550303", "still here").unwrap();
    alice.text("still here").await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_twice_is_shown_once() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550305").await;
    let bob = simulator.phone("15550306");
    simulator.faults().duplicate(true);
    bob.send_text("15550305", "one").unwrap();
    bob.send_text("15550305", "two").unwrap();
    simulator.faults().duplicate(false);
    bob.send_text("15550305", "last").unwrap();
    let mut texts = Vec::new();
    while !texts.contains(&"last".to_string()) {
        let more: Vec<String> = alice
            .wait("texts", |e| match e {
                Event::Messages(batch) => Some(batch.iter().filter_map(|m| m.message.conversation.clone()).collect()),
                _ => None,
            })
            .await;
        texts.extend(more);
    }
    assert_eq!(texts, ["one", "two", "last"]);
    let phone = simulator.phone("15550305");
    eventually("all acknowledged", || phone.devices()[0].queued == 0).await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_come_late_and_in_another_order() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550307").await;
    let bob = simulator.phone("15550308");
    simulator.faults().hold_receipts(true, 0);
    let mut ids = Vec::new();
    for n in 0..12 {
        ids.push(alice.send("15550308", &format!("text {n}")).await);
    }
    bob.wait_for(DEADLINE, |m| m.text == "text 11").await.unwrap();
    for id in &ids {
        bob.mark_read(id).unwrap();
    }
    simulator.faults().hold_receipts(false, seed());
    let mut missing = ids.clone();
    while !missing.is_empty() {
        let read = alice
            .wait("read receipts", |e| match e {
                Event::Receipt(r) if format!("{:?}", r.r#type) == "Read" => Some(r.message_ids.clone()),
                _ => None,
            })
            .await;
        missing.retain(|id| !read.contains(id));
    }
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_reaches_nobody() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550309").await;
    let bob = simulator.phone("15550310");
    simulator.faults().reject_messages(Some("15550309"), Some(463));
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    let enc = NodeBuilder::new("enc").attr("v", "2").attr("type", "msg").bytes(vec![0x33; 40]).build();
    let mut send = async |id: &str| {
        let message = NodeBuilder::new("message").attr("id", id).attr("to", jid("15550310")).attr("type", "text");
        raw.send(&message.children([enc.clone()]).build()).await;
        let ack = raw.wait("an acknowledgement", |n| n.tag == "ack" && text(n, "id") == id).await;
        text(&ack, "error")
    };
    assert_eq!(send("A").await, "463");
    simulator.faults().reject_messages(None, None);
    simulator.faults().reject_messages(None, Some(479));
    assert_eq!(send("B").await, "479");
    simulator.faults().reject_messages(None, None);
    assert_eq!(send("C").await, "");
    assert_eq!(simulator.stats().count("message refused"), 2);
    eventually("the last one arrives", || simulator.stats().count("phone: undecryptable") == 1).await;
    assert!(bob.inbox().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_prekeys_can_still_be_written_to() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550311").await;
    let device = alice.device(&simulator);
    assert!(simulator.faults().exhaust_prekeys("15550311", device) > 0);
    assert_eq!(simulator.phone("15550311").devices()[0].prekeys, 0);
    simulator.phone("15550312").send_text("15550311", "by the signed prekey").unwrap();
    alice.text("by the signed prekey").await;
    assert_eq!(simulator.faults().exhaust_prekeys("15550311", 9), 0);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_keeps_the_order() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550313").await;
    let bob = simulator.phone("15550314");
    let least = Duration::from_millis(40);
    simulator.faults().delay(least, Duration::from_millis(30), seed());
    let start = Instant::now();
    alice.send("15550314", "slowly").await;
    assert!(start.elapsed() >= least);
    let id = bob.send_text("15550313", "slowly back").unwrap();
    alice.text("slowly back").await;
    eventually("a receipt", || bob.receipts(&id).iter().any(|r| r.kind == ReceiptKind::Delivered)).await;
    simulator.faults().delay(Duration::ZERO, Duration::ZERO, 0);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_media_host_that_fails_is_noticed_by_the_client() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550315").await;
    let data = bytes::Bytes::from(vec![5; 50_000]);
    let content = Content::Medium {
        kind: MediumKind::Image,
        data: data.clone(),
        mimetype: "image/png".into(),
        caption: None,
        view_once: false,
    };
    simulator.phone("15550316").send("15550315", &content).unwrap();
    let image = alice
        .wait("an image", |e| match e {
            Event::Messages(batch) => batch.iter().find_map(|m| m.message.image_message.as_option().cloned()),
            _ => None,
        })
        .await;
    let faults = simulator.faults();
    faults.media(Some(MediaFault::Lying));
    assert!(alice.client.download(&image).await.is_err(), "the hash is wrong");
    faults.media(Some(MediaFault::Down));
    assert!(alice.client.download(&image).await.is_err());
    let pause = Duration::from_millis(300);
    faults.media(Some(MediaFault::Slow(pause)));
    let start = Instant::now();
    assert_eq!(alice.client.download(&image).await.unwrap(), data);
    assert!(start.elapsed() >= pause);
    faults.media(None);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_clock_may_be_wrong() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550317").await;
    let bob = simulator.phone("15550318");
    alice.send("15550318", "now").await;
    let now = bob.wait_for(DEADLINE, |m| m.text == "now").await.unwrap().timestamp;
    let hour = 3_600;
    simulator.faults().clock_ahead(hour);
    alice.send("15550318", "later").await;
    let later = bob.wait_for(DEADLINE, |m| m.text == "later").await.unwrap().timestamp;
    assert!(later >= now + hour.unsigned_abs(), "{now} {later}");
    simulator.faults().clock_ahead(-hour);
    let id = bob.send_text("15550317", "an hour ago").unwrap();
    alice.text("an hour ago").await;
    let accepted = simulator.trace(&id).unwrap().accepted_at;
    assert!(accepted < now, "{now} {accepted}");
    assert_clean(&simulator);
}
