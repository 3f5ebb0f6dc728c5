//! From the bytes of a decrypted frame to a stanza, within bounds.
//!
//! The library's decoder trusts the sizes that a stanza states and follows JIDs inside of JIDs without end, so
//! that a frame of some bytes could exhaust memory or the stack. Hence a walk over the bytes that only counts comes
//! first. Pure.

use bytes::{Buf, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};
use wacore_binary::{Node, OwnedNodeRef, token};

/// Bytes of a stanza after decompression. WhatsApp's own clients hardly compress what they send.
const STANZA_BYTES: usize = 4 << 20;
/// Elements and attributes of a stanza: enough for a group of 1,024 members with their devices.
const PARTS: usize = 200_000;
/// Elements inside of each other; real stanzas have well under 20.
const DEPTH: usize = 100;
/// The flag of a compressed stanza, in the byte before it.
const COMPRESSED: u8 = 2;

/// Why bytes are no stanza.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// The bytes end too early.
    #[error("the stanza is cut off")]
    CutOff,
    /// It was not compressed as it says, or is too large when decompressed.
    #[error("the stanza cannot be decompressed to {STANZA_BYTES} bytes or less")]
    Decompress,
    /// It has too many elements or attributes.
    #[error("the stanza has more than {PARTS} parts")]
    TooMany,
    /// Elements are too deep inside of each other, or JIDs in JIDs.
    #[error("the stanza is too deep")]
    TooDeep,
    /// A byte stands where it has no meaning.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// Decodes the payload of a frame.
pub(crate) fn decode_frame(mut payload: BytesMut) -> Result<Node, DecodeError> {
    if payload.is_empty() {
        return Err(DecodeError::CutOff);
    }
    let flags = payload.get_u8();
    let stanza = if flags & COMPRESSED == 0 { payload.freeze() } else { inflate(&payload)? };
    decode_stanza(stanza)
}

/// Decodes a stanza without the byte of flags.
fn decode_stanza(stanza: Bytes) -> Result<Node, DecodeError> {
    let mut walk = Walk { bytes: &stanza, parts: 0 };
    walk.element(0)?;
    let decoded = OwnedNodeRef::new(stanza).map_err(|e| DecodeError::Malformed(e.to_string()))?;
    Ok(decoded.to_owned_node())
}

/// Decompresses in steps, so that a bomb costs no more than the limit.
fn inflate(data: &[u8]) -> Result<Bytes, DecodeError> {
    const STEP: usize = 64 << 10;
    let mut decompress = Decompress::new(true);
    let mut out = Vec::with_capacity(data.len().saturating_mul(4).clamp(256, STEP));
    loop {
        let (read, written) = (decompress.total_in(), out.len());
        let rest = usize::try_from(read).ok().and_then(|at| data.get(at..)).unwrap_or_default();
        let done = decompress.decompress_vec(rest, &mut out, FlushDecompress::None);
        if done.map_err(|_| DecodeError::Decompress)? == Status::StreamEnd {
            return if out.len() <= STANZA_BYTES { Ok(out.into()) } else { Err(DecodeError::Decompress) };
        }
        if out.len() >= STANZA_BYTES {
            return Err(DecodeError::Decompress);
        }
        if out.len() == out.capacity() {
            out.reserve(STEP);
        } else if decompress.total_in() == read && out.len() == written {
            // Nothing more comes of it although there is room: it is cut off.
            return Err(DecodeError::Decompress);
        }
    }
}

/// Walks over a stanza and counts.
struct Walk<'a> {
    bytes: &'a [u8],
    parts: usize,
}

impl Walk<'_> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.bytes.split_first().ok_or(DecodeError::CutOff)?;
        self.bytes = rest;
        Ok(*first)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, DecodeError> {
        let mut number = 0;
        for _ in 0..bytes {
            number = number << 8 | usize::from(self.byte()?);
        }
        Ok(number)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.bytes = self.bytes.get(bytes..).ok_or(DecodeError::CutOff)?;
        Ok(())
    }

    /// The size of a list, none when the byte begins no list. A part of a list has a byte at least.
    fn list(&mut self, first: u8) -> Result<Option<usize>, DecodeError> {
        let size = match first {
            token::LIST_EMPTY => 0,
            token::LIST_8 => self.number(1)?,
            token::LIST_16 => self.number(2)?,
            _ => return Ok(None),
        };
        if size > self.bytes.len() {
            return Err(DecodeError::CutOff);
        }
        self.parts += size;
        if self.parts > PARTS {
            return Err(DecodeError::TooMany);
        }
        Ok(Some(size))
    }

    fn element(&mut self, depth: usize) -> Result<(), DecodeError> {
        if depth >= DEPTH {
            return Err(DecodeError::TooDeep);
        }
        let first = self.byte()?;
        let malformed = || DecodeError::Malformed(format!("an element begins with {first}"));
        let size = self.list(first)?.filter(|size| *size > 0).ok_or_else(malformed)?;
        self.value(false)?;
        for _ in 0..(size - 1) / 2 {
            self.value(false)?;
            self.value(false)?;
        }
        if size % 2 == 1 {
            return Ok(());
        }
        let first = self.byte()?;
        match self.list(first)? {
            Some(children) => (0..children).try_for_each(|_| self.element(depth + 1)),
            None => self.value_from(first, false),
        }
    }

    fn value(&mut self, in_jid: bool) -> Result<(), DecodeError> {
        let first = self.byte()?;
        self.value_from(first, in_jid)
    }

    fn value_from(&mut self, first: u8, in_jid: bool) -> Result<(), DecodeError> {
        match first {
            token::JID_PAIR | token::AD_JID | token::INTEROP_JID | token::FB_JID if in_jid => Err(DecodeError::TooDeep),
            token::JID_PAIR => {
                self.value(true)?;
                self.value(true)
            }
            token::AD_JID => {
                self.skip(2)?;
                self.value(true)
            }
            token::INTEROP_JID => {
                self.value(true)?;
                self.skip(4)?;
                self.value(true)
            }
            token::FB_JID => {
                self.value(true)?;
                self.skip(2)?;
                self.value(true)
            }
            token::NIBBLE_8 | token::HEX_8 => {
                let bytes = self.number(1)? & usize::from(token::PACKED_MAX);
                self.skip(bytes)
            }
            token::BINARY_8 => {
                let bytes = self.number(1)?;
                self.skip(bytes)
            }
            token::BINARY_20 => {
                let bytes = self.number(3)? & 0x000f_ffff;
                self.skip(bytes)
            }
            token::BINARY_32 => {
                let bytes = self.number(4)?;
                self.skip(bytes)
            }
            token::DICTIONARY_0..=token::DICTIONARY_3 => self.skip(1),
            token::LIST_8 | token::LIST_16 => Err(DecodeError::Malformed("a list instead of a value".into())),
            // A token, or nothing; the decoder knows them.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use wacore_binary::Jid;

    use super::*;
    use crate::stanza::element;

    fn decode(bytes: &[u8]) -> Result<Node, DecodeError> {
        decode_frame(BytesMut::from(bytes))
    }

    fn compressed(stanza: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(vec![COMPRESSED], Compression::best());
        encoder.write_all(stanza).unwrap();
        encoder.finish().unwrap()
    }

    /// An element with a child, with a child...
    fn nested(depth: usize) -> Vec<u8> {
        let mut stanza = vec![0];
        for _ in 0..depth {
            stanza.extend([token::LIST_8, 2, 5, token::LIST_8, 1]);
        }
        stanza.extend([token::LIST_8, 1, 5]);
        stanza
    }

    #[test]
    fn whatever_the_library_encodes_is_decoded() {
        let jids = [
            Jid::pn("1"),
            Jid::pn_device("15550001", 3),
            Jid::lid_device("100000000000001", 70),
            "1-2@g.us".parse().unwrap(),
        ];
        for jid in jids {
            for size in [0, 1, 255, 256, 70_000, 1 << 20] {
                let child = element("enc").attr("v", "2").attr("odd", "0123456789-.").bytes(vec![7; size]).build();
                let children = vec![child; if size < 300 { 300 } else { 2 }];
                let node = element("message").attr("to", &jid).attr("id", "3EB0A1").children(children).build();
                let wire = wacore_binary::marshal(&node).unwrap();
                assert_eq!(decode(&wire).unwrap(), node, "{jid} {size}");
                assert_eq!(decode(&compressed(&wire[1..])).unwrap(), node, "{jid} {size}, compressed");
            }
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert!(decode(&nested(DEPTH - 1)).is_ok());
        assert_eq!(decode(&nested(DEPTH)), Err(DecodeError::TooDeep));
        assert_eq!(decode(&nested(500_000)), Err(DecodeError::TooDeep));
        let mut jids = vec![0, token::LIST_8, 1];
        jids.resize(3 << 20, token::JID_PAIR);
        assert_eq!(decode(&jids), Err(DecodeError::TooDeep), "JIDs in JIDs");
    }

    #[test]
    fn sizes_are_not_trusted() {
        assert_eq!(decode(&[0, token::LIST_16, 0xff, 0xff, 5]), Err(DecodeError::CutOff));
        assert_eq!(
            decode(&[0, token::LIST_8, 2, 5, token::BINARY_32, 0xff, 0xff, 0xff, 0xff]),
            Err(DecodeError::CutOff)
        );
        let mut wide = vec![0, token::LIST_8, 2, 5, token::LIST_16, 0xff, 0xff];
        for _ in 0..4 {
            wide.extend([token::LIST_8, 2, 5, token::LIST_16, 0xff, 0xff]);
            wide.extend([token::LIST_8, 1, 5].repeat(0xffff));
        }
        assert_eq!(decode(&wide), Err(DecodeError::TooMany));
    }

    #[test]
    fn a_decompression_bomb_costs_no_more_than_the_limit() {
        let bomb = compressed(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        assert_eq!(decode(&bomb), Err(DecodeError::Decompress));
        let whole = compressed(&nested(3)[1..]);
        assert!(decode(&whole).is_ok());
        for end in 1..whole.len() {
            assert!(decode(&whole[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn garbage_is_an_error() {
        assert_eq!(decode(&[]), Err(DecodeError::CutOff));
        let mut state = 7u32;
        for length in 0..3_000 {
            let mut bytes = vec![0, token::LIST_8];
            for _ in 0..length % 60 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                bytes.push((state >> 24) as u8);
            }
            // Whatever it is: no panic.
            let _ = decode(&bytes);
        }
    }
}
