//! The outbox, and what idempotency keys stand for.

use super::{
    Embedded, codec,
    engines::View,
    history::{expect, relocate, upsert},
};
use crate::{
    Accepted, Fence, HistoryRow, OutboxRow, OutboxStore, SendOutcome, SendRecord, StoreError,
    tables::{self, Table},
};
use async_trait::async_trait;
use bytes::Bytes;
use rookery_protocol::{SessionId, Timestamp};
use std::ops::Bound;

/// How long an idempotency key stands for its message, in seconds.
const KEPT_SECS: i64 = 24 * 60 * 60;

/// Most idempotency records that one sweep removes.
const SWEEP_LIMIT: usize = 5_000;

#[async_trait]
impl OutboxStore for Embedded {
    async fn accept(&self, fence: &Fence, accepted: Accepted) -> Result<(), StoreError> {
        let fence = fence.clone();
        self.0
            .write("outbox_accept", move |transaction| {
                transaction.check(&fence)?;
                let session = fence.session();
                let Accepted { mut outbox, history, idempotency } = accepted;
                // Records are found by their time only where that is how they go.
                let by_time = transaction.sweeps();
                let swept = idempotency.iter().filter(|_| by_time);
                let record = swept.map(|(key, _)| (Table::Idempotency, tables::idempotency(session, key)));
                let waiting = std::iter::once_with(|| (Table::Outbox, tables::outbox(session, outbox.seq)));
                expect(transaction, session, std::slice::from_ref(&history), waiting.chain(record))?;
                // A message that is there already keeps its place, and all must name the same place.
                let place = upsert(transaction, session, HistoryRow { sent_at: None, ..history }, true)?;
                if let Some((key, record)) = idempotency {
                    let row = tables::idempotency(session, &key);
                    if by_time {
                        if let Some(old) = transaction.row::<SendRecord>(Table::Idempotency, &row)? {
                            let entry = tables::idempotency_at(old.accepted_at, session, &key);
                            transaction.delete(Table::Control, entry);
                        }
                        let entry = tables::idempotency_at(record.accepted_at, session, &key);
                        transaction.put_entry(Table::Control, entry)?;
                    }
                    transaction.put_row(Table::Idempotency, row, &SendRecord { sort_key: place, ..record })?;
                }
                outbox.sort_key = place;
                let key = tables::outbox(session, outbox.seq);
                if transaction.get(Table::Outbox, &key)?.is_some() {
                    return Err(StoreError::Refused("the outbox has another row with this sequence number"));
                }
                transaction.put_row(Table::Outbox, key, &outbox)
            })
            .await
    }

    async fn pending(
        &self,
        session: SessionId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.0
            .read("outbox_pending", move |database| {
                let after = after.map(|seq| tables::outbox(session, seq));
                let view = database.view();
                let rows = view.prefix(Table::Outbox, &tables::of_session(session), after.as_deref());
                rows.take(limit).map(|row| row.and_then(|(key, stored)| codec::decode_at(&key, &stored))).collect()
            })
            .await
    }

    async fn uploaded(&self, fence: &Fence, seq: u64, payload: Bytes, direct_path: &str) -> Result<(), StoreError> {
        let (fence, direct_path) = (fence.clone(), direct_path.to_owned());
        self.0
            .write("outbox_uploaded", move |transaction| {
                transaction.check(&fence)?;
                let key = tables::outbox(fence.session(), seq);
                let waiting: OutboxRow =
                    transaction.row(Table::Outbox, &key)?.ok_or(StoreError::NotFound("outbox row"))?;
                relocate(transaction, fence.session(), waiting.sort_key, &direct_path)?;
                transaction.put_row(Table::Outbox, key, &OutboxRow { payload, file: None, ..waiting })
            })
            .await
    }

    async fn resolve(&self, fence: &Fence, seq: u64, outcome: SendOutcome) -> Result<(), StoreError> {
        let fence = fence.clone();
        self.0
            .write("outbox_resolve", move |transaction| {
                transaction.check(&fence)?;
                let key = tables::outbox(fence.session(), seq);
                let sent: OutboxRow =
                    transaction.row(Table::Outbox, &key)?.ok_or(StoreError::NotFound("outbox row"))?;
                transaction.delete(Table::Outbox, key);
                let key = tables::history(fence.session(), sent.sort_key);
                let Some(mut message) = transaction.row::<HistoryRow>(Table::History, &key)? else { return Ok(()) };
                match outcome {
                    SendOutcome::Sent(at) => {
                        message.sent_at = Some(message.sent_at.map_or(at, |before| before.min(at)));
                        message.failure = None;
                    }
                    SendOutcome::Failed(reason) => message.failure = Some(reason),
                }
                transaction.put_row(Table::History, key, &message)
            })
            .await
    }

    async fn recorded(
        &self,
        session: SessionId,
        key: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<SendRecord>, StoreError> {
        let key = tables::idempotency(session, key);
        let read = self.0.read_now("outbox_recorded", move |database| {
            let record: Option<SendRecord> = database.row(Table::Idempotency, &key)?;
            match record {
                Some(record) if is_accepted(&database.view(), session, record.sort_key)? => Ok(Some(record)),
                _ => Ok(None),
            }
        });
        let record = read.await?;
        Ok(record.filter(|record| record.accepted_at.plus_secs(KEPT_SECS) > now))
    }

    async fn sweep(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.0
            .write("outbox_sweep", move |transaction| {
                let from = tables::idempotency_by_time();
                let oldest_kept = now.as_micros() - KEPT_SECS * 1_000_000;
                if oldest_kept < 0 {
                    return Ok(0);
                }
                let until = tables::idempotency_through(Timestamp::from_micros(oldest_kept));
                let range = (Bound::Included(&*from), Bound::Excluded(&*until));
                let entries = transaction.range(Table::Control, range.0, range.1, limit.min(SWEEP_LIMIT))?;
                let swept = entries.len();
                for (entry, _) in entries {
                    if let Some(key) = tables::idempotency_of_entry(&entry) {
                        transaction.delete(Table::Idempotency, key.to_vec());
                    }
                    transaction.delete(Table::Control, entry.to_vec());
                }
                Ok(swept)
            })
            .await
    }
}

/// Whether a message that a record names is on its way, or was: an owner that lost the session while it accepted may
/// have left the record and the message, late, without what waits to be sent. Nobody was told that it is accepted.
fn is_accepted(view: &View<'_>, session: SessionId, sort_key: u64) -> Result<bool, StoreError> {
    let message: Option<HistoryRow> = view.row(Table::History, &tables::history(session, sort_key))?;
    if message.is_none_or(|message| message.sent_at.is_some() || message.failure.is_some()) {
        return Ok(true);
    }
    for row in view.prefix(Table::Outbox, &tables::of_session(session), None) {
        let (key, stored) = row?;
        let waiting: OutboxRow = codec::decode_at(&key, &stored)?;
        if waiting.sort_key == sort_key {
            return Ok(true);
        }
    }
    Ok(false)
}
