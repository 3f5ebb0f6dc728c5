//! The connection as `ractor_cluster` gets it: buffered reads, a watchdog on either half, and a note of how it ended.
//!
//! The watchdog makes a silent peer a dead one, which `ractor_cluster` does not notice by itself: no byte read within
//! the time, or none written while there are some to write, ends the connection. What is bounded is the waiting, so a
//! process that was suspended and finds bytes in its socket reads them instead of giving up.

use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};
use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader, ReadBuf},
    time::{Instant, Sleep},
};

const READ_BUFFER_BYTES: usize = 64 << 10;

/// Why a link went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The other side closed or reset the connection, or the kernel of its host did because the process is gone.
    Reset,
    /// The other side was silent, or stopped reading, for too long.
    Silent,
    /// This side ended it: the peer is no member any more, a newer connection took its place, or the node is stopping.
    Ended,
    /// Something was wrong on the wire.
    Broken,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "reset by the peer",
            Self::Silent => "peer is silent",
            Self::Ended => "ended by this node",
            Self::Broken => "broken",
        })
    }
}

/// What both halves of a connection note for whoever looks at it from outside.
#[derive(Default)]
pub(super) struct Notes {
    end: OnceLock<Cause>,
    writes: AtomicU64,
}

impl Notes {
    /// Why it ended, when that is known; the first reason stands.
    pub(super) fn end(&self) -> Option<Cause> {
        self.end.get().copied()
    }

    pub(super) fn note_end(&self, cause: Cause) {
        let _ = self.end.set(cause);
    }

    /// How many writes there have been: a number that stands still says that nothing waits.
    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }
}

/// A connected stream of bytes.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Duplex for T {}

/// A connection after its preface.
pub(super) struct Transport {
    pub(super) stream: Box<dyn Duplex>,
    pub(super) idle: Duration,
    pub(super) notes: Arc<Notes>,
    /// By what the node session of this connection is found again.
    pub(super) label: String,
}

impl ClusterBidiStream for Transport {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        let (read, write) = tokio::io::split(self.stream);
        let reader = Watched::new(read, self.idle, self.notes.clone());
        let writer = Watched::new(write, self.idle, self.notes);
        (Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, reader)), Box::new(writer))
    }

    fn peer_label(&self) -> Option<String> {
        Some(self.label.clone())
    }
}

/// A half that ends when it waits for too long.
struct Watched<T> {
    inner: T,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    waiting: bool,
    notes: Arc<Notes>,
}

impl<T> Watched<T> {
    fn new(inner: T, idle: Duration, notes: Arc<Notes>) -> Self {
        Self { inner, idle, timer: Box::pin(tokio::time::sleep(idle)), waiting: false, notes }
    }

    /// Passes on what the inner half said, but not that it waits for longer than allowed.
    fn watch<R>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        match polled {
            Poll::Ready(Err(error)) => {
                self.notes.note_end(cause(&error));
                Poll::Ready(Err(error))
            }
            Poll::Ready(done) => {
                self.waiting = false;
                Poll::Ready(done)
            }
            Poll::Pending => {
                if !self.waiting {
                    self.waiting = true;
                    let deadline = Instant::now() + self.idle;
                    self.timer.as_mut().reset(deadline);
                }
                ready!(self.timer.as_mut().poll(cx));
                self.notes.note_end(Cause::Silent);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "peer is silent")))
            }
        }
    }
}

fn cause(error: &io::Error) -> Cause {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut, UnexpectedEof};
    match error.kind() {
        // TLS calls it unexpected when a connection ends without farewell, as that of a killed process does.
        ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected | UnexpectedEof => Cause::Reset,
        TimedOut => Cause::Silent,
        _ => Cause::Broken,
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if matches!(polled, Poll::Ready(Ok(()))) && buf.filled().len() == before && buf.remaining() > 0 {
            self.notes.note_end(Cause::Reset);
        }
        self.watch(cx, polled)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        if polled.is_ready() {
            self.notes.writes.fetch_add(1, Ordering::Relaxed);
        }
        self.watch(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const IDLE: Duration = Duration::from_millis(200);

    fn transport(stream: impl Duplex) -> (BoxRead, BoxWrite, Arc<Notes>) {
        let notes = Arc::new(Notes::default());
        let transport = Transport { stream: Box::new(stream), idle: IDLE, notes: notes.clone(), label: String::new() };
        let (read, write) = Box::new(transport).split();
        (read, write, notes)
    }

    #[tokio::test]
    async fn a_silent_peer_is_given_up_after_the_time_and_not_before() {
        let (mut peer, stream) = tokio::io::duplex(64);
        let (mut read, _write, notes) = transport(stream);
        let start = Instant::now();
        let talk = async {
            tokio::time::sleep(IDLE / 2).await;
            peer.write_all(b"x").await.unwrap();
            peer
        };
        let (_peer, byte) = tokio::join!(talk, read.read_u8());
        assert_eq!(byte.unwrap(), b'x');
        assert_eq!(read.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= IDLE + IDLE / 2, "{:?}", start.elapsed());
        assert_eq!(notes.end(), Some(Cause::Silent));
    }

    #[tokio::test]
    async fn a_peer_that_stops_reading_is_given_up() {
        let (_peer, stream) = tokio::io::duplex(64);
        let (_read, mut write, notes) = transport(stream);
        assert_eq!(write.write_all(&[0; 100]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(notes.end(), Some(Cause::Silent));
    }

    #[tokio::test]
    async fn a_closed_connection_is_a_reset() {
        let (peer, stream) = tokio::io::duplex(64);
        let (mut read, _write, notes) = transport(stream);
        drop(peer);
        assert!(read.read_u8().await.is_err());
        assert_eq!(notes.end(), Some(Cause::Reset));
    }
}
