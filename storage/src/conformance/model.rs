//! A plain model of all that the stores keep of one session.

use super::model_peers::Peers;
use crate::{
    Accepted, Amendment, Early, Fence, HistoryQuery, HistoryRow, KeyKind, MessageReceipt, OutboxRow, ReceiptKind,
    SendOutcome, SendRecord, SessionRow, StoreError,
};
use rookery_protocol::{Epoch, Incarnation, api::Direction};
use std::collections::{BTreeMap, HashMap};

/// Whether a query asks for a row, by its words alone.
pub(super) fn asked_for(query: &HistoryQuery, row: &HistoryRow) -> bool {
    let direction = if row.from_me { Direction::Outbound } else { Direction::Inbound };
    query.chat.as_ref().is_none_or(|chat| *chat == row.chat)
        && query.from.is_none_or(|from| row.timestamp >= from)
        && query.until.is_none_or(|until| row.timestamp < until)
        && query.direction.is_none_or(|wanted| wanted == direction)
        && query.kind.is_none_or(|kind| kind == row.kind)
        && query.before.is_none_or(|before| row.sort_key < before)
        && query.after.is_none_or(|after| row.sort_key > after)
}

/// One session of the model.
#[derive(Clone, Default)]
pub(super) struct Session {
    pub(super) row: Option<SessionRow>,
    pub(super) epoch: Epoch,
    pub(super) node: Option<Incarnation>,
    pub(super) keys: BTreeMap<(KeyKind, Vec<u8>), Vec<u8>>,
    pub(super) outbox: BTreeMap<u64, OutboxRow>,
    pub(super) records: HashMap<[u8; 32], SendRecord>,
    /// By sort key.
    pub(super) history: BTreeMap<u64, HistoryRow>,
    pub(super) peers: Peers,
    /// What waits for its message.
    pub(super) early: Vec<Early>,
}

impl Session {
    pub(super) fn check(&self, fence: &Fence) -> Result<(), StoreError> {
        match &self.row {
            None => Err(StoreError::NotFound("session")),
            Some(_) if self.epoch != fence.epoch() => {
                Err(StoreError::Fenced { session: fence.session(), epoch: fence.epoch() })
            }
            Some(_) => Ok(()),
        }
    }

    /// A `fresh` message is one that nobody can have seen.
    pub(super) fn insert(&mut self, mut row: HistoryRow, fresh: bool) -> u64 {
        let same = |other: &&HistoryRow| {
            let author = |row: &HistoryRow| (row.from_me, if row.from_me { None } else { row.sender.clone() });
            (&other.message_id, &other.chat, author(other)) == (&row.message_id, &row.chat, author(&row))
        };
        if let Some(before) = self.history.values().find(same) {
            row = before.delivered_again(row);
        } else {
            while self.history.contains_key(&row.sort_key) {
                row.sort_key += 1;
            }
            if !fresh {
                self.early.retain(|early| !take(early, &mut row));
            }
            self.peers.receive(&row, true);
        }
        let sort_key = row.sort_key;
        self.history.insert(sort_key, row);
        sort_key
    }

    /// Stores a message of a history sync, unless it is there; whether it was not.
    pub(super) fn import(&mut self, mut row: HistoryRow) -> bool {
        let author = |row: &HistoryRow| (row.from_me, if row.from_me { None } else { row.sender.clone() });
        let same = |other: &HistoryRow| {
            (&other.message_id, &other.chat, author(other)) == (&row.message_id, &row.chat, author(&row))
        };
        if self.history.values().any(same) {
            return false;
        }
        while self.history.contains_key(&row.sort_key) {
            row.sort_key += 1;
        }
        self.early.retain(|early| !take(early, &mut row));
        self.peers.receive(&row, false);
        self.history.insert(row.sort_key, row);
        true
    }

    pub(super) fn accept(&mut self, accepted: Accepted) -> Result<(), StoreError> {
        let Accepted { outbox, history, idempotency } = accepted;
        let sort_key = self.insert(history, true);
        if let Some((key, record)) = idempotency {
            self.records.insert(key, SendRecord { sort_key, ..record });
        }
        let seq = outbox.seq;
        if self.outbox.insert(seq, OutboxRow { sort_key, ..outbox }).is_some() {
            return Err(StoreError::Refused("taken"));
        }
        Ok(())
    }

    pub(super) fn resolve(&mut self, seq: u64, outcome: SendOutcome) -> Result<(), StoreError> {
        let row = self.outbox.remove(&seq).ok_or(StoreError::NotFound("outbox row"))?;
        if let Some(message) = self.history.get_mut(&row.sort_key) {
            match outcome {
                SendOutcome::Sent(at) => {
                    message.sent_at = [Some(at), message.sent_at].into_iter().flatten().min();
                    message.failure = None;
                }
                SendOutcome::Failed(reason) => message.failure = Some(reason),
            }
        }
        Ok(())
    }

    pub(super) fn receipt(&mut self, receipt: MessageReceipt) {
        let own = |row: &HistoryRow| row.from_me && row.message_id == receipt.ids[0];
        if !self.history.values().any(own) {
            return self.early.push(Early::Receipt(receipt));
        }
        let in_chat = self.history.values().any(|row| own(row) && row.chat == receipt.chat);
        for row in self.history.values_mut().filter(|row| own(row) && (!in_chat || row.chat == receipt.chat)) {
            reach(row, &receipt);
        }
    }

    pub(super) fn amend(&mut self, amendment: Amendment) {
        let mut found = false;
        for row in self.history.values_mut().filter(|row| amendment.concerns(row)) {
            amendment.apply(row);
            found = true;
        }
        if !found {
            self.early.push(Early::Amendment(amendment));
        }
    }

    /// Does a write as a whole or not at all, when the fence allows it.
    pub(super) fn write<T>(
        &mut self,
        fence: &Fence,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.check(fence)?;
        let mut changed = self.clone();
        let result = work(&mut changed)?;
        *self = changed;
        Ok(result)
    }
}

/// Whether what has waited is for this message, which then takes it in.
fn take(early: &Early, row: &mut HistoryRow) -> bool {
    match early {
        Early::Amendment(amendment) if amendment.concerns(row) => {
            amendment.apply(row);
        }
        Early::Receipt(receipt) if row.from_me && row.message_id == receipt.ids[0] => reach(row, receipt),
        _ => return false,
    }
    true
}

fn reach(row: &mut HistoryRow, receipt: &MessageReceipt) {
    let time = match receipt.kind {
        ReceiptKind::Delivered => &mut row.delivered_at,
        ReceiptKind::Read => &mut row.read_at,
        ReceiptKind::Played => &mut row.played_at,
    };
    *time = [Some(receipt.at), *time].into_iter().flatten().min();
}
