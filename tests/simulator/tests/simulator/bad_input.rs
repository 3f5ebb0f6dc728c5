//! Clients that do not speak the protocol: they are dropped, and disturb nobody.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use whatsapp_simulator::{Config, Handle};

use crate::client::{DEADLINE, TestClient, assert_clean, simulator, simulator_with};

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
    crate::client::eventually("no connections", || simulator.stats().connections == 0).await;
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
    crate::client::eventually("room again", || simulator.stats().connections == 0).await;
    upgrade(&simulator).await;
}
