//! The secrets of messages, which decrypt what refers to them later: edits, reactions, polls.
//!
//! A row's time is its deadline; 0 is none, and such rows are in no index.

use super::{
    DeviceBackend,
    encoding::damaged,
    keys::joined,
    timed::{Timed, delete_entry, put_timed, put_untimed},
};
use crate::KeyKind;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::HashMap;
use wacore::store::{
    error::Result,
    traits::{MessageSecret, MsgSecretEntry, MsgSecretStore, merge_msg_secret_expiry, merge_msg_secret_message_ts},
};

const KIND: KeyKind = KeyKind::MessageSecret;

/// A secret and the times that belong to it, in seconds.
#[derive(Clone, Copy)]
struct Secret {
    bytes: MessageSecret,
    expires_at: i64,
    message_ts: i64,
}

impl Secret {
    fn decode(row: &Timed) -> Result<Self> {
        let too_short = || damaged("message secret", "it is too short".to_owned());
        let (secret, rest) = row.value.split_first_chunk().ok_or_else(too_short)?;
        let (message_ts, _) = rest.split_first_chunk().ok_or_else(too_short)?;
        Ok(Self { bytes: *secret, expires_at: row.time, message_ts: i64::from_be_bytes(*message_ts) })
    }

    fn encode(&self) -> Vec<u8> {
        [self.bytes.as_slice(), &self.message_ts.to_be_bytes()].concat()
    }

    /// The newer secret; windows never shrink and a time that is known stays.
    fn merge(before: Option<Self>, entry: &MsgSecretEntry) -> Self {
        let (expires_at, message_ts) = before.map_or((entry.expires_at, entry.message_ts), |before| {
            (
                merge_msg_secret_expiry(before.expires_at, entry.expires_at),
                merge_msg_secret_message_ts(before.message_ts, entry.message_ts),
            )
        });
        Self { bytes: entry.secret, expires_at, message_ts }
    }
}

#[async_trait]
impl MsgSecretStore for DeviceBackend {
    async fn put_msg_secrets(&self, entries: Vec<MsgSecretEntry>) -> Result<usize> {
        let keys: Vec<_> = entries.iter().map(|entry| joined([&entry.chat, &entry.sender, &entry.msg_id])).collect();
        let _alone = self.secrets.lock().await;
        let stored = self.timed_many(KIND, &keys).await?;
        let mut ops = Vec::with_capacity(entries.len() * 2);
        let mut secrets: HashMap<&Bytes, Secret> = HashMap::with_capacity(entries.len());
        for ((key, entry), row) in keys.iter().zip(&entries).zip(&stored) {
            let before = match secrets.get(key) {
                Some(secret) => Some(*secret),
                None => row.as_ref().map(Secret::decode).transpose()?,
            };
            let secret = Secret::merge(before, entry);
            if let Some(old) = before.filter(|old| old.expires_at != secret.expires_at) {
                delete_entry(&mut ops, KIND, key, old.expires_at);
            }
            let put = if secret.expires_at == 0 { put_untimed } else { put_timed };
            put(&mut ops, KIND, key, secret.expires_at, &secret.encode());
            secrets.insert(key, secret);
        }
        self.apply(ops).await?;
        Ok(entries.len())
    }

    async fn get_msg_secret(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.get_msg_secret_with_ts(chat, sender, msg_id).await?.map(|(secret, _)| secret))
    }

    async fn get_msg_secret_with_ts(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<(Vec<u8>, i64)>> {
        let Some(row) = self.timed(KIND, &joined([chat, sender, msg_id])).await? else { return Ok(None) };
        let secret = Secret::decode(&row)?;
        Ok(Some((secret.bytes.to_vec(), secret.message_ts)))
    }

    async fn delete_expired_msg_secrets(&self, cutoff_timestamp: i64) -> Result<u32> {
        let _alone = self.secrets.lock().await;
        self.expire(KIND, cutoff_timestamp.saturating_add(1)).await
    }
}
