//! Reads stanzas from an established connection, and writes those that wait.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_websockets::{Error as WsError, Message};
use wacore_noise::NoiseCipher;
use wacore_noise::framing::append_frame_into;

use super::ended::Ended;
use crate::decode::decode_frame;
use crate::faults::Break;
use crate::frames::Frames;
use crate::link::{Link, Outgoing};
use crate::router::{self, Session};
use crate::stanza::element;
use crate::world::World;

/// Stanzas that are written together.
const WRITE_BATCH: usize = 64;

/// Reads until the connection ends. A client that sends what is no stanza is told so, and has the usual grace to
/// close; nothing more of it counts, and `verdict` says why.
pub(super) async fn read<T>(
    stream: &mut T,
    frames: &mut Frames,
    cipher: &NoiseCipher,
    session: &Session,
    verdict: &OnceLock<Ended>,
) -> Ended
where
    T: Stream<Item = Result<Message, WsError>> + Unpin,
{
    let Err(ended) = read_stanzas(stream, frames, cipher, session).await else {
        return Ended::Closed;
    };
    if !matches!(ended, Ended::Stanza(_)) {
        return ended;
    }
    let _ = verdict.set(ended);
    let error = element("stream:error").children([element("xml-not-well-formed").build()]).build();
    session.link.say_and_close(Some(&error), session.world.config.close_grace);
    while let Some(Ok(message)) = stream.next().await {
        if message.is_close() {
            break;
        }
    }
    Ended::Closed
}

async fn read_stanzas<T>(
    stream: &mut T,
    frames: &mut Frames,
    cipher: &NoiseCipher,
    session: &Session,
) -> Result<(), Ended>
where
    T: Stream<Item = Result<Message, WsError>> + Unpin,
{
    let link = &session.link;
    let pending_replies = session.world.config.limits.pending_replies;
    let mut counter = 0;
    loop {
        while let Some(mut frame) = frames.next()? {
            cipher.decrypt_in_place_with_counter(counter, &mut frame).map_err(|_| Ended::Decrypt)?;
            counter += 1;
            let node = decode_frame(frame)?;
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

/// What is to be done after a batch was written.
enum After {
    GoOn,
    Break,
    Close(std::time::Duration),
}

/// Writes until the connection is to end.
pub(super) async fn write<T>(
    sink: &mut T,
    mut receiver: mpsc::UnboundedReceiver<Outgoing>,
    cipher: &NoiseCipher,
    link: &Link,
    world: &World,
) -> Ended
where
    T: Sink<Message, Error = WsError> + Unpin,
{
    let mut counter = 0;
    let mut batch = Vec::new();
    loop {
        let taken = receiver.recv_many(&mut batch, WRITE_BATCH).await;
        if taken == 0 {
            return Ended::Closed;
        }
        link.while_frozen().await;
        if let Some(pause) = world.faults.pause(link.device.get()) {
            tokio::time::sleep(pause).await;
        }
        let mut buffer = BytesMut::new();
        let mut after = match seal(&mut batch, cipher, &mut counter, &mut buffer) {
            Ok(after) => after,
            Err(ended) => return ended,
        };
        match world.faults.breaks(link.device.get()) {
            Some(Break::Drop) => return Ended::Broken,
            Some(Break::Cut) => {
                buffer.truncate(buffer.len() - buffer.len().min(3));
                after = After::Break;
            }
            None => {}
        }
        if !buffer.is_empty()
            && let Err(error) = sink.send(Message::binary(buffer.freeze())).await
        {
            return error.into();
        }
        link.written(taken);
        match after {
            After::GoOn => {}
            After::Break => return Ended::Broken,
            After::Close(grace) => {
                tokio::time::sleep(grace).await;
                return Ended::Dismissed;
            }
        }
        if batch.capacity() > 0 && receiver.is_empty() {
            // An idle connection holds no buffer.
            batch = Vec::new();
        }
    }
}

/// Encrypts and frames a batch.
fn seal(
    batch: &mut Vec<Outgoing>,
    cipher: &NoiseCipher,
    counter: &mut u32,
    buffer: &mut BytesMut,
) -> Result<After, Ended> {
    let failed = |e: &dyn std::fmt::Display| Ended::Write(e.to_string());
    let mut after = After::GoOn;
    for outgoing in batch.drain(..) {
        let (stanza, cut) = match outgoing {
            Outgoing::Close(grace) => {
                after = After::Close(grace);
                continue;
            }
            Outgoing::Stanza(stanza) => (stanza, false),
            Outgoing::Cut(stanza) => (stanza, true),
        };
        let sealed = cipher.encrypt_with_counter(*counter, &stanza).map_err(|e| failed(&e))?;
        *counter += 1;
        append_frame_into(&sealed, None, buffer).map_err(|e| failed(&e))?;
        if cut {
            buffer.truncate(buffer.len() - sealed.len() / 2);
            return Ok(After::Break);
        }
    }
    Ok(after)
}

impl Link {
    /// So many stanzas are on their way.
    fn written(&self, count: usize) {
        self.depth.fetch_sub(count, Ordering::Relaxed);
        self.drained.notify_one();
    }
}
