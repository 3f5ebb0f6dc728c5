//! Key material encrypted at rest, above whatever engine keeps it.
//!
//! A value is encrypted with the first of the configured keys and read with the one that it names; where it stands
//! (session, kind and key of the row) is bound to it, so that no row can be passed off as another. Rows that were
//! written without encryption stay readable, and are encrypted when they are written again.
//!
//! ```text
//! f5 'r' 'k' 'e'  c3  <length of id> <id>  <nonce, 24 bytes>  <XChaCha20-Poly1305: value and tag of 16 bytes>
//! f5 'r' 'k' 'e'  3c  <a value in the clear that begins with these four bytes>
//! <any other value in the clear>
//! ```
//!
//! Invariant: a value is answered as it was written or not at all. Keys of rows are not encrypted: they are names, and
//! their order is what ranges go by.

use crate::{Fence, KeyKind, KeyOp, KeyStore, StoreError};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use rookery_protocol::SessionId;
use std::{fmt, sync::Arc};

/// What no value in the clear is stored with.
const MAGIC: &[u8; 4] = b"\xf5rke";
/// Apart by more than a bit, so that damage does not make one of the other.
const CLEAR: u8 = 0x3c;
const ENCRYPTED: u8 = 0xc3;

/// Length of a key in bytes.
pub const ENCRYPTION_KEY_BYTES: usize = 32;
/// Most keys at a time.
const MAX_KEYS: usize = 16;
/// Longest id of a key.
const MAX_ID_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// What the associated data begins with: what the ciphertext is for.
const PURPOSE: &[u8] = b"rookery key material 1";

/// The keys that key material is encrypted with: the first one for what is written, all for what is read. None: nothing
/// is encrypted. Cheap to clone; never shown.
#[derive(Clone, Default)]
pub struct EncryptionKeys(Arc<Vec<EncryptionKey>>);

struct EncryptionKey {
    id: String,
    cipher: XChaCha20Poly1305,
}

/// What is wrong with a list of keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncryptionKeysError {
    /// A line is no key.
    #[error("line {0}: not `<id>:<32 bytes in base64>`")]
    Line(usize),
    /// The id cannot be used.
    #[error("key {0}: an id has 1 to 32 letters, digits, `-`, `_` and `.`")]
    Id(usize),
    /// The id is there twice.
    #[error("key {0}: its id is there before")]
    Repeated(usize),
    /// There is none.
    #[error("there is no key")]
    Empty,
    /// There are too many.
    #[error("there are more than {MAX_KEYS} keys")]
    TooMany,
}

impl EncryptionKeys {
    /// These keys, each with its id, the one to write with first. Errors count them from 1.
    pub fn new(keys: Vec<(String, [u8; ENCRYPTION_KEY_BYTES])>) -> Result<Self, EncryptionKeysError> {
        let mut made: Vec<EncryptionKey> = Vec::with_capacity(keys.len());
        for (number, (id, key)) in (1..).zip(keys) {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if !(1..=MAX_ID_BYTES).contains(&id.len()) || !id.chars().all(legal) {
                return Err(EncryptionKeysError::Id(number));
            }
            if made.iter().any(|other| other.id == id) {
                return Err(EncryptionKeysError::Repeated(number));
            }
            if number > MAX_KEYS {
                return Err(EncryptionKeysError::TooMany);
            }
            made.push(EncryptionKey { id, cipher: XChaCha20Poly1305::new(&key.into()) });
        }
        Ok(Self(Arc::new(made)))
    }

    /// The keys that a text names, each in a line `<id>:<32 bytes in base64>`, the one to write with first. Empty lines
    /// and those that begin with `#` are nothing. Errors show no key.
    pub fn parse(text: &str) -> Result<Self, EncryptionKeysError> {
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = line.split_once(':').and_then(|(id, key)| {
                let key = BASE64.decode(key.trim()).ok()?.try_into().ok()?;
                Some((id.trim().to_owned(), key))
            });
            keys.push(key.ok_or(EncryptionKeysError::Line(number))?);
        }
        if keys.is_empty() { Err(EncryptionKeysError::Empty) } else { Self::new(keys) }
    }

    /// Whether nothing is encrypted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The stored form of a value.
    fn close(&self, session: SessionId, kind: KeyKind, key: &[u8], value: Bytes) -> Bytes {
        let Some(with) = self.0.first() else {
            return if value.starts_with(MAGIC) { [MAGIC, &[CLEAR][..], &value].concat().into() } else { value };
        };
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let place = place(session, kind, key);
        let payload = Payload { msg: &value, aad: &place };
        let sealed = with.cipher.encrypt(&XNonce::from(nonce), payload).expect("values are shorter than 256 GiB");
        let length = u8::try_from(with.id.len()).expect("an id has at most 32 bytes");
        [MAGIC, &[ENCRYPTED, length][..], with.id.as_bytes(), &nonce, &sealed].concat().into()
    }

    /// A value from its stored form.
    fn open(&self, session: SessionId, kind: KeyKind, key: &[u8], stored: Bytes) -> Result<Bytes, StoreError> {
        let corrupt = |detail: &str| StoreError::Corrupt {
            what: "key material",
            detail: format!("{kind:?} of session {session}: {detail}"),
        };
        let Some(rest) = stored.strip_prefix(MAGIC) else { return Ok(stored) };
        let rest = match rest.split_first() {
            Some((&CLEAR, value)) => return Ok(stored.slice_ref(value)),
            Some((&ENCRYPTED, rest)) => rest,
            _ => return Err(corrupt("the form of its encryption is not known")),
        };
        let (id, rest) = rest
            .split_first()
            .and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)))
            .ok_or_else(|| corrupt("it is cut short"))?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(|| corrupt("it is cut short"))?;
        let Some(with) = self.0.iter().find(|with| with.id.as_bytes() == id) else {
            return Err(StoreError::Locked { session, key_id: String::from_utf8_lossy(id).into_owned() });
        };
        let place = place(session, kind, key);
        let opened = with.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &place });
        opened
            .map(Bytes::from)
            .map_err(|_| corrupt(&format!("it was not encrypted with key `{}` for its place", with.id)))
    }
}

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

/// What is bound to a value: where it stands.
fn place(session: SessionId, kind: KeyKind, key: &[u8]) -> Vec<u8> {
    [PURPOSE, session.as_bytes(), &[kind as u8], key].concat()
}

/// Key material of an engine, encrypted.
pub(crate) struct EncryptedKeys {
    engine: Arc<dyn KeyStore>,
    keys: EncryptionKeys,
}

impl EncryptedKeys {
    /// The key material of this engine, with these keys.
    pub(crate) fn over(engine: Arc<dyn KeyStore>, keys: EncryptionKeys) -> Arc<dyn KeyStore> {
        Arc::new(Self { engine, keys })
    }

    fn open_all(
        &self,
        session: SessionId,
        kind: KeyKind,
        rows: Vec<(Bytes, Bytes)>,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        rows.into_iter()
            .map(|(key, stored)| {
                let value = self.keys.open(session, kind, &key, stored)?;
                Ok((key, value))
            })
            .collect()
    }
}

#[async_trait]
impl KeyStore for EncryptedKeys {
    async fn get(&self, session: SessionId, kind: KeyKind, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let stored = self.engine.get(session, kind, key).await?;
        stored.map(|stored| self.keys.open(session, kind, key, stored)).transpose()
    }

    async fn get_many(
        &self,
        session: SessionId,
        kind: KeyKind,
        keys: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let found = self.engine.get_many(session, kind, keys).await?;
        let open = |(key, stored): (&Bytes, Option<Bytes>)| {
            stored.map(|stored| self.keys.open(session, kind, key, stored)).transpose()
        };
        keys.iter().zip(found).map(open).collect()
    }

    async fn scan(&self, session: SessionId, kind: KeyKind, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.open_all(session, kind, self.engine.scan(session, kind, prefix).await?)
    }

    async fn range(
        &self,
        session: SessionId,
        kind: KeyKind,
        from: &[u8],
        until: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.open_all(session, kind, self.engine.range(session, kind, from, until, limit).await?)
    }

    async fn write(&self, fence: &Fence, ops: Vec<KeyOp>) -> Result<(), StoreError> {
        let close = |op| match op {
            KeyOp::Put { kind, key, value } => {
                let value = self.keys.close(fence.session(), kind, &key, value);
                KeyOp::Put { kind, key, value }
            }
            KeyOp::Delete { .. } => op,
        };
        self.engine.write(fence, ops.into_iter().map(close).collect()).await
    }

    async fn clear(&self, fence: &Fence) -> Result<(), StoreError> {
        self.engine.clear(fence).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(ids: &[&str]) -> EncryptionKeys {
        let key = |id: &&str| ((*id).to_owned(), [id.as_bytes()[0]; ENCRYPTION_KEY_BYTES]);
        EncryptionKeys::new(ids.iter().map(key).collect()).unwrap()
    }

    const KIND: KeyKind = KeyKind::Session;

    #[test]
    fn a_rotation_reads_both_and_writes_with_the_first() {
        let session = SessionId::generate();
        let (none, old, both, new) = (keys(&[]), keys(&["old"]), keys(&["new", "old"]), keys(&["new"]));
        let value = Bytes::from("secret value");
        let plain = none.close(session, KIND, b"k", value.clone());
        let first = old.close(session, KIND, b"k", value.clone());
        let second = both.close(session, KIND, b"k", value.clone());
        assert_eq!(plain, value);
        for stored in [&first, &second] {
            assert!(!stored.windows(6).any(|part| part == b"secret"));
        }
        for stored in [&plain, &first, &second] {
            assert_eq!(both.open(session, KIND, b"k", stored.clone()).unwrap(), value);
        }
        assert_eq!(new.open(session, KIND, b"k", second.clone()).unwrap(), value, "it was written with the first");
        for without in [&none, &new] {
            let error = without.open(session, KIND, b"k", first.clone()).unwrap_err();
            assert!(matches!(&error, StoreError::Locked { session: of, key_id } if *of == session && key_id == "old"));
            let said = error.to_string();
            assert!(said.contains(&session.to_string()) && said.contains("`old`"), "{said}");
        }
        assert_eq!(format!("{both:?}"), r#"["new", "old"]"#);
    }

    #[test]
    fn a_row_cannot_be_passed_off_as_another() {
        let (one, other) = (SessionId::generate(), SessionId::generate());
        let with = keys(&["a"]);
        let stored = with.close(one, KIND, b"k", Bytes::from("v"));
        for (session, kind, key) in
            [(other, KIND, &b"k"[..]), (one, KeyKind::Identity, b"k"), (one, KIND, b"K"), (one, KIND, b"")]
        {
            let moved = with.open(session, kind, key, stored.clone());
            assert!(matches!(moved, Err(StoreError::Corrupt { .. })), "{moved:?}");
        }
        let same_id = EncryptionKeys::new(vec![("a".to_owned(), [9; ENCRYPTION_KEY_BYTES])]).unwrap();
        let wrong_key = same_id.open(one, KIND, b"k", stored);
        assert!(matches!(wrong_key, Err(StoreError::Corrupt { .. })), "{wrong_key:?}");
    }

    #[test]
    fn keys_have_ids_of_their_own() {
        let with = |ids: &[&str]| {
            EncryptionKeys::new(ids.iter().map(|id| ((*id).to_owned(), [1; ENCRYPTION_KEY_BYTES])).collect()).err()
        };
        assert_eq!(with(&["a", "b"]), None);
        assert_eq!(with(&["a", ""]), Some(EncryptionKeysError::Id(2)));
        assert_eq!(with(&["a b"]), Some(EncryptionKeysError::Id(1)));
        assert_eq!(with(&["a", "b", "a"]), Some(EncryptionKeysError::Repeated(3)));
    }

    #[test]
    fn a_file_of_keys_is_read_and_what_is_wrong_with_it_named_by_line() {
        let (a, b) = (BASE64.encode([1; 32]), BASE64.encode([2; 32]));
        let parsed = EncryptionKeys::parse(&format!("# keys\n2026-11:{a}\n\n old : {b} \n")).unwrap();
        assert_eq!(format!("{parsed:?}"), r#"["2026-11", "old"]"#);
        let wrong = |text: &str| EncryptionKeys::parse(text).unwrap_err();
        assert_eq!(wrong(""), EncryptionKeysError::Empty);
        assert_eq!(wrong(&format!("# one\n{a}")), EncryptionKeysError::Line(2));
        assert_eq!(wrong(&format!("a:{}", BASE64.encode([1; 31]))), EncryptionKeysError::Line(1));
        assert_eq!(wrong("a:no base64"), EncryptionKeysError::Line(1));
        assert_eq!(wrong(&format!("a:{a}\na:{b}")), EncryptionKeysError::Repeated(2));
        assert_eq!(wrong(&format!("a b:{a}")), EncryptionKeysError::Id(1));
        assert!(!wrong("a:c2VjcmV0").to_string().contains("c2Vj"), "no key is shown");
    }

    proptest! {
        #[test]
        fn a_value_comes_back_as_it_was(value: Vec<u8>, key: Vec<u8>, magic: bool, encrypted: bool) {
            let (session, with) = (SessionId::generate(), if encrypted { keys(&["a"]) } else { keys(&[]) });
            let value = if magic { [&MAGIC[..], &value].concat() } else { value };
            let stored = with.close(session, KIND, &key, value.clone().into());
            prop_assert_eq!(with.open(session, KIND, &key, stored).unwrap(), value);
        }

        #[test]
        fn a_damaged_value_is_an_error_and_never_another_value(value: Vec<u8>, at: prop::sample::Index, bit in 0..8_u32) {
            let (session, with) = (SessionId::generate(), keys(&["a"]));
            let mut stored = with.close(session, KIND, b"k", value.into()).to_vec();
            // Without these four bytes it is a value in the clear.
            let at = MAGIC.len() + at.index(stored.len() - MAGIC.len());
            stored[at] ^= 1_u8 << bit;
            prop_assert!(with.open(session, KIND, b"k", stored.clone().into()).is_err());
            prop_assert!(with.open(session, KIND, b"k", Bytes::from(stored).slice(..at)).is_err());
        }
    }
}
