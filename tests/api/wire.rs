//! Requests that are slow, cut, broken or too many, and headers that no honest client sends.

use crate::{
    client::{Client, TEXT, head, raw, read_answer},
    world::{FRIEND, World},
};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test(flavor = "multi_thread")]
async fn broken_and_cut_requests_harm_nobody() {
    let (world, session) = World::linked(&[]).await;
    let token = world.client.token();
    let body = json!({"session_id": session, "to": FRIEND, "message": "never whole"}).to_string();
    // Cut at every place: in the head, between head and body, in the body.
    let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let whole = head("POST", TEXT, token, &more) + &body;
    for place in (1..whole.len()).step_by(7) {
        let mut stream = TcpStream::connect(world.node.address()).await.unwrap();
        stream.write_all(&whole.as_bytes()[..place]).await.unwrap();
        drop(stream);
    }
    // The half that is closed in an orderly way gets an answer.
    let mut stream = TcpStream::connect(world.node.address()).await.unwrap();
    stream.write_all(&whole.as_bytes()[..whole.len() - 5]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = vec![];
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&rest));

    for garbage in [
        &b"\r\n\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /api/health HTTP/9.9\r\n\r\n",
        b"GET /api/health HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api/whatsapp/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /api/whatsapp/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(world.node.address()).await.unwrap();
        let _ = stream.write_all(garbage).await;
        stream.shutdown().await.ok();
        let mut rest = vec![];
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&rest));
    }
    assert!(world.client.history(&session).await.is_empty(), "nothing was accepted");
    let id = world.send(&session, FRIEND, "whole").await;
    world.arrived(FRIEND, &id).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_in_time_is_408_and_a_head_is_cut_off() {
    let world = World::with(&[("ROOKERY_API__READ_TIMEOUT_MS", "500")]).await;
    let more = "Content-Type: application/json\r\nContent-Length: 100\r\n";
    let started = Instant::now();
    let request = head("POST", TEXT, world.client.token(), more) + "{\"session_id\":";
    raw(world.node.address(), request.as_bytes()).await.error(408, "request_timeout");
    assert!(started.elapsed() >= Duration::from_millis(500));

    // A body in drips is no way around it.
    let mut drips = TcpStream::connect(world.node.address()).await.unwrap();
    drips.write_all(head("POST", TEXT, world.client.token(), more).as_bytes()).await.unwrap();
    let (mut reader, mut writer) = drips.split();
    let dripping = async {
        while writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let answered = async {
        let mut first = [0; 12];
        reader.read_exact(&mut first).await.unwrap();
        String::from_utf8(first.to_vec()).unwrap()
    };
    tokio::select! {
        first = answered => assert_eq!(first, "HTTP/1.1 408"),
        () = dripping => panic!("closed without an answer"),
    }

    // A head that never ends: the connection closes, with or without words.
    let mut slow = TcpStream::connect(world.node.address()).await.unwrap();
    slow.write_all(b"GET /api/health HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let mut rest = vec![];
    let _ = tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut rest)).await.expect("it is cut off");
    // Over a connection of its own: an idle one may be closed by now.
    Client::new(world.node.base(), "").get("/api/health").await.expect(200);
    world.finish();
}

/// A caller that sends all of its request before it reads must not lose the answer to a reset.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_reaches_who_is_still_sending() {
    let world = World::start().await;
    let body = vec![b'x'; 8 << 20];
    let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    for (token, status) in [(world.client.token(), 413), ("stranger", 401)] {
        let mut stream = TcpStream::connect(world.node.address()).await.unwrap();
        stream.write_all(head("POST", TEXT, token, &more).as_bytes()).await.unwrap();
        stream.write_all(&body).await.expect("it is read to its end");
        read_answer(&mut stream).await.expect(status);
    }

    // Who never ends is cut off, with the answer.
    let more = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let mut endless = TcpStream::connect(world.node.address()).await.unwrap();
    endless.write_all(head("POST", TEXT, "stranger", more).as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n", vec![b'x'; 0x10000].as_slice(), b"\r\n"].concat();
    let (mut reader, mut writer) = endless.split();
    let mut first = [0; 12];
    let sending = async { while writer.write_all(&chunk).await.is_ok() {} };
    let (answered, cut_off) =
        tokio::join!(reader.read_exact(&mut first), tokio::time::timeout(Duration::from_secs(20), sending));
    answered.unwrap();
    assert_eq!(&first, b"HTTP/1.1 401");
    cut_off.expect("it is cut off");
    Client::new(world.node.base(), "").get("/api/health").await.expect(200);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_headers_are_refused_or_ignored() {
    let world = World::start().await;
    let token = world.client.token();
    let before = world.everything().await;
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
    let many = "X-Header: x\r\n".repeat(200);
    let huge = format!("X-Huge: {}\r\n", "x".repeat(200_000));
    for more in [many.as_bytes(), huge.as_bytes()] {
        let refused = raw(world.node.address(), &request(more)).await;
        assert_eq!(refused.status, 431);
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "x".repeat(100_000));
    let refused = raw(world.node.address(), long.as_bytes()).await;
    assert!(refused.status == 414 || refused.status == 431, "{}", refused.status);
    assert_eq!(world.everything().await, before);
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
    let closed = tokio::time::timeout(Duration::from_secs(20), idle.read_to_end(&mut rest)).await;
    closed.expect("closed by the gateway").unwrap();
    // Over a connection of its own: an idle one may be closed by now.
    Client::new(world.node.base(), "").get("/api/health").await.expect(200);
    world.finish();
}
