//! The Signal protocol's state: identities, sessions, prekeys and sender keys.

use super::{DeviceBackend, delete, encoding::array, encoding::damaged, number, put, text};
use crate::KeyKind;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use wacore::store::{error::Result, traits::SignalStore};

/// The highest id that a prekey ever had, in [`KeyKind::Meta`].
const HIGHEST_PREKEY: &[u8] = b"highest_prekey";

impl DeviceBackend {
    async fn put_prekeys(&self, prekeys: &[(u32, Bytes)]) -> Result<()> {
        let Some(highest) = prekeys.iter().map(|(id, _)| *id).max() else { return Ok(()) };
        let mut ops: Vec<_> =
            prekeys.iter().map(|(id, record)| put(KeyKind::PreKey, number(*id), record.clone())).collect();
        let _alone = self.order.write().await;
        if highest > self.get_max_prekey_id().await? {
            ops.push(put(KeyKind::Meta, HIGHEST_PREKEY, number(highest)));
        }
        self.apply(ops).await
    }
}

#[async_trait]
impl SignalStore for DeviceBackend {
    async fn put_identity(&self, address: &str, key: [u8; 32]) -> Result<()> {
        self.write(vec![put(KeyKind::Identity, text(address), key.to_vec())]).await
    }

    async fn put_identities_batch(&self, identities: &[(Arc<str>, [u8; 32])]) -> Result<()> {
        let put = |(address, key): &(Arc<str>, [u8; 32])| put(KeyKind::Identity, text(address), key.to_vec());
        self.write(identities.iter().map(put).collect()).await
    }

    async fn load_identity(&self, address: &str) -> Result<Option<[u8; 32]>> {
        let stored = self.get(KeyKind::Identity, address.as_bytes()).await?;
        stored.map(|key| array("identity", &key)).transpose()
    }

    async fn delete_identity(&self, address: &str) -> Result<()> {
        self.write(vec![delete(KeyKind::Identity, text(address))]).await
    }

    async fn get_session(&self, address: &str) -> Result<Option<Bytes>> {
        self.get(KeyKind::Session, address.as_bytes()).await
    }

    async fn put_session(&self, address: &str, session: &[u8]) -> Result<()> {
        self.write(vec![put(KeyKind::Session, text(address), session.to_vec())]).await
    }

    async fn put_sessions_batch(&self, sessions: &[(Arc<str>, Bytes)]) -> Result<()> {
        let put = |(address, session): &(Arc<str>, Bytes)| put(KeyKind::Session, text(address), session.clone());
        self.write(sessions.iter().map(put).collect()).await
    }

    async fn delete_session(&self, address: &str) -> Result<()> {
        self.write(vec![delete(KeyKind::Session, text(address))]).await
    }

    async fn has_signal_state_for_user(&self, user: &str) -> Result<bool> {
        // An address is `user@server` or `user:device@server`.
        for kind in [KeyKind::Session, KeyKind::Identity] {
            for separator in ['@', ':'] {
                if !self.scan(kind, format!("{user}{separator}").as_bytes()).await?.is_empty() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn store_prekey(&self, id: u32, record: &[u8], _uploaded: bool) -> Result<()> {
        self.put_prekeys(&[(id, Bytes::copy_from_slice(record))]).await
    }

    async fn store_prekeys_batch(&self, keys: &[(u32, Bytes)], _uploaded: bool) -> Result<()> {
        self.put_prekeys(keys).await
    }

    async fn load_prekey(&self, id: u32) -> Result<Option<Bytes>> {
        self.get(KeyKind::PreKey, &id.to_be_bytes()).await
    }

    async fn load_prekeys_batch(&self, ids: &[u32]) -> Result<Vec<(u32, Bytes)>> {
        let keys: Vec<_> = ids.iter().map(|id| number(*id)).collect();
        let records = self.get_many(KeyKind::PreKey, &keys).await?;
        Ok(ids.iter().zip(records).filter_map(|(id, record)| Some((*id, record?))).collect())
    }

    /// Nothing: no method reads whether a prekey was uploaded (the device has a watermark of its own), and
    /// writing nothing cannot bring a consumed key back.
    async fn mark_prekeys_uploaded(&self, _ids: &[u32]) -> Result<()> {
        Ok(())
    }

    async fn remove_prekey(&self, id: u32) -> Result<()> {
        self.write(vec![delete(KeyKind::PreKey, number(id))]).await
    }

    /// The highest id that was ever stored: a consumed key's id is never given out again.
    async fn get_max_prekey_id(&self) -> Result<u32> {
        let Some(stored) = self.get(KeyKind::Meta, HIGHEST_PREKEY).await? else { return Ok(0) };
        array("highest prekey", &stored).map(u32::from_be_bytes)
    }

    async fn store_signed_prekey(&self, id: u32, record: &[u8]) -> Result<()> {
        self.write(vec![put(KeyKind::SignedPreKey, number(id), record.to_vec())]).await
    }

    async fn load_signed_prekey(&self, id: u32) -> Result<Option<Vec<u8>>> {
        Ok(self.get(KeyKind::SignedPreKey, &id.to_be_bytes()).await?.map(Vec::from))
    }

    async fn load_all_signed_prekeys(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        let rows = self.scan(KeyKind::SignedPreKey, &[]).await?;
        rows.into_iter()
            .map(|(key, record)| match key.as_ref().try_into() {
                Ok(id) => Ok((u32::from_be_bytes(id), record.into())),
                Err(_) => Err(damaged("signed prekey", "its key is no id".to_owned())),
            })
            .collect()
    }

    async fn remove_signed_prekey(&self, id: u32) -> Result<()> {
        self.write(vec![delete(KeyKind::SignedPreKey, number(id))]).await
    }

    async fn put_sender_key(&self, address: &str, record: &[u8]) -> Result<()> {
        self.write(vec![put(KeyKind::SenderKey, text(address), record.to_vec())]).await
    }

    async fn put_sender_keys_batch(&self, sender_keys: &[(Arc<str>, Bytes)]) -> Result<()> {
        let put = |(address, record): &(Arc<str>, Bytes)| put(KeyKind::SenderKey, text(address), record.clone());
        self.write(sender_keys.iter().map(put).collect()).await
    }

    async fn get_sender_key(&self, address: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.get(KeyKind::SenderKey, address.as_bytes()).await?.map(Vec::from))
    }

    async fn delete_sender_key(&self, address: &str) -> Result<()> {
        self.write(vec![delete(KeyKind::SenderKey, text(address))]).await
    }
}
