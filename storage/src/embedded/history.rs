//! Messages: in order of time, with indexes by chat and by id.
//!
//! A page seeks to where it begins, in the timeline or in the chat's index, and looks at a bounded number of
//! rows from there.

use super::{
    Embedded, chats,
    codec::{Place, decode},
    database::Pair,
    early,
    engines::{Database, View},
    transaction::Transaction,
    words::note_late,
};
use crate::{
    Amendment, Change, Fence, HistoryQuery, HistoryRow, HistoryStore, MessageReceipt, Page, ParticipantRow, StoreError,
    amend::note,
    tables::{self, Table},
};
use async_trait::async_trait;
use fjall::UserValue;
use futures_util::future::join_all;
use rookery_protocol::{Jid, MessageId, SessionId, Timestamp};
use std::{collections::VecDeque, ops::Bound};

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
                expect(transaction, fence.session(), &messages, std::iter::empty())?;
                for message in messages {
                    upsert(transaction, fence.session(), message, false)?;
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
        self.0
            .read_now("history_get", move |database| {
                let view = database.view();
                let mut rows: Vec<HistoryRow> = Vec::new();
                for entry in view.prefix(Table::HistoryById, &entries, None).take(SAME_ID_LIMIT) {
                    let Place(sort_key) = decode(&entry?.1)?;
                    rows.extend(view.row(Table::History, &tables::history(session, sort_key))?);
                }
                rows.sort_unstable_by_key(|row| !row.sort_key);
                Ok(rows)
            })
            .await
    }

    async fn receipts(
        &self,
        receipts: Vec<(Fence, MessageReceipt)>,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let count = receipts.len();
        let parts = self.0.parts(receipts, |(fence, _)| fence.session());
        let written = parts.into_iter().map(|part| {
            let numbers: Vec<usize> = part.iter().map(|(number, _)| *number).collect();
            let written = self.0.write("history_receipts", move |transaction| {
                let write = |(_, (fence, receipt)): &(usize, (Fence, MessageReceipt))| {
                    write_receipt(transaction, fence, receipt)
                };
                Ok(part.iter().map(write).collect::<Vec<_>>())
            });
            async move { (numbers, written.await) }
        });
        let written = join_all(written).await;
        match <[_; 1]>::try_from(written) {
            Ok([(numbers, written)]) => Ok(in_order(count, vec![(numbers, Ok(written?))])),
            Err(written) => Ok(in_order(count, written)),
        }
    }

    async fn amend(&self, fence: &Fence, amendments: Vec<Amendment>) -> Result<(), StoreError> {
        let fence = fence.clone();
        self.0
            .write("history_amend", move |transaction| {
                transaction.check(&fence)?;
                amendments.into_iter().try_for_each(|amendment| amend(transaction, fence.session(), amendment))
            })
            .await
    }

    async fn participants(
        &self,
        session: SessionId,
        sort_key: u64,
        after: Option<&Jid>,
        limit: usize,
    ) -> Result<Page<ParticipantRow, Jid>, StoreError> {
        let after = after.map(|member| tables::receipt_of(session, sort_key, member));
        self.0
            .read("history_participants", move |database| {
                let mut page: Page<ParticipantRow, Jid> = Page { rows: Vec::new(), next: None };
                let all = tables::receipts_of(session, sort_key);
                for entry in database.view().prefix(Table::Marks, &all, after.as_deref()) {
                    if page.rows.len() == limit.max(1) {
                        page.next = page.rows.last().map(|row| row.participant.clone());
                        break;
                    }
                    page.rows.push(decode(&entry?.1)?);
                }
                Ok(page)
            })
            .await
    }

    async fn at(&self, session: SessionId, sort_keys: Vec<u64>) -> Result<Vec<HistoryRow>, StoreError> {
        self.0
            .read("history_at", move |database| {
                let view = database.view();
                let place = |sort_key: &u64| (Table::History, tables::history(session, *sort_key));
                view.expect(|| sort_keys.iter().map(place).collect())?;
                let rows = sort_keys.into_iter().map(|key| view.row(Table::History, &tables::history(session, key)));
                rows.filter_map(Result::transpose).collect()
            })
            .await
    }

    async fn oldest_after(
        &self,
        session: SessionId,
        sort_key: u64,
        limit: usize,
    ) -> Result<Vec<HistoryRow>, StoreError> {
        self.0
            .read("history_oldest_after", move |database| {
                database.view().newer_than(session, sort_key).take(limit).map(|row| decode(&row?.1)).collect()
            })
            .await
    }

    async fn sweep(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.0.write("history_sweep", move |transaction| early::sweep(transaction, now, limit)).await
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

/// What became of each item of a list.
type Answers = Vec<Result<(), StoreError>>;

/// Answers of parts, each with the numbers of its items, in the order of the items.
fn in_order(count: usize, parts: Vec<(Vec<usize>, Result<Answers, StoreError>)>) -> Answers {
    let mut answers: Vec<_> = (0..count).map(|_| Err(StoreError::Refused("a receipt has no answer"))).collect();
    for (numbers, part) in parts {
        match part {
            Ok(part) => numbers.into_iter().zip(part).for_each(|(number, answer)| answers[number] = answer),
            Err(error) => {
                let reason = error.to_string();
                for number in numbers {
                    answers[number] = Err(StoreError::Unavailable(reason.clone()));
                }
            }
        }
    }
    answers
}

/// What writing these messages looks at, and other rows.
pub(super) fn expect(
    transaction: &Transaction<'_>,
    session: SessionId,
    messages: &[HistoryRow],
    others: impl Iterator<Item = (Table, Vec<u8>)>,
) -> Result<(), StoreError> {
    let of_message = |message: &HistoryRow| {
        [
            (Table::HistoryById, tables::history_by_id(session, message)),
            (Table::History, tables::history(session, message.sort_key)),
            (Table::Peers, tables::chat(session, &message.chat)),
        ]
    };
    let state = std::iter::once_with(|| (Table::Words, tables::index_state(session)));
    transaction.expect(|| messages.iter().flat_map(of_message).chain(state).chain(others).collect())
}

/// Writes a message and what it changes of its chat, or takes in the same one again; answers its sort key. What came
/// before a new one is taken in, but for `fresh` ones: nobody can have seen those.
pub(super) fn upsert(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    mut message: HistoryRow,
    fresh: bool,
) -> Result<u64, StoreError> {
    let entry = tables::history_by_id(session, &message);
    if let Some(Place(sort_key)) = transaction.row(Table::HistoryById, &entry)? {
        message.sort_key = sort_key;
        let key = tables::history(session, sort_key);
        if let Some(before) = transaction.row::<HistoryRow>(Table::History, &key)? {
            message = before.delivered_again(message);
            if !same_words(&before, &message) {
                note_late(transaction, session, sort_key)?;
            }
            transaction.put_row(Table::History, key, &message)?;
            return Ok(sort_key);
        }
        // Its first delivery got no further than the index: an engine over several partitions may be cut short there.
    }
    add(transaction, session, entry, &mut message, fresh)?;
    chats::receive(transaction, session, &message)?;
    Ok(message.sort_key)
}

/// Writes a message that is not there yet, at the next free place; `entry` is its key in the index by id.
pub(super) fn add(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    entry: Vec<u8>,
    message: &mut HistoryRow,
    fresh: bool,
) -> Result<(), StoreError> {
    let mut key = tables::history(session, message.sort_key);
    while transaction.get(Table::History, &key)?.is_some() {
        message.sort_key += 1;
        key = tables::history(session, message.sort_key);
    }
    if !fresh {
        early::take(transaction, session, message)?;
    }
    transaction.put_row(Table::HistoryById, entry, &Place(message.sort_key))?;
    transaction.put_entry(Table::HistoryByChat, tables::history_in_chat(session, &message.chat, message.sort_key))?;
    transaction.put_row(Table::History, key, message)?;
    note_late(transaction, session, message.sort_key)
}

/// Whether a search sees no difference.
fn same_words(a: &HistoryRow, b: &HistoryRow) -> bool {
    let name = |row: &HistoryRow| row.media.as_ref().and_then(|media| media.file_name.clone());
    (&a.text, &a.caption, a.kind, name(a)) == (&b.text, &b.caption, b.kind, name(b))
}

/// Applies a change to the messages that it is about; it waits when there is none.
fn amend(transaction: &mut Transaction<'_>, session: SessionId, mut amendment: Amendment) -> Result<(), StoreError> {
    early::resolve_names(transaction, session, [&mut amendment.chat, &mut amendment.by])?;
    let mut found = false;
    let entries = tables::history_of_id(session, &amendment.message_id);
    for (_, place) in transaction.prefix(Table::HistoryById, &entries, None, SAME_ID_LIMIT)? {
        let Place(sort_key) = decode(&place)?;
        let key = tables::history(session, sort_key);
        let Some(mut row) = transaction.row::<HistoryRow>(Table::History, &key)? else { continue };
        if !early::concerns(transaction, session, &amendment, &row)? {
            continue;
        }
        found = true;
        if amendment.apply(&mut row) {
            transaction.put_row(Table::History, key, &row)?;
            if matches!(amendment.change, Change::Edit { .. }) {
                note_late(transaction, session, sort_key)?;
            }
        }
    }
    if found { Ok(()) } else { early::keep_amendment(transaction, session, amendment) }
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

fn write_receipt(transaction: &mut Transaction<'_>, fence: &Fence, receipt: &MessageReceipt) -> Result<(), StoreError> {
    transaction.check(fence)?;
    let session = fence.session();
    for id in &receipt.ids {
        let rows = own_messages(transaction, session, &receipt.chat, id)?;
        if rows.is_empty() {
            early::keep_receipt(transaction, session, id, receipt)?;
        }
        for mut row in rows {
            note_member(transaction, session, row.sort_key, receipt)?;
            if row.reach(receipt.kind, receipt.at) {
                transaction.put_row(Table::History, tables::history(session, row.sort_key), &row)?;
            }
        }
    }
    Ok(())
}

/// Writes the receipt of a member of a group into the member's row for the message.
pub(super) fn note_member(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    sort_key: u64,
    receipt: &MessageReceipt,
) -> Result<(), StoreError> {
    let Some(member) = &receipt.participant else { return Ok(()) };
    let key = tables::receipt_of(session, sort_key, member);
    let unknown = ParticipantRow { participant: member.clone(), delivered_at: None, read_at: None, played_at: None };
    let mut row = transaction.row(Table::Marks, &key)?.unwrap_or(unknown);
    if note(receipt.kind.of(&mut row.delivered_at, &mut row.read_at, &mut row.played_at), receipt.at) {
        transaction.put_row(Table::Marks, key, &row)?;
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
    let Some((oldest, newest)) = query.span() else { return Ok(page) };
    let key = |sort_key| match &query.chat {
        Some(chat) => tables::history_in_chat(session, chat, sort_key),
        None => tables::history(session, sort_key),
    };
    let table = if query.chat.is_some() { Table::HistoryByChat } else { Table::History };
    let (limit, mut looked_at, mut last) = (query.limit.max(1), 0, None);
    let mut entries = view.range(table, Bound::Included(&key(newest)), Bound::Included(&key(oldest)));
    let mut ahead = VecDeque::new();
    loop {
        if ahead.is_empty() {
            // What a page has at least, and the one that says that there is more.
            let count = (limit + 1 - page.rows.len()).min(LOOK_LIMIT + 1 - looked_at);
            ahead = take(view, session, table, &mut entries, count)?;
        }
        let Some((sort_key, stored)) = ahead.pop_front() else { return Ok(page) };
        if page.rows.len() == limit || looked_at == LOOK_LIMIT {
            page.next = last;
            return Ok(page);
        }
        let row: Option<HistoryRow> = match table {
            Table::History => Some(decode(&stored)?),
            _ => view.row(Table::History, &tables::history(session, sort_key))?,
        };
        page.rows.extend(row.filter(|row| query.matches(row)));
        last = Some(sort_key);
        looked_at += 1;
    }
}

/// The next entries of a timeline or of a chat's index; the messages of the latter will be read.
fn take(
    view: &View<'_>,
    session: SessionId,
    table: Table,
    entries: &mut dyn Iterator<Item = Result<Pair, StoreError>>,
    count: usize,
) -> Result<VecDeque<(u64, UserValue)>, StoreError> {
    let mut taken = VecDeque::with_capacity(count);
    for entry in entries.take(count) {
        let (key, stored) = entry?;
        taken.push_back((sort_key(&key)?, stored));
    }
    if table == Table::HistoryByChat {
        let message = |(sort_key, _): &(u64, UserValue)| (Table::History, tables::history(session, *sort_key));
        view.expect(|| taken.iter().map(message).collect())?;
    }
    Ok(taken)
}
