//! One connection of a client: handshake under a deadline, then a reader and a writer side by side in
//! one task.
//!
//! Invariant: after the client was told to go (`515`, `replaced`, `<failure>`) the socket stays open for
//! a grace, so that the last stanza is not overtaken by the close; the client normally closes first. What a client
//! does wrong ends its own connection alone, is counted, and is said in the websocket's close frame.

mod ended;
mod pump;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_websockets::{Limits as WsLimits, Message, ServerBuilder, WebSocketStream};
use wacore_noise::framing::append_frame_into;

use crate::frames::Frames;
use crate::handshake::{Accepted, Established};
use crate::link::Link;
use crate::oracle::Claim;
use crate::router::Session;
use crate::world::World;
use ended::Ended;

/// A websocket message may hold a whole frame and the start of others.
const MESSAGE_OVERHEAD: usize = 64 << 10;
/// How long a client may take to read why its connection is closed.
const LINGER: Duration = Duration::from_secs(1);

/// Serves one accepted socket until it ends.
pub(crate) async fn serve<S>(world: Arc<World>, socket: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let kill = world.stop.child_token();
    let ended = kill.run_until_cancelled(serve_until_closed(&world, socket, kill.clone())).await;
    let Some(ended) = ended else { return };
    tracing::debug!(error = %ended, "connection ended");
    if let Some(kind) = ended.kind() {
        world.stats.count(kind);
    }
}

async fn serve_until_closed<S>(world: &Arc<World>, socket: S, kill: CancellationToken) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // In a box, so that an established connection does not keep the room.
    let opened = Box::pin(open(world, socket)).await;
    let Opened { socket, claim, mut frames, established } = match opened {
        Ok(opened) => opened,
        Err(ended) => return ended,
    };
    frames.set_limit(world.config.limits.frame_bytes);
    let Established { read, write, client_static, payload } = established;
    let (link, receiver) = Link::new(world.next_number(), claim, kill);
    let session = Session::open(world, link.clone(), client_static, &payload);
    drop(payload);
    // Frees what the session holds even when this future is dropped by a kill.
    let session = Closing(session);
    let (mut sink, mut stream) = socket.split();
    let verdict = OnceLock::new();
    let ended = tokio::select! {
        ended = pump::read(&mut stream, &mut frames, &read, &session.0, &verdict) => ended,
        ended = pump::write(&mut sink, receiver, &write, &link, world) => ended,
    };
    // When the reader has told the writer to close, it is the reader that knows why.
    let ended = verdict.into_inner().unwrap_or(ended);
    drop(session);
    if let Some((code, reason)) = ended.close() {
        let told = async {
            sink.send(Message::close(Some(code), reason)).await?;
            while let Some(Ok(_)) = stream.next().await {}
            Ok::<_, tokio_websockets::Error>(())
        };
        let _ = tokio::time::timeout(LINGER, told).await;
    }
    ended
}

struct Closing(Session);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A connection after its handshake.
struct Opened<S> {
    socket: WebSocketStream<S>,
    claim: Claim,
    frames: Frames,
    established: Established,
}

/// Shakes hands, twice: as a websocket and as Noise.
async fn open<S>(world: &World, socket: S) -> Result<Opened<S>, Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &world.config.limits;
    let deadline = Instant::now() + world.config.handshake_timeout;
    let message_limit = limits.frame_bytes + MESSAGE_OVERHEAD;
    let builder = ServerBuilder::new().limits(WsLimits::default().max_payload_len(Some(message_limit)));
    let accepted = tokio::time::timeout_at(deadline, builder.accept(socket)).await;
    let (request, mut socket) = accepted.map_err(|_| Ended::Deadline)??;
    let claim = Claim::of(request.uri().query().unwrap_or_default());
    let mut frames = Frames::new(limits.handshake_frame_bytes);
    let shaken = tokio::time::timeout_at(deadline, shake(world, &mut socket, &mut frames)).await;
    match shaken.unwrap_or(Err(Ended::Deadline)) {
        Ok(established) => Ok(Opened { socket, claim, frames, established }),
        Err(ended) => {
            if let Some((code, reason)) = ended.close() {
                let told = async {
                    socket.send(Message::close(Some(code), reason)).await?;
                    while let Some(Ok(_)) = socket.next().await {}
                    Ok::<_, tokio_websockets::Error>(())
                };
                let _ = tokio::time::timeout(LINGER, told).await;
            }
            Err(ended)
        }
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
    append_frame_into(payload, None, &mut frame).map_err(|e| Ended::Write(e.to_string()))?;
    Ok(socket.send(Message::binary(frame.freeze())).await?)
}
