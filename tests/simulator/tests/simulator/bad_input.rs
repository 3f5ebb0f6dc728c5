//! Clients that do not speak the protocol: they are dropped, and disturb nobody.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use whatsapp_simulator::{Config, Handle};

use crate::client::{DEADLINE, PairBy, TestClient, assert_clean, eventually, simulator, simulator_with};
use crate::raw::RawConnection;

fn host(simulator: &Handle) -> String {
    let url = simulator.websocket_url();
    let rest = url.split("://").nth(1).unwrap();
    rest.split('/').next().unwrap().to_string()
}

/// Opens a websocket by hand.
async fn upgrade(simulator: &Handle) -> TcpStream {
    let mut socket = TcpStream::connect(host(simulator)).await.unwrap();
    let request = format!(
        "GET /ws/chat HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        host(simulator)
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    socket
}

/// The bit of a websocket frame that announces a mask.
const MASKED: u8 = 0x80;
/// Instead of a length: 2 bytes of length follow.
const LENGTH_16: u8 = 0x7e;
/// Instead of a length: 8 bytes of length follow.
const LENGTH_64: u8 = 0x7f;

/// A masked binary websocket message with an all-zero mask.
fn binary(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload.len() {
        n @ 0..=125 => frame.push(MASKED | n as u8),
        n @ 126..=65_535 => {
            frame.push(MASKED | LENGTH_16);
            frame.extend((n as u16).to_be_bytes());
        }
        n => {
            frame.push(MASKED | LENGTH_64);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The server closes the connection within the deadline.
async fn assert_closed(mut socket: TcpStream) {
    let mut rest = Vec::new();
    // A reset is a close as well.
    let closed = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "still open after {} bytes", rest.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_only_its_own_connection() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15554001").await;
    let garbage: [&[u8]; 6] = [
        b"not a header at all",
        b"WA\x06\x03\x00\x00\x05hello",
        b"WA\x06\x03\x00\x00\x00",
        b"WA\x06\x03\xff\xff\xff",
        b"ED\x00\x01\xff\xff\xff",
        &[0xff; 5_000],
    ];
    for bytes in garbage {
        let mut socket = upgrade(&simulator).await;
        socket.write_all(&binary(bytes)).await.unwrap();
        assert_closed(socket).await;
    }
    let mut socket = TcpStream::connect(host(&simulator)).await.unwrap();
    socket.write_all(b"\x16\x03\x01 this is not HTTP\r\n\r\n").await.unwrap();
    assert_closed(socket).await;
    simulator.phone("15554002").send_text("15554001", "undisturbed").unwrap();
    alice.text("undisturbed").await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_announces_too_much_is_refused() {
    let simulator = simulator().await;
    let mut socket = upgrade(&simulator).await;
    let mut header = vec![0x82, MASKED | LENGTH_64];
    header.extend((1u64 << 40).to_be_bytes());
    header.extend([0; 4]);
    socket.write_all(&header).await.unwrap();
    assert_closed(socket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_closed_at_the_deadline() {
    let config = Config { handshake_timeout: Duration::from_millis(300), ..Config::default() };
    let simulator = simulator_with(config).await;
    assert_closed(TcpStream::connect(host(&simulator)).await.unwrap()).await;
    assert_closed(upgrade(&simulator).await).await;
    let mut slow = upgrade(&simulator).await;
    slow.write_all(&binary(b"WA\x06\x03\x00\x10\x00abc")).await.unwrap();
    assert_closed(slow).await;
    eventually("no connections", || simulator.stats().connections == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded() {
    let mut config = Config::default();
    config.limits.connections = 2;
    let simulator = simulator_with(config).await;
    let first = upgrade(&simulator).await;
    let second = upgrade(&simulator).await;
    assert_closed(TcpStream::connect(host(&simulator)).await.unwrap()).await;
    drop((first, second));
    eventually("room again", || simulator.stats().connections == 0).await;
    upgrade(&simulator).await;
}

/// What a connection is told in its close frame, if it is closed with one.
async fn close_code(mut socket: TcpStream) -> Option<u16> {
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "still open after {} bytes", rest.len());
    // Before it there may be frames of the server; a close frame has two bytes of code and a reason.
    let at = rest.windows(2).rposition(|w| w[0] == 0x88 && (2..126).contains(&w[1]))?;
    let code = rest.get(at + 2..at + 4)?;
    Some(u16::from_be_bytes([code[0], code[1]]))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_garbage_is_counted_and_answered_with_its_close_code() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15554101").await;
    let (protocol_error, too_big) = (Some(1002), Some(1009));
    let garbage: [(&[u8], &str, Option<u16>); 5] = [
        (b"not a header at all", "closed: bad header", protocol_error),
        (b"WA\x06\x03\x00\x00\x05hello", "closed: bad handshake", protocol_error),
        (b"WA\x06\x03\x00\x00\x00", "closed: bad handshake", protocol_error),
        (b"WA\x06\x03\xff\xff\xff", "closed: too long", too_big),
        (b"ED\x00\x01\xff\xff\xff", "closed: too long", too_big),
    ];
    for (bytes, kind, code) in garbage {
        let before = simulator.stats().count(kind);
        let mut socket = upgrade(&simulator).await;
        socket.write_all(&binary(bytes)).await.unwrap();
        assert_eq!(close_code(socket).await, code, "{kind}");
        eventually(kind, || simulator.stats().count(kind) == before + 1).await;
    }
    let mut socket = TcpStream::connect(host(&simulator)).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    eventually("no websocket", || simulator.stats().count("closed: no websocket") == 1).await;
    // A frame without a mask is none of a client's.
    let mut socket = upgrade(&simulator).await;
    socket.write_all(&[0x82, 3, 1, 2, 3]).await.unwrap();
    assert_closed(socket).await;
    eventually("a bad websocket", || simulator.stats().count("closed: bad websocket") == 1).await;
    simulator.phone("15554102").send_text("15554101", "undisturbed").unwrap();
    alice.text("undisturbed").await;
    assert_clean(&simulator);
}

/// An element with a child, with a child...
fn nested(depth: usize) -> Vec<u8> {
    let mut stanza = vec![0];
    for _ in 0..depth {
        stanza.extend([248, 2, 5, 248, 1]);
    }
    stanza.extend([248, 1, 5]);
    stanza
}

fn bomb() -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(vec![2], flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &vec![0; 256 << 20]).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_stanza_is_said_and_ends_the_stream() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15554111").await;
    let mut jids = vec![0, 248, 1];
    jids.resize(3 << 20, 250);
    let wide = [&[0, 248, 2, 5, 249, 0xff, 0xff][..], &[248, 1, 5].repeat(100)].concat();
    let bad = [vec![], vec![0], vec![0, 1, 2, 3], nested(100_000), jids, wide, bomb(), vec![0xff; 1_000]];
    let count = bad.len() as u64;
    for stanza in bad {
        let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
        raw.send_bytes(&stanza).await;
        let told = raw.wait("an error", |n| n.tag == "stream:error").await;
        assert!(told.get_optional_child("xml-not-well-formed").is_some(), "{told:?}");
    }
    eventually("all are counted", || simulator.stats().count("closed: bad stanza") == count).await;
    simulator.phone("15554112").send_text("15554111", "undisturbed").unwrap();
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    raw.activate().await;
    raw.wait("the message", |n| n.tag == "message").await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_nobody_knows_whom_end_the_connection() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15554121").await;
    let ping = |id: &str| {
        let ping = wacore_binary::builder::NodeBuilder::new("ping").build();
        let iq = wacore_binary::builder::NodeBuilder::new("iq").attr("id", id).attr("type", "get").attr("xmlns", "w:p");
        iq.children([ping]).build()
    };
    // Not encrypted by the client that shook hands.
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    raw.send(&ping("1")).await;
    raw.wait("an answer", |n| crate::raw::text(n, "id") == "1").await;
    raw.send_frame(&[7; 60]).await;
    assert!(raw.closed(DEADLINE).await);
    // Encrypted by it, and sent a second time by somebody who has recorded it.
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    raw.send_twice(&ping("2")).await;
    assert!(raw.closed(DEADLINE).await);
    eventually("both are counted", || simulator.stats().count("closed: bad cipher") == 2).await;
    // Cut in the middle, and never finished.
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    raw.send_wire(&[0, 1, 0, 7, 7]).await;
    raw.hang_up().await;
    let open = || simulator.connections(Some(("15554121", 1))).iter().any(|c| c.until_ms.is_none());
    let phone = simulator.phone("15554121");
    eventually("it is gone", || !open() || phone.devices()[0].active).await;
    assert_clean(&simulator);
}

/// A login that was recorded: what a client sent before the first encrypted frame.
#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_handshake_logs_nobody_in() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15554131").await;
    let store = alice.stop().await;
    let (url, recorded) = crate::proxy::record(&host(&simulator)).await;
    let alice = TestClient::start_at(&url, &simulator, "15554131", store, PairBy::Nothing).await;
    alice.connected().await;
    let logins = simulator.stats().count("login");
    let hellos = recorded.lock().unwrap().clone();
    assert!(!hellos.is_empty());
    for _ in 0..2 {
        let mut socket = upgrade(&simulator).await;
        socket.write_all(&hellos).await.unwrap();
        // A client that waits for an answer that it cannot read.
        let _ = socket.shutdown().await;
        assert_closed(socket).await;
    }
    let refused =
        |s: &whatsapp_simulator::Stats| s.count("closed: replayed handshake") + s.count("closed: bad handshake");
    eventually("both are counted", || refused(&simulator.stats()) == 2).await;
    assert_eq!(simulator.stats().count("login"), logins);
    simulator.phone("15554132").send_text("15554131", "undisturbed").unwrap();
    alice.text("undisturbed").await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_silent_connections_disturb_nobody() {
    let config = Config { handshake_timeout: Duration::from_secs(5), ..Config::default() };
    let simulator = simulator_with(config).await;
    let alice = TestClient::pair(&simulator, "15554141").await;
    let mut silent = Vec::new();
    for n in 0..1_000 {
        let socket =
            if n % 2 == 0 { TcpStream::connect(host(&simulator)).await.unwrap() } else { upgrade(&simulator).await };
        silent.push(socket);
    }
    simulator.phone("15554142").send_text("15554141", "undisturbed").unwrap();
    alice.text("undisturbed").await;
    eventually("all are closed", || simulator.stats().count("closed: too slow") == 1_000).await;
    eventually("one is left", || simulator.stats().connections == 1).await;
    alice.send("15554142", "still undisturbed").await;
    for socket in silent {
        assert_closed(socket).await;
    }
    assert_clean(&simulator);
}
