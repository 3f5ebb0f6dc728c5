//! History that a phone sends: parts of chunks, and how far it has come.

use super::{
    Embedded,
    chats::Remembered,
    contacts::{learn, resolve},
    history::add,
    transaction::Transaction,
};
use crate::{
    Fence, HistorySyncRow, Import, StoreError, SyncStore,
    tables::{self, Table},
};
use async_trait::async_trait;
use rookery_protocol::SessionId;

#[async_trait]
impl SyncStore for Embedded {
    async fn state(&self, session: SessionId) -> Result<HistorySyncRow, StoreError> {
        self.0
            .read_now("sync_state", move |database| {
                Ok(database.row(Table::Peers, &tables::history_sync(session))?.unwrap_or_default())
            })
            .await
    }

    async fn save(&self, fence: &Fence, state: &HistorySyncRow) -> Result<(), StoreError> {
        let (fence, state) = (fence.clone(), state.clone());
        self.0
            .write("sync_save", move |transaction| {
                transaction.check(&fence)?;
                let (key, before) = stored(transaction, fence.session())?;
                transaction.put_row(Table::Peers, key, &HistorySyncRow { messages: before.messages, ..state })
            })
            .await
    }

    async fn restart(&self, fence: &Fence, state: &HistorySyncRow) -> Result<(), StoreError> {
        let (fence, state) = (fence.clone(), state.clone());
        self.0
            .write("sync_restart", move |transaction| {
                transaction.check(&fence)?;
                let key = tables::history_sync(fence.session());
                transaction.put_row(Table::Peers, key, &state)
            })
            .await
    }

    async fn import(&self, fence: &Fence, import: Import) -> Result<u64, StoreError> {
        let fence = fence.clone();
        self.0
            .write("sync_import", move |transaction| {
                transaction.check(&fence)?;
                take(transaction, fence.session(), import)
            })
            .await
    }
}

fn stored(transaction: &Transaction<'_>, session: SessionId) -> Result<(Vec<u8>, HistorySyncRow), StoreError> {
    let key = tables::history_sync(session);
    let row = transaction.row(Table::Peers, &key)?.unwrap_or_default();
    Ok((key, row))
}

fn take(transaction: &mut Transaction<'_>, session: SessionId, import: Import) -> Result<u64, StoreError> {
    // First: they may say which number a LID is, and so which chat is meant.
    for facts in &import.contacts {
        learn(transaction, session, facts)?;
    }
    let mut chats = Remembered::default();
    for facts in &import.chats {
        chats.sync(transaction, session, facts)?;
    }
    let mut new = 0;
    for mut message in import.messages {
        let mut entry = tables::history_by_id(session, &message);
        if transaction.get(Table::HistoryById, &entry)?.is_some() {
            continue;
        }
        if let Some(phone) = resolve(transaction, session, &message.chat)? {
            if message.sender.as_ref() == Some(&message.chat) {
                message.sender = Some(phone.clone());
            }
            message.chat = phone;
            entry = tables::history_by_id(session, &message);
            if transaction.get(Table::HistoryById, &entry)?.is_some() {
                continue;
            }
        }
        add(transaction, session, entry, &mut message, false)?;
        chats.remember(transaction, session, &message)?;
        new += 1;
    }
    chats.write(transaction)?;
    if new > 0 {
        let (key, before) = stored(transaction, session)?;
        let row = HistorySyncRow { messages: before.messages + new, ..before };
        transaction.put_row(Table::Peers, key, &row)?;
    }
    Ok(new)
}
