//! A wire between a client and the simulator that records what the client says at first.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Starts one. Answers the URL that a client connects to, and what the first client sends after its upgrade to a
/// websocket until the server has answered its first frame: the first of its frames, masks included.
pub(crate) async fn record(host: &str) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let (host, record) = (host.to_string(), recorded.clone());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&host).await.unwrap();
            tokio::spawn(carry(client, server, record.clone()));
        }
    });
    (format!("ws://{address}/ws/chat"), recorded)
}

async fn carry(mut client: TcpStream, mut server: TcpStream, recorded: Arc<Mutex<Vec<u8>>>) {
    let mut upgrade = Vec::new();
    while !upgrade.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        upgrade.push(byte);
    }
    server.write_all(&upgrade).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let Ok(byte) = server.read_u8().await else { return };
        answer.push(byte);
    }
    client.write_all(&answer).await.unwrap();
    let mut buffer = vec![0; 64 << 10];
    let Ok(read @ 1..) = client.read(&mut buffer).await else { return };
    {
        let mut recorded = recorded.lock().unwrap();
        if recorded.is_empty() {
            recorded.extend_from_slice(&buffer[..read]);
        }
    }
    server.write_all(&buffer[..read]).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
