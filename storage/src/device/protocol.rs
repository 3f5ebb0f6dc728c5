//! What the protocol remembers of other devices and of messages on their way.

use super::{
    DeviceBackend, delete,
    encoding::{decode, encode, text as read_text},
    keys::{first, joined, split, tagged},
    put, text,
    timed::{delete_timed, delete_untimed, put_timed, put_untimed},
};
use crate::{KeyKind, KeyOp};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::HashMap;
use wacore::{
    store::{
        error::Result,
        traits::{
            DeviceListRecord, LidPnMappingEntry, PendingInboundKey, PendingInboundRow, ProtocolStore, TcTokenEntry,
        },
    },
    time::now_secs,
};

/// Rows of [`KeyKind::SenderKeyDevice`] by group: group, device; whether the device has the sender key.
const BY_GROUP: u8 = b'g';

/// Rows of [`KeyKind::SenderKeyDevice`] by device: device, group; to find a device in all groups.
const BY_DEVICE: u8 = b'd';

fn delete_sender_key_device(ops: &mut Vec<KeyOp>, group: &str, device: &str) {
    ops.push(delete(KeyKind::SenderKeyDevice, tagged(BY_GROUP, &joined([group, device]))));
    ops.push(delete(KeyKind::SenderKeyDevice, tagged(BY_DEVICE, &joined([device, group]))));
}

/// The second text of a key with a tag and two texts.
fn second_text(key: &[u8]) -> Result<String> {
    let rest = key.get(1..).and_then(split).map_or(&[][..], |(_, rest)| rest);
    read_text("sender key device", rest)
}

fn put_device_list(record: &DeviceListRecord) -> Result<KeyOp> {
    Ok(put(KeyKind::DeviceList, text(&record.user), encode(record)?))
}

fn put_tc_token(jid: &str, entry: &TcTokenEntry) -> Result<KeyOp> {
    Ok(put(KeyKind::TcToken, text(jid), encode(entry)?))
}

impl DeviceBackend {
    async fn sender_key_rows(&self, tag: u8, of: &str) -> Result<Vec<(Bytes, Bytes)>> {
        self.scan(KeyKind::SenderKeyDevice, &tagged(tag, &first(of))).await
    }

    /// Side by side with other writes: nothing is lost when a row is replaced meanwhile but an index entry,
    /// which the sweep does without.
    async fn delete_pending(&self, keys: Vec<Bytes>) -> Result<()> {
        let rows = self.timed_many(KeyKind::PendingInbound, &keys).await?;
        let mut ops = Vec::with_capacity(keys.len() * 2);
        for (key, row) in keys.iter().zip(rows) {
            if let Some(row) = row {
                delete_timed(&mut ops, KeyKind::PendingInbound, key, row.time);
            }
        }
        self.write(ops).await
    }
}

#[async_trait]
impl ProtocolStore for DeviceBackend {
    async fn get_sender_key_devices(&self, group_jid: &str) -> Result<Vec<(String, bool)>> {
        let rows = self.sender_key_rows(BY_GROUP, group_jid).await?;
        rows.iter().map(|(key, has_key)| Ok((second_text(key)?, has_key.as_ref() == [1]))).collect()
    }

    async fn set_sender_key_status(&self, group_jid: &str, entries: &[(&str, bool)]) -> Result<()> {
        let mut ops = Vec::with_capacity(entries.len() * 2);
        for (device, has_key) in entries {
            let by_group = tagged(BY_GROUP, &joined([group_jid, device]));
            ops.push(put(KeyKind::SenderKeyDevice, by_group, vec![u8::from(*has_key)]));
            let by_device = tagged(BY_DEVICE, &joined([device, group_jid]));
            ops.push(put(KeyKind::SenderKeyDevice, by_device, Bytes::new()));
        }
        self.write(ops).await
    }

    async fn clear_sender_key_devices(&self, group_jid: &str) -> Result<()> {
        let _alone = self.order.write().await;
        let mut ops = Vec::new();
        for (key, _) in self.sender_key_rows(BY_GROUP, group_jid).await? {
            delete_sender_key_device(&mut ops, group_jid, &second_text(&key)?);
        }
        self.apply(ops).await
    }

    async fn delete_sender_key_device_rows(&self, device_jids: &[&str]) -> Result<()> {
        let _alone = self.order.write().await;
        let mut ops = Vec::new();
        for device in device_jids {
            for (key, _) in self.sender_key_rows(BY_DEVICE, device).await? {
                delete_sender_key_device(&mut ops, &second_text(&key)?, device);
            }
        }
        self.apply(ops).await
    }

    async fn clear_all_sender_key_devices(&self) -> Result<()> {
        let _alone = self.order.write().await;
        let rows = self.scan(KeyKind::SenderKeyDevice, &[]).await?;
        self.apply(rows.into_iter().map(|(key, _)| delete(KeyKind::SenderKeyDevice, key)).collect()).await
    }

    async fn get_lid_mapping(&self, lid: &str) -> Result<Option<LidPnMappingEntry>> {
        let stored = self.get(KeyKind::LidMapping, lid.as_bytes()).await?;
        stored.map(|entry| decode("LID mapping", &entry)).transpose()
    }

    async fn get_pn_mapping(&self, phone: &str) -> Result<Option<LidPnMappingEntry>> {
        let Some(lid) = self.get(KeyKind::PnMapping, phone.as_bytes()).await? else { return Ok(None) };
        self.get_lid_mapping(&read_text("phone number mapping", &lid)?).await
    }

    async fn put_lid_mapping(&self, entry: &LidPnMappingEntry) -> Result<()> {
        self.put_lid_mappings(std::slice::from_ref(entry)).await
    }

    async fn put_lid_mappings(&self, entries: &[LidPnMappingEntry]) -> Result<()> {
        let lids: Vec<_> = entries.iter().map(|entry| text(&entry.lid)).collect();
        let _alone = self.order.write().await;
        let mut phones: HashMap<&str, String> = HashMap::with_capacity(entries.len());
        for (entry, stored) in entries.iter().zip(self.get_many(KeyKind::LidMapping, &lids).await?) {
            if let Some(stored) = stored {
                let before: LidPnMappingEntry = decode("LID mapping", &stored)?;
                phones.insert(&entry.lid, before.phone_number);
            }
        }
        let mut ops = Vec::with_capacity(entries.len() * 2);
        // What a phone number leads to after the operations so far.
        let mut leads_to: HashMap<String, Bytes> = HashMap::new();
        for (entry, lid) in entries.iter().zip(lids) {
            let before = phones.insert(&entry.lid, entry.phone_number.clone());
            if let Some(phone) = before.filter(|phone| *phone != entry.phone_number) {
                let current = match leads_to.get(&phone) {
                    Some(lid) => Some(lid.clone()),
                    None => self.get(KeyKind::PnMapping, phone.as_bytes()).await?,
                };
                // The old number may belong to another LID by now.
                if current.as_ref() == Some(&lid) {
                    ops.push(delete(KeyKind::PnMapping, text(&phone)));
                }
            }
            ops.push(put(KeyKind::PnMapping, text(&entry.phone_number), lid.clone()));
            ops.push(put(KeyKind::LidMapping, lid.clone(), encode(entry)?));
            leads_to.insert(entry.phone_number.clone(), lid);
        }
        self.apply(ops).await
    }

    async fn get_all_lid_mappings(&self) -> Result<Vec<LidPnMappingEntry>> {
        let rows = self.scan(KeyKind::LidMapping, &[]).await?;
        rows.iter().map(|(_, entry)| decode("LID mapping", entry)).collect()
    }

    async fn save_base_key(&self, address: &str, message_id: &str, base_key: &[u8]) -> Result<()> {
        self.write(vec![put(KeyKind::BaseKey, joined([address, message_id]), base_key.to_vec())]).await
    }

    async fn has_same_base_key(&self, address: &str, message_id: &str, current_base_key: &[u8]) -> Result<bool> {
        let stored = self.get(KeyKind::BaseKey, &joined([address, message_id])).await?;
        Ok(stored.is_some_and(|stored| stored == current_base_key))
    }

    async fn delete_base_key(&self, address: &str, message_id: &str) -> Result<()> {
        self.write(vec![delete(KeyKind::BaseKey, joined([address, message_id]))]).await
    }

    async fn update_device_list(&self, record: DeviceListRecord) -> Result<()> {
        self.write(vec![put_device_list(&record)?]).await
    }

    async fn update_device_lists(&self, records: Vec<DeviceListRecord>) -> Result<()> {
        self.write(records.iter().map(put_device_list).collect::<Result<_>>()?).await
    }

    async fn get_devices(&self, user: &str) -> Result<Option<DeviceListRecord>> {
        let stored = self.get(KeyKind::DeviceList, user.as_bytes()).await?;
        stored.map(|record| decode("device list", &record)).transpose()
    }

    async fn delete_devices(&self, user: &str) -> Result<()> {
        self.write(vec![delete(KeyKind::DeviceList, text(user))]).await
    }

    async fn get_group_metadata(&self, group_jid: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.get(KeyKind::GroupMetadata, group_jid.as_bytes()).await?.map(Vec::from))
    }

    async fn put_group_metadata(&self, group_jid: &str, blob: &[u8]) -> Result<()> {
        self.write(vec![put(KeyKind::GroupMetadata, text(group_jid), blob.to_vec())]).await
    }

    async fn delete_group_metadata(&self, group_jid: &str) -> Result<()> {
        self.write(vec![delete(KeyKind::GroupMetadata, text(group_jid))]).await
    }

    async fn get_tc_token(&self, jid: &str) -> Result<Option<TcTokenEntry>> {
        let stored = self.get(KeyKind::TcToken, jid.as_bytes()).await?;
        stored.map(|entry| decode("contact token", &entry)).transpose()
    }

    async fn put_tc_token(&self, jid: &str, entry: &TcTokenEntry) -> Result<()> {
        self.write(vec![put_tc_token(jid, entry)?]).await
    }

    async fn delete_tc_token(&self, jid: &str) -> Result<()> {
        self.write(vec![delete(KeyKind::TcToken, text(jid))]).await
    }

    async fn get_all_tc_token_jids(&self) -> Result<Vec<String>> {
        let rows = self.scan(KeyKind::TcToken, &[]).await?;
        rows.iter().map(|(jid, _)| read_text("contact token", jid)).collect()
    }

    async fn delete_expired_tc_tokens(&self, token_cutoff: i64, sender_cutoff: i64) -> Result<u32> {
        let _alone = self.order.write().await;
        let mut ops = Vec::new();
        for (jid, stored) in self.scan(KeyKind::TcToken, &[]).await? {
            let entry: TcTokenEntry = decode("contact token", &stored)?;
            let token_lives = !entry.token.is_empty() && entry.token_timestamp >= token_cutoff;
            let sender_lives = entry.sender_timestamp.is_some_and(|at| at >= sender_cutoff);
            if !token_lives && !sender_lives {
                ops.push(delete(KeyKind::TcToken, jid));
            }
        }
        let expired = u32::try_from(ops.len()).unwrap_or(u32::MAX);
        self.apply(ops).await?;
        Ok(expired)
    }

    async fn touch_tc_token_sender_timestamp(&self, jid: &str, sender_timestamp: i64) -> Result<()> {
        let _alone = self.order.write().await;
        let entry = match self.get_tc_token(jid).await? {
            Some(entry) => {
                let latest = entry.sender_timestamp.map_or(sender_timestamp, |at| at.max(sender_timestamp));
                TcTokenEntry { sender_timestamp: Some(latest), ..entry }
            }
            None => TcTokenEntry {
                token: Vec::new(),
                token_timestamp: sender_timestamp,
                sender_timestamp: Some(sender_timestamp),
            },
        };
        self.apply(vec![put_tc_token(jid, &entry)?]).await
    }

    async fn store_received_tc_token(&self, jid: &str, token: &[u8], token_timestamp: i64) -> Result<()> {
        let _alone = self.order.write().await;
        let before = self.get_tc_token(jid).await?;
        let newer = |before: &TcTokenEntry| !before.token.is_empty() && before.token_timestamp > token_timestamp;
        if before.as_ref().is_some_and(newer) {
            return Ok(());
        }
        let sender_timestamp = before.and_then(|before| before.sender_timestamp);
        let entry = TcTokenEntry { token: token.to_vec(), token_timestamp, sender_timestamp };
        self.apply(vec![put_tc_token(jid, &entry)?]).await
    }

    async fn store_sent_message(&self, chat_jid: &str, message_id: &str, payload: &[u8]) -> Result<()> {
        let mut ops = Vec::with_capacity(1);
        put_untimed(&mut ops, KeyKind::SentMessage, &joined([chat_jid, message_id]), now_secs(), payload);
        self.write(ops).await
    }

    async fn take_sent_message(&self, chat_jid: &str, message_id: &str) -> Result<Option<Vec<u8>>> {
        let key = joined([chat_jid, message_id]);
        let _alone = self.order.write().await;
        let Some(row) = self.timed(KeyKind::SentMessage, &key).await? else { return Ok(None) };
        let mut ops = Vec::with_capacity(1);
        delete_untimed(&mut ops, KeyKind::SentMessage, &key);
        self.apply(ops).await?;
        Ok(Some(row.value.into()))
    }

    async fn delete_expired_sent_messages(&self, cutoff_timestamp: i64) -> Result<u32> {
        self.expire_unlisted(KeyKind::SentMessage, &self.sent_sweep, cutoff_timestamp).await
    }

    async fn store_pending_inbound(&self, chat: &str, sender: &str, id: &str, message: &[u8]) -> Result<()> {
        self.store_pending_inbound_batch(&[PendingInboundRow { chat, sender, id, message }]).await
    }

    async fn get_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<Option<Vec<u8>>> {
        let row = self.timed(KeyKind::PendingInbound, &joined([chat, sender, id])).await?;
        Ok(row.map(|row| row.value.into()))
    }

    async fn delete_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<()> {
        self.delete_pending(vec![joined([chat, sender, id])]).await
    }

    async fn delete_expired_pending_inbound(&self, cutoff_timestamp: i64) -> Result<u32> {
        let _alone = self.order.write().await;
        self.expire(KeyKind::PendingInbound, cutoff_timestamp).await
    }

    async fn store_pending_inbound_batch(&self, rows: &[PendingInboundRow<'_>]) -> Result<()> {
        let now = now_secs();
        let mut ops = Vec::with_capacity(rows.len() * 2);
        for row in rows {
            put_timed(&mut ops, KeyKind::PendingInbound, &joined([row.chat, row.sender, row.id]), now, row.message);
        }
        self.write(ops).await
    }

    async fn delete_pending_inbound_batch(&self, keys: &[PendingInboundKey<'_>]) -> Result<()> {
        self.delete_pending(keys.iter().map(|key| joined([key.chat, key.sender, key.id])).collect()).await
    }
}
