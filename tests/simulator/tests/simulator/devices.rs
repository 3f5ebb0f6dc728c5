//! Connections that come and go, and devices that are removed.

use std::time::Duration;

use wacore::types::events::Event;
use whatsapp_simulator::{Config, PhoneError};

use crate::client::{PREKEYS, PairBy, TestClient, assert_clean, eventually, simulator, simulator_with};

#[tokio::test(flavor = "multi_thread")]
async fn what_came_while_a_client_was_away_waits_for_it() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15552001").await;
    let store = alice.stop().await;
    let bob = simulator.phone("15552002");
    let alices = simulator.phone("15552001");
    eventually("disconnected", || !alices.devices()[0].connected).await;
    for n in 0..5 {
        bob.send_text("15552001", &format!("waiting {n}")).unwrap();
    }
    assert!(alices.devices()[0].queued >= 5);
    let alice = TestClient::start(&simulator, "15552001", store, PairBy::Nothing).await;
    let mut missing: Vec<String> = (0..5).map(|n| format!("waiting {n}")).collect();
    while !missing.is_empty() {
        let texts = alice
            .wait("waiting texts", |e| match e {
                Event::Messages(batch) => {
                    Some(batch.iter().filter_map(|m| m.message.conversation.clone()).collect::<Vec<_>>())
                }
                _ => None,
            })
            .await;
        missing.retain(|m| !texts.contains(m));
    }
    eventually("all acknowledged", || alices.devices()[0].queued == 0).await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_comes_again_after_a_cut() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15552003").await;
    let bob = simulator.phone("15552004");
    bob.send_text("15552003", "before").unwrap();
    alice.text("before").await;
    let device = alice.device(&simulator);
    // The client's socket is open, but nothing gets through.
    assert!(simulator.faults().freeze("15552003", device, true));
    let id = bob.send_text("15552003", "into the void").unwrap();
    let phone = simulator.phone("15552003");
    assert!(phone.devices()[0].queued > 0);
    eventually("the phone has it", || simulator.trace(&id).is_some_and(|t| t.is_acknowledged_by("15552003:0"))).await;
    assert!(!simulator.trace(&id).unwrap().is_acknowledged_by("15552003:1"), "the client has not");
    assert!(simulator.faults().drop_connection("15552003", device));
    alice.text("into the void").await;
    eventually("all have it", || simulator.trace(&id).unwrap().is_acknowledged()).await;
    assert_eq!(simulator.trace(&id).unwrap().from, "15552004:0");
    // What a client sends is traced as well, to its own phone too.
    let answer = alice.send("15552004", "an answer").await;
    eventually("both phones have it", || {
        let trace = simulator.trace(&answer);
        trace.is_some_and(|t| t.is_acknowledged() && t.from == "15552003:1" && t.devices.len() == 2)
    })
    .await;
    assert_eq!(simulator.trace("never sent"), None);
    eventually("acknowledged", || phone.devices()[0].queued == 0).await;
    assert!(simulator.stats().count("login") >= 2);
    assert!(!simulator.faults().drop_connection("15552003", 99));
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_login_replaces_the_first() {
    let simulator = simulator().await;
    let first = TestClient::pair(&simulator, "15552005").await;
    // The state as another process would load it; only one of the two goes on.
    let second = TestClient::start(&simulator, "15552005", first.store.clone(), PairBy::Nothing).await;
    first.wait("replaced", |e| matches!(e, Event::StreamReplaced(_)).then_some(())).await;
    second.connected().await;
    let bob = simulator.phone("15552006");
    bob.send_text("15552005", "to the second").unwrap();
    second.text("to the second").await;
    // Not exactly one: a client may connect twice after it has paired.
    assert!(simulator.stats().count("replaced") >= 1);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_the_phone_removes_is_logged_out() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15552007").await;
    let bob = TestClient::pair(&simulator, "15552008").await;
    bob.send("15552007", "while linked").await;
    alice.text("while linked").await;
    let device = alice.device(&simulator);
    let phone = simulator.phone("15552007");
    phone.unlink(device).unwrap();
    alice.wait("logged out", |e| matches!(e, Event::LoggedOut(_)).then_some(())).await;
    assert!(phone.devices().is_empty());
    assert!(matches!(phone.unlink(device), Err(PhoneError::UnknownDevice(_))));
    // It can never log in again.
    let store = alice.stop().await;
    let again = TestClient::start(&simulator, "15552007", store, PairBy::Nothing).await;
    again.wait("refused", |e| matches!(e, Event::LoggedOut(_)).then_some(())).await;
    // Others learn of it and can still write to the phone.
    bob.send("15552007", "to the phone alone").await;
    let deadline = crate::client::DEADLINE;
    phone.wait_for(deadline, |m| m.text == "to the phone alone").await.unwrap();
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_logs_itself_out() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15552009").await;
    alice.client.logout().await;
    alice.wait("logged out", |e| matches!(e, Event::LoggedOut(_)).then_some(())).await;
    let phone = simulator.phone("15552009");
    eventually("no device", || phone.devices().is_empty()).await;
    let again = TestClient::pair(&simulator, "15552009").await;
    assert_eq!(again.device(&simulator), 2, "numbers are not used again");
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_are_refused_while_the_fault_lasts() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15552010").await;
    let store = alice.stop().await;
    simulator.faults().refuse_logins(Some(503));
    let alice = TestClient::start(&simulator, "15552010", store, PairBy::Nothing).await;
    eventually("refused", || simulator.stats().count("login refused") > 0).await;
    simulator.faults().refuse_logins(None);
    alice.connected().await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_without_an_acknowledgement_is_still_delivered() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15552011").await;
    let bob = simulator.phone("15552012");
    simulator.faults().hold_acks(true);
    let client = alice.client.clone();
    let sending = tokio::spawn(async move {
        let text = crate::client::message("in flight");
        client.send_message(crate::client::jid("15552012"), text).await.is_ok()
    });
    let deadline = crate::client::DEADLINE;
    bob.wait_for(deadline, |m| m.text == "in flight").await.unwrap();
    simulator.faults().hold_acks(false);
    assert!(sending.await.unwrap());
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn prekeys_are_replenished_when_they_run_low() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15552013").await;
    let phone = simulator.phone("15552013");
    let prekeys = || phone.devices()[0].prekeys;
    let lows = || simulator.stats().count("prekeys low");
    // Every new correspondent takes a one-time prekey. How many there are is the client's affair: one
    // that connected twice after it had paired may have uploaded twice.
    let mut correspondents = 0;
    while lows() == 0 {
        assert!(correspondents < 200, "{} prekeys left", prekeys());
        let correspondent = simulator.phone(&format!("15553000{correspondents:03}"));
        correspondent.send_text("15552013", &format!("first contact {correspondents}")).unwrap();
        correspondents += 1;
    }
    eventually("new prekeys", || prekeys() >= PREKEYS).await;
    // The sessions that took the last keys are good, and so are those that take the new ones.
    alice.text(&format!("first contact {}", correspondents - 1)).await;
    let late = simulator.phone("15553000999");
    late.send_text("15552013", "with a new key").unwrap();
    alice.text("with a new key").await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_pair_at_once_and_stop_with_the_simulator() {
    let config = Config { close_grace: Duration::from_secs(5), ..Config::default() };
    let simulator = simulator_with(config).await;
    let numbers: Vec<String> = (0..40).map(|n| format!("1556{n:06}")).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for number in numbers.clone() {
        let simulator = simulator.clone();
        tasks.spawn(async move { TestClient::pair(&simulator, &number).await });
    }
    let clients = tasks.join_all().await;
    assert_eq!(simulator.stats().devices, numbers.len());
    for client in &clients {
        simulator.phone("15559999").send_text(&client.number, "to all").unwrap();
    }
    for client in &clients {
        client.text("to all").await;
    }
    assert_clean(&simulator);
    simulator.shutdown().await;
    assert_eq!(simulator.stats().connections, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_messages_wait_for_a_client() {
    const MESSAGES: usize = 10_000;
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15552020").await;
    let store = alice.stop().await;
    let (bob, phone) = (simulator.phone("15552021"), simulator.phone("15552020"));
    eventually("disconnected", || !phone.devices()[0].connected).await;
    let sending = move || (0..MESSAGES).for_each(|n| drop(bob.send_text("15552020", &format!("{n}")).unwrap()));
    tokio::task::spawn_blocking(sending).await.unwrap();
    let alice = TestClient::start(&simulator, "15552020", store, PairBy::Nothing).await;
    let mut missing: std::collections::BTreeSet<usize> = (0..MESSAGES).collect();
    while !missing.is_empty() {
        let texts: Vec<usize> = alice
            .wait(&format!("{} texts", missing.len()), |e| match e {
                Event::Messages(batch) => {
                    Some(batch.iter().filter_map(|m| m.message.conversation.as_ref()?.parse().ok()).collect())
                }
                _ => None,
            })
            .await;
        for text in texts {
            assert!(missing.remove(&text), "{text} came twice");
        }
    }
    eventually("all acknowledged", || phone.devices()[0].queued == 0).await;
    assert_clean(&simulator);
}
