//! What came before the message that it is about: kept under the message's id until it comes, or for
//! [`EARLY_KEPT_SECS`].

use super::{codec::decode, contacts::resolve, history::note_member, transaction::Transaction};
use crate::{
    Amendment, Change, EARLY_KEPT_SECS, Early, EarlyRow, HistoryRow, MessageReceipt, ReceiptKind, StoreError,
    tables::{self, Table},
};
use rookery_protocol::{Jid, JidServer, MessageId, SessionId, Timestamp};
use std::ops::Bound;

/// Most that waits for one message: of every member of the largest group a reaction and three receipts.
const WAITING_LIMIT: usize = 4_096;

/// Most rows that one sweep removes.
const SWEEP_LIMIT: usize = 5_000;

/// Keeps a change of a message that is not there yet. Of several by one person the one that counts stays.
pub(super) fn keep_amendment(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    amendment: Amendment,
) -> Result<(), StoreError> {
    let sort = match amendment.change {
        Change::Edit { .. } => 1,
        Change::Revoke { as_admin: false } => 2,
        Change::Revoke { as_admin: true } => 3,
        Change::React { .. } => 4,
    };
    let who = if amendment.from_me { "me" } else { amendment.by.as_str() };
    let key = tables::early(session, &amendment.message_id, sort, &amendment.chat, who);
    let before: Option<EarlyRow> = transaction.row(Table::Marks, &key)?;
    let counts = match &before {
        Some(EarlyRow { what: Early::Amendment(before), .. }) => amendment.replaces(before),
        _ => true,
    };
    if counts { keep(transaction, key, before, Early::Amendment(amendment)) } else { Ok(()) }
}

/// Keeps a receipt for a message that is not there yet; the earliest of each stage and member stays.
pub(super) fn keep_receipt(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    id: &MessageId,
    receipt: &MessageReceipt,
) -> Result<(), StoreError> {
    let sort = match receipt.kind {
        ReceiptKind::Delivered => 5,
        ReceiptKind::Read => 6,
        ReceiptKind::Played => 7,
    };
    let who = receipt.participant.as_ref().map_or("", |member| member.as_str());
    let key = tables::early(session, id, sort, &receipt.chat, who);
    let before: Option<EarlyRow> = transaction.row(Table::Marks, &key)?;
    if let Some(EarlyRow { what: Early::Receipt(before), .. }) = &before
        && before.at <= receipt.at
    {
        return Ok(());
    }
    let receipt = MessageReceipt { ids: vec![id.clone()], ..receipt.clone() };
    keep(transaction, key, before, Early::Receipt(receipt))
}

fn keep(
    transaction: &mut Transaction<'_>,
    key: Vec<u8>,
    before: Option<EarlyRow>,
    what: Early,
) -> Result<(), StoreError> {
    let received_at = before.map_or_else(Timestamp::now, |before| before.received_at);
    transaction.put_entry(Table::Control, tables::early_entry(&key, received_at))?;
    transaction.put_row(Table::Marks, key, &EarlyRow { received_at, what })
}

/// Puts the phone number for each LID whose number is known: the same person may be named either way.
pub(super) fn resolve_names<'a>(
    transaction: &Transaction<'_>,
    session: SessionId,
    names: impl IntoIterator<Item = &'a mut Jid>,
) -> Result<(), StoreError> {
    for name in names {
        if let Some(phone) = resolve(transaction, session, name)? {
            *name = phone;
        }
    }
    Ok(())
}

/// Whether an amendment, with its names resolved, is of this message and by somebody who may.
pub(super) fn concerns(
    transaction: &Transaction<'_>,
    session: SessionId,
    amendment: &Amendment,
    row: &HistoryRow,
) -> Result<bool, StoreError> {
    let mut named = HistoryRow::new(row.message_id.clone(), row.chat.clone(), row.kind, row.timestamp);
    (named.from_me, named.sender) = (row.from_me, row.sender.clone());
    resolve_names(transaction, session, [&mut named.chat].into_iter().chain(&mut named.sender))?;
    Ok(amendment.concerns(&named))
}

/// Applies what has waited for this message, which is about to be written for the first time.
pub(super) fn take(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    message: &mut HistoryRow,
) -> Result<(), StoreError> {
    let waiting = tables::early_of(session, &message.message_id);
    for (key, stored) in transaction.prefix(Table::Marks, &waiting, None, WAITING_LIMIT)? {
        let EarlyRow { received_at, mut what } = decode(&stored)?;
        if let Early::Amendment(amendment) = &mut what {
            resolve_names(transaction, session, [&mut amendment.chat, &mut amendment.by])?;
        }
        match what {
            Early::Amendment(amendment) if concerns(transaction, session, &amendment, message)? => {
                amendment.apply(message);
            }
            Early::Receipt(receipt) if is_for(&receipt, message) => {
                message.reach(receipt.kind, receipt.at);
                note_member(transaction, session, message.sort_key, &receipt)?;
            }
            _ => continue,
        }
        transaction.delete(Table::Control, tables::early_entry(&key, received_at));
        transaction.delete(Table::Marks, key.to_vec());
    }
    Ok(())
}

/// A chat of two may be stored under its other name.
fn is_for(receipt: &MessageReceipt, message: &HistoryRow) -> bool {
    let of_two = |chat: JidServer| chat != JidServer::Group;
    message.from_me && (message.chat == receipt.chat || of_two(message.chat.server()) && of_two(receipt.chat.server()))
}

/// Removes what has waited for too long at `now`; answers how much.
pub(super) fn sweep(transaction: &mut Transaction<'_>, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
    let from = tables::early_by_time();
    let oldest_kept = now.as_micros() - EARLY_KEPT_SECS * 1_000_000;
    if oldest_kept < 0 {
        return Ok(0);
    }
    let until = tables::early_through(Timestamp::from_micros(oldest_kept));
    let limit = limit.min(SWEEP_LIMIT);
    let entries = transaction.range(Table::Control, Bound::Included(&from), Bound::Excluded(&until), limit)?;
    for (entry, _) in &entries {
        if let Some(key) = tables::early_of_entry(entry) {
            transaction.delete(Table::Marks, key.to_vec());
        }
        transaction.delete(Table::Control, entry.to_vec());
    }
    Ok(entries.len())
}
