//! Every documented error that a caller can bring about: its status, its code, its form.

use crate::{
    client::{TEXT, answer, head, raw, read_answer},
    world::{FRIEND, World},
};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_are_404_and_wrong_methods_405() {
    let world = World::start().await;
    let session = world.create().await;
    let unknown = [
        "/",
        "/api",
        "/api/",
        "/api/whatsapp",
        "/api/whatsapp/sessions/x/y",
        "/api/whatsapp/sessions//status",
        "/api/health/x",
        "/API/health",
        "/api/whatsapp/messages",
        "/api/sandbox",
    ];
    for path in unknown {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            answer(world.client.request(method, path)).await.error(404, "not_found");
        }
    }
    let one = format!("/api/whatsapp/sessions/{session}");
    let known = [
        ("/api/health".to_owned(), vec![Method::GET]),
        ("/api/health/live".to_owned(), vec![Method::GET]),
        ("/api/health/ready".to_owned(), vec![Method::GET]),
        ("/api/test-node-connection".to_owned(), vec![Method::GET]),
        ("/metrics".to_owned(), vec![Method::GET]),
        ("/api/api-tokens".to_owned(), vec![Method::GET, Method::DELETE]),
        ("/api/api-tokens/generate".to_owned(), vec![Method::POST]),
        (TEXT.to_owned(), vec![Method::POST]),
        ("/api/whatsapp/sessions".to_owned(), vec![Method::GET, Method::POST]),
        (one.clone(), vec![Method::GET, Method::DELETE]),
        (format!("{one}/status"), vec![Method::GET]),
        (format!("{one}/qr"), vec![Method::GET]),
        (format!("{one}/disconnect"), vec![Method::DELETE]),
        (format!("{one}/device"), vec![Method::DELETE]),
        (format!("{one}/connect"), vec![Method::POST]),
        (format!("{one}/pairing-code"), vec![Method::POST]),
        (format!("{one}/messages"), vec![Method::GET]),
        (format!("{one}/messages/X"), vec![Method::GET]),
        (format!("{one}/contacts"), vec![Method::GET]),
        (format!("{one}/contacts/15559999999/picture"), vec![Method::GET]),
        (format!("{one}/chats"), vec![Method::GET]),
    ];
    let invented = Method::from_bytes(b"INVENTED").unwrap();
    for (path, allowed) in known {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::PUT, Method::PATCH, invented.clone()] {
            if !allowed.contains(&method) {
                let refused = answer(world.client.request(method.clone(), &path)).await;
                assert_eq!(refused.status, 405, "{method} {path}: {}", refused.body);
                let mut names: Vec<_> = allowed.iter().map(Method::as_str).collect();
                names.extend(allowed.contains(&Method::GET).then_some("HEAD"));
                names.sort_unstable();
                assert_eq!(refused.header("allow"), names.join(", "), "{method} {path}");
                refused.error(405, "method_not_allowed");
            }
        }
    }
    assert_eq!(world.status(&session).await["session_id"], session.as_str(), "nothing was changed");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_answered_as_get_without_a_body() {
    let world = World::start().await;
    let session = world.create().await;
    let waiting = world.status_is(&session, "SCAN_QR_CODE").await;
    assert!(waiting["qr"].is_string());
    let one = format!("/api/whatsapp/sessions/{session}");
    for path in [
        "/api/health/live",
        "/openapi.json",
        "/docs",
        "/api/whatsapp/sessions",
        "/api/nowhere",
        "/api/whatsapp/sessions/nobody/status",
        "/api/whatsapp/sessions?limit=x",
        &one,
        &format!("{one}/messages"),
    ] {
        let get = world.client.get(path).await;
        let head = answer(world.client.request(Method::HEAD, path)).await;
        assert_eq!((head.status, head.bytes.len()), (get.status, 0), "{path}");
        for name in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
    }
    answer(world.client.without_token(Method::HEAD, "/api/whatsapp/sessions")).await.expect(401);
    assert_eq!(answer(world.client.request(Method::HEAD, TEXT)).await.expect(405).header("allow"), "POST");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_a_wrong_type_form_or_size_are_refused() {
    let world = World::with(&[("ROOKERY_API__MAX_BODY_BYTES", "2048")]).await;
    let post = |path: &str| world.client.request(Method::POST, path);
    for path in [TEXT, "/api/whatsapp/sessions"] {
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp", ""]
        {
            answer(post(path).header("content-type", kind).body("{}")).await.error(415, "unsupported_media_type");
        }
        answer(post(path).body("{}")).await.error(415, "unsupported_media_type");
        for body in
            ["", "{", "nonsense", "{\"a\":1,}", "[]", "\"text\"", "null", "{\"a\":\"\u{1}\"}", "{}{}", "\u{feff}{}"]
        {
            let refused = answer(post(path).header("content-type", "application/json").body(body)).await;
            assert_eq!(refused.status, 400, "{body:?}: {}", refused.body);
            refused.error(400, "malformed_request");
        }
        let parameters = post(path).header("content-type", "Application/JSON; charset=utf-8").body("{}");
        answer(parameters).await.error(422, "validation_failed");
        let large = json!({"session_name": "x", "padding": "x".repeat(2048)});
        answer(post(path).json(&large)).await.error(413, "payload_too_large");
    }
    // One byte decides; also when the length is not announced, or is announced and never comes.
    let fits = format!("{{\"session_name\":\"fits\",\"padding\":\"{}\"}}", "x".repeat(2048 - 36));
    assert_eq!(fits.len(), 2048);
    let json = |body: String| post("/api/whatsapp/sessions").header("content-type", "application/json").body(body);
    answer(json(fits.clone())).await.expect(201);
    answer(json(format!("{fits} "))).await.error(413, "payload_too_large");
    let chunk = "x".repeat(1024);
    let chunks = format!("400\r\n{chunk}\r\n400\r\n{chunk}\r\n1\r\nx\r\n0\r\n\r\n");
    let more = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let request = head("POST", TEXT, world.client.token(), more) + &chunks;
    raw(world.node.address(), request.as_bytes()).await.error(413, "payload_too_large");
    let more = "Content-Type: application/json\r\nContent-Length: 99999999999\r\n";
    let request = head("POST", TEXT, world.client.token(), more);
    raw(world.node.address(), request.as_bytes()).await.error(413, "payload_too_large");
    assert_eq!(world.client.all("/api/whatsapp/sessions?limit=50").await.len(), 1);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_at_a_time_than_allowed_are_503() {
    let world = World::with(&[("ROOKERY_API__MAX_REQUESTS", "1")]).await;
    // A request whose body does not come occupies the only place.
    let mut slow = TcpStream::connect(world.node.address()).await.unwrap();
    let more = "Content-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n";
    slow.write_all(head("POST", "/api/whatsapp/sessions", world.client.token(), more).as_bytes()).await.unwrap();
    // It is asked for its body when it has the place; before that one of ours might have it.
    let mut go_on = [0; 25];
    slow.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    let refused = crate::node::eventually("the place is taken", async || {
        let answer = world.client.get("/api/whatsapp/sessions").await;
        if answer.status == 503 { Ok(answer) } else { Err(answer.status.to_string()) }
    })
    .await;
    for path in ["/api/health", "/api/health/live", "/api/health/ready", "/metrics"] {
        assert_eq!(world.client.get(path).await.status, 200, "{path} answers whoever watches the node");
    }
    refused.error(503, "unavailable").says_when_to_retry();
    slow.write_all(b"{}").await.unwrap();
    read_answer(&mut slow).await.error(422, "validation_failed");
    world.client.get("/api/whatsapp/sessions").await.expect(200);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_body_is_not_read() {
    let world = World::with(&[("ROOKERY_API__MAX_REQUESTS", "1")]).await;
    let more = "Content-Type: application/json\r\nContent-Length: 1000000\r\n";
    let mut strangers = vec![];
    for _ in 0..20 {
        let mut stranger = TcpStream::connect(world.node.address()).await.unwrap();
        stranger.write_all(head("POST", "/api/whatsapp/sessions", "nobody", more).as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stranger).await.status, 401, "the answer comes before the body");
        strangers.push(stranger);
    }
    world.client.get("/api/whatsapp/sessions").await.expect(200);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_have_so_many_sessions() {
    let world = World::with(&[("ROOKERY_SESSIONS__PER_USER_LIMIT", "2")]).await;
    let session = world.create().await;
    world.create().await;
    let body = json!({"session_name": "one more"});
    let refused = world.client.post("/api/whatsapp/sessions", &body).await;
    refused.error(429, "too_many_requests").says_when_to_retry();
    world.stranger().await.post("/api/whatsapp/sessions", &body).await.expect(201);
    world.client.delete(&format!("/api/whatsapp/sessions/{session}")).await.expect(200);
    world.client.post("/api/whatsapp/sessions", &body).await.expect(201);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_past_its_deadline_is_504_and_what_it_accepted_stays() {
    let (world, session) = World::linked(&[("ROOKERY_API__REQUEST_TIMEOUT_MS", "1000")]).await;
    world.simulator.faults().hold_acks(true);
    let late = world.client.send_keyed(&session, FRIEND, "late", "late").await;
    late.error(504, "deadline_exceeded");
    world.simulator.faults().hold_acks(false);
    let id = crate::world::sent(world.client.send_keyed(&session, FRIEND, "late", "late").await);
    world.arrived(FRIEND, &id).await;
    assert_eq!(world.phone(FRIEND).inbox().len(), 1);
    world.finish();
}
