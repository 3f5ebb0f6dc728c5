//! Key material: one table, ordered by session, kind and key.

use super::{Embedded, codec, database::Pair};
use crate::{
    Fence, KeyKind, KeyOp, KeyStore, StoreError,
    tables::{self, Table},
};
use async_trait::async_trait;
use bytes::Bytes;
use rookery_protocol::SessionId;
use std::ops::Bound;

/// What errors call a row.
const ROW: &str = "key material";

/// Up to this many rows are read in the calling task.
const FEW: usize = 16;

#[async_trait]
impl KeyStore for Embedded {
    async fn get(&self, session: SessionId, kind: KeyKind, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let key = tables::key_material(session, kind, key);
        self.0
            .read_now("key_get", move |database| {
                let stored = database.get(Table::Keys, &key)?;
                stored.map(|stored| value(&key, &stored)).transpose()
            })
            .await
    }

    async fn get_many(
        &self,
        session: SessionId,
        kind: KeyKind,
        keys: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let keys = keys.to_vec();
        let few = keys.len() <= FEW;
        let work = move |database: &super::engines::Database| {
            let view = database.view();
            keys.iter()
                .map(|key| {
                    let key = tables::key_material(session, kind, key);
                    let stored = view.get(Table::Keys, &key)?;
                    stored.map(|stored| value(&key, &stored)).transpose()
                })
                .collect()
        };
        if few { self.0.read_now("key_get_many", work).await } else { self.0.read("key_get_many", work).await }
    }

    async fn scan(&self, session: SessionId, kind: KeyKind, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let prefix = tables::key_material(session, kind, prefix);
        self.0
            .read("key_scan", move |database| {
                database.view().prefix(Table::Keys, &prefix, None).map(|row| key_and_value(&row?)).collect()
            })
            .await
    }

    async fn range(
        &self,
        session: SessionId,
        kind: KeyKind,
        from: &[u8],
        until: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let from = tables::key_material(session, kind, from);
        let until = tables::key_material(session, kind, until);
        self.0
            .read("key_range", move |database| {
                let (from, until) = (Bound::Included(&*from), Bound::Excluded(&*until));
                database.view().range(Table::Keys, from, until).take(limit).map(|row| key_and_value(&row?)).collect()
            })
            .await
    }

    async fn write(&self, fence: &Fence, ops: Vec<KeyOp>) -> Result<(), StoreError> {
        let fence = fence.clone();
        self.0
            .write("key_write", move |transaction| {
                transaction.check(&fence)?;
                for op in ops {
                    match op {
                        KeyOp::Put { kind, key, value } => {
                            let key = tables::key_material(fence.session(), kind, &key);
                            transaction.put(Table::Keys, key, codec::wrap(&value))?;
                        }
                        KeyOp::Delete { kind, key } => {
                            transaction.delete(Table::Keys, tables::key_material(fence.session(), kind, &key));
                        }
                    }
                }
                Ok(())
            })
            .await
    }

    async fn clear(&self, fence: &Fence) -> Result<(), StoreError> {
        let fence = fence.clone();
        self.0
            .write("key_clear", move |transaction| {
                transaction.check(&fence)?;
                let all = tables::of_session(fence.session());
                for (key, _) in transaction.prefix(Table::Keys, &all, None, usize::MAX)? {
                    transaction.delete(Table::Keys, key.to_vec());
                }
                Ok(())
            })
            .await
    }
}

fn value(key: &[u8], stored: &[u8]) -> Result<Bytes, StoreError> {
    codec::strip_at(key, stored, ROW).map(Bytes::copy_from_slice)
}

fn key_and_value((key, stored): &Pair) -> Result<(Bytes, Bytes), StoreError> {
    let within = tables::key_within_kind(key)
        .ok_or_else(|| StoreError::Corrupt { what: ROW, detail: "its key is too short".to_owned() })?;
    Ok((Bytes::copy_from_slice(within), value(key, stored)?))
}
