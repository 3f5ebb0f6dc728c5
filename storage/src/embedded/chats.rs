//! Chats: a row a chat, rewritten by every message; the list is sorted when it is read.

use super::{
    Embedded,
    codec::decode,
    contacts::{self, resolve},
    engines::View,
    transaction::Transaction,
};
use crate::{
    ChatChange, ChatFacts, ChatPlace, ChatRow, ChatStore, ContactRow, Fence, HistoryRow, Page, StoreError,
    chats::has_chat,
    tables::{self, Table},
};
use async_trait::async_trait;
use rookery_protocol::{Jid, SessionId};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
};

/// Most messages that are looked at to count those that nobody has read.
const COUNT_LIMIT: usize = 2_000;

#[async_trait]
impl ChatStore for Embedded {
    async fn list(
        &self,
        session: SessionId,
        after: Option<&ChatPlace>,
        limit: usize,
    ) -> Result<Page<ChatRow, ChatPlace>, StoreError> {
        let after = after.cloned();
        self.0.read("chats_list", move |database| page(&database.view(), session, after.as_ref(), limit.max(1))).await
    }

    async fn get(&self, session: SessionId, jid: &Jid) -> Result<Option<ChatRow>, StoreError> {
        let jid = jid.clone();
        self.0
            .read("chats_get", move |database| {
                let view = database.view();
                let number = contacts::number(&view, session, &jid)?;
                view.row(Table::Peers, &tables::chat(session, number.as_ref().unwrap_or(&jid)))
            })
            .await
    }

    async fn change(&self, fence: &Fence, changes: Vec<(Jid, ChatChange)>) -> Result<(), StoreError> {
        let fence = fence.clone();
        self.0
            .write("chats_change", move |transaction| {
                transaction.check(&fence)?;
                for (jid, change) in changes {
                    apply(transaction, fence.session(), &jid, change)?;
                }
                Ok(())
            })
            .await
    }
}

/// A message that is stored now.
pub(super) fn receive(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    message: &HistoryRow,
) -> Result<(), StoreError> {
    if !has_chat(&message.chat) {
        return Ok(());
    }
    let (key, mut row) = chat(transaction, session, &message.chat)?;
    row.receive(message);
    transaction.put_row(Table::Peers, key, &row)
}

/// What a part of a history says of chats, each of which is read and written once.
#[derive(Default)]
pub(super) struct Remembered(BTreeMap<Jid, (Vec<u8>, ChatRow)>);

impl Remembered {
    /// What the phone says of a chat.
    pub(super) fn sync(
        &mut self,
        transaction: &Transaction<'_>,
        session: SessionId,
        facts: &ChatFacts,
    ) -> Result<(), StoreError> {
        if has_chat(&facts.jid) {
            self.row(transaction, session, &facts.jid)?.sync(facts);
        }
        Ok(())
    }

    /// A message of it.
    pub(super) fn remember(
        &mut self,
        transaction: &Transaction<'_>,
        session: SessionId,
        message: &HistoryRow,
    ) -> Result<(), StoreError> {
        if has_chat(&message.chat) {
            self.row(transaction, session, &message.chat)?.remember(message);
        }
        Ok(())
    }

    /// Writes them.
    pub(super) fn write(self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        self.0.into_values().try_for_each(|(key, row)| transaction.put_row(Table::Peers, key, &row))
    }

    fn row(
        &mut self,
        transaction: &Transaction<'_>,
        session: SessionId,
        jid: &Jid,
    ) -> Result<&mut ChatRow, StoreError> {
        let jid = resolve(transaction, session, jid)?.unwrap_or_else(|| jid.clone());
        Ok(match self.0.entry(jid) {
            Entry::Occupied(found) => &mut found.into_mut().1,
            Entry::Vacant(place) => {
                let found = chat(transaction, session, place.key())?;
                &mut place.insert(found).1
            }
        })
    }
}

/// What is kept of the chat under a LID belongs to the one under a phone number.
pub(super) fn merge(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    lid: &Jid,
    phone: Jid,
) -> Result<(), StoreError> {
    let under_lid = tables::chat(session, lid);
    let Some(other) = transaction.row::<ChatRow>(Table::Peers, &under_lid)? else { return Ok(()) };
    let key = tables::chat(session, &phone);
    let mut row = transaction.row(Table::Peers, &key)?.unwrap_or_else(|| ChatRow::new(phone));
    row.absorb(other);
    transaction.delete(Table::Peers, under_lid);
    transaction.put_row(Table::Peers, key, &row)
}

fn apply(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    jid: &Jid,
    change: ChatChange,
) -> Result<(), StoreError> {
    if !has_chat(jid) {
        return Ok(());
    }
    let (key, mut row) = chat(transaction, session, jid)?;
    let left = match change {
        ChatChange::Read(until) if !row.ends_by(until) => unread_behind(transaction, session, &row.jid, until)?,
        _ => 0,
    };
    row.apply(change, left);
    transaction.put_row(Table::Peers, key, &row)
}

/// How many inbound messages of a chat are behind a place in the history, under either of its addresses.
fn unread_behind(transaction: &Transaction<'_>, session: SessionId, chat: &Jid, until: u64) -> Result<u32, StoreError> {
    let mut unread = 0;
    let contact: Option<ContactRow> = transaction.row(Table::Peers, &tables::contact(session, chat))?;
    let other = contact.and_then(|contact| contact.other);
    for jid in std::iter::once(chat).chain(&other) {
        let newest = tables::history_in_chat(session, jid, u64::MAX);
        let read = tables::history_in_chat(session, jid, until);
        let range = (Bound::Included(&*newest), Bound::Excluded(&*read));
        for (key, _) in transaction.range(Table::HistoryByChat, range.0, range.1, COUNT_LIMIT)? {
            let sort_key = tables::sort_key_of_entry(&key).unwrap_or(0);
            let row: Option<HistoryRow> = transaction.row(Table::History, &tables::history(session, sort_key))?;
            unread += u32::from(row.is_some_and(|row| !row.from_me));
        }
    }
    Ok(unread)
}

/// The row of a chat, or a new one, and its key.
fn chat(transaction: &Transaction<'_>, session: SessionId, jid: &Jid) -> Result<(Vec<u8>, ChatRow), StoreError> {
    let resolved = resolve(transaction, session, jid)?;
    let jid = resolved.as_ref().unwrap_or(jid);
    let key = tables::chat(session, jid);
    let row = transaction.row(Table::Peers, &key)?.unwrap_or_else(|| ChatRow::new(jid.clone()));
    Ok((key, row))
}

/// The newest chats after a place. All rows are looked at, and no more than a page is kept.
fn page(
    view: &View<'_>,
    session: SessionId,
    after: Option<&ChatPlace>,
    limit: usize,
) -> Result<Page<ChatRow, ChatPlace>, StoreError> {
    let mut newest: BTreeMap<ChatPlace, ChatRow> = BTreeMap::new();
    for entry in view.prefix(Table::Peers, &tables::chats(session), None) {
        let row: ChatRow = decode(&entry?.1)?;
        let place = row.place();
        if row.is_shown() && after.is_none_or(|after| place < *after) {
            newest.insert(place, row);
            if newest.len() > limit + 1 {
                newest.pop_first();
            }
        }
    }
    let more = newest.len() > limit;
    if more {
        newest.pop_first();
    }
    let next = if more { newest.first_key_value().map(|(place, _)| place.clone()) } else { None };
    Ok(Page { rows: newest.into_values().rev().collect(), next })
}
