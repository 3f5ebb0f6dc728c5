//! The state of app state synchronisation: keys, versions and MACs.

use super::{
    DeviceBackend, delete,
    encoding::{decode, encode},
    keys, put, text,
};
use crate::{KeyKind, KeyOp};
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::HashMap;
use wacore::{
    appstate::{hash::HashState, processor::AppStateMutationMAC},
    store::{
        error::Result,
        traits::{AppStateSyncKey, AppSyncStore},
    },
};

/// The id of the sync key that was stored last, in [`KeyKind::Meta`].
const LATEST_SYNC_KEY: &[u8] = b"latest_sync_key";

/// The key of a MAC: its collection, then its index MAC.
fn mac_key(name: &str, index_mac: &[u8]) -> Bytes {
    let collection = keys::first(name);
    let mut key = BytesMut::with_capacity(collection.len() + index_mac.len());
    key.put_slice(&collection);
    key.put_slice(index_mac);
    key.freeze()
}

fn delete_mac(key: Bytes) -> KeyOp {
    delete(KeyKind::MutationMac, key)
}

#[async_trait]
impl AppSyncStore for DeviceBackend {
    async fn get_sync_key(&self, key_id: &[u8]) -> Result<Option<AppStateSyncKey>> {
        let stored = self.get(KeyKind::SyncKey, key_id).await?;
        stored.map(|key| decode("app state key", &key)).transpose()
    }

    async fn set_sync_key(&self, key_id: &[u8], key: AppStateSyncKey) -> Result<()> {
        self.write(vec![
            put(KeyKind::SyncKey, key_id.to_vec(), encode(&key)?),
            put(KeyKind::Meta, LATEST_SYNC_KEY, key_id.to_vec()),
        ])
        .await
    }

    async fn get_version(&self, name: &str) -> Result<HashState> {
        match self.get(KeyKind::SyncVersion, name.as_bytes()).await? {
            Some(state) => decode("app state version", &state),
            None => Ok(HashState::default()),
        }
    }

    async fn set_version(&self, name: &str, state: HashState) -> Result<()> {
        self.write(vec![put(KeyKind::SyncVersion, text(name), encode(&state)?)]).await
    }

    async fn put_mutation_macs(&self, name: &str, _version: u64, mutations: &[AppStateMutationMAC]) -> Result<()> {
        let put =
            |mac: &AppStateMutationMAC| put(KeyKind::MutationMac, mac_key(name, &mac.index_mac), mac.value_mac.clone());
        self.write(mutations.iter().map(put).collect()).await
    }

    async fn get_mutation_mac(&self, name: &str, index_mac: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.get(KeyKind::MutationMac, &mac_key(name, index_mac)).await?.map(Vec::from))
    }

    async fn get_mutation_macs(&self, name: &str, index_macs: &[[u8; 32]]) -> Result<HashMap<[u8; 32], Vec<u8>>> {
        let keys: Vec<_> = index_macs.iter().map(|mac| mac_key(name, mac)).collect();
        let stored = self.get_many(KeyKind::MutationMac, &keys).await?;
        Ok(index_macs.iter().zip(stored).filter_map(|(index, value)| Some((*index, value?.into()))).collect())
    }

    async fn delete_mutation_macs(&self, name: &str, index_macs: &[Vec<u8>]) -> Result<()> {
        self.write(index_macs.iter().map(|mac| delete_mac(mac_key(name, mac))).collect()).await
    }

    async fn clear_mutation_macs(&self, name: &str) -> Result<()> {
        let _alone = self.order.write().await;
        let stored = self.scan(KeyKind::MutationMac, &keys::first(name)).await?;
        self.apply(stored.into_iter().map(|(key, _)| delete_mac(key)).collect()).await
    }

    async fn get_latest_sync_key_id(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.get(KeyKind::Meta, LATEST_SYNC_KEY).await?.map(Vec::from))
    }
}
