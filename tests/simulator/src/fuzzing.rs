//! What fuzz targets call, and the test that keeps their corpora alive. Not for anybody else.
//!
//! Each function takes any bytes, must not panic, and checks what must hold for all of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::runtime::Runtime;

use crate::admin;
use crate::config::Config;
use crate::decode::decode_frame;
use crate::frames::{FrameError, Frames};
use crate::handshake::{Accepted, Identity};
use crate::stanza::encode;
use crate::world::World;

/// Bytes of a frame.
const LIMIT: usize = 4 << 10;
/// Requests after which a world is thrown away: each may make phones.
const REQUESTS: usize = 200;
/// How long a request may take here; some wait on purpose.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(50);

/// Frames are the same however the bytes arrive. The first byte says in what pieces.
pub fn frames(data: &[u8]) {
    let Some((size, wire)) = data.split_first() else {
        return;
    };
    let whole = split(wire, wire.len().max(1));
    let pieces = split(wire, usize::from(*size).max(1));
    assert_eq!(whole, pieces);
    assert!(whole.0.iter().all(|frame| frame.len() <= LIMIT));
}

fn split(wire: &[u8], size: usize) -> (Vec<BytesMut>, Option<FrameError>) {
    let mut frames = Frames::new(LIMIT);
    let mut got = Vec::new();
    for piece in wire.chunks(size) {
        frames.feed(piece);
        loop {
            match frames.next() {
                Ok(Some(frame)) => got.push(frame),
                Ok(None) => break,
                Err(error) => return (got, Some(error)),
            }
        }
    }
    (got, None)
}

/// What can be decoded can be encoded, and when that can be decoded it stays the same. (Some JIDs are written in another
/// form than they are read.)
pub fn stanza(data: &[u8]) {
    let Ok(node) = decode_frame(BytesMut::from(data)) else {
        return;
    };
    let Some(encoded) = encode(&node) else { return };
    let Ok(again) = decode_frame(BytesMut::from(&encoded[..])) else {
        return;
    };
    let twice = encode(&again).expect("it was encoded before");
    assert_eq!(decode_frame(BytesMut::from(&twice[..])).ok(), Some(again));
}

/// The server's side of a handshake.
pub struct Handshakes(Identity);

impl Default for Handshakes {
    fn default() -> Self {
        Self(Identity::generate().expect("keys can be made"))
    }
}

impl Handshakes {
    /// A hello, and behind its length in two bytes a finish.
    pub fn shake(&self, data: &[u8]) {
        let [a, b, rest @ ..] = data else { return };
        let length = (usize::from(*a) << 8 | usize::from(*b)).min(rest.len());
        let (hello, finish) = rest.split_at(length);
        if let Ok(Accepted::Continue(_, waiting)) = self.0.accept(b"WA\x06\x03", hello) {
            assert!(waiting.finish(finish).is_err(), "nobody can guess a finish");
        }
    }
}

/// An admin port without a socket.
pub struct Admin {
    runtime: Runtime,
    world: Option<Arc<World>>,
    requests: usize,
}

impl Default for Admin {
    fn default() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { runtime: runtime.expect("a runtime"), world: None, requests: 0 }
    }
}

impl Admin {
    /// A request: its method and its path with its query on the first line, and then its body. Answers the status.
    pub fn request(&mut self, data: &[u8]) -> u16 {
        if self.requests.is_multiple_of(REQUESTS) {
            self.world = None;
        }
        self.requests += 1;
        let _context = self.runtime.enter();
        let world = self
            .world
            .get_or_insert_with(|| World::new(Config::default(), Identity::generate().expect("keys can be made")));
        let answer = admin::answer_line(world.clone(), data);
        let answered = self.runtime.block_on(async { tokio::time::timeout(REQUEST_TIMEOUT, answer).await });
        let status = answered.unwrap_or(408);
        assert!(matches!(status, 200 | 400..=499 | 503), "status {status}");
        status
    }
}
