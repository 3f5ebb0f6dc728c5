//! The admin port, spoken to over plain HTTP.

use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wacore::types::events::Event;
use whatsapp_simulator::Handle;

use crate::client::{DEADLINE, PairBy, TestClient, assert_clean, eventually, simulator};

/// One request; returns status and body.
async fn http(simulator: &Handle, method: &str, path: &str, body: &str) -> (u16, String) {
    let url = simulator.admin_url();
    let host = url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(host).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_string();
    (status, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_can_be_driven_over_http() {
    let simulator = simulator().await;
    let store = Arc::default();
    let client = TestClient::start(&simulator, "15556001", store, PairBy::Nothing).await;
    let qr = client
        .wait("a QR code", |e| match e {
            Event::PairingQrCode(qr) => Some(qr.code.clone()),
            _ => None,
        })
        .await;
    let (status, device) = http(&simulator, "POST", "/scan?phone=15556001", &qr).await;
    assert_eq!((status, device.as_str()), (200, "15556001:1"));
    client.connected().await;

    let path = "/inject?from=15556002&to=15556001";
    let (status, id) = http(&simulator, "POST", path, "over http").await;
    assert_eq!(status, 200);
    client.text("over http").await;
    client.send("15556002", "an answer").await;
    let phone = simulator.phone("15556002");
    phone.wait_for(DEADLINE, |m| m.text == "an answer").await.unwrap();
    let (_, lines) = http(&simulator, "GET", "/inbox?phone=15556002", "").await;
    assert_eq!(lines, "15556001: an answer\n");
    let (_, json) = http(&simulator, "GET", "/inbox?phone=15556002&format=json", "").await;
    let inbox: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(inbox[0]["text"], "an answer");
    eventually("a receipt", || !phone.receipts(&id).is_empty()).await;
    let path = format!("/receipts?phone=15556002&id={id}");
    let (_, json) = http(&simulator, "GET", &path, "").await;
    assert!(json.contains(r#""kind":"delivered""#), "{json}");

    let (_, root) = http(&simulator, "GET", "/root", "").await;
    assert_eq!(hex::decode(root).unwrap(), simulator.root_key());
    let (_, stats) = http(&simulator, "GET", "/stats?format=json", "").await;
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["accounts"], 2);
    let (_, devices) = http(&simulator, "GET", "/devices?phone=15556001", "").await;
    assert!(devices.contains(r#""device":1"#), "{devices}");
    let (_, violations) = http(&simulator, "GET", "/violations", "").await;
    assert_eq!(violations, "[]");
    let (status, _) = http(&simulator, "POST", "/fault/drop?phone=15556001&device=1", "").await;
    assert_eq!(status, 200);
    client.connected().await;
    let device = "phone=15556001&device=1";
    for fault in [
        "unknown?DEVICE",
        "exhaust-prekeys?DEVICE",
        "duplicate?on=true",
        "duplicate?on=false",
        "hold-receipts?on=true",
        "hold-receipts?on=false&seed=7",
        "reject?phone=15556001&code=463",
        "reject",
        "delay?ms=1&jitter-ms=2&seed=3",
        "delay",
        "clock?ahead=-3600",
        "clock?ahead=0",
        "media?state=lying",
        "media?state=well",
        "stream-error?DEVICE&code=503",
    ] {
        let path = format!("/fault/{}", fault.replace("DEVICE", device));
        let (status, body) = http(&simulator, "POST", &path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
    }
    client.connected().await;
    let (status, _) = http(&simulator, "POST", "/fault/cut?phone=15556001&device=1", "").await;
    assert_eq!(status, 200);
    client.connected().await;
    let (status, _) = http(&simulator, "POST", "/unlink?phone=15556001&device=1", "").await;
    assert_eq!(status, 200);
    client.wait("logged out", |e| matches!(e, Event::LoggedOut(_)).then_some(())).await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_json() {
    let simulator = simulator().await;
    let cases = [
        ("POST", "/scan", "", 400),
        ("POST", "/scan?phone=abc", "", 400),
        ("POST", "/scan?phone=15556003", "no code", 400),
        ("POST", "/scan?phone=15556003", "r,AAAA,AAAA,AAAA", 400),
        ("POST", "/code?phone=15556003", "ABCDEFGH", 404),
        ("POST", "/unlink?phone=15556003&device=7", "", 404),
        ("POST", "/echo?phone=15556003&on=maybe", "", 400),
        ("POST", "/read?phone=15556003&id=x", "", 404),
        ("POST", "/fault/drop?phone=15556003&device=1", "", 404),
        ("POST", "/fault/nothing", "", 404),
        ("POST", "/fault/media?state=odd", "", 400),
        ("POST", "/fault/reject?code=odd", "", 400),
        ("POST", "/fault/cut?phone=15556003&device=1", "", 404),
        ("GET", "/nothing", "", 404),
        ("GET", "/v/sim/nothing", "", 404),
        ("PUT", "/scan", "", 405),
    ];
    for (method, path, body, expected) in cases {
        let (status, answer) = http(&simulator, method, path, body).await;
        assert_eq!(status, expected, "{method} {path}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["message"].is_string(), "{method} {path}");
    }
    let huge = "x".repeat(200 << 10);
    let (status, _) = http(&simulator, "POST", "/inject?from=15556003&to=15556004", &huge).await;
    assert_eq!(status, 413);
}
