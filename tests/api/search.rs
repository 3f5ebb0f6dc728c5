//! Text search: words, Unicode, pages, and what was changed or came late.

use crate::world::{FRIEND, OWNER, World};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use whatsapp_simulator::Content;

/// The path of a search, with a query so that more can be added.
fn path(session: &str, query: &str) -> String {
    let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
    format!("/api/whatsapp/sessions/{session}/messages?query={query}")
}

impl World {
    /// The ids of what a search finds, page by page.
    async fn found(&self, session: &str, query: &str, more: &str) -> Vec<String> {
        let rows = self.client.all(&format!("{}{more}", path(session, query))).await;
        rows.iter().map(|row| row["message_id"].as_str().unwrap().to_owned()).collect()
    }

    /// A text of the friend's, stored.
    async fn told(&self, session: &str, text: &str) -> String {
        let id = self.phone(FRIEND).send_text(OWNER, text).unwrap();
        self.message_where(session, &id, |_| true).await;
        id
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_found_whatever_their_case_diacritics_and_script() {
    let (world, session) = World::linked(&[]).await;
    let café = world.told(&session, "Ein Café in der Großstadt").await;
    let greek = world.told(&session, "ΚΑΛΗΜΈΡΑ κόσμε").await;
    let chinese = world.told(&session, "我爱北京天安门").await;
    let thai = world.told(&session, "สวัสดีชาวโลก").await;
    let name = world.told(&session, "see report_final.PDF, invoice #2024-117").await;
    let ours = world.send(&session, FRIEND, "our own CAFE").await;
    for (query, expected) in [
        ("cafe", vec![&ours, &café]),
        ("CAFÉ großstadt", vec![&café]),
        ("grossstadt", vec![&café]),
        ("großs", vec![&café]),
        ("καλημερα", vec![&greek]),
        ("北京", vec![&chinese]),
        ("京北", vec![]),
        ("สวัสดี", vec![&thai]),
        ("report", vec![&name]),
        ("2024 117", vec![&name]),
        ("invoice rep", vec![&name]),
        ("invo report", vec![]),
        ("nothing", vec![]),
    ] {
        assert_eq!(
            world.found(&session, query, "").await,
            expected.into_iter().cloned().collect::<Vec<_>>(),
            "{query}"
        );
    }
    assert_eq!(world.found(&session, "cafe", "&direction=outbound").await, std::slice::from_ref(&ours));
    assert_eq!(world.found(&session, "cafe", &format!("&chat={FRIEND}")).await, [ours, café]);
    assert_eq!(world.found(&session, "cafe", "&chat=15559999999").await, Vec::<String>::new());
    assert_eq!(world.found(&session, "cafe", "&type=image").await, Vec::<String>::new());
    assert_eq!(world.found(&session, "cafe", "&until=2000-01-01T00:00:00Z").await, Vec::<String>::new());
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_revokes_and_crashes_change_what_is_found() {
    let (mut world, session) = World::linked(&[]).await;
    let message = world.told(&session, "the old wording").await;
    world
        .phone(FRIEND)
        .send(OWNER, &Content::Edit { message_id: message.clone(), text: "a new phrase".into() })
        .unwrap();
    world.message_where(&session, &message, |row| row["edited_at"].is_string()).await;
    assert_eq!(world.found(&session, "wording", "").await, Vec::<String>::new());
    assert_eq!(world.found(&session, "phrase", "").await, std::slice::from_ref(&message));
    world.node.kill();
    world.start_again().await;
    assert_eq!(world.found(&session, "phrase", "").await, std::slice::from_ref(&message));
    world.status_is(&session, "WORKING").await;
    world.phone(FRIEND).send(OWNER, &Content::Revoke { message_id: message.clone() }).unwrap();
    world.message_where(&session, &message, |row| row["revoked_at"].is_string()).await;
    assert_eq!(world.found(&session, "phrase", "").await, Vec::<String>::new());
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_meet_while_messages_are_added() {
    let (world, session) = World::linked(&[]).await;
    let mut expected = vec![];
    for number in 0..7 {
        expected.push(world.told(&session, &format!("needle number {number}")).await);
        world.told(&session, "hay").await;
    }
    expected.reverse();
    let path = format!("{}&limit=2", path(&session, "needle"));
    let (mut rows, mut next) = world.client.page(&path).await;
    while let Some(cursor) = next {
        world.told(&session, "another needle").await;
        let (more, after) = world.client.page(&format!("{path}&cursor={cursor}")).await;
        assert!(more.len() <= 2);
        rows.extend(more);
        next = after;
    }
    let found: Vec<_> = rows.iter().map(|row: &Value| row["message_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, expected);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sought_is_refused_by_name() {
    let (world, session) = World::linked(&[]).await;
    let long = "x".repeat(10_000);
    for query in ["", " ", "?!…—", "👍", "a\u{0}b", "a\nb", &long, &"a b ".repeat(20)] {
        world.client.get(&path(&session, query)).await.names("query");
    }
    let found = path(&session, "x");
    world.client.get(&format!("{found}&cursor=nonsense")).await.names("cursor");
    world.client.get(&format!("{found}&limit=0")).await.names("limit");
    world.client.get(&format!("{found}&query=y")).await.names("query");
    world.stranger().await.get(&found).await.error(404, "session_not_found");
    world.finish();
}
