//! A connection: websocket, Noise, stanzas.

use std::{collections::VecDeque, net::SocketAddr};

use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};
use wacore::libsignal::protocol::KeyPair;
use wacore_binary::{Jid, Node, NodeContent, builder::NodeBuilder, consts::WA_CONN_HEADER, jid::Server};
use wacore_noise::{
    NoiseCipher, XxHandshakeState,
    framing::{FrameDecoder, append_frame_into, encode_frame},
};
use waproto::whatsapp as wa;

/// A connection after its handshake.
pub(crate) struct Wire {
    socket: WebSocketStream<TcpStream>,
    decoder: FrameDecoder,
    read: NoiseCipher,
    write: NoiseCipher,
    sent: u32,
    received: u32,
    ready: VecDeque<Node>,
}

impl Wire {
    /// Connects with a Noise key and a login or registration payload.
    pub(crate) async fn connect(
        address: SocketAddr,
        url: &str,
        noise: KeyPair,
        payload: &wa::ClientPayload,
    ) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| address.to_string())?;
        stream.set_nodelay(true)?;
        let builder = ClientBuilder::new().uri(url)?;
        let (mut socket, _) = builder.connect_on(stream).await?;
        let mut decoder = FrameDecoder::new();
        let payload = buffa::Message::encode_to_vec(payload);
        let mut handshake = XxHandshakeState::new(noise, payload, &WA_CONN_HEADER)?;
        let hello = encode_frame(&handshake.build_client_hello()?, Some(&WA_CONN_HEADER))?;
        socket.send(Message::binary(hello)).await?;
        let answer = frame(&mut socket, &mut decoder).await?.context("closed in the handshake")?;
        let finish = handshake.read_server_hello_and_build_client_finish(&answer)?;
        socket.send(Message::binary(encode_frame(&finish, None)?)).await?;
        let ciphers = handshake.finish()?;
        let (read, write) = (ciphers.read_cipher, ciphers.write_cipher);
        Ok(Self { socket, decoder, read, write, sent: 0, received: 0, ready: VecDeque::new() })
    }

    /// Sends stanzas together.
    pub(crate) async fn send(&mut self, nodes: &[Node]) -> anyhow::Result<()> {
        let mut buffer = BytesMut::new();
        for node in nodes {
            let sealed = self.write.encrypt_with_counter(self.sent, &wacore_binary::marshal(node)?)?;
            self.sent += 1;
            append_frame_into(&sealed, None, &mut buffer)?;
        }
        Ok(self.socket.send(Message::binary(buffer.freeze())).await?)
    }

    /// The stanzas that have come, one at least; none when the connection is closed. May be dropped at any time.
    pub(crate) async fn receive(&mut self) -> anyhow::Result<Vec<Node>> {
        while self.ready.is_empty() {
            match self.socket.next().await.transpose()? {
                Some(message) if message.is_binary() => self.decoder.feed(message.as_payload()),
                Some(message) if !message.is_close() => {}
                _ => return Ok(vec![]),
            }
            while let Some(mut frame) = self.decoder.decode_frame() {
                self.read.decrypt_in_place_with_counter(self.received, &mut frame)?;
                self.received += 1;
                let stanza: Bytes = wacore_binary::util::unpack_bytes(frame)?;
                self.ready.push_back(wacore_binary::OwnedNodeRef::new(stanza)?.to_owned_node());
            }
        }
        Ok(self.ready.drain(..).collect())
    }

    /// Waits for a stanza; others before it are passed over, and those behind it are kept.
    pub(crate) async fn wait(&mut self, what: &str, matches: impl Fn(&Node) -> bool) -> anyhow::Result<Node> {
        loop {
            let mut nodes = VecDeque::from(self.receive().await?);
            ensure!(!nodes.is_empty(), "closed before {what}");
            while let Some(node) = nodes.pop_front() {
                if matches(&node) {
                    self.ready = nodes;
                    return Ok(node);
                }
            }
        }
    }

    /// Asks the server and waits for its answer.
    pub(crate) async fn iq(&mut self, id: &str, namespace: &'static str, children: Vec<Node>) -> anyhow::Result<()> {
        let iq = NodeBuilder::new("iq")
            .attr("id", id)
            .attr("type", "set")
            .attr("xmlns", namespace)
            .attr("to", Jid::new("", Server::Pn));
        self.send(&[iq.children(children).build()]).await?;
        let answer = self.wait(namespace, |node| node.tag == "iq" && text(node, "id") == id).await?;
        ensure!(text(&answer, "type") == "result", "{namespace}: {answer:?}");
        Ok(())
    }

    /// Closes.
    pub(crate) async fn close(mut self) {
        // It is over, whatever becomes of the goodbye.
        let _ = self.socket.close().await;
    }
}

async fn frame(
    socket: &mut WebSocketStream<TcpStream>,
    decoder: &mut FrameDecoder,
) -> anyhow::Result<Option<BytesMut>> {
    loop {
        if let Some(frame) = decoder.decode_frame() {
            return Ok(Some(frame));
        }
        let Some(message) = socket.next().await.transpose()? else { return Ok(None) };
        if message.is_binary() {
            decoder.feed(message.as_payload());
        }
    }
}

/// An attribute as text, empty when absent.
pub(crate) fn text(node: &Node, key: &str) -> String {
    node.attrs.get(key).map(|value| value.as_str().into_owned()).unwrap_or_default()
}

/// The bytes of an element.
pub(crate) fn content(node: &Node) -> anyhow::Result<&[u8]> {
    match &node.content {
        Some(NodeContent::Bytes(bytes)) => Ok(bytes),
        Some(NodeContent::String(text)) => Ok(text.as_bytes()),
        _ => anyhow::bail!("<{}> has no bytes", node.tag),
    }
}
