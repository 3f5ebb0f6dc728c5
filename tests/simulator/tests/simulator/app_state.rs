//! App state: what a phone changes reaches its companions, and what they change reaches the phone.

use std::time::Duration;

use wacore::types::events::Event;
use whatsapp_simulator::{Phone, StateChange};

use crate::client::{TestClient, assert_clean, eventually, jid, simulator};

const CHAT: &str = "15561099";

/// A client that knows every collection: what changes from now on makes events.
async fn settled(simulator: &whatsapp_simulator::Handle, number: &str) -> TestClient {
    let client = TestClient::pair(simulator, number).await;
    let (phone, mut n) = (simulator.phone(number), 0);
    // A change that comes while a collection is fetched for the first time is part of that and makes no event.
    let probes = |n: usize| {
        let chat = format!("15561{n:05}");
        [
            StateChange::Pin { chat: chat.clone(), on: true },
            StateChange::Mute { chat: chat.clone(), on: true, until: None },
            StateChange::Contact { chat: chat.clone(), name: "probe".into() },
            StateChange::Label { id: chat, name: "probe".into() },
        ]
    };
    let (mut low, mut high, mut names, mut labels) = (false, false, false, false);
    while !(low && high && names && labels) {
        n += 1;
        assert!(n < 60, "never settled");
        phone.change_state(&probes(n)).unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
        while let Ok(Ok(event)) = tokio::time::timeout_at(deadline, client.events.recv()).await {
            match &*event {
                Event::PinUpdate(_) => low = true,
                Event::MuteUpdate(_) => high = true,
                Event::ContactUpdate(_) => names = true,
                Event::LabelEditUpdate(_) => labels = true,
                _ => {}
            }
            if low && high && names && labels {
                break;
            }
        }
    }
    client
}

/// A phone changes something until its companion learns of it: a client that is told of a change while it fetches
/// the one before may not fetch again before the next.
async fn seen(client: &TestClient, phone: &Phone, change: StateChange, is: impl Fn(&Event) -> bool) {
    for _ in 0..20 {
        phone.change_state(std::slice::from_ref(&change)).unwrap();
        let told = client.wait("a change", |e| is(e).then_some(()));
        if tokio::time::timeout(Duration::from_secs(2), told).await.is_ok() {
            return;
        }
    }
    panic!("{change:?} was never seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_phone_changes_reaches_its_companions() {
    let simulator = simulator().await;
    let alice = settled(&simulator, "15561001").await;
    let phone = simulator.phone("15561001");
    let chat = || CHAT.to_string();
    let of = |to: &whatsapp_rust::Jid| *to == jid(CHAT);
    let pin = StateChange::Pin { chat: chat(), on: true };
    seen(&alice, &phone, pin, |e| matches!(e, Event::PinUpdate(u) if of(&u.jid))).await;
    let mute = StateChange::Mute { chat: chat(), on: true, until: None };
    seen(&alice, &phone, mute, |e| matches!(e, Event::MuteUpdate(u) if of(&u.jid) && u.action.muted == Some(true)))
        .await;
    let archive = StateChange::Archive { chat: chat(), on: true };
    seen(&alice, &phone, archive, |e| matches!(e, Event::ArchiveUpdate(u) if of(&u.jid))).await;
    let unread = StateChange::Read { chat: chat(), on: false };
    seen(&alice, &phone, unread, |e| matches!(e, Event::MarkChatAsReadUpdate(u) if of(&u.jid))).await;
    let name = StateChange::Contact { chat: chat(), name: "Carol Clark".into() };
    let named = |e: &Event| match e {
        Event::ContactUpdate(u) => of(&u.jid) && u.action.full_name.as_deref() == Some("Carol Clark"),
        _ => false,
    };
    seen(&alice, &phone, name, named).await;
    let star = StateChange::Star { chat: chat(), message_id: "S1".into(), from_me: false, on: true };
    seen(&alice, &phone, star, |e| matches!(e, Event::StarUpdate(u) if u.message_id == "S1")).await;
    let delete = StateChange::DeleteForMe { chat: chat(), message_id: "D1".into(), from_me: true };
    seen(&alice, &phone, delete, |e| matches!(e, Event::DeleteMessageForMeUpdate(u) if u.message_id == "D1")).await;
    let clear = StateChange::ClearChat { chat: chat() };
    seen(&alice, &phone, clear, |e| matches!(e, Event::ClearChatUpdate(u) if of(&u.jid))).await;
    let delete = StateChange::DeleteChat { chat: chat() };
    seen(&alice, &phone, delete, |e| matches!(e, Event::DeleteChatUpdate(u) if of(&u.jid))).await;
    let label = StateChange::Label { id: "7".into(), name: "customers".into() };
    seen(&alice, &phone, label, |e| matches!(e, Event::LabelEditUpdate(u) if u.label_id == "7")).await;
    phone.change_state(&[StateChange::PushName { name: "Alice A.".into() }]).unwrap();
    eventually("the new name", || alice.client.push_name() == "Alice A.").await;
    assert_eq!(phone.push_name(), "Alice A.");
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_sees_what_its_companions_change() {
    let simulator = simulator().await;
    let alice = settled(&simulator, "15561002").await;
    let phone = simulator.phone("15561002");
    let (actions, chat) = (alice.client.chat_actions(), jid(CHAT));
    actions.pin_chat(&chat).await.unwrap();
    actions.mute_chat(&chat).await.unwrap();
    actions.archive_chat(&chat, None).await.unwrap();
    actions.mark_chat_as_read(&chat, false, None).await.unwrap();
    actions.save_contact(&chat, Some("Dave Doe".into()), Some("Dave".into()), true).await.unwrap();
    let state = phone.chat_state(CHAT);
    assert!(state.muted && state.archived && state.unread, "{state:?}");
    assert_eq!(state.name.as_deref(), Some("Dave Doe"));
    actions.unmute_chat(&chat).await.unwrap();
    actions.unarchive_chat(&chat, None).await.unwrap();
    actions.mark_chat_as_read(&chat, true, None).await.unwrap();
    let state = phone.chat_state(CHAT);
    assert!(!(state.muted || state.archived || state.unread), "{state:?}");
    alice.client.profile().set_push_name("Renamed").await.unwrap();
    eventually("the new name", || phone.push_name() == "Renamed").await;
    assert_eq!(simulator.stats().count("app state flaw"), 0, "the client's MACs are right");
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_comes_late_gets_a_snapshot() {
    let simulator = simulator().await;
    let phone = simulator.phone("15561003");
    for n in 0..30 {
        let chat = format!("1556120{n:04}");
        phone.change_state(&[StateChange::Mute { chat, on: true, until: None }]).unwrap();
    }
    phone.change_state(&[StateChange::Mute { chat: "15561200003".into(), on: false, until: None }]).unwrap();
    // So much at once that it is a medium of its own.
    let names = |n| StateChange::Contact { chat: format!("1556130{n:04}"), name: format!("Contact {n}") };
    phone.change_state(&(0..150).map(names).collect::<Vec<_>>()).unwrap();
    let alice = TestClient::pair(&simulator, "15561003").await;
    eventually("a snapshot", || simulator.stats().count("app state snapshot") > 0).await;
    // The client goes on from the snapshot: what it changes fits what all others have.
    alice.client.chat_actions().mute_chat(&jid("15561200003")).await.unwrap();
    assert!(phone.chat_state("15561200003").muted);
    alice.client.chat_actions().save_contact(&jid("15561300001"), Some("X".into()), None, true).await.unwrap();
    assert_eq!(phone.chat_state("15561300001").name.as_deref(), Some("X"));
    assert_eq!(phone.chat_state("15561300149").name.as_deref(), Some("Contact 149"));
    assert_eq!(simulator.stats().count("app state flaw"), 0, "it has the same hash");
    assert_clean(&simulator);
}
