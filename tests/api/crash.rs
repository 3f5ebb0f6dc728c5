//! kill -9 at the worst moments: what was answered holds, nothing is sent or stored twice.

use crate::{
    client::Client,
    node::eventually,
    world::{FRIEND, OWNER, World, seed},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

const SENDS: usize = 1_000;
const CALLERS: usize = 16;
const CHATS: usize = 10;

/// What the gateway said to one send.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// Accepted, under this message id.
    Accepted(String),
    /// Nothing: the connection broke.
    Nothing,
}

fn chat(number: usize) -> String {
    format!("1555000{:04}", 3000 + number % CHATS)
}

async fn send(client: &Client, session: &str, number: usize) -> Said {
    let body = json!({"session_id": session, "to": chat(number), "message": format!("text {number}")});
    let request = client.request(reqwest::Method::POST, "/api/whatsapp/messages/text").json(&body);
    let Ok(response) = request.header("idempotency-key", number.to_string()).send().await else { return Said::Nothing };
    let status = response.status().as_u16();
    let Ok(body) = response.json::<serde_json::Value>().await else { return Said::Nothing };
    assert!(status == 200 || status == 202, "{status} {body}");
    Said::Accepted(body["message_id"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_a_thousand_sends_it_has_sent_each_at_most_once() {
    let mut random = StdRng::seed_from_u64(seed());
    let (mut world, session) = World::linked(&[]).await;
    for number in 0..CHATS {
        world.phone(&chat(number));
    }
    let (next, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (client, session) = (world.client.clone(), session.clone());
        let (next, answered) = (Arc::clone(&next), Arc::clone(&answered));
        callers.spawn(async move {
            let mut said = vec![];
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= SENDS {
                    return said;
                }
                let answer = send(&client, &session, number).await;
                let lost = answer == Said::Nothing;
                said.push((number, answer));
                answered.fetch_add(1, Ordering::SeqCst);
                if lost {
                    return said;
                }
            }
        });
    }
    let moment = random.random_range(SENDS / 4..SENDS * 3 / 4);
    eventually("the middle of the sends", async || {
        let so_far = answered.load(Ordering::SeqCst);
        if so_far >= moment { Ok(()) } else { Err(so_far.to_string()) }
    })
    .await;
    world.node.kill();
    let mut said: HashMap<usize, Said> = HashMap::new();
    while let Some(caller) = callers.join_next().await {
        said.extend(caller.unwrap());
    }
    let lost: Vec<_> = said.iter().filter(|(_, said)| **said == Said::Nothing).map(|(number, _)| *number).collect();
    assert!(!lost.is_empty() && said.len() < SENDS, "killed too late: {} sends", said.len());

    world.start_again().await;
    world.status_is(&session, "WORKING").await;
    let rows =
        world.history_where(&session, "no send waits", |rows| rows.iter().all(|row| row["status"] != "pending")).await;
    let accepted: HashMap<_, _> =
        rows.iter().map(|row| (row["text"].as_str().unwrap(), row["message_id"].as_str().unwrap())).collect();
    assert_eq!(accepted.len(), rows.len(), "no text twice in the history");
    for (number, said) in &said {
        let stored = accepted.get(format!("text {number}").as_str());
        match said {
            Said::Accepted(id) => assert_eq!(stored, Some(&id.as_str()), "text {number} was answered"),
            Said::Nothing => {}
        }
    }
    // Every phone has what the history says, each once and in the order of the history.
    for number in 0..CHATS {
        let phone = world.phone(&chat(number));
        let chat = format!("{}@s.whatsapp.net", chat(number));
        let mut expected: Vec<_> = rows.iter().filter(|row| row["chat"] == chat).collect();
        expected.reverse();
        let expected: Vec<_> = expected.iter().map(|row| (text(row, "message_id"), text(row, "text"))).collect();
        let arrived = eventually("everything arrived", async || {
            let inbox = phone.inbox();
            if inbox.len() >= expected.len() {
                Ok(inbox)
            } else {
                Err(format!("{} of {}", inbox.len(), expected.len()))
            }
        })
        .await;
        let arrived: Vec<_> = arrived.into_iter().map(|message| (message.id, message.text)).collect();
        assert_eq!(arrived, expected, "chat {chat}");
    }
    // Those who got no answer ask again with their key, and learn what became of it.
    for number in lost {
        let before = accepted.get(format!("text {number}").as_str()).map(|id| (*id).to_owned());
        let Said::Accepted(id) = send(&world.client, &session, number).await else { panic!("no answer") };
        assert!(before.is_none_or(|before| before == id), "text {number}");
        world.arrived(&chat(number), &id).await;
        let texts = world.phone(&chat(number)).inbox();
        assert_eq!(texts.iter().filter(|message| message.text == format!("text {number}")).count(), 1);
    }
    world.finish();
}

fn text(row: &serde_json::Value, field: &str) -> String {
    row[field].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_messages_come_in_it_loses_and_doubles_none() {
    let mut random = StdRng::seed_from_u64(seed());
    let (mut world, session) = World::linked(&[]).await;
    let friend = world.phone(FRIEND);
    let mut ids = vec![];
    for round in 0..3 {
        // Some are stored, some acknowledged as well, some neither: wherever the kill falls.
        for number in 0..40 {
            ids.push(friend.send_text(OWNER, &format!("text {round}.{number}")).unwrap());
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
        world.node.kill();
        world.start_again().await;
    }
    world.history_where(&session, "every message", |rows| rows.len() >= ids.len()).await;
    eventually("everything acknowledged", async || {
        let devices = world.phone(OWNER).devices();
        if devices[0].active && devices[0].queued == 0 { Ok(()) } else { Err(format!("{devices:?}")) }
    })
    .await;
    let mut rows = world.client.history(&session).await;
    rows.reverse();
    let stored: Vec<_> = rows.iter().map(|row| text(row, "message_id")).collect();
    assert_eq!(stored, ids, "each once, in order");
    assert!(rows.iter().all(|row| row["type"] == "text"), "all readable: {rows:?}");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_acknowledgement_it_sends_again_under_the_same_id() {
    let (mut world, session) = World::linked(&[]).await;
    world.send(&session, FRIEND, "first").await;
    world.simulator.faults().hold_acks(true);
    let queued = world.client.send_waiting(&session, FRIEND, "unanswered", Some(0)).await.expect(202);
    let id = queued.text("message_id");
    world.arrived(FRIEND, &id).await;
    world.node.kill();
    world.simulator.faults().hold_acks(false);
    world.start_again().await;
    world.message_where(&session, &id, |message| message["status"] == "delivered").await;
    let last = world.send(&session, FRIEND, "last").await;
    world.arrived(FRIEND, &last).await;
    let texts: Vec<_> = world.phone(FRIEND).inbox().into_iter().map(|message| message.text).collect();
    assert_eq!(texts, ["first", "unanswered", "last"]);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_pairing_it_can_still_be_linked() {
    let mut world = World::start().await;
    let session = world.create().await;
    let waiting = world.status_is(&session, "SCAN_QR_CODE").await;
    world.phone(OWNER).scan(waiting["qr"].as_str().unwrap()).unwrap();
    // At whatever point of the pairing this falls.
    world.node.kill();
    world.start_again().await;
    let settled = ["WORKING", "SCAN_QR_CODE", "LOGGED_OUT"];
    let now =
        world.session_where(&session, "settled", |now| settled.iter().any(|status| now["status"] == *status)).await;
    if now["status"] == "LOGGED_OUT" {
        world.client.post(&format!("/api/whatsapp/sessions/{session}/connect"), &json!({})).await.expect(200);
    }
    if now["status"] != "WORKING" {
        world.pair(&session, OWNER).await;
    }
    let id = world.send(&session, FRIEND, "linked after all").await;
    world.arrived(FRIEND, &id).await;
    world.finish();
}
