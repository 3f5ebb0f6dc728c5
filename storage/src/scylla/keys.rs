//! Key material: one partition a session, on the path of every message, so without the detour over operations.
//!
//! What is written together is one batch in one partition. Nothing here reads before it writes: who does holds a lock
//! of its own ([`crate::device`]).

use super::{
    client::Failure,
    operations::{Core, Operations, blob},
    stamp::Stamp,
    statements::Stored,
};
use crate::{Fence, KeyKind, KeyOp, KeyStore, StoreError, embedded::codec, metrics::record};
use async_trait::async_trait;
use bytes::Bytes;
use rookery_protocol::SessionId;
use scylla::value::CqlValue;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// What errors call a row.
const ROW: &str = "key material";
/// Longest key that is stored, in bytes: as in the embedded engine.
const MAX_KEY_BYTES: usize = 16 * 1024;
/// Largest value, and largest list of changes, in bytes.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Keys that are asked for at once.
const AT_ONCE: usize = 50;
/// Rows of one page of a range.
const PAGE: usize = 1_000;

#[async_trait]
impl KeyStore for Operations {
    async fn get(&self, session: SessionId, kind: KeyKind, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.get_many(session, kind, &[Bytes::copy_from_slice(key)]).await?;
        Ok(found.into_iter().next().flatten())
    }

    async fn get_many(
        &self,
        session: SessionId,
        kind: KeyKind,
        keys: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let start = Instant::now();
        let asked: BTreeSet<Vec<u8>> = keys.iter().map(|key| stored_key(kind, key)).collect();
        let asked: Vec<_> = asked.into_iter().collect();
        let partition = session.as_bytes().to_vec();
        let mut found = BTreeMap::new();
        for chunk in asked.chunks(AT_ONCE) {
            let rows = self.0.many(Stored::Keys, vec![partition.clone()], chunk.to_vec()).await?;
            found.extend(rows.into_iter().map(|((_, key), value)| (key, value)));
        }
        record("key_get_many", start);
        let answer = keys.iter().map(|key| {
            let key = stored_key(kind, key);
            found.get(&key).map(|stored| value(session, &key, stored)).transpose()
        });
        answer.collect()
    }

    async fn scan(&self, session: SessionId, kind: KeyKind, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let from = stored_key(kind, prefix);
        let until = crate::tables::end_of(&from);
        self.0.key_rows(session, from, until, usize::MAX).await
    }

    async fn range(
        &self,
        session: SessionId,
        kind: KeyKind,
        from: &[u8],
        until: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.0.key_rows(session, stored_key(kind, from), Some(stored_key(kind, until)), limit).await
    }

    async fn write(&self, fence: &Fence, ops: Vec<KeyOp>) -> Result<(), StoreError> {
        let start = Instant::now();
        let mut last: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for op in ops {
            let (key, value) = match op {
                KeyOp::Put { kind, key, value } => (stored_key(kind, &key), Some(codec::wrap(&value))),
                KeyOp::Delete { kind, key } => (stored_key(kind, &key), None),
            };
            if key.len() + 16 > MAX_KEY_BYTES && value.is_some() {
                return Err(StoreError::Refused("a key is too long"));
            }
            last.insert(key, value);
        }
        // What cannot be stored is not there either.
        last.retain(|key, _| key.len() + 16 <= MAX_KEY_BYTES);
        self.0.check(fence).await?;
        fence.guarded(self.0.write_keys(fence, last)).await?;
        record("key_write", start);
        Ok(())
    }

    async fn clear(&self, fence: &Fence) -> Result<(), StoreError> {
        self.0.check(fence).await?;
        let partition = fence.session();
        let erase = async { Ok(self.0.erase(Stored::Keys, partition.as_bytes(), Stamp::next(fence)?).await?) };
        fence.guarded(erase).await
    }
}

impl Core {
    /// Refuses a fence that this process knows to be old, and one of a session that is gone. One that only another
    /// process knows to be old is not refused: what it writes loses by its timestamp.
    pub(super) async fn check(&self, fence: &Fence) -> Result<(), StoreError> {
        let session = fence.session();
        let newest = self.epoch(session).await?.ok_or(StoreError::NotFound("session"))?;
        if newest == fence.epoch() { Ok(()) } else { Err(StoreError::Fenced { session, epoch: fence.epoch() }) }
    }

    async fn write_keys(&self, fence: &Fence, changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Result<(), StoreError> {
        let bytes: usize = changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        if bytes > MAX_BYTES {
            return Err(StoreError::Refused("a list of changes is too large"));
        }
        let (of, session) = (self.client.statements().of(Stored::Keys), fence.session());
        let stamp = CqlValue::BigInt(Stamp::next(fence)?.value());
        let partition = blob(session.as_bytes());
        let mut batch: Vec<_> = changes
            .into_iter()
            .map(|(key, value)| match value {
                Some(value) => {
                    let values = vec![partition.clone(), CqlValue::Blob(key), CqlValue::Blob(value), stamp.clone()];
                    (&of.put, values)
                }
                None => (&of.delete, vec![stamp.clone(), partition.clone(), CqlValue::Blob(key)]),
            })
            .collect();
        let written: Result<(), Failure> = match batch.len() {
            0 => Ok(()),
            1 => {
                let (statement, values) = batch.remove(0);
                self.client.write(statement, values).await
            }
            _ => self.client.batch("keys_batch", batch).await,
        };
        Ok(written?)
    }

    async fn key_rows(
        &self,
        session: SessionId,
        mut from: Vec<u8>,
        until: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let start = Instant::now();
        let mut found = Vec::new();
        while found.len() < limit {
            let page = PAGE.min(limit - found.len());
            let count = i32::try_from(page).expect("no more than a page");
            let rows = self.slice(Stored::Keys, session.as_bytes(), &from, until.as_deref(), count).await?;
            let full = rows.len() == page;
            if let Some((last, _)) = rows.last() {
                from = [last.as_slice(), &[0]].concat();
            }
            for (key, stored) in rows {
                let stored = value(session, &key, &stored)?;
                found.push((Bytes::copy_from_slice(key.get(1..).unwrap_or_default()), stored));
            }
            if !full {
                break;
            }
        }
        record("key_scan", start);
        Ok(found)
    }
}

fn stored_key(kind: KeyKind, key: &[u8]) -> Vec<u8> {
    [&[kind as u8], key].concat()
}

fn value(session: SessionId, key: &[u8], stored: &[u8]) -> Result<Bytes, StoreError> {
    let value = codec::strip_at(&[session.as_bytes(), key].concat(), stored, ROW);
    value.map(Bytes::copy_from_slice)
}
