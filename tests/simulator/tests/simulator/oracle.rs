//! The oracle: a correct run gives it no cause, and each kind of wrong run is caught with evidence.

use std::time::Duration;

use wacore_binary::Node;
use wacore_binary::builder::NodeBuilder;
use whatsapp_rust::Jid;
use whatsapp_simulator::{Cause, Config, Handle, Lost, ReceiptKind, Violation, ViolationKind};

use crate::client::{DEADLINE, TestClient, assert_clean, eventually, jid, simulator, simulator_with};
use crate::raw::{RawConnection, text};

fn kinds(violations: &[Violation]) -> Vec<ViolationKind> {
    violations.iter().map(|v| v.kind).collect()
}

async fn quiet(simulator: &Handle) {
    eventually("nothing waits", || simulator.undelivered().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correct_run_gives_no_cause_whatever_happens_to_it() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15559001").await;
    let carol = TestClient::pair(&simulator, "15559003").await;
    let bob = simulator.phone("15559002");
    let mut sent = Vec::new();
    for n in 0..10 {
        sent.push(alice.send("15559002", &format!("to bob {n}")).await);
        sent.push(alice.send("15559003", &format!("to carol {n}")).await);
    }
    // A restored phone cannot read the next one, and asks for it again.
    bob.forget_sessions();
    sent.push(alice.send("15559002", "once more").await);
    bob.wait_for(DEADLINE, |m| m.text == "once more").await.unwrap();
    // What alice has not acknowledged comes again, over the next connection.
    simulator.faults().freeze("15559001", 1, true);
    let held = bob.send_text("15559001", "not acknowledged").unwrap();
    assert!(simulator.faults().drop_connection("15559001", 1));
    let stored = [held, bob.send_text("15559001", "at last").unwrap()];
    alice.text("at last").await;
    quiet(&simulator).await;
    assert_eq!(simulator.check_sent("15559001", sent.iter().map(String::as_str)), []);
    assert_eq!(simulator.check_stored("15559001", 1, stored.iter().map(String::as_str)), []);
    assert_eq!(simulator.duplicates(), []);
    let again = simulator.trace(sent.last().unwrap()).unwrap();
    let causes: Vec<_> = again.devices["15559002:0"].deliveries.iter().map(|d| d.cause).collect();
    assert_eq!(causes, [Cause::First, Cause::Retried]);
    let first = simulator.trace(&stored[0]).unwrap();
    let to_alice = &first.devices["15559001:1"];
    assert_eq!(to_alice.deliveries.last().unwrap().cause, Cause::Reconnected, "{to_alice:?}");
    assert_eq!(to_alice.acknowledged_over, Some(to_alice.deliveries.last().unwrap().connection));
    let connections = simulator.connections(Some(("15559001", 1)));
    assert!(connections.len() >= 2 && connections.last().unwrap().until_ms.is_none(), "{connections:?}");
    assert!(connections[..connections.len() - 1].iter().all(|c| c.until_ms.is_some()), "{connections:?}");
    drop(carol);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_owner_that_kicks_a_newer_one_is_caught() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15559011").await;
    let first = RawConnection::log_in_as_owner(&simulator, &alice, "node-a", 1).await;
    let same = RawConnection::log_in_as_owner(&simulator, &alice, "node-a", 1).await;
    let second = RawConnection::log_in_as_owner(&simulator, &alice, "node-b", 2).await;
    assert_eq!(simulator.violations(), [], "a takeover is none, nor is the same owner again");
    let third = RawConnection::log_in_as_owner(&simulator, &alice, "node-a", 1).await;
    assert_eq!(kinds(&simulator.violations()), [ViolationKind::OldOwnerKicks]);
    let evidence = simulator.violations()[0].to_string();
    assert!(evidence.contains("owner node-a, epoch 1") && evidence.contains("owner node-b, epoch 2"), "{evidence}");
    let claims: Vec<_> = simulator
        .connections(Some(("15559011", 1)))
        .into_iter()
        .filter_map(|c| Some((c.owner?, c.epoch?, c.replaced_by.is_some())))
        .collect();
    let claim = |owner: &str, epoch, replaced| (owner.to_string(), epoch, replaced);
    let expected =
        [claim("node-a", 1, true), claim("node-a", 1, true), claim("node-b", 2, true), claim("node-a", 1, false)];
    assert_eq!(claims, expected);
    drop((first, same, second, third));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_owner_that_comes_after_a_newer_one_is_caught() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15559013").await;
    let newer = RawConnection::log_in_as_owner(&simulator, &alice, "node-b", 7).await;
    newer.hang_up().await;
    let open = || simulator.connections(Some(("15559013", 1))).iter().any(|c| c.until_ms.is_none());
    eventually("all have ended", || !open()).await;
    let older = RawConnection::log_in_as_owner(&simulator, &alice, "node-a", 6).await;
    assert_eq!(kinds(&simulator.violations()), [ViolationKind::OldOwnerConnects]);
    drop(older);
}

/// Logs in as a client and receives without reading: acknowledges every message, keeps those that `keep` wants.
async fn receive(raw: &mut RawConnection, count: usize, keep: impl Fn(usize) -> bool) -> Vec<String> {
    let mut kept = Vec::new();
    for n in 0..count {
        let message = raw.wait("a message", |node| node.tag == "message" && text(node, "category") != "peer").await;
        let id = text(&message, "id");
        let receipt = NodeBuilder::new("receipt").attr("id", id.as_str()).attr("to", text(&message, "from"));
        raw.send(&receipt.build()).await;
        if keep(n) {
            kept.push(id);
        }
    }
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_acknowledges_what_it_does_not_store_is_caught() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15559021").await;
    let bob = simulator.phone("15559022");
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    raw.activate().await;
    let ids: Vec<_> = (0..5).map(|n| bob.send_text("15559021", &format!("text {n}")).unwrap()).collect();
    let kept = receive(&mut raw, 5, |n| n != 2).await;
    eventually("all acknowledged", || simulator.acknowledged("15559021", 1).len() == 5).await;
    let acknowledged: Vec<_> = simulator.acknowledged("15559021", 1).into_iter().map(|a| a.id).collect();
    assert_eq!(acknowledged, ids);
    let missing = simulator.check_stored("15559021", 1, kept.iter().map(String::as_str));
    assert_eq!(kinds(&missing), [ViolationKind::AcknowledgedNotStored]);
    assert!(missing[0].evidence.contains(&ids[2]), "{}", missing[0]);
    assert_eq!(simulator.check_stored("15559021", 1, ids.iter().map(String::as_str)), []);
    assert_clean(&simulator);
}

fn message(id: &str, to: &Jid) -> Node {
    let enc = NodeBuilder::new("enc").attr("v", "2").attr("type", "msg").bytes(vec![0x33; 40]).build();
    NodeBuilder::new("message").attr("id", id).attr("to", to).attr("type", "text").children([enc]).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_sent_again_for_no_reason_or_never_is_caught() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15559031").await;
    let carol = TestClient::pair(&simulator, "15559032").await;
    let to = Jid::pn_device("15559032", 1);
    let mut receiver = RawConnection::log_in_as(&simulator, &carol).await;
    receiver.activate().await;
    let mut send = async |raw: &mut RawConnection, id: &str| {
        raw.send(&message(id, &to)).await;
        raw.wait("an acknowledgement", |n| n.tag == "ack" && text(n, "id") == id).await;
        receive(&mut receiver, 1, |_| true).await;
    };
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    send(&mut raw, "A").await;
    eventually("acknowledged", || simulator.undelivered().is_empty()).await;
    assert_eq!(simulator.check_sent("15559031", ["A"]), []);
    let mut again = RawConnection::log_in_as(&simulator, &alice).await;
    send(&mut again, "A").await;
    assert_eq!(simulator.duplicates(), [], "a client that has connected anew may have to");
    send(&mut again, "A").await;
    assert_eq!(simulator.duplicates().len(), 1);
    let causes: Vec<_> =
        simulator.trace("A").unwrap().devices["15559032:1"].deliveries.iter().map(|d| d.cause).collect();
    assert_eq!(causes, [Cause::First, Cause::SentAgain, Cause::Unasked]);
    let found = kinds(&simulator.check_sent("15559031", ["A", "B"]));
    assert_eq!(found, [ViolationKind::DeliveredTwice, ViolationKind::NotDelivered]);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_connects_twice_and_goes_on_with_both_is_caught() {
    let config = Config { replaced_grace: Duration::from_millis(1), ..Config::default() };
    let simulator = simulator_with(config).await;
    let alice = TestClient::pair(&simulator, "15559041").await;
    simulator.phone("15559042");
    let mut first = RawConnection::log_in_as_owner(&simulator, &alice, "node-a", 3).await;
    let mut second = RawConnection::log_in_as_owner(&simulator, &alice, "node-a", 3).await;
    first.wait("replaced", |node| node.tag == "stream:error").await;
    let replaced = || simulator.connections(Some(("15559041", 1))).iter().rev().nth(1).and_then(|c| c.replaced_ms);
    eventually("the grace is over", || replaced().is_some_and(|at| now_ms() > at + 5)).await;
    first.send(&message("A", &jid("15559042"))).await;
    second.send(&message("B", &jid("15559042"))).await;
    second.wait("an acknowledgement", |n| n.tag == "ack" && text(n, "id") == "B").await;
    // The client whose device this is had a connection as well, and may have been as late.
    let of_first = || {
        let mut found = simulator.violations();
        found.retain(|violation| violation.evidence.contains("node-a"));
        found
    };
    eventually("a violation", || !of_first().is_empty()).await;
    assert_eq!(kinds(&of_first()), [ViolationKind::TwoConnections]);
    let evidence = &of_first()[0].evidence;
    assert!(evidence.contains("<message> A") && evidence.contains("owner node-a, epoch 3"), "{evidence}");
    assert_eq!(simulator.trace("A"), None, "it took no effect");
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_for_a_removed_device_is_not_waited_for() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15559051").await;
    let bob = simulator.phone("15559052");
    alice.stop().await;
    let alices = simulator.phone("15559051");
    eventually("away", || !alices.devices()[0].connected).await;
    let id = bob.send_text("15559051", "to nobody").unwrap();
    eventually("the phone has it", || simulator.trace(&id).unwrap().is_acknowledged_by("15559051:0")).await;
    assert_eq!(simulator.undelivered().len(), 1);
    alices.unlink(1).unwrap();
    assert_eq!(simulator.trace(&id).unwrap().devices["15559051:1"].lost, Some(Lost::DeviceRemoved));
    eventually("nothing waits", || simulator.undelivered().is_empty()).await;
    eventually("a receipt", || bob.receipts(&id).iter().any(|r| r.kind == ReceiptKind::Delivered)).await;
    assert_clean(&simulator);
}
