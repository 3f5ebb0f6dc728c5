//! Messages: in order of time, with indexes by chat and by id.
//!
//! A page seeks to where it begins, in the timeline or in the chat's index, and looks at a bounded number of
//! rows from there.

use super::{
    Embedded, chats,
    codec::{Place, decode},
    database::{Database, View},
    transaction::Transaction,
};
use crate::{
    Fence, HistoryQuery, HistoryRow, HistoryStore, MessageReceipt, Page, ReceiptKind, StoreError,
    tables::{self, Table},
};
use async_trait::async_trait;
use rookery_protocol::{Jid, MessageId, SessionId, Timestamp, api::Direction};
use std::ops::Bound;

/// Most rows that a page looks at.
const LOOK_LIMIT: usize = 2_000;

/// Most messages that share an id which are looked at. Ids are unique but for a chat and author.
const SAME_ID_LIMIT: usize = 100;

#[async_trait]
impl HistoryStore for Embedded {
    async fn insert(&self, fence: &Fence, messages: Vec<HistoryRow>) -> Result<(), StoreError> {
        let fence = fence.clone();
        self.0
            .write("history_insert", move |transaction| {
                transaction.check(&fence)?;
                for message in messages {
                    upsert(transaction, fence.session(), message)?;
                }
                Ok(())
            })
            .await
    }

    async fn list(&self, session: SessionId, query: &HistoryQuery) -> Result<Page<HistoryRow, u64>, StoreError> {
        let query = query.clone();
        self.0.read("history_list", move |database| page(&database.view(), session, &query)).await
    }

    async fn get(&self, session: SessionId, id: &MessageId) -> Result<Vec<HistoryRow>, StoreError> {
        let entries = tables::history_of_id(session, id);
        self.0.read_now("history_get", |database| {
            let view = database.view();
            let mut rows: Vec<HistoryRow> = Vec::new();
            for entry in view.prefix(Table::HistoryById, &entries, None).take(SAME_ID_LIMIT) {
                let Place(sort_key) = decode(&entry?.1)?;
                rows.extend(view.row(Table::History, &tables::history(session, sort_key))?);
            }
            rows.sort_unstable_by_key(|row| !row.sort_key);
            Ok(rows)
        })
    }

    async fn receipts(
        &self,
        receipts: Vec<(Fence, MessageReceipt)>,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.0
            .write("history_receipts", move |transaction| {
                Ok(receipts.iter().map(|(fence, receipt)| write_receipt(transaction, fence, receipt)).collect())
            })
            .await
    }

    async fn relocate(&self, fence: &Fence, sort_key: u64, direct_path: &str) -> Result<(), StoreError> {
        let (fence, direct_path) = (fence.clone(), direct_path.to_owned());
        self.0
            .write("history_relocate", move |transaction| {
                transaction.check(&fence)?;
                relocate(transaction, fence.session(), sort_key, &direct_path)
            })
            .await
    }

    async fn last_sort_key(&self, session: SessionId) -> Result<Option<u64>, StoreError> {
        self.0.read("history_last_sort_key", move |database| last_sort_key(database, session)).await
    }
}

/// Writes a message and what it changes of its chat, or replaces the content of the same one; answers its sort key.
pub(super) fn upsert(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    mut message: HistoryRow,
) -> Result<u64, StoreError> {
    let entry = tables::history_by_id(session, &message);
    if let Some(Place(sort_key)) = transaction.row(Table::HistoryById, &entry)? {
        message.sort_key = sort_key;
        let key = tables::history(session, sort_key);
        if let Some(before) = transaction.row::<HistoryRow>(Table::History, &key)? {
            keep_times(&mut message, &before);
        }
        transaction.put_row(Table::History, key, &message)?;
        return Ok(sort_key);
    }
    add(transaction, session, entry, &mut message)?;
    chats::receive(transaction, session, &message)?;
    Ok(message.sort_key)
}

/// Writes a message that is not there yet, at the next free place; `entry` is its key in the index by id.
pub(super) fn add(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    entry: Vec<u8>,
    message: &mut HistoryRow,
) -> Result<(), StoreError> {
    let mut key = tables::history(session, message.sort_key);
    while transaction.get(Table::History, &key)?.is_some() {
        message.sort_key += 1;
        key = tables::history(session, message.sort_key);
    }
    transaction.put_row(Table::HistoryById, entry, &Place(message.sort_key))?;
    transaction.put_entry(Table::HistoryByChat, tables::history_in_chat(session, &message.chat, message.sort_key))?;
    transaction.put_row(Table::History, key, message)
}

/// Writes where WhatsApp keeps the file of a message.
pub(super) fn relocate(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    sort_key: u64,
    direct_path: &str,
) -> Result<(), StoreError> {
    let key = tables::history(session, sort_key);
    let Some(mut message) = transaction.row::<HistoryRow>(Table::History, &key)? else { return Ok(()) };
    let Some(file) = &mut message.file else { return Ok(()) };
    file.direct_path = Some(direct_path.to_owned());
    transaction.put_row(Table::History, key, &message)
}

/// The time of a message and its place have to agree, and the earliest time of each stage stays.
fn keep_times(message: &mut HistoryRow, before: &HistoryRow) {
    message.timestamp = before.timestamp;
    message.sent_at = earliest(before.sent_at, message.sent_at);
    message.delivered_at = earliest(before.delivered_at, message.delivered_at);
    message.read_at = earliest(before.read_at, message.read_at);
    message.played_at = earliest(before.played_at, message.played_at);
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn write_receipt(transaction: &mut Transaction<'_>, fence: &Fence, receipt: &MessageReceipt) -> Result<(), StoreError> {
    transaction.check(fence)?;
    let session = fence.session();
    for id in &receipt.ids {
        for mut row in own_messages(transaction, session, &receipt.chat, id)? {
            let time = match receipt.kind {
                ReceiptKind::Delivered => &mut row.delivered_at,
                ReceiptKind::Read => &mut row.read_at,
                ReceiptKind::Played => &mut row.played_at,
            };
            let first = earliest(*time, Some(receipt.at));
            if *time != first {
                *time = first;
                transaction.put_row(Table::History, tables::history(session, row.sort_key), &row)?;
            }
        }
    }
    Ok(())
}

/// The account's own messages with this id: the one in this chat or, when the chat is stored under its other name,
/// all of them.
fn own_messages(
    transaction: &Transaction<'_>,
    session: SessionId,
    chat: &Jid,
    id: &MessageId,
) -> Result<Vec<HistoryRow>, StoreError> {
    let entry = tables::own_history_by_id(session, id, chat);
    if let Some(Place(sort_key)) = transaction.row(Table::HistoryById, &entry)? {
        let row: Option<HistoryRow> = transaction.row(Table::History, &tables::history(session, sort_key))?;
        return Ok(row.into_iter().collect());
    }
    let mut own: Vec<HistoryRow> = Vec::new();
    for (_, place) in
        transaction.prefix(Table::HistoryById, &tables::history_of_id(session, id), None, SAME_ID_LIMIT)?
    {
        let Place(sort_key) = decode(&place)?;
        let row: Option<HistoryRow> = transaction.row(Table::History, &tables::history(session, sort_key))?;
        own.extend(row.filter(|row| row.from_me));
    }
    Ok(own)
}

fn last_sort_key(database: &Database, session: SessionId) -> Result<Option<u64>, StoreError> {
    let view = database.view();
    let newest = view.prefix(Table::History, &tables::of_session(session), None).next().transpose()?;
    newest.map(|(key, _)| sort_key(&key)).transpose()
}

fn sort_key(key: &[u8]) -> Result<u64, StoreError> {
    tables::sort_key_of_entry(key)
        .ok_or_else(|| StoreError::Corrupt { what: "message", detail: "its key is too short".to_owned() })
}

fn page(view: &View<'_>, session: SessionId, query: &HistoryQuery) -> Result<Page<HistoryRow, u64>, StoreError> {
    let mut page = Page { rows: Vec::new(), next: None };
    let Some((oldest, newest)) = span(query) else { return Ok(page) };
    let key = |sort_key| match &query.chat {
        Some(chat) => tables::history_in_chat(session, chat, sort_key),
        None => tables::history(session, sort_key),
    };
    let table = if query.chat.is_some() { Table::HistoryByChat } else { Table::History };
    let mut last = None;
    let entries = view.range(table, Bound::Included(&key(newest)), Bound::Included(&key(oldest)));
    for (looked_at, entry) in entries.enumerate() {
        let (key, stored) = entry?;
        if page.rows.len() == query.limit.max(1) || looked_at == LOOK_LIMIT {
            page.next = last;
            return Ok(page);
        }
        let sort_key = sort_key(&key)?;
        let row: Option<HistoryRow> = match table {
            Table::History => Some(decode(&stored)?),
            _ => view.row(Table::History, &tables::history(session, sort_key))?,
        };
        page.rows.extend(row.filter(|row| matches(query, row)));
        last = Some(sort_key);
    }
    Ok(page)
}

/// The oldest and the newest sort key that a query asks for; none when it asks for nothing.
fn span(query: &HistoryQuery) -> Option<(u64, u64)> {
    let first_of = |secs: i64| u64::try_from(secs).unwrap_or(0) << 20;
    let oldest = query.from.map_or(0, |from| first_of(from.as_secs()));
    let end = query.until.map_or(u64::MAX, |until| {
        // Within its second a message has no order by time that its sort key knows of.
        let fraction = i64::from(until.as_micros() % 1_000_000 > 0);
        first_of(until.as_secs() + fraction)
    });
    let newest = match query.before {
        Some(before) => before.min(end).checked_sub(1)?,
        None if query.until.is_some() => end.checked_sub(1)?,
        None => u64::MAX,
    };
    (oldest <= newest).then_some((oldest, newest))
}

fn matches(query: &HistoryQuery, row: &HistoryRow) -> bool {
    let direction = if row.from_me { Direction::Outbound } else { Direction::Inbound };
    query.from.is_none_or(|from| row.timestamp >= from)
        && query.until.is_none_or(|until| row.timestamp < until)
        && query.direction.is_none_or(|wanted| wanted == direction)
        && query.kind.is_none_or(|kind| kind == row.kind)
}
