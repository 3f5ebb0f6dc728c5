//! Order within a chat, and chats that do not wait for each other.

use crate::{
    node::PATIENCE,
    world::{FRIEND, OWNER, World},
};
use tokio::task::JoinSet;

const CHATS: usize = 12;
const TEXTS: usize = 8;

/// A session, and the phones that it writes to.
async fn world() -> (World, String) {
    let (world, session) = World::linked(&[]).await;
    for number in 0..CHATS {
        world.phone(&chat(number));
    }
    (world, session)
}

fn chat(number: usize) -> String {
    format!("1555000{:04}", 4000 + number)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_chat_keeps_its_order_while_many_are_busy() {
    let (world, session) = world().await;
    let mut callers = JoinSet::new();
    for number in 0..CHATS {
        let (client, session) = (world.client.clone(), session.clone());
        callers.spawn(async move {
            let mut ids = vec![];
            for text in 0..TEXTS {
                // Without waiting for the acknowledgement, so that a chat has several under way.
                let answer = client.send_waiting(&session, &chat(number), &format!("text {text}"), Some(0)).await;
                assert!([200, 202].contains(&answer.status), "{}", answer.body);
                ids.push(answer.text("message_id"));
            }
            (number, ids)
        });
    }
    // Meanwhile messages come in, and the connection breaks once.
    for text in 0..TEXTS {
        world.phone(FRIEND).send_text(OWNER, &format!("in {text}")).unwrap();
    }
    world.simulator.faults().drop_connection(OWNER, 1);
    while let Some(caller) = callers.join_next().await {
        let (number, ids) = caller.unwrap();
        let phone = world.phone(&chat(number));
        let last = ids.last().unwrap().clone();
        phone.wait_for(PATIENCE, |message| message.id == last).await.unwrap();
        let arrived: Vec<_> = phone.inbox().into_iter().map(|message| message.id).collect();
        assert_eq!(arrived, ids, "chat {number}");
    }
    let rows = world.history_where(&session, "all in", |rows| rows.len() >= CHATS * TEXTS + TEXTS).await;
    let mut inbound: Vec<_> =
        rows.iter().filter(|row| row["from_me"] == false).map(|row| row["text"].clone()).collect();
    inbound.reverse();
    assert_eq!(inbound, (0..TEXTS).map(|text| format!("in {text}")).collect::<Vec<_>>());
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_do_not_wait_for_each_other_and_a_chat_waits_for_itself() {
    let (world, session) = world().await;
    world.simulator.faults().hold_acks(true);
    // No chat gets an acknowledgement: the first text of each is out, the second one waits.
    let mut ids = vec![];
    for text in 0..2 {
        for number in 0..CHATS {
            let answer = world.client.send_waiting(&session, &chat(number), &format!("text {text}"), Some(0)).await;
            ids.push((number, answer.expect(202).text("message_id")));
        }
    }
    for (number, id) in &ids[..CHATS] {
        world.arrived(&chat(*number), id).await;
    }
    // The mailbox is not held up by any of it; and what comes later than the sends has gone all the way.
    let inbound = world.phone(FRIEND).send_text(OWNER, "meanwhile").unwrap();
    world.message_where(&session, &inbound, |_| true).await;
    for number in 0..CHATS {
        let inbox = world.phone(&chat(number)).inbox();
        assert_eq!(inbox.len(), 1, "the second text waits for the answer to the first: {inbox:?}");
    }
    world.simulator.faults().hold_acks(false);
    for (number, id) in &ids[CHATS..] {
        world.arrived(&chat(*number), id).await;
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_do_not_wait_for_each_other() {
    let (world, frozen) = World::linked(&[]).await;
    let other = world.link("15550003003").await;
    world.send(&frozen, FRIEND, "first").await;
    assert!(world.simulator.faults().freeze(OWNER, 1, true));
    let stuck = world.client.send_waiting(&frozen, FRIEND, "stuck", Some(0)).await.expect(202).text("message_id");
    for text in 0..5 {
        let id = world.send(&other, FRIEND, &format!("free {text}")).await;
        world.arrived(FRIEND, &id).await;
    }
    assert_eq!(world.message_where(&frozen, &stuck, |_| true).await["status"], "pending");
    assert!(world.simulator.faults().freeze(OWNER, 1, false));
    world.arrived(FRIEND, &stuck).await;
    world.finish();
}
