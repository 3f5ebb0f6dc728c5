//! Postings: the sort keys of the messages of one segment that have a word, as differences of 7 bits a byte.

use crate::StoreError;
use bytes::Bytes;

/// Which messages of a segment have a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// The word. What is no word to be read, such as a chat, begins with a control character.
    pub word: String,
    /// The newest of the sort keys.
    pub newest: u64,
    /// The segment.
    pub segment: u32,
    /// The sort keys, newest first, each as its distance from the one before.
    pub keys: Bytes,
}

impl Posting {
    /// Of these sort keys, which are sorted, oldest first; none of none.
    pub fn new(word: String, segment: u32, keys: &[u64]) -> Option<Self> {
        let newest = *keys.last()?;
        let mut coded = Vec::with_capacity(keys.len() * 3);
        for pair in keys.windows(2).rev() {
            let mut distance = pair[1] - pair[0];
            while distance >= 0x80 {
                coded.push(distance as u8 | 0x80);
                distance >>= 7;
            }
            coded.push(distance as u8);
        }
        Some(Self { word, newest, segment, keys: coded.into() })
    }

    /// Where it stands among the postings of its word: by the newest sort key, newest first, then by segment.
    pub fn place(&self) -> (u64, u32) {
        (self.newest, self.segment)
    }

    /// Adds the sort keys below `below`, newest first.
    pub(super) fn read(&self, below: u64, into: &mut Vec<u64>) -> Result<(), StoreError> {
        let corrupt = || StoreError::Corrupt { what: "posting", detail: "its sort keys cannot be read".to_owned() };
        let mut key = self.newest;
        if key < below {
            into.push(key);
        }
        let (mut distance, mut shift) = (0_u64, 0_u32);
        for byte in &self.keys {
            if shift > 63 {
                return Err(corrupt());
            }
            distance |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                key = key.checked_sub(distance).ok_or_else(corrupt)?;
                if key < below {
                    into.push(key);
                }
                (distance, shift) = (0, 0);
            }
        }
        if shift == 0 { Ok(()) } else { Err(corrupt()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn keys_come_back(keys: BTreeSet<u64>, below: u64) {
            let keys: Vec<u64> = keys.into_iter().collect();
            let Some(posting) = Posting::new("w".to_owned(), 1, &keys) else {
                prop_assert!(keys.is_empty());
                return Ok(());
            };
            let mut read = Vec::new();
            posting.read(below, &mut read).unwrap();
            let expected: Vec<u64> = keys.into_iter().rev().filter(|key| *key < below).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn damage_is_an_error_or_other_keys(newest: u64, bytes: Vec<u8>) {
            let posting = Posting { word: "w".to_owned(), newest, segment: 0, keys: bytes.into() };
            let _ = posting.read(u64::MAX, &mut Vec::new());
        }
    }
}
