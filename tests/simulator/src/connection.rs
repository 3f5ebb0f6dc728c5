//! One connection of a client: handshake under a deadline, then a reader and a writer side by side in
//! one task.
//!
//! Invariant: after the client was told to go (`515`, `replaced`, `<failure>`) the socket stays open for
//! a grace, so that the last stanza is not overtaken by the close; the client normally closes first.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_websockets::{Limits as WsLimits, Message, ServerBuilder, WebSocketStream};
use wacore_noise::NoiseCipher;
use wacore_noise::framing::append_frame_into;

use crate::frames::Frames;
use crate::handshake::{Accepted, Established};
use crate::link::{Link, Outgoing};
use crate::router::{self, Session};
use crate::world::World;

/// Stanzas that are written together.
const WRITE_BATCH: usize = 64;
/// A websocket message may hold a whole frame and the start of others.
const MESSAGE_OVERHEAD: usize = 64 << 10;

/// Why a connection ended; for the log.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("closed by the client")]
    Closed,
    #[error("websocket: {0}")]
    WebSocket(#[from] tokio_websockets::Error),
    #[error(transparent)]
    Frame(#[from] crate::frames::FrameError),
    #[error(transparent)]
    Handshake(#[from] crate::handshake::HandshakeError),
    #[error("no handshake in time")]
    Deadline,
    #[error("cannot decrypt or decode a frame: {0}")]
    Stanza(String),
}

/// Serves one accepted socket until it ends.
pub(crate) async fn serve<S>(world: Arc<World>, socket: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let kill = world.stop.child_token();
    let ended = kill.run_until_cancelled(serve_until_closed(&world, socket, kill.clone())).await;
    if let Some(Err(error)) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn serve_until_closed<S>(world: &Arc<World>, socket: S, kill: CancellationToken) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &world.config.limits;
    let message_limit = limits.frame_bytes + MESSAGE_OVERHEAD;
    let mut frames = Frames::new(limits.handshake_frame_bytes);
    let handshake = async {
        let (_, mut socket) = ServerBuilder::new()
            .limits(WsLimits::default().max_payload_len(Some(message_limit)))
            .accept(socket)
            .await?;
        let established = shake(world, &mut socket, &mut frames).await?;
        Ok::<_, Ended>((socket, established))
    };
    let (socket, established) =
        tokio::time::timeout(world.config.handshake_timeout, handshake).await.map_err(|_| Ended::Deadline)??;
    frames.set_limit(limits.frame_bytes);
    let Established { read, write, client_static, payload } = established;
    let (link, receiver) = Link::new(world.next_number(), kill);
    let session = Session::open(world, link.clone(), client_static, &payload);
    drop(payload);
    // Frees what the session holds even when this future is dropped by a kill.
    let session = Closing(session);
    let (mut sink, mut stream) = socket.split();
    tokio::select! {
        ended = read_loop(&mut stream, &mut frames, &read, &session.0) => ended,
        ended = write_loop(&mut sink, receiver, &write, &link, world) => ended,
    }
}

struct Closing(Session);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn shake<S>(world: &World, socket: &mut WebSocketStream<S>, frames: &mut Frames) -> Result<Established, Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = next_frame(socket, frames).await?;
    match world.identity.accept(&frames.header(), &hello)? {
        Accepted::Done(reply, established) => {
            send_frame(socket, &reply).await?;
            Ok(*established)
        }
        Accepted::Continue(reply, waiting) => {
            send_frame(socket, &reply).await?;
            let finish = next_frame(socket, frames).await?;
            Ok(waiting.finish(&finish)?)
        }
    }
}

async fn next_frame<S>(socket: &mut WebSocketStream<S>, frames: &mut Frames) -> Result<BytesMut, Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        if let Some(frame) = frames.next()? {
            return Ok(frame);
        }
        let message = socket.next().await.ok_or(Ended::Closed)??;
        if message.is_close() {
            return Err(Ended::Closed);
        }
        if message.is_binary() {
            frames.feed(message.as_payload());
        }
    }
}

async fn send_frame<S>(socket: &mut WebSocketStream<S>, payload: &[u8]) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut frame = BytesMut::new();
    append_frame_into(payload, None, &mut frame).map_err(|e| Ended::Stanza(e.to_string()))?;
    Ok(socket.send(Message::binary(frame.freeze())).await?)
}

async fn read_loop<T>(stream: &mut T, frames: &mut Frames, cipher: &NoiseCipher, session: &Session) -> Result<(), Ended>
where
    T: futures_util::Stream<Item = Result<Message, tokio_websockets::Error>> + Unpin,
{
    let link = &session.link;
    let pending_replies = session.world.config.limits.pending_replies;
    let mut counter = 0;
    loop {
        while let Some(mut frame) = frames.next()? {
            cipher.decrypt_in_place_with_counter(counter, &mut frame).map_err(|e| Ended::Stanza(e.to_string()))?;
            counter += 1;
            let node = wacore_binary::util::unpack_bytes(frame)
                .and_then(wacore_binary::OwnedNodeRef::new)
                .map_err(|e| Ended::Stanza(e.to_string()))?
                .to_owned_node();
            router::handle(session, &node);
            link.backlog_cleared(pending_replies).await;
        }
        let message = stream.next().await;
        link.while_frozen().await;
        match message {
            Some(Ok(message)) if message.is_binary() => frames.feed(message.as_payload()),
            Some(Ok(message)) if message.is_close() => {
                // The next poll answers the close frame.
                let _ = stream.next().await;
                return Ok(());
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(()),
        }
    }
}

async fn write_loop<T>(
    sink: &mut T,
    mut receiver: mpsc::UnboundedReceiver<Outgoing>,
    cipher: &NoiseCipher,
    link: &Link,
    world: &World,
) -> Result<(), Ended>
where
    T: futures_util::Sink<Message, Error = tokio_websockets::Error> + Unpin,
{
    let mut counter = 0;
    let mut batch = Vec::new();
    loop {
        let taken = receiver.recv_many(&mut batch, WRITE_BATCH).await;
        if taken == 0 {
            return Ok(());
        }
        link.while_frozen().await;
        if let Some(pause) = world.faults.pause() {
            tokio::time::sleep(pause).await;
        }
        let mut buffer = BytesMut::new();
        let mut close = None;
        let mut cut = false;
        for outgoing in batch.drain(..) {
            match outgoing {
                Outgoing::Stanza(_) | Outgoing::Cut(_) if cut => {}
                Outgoing::Stanza(stanza) => {
                    let sealed =
                        cipher.encrypt_with_counter(counter, &stanza).map_err(|e| Ended::Stanza(e.to_string()))?;
                    counter += 1;
                    append_frame_into(&sealed, None, &mut buffer).map_err(|e| Ended::Stanza(e.to_string()))?;
                }
                Outgoing::Cut(stanza) => {
                    let sealed =
                        cipher.encrypt_with_counter(counter, &stanza).map_err(|e| Ended::Stanza(e.to_string()))?;
                    append_frame_into(&sealed, None, &mut buffer).map_err(|e| Ended::Stanza(e.to_string()))?;
                    buffer.truncate(buffer.len() - sealed.len() / 2);
                    cut = true;
                }
                Outgoing::Close(grace) => close = Some(grace),
            }
        }
        if !buffer.is_empty() {
            sink.send(Message::binary(buffer.freeze())).await?;
        }
        link.depth.fetch_sub(taken, Ordering::Relaxed);
        link.drained.notify_one();
        if cut {
            return Ok(());
        }
        if let Some(grace) = close {
            tokio::time::sleep(grace).await;
            sink.close().await?;
            return Ok(());
        }
    }
}
