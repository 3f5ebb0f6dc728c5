//! Linking a session: the QR code in its three forms, the pairing code, and codes that nobody uses.

use crate::{
    client::answer,
    world::{FRIEND, OWNER, World},
};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_qr_code_comes_as_json_png_and_svg_while_it_is_due() {
    let world = World::start().await;
    let session = world.create().await;
    let waiting = world.status_is(&session, "SCAN_QR_CODE").await;
    let path = format!("/api/whatsapp/sessions/{session}/qr");
    let plain = world.client.get(&path).await.expect(200);
    assert_eq!(plain.header("content-type"), "application/json");
    assert_eq!((&plain.body["qr"], &plain.body["qr_expires_at"]), (&waiting["qr"], &waiting["qr_expires_at"]));

    let accept = |accept: &str| answer(world.client.request(Method::GET, &path).header("accept", accept));
    let json = accept("application/json").await.expect(200);
    assert_eq!(json.body["qr"], waiting["qr"]);
    let png = accept("image/png").await.expect(200);
    assert_eq!(png.header("content-type"), "image/png");
    assert!(png.bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
    let svg = accept("image/svg+xml").await.expect(200);
    assert_eq!(svg.header("content-type"), "image/svg+xml");
    assert!(String::from_utf8(svg.bytes).unwrap().contains("<svg"));
    let (json, png, svg) = ("application/json", "image/png", "image/svg+xml");
    for (accepted, kind) in [
        ("*/*", json),
        ("text/html", json),
        ("image/png;q=0", json),
        ("image/*", png),
        ("image/svg+xml;q=0.9, image/png;q=0.8", svg),
        ("image/svg+xml, image/png", svg),
        ("*/*, application/json;q=0", png),
    ] {
        let answer = accept(accepted).await.expect(200);
        assert_eq!((answer.header("content-type"), answer.header("vary")), (kind, "Accept"), "{accepted}");
    }

    world.phone(OWNER).scan(plain.body["qr"].as_str().unwrap()).unwrap();
    world.status_is(&session, "WORKING").await;
    for accepted in ["application/json", "image/png"] {
        accept(accepted).await.error(409, "qr_not_available");
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_code_links_the_session() {
    let world = World::start().await;
    let session = world.create().await;
    let path = format!("/api/whatsapp/sessions/{session}/pairing-code");
    // Asked for at once, while the session is still connecting; with the number as people write it.
    let made = world.client.post(&path, &json!({"phone": "+1 (555) 000-1001"})).await.expect(200);
    let code = made.text("code");
    let (left, right) = code.split_once('-').expect("a dash in the middle");
    assert!(left.len() == 4 && right.len() == 4, "{code}");
    let phone = world.phone(OWNER);
    let typed = code.clone();
    tokio::task::spawn_blocking(move || phone.enter_code(&typed)).await.unwrap().unwrap();
    let working = world.status_is(&session, "WORKING").await;
    assert_eq!(working["phone"], OWNER);
    let id = world.send(&session, FRIEND, "linked by code").await;
    world.arrived(FRIEND, &id).await;
    world.client.post(&path, &json!({"phone": OWNER})).await.error(409, "session_state");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_codes_asked_for_at_once_are_one_that_works() {
    let world = World::start().await;
    let session = world.create().await;
    let path = format!("/api/whatsapp/sessions/{session}/pairing-code");
    let body = json!({"phone": OWNER});
    let asked = (0..4).map(|_| world.client.post(&path, &body));
    let answers = futures_util::future::join_all(asked).await;
    let codes: Vec<_> = answers.into_iter().map(|made| made.expect(200).text("code")).collect();
    assert!(codes.iter().all(|code| *code == codes[0]), "{codes:?}");
    let (phone, code) = (world.phone(OWNER), codes[0].clone());
    tokio::task::spawn_blocking(move || phone.enter_code(&code)).await.unwrap().unwrap();
    world.status_is(&session, "WORKING").await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlinked_session_refuses_to_send_and_a_stopped_one_shows_no_code() {
    let world = World::start().await;
    let session = world.create().await;
    world.status_is(&session, "SCAN_QR_CODE").await;
    world.client.send(&session, FRIEND, "too early").await.error(409, "session_state");
    assert!(world.client.history(&session).await.is_empty());

    let stopped = world.client.delete(&format!("/api/whatsapp/sessions/{session}/disconnect")).await.expect(200);
    assert!(stopped.body["status"] == "STOPPED" && stopped.body.get("qr").is_none(), "{}", stopped.body);
    world.client.get(&format!("/api/whatsapp/sessions/{session}/qr")).await.error(409, "qr_not_available");
    // Connecting starts a new pairing.
    world.client.post(&format!("/api/whatsapp/sessions/{session}/connect"), &json!({})).await.expect(200);
    world.pair(&session, OWNER).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_of_one_account_work_side_by_side() {
    let world = World::start().await;
    let first = world.link(OWNER).await;
    let second = world.link(OWNER).await;
    assert_eq!(world.status(&first).await["device_id"], format!("{OWNER}:1"));
    assert_eq!(world.status(&second).await["device_id"], format!("{OWNER}:2"));
    let id = world.phone(FRIEND).send_text(OWNER, "to both").unwrap();
    for session in [&first, &second] {
        world.message_where(session, &id, |message| message["text"] == "to both").await;
    }
    // What one of them sends, the other one has in its history as the account's own.
    let own = world.send(&first, FRIEND, "from the first").await;
    let seen = world.message_where(&second, &own, |_| true).await;
    assert_eq!((&seen["from_me"], &seen["text"]), (&json!(true), &json!("from the first")));
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_whatsapp_a_session_stays_starting_and_a_pairing_code_is_503() {
    // Nothing listens there.
    let world = World::with(&[("ROOKERY_WHATSAPP__URL", "ws://127.0.0.1:9/ws/chat")]).await;
    let session = world.create().await;
    let path = format!("/api/whatsapp/sessions/{session}/pairing-code");
    let refused = world.client.post(&path, &json!({"phone": OWNER})).await;
    refused.error(503, "whatsapp_unavailable").says_when_to_retry();
    let status = world.status(&session).await;
    assert_eq!(status["status"], "STARTING");
    assert!(status["last_error"].as_str().is_some_and(|why| why.contains("cannot be reached")), "{status}");
    world.client.get(&format!("/api/whatsapp/sessions/{session}/qr")).await.error(409, "qr_not_available");
    // Nor can it be in the way of its end.
    world.client.delete(&format!("/api/whatsapp/sessions/{session}")).await.expect(200);
    world.finish();
}
