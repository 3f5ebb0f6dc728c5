//! The life of a session over REST: created, listed, found, disconnected, connected, forgotten, deleted.

use crate::{
    client::answer,
    world::{FRIEND, OWNER, USER, World},
};
use reqwest::Method;
use serde_json::json;
use whatsapp_simulator::{Content, MediumKind};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_shows_all_its_fields_from_creation_to_working() {
    let world = World::start().await;
    let body = json!({"session_name": "Büro 🐦"});
    let created = world.client.post("/api/whatsapp/sessions", &body).await.expect(201);
    assert_eq!(created.header("content-type"), "application/json");
    let session = created.text("session_id");
    let fields = [
        "session_id",
        "session_name",
        "status",
        "device_id",
        "phone",
        "lid",
        "push_name",
        "created_at",
        "connected_at",
        "last_error",
        "history",
        "node",
        "epoch",
    ];
    for field in fields {
        assert!(created.body.get(field).is_some(), "{field}: {}", created.body);
    }
    assert_eq!(created.body["session_name"], "Büro 🐦");
    assert_eq!(created.body["node"], "node-1");
    let waiting = world.status_is(&session, "SCAN_QR_CODE").await;
    assert!(waiting["qr"].as_str().is_some_and(|qr| qr.split(',').count() >= 4), "{waiting}");
    assert!(waiting["qr_expires_at"].as_str().is_some_and(is_time), "{waiting}");

    let working = world.pair(&session, OWNER).await;
    assert_eq!(working["phone"], OWNER);
    assert_eq!(working["device_id"], format!("{OWNER}:1"));
    assert!(working["lid"].as_str().is_some_and(|lid| lid.ends_with("@lid")), "{working}");
    assert!(working["connected_at"].as_str().is_some_and(is_time), "{working}");
    assert!(working["created_at"].as_str().is_some_and(is_time), "{working}");
    assert!(working["last_error"].is_null() && working.get("qr").is_none(), "{working}");
    let history = working["history"].as_array().unwrap();
    assert_eq!(history.len(), 3, "{working}");
    assert_eq!(history[0]["status"], "WORKING");
    assert!(history.iter().all(|change| change["at"].as_str().is_some_and(is_time)), "{working}");
    assert!(working["push_name"].as_str().is_some_and(|name| !name.is_empty()), "{working}");
    world.finish();
}

/// RFC 3339 in UTC with microseconds.
fn is_time(text: &str) -> bool {
    text.len() == "2025-08-19T11:46:21.638578Z".len() && text.ends_with('Z') && text.as_bytes()[10] == b'T'
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_paged_and_shows_only_the_users_own_sessions() {
    let world = World::start().await;
    let stranger = world.stranger().await;
    assert_eq!(
        world.client.get("/api/whatsapp/sessions").await.expect(200).body,
        json!({"data": [], "next_cursor": null})
    );
    let mut created = vec![];
    for _ in 0..5 {
        created.push(world.create().await);
    }
    stranger.post("/api/whatsapp/sessions", &json!({"session_name": "theirs"})).await.expect(201);

    let (first, cursor) = world.client.page("/api/whatsapp/sessions?limit=2").await;
    assert_eq!(first.len(), 2);
    // Rows that are added meanwhile do not disturb the cursor.
    created.push(world.create().await);
    let cursor = cursor.expect("there are more");
    let (second, _) = world.client.page(&format!("/api/whatsapp/sessions?limit=200&cursor={cursor}")).await;
    let listed: Vec<_> = first.iter().chain(&second).map(|row| row["session_id"].as_str().unwrap()).collect();
    assert_eq!(listed, created, "in order of creation, each once");
    assert_eq!(stranger.all("/api/whatsapp/sessions?limit=1").await.len(), 1);
    // Sessions belong to the user, not to the token.
    let second_token = world.client.with_token(&world.token(USER).await);
    assert_eq!(second_token.all("/api/whatsapp/sessions?limit=4").await.len(), created.len());
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_found_by_device_jid_number_and_id() {
    let (world, session) = World::linked(&[]).await;
    let keys = [
        format!("{OWNER}:1"),
        format!("{OWNER}%3A1"),
        format!("{OWNER}@s.whatsapp.net"),
        format!("{OWNER}%40s.whatsapp.net"),
        format!("{OWNER}:1@s.whatsapp.net"),
        OWNER.to_owned(),
        format!("+{OWNER}"),
        format!("%2B{OWNER}"),
        session.clone(),
    ];
    for key in keys {
        let found = world.client.get(&format!("/api/whatsapp/sessions/{key}")).await.expect(200).body;
        assert_eq!(found["session_id"], session.as_str(), "{key}");
        assert_eq!(found["active"], true, "{key}");
        assert_eq!(found["status"], "WORKING", "{key}");
    }
    for key in [format!("{OWNER}:2"), FRIEND.to_owned(), "nonsense".to_owned(), format!("{OWNER}@g.us")] {
        let path = format!("/api/whatsapp/sessions/{key}");
        world.client.get(&path).await.error(404, "session_not_found");
    }
    let stranger = world.stranger().await;
    stranger.get(&format!("/api/whatsapp/sessions/{OWNER}")).await.error(404, "session_not_found");
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/disconnect")).await.expect(200);
    let found = world.client.get(&format!("/api/whatsapp/sessions/{OWNER}")).await.expect(200).body;
    assert_eq!((&found["active"], &found["status"]), (&json!(false), &json!("STOPPED")));
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnecting_keeps_the_link_and_connecting_brings_it_back() {
    let (world, session) = World::linked(&[]).await;
    let path = format!("/api/whatsapp/sessions/{session}/disconnect");
    for _ in 0..3 {
        let stopped = world.client.delete(&path).await.expect(200).body;
        assert_eq!((&stopped["success"], &stopped["status"]), (&json!(true), &json!("STOPPED")));
        assert_eq!(stopped["device_id"], format!("{OWNER}:1"));
    }
    let devices = world.phone(OWNER).devices();
    assert!(devices.len() == 1 && !devices[0].connected, "linked and not connected: {devices:?}");

    let connect = format!("/api/whatsapp/sessions/{session}/connect");
    world.client.post(&connect, &json!({})).await.expect(200);
    world.status_is(&session, "WORKING").await;
    // Connecting what is connected changes nothing.
    let logins = world.simulator.stats().count("login");
    let again = world.client.post(&connect, &json!({})).await.expect(200).body;
    assert_eq!(again["status"], "WORKING");
    let id = world.send(&session, FRIEND, "back again").await;
    world.arrived(FRIEND, &id).await;
    assert_eq!(world.simulator.stats().count("login"), logins);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn forgetting_the_device_logs_out_and_keeps_the_history() {
    let (world, session) = World::linked(&[]).await;
    let id = world.send(&session, FRIEND, "kept").await;
    let gone = world.client.delete(&format!("/api/whatsapp/sessions/{session}/device")).await.expect(200).body;
    assert_eq!((&gone["success"], &gone["status"]), (&json!(true), &json!("LOGGED_OUT")));
    assert!(gone["device_id"].is_null() && gone["phone"].is_null(), "{gone}");
    assert!(world.phone(OWNER).devices().is_empty(), "the phone no longer lists the device");
    let rows = world.client.history(&session).await;
    assert_eq!((rows.len(), &rows[0]["message_id"]), (1, &json!(id)));
    world.client.send(&session, FRIEND, "no device").await.error(409, "session_state");

    // The same session can be linked anew, to another phone too.
    world.client.post(&format!("/api/whatsapp/sessions/{session}/connect"), &json!({})).await.expect(200);
    let working = world.pair(&session, "15550003003").await;
    assert_eq!(working["phone"], "15550003003");
    let id = world.send(&session, FRIEND, "from another phone").await;
    assert_eq!(world.arrived(FRIEND, &id).await.from, "15550003003");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnected_session_can_be_forgotten_and_the_phone_learns_of_it() {
    let (world, session) = World::linked(&[]).await;
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/disconnect")).await.expect(200);
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/device")).await.expect(200);
    assert!(world.phone(OWNER).devices().is_empty(), "the phone no longer lists the device");
    assert_eq!(world.status(&session).await["status"], "LOGGED_OUT");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_session_logs_out_and_leaves_nothing() {
    let (mut world, session) = World::linked(&[]).await;
    let id = world.send(&session, FRIEND, "to be deleted").await;
    let body = world.client.delete(&format!("/api/whatsapp/sessions/{session}")).await.expect(200).body;
    assert_eq!(body, json!({"success": true}));
    assert!(world.phone(OWNER).devices().is_empty(), "the phone no longer lists the device");
    for _ in 0..2 {
        let paths = ["", "/status", "/messages", "/contacts", "/chats", "/qr", &format!("/messages/{id}")];
        for path in paths.map(|path| format!("/api/whatsapp/sessions/{session}{path}")) {
            world.client.get(&path).await.error(404, "session_not_found");
        }
        world.client.get(&format!("/api/whatsapp/sessions/{OWNER}")).await.error(404, "session_not_found");
        world.client.delete(&format!("/api/whatsapp/sessions/{session}")).await.error(404, "session_not_found");
        world.client.send(&session, FRIEND, "nobody").await.error(404, "session_not_found");
        assert!(world.client.all("/api/whatsapp/sessions?limit=200").await.is_empty());
        // Nor after a restart.
        world.restart().await;
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_hides_another_users_session() {
    let (world, session) = World::linked(&[]).await;
    let id = world.send(&session, FRIEND, "private").await;
    world.all_delivered(&session).await;
    let before = (world.client.history(&session).await, world.status(&session).await);
    let stranger = world.stranger().await;
    let routes = [
        (Method::GET, "/status".to_owned()),
        (Method::GET, String::new()),
        (Method::GET, "/qr".to_owned()),
        (Method::GET, "/messages".to_owned()),
        (Method::GET, "/contacts".to_owned()),
        (Method::GET, "/contacts/15559999999/picture".to_owned()),
        (Method::GET, "/chats".to_owned()),
        (Method::GET, format!("/messages/{id}")),
        (Method::POST, "/connect".to_owned()),
        (Method::DELETE, "/disconnect".to_owned()),
        (Method::DELETE, "/device".to_owned()),
        (Method::DELETE, String::new()),
    ];
    for (method, path) in routes {
        let request = stranger.request(method, &format!("/api/whatsapp/sessions/{session}{path}"));
        answer(request).await.error(404, "session_not_found");
    }
    let code = format!("/api/whatsapp/sessions/{session}/pairing-code");
    stranger.post(&code, &json!({"phone": OWNER})).await.error(404, "session_not_found");
    stranger.send(&session, FRIEND, "forged").await.error(404, "session_not_found");
    assert_eq!((world.client.history(&session).await, world.status(&session).await), before);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_account_queued_no_other_account_sends() {
    let (world, session) = World::linked(&[]).await;
    world.phone(FRIEND);
    let path = |part: &str| format!("/api/whatsapp/sessions/{session}/{part}");
    for forget in ["by the user", "by the phone"] {
        world.client.delete(&path("disconnect")).await.expect(200);
        let queued = world.client.send(&session, FRIEND, forget).await.expect(202).text("message_id");
        let owner = world.status(&session).await["phone"].as_str().unwrap().to_owned();
        if forget == "by the user" {
            world.client.delete(&path("device")).await.expect(200);
        } else {
            world.phone(&owner).unlink(1).unwrap();
            world.client.post(&path("connect"), &json!({})).await.expect(200);
        }
        world.status_is(&session, "LOGGED_OUT").await;
        world.message_where(&session, &queued, |message| message["status"] == "failed").await;
        world.client.post(&path("connect"), &json!({})).await.expect(200);
        let next = if forget == "by the user" { "15550009001" } else { "15550009002" };
        world.pair(&session, next).await;
        let own = world.send(&session, FRIEND, "from the new account").await;
        world.arrived(FRIEND, &own).await;
        assert!(world.phone(FRIEND).inbox().iter().all(|message| message.id != queued), "{forget}");
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_found_by_its_lid() {
    let (world, session) = World::linked(&[]).await;
    let lid = world.status(&session).await["lid"].as_str().unwrap().to_owned();
    let found = world.client.get(&format!("/api/whatsapp/sessions/{lid}")).await.expect(200);
    assert_eq!(found.text("session_id"), session);
    world.stranger().await.get(&format!("/api/whatsapp/sessions/{lid}")).await.error(404, "session_not_found");
    world.finish();
}

/// Waiting helps while a session reconnects, and only then.
#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_connection_says_whether_there_will_be_one() {
    let (world, session) = World::linked(&[]).await;
    let content = Content::Medium {
        kind: MediumKind::Document,
        data: b"text".to_vec().into(),
        mimetype: "text/plain".into(),
        caption: None,
        view_once: false,
    };
    let id = world.phone(FRIEND).send(OWNER, &content).unwrap();
    world.message_where(&session, &id, |_| true).await;
    let paths = [
        format!("/api/whatsapp/sessions/{session}/messages/{id}/media"),
        format!("/api/whatsapp/sessions/{session}/contacts/{FRIEND}/picture"),
    ];
    world.simulator.faults().refuse_logins(Some(503));
    assert!(world.simulator.faults().drop_connection(OWNER, 1));
    world.status_is(&session, "RECONNECTING").await;
    for path in &paths {
        world.client.get(path).await.error(503, "whatsapp_unavailable").says_when_to_retry();
    }
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/disconnect")).await.expect(200);
    for path in &paths {
        world.client.get(path).await.error(409, "session_state");
    }
    world.simulator.faults().refuse_logins(None);
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/device")).await.expect(200);
    world.status_is(&session, "LOGGED_OUT").await;
    for path in &paths {
        world.client.get(path).await.error(409, "session_state");
    }
    world.finish();
}
