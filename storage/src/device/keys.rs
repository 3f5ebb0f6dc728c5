//! Keys made of several texts.
//!
//! All but the last stand behind their length, so that no two lists of texts make the same key, whatever is in
//! the texts: some come from other people's messages.

use bytes::{BufMut, Bytes, BytesMut};

/// The key of these texts.
pub(super) fn joined<const N: usize>(texts: [&str; N]) -> Bytes {
    let mut key = BytesMut::with_capacity(texts.iter().map(|text| text.len() + 4).sum());
    for (index, text) in texts.into_iter().enumerate() {
        if index + 1 < N {
            put_part(&mut key, text.as_bytes());
        } else {
            key.put_slice(text.as_bytes());
        }
    }
    key.freeze()
}

/// What all keys begin with whose first text is this one; more texts may follow.
pub(super) fn first(text: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(text.len() + 4);
    put_part(&mut key, text.as_bytes());
    key.freeze()
}

/// The key with a tag before it.
pub(super) fn tagged(tag: u8, key: &[u8]) -> Bytes {
    let mut tagged = BytesMut::with_capacity(key.len() + 1);
    tagged.put_u8(tag);
    tagged.put_slice(key);
    tagged.freeze()
}

/// A text and the bytes after it, of a key that begins with that text.
pub(super) fn split(key: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = key.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (text, rest) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

fn put_part(key: &mut BytesMut, part: &[u8]) {
    key.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
    key.put_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_are_equal_only_when_all_texts_are(a: (String, String), b: (String, String)) {
            prop_assert_eq!(joined([&a.0, &a.1]) == joined([&b.0, &b.1]), a == b);
            prop_assert_eq!(joined([&a.0, &a.1]).starts_with(&first(&b.0)), a.0 == b.0);
        }

        #[test]
        fn a_key_gives_its_first_text(first_text: String, second: String) {
            let key = joined([&first_text, &second]);
            prop_assert_eq!(split(&key), Some((first_text.as_str(), second.as_bytes())));
        }

        #[test]
        fn no_bytes_make_the_split_panic(bytes: Vec<u8>) {
            let _ = split(&bytes);
        }
    }
}
