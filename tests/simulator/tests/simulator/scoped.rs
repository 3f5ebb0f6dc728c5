//! Faults on one connection, one account or all; others do not feel them.

use std::time::{Duration, Instant};

use wacore::types::events::Event;
use wacore_binary::builder::NodeBuilder;
use whatsapp_simulator::{Cause, PhoneError};

use crate::client::{DEADLINE, PairBy, TestClient, assert_clean, eventually, simulator};
use crate::faults::seed;
use crate::raw::{RawConnection, text};

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_to_refuse_a_login_is_given_to_whom_it_is_meant_for() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550401").await;
    let bob = TestClient::pair(&simulator, "15550402").await;
    let (url, faults) = (simulator.websocket_url(), simulator.faults().of_account("15550401"));
    for reason in [400, 401, 402, 403, 405, 406, 409, 413, 414, 415, 418, 500, 501, 503] {
        faults.refuse_logins(Some(reason));
        let mut raw = RawConnection::try_log_in(&url, &alice).await;
        let answer = raw.wait("an answer", |n| matches!(n.tag.as_ref(), "failure" | "success")).await;
        assert_eq!((answer.tag.as_ref(), text(&answer, "reason")), ("failure", reason.to_string()));
    }
    RawConnection::log_in_as(&simulator, &bob).await;
    faults.refuse_logins(None);
    RawConnection::log_in_as(&simulator, &alice).await;
    assert_eq!(simulator.stats().count("login refused"), 14);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_login_is_told_to_the_first() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550403").await;
    let bob = TestClient::pair(&simulator, "15550404").await;
    assert_eq!(simulator.faults().of_account("15550403").second_logins(), 1);
    alice.wait("replaced", |e| matches!(e, Event::StreamReplaced(_)).then_some(())).await;
    let phone = simulator.phone("15550403");
    eventually("away", || !phone.devices()[0].connected).await;
    assert!(simulator.phone("15550404").devices()[0].connected);
    assert_eq!(simulator.faults().of_device("15550403", 1).second_logins(), 0, "it has no connection");
    // It comes back when it is told to, and has lost nothing.
    simulator.phone("15550404").send_text("15550403", "meanwhile").unwrap();
    let store = alice.stop().await;
    let alice = TestClient::start(&simulator, "15550403", store, PairBy::Nothing).await;
    alice.text("meanwhile").await;
    drop(bob);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_at_random_lose_nothing_and_show_nothing_twice() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550405").await;
    let bob = simulator.phone("15550406");
    let logins = simulator.stats().count("login");
    let faults = simulator.faults().of_account("15550405");
    faults.break_at_random(0.02, seed());
    let mut ids = Vec::new();
    let mut missing = Vec::new();
    for n in 0..40 {
        ids.push(bob.send_text("15550405", &format!("text {n}")).unwrap());
        missing.push(format!("text {n}"));
    }
    let mut shown = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    while !missing.is_empty() {
        assert!(Instant::now() < deadline, "{missing:?}");
        let texts: Vec<String> = alice
            .wait("texts", |e| match e {
                Event::Messages(batch) => Some(batch.iter().filter_map(|m| m.message.conversation.clone()).collect()),
                _ => None,
            })
            .await;
        missing.retain(|m| !texts.contains(m));
        shown.extend(texts);
        if missing.len() < 10 {
            faults.break_at_random(0.0, 0);
        }
    }
    faults.break_at_random(0.0, 0);
    // Certain to break, should the seed have been kind.
    assert_eq!(faults.drop_connections(), 1);
    eventually("a new login", || simulator.stats().count("login") > logins).await;
    eventually("all acknowledged", || simulator.undelivered().is_empty()).await;
    shown.sort();
    let before = shown.len();
    shown.dedup();
    assert_eq!(before, shown.len(), "nothing is shown twice: {shown:?}");
    assert_eq!(simulator.check_stored("15550405", 1, ids.iter().map(String::as_str)), []);
    assert_eq!(simulator.duplicates(), []);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_is_slow_and_the_other_is_not() {
    let simulator = simulator().await;
    let slow = TestClient::pair(&simulator, "15550407").await;
    let quick = TestClient::pair(&simulator, "15550408").await;
    let least = Duration::from_secs(2);
    simulator.faults().of_device("15550407", 1).delay(least, Duration::ZERO, seed());
    let (bob, start) = (simulator.phone("15550409"), Instant::now());
    bob.send_text("15550407", "slow").unwrap();
    bob.send_text("15550408", "quick").unwrap();
    quick.text("quick").await;
    let quickly = start.elapsed();
    slow.text("slow").await;
    assert!(start.elapsed() >= least && quickly < start.elapsed(), "{quickly:?} {:?}", start.elapsed());
    simulator.faults().delay(Duration::ZERO, Duration::ZERO, 0);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_and_receipts_of_one_account_are_kept_back() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550411").await;
    let bob = TestClient::pair(&simulator, "15550412").await;
    simulator.phone("15550413");
    let faults = simulator.faults().of_account("15550411");
    faults.hold_acks(true);
    faults.duplicate(true);
    let mut held = RawConnection::log_in_as(&simulator, &alice).await;
    let mut free = RawConnection::log_in_as(&simulator, &bob).await;
    let message = |id: &'static str| {
        let enc = NodeBuilder::new("enc").attr("v", "2").attr("type", "msg").bytes(vec![0x33; 40]).build();
        let to = crate::client::jid("15550413");
        NodeBuilder::new("message").attr("id", id).attr("to", to).attr("type", "text").children([enc]).build()
    };
    held.send(&message("A")).await;
    free.send(&message("B")).await;
    free.wait("an acknowledgement", |n| n.tag == "ack" && text(n, "id") == "B").await;
    // The answer to a ping comes, and no acknowledgement before it.
    let ping = NodeBuilder::new("ping").build();
    let iq = NodeBuilder::new("iq").attr("id", "1").attr("type", "get").attr("xmlns", "w:p").children([ping]);
    held.send(&iq.build()).await;
    let first = held.wait("an answer", |n| n.tag == "ack" || text(n, "id") == "1").await;
    assert_eq!(first.tag, "iq");
    faults.hold_acks(false);
    held.wait("an acknowledgement", |n| n.tag == "ack" && text(n, "id") == "A").await;
    // Duplicates: one of the two accounts gets everything twice.
    held.activate().await;
    free.activate().await;
    let ids = ["15550411", "15550412"].map(|to| simulator.phone("15550413").send_text(to, "hello").unwrap());
    let copies = |at: usize, device: &str| {
        let trace = simulator.trace(&ids[at]);
        trace.map_or(0, |t| t.devices[device].deliveries.len())
    };
    eventually("twice", || copies(0, "15550411:1") == 2).await;
    let trace = simulator.trace(&ids[0]).unwrap();
    assert_eq!(trace.devices["15550411:1"].deliveries[1].cause, Cause::Duplicated);
    eventually("once", || copies(1, "15550412:1") == 1).await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_meets_all_meets_every_connection() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15550421").await;
    let bob = TestClient::pair(&simulator, "15550422").await;
    let faults = simulator.faults();
    let phones = ["15550421", "15550422"].map(|n| simulator.phone(n));
    let active = || phones.iter().all(|p| p.devices()[0].active);
    eventually("active", active).await;
    assert_eq!(faults.unknown_stanzas(), 2);
    assert_eq!((faults.freeze_connections(true), faults.freeze_connections(false)), (2, 2));
    for hit in [faults.cut_frames(), 0] {
        let before = simulator.stats().count("login");
        let hit = if hit == 0 { faults.drop_connections() } else { hit };
        assert_eq!(hit, 2);
        eventually("both log in again", || simulator.stats().count("login") >= before + 2 && active()).await;
    }
    let before = simulator.stats().count("login");
    assert_eq!(faults.stream_errors(503), 2);
    eventually("both log in again", || simulator.stats().count("login") >= before + 2 && active()).await;
    assert!(faults.exhaust_all_prekeys() > 0);
    assert_eq!(faults.of_account("15550421").remove_devices(), 1);
    alice.wait("logged out", |e| matches!(e, Event::LoggedOut(_)).then_some(())).await;
    assert!(matches!(phones[0].unlink(1), Err(PhoneError::UnknownDevice(1))));
    phones[0].send_text("15550422", "still here").unwrap();
    bob.text("still here").await;
    assert_clean(&simulator);
}
