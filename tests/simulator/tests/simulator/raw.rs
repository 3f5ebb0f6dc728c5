//! A connection by hand: it speaks Noise and stanzas, and does what no client library would.

use std::time::Duration;

use bytes::Bytes;
use wacore::libsignal::protocol::KeyPair;
use wacore::net::{Transport, TransportEvent, TransportFactory};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::consts::WA_CONN_HEADER;
use wacore_binary::{Jid, Node};
use wacore_noise::framing::{FrameDecoder, encode_frame};
use wacore_noise::{NoiseCipher, XxHandshakeState};
use waproto::whatsapp as wa;
use whatsapp_rust::transport::TokioWebSocketTransportFactory;
use whatsapp_simulator::Handle;

use crate::client::{DEADLINE, TestClient};

/// A connection after its handshake.
pub(crate) struct RawConnection {
    transport: std::sync::Arc<dyn Transport>,
    events: async_channel::Receiver<TransportEvent>,
    decoder: FrameDecoder,
    write: NoiseCipher,
    read: NoiseCipher,
    sent: u32,
    received: u32,
}

/// The next frame of a connection; `None` when it is closed.
async fn frame(
    events: &async_channel::Receiver<TransportEvent>,
    decoder: &mut FrameDecoder,
) -> Option<bytes::BytesMut> {
    loop {
        if let Some(frame) = decoder.decode_frame() {
            return Some(frame);
        }
        let event = tokio::time::timeout(DEADLINE, events.recv()).await.expect("a frame in time");
        match event {
            Ok(TransportEvent::DataReceived(data)) => decoder.feed(&data),
            Ok(TransportEvent::Connected) => {}
            Ok(TransportEvent::Disconnected(_)) | Err(_) => return None,
        }
    }
}

impl RawConnection {
    /// Connects with a Noise key and a login or registration payload.
    pub(crate) async fn connect(simulator: &Handle, noise: KeyPair, payload: &wa::ClientPayload) -> Self {
        Self::connect_to(&simulator.websocket_url(), noise, payload).await
    }

    /// Connects to a URL.
    async fn connect_to(url: &str, noise: KeyPair, payload: &wa::ClientPayload) -> Self {
        let factory = TokioWebSocketTransportFactory::new().with_url(url);
        let (transport, events) = factory.create_transport().await.unwrap();
        let mut decoder = FrameDecoder::new();
        let payload = buffa::Message::encode_to_vec(payload);
        let mut handshake = XxHandshakeState::new(noise, payload, &WA_CONN_HEADER).unwrap();
        let hello = handshake.build_client_hello().unwrap();
        transport.send(Bytes::from(encode_frame(&hello, Some(&WA_CONN_HEADER)).unwrap())).await.unwrap();
        let answer = frame(&events, &mut decoder).await.expect("a server hello");
        let finish = handshake.read_server_hello_and_build_client_finish(&answer).unwrap();
        transport.send(Bytes::from(encode_frame(&finish, None).unwrap())).await.unwrap();
        let ciphers = handshake.finish().unwrap();
        let (write, read) = (ciphers.write_cipher, ciphers.read_cipher);
        Self { transport, events, decoder, write, read, sent: 0, received: 0 }
    }

    /// Logs in as the device of a client, with its keys, and waits for the welcome.
    pub(crate) async fn log_in_as(simulator: &Handle, client: &TestClient) -> Self {
        Self::log_in(&simulator.websocket_url(), client).await
    }

    /// The same in the name of a node that claims to own the client's session.
    pub(crate) async fn log_in_as_owner(simulator: &Handle, client: &TestClient, owner: &str, epoch: u64) -> Self {
        Self::log_in(&format!("{}?owner={owner}&epoch={epoch}", simulator.websocket_url()), client).await
    }

    async fn log_in(url: &str, client: &TestClient) -> Self {
        let mut connection = Self::try_log_in(url, client).await;
        connection.wait("success", |node| node.tag == "success").await;
        connection
    }

    /// Asks to be logged in as the device of a client, and leaves the answer to be read.
    pub(crate) async fn try_log_in(url: &str, client: &TestClient) -> Self {
        let device = client.client.persistence_manager().get_device_snapshot();
        let number = device.pn.as_ref().expect("it is paired");
        let payload = wa::ClientPayload {
            username: Some(number.user.parse().unwrap()),
            device: Some(u32::from(number.device)),
            ..Default::default()
        };
        Self::connect_to(url, device.noise_key.clone(), &payload).await
    }

    /// Asks for what waits, as a client does once it is ready.
    pub(crate) async fn activate(&mut self) {
        self.iq("active", "set", "passive", NodeBuilder::new("active").build()).await;
    }

    /// Sends the bytes of a frame, encrypted.
    pub(crate) async fn send_bytes(&mut self, stanza: &[u8]) {
        let sealed = self.write.encrypt_with_counter(self.sent, stanza).unwrap();
        self.sent += 1;
        self.send_frame(&sealed).await;
    }

    /// Sends a frame as it is.
    pub(crate) async fn send_frame(&mut self, payload: &[u8]) {
        self.transport.send(Bytes::from(encode_frame(payload, None).unwrap())).await.unwrap();
    }

    /// Sends a stanza.
    pub(crate) async fn send(&mut self, node: &Node) {
        let stanza = wacore_binary::marshal(node).unwrap();
        self.send_bytes(&stanza).await;
    }

    /// Sends the frame of a stanza twice.
    pub(crate) async fn send_twice(&mut self, node: &Node) {
        let sealed = self.write.encrypt_with_counter(self.sent, &wacore_binary::marshal(node).unwrap()).unwrap();
        self.send_frame(&sealed).await;
        self.send_frame(&sealed).await;
    }

    /// Sends bytes that need be no frame.
    pub(crate) async fn send_wire(&mut self, bytes: &[u8]) {
        self.transport.send(Bytes::copy_from_slice(bytes)).await.unwrap();
    }

    /// Ends the connection.
    pub(crate) async fn hang_up(self) {
        self.transport.disconnect().await;
    }

    /// The next stanza; `None` when the connection is closed.
    pub(crate) async fn next(&mut self) -> Option<Node> {
        let mut frame = frame(&self.events, &mut self.decoder).await?;
        self.read.decrypt_in_place_with_counter(self.received, &mut frame).unwrap();
        self.received += 1;
        let stanza = wacore_binary::util::unpack_bytes(frame).unwrap();
        Some(wacore_binary::OwnedNodeRef::new(stanza).unwrap().to_owned_node())
    }

    /// Waits for a stanza; others are passed over.
    pub(crate) async fn wait(&mut self, what: &str, mut matches: impl FnMut(&Node) -> bool) -> Node {
        let search = async {
            loop {
                let node = self.next().await.unwrap_or_else(|| panic!("closed before {what}"));
                if matches(&node) {
                    return node;
                }
            }
        };
        tokio::time::timeout(DEADLINE, search).await.unwrap_or_else(|_| panic!("no {what}"))
    }

    /// Sends an IQ to the server and waits for its answer.
    pub(crate) async fn iq(&mut self, id: &str, kind: &'static str, namespace: &'static str, child: Node) -> Node {
        let iq = NodeBuilder::new("iq")
            .attr("id", id)
            .attr("type", kind)
            .attr("xmlns", namespace)
            .attr("to", Jid::new("", wacore_binary::jid::Server::Pn))
            .children([child]);
        self.send(&iq.build()).await;
        self.wait("an answer", |node| node.tag == "iq" && text(node, "id") == id).await
    }

    /// Waits until the server has closed, for at most `timeout`.
    pub(crate) async fn closed(&mut self, timeout: Duration) -> bool {
        tokio::time::timeout(timeout, async { while self.next().await.is_some() {} }).await.is_ok()
    }
}

/// An attribute as text, empty when absent.
pub(crate) fn text(node: &Node, key: &str) -> String {
    node.attrs.get(key).map(|v| v.as_str().into_owned()).unwrap_or_default()
}
