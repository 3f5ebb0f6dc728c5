//! Calls: offered, refused and ended, by phones and clients.

use wacore::types::call::CallAction;
use wacore::types::events::Event;
use whatsapp_simulator::{CallState, PhoneEvent};

use crate::client::{DEADLINE, TestClient, assert_clean, eventually, simulator};

/// Waits for what is said of a call.
async fn said(client: &TestClient, tag: &str, id: &str) -> wacore::types::call::IncomingCall {
    client
        .wait(&format!("`{tag}` of the call"), |e| match e {
            Event::IncomingCall(call) if call.action.wire_tag() == tag && call.action.call_id() == id => {
                Some(call.clone())
            }
            _ => None,
        })
        .await
}

fn call(id: &str, state: CallState) -> impl FnMut(&PhoneEvent) -> bool {
    move |event| matches!(event, PhoneEvent::Call { call_id, state: s, .. } if call_id == id && *s == state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_refuses_a_call_of_a_phone() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15563001").await;
    let (phone, bob) = (simulator.phone("15563001"), simulator.phone("15563002"));
    let id = bob.call("15563001", true).unwrap();
    let offer = said(&alice, "offer", &id).await;
    assert!(
        matches!(&offer.action, CallAction::Offer { is_video: true, caller_pn: Some(pn), .. } if pn.user == "15563002")
    );
    phone.wait_for_event(DEADLINE, call(&id, CallState::Offered)).await.unwrap();
    alice.client.voip().reject(&offer).await.unwrap();
    let event = bob.wait_for_event(DEADLINE, call(&id, CallState::Rejected)).await.unwrap();
    assert!(matches!(event, PhoneEvent::Call { from, video: true, .. } if from == "15563001"));
    assert!(bob.end_call(&id).is_err(), "it is over");
    eventually("acknowledged", || phone.devices()[0].queued == 0).await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_taken_on_one_device_stops_ringing_on_the_others() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15563003").await;
    let (phone, bob) = (simulator.phone("15563003"), simulator.phone("15563004"));
    let id = bob.call("15563003", false).unwrap();
    said(&alice, "offer", &id).await;
    phone.accept_call(&id).unwrap();
    bob.wait_for_event(DEADLINE, call(&id, CallState::Accepted)).await.unwrap();
    let ended = said(&alice, "terminate", &id).await;
    assert!(
        matches!(&ended.action, CallAction::Terminate { reason: Some(r), .. } if r == "accepted_elsewhere"),
        "{ended:?}"
    );
    bob.end_call(&id).unwrap();
    phone.wait_for_event(DEADLINE, call(&id, CallState::Ended)).await.unwrap();
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_gives_up() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15563005").await;
    let bob = simulator.phone("15563006");
    let id = bob.call("15563005", false).unwrap();
    said(&alice, "offer", &id).await;
    bob.end_call(&id).unwrap();
    said(&alice, "terminate", &id).await;
    assert!(bob.accept_call(&id).is_err());
    assert_clean(&simulator);
}
