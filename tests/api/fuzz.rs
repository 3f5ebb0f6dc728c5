//! Random requests to every route.

use crate::{
    client::{TEXT, answer},
    world::{FRIEND, OWNER, World, seed},
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use serde_json::{Value, json};

const NOBODYS: &str = "00000000-0000-4000-8000-000000000000";

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_never_break_anything() {
    let seed = seed();
    let (world, session) = World::linked(&[("ROOKERY_API__MAX_BODY_BYTES", "4096")]).await;
    world.send(&session, FRIEND, "stays").await;
    world.all_delivered(&session).await;
    let before = world.everything().await;
    let stranger = world.stranger().await;
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..600 {
        let (method, path, body) = request(&mut random, &session);
        // As a stranger, whom no route may let change anything of the user's; creating is left out.
        let caller = if random.random_bool(0.9) { &stranger } else { &world.client.with_token("x") };
        let mut request = caller.request(method.clone(), &path);
        if let Some(body) = &body {
            request = request.header("content-type", "application/json").body(body.clone());
        }
        let answer = answer(request).await;
        let context = format!("seed {seed} round {round}: {method} {path:.200} {body:.200?}");
        assert!((200..500).contains(&answer.status), "{context}: {} {}", answer.status, answer.body);
        assert!(
            answer.status == 401 || answer.status < 300 || answer.body["code"].is_string(),
            "{context}: {}",
            answer.body
        );
        let harmless = method == Method::GET || answer.status >= 400;
        assert!(harmless, "{context}: {} {}", answer.status, answer.body);
    }
    assert_eq!(world.everything().await, before, "seed {seed}");
    world.finish();
}

/// A request of random parts, each of which is now right and now wrong.
fn request(random: &mut StdRng, session: &str) -> (Method, String, Option<Vec<u8>>) {
    let methods = ["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"];
    let words = [
        "api",
        "whatsapp",
        "sessions",
        "messages",
        "text",
        "status",
        "qr",
        "connect",
        "disconnect",
        "device",
        "api-tokens",
        "generate",
        "health",
        "ready",
        "live",
        "pairing-code",
        "contacts",
        "chats",
        "..",
        "%2e%2e",
        "%2F",
        "%00",
        "x",
        "%ff",
        "test-node-connection",
        "sandbox",
        "panic",
        "%F0%9F%90%A6",
        session,
        NOBODYS,
        OWNER,
    ];
    let pick = |random: &mut StdRng, from: &[&str]| (*from.choose(random).unwrap()).to_owned();
    let mut path = match random.random_range(0..4) {
        0 => {
            let parts: Vec<_> = (0..random.random_range(1..6)).map(|_| pick(random, &words)).collect();
            format!("/{}", parts.join("/"))
        }
        1 => format!("/api/whatsapp/sessions/{}/{}", pick(random, &words), pick(random, &words)),
        2 => format!("/api/whatsapp/sessions/{session}/{}", pick(random, &words)),
        _ => TEXT.to_owned(),
    };
    if random.random_bool(0.4) {
        let names =
            ["limit", "cursor", "chat", "from", "until", "direction", "type", "user_id", "id", "wait_ms", "%ff", ""];
        let values =
            ["", "1", "-1", "x", "%00", "inbound", FRIEND, "2025-01-01T00:00:00Z", "bTEuMQ", session, "%", "text"];
        let pairs: Vec<_> = (0..random.random_range(1..4))
            .map(|_| format!("{}={}", pick(random, &names), pick(random, &values)))
            .collect();
        path = format!("{path}?{}", pairs.join("&"));
    }
    let body = random.random_bool(0.6).then(|| body(random, session));
    (Method::from_bytes(pick(random, &methods).as_bytes()).unwrap(), path, body)
}

fn body(random: &mut StdRng, session: &str) -> Vec<u8> {
    let values = [
        json!(null),
        json!(1),
        json!(""),
        json!("x"),
        json!([]),
        json!({}),
        json!(session),
        json!(FRIEND),
        json!("\u{0}"),
    ];
    let mut fields = serde_json::Map::new();
    for name in ["session_id", "to", "message", "phone", "user_id", "id"] {
        if random.random_bool(0.6) {
            fields.insert(name.to_owned(), values.choose(random).unwrap().clone());
        }
    }
    let mut bytes = Value::Object(fields).to_string().into_bytes();
    if random.random_bool(0.3) {
        let place = random.random_range(0..bytes.len());
        bytes[place] = random.random();
    }
    if random.random_bool(0.1) {
        bytes.truncate(random.random_range(0..bytes.len()));
    }
    if random.random_bool(0.05) {
        bytes.resize(8_000, b' ');
    }
    bytes
}
