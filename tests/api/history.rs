//! The history: filters, order, pages, and cursors that stay good.

use crate::world::{FRIEND, OWNER, World};
use serde_json::{Value, json};

const OTHER: &str = "15550003003";

/// A session with messages in both directions in two chats; their ids in order of arrival.
async fn with_messages() -> (World, String, Vec<String>) {
    let (world, session) = World::linked(&[]).await;
    let mut ids = vec![];
    for number in 0..3 {
        ids.push(world.send(&session, FRIEND, &format!("to friend {number}")).await);
        let from_friend = world.phone(FRIEND).send_text(OWNER, &format!("from friend {number}")).unwrap();
        world.message_where(&session, &from_friend, |_| true).await;
        ids.push(from_friend);
        let from_other = world.phone(OTHER).send_text(OWNER, &format!("from other {number}")).unwrap();
        world.message_where(&session, &from_other, |_| true).await;
        ids.push(from_other);
    }
    (world, session, ids)
}

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["message_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_narrows_the_history() {
    let (world, session, mut newest_first) = with_messages().await;
    newest_first.reverse();
    let path = format!("/api/whatsapp/sessions/{session}/messages");
    let rows = world.client.history(&session).await;
    assert_eq!(ids(&rows), newest_first);
    assert!(rows.iter().all(|row| row.get("receipts").is_none()), "receipts only where one message is asked for");

    let list = async |query: &str| world.client.all(&format!("{path}?limit=2&{query}")).await;
    let inbound = list("direction=inbound").await;
    assert!(inbound.len() == 6 && inbound.iter().all(|row| row["from_me"] == false), "{inbound:?}");
    let outbound = list("direction=outbound").await;
    assert!(outbound.len() == 3 && outbound.iter().all(|row| row["from_me"] == true), "{outbound:?}");
    for chat in [FRIEND.to_owned(), format!("%2B{FRIEND}"), format!("{FRIEND}@s.whatsapp.net")] {
        let chat = list(&format!("chat={chat}")).await;
        assert!(
            chat.len() == 6 && chat.iter().all(|row| row["chat"] == format!("{FRIEND}@s.whatsapp.net")),
            "{chat:?}"
        );
    }
    let both = list(&format!("chat={FRIEND}&direction=inbound&type=text")).await;
    assert_eq!(both.len(), 3);
    assert_eq!(list("type=image").await.len(), 0);
    assert_eq!(list("type=text").await.len(), 9);
    assert_eq!(list("chat=15559999999").await.len(), 0);

    assert_eq!(list("from=2000-01-01T00:00:00Z").await.len(), 9);
    assert_eq!(list("until=2000-01-01T00:00:00Z").await.len(), 0);
    assert_eq!(list("from=2100-01-01T00:00:00Z").await.len(), 0);
    assert_eq!(list("from=0000-01-01T00:00:00Z&until=9999-12-31T23:59:59Z").await.len(), 9);
    assert_eq!(list("from=9999-12-31T23:59:59Z").await.len(), 0);
    assert_eq!(list("from=2000-01-01T00:00:00Z&until=2100-01-01T00:00:00Z").await.len(), 9);
    // By the time of one message: it and what came later, it or what came before.
    let middle = rows[4]["timestamp"].as_str().unwrap();
    let later = list(&format!("from={middle}")).await;
    let earlier = list(&format!("until={middle}")).await;
    let time = |row: &Value| row["timestamp"].as_str().unwrap().to_owned();
    assert!(!later.is_empty() && later.iter().all(|row| time(row).as_str() >= middle), "{later:?}");
    assert!(earlier.iter().all(|row| time(row).as_str() <= middle), "{earlier:?}");
    assert!(later.len() + earlier.len() >= 9, "nothing falls between");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_meet_without_gaps_while_rows_are_added_and_across_a_restart() {
    let (mut world, session, mut newest_first) = with_messages().await;
    newest_first.reverse();
    let path = format!("/api/whatsapp/sessions/{session}/messages?limit=2");
    let (mut rows, mut next) = world.client.page(&path).await;
    let mut page = 0;
    while let Some(cursor) = next {
        page += 1;
        if page == 1 {
            world.send(&session, FRIEND, "added while paging").await;
        }
        if page == 2 {
            world.restart().await;
        }
        let (more, after) = world.client.page(&format!("{path}&cursor={cursor}")).await;
        assert!(more.len() <= 2);
        rows.extend(more);
        next = after;
    }
    assert_eq!(ids(&rows), newest_first, "what was there when the first page was read, each once");
    assert_eq!(world.client.history(&session).await.len(), newest_first.len() + 1);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_page_holds_fifty_and_the_largest_two_hundred() {
    let (world, session) = World::linked(&[]).await;
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/disconnect")).await.expect(200);
    let mut sends = tokio::task::JoinSet::new();
    for number in 0..210 {
        let (client, session) = (world.client.clone(), session.clone());
        sends.spawn(async move { client.send(&session, FRIEND, &format!("text {number}")).await.expect(202) });
    }
    while let Some(send) = sends.join_next().await {
        send.unwrap();
    }
    let path = format!("/api/whatsapp/sessions/{session}/messages");
    for (query, expected) in [("", 50), ("?limit=1", 1), ("?limit=200", 200)] {
        let (rows, next) = world.client.page(&format!("{path}{query}")).await;
        assert!(rows.len() == expected && next.is_some(), "{query}");
    }
    for limit in ["0", "201", "-1", "x", "", "1e3", "99999999999999999999"] {
        world.client.get(&format!("{path}?limit={limit}")).await.names("limit");
    }
    let rows = world.client.history(&session).await;
    assert_eq!(rows.len(), 210);
    let mut seen = ids(&rows);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 210, "each once");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_session_without_messages_is_empty() {
    let world = World::start().await;
    let session = world.create().await;
    let page = world.client.get(&format!("/api/whatsapp/sessions/{session}/messages")).await.expect(200);
    assert_eq!(page.body, json!({"data": [], "next_cursor": null}));
    let none = format!("/api/whatsapp/sessions/{session}/messages/3EB0000000000000000000");
    world.client.get(&none).await.error(404, "message_not_found");
    world.finish();
}
