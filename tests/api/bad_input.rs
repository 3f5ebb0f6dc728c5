//! Hostile input to every route: the right 4xx as JSON, never a 5xx, and nothing changes.

use crate::{
    client::{Client, answer, raw},
    world::{FRIEND, OWNER, USER, World, seed},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;

const TEXT: &str = "/api/whatsapp/messages/text";
const NOBODYS: &str = "00000000-0000-4000-8000-000000000000";

/// What a user has; compared before and after.
async fn everything(world: &World) -> Value {
    let sessions = world.client.all("/api/whatsapp/sessions?limit=200").await;
    let mut histories = vec![];
    for session in &sessions {
        histories.push(world.client.history(session["session_id"].as_str().unwrap()).await);
    }
    let path = format!("/api/api-tokens?user_id={}", USER);
    json!({"sessions": sessions, "histories": histories, "tokens": world.admin().get(&path).await.expect(200).body})
}

#[tokio::test(flavor = "multi_thread")]
async fn session_names_have_bounds() {
    let world = World::start().await;
    let before = everything(&world).await;
    for name in [
        json!(""),
        json!("   "),
        json!("x".repeat(256)),
        json!("🐦".repeat(256)),
        json!("a\u{0}b"),
        json!("a\nb"),
        json!("\u{1b}[31m"),
        json!("\u{7f}"),
        json!(null),
        json!(3),
        json!(1.5),
        json!(true),
        json!([]),
        json!(["x"]),
        json!({"x": 1}),
    ] {
        let body = json!({"session_name": name});
        world.client.post("/api/whatsapp/sessions", &body).await.names("session_name");
    }
    world.client.post("/api/whatsapp/sessions", &json!({})).await.names("session_name");
    assert_eq!(everything(&world).await, before);
    for name in ["x".repeat(255), "🐦".repeat(255), "a/../b <script>".to_owned(), "'; DROP TABLE sessions".to_owned()]
    {
        let made = world.client.post("/api/whatsapp/sessions", &json!({"session_name": name})).await.expect(201);
        assert_eq!(made.body["session_name"], name);
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_sends_name_their_field_and_send_nothing() {
    let (world, session) = World::linked(&[]).await;
    let before = everything(&world).await;
    let good = json!({"session_id": session, "to": FRIEND, "message": "text"});
    let mut cases = vec![];
    for field in ["session_id", "to", "message"] {
        for value in [json!(null), json!(""), json!(7), json!(-1.5), json!(false), json!([]), json!({}), json!(["x"])] {
            cases.push((field, Some(value)));
        }
        cases.push((field, None));
        cases.push((field, Some(json!("nul\u{0}"))));
    }
    for to in [
        "12345",
        "1555000abcd",
        "abc",
        "+",
        "00",
        "0",
        "++15550002002",
        "1234567890123456",
        "055500020020",
        "status@broadcast",
        "@s.whatsapp.net",
        "x@s.whatsapp.net",
        "15550002002@",
        "15550002002@example.org",
        "15550002002@@s.whatsapp.net",
        "../15550002002@s.whatsapp.net",
        "15550002002;15550003003",
        "15550002002\n",
        "１５５５０００２００２",
        "🐦",
    ] {
        // A trailing line feed is white space around a number, which is allowed.
        if to != "15550002002\n" {
            cases.push(("to", Some(json!(to))));
        }
    }
    cases.push(("to", Some(json!("1".repeat(256)))));
    cases.push(("message", Some(json!("x".repeat(65_537)))));
    for id in ["x", "../status", &session.replace('-', ""), &format!("{session}/"), &format!(" {session}"), "null"] {
        cases.push(("session_id", Some(json!(id))));
    }
    for (field, value) in cases {
        let mut body = good.clone();
        match value {
            Some(value) => body[field] = value,
            None => _ = body.as_object_mut().unwrap().remove(field),
        }
        let refused = world.client.post(TEXT, &body).await;
        assert_eq!(refused.status, 422, "{field} of {}", body.to_string().chars().take(200).collect::<String>());
        refused.names(field);
    }
    let all = world.client.post(TEXT, &json!({"to": 5})).await.names("session_id").names("to");
    all.names("message");
    world.client.send(NOBODYS, FRIEND, "text").await.error(404, "session_not_found");
    for wait in ["-1", "60001", "x", "", "1.5"] {
        world.client.post(&format!("{TEXT}?wait_ms={wait}"), &good).await.names("wait_ms");
    }
    let keyed = |key: &str| answer(world.client.request(Method::POST, TEXT).json(&good).header("idempotency-key", key));
    for key in ["", &"x".repeat(256)] {
        keyed(key).await.names("Idempotency-Key");
    }
    let twice = world.client.request(Method::POST, TEXT).json(&good);
    answer(twice.header("idempotency-key", "a").header("idempotency-key", "b")).await.names("Idempotency-Key");
    assert_eq!(everything(&world).await, before);
    assert!(world.phone(FRIEND).inbox().is_empty());
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_and_huge_json_is_refused() {
    let (world, session) = World::linked(&[]).await;
    let before = everything(&world).await;
    let json = |body: String| {
        answer(world.client.request(Method::POST, TEXT).header("content-type", "application/json").body(body))
    };
    for deep in ["[".repeat(100_000), "{\"a\":".repeat(100_000), format!("{{\"to\":{}", "[".repeat(500_000))] {
        json(deep).await.error(400, "malformed_request");
    }
    let nested = format!("{{\"to\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    json(nested).await.error(400, "malformed_request");
    // Many unknown fields and huge numbers are only fields that are missing.
    let many: String = (0..10_000).map(|n| format!("\"field{n}\":1e300,")).collect();
    json(format!("{{{many}\"x\":1}}")).await.names("to");
    json("{\"to\":1e999999}".to_owned()).await.error(400, "malformed_request");
    let surrogate = format!("{{\"session_id\":\"{session}\",\"to\":\"{FRIEND}\",\"message\":\"\\ud800\"}}");
    json(surrogate).await.error(400, "malformed_request");
    let bytes = world.client.request(Method::POST, TEXT).header("content-type", "application/json");
    answer(bytes.body(b"{\"to\":\"\xff\xfe\"}".to_vec())).await.error(400, "malformed_request");
    assert_eq!(everything(&world).await, before);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_in_paths_are_never_more_than_ids() {
    let (world, session) = World::linked(&[]).await;
    let before = everything(&world).await;
    let token = world.client.token();
    let ids = [
        NOBODYS.to_owned(),
        "x".to_owned(),
        "..".to_owned(),
        "%2e%2e".to_owned(),
        "..%2F..%2Fetc%2Fpasswd".to_owned(),
        format!("..%2f{session}"),
        format!("{session}%2F"),
        format!("{session}%00"),
        format!("{session}%20"),
        format!("%20{session}"),
        format!("{session}%2Fmessages"),
        format!("{{{session}}}"),
        session.replace('-', ""),
        "%ff%fe".to_owned(),
        "%".to_owned(),
        "%zz".to_owned(),
        "%F0%9F%90%A6".to_owned(),
        "a".repeat(8_000),
        "'%20OR%201=1".to_owned(),
    ];
    for id in &ids {
        let routes = [
            ("GET", format!("{id}/status")),
            ("GET", format!("{id}/qr")),
            ("GET", format!("{id}/messages")),
            ("GET", format!("{id}/messages/X")),
            ("GET", id.clone()),
            ("DELETE", id.clone()),
            ("DELETE", format!("{id}/disconnect")),
            ("DELETE", format!("{id}/device")),
            ("POST", format!("{id}/connect")),
        ];
        // As bytes, since an HTTP client would tidy the path up.
        for (method, path) in routes {
            let head = format!(
                "{method} /api/whatsapp/sessions/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                 Authorization: Bearer {token}\r\n\r\n"
            );
            let refused = raw(world.node.address(), head.as_bytes()).await;
            assert_eq!(refused.status, 404, "{method} {path:.80}: {}", refused.body);
            assert!(["session_not_found", "not_found"].contains(&refused.body["code"].as_str().unwrap()));
            refused.clone().error(404, &refused.text("code"));
        }
    }
    for path in [
        format!("/api/whatsapp/sessions/{session}/../{session}/status"),
        format!("/api//whatsapp/sessions/{session}/status"),
    ] {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
        raw(world.node.address(), head.as_bytes()).await.error(404, "not_found");
    }
    for message in ["..", "%2e%2e", "..%2F", "%00", "%ff", &"x".repeat(129), "a%20b", "3EB0", "%F0%9F%90%A6"] {
        let path = format!("/api/whatsapp/sessions/{session}/messages/{message}");
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
        raw(world.node.address(), head.as_bytes()).await.error(404, "message_not_found");
    }
    for phone in [json!("123"), json!("abc"), json!(""), json!(5), json!(null), json!("120363001@g.us"), json!("1@lid")]
    {
        let fresh = format!("/api/whatsapp/sessions/{session}/pairing-code");
        world.client.post(&fresh, &json!({"phone": phone})).await.names("phone");
    }
    assert_eq!(everything(&world).await, before);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_queries_and_cursors_name_their_parameter() {
    let (world, session) = World::linked(&[]).await;
    for _ in 0..3 {
        world.send(&session, FRIEND, "row").await;
    }
    world.create().await;
    let before = everything(&world).await;
    let messages = format!("/api/whatsapp/sessions/{session}/messages");
    let sessions = "/api/whatsapp/sessions";
    let (_, of_messages) = world.client.page(&format!("{messages}?limit=1")).await;
    let (_, of_sessions) = world.client.page(&format!("{sessions}?limit=1")).await;
    let (of_messages, of_sessions) = (of_messages.unwrap(), of_sessions.unwrap());
    let forged = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let broken = [
        "x".to_owned(),
        String::new(),
        "%00".to_owned(),
        "%ff%fe".to_owned(),
        "..%2F".to_owned(),
        format!("{of_messages}x"),
        of_messages[..of_messages.len() - 1].to_owned() + "%3D%3D",
        forged(""),
        forged("m1."),
        forged("m1.-1"),
        forged("m1.99999999999999999999999"),
        forged("m2.5"),
        forged("s1.x"),
        forged("s1."),
        "A".repeat(10_000),
    ];
    for cursor in &broken {
        world.client.get(&format!("{messages}?cursor={cursor}")).await.names("cursor");
        world.client.get(&format!("{sessions}?cursor={cursor}")).await.names("cursor");
    }
    world.client.get(&format!("{messages}?cursor={of_sessions}")).await.names("cursor");
    world.client.get(&format!("{sessions}?cursor={of_messages}")).await.names("cursor");
    // A cursor of a place that never was is a place all the same.
    for place in ["m1.0", "m1.18446744073709551615"] {
        world.client.get(&format!("{messages}?cursor={}", forged(place))).await.expect(200);
    }
    let bad = [
        ("chat", "x"),
        ("chat", "123"),
        ("chat", "status@broadcast"),
        ("chat", ""),
        ("from", "yesterday"),
        ("from", "2025-13-01T00:00:00Z"),
        ("from", ""),
        ("until", "1700000000"),
        ("until", "2025-01-01"),
        ("direction", "sideways"),
        ("direction", ""),
        ("type", "Text"),
        ("type", "unknown"),
        ("limit", "10x"),
    ];
    for (name, value) in bad {
        world.client.get(&format!("{messages}?{name}={value}")).await.names(name);
    }
    for (name, value) in [("limit", "1"), ("chat", FRIEND), ("cursor", of_messages.as_str()), ("unknown", "x")] {
        world.client.get(&format!("{messages}?{name}={value}&{name}={value}")).await.names(name);
    }
    let many: String = (0..100).map(|n| format!("p{n}=1&")).collect();
    world.client.get(&format!("{messages}?{many}")).await.error(400, "malformed_request");
    world.client.get(&format!("{messages}?%ff=%fe&=&&&a")).await.expect(200);
    world.client.get(&format!("{messages}?from=2025-01-01T00:00:00Z&until=2024-01-01T00:00:00Z")).await.expect(200);
    assert_eq!(everything(&world).await, before);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_headers_are_refused_or_ignored() {
    let world = World::start().await;
    let token = world.client.token();
    let before = everything(&world).await;
    let request = |more: &[u8]| {
        let head = format!(
            "GET /api/whatsapp/sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n"
        );
        [head.as_bytes(), more, b"\r\n"].concat()
    };
    let ignored: [Vec<u8>; 6] = [
        b"X-Request-Id: \xff\xfe\r\n".to_vec(),
        b"X-Request-Id: a\r\nX-Request-Id: b\r\n".to_vec(),
        b"Accept: \xff\r\nCookie: \x80\r\n".to_vec(),
        format!("X-Long: {}\r\n", "x".repeat(16_000)).into_bytes(),
        b"X-Forwarded-For: ' OR 1=1\r\nForwarded: for=\"_x\"\r\n".to_vec(),
        b"Content-Type: \xff\xff\r\nRange: bytes=0-\r\nIf-None-Match: *\r\n".to_vec(),
    ];
    for more in ignored {
        let passed = raw(world.node.address(), &request(&more)).await.expect(200);
        assert!(passed.header("x-request-id").bytes().all(|byte| byte.is_ascii_graphic()));
    }
    let many: String = (0..200).map(|n| format!("X-Header-{n}: x\r\n")).collect();
    let huge = format!("X-Huge: {}\r\n", "x".repeat(200_000));
    for more in [many.as_bytes(), huge.as_bytes()] {
        let refused = raw(world.node.address(), &request(more)).await;
        assert_eq!(refused.status, 431);
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "x".repeat(100_000));
    let refused = raw(world.node.address(), long.as_bytes()).await;
    assert!(refused.status == 414 || refused.status == 431, "{}", refused.status);
    assert_eq!(everything(&world).await, before);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_connections_leave_room_for_callers() {
    let (world, session) = World::linked(&[]).await;
    let mut idle = vec![];
    for _ in 0..1_000 {
        idle.push(TcpStream::connect(world.node.address()).await.unwrap());
    }
    let id = world.send(&session, FRIEND, "past the idle ones").await;
    world.arrived(FRIEND, &id).await;
    world.client.get("/api/health/ready").await.expect(200);
    drop(idle);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_in_time() {
    let world = World::with(&[("ROOKERY_API__READ_TIMEOUT_MS", "300")]).await;
    let mut idle = TcpStream::connect(world.node.address()).await.unwrap();
    let mut rest = vec![];
    use tokio::io::AsyncReadExt;
    let closed = tokio::time::timeout(Duration::from_secs(20), idle.read_to_end(&mut rest)).await;
    closed.expect("closed by the gateway").unwrap();
    world.client.get("/api/health").await.expect(200);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_never_break_anything() {
    let seed = seed();
    let (world, session) = World::linked(&[("ROOKERY_API__MAX_BODY_BYTES", "4096")]).await;
    world.send(&session, FRIEND, "stays").await;
    let settled = |message: &Value| message["status"] == "delivered";
    world.history_where(&session, "delivered", |rows| settled(&rows[0])).await;
    let before = everything(&world).await;
    let stranger = world.stranger().await;
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..600 {
        let (method, path, body) = request(&mut random, &session);
        // As a stranger, whom no route may let change anything of the user's; creating is left out.
        let caller: &Client = if random.random_bool(0.9) { &stranger } else { &world.client.with_token("x") };
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
    assert_eq!(everything(&world).await, before, "seed {seed}");
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
        0 => (0..random.random_range(1..6)).map(|_| format!("/{}", pick(random, &words))).collect(),
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
