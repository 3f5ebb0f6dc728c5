//! Hostile input to every route: the right 4xx as JSON, never a 5xx, and nothing changes.

use crate::{
    client::{TEXT, answer, raw},
    world::{FRIEND, World},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::json;

const NOBODYS: &str = "00000000-0000-4000-8000-000000000000";

#[tokio::test(flavor = "multi_thread")]
async fn session_names_have_bounds() {
    let world = World::start().await;
    let before = world.everything().await;
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
    assert_eq!(world.everything().await, before);
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
    let before = world.everything().await;
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
    assert_eq!(world.everything().await, before);
    assert!(world.phone(FRIEND).inbox().is_empty());
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_and_huge_json_is_refused() {
    let (world, session) = World::linked(&[]).await;
    let before = world.everything().await;
    let json = |body: String| {
        answer(world.client.request(Method::POST, TEXT).header("content-type", "application/json").body(body))
    };
    for deep in ["[".repeat(100_000), "{\"a\":".repeat(100_000), format!("{{\"to\":{}", "[".repeat(500_000))] {
        json(deep).await.error(400, "malformed_request");
    }
    let nested = format!("{{\"to\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    json(nested).await.error(400, "malformed_request");
    // Many unknown fields and huge numbers are only fields that are missing.
    let many: Vec<_> = (0..10_000).map(|n| format!("\"field{n}\":1e300")).collect();
    json(format!("{{{}}}", many.join(","))).await.names("to");
    json("{\"to\":1e999999}".to_owned()).await.error(400, "malformed_request");
    let surrogate = format!("{{\"session_id\":\"{session}\",\"to\":\"{FRIEND}\",\"message\":\"\\ud800\"}}");
    json(surrogate).await.error(400, "malformed_request");
    let bytes = world.client.request(Method::POST, TEXT).header("content-type", "application/json");
    answer(bytes.body(b"{\"to\":\"\xff\xfe\"}".to_vec())).await.error(400, "malformed_request");
    assert_eq!(world.everything().await, before);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_in_paths_are_never_more_than_ids() {
    let (world, session) = World::linked(&[]).await;
    let before = world.everything().await;
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
    assert_eq!(world.everything().await, before);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_queries_and_cursors_name_their_parameter() {
    let (world, session) = World::linked(&[]).await;
    for _ in 0..3 {
        world.send(&session, FRIEND, "row").await;
    }
    world.all_delivered(&session).await;
    let second = world.create().await;
    world.client.delete(&format!("/api/whatsapp/sessions/{second}/disconnect")).await.expect(200);
    let before = world.everything().await;
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
    let all =
        world.client.get(&format!("{messages}?limit=0&from=x&until=y&type=z&chat=x&chat=x&cursor=-&query=.")).await;
    for name in ["limit", "from", "until", "type", "chat", "cursor", "query"] {
        all.clone().names(name);
    }
    world.client.get(&format!("{sessions}?limit=0&cursor=x")).await.names("limit").names("cursor");
    let picture = format!("/api/whatsapp/sessions/{session}/contacts/nobody/picture?type=large");
    world.client.get(&picture).await.names("jid").names("type");
    let many: Vec<_> = (0..100).map(|n| format!("p{n}=1")).collect();
    world.client.get(&format!("{messages}?{}", many.join("&"))).await.error(400, "malformed_request");
    world.client.get(&format!("{messages}?%ff=%fe&=&&&a")).await.expect(200);
    world.client.get(&format!("{messages}?from=2025-01-01T00:00:00Z&until=2024-01-01T00:00:00Z")).await.expect(200);
    assert_eq!(world.everything().await, before);
    world.finish();
}
