//! History: what a new companion gets of its phone, and what it asks for later.

use std::collections::BTreeSet;

use wacore::types::events::Event;
use waproto::whatsapp as wa;
use waproto::whatsapp::history_sync::HistorySyncType as Kind;
use whatsapp_simulator::{HistorySize, PhoneEvent};

use crate::client::{DEADLINE, PairBy, Store, TestClient, assert_clean, eventually, jid, simulator};

/// The ids of all messages of a chunk.
fn ids(sync: &wa::HistorySync) -> impl Iterator<Item = String> {
    let messages = sync.conversations.iter().flat_map(|c| &c.messages);
    messages.filter_map(|m| m.message.as_option()?.key.as_option()?.id.clone())
}

/// Waits for the next chunk of history.
async fn chunk(client: &TestClient) -> wa::HistorySync {
    let take = |e: &Event| match e {
        Event::HistorySync(history) => Some(history.get().expect("it can be read").clone()),
        _ => None,
    };
    client.wait("history", take).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_companion_gets_the_history_in_chunks() {
    const MESSAGES: u64 = 9_001;
    let simulator = simulator().await;
    let phone = simulator.phone("15560001");
    phone.set_history(HistorySize { chats: 7, messages: MESSAGES });
    let alice = TestClient::start(&simulator, "15560001", Store::default(), PairBy::Qr).await;
    let (mut seen, mut kinds) = (BTreeSet::new(), Vec::new());
    let mut progress = 0;
    while (seen.len() as u64) < MESSAGES {
        let sync = chunk(&alice).await;
        kinds.push(sync.sync_type);
        for id in ids(&sync) {
            assert!(seen.insert(id), "a message came twice");
        }
        if sync.sync_type == Kind::RECENT {
            // The client's events come in no order.
            progress = progress.max(sync.progress.unwrap_or_default());
        }
    }
    assert_eq!((seen.len() as u64, progress), (MESSAGES, 100));
    assert!(kinds.contains(&Kind::INITIAL_BOOTSTRAP) && kinds.contains(&Kind::PUSH_NAME), "{kinds:?}");
    assert!(kinds.iter().filter(|k| **k == Kind::RECENT).count() >= 5, "{kinds:?}");
    // The companion says of each chunk that it has taken it.
    let taken = || phone.events().iter().filter(|e| matches!(e, PhoneEvent::HistoryTaken { .. })).count();
    eventually("all taken", || taken() == kinds.len()).await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_begins_with_what_the_phone_really_has() {
    let simulator = simulator().await;
    let (phone, bob) = (simulator.phone("15560002"), simulator.phone("15560003"));
    let id = bob.send_text("15560002", "before you were linked").unwrap();
    phone.wait_for(DEADLINE, |m| m.id == id).await.unwrap();
    let answer = phone.send_text("15560003", "an answer").unwrap();
    let alice = TestClient::start(&simulator, "15560002", Store::default(), PairBy::Qr).await;
    // The client fetches chunks side by side.
    let mut chunks = [chunk(&alice).await, chunk(&alice).await];
    chunks.sort_by_key(|chunk| chunk.sync_type == Kind::PUSH_NAME);
    let [sync, names] = chunks;
    assert_eq!(sync.sync_type, Kind::INITIAL_BOOTSTRAP);
    assert_eq!(sync.conversations[0].id, "15560003@s.whatsapp.net");
    assert_eq!(ids(&sync).collect::<Vec<_>>(), [answer, id], "the latest first");
    assert_eq!(names.sync_type, Kind::PUSH_NAME);
    assert_eq!(names.pushnames[0].pushname.as_deref(), Some("Phone 15560003"));
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_companion_asks_for_older_messages() {
    let simulator = simulator().await;
    let phone = simulator.phone("15560004");
    phone.set_history(HistorySize { chats: 1, messages: 50 });
    let alice = TestClient::pair(&simulator, "15560004").await;
    let chat = jid("1888000000");
    let request = alice.client.fetch_message_history(&chat, "H0-40", true, 0, 15).await.unwrap();
    let answer = alice
        .wait("the answer", |e| match e {
            Event::HistorySync(history) if history.peer_data_request_session_id() == Some(request.as_str()) => {
                Some(history.get().expect("it can be read").clone())
            }
            _ => None,
        })
        .await;
    assert_eq!(answer.sync_type, Kind::ON_DEMAND);
    let expected: Vec<String> = (25..40).rev().map(|n| format!("H0-{n}")).collect();
    assert_eq!(ids(&answer).collect::<Vec<_>>(), expected);
    assert_clean(&simulator);
}
