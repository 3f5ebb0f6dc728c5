//! Frames inside the websocket: a length of 3 bytes, then the payload; before the first one the client
//! sends its header, perhaps after an edge-routing introduction.
//!
//! Invariant: never buffers more than one frame of the allowed size and one websocket message, and
//! refuses a frame as soon as its length is known.

use bytes::{Buf, BytesMut};
use wacore_binary::consts::WA_CONN_HEADER;

const LENGTH_BYTES: usize = 3;
const EDGE_ROUTING: &[u8; 4] = b"ED\x00\x01";
const EDGE_ROUTING_LIMIT: usize = 4 << 10;

/// Why the bytes of a client are not frames.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// The connection does not begin with WhatsApp's header.
    #[error("unknown connection header")]
    Header,
    /// The client announced a frame that is longer than allowed.
    #[error("frame of {0} bytes is too long")]
    TooLong(usize),
}

/// Splits what a client sends into frames.
pub(crate) struct Frames {
    buffer: BytesMut,
    limit: usize,
    header: Option<[u8; 4]>,
}

impl Frames {
    /// Frames may have `limit` bytes at most.
    pub(crate) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit, header: None }
    }

    /// Changes the limit, for what follows the handshake.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The header that the client began with: the prologue of the Noise handshake.
    pub(crate) fn header(&self) -> [u8; 4] {
        self.header.unwrap_or(WA_CONN_HEADER)
    }

    /// Adds received bytes.
    pub(crate) fn feed(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// Takes the next whole frame, if it has arrived.
    pub(crate) fn next(&mut self) -> Result<Option<BytesMut>, FrameError> {
        if self.header.is_none() && !self.read_header()? {
            return Ok(None);
        }
        let [a, b, c, ..] = *self.buffer else {
            return Ok(None);
        };
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if length > self.limit {
            return Err(FrameError::TooLong(length));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let frame = self.buffer.split_to(length);
        if self.buffer.is_empty() {
            // An idle connection holds no buffer.
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }

    fn read_header(&mut self) -> Result<bool, FrameError> {
        let mut start = 0;
        if self.buffer.starts_with(EDGE_ROUTING) {
            let Some(&[a, b, c]) = self.buffer.get(4..7) else {
                return Ok(false);
            };
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if length > EDGE_ROUTING_LIMIT {
                return Err(FrameError::TooLong(length));
            }
            start = 7 + length;
        }
        let Some(header) = self.buffer.get(start..start + 4) else {
            return Ok(false);
        };
        if header[..2] != WA_CONN_HEADER[..2] {
            return Err(FrameError::Header);
        }
        self.header = header.try_into().ok();
        self.buffer.advance(start + 4);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_split_whatever_the_chunks() {
        let mut wire = WA_CONN_HEADER.to_vec();
        wire.extend([0, 0, 2, 7, 8, 0, 0, 1, 9]);
        let mut frames = Frames::new(16);
        let mut got = Vec::new();
        for byte in wire {
            frames.feed(&[byte]);
            while let Some(frame) = frames.next().unwrap() {
                got.push(frame.to_vec());
            }
        }
        assert_eq!(got, [vec![7, 8], vec![9]]);
        assert_eq!(frames.header(), WA_CONN_HEADER);
    }

    #[test]
    fn an_edge_routing_introduction_is_skipped() {
        let mut wire = b"ED\x00\x01\x00\x00\x02xy".to_vec();
        wire.extend(WA_CONN_HEADER);
        wire.extend([0, 0, 1, 5]);
        let mut frames = Frames::new(16);
        frames.feed(&wire);
        assert_eq!(frames.next().unwrap().unwrap().to_vec(), [5]);
    }

    #[test]
    fn garbage_and_long_frames_are_refused_at_once() {
        let mut frames = Frames::new(16);
        frames.feed(b"GET / HTTP/1.1");
        assert_eq!(frames.next(), Err(FrameError::Header));
        let mut frames = Frames::new(16);
        frames.feed(&WA_CONN_HEADER);
        frames.feed(&[0, 0, 17]);
        assert_eq!(frames.next(), Err(FrameError::TooLong(17)));
        let mut frames = Frames::new(16);
        frames.feed(b"ED\x00\x01\xff\xff\xff");
        assert!(frames.next().is_err());
    }
}
