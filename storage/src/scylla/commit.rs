//! Writing what an operation decided.
//!
//! Rows in one partition go in one batch, as a whole. An operation that accepts a send writes into several partitions,
//! and must not be half done after a crash: all its rows are noted in the session's journal first, in one row, and
//! whoever takes the session over writes them again, with the timestamps that they had, so that nothing newer suffers.
//! Other operations are safe by their order: what points to a row is written before it, so that a message that comes
//! again finds its place; what makes a row unreachable is written last.

use super::{
    client::Failure,
    operations::{Core, blob},
    place::{self, Place, SESSION},
    stamp::Stamp,
    statements::Stored,
};
use crate::{
    EARLY_KEPT_SECS, Fence, StoreError,
    embedded::transaction::{Change, Changes},
    tables::{self, Table},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use rookery_protocol::SessionId;
use scylla::value::CqlValue;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// Rows in one batch; more go in several, side by side.
const BATCH_ROWS: usize = 200;
/// Bytes in one batch, about.
const BATCH_BYTES: usize = 256 * 1024;
/// Batches of one commit at once.
const SIDE_BY_SIDE: usize = 16;
/// The largest value that is written. Servers refuse what is larger than half a segment of their log.
const MAX_VALUE_BYTES: usize = 8 * 1024 * 1024;

/// How long what came before its message is kept, in seconds.
const EARLY_SECS: u32 = EARLY_KEPT_SECS as u32;

/// The format of a journal's row.
const JOURNAL_VERSION: u8 = 1;

/// A row to write, or to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Write {
    stored: u8,
    partition: Vec<u8>,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    /// When in a commit that is not in the journal it is written.
    phase: u8,
    /// After how many seconds it goes by itself; never at 0.
    expires_secs: u32,
}

/// What one operation writes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Commit {
    stamp: i64,
    writes: Vec<Write>,
}

/// Writes an operation's changes. `writer` is the fence that it checked.
pub(super) async fn commit(core: &Arc<Core>, writer: Option<&Fence>, changes: &Changes) -> Result<(), StoreError> {
    match writer {
        Some(fence) => fence.guarded(write_down(core, writer, changes)).await,
        None => write_down(core, None, changes).await,
    }
}

async fn write_down(core: &Arc<Core>, writer: Option<&Fence>, changes: &Changes) -> Result<(), StoreError> {
    let (mut writes, windows) = plan(core, changes)?;
    let stamp = match writer {
        Some(fence) => Stamp::next(fence)?,
        // A session that is being made has no owner yet. Nothing else may be written without one.
        None if writes.iter().all(Write::needs_no_owner) => Stamp::creation(),
        None => return Err(StoreError::Refused("what belongs to a session is written by its owner")),
    };
    writes.sort_by_key(|write| write.phase);
    let accepts = writes.iter().any(|write| write.stored == Stored::Outbox as u8 && write.phase == PUTS);
    let commit = Arc::new(Commit { stamp: stamp.value(), writes });
    match writer.filter(|_| accepts) {
        Some(fence) => commit.journaled(core, fence.session()).await?,
        None => commit.apply(core).await?,
    }
    core.note_windows(windows);
    Ok(())
}

/// Brings to an end what the last owner of a session has accepted, with the timestamps that it had.
pub(super) async fn replay(core: &Core, session: SessionId) -> Result<(), StoreError> {
    let place = Place { stored: Stored::Journal, partition: session.as_bytes().to_vec(), key: Vec::new() };
    let Some(noted) = core.get(&place).await? else { return Ok(()) };
    let corrupt = |detail: String| StoreError::Corrupt { what: "journal", detail };
    let commit: Commit = match noted.split_first() {
        Some((&JOURNAL_VERSION, bytes)) => postcard::from_bytes(bytes).map_err(|error| corrupt(error.to_string()))?,
        _ => return Err(corrupt("its format is not known".to_owned())),
    };
    commit.apply(core).await
}

/// Rows that others are found by.
const POINTERS: u8 = 0;
/// Rows.
const PUTS: u8 = 1;
/// What makes rows unreachable, and what says that a session is there.
const LAST: u8 = 2;

/// The rows to write, and the windows that are new with them.
fn plan(core: &Core, changes: &Changes) -> Result<(Vec<Write>, Vec<Place>), StoreError> {
    let (mut writes, mut windows) = (Vec::new(), Vec::new());
    for (table, key, change) in changes.rows() {
        let Some(place) = place::place(table, key) else { continue };
        let value = match change {
            Change::Put(value) => Some(value.to_vec()),
            Change::Delete => None,
        };
        if value.as_ref().is_some_and(|value| value.len() > MAX_VALUE_BYTES) {
            return Err(StoreError::Refused("a value is too large"));
        }
        if value.is_some()
            && let Some(entry) = place::window_entry(table, key)
            && core.is_new_window(&entry)
            && !windows.contains(&entry)
        {
            writes.push(write(&entry, Some(Vec::new()), POINTERS));
            windows.push(entry);
        }
        let is_session = table == Table::Control && key.first() == Some(&SESSION);
        let phase = match (table, &value) {
            (Table::HistoryById, Some(_)) => POINTERS,
            (Table::Outbox, None) => LAST,
            _ if is_session => LAST,
            _ => PUTS,
        };
        // A place in the ring is never deleted: the number alone says that it is free.
        let value = match (table, value) {
            (Table::Outbox, value) => Some([&key[16..], &value.unwrap_or_default()].concat()),
            (_, value) => value,
        };
        let early = table == Table::Marks && tables::is_early(key);
        writes.push(Write { expires_secs: if early { EARLY_SECS } else { 0 }, ..write(&place, value, phase) });
    }
    Ok((writes, windows))
}

fn write(place: &Place, value: Option<Vec<u8>>, phase: u8) -> Write {
    let Place { stored, partition, key } = place.clone();
    Write { stored: stored as u8, partition, key, value, phase, expires_secs: 0 }
}

fn table(number: u8) -> Result<Stored, StoreError> {
    let known = Stored::ALL.get(usize::from(number)).copied();
    known.ok_or_else(|| StoreError::Corrupt { what: "journal", detail: format!("table {number} is not known") })
}

impl Write {
    /// Whether it belongs to no session, or makes one.
    fn needs_no_owner(&self) -> bool {
        table(self.stored).is_ok_and(|stored| !stored.is_fenced() || stored == Stored::Sessions)
    }
}

impl Commit {
    /// Notes all of it in the journal, then writes it, all at once.
    async fn journaled(self: &Arc<Self>, core: &Core, session: SessionId) -> Result<(), StoreError> {
        let note = postcard::to_extend(self, vec![JOURNAL_VERSION]).expect("rows have lengths that are known");
        if note.len() > MAX_VALUE_BYTES {
            return Err(StoreError::Refused("a send is too large"));
        }
        let place = Place { stored: Stored::Journal, partition: session.as_bytes().to_vec(), key: Vec::new() };
        // When this fails, nothing else was begun.
        core.put_all("journal_put", vec![write(&place, Some(note), PUTS)], self.stamp).await?;
        if let Err(failure) = core.put_all("accept", self.writes.clone(), self.stamp).await {
            // It is accepted, or will be by whoever comes next in this session.
            core.leave_unfinished(session, Arc::clone(self));
            return Err(StoreError::Engine(Box::new(StoreError::from(failure))));
        }
        Ok(())
    }

    /// Writes it, in the order of its phases.
    pub(super) async fn apply(&self, core: &Core) -> Result<(), StoreError> {
        let mut begun = false;
        for phase in [POINTERS, PUTS, LAST] {
            let writes: Vec<_> = self.writes.iter().filter(|write| write.phase == phase).cloned().collect();
            if writes.is_empty() {
                continue;
            }
            match core.put_all("commit", writes, self.stamp).await {
                Ok(()) => begun = true,
                Err(Failure::Refused(error)) if !begun => return Err(error),
                Err(failure) => return Err(StoreError::Engine(Box::new(StoreError::from(failure)))),
            }
        }
        Ok(())
    }
}

impl Core {
    /// Writes rows, those of a partition together, side by side otherwise.
    async fn put_all(&self, name: &'static str, writes: Vec<Write>, stamp: i64) -> Result<(), Failure> {
        let mut by_partition: BTreeMap<(u8, Vec<u8>), Vec<Write>> = BTreeMap::new();
        for write in writes {
            by_partition.entry((write.stored, write.partition.clone())).or_default().push(write);
        }
        let batches: Vec<Vec<Write>> = by_partition.into_values().flat_map(in_batches).collect();
        // One that is certainly refused says nothing about the others.
        let alone = batches.len() == 1;
        stream::iter(batches)
            .map(|batch| self.put_batch(name, batch, stamp))
            .buffer_unordered(SIDE_BY_SIDE)
            .try_collect::<()>()
            .await
            .map_err(|failure| match failure {
                Failure::Refused(error @ StoreError::Unavailable(_)) if !alone => {
                    Failure::Unknown(StoreError::Engine(Box::new(error)))
                }
                failure => failure,
            })
    }

    async fn put_batch(&self, name: &'static str, mut batch: Vec<Write>, stamp: i64) -> Result<(), Failure> {
        let mut statements = Vec::with_capacity(batch.len());
        for write in &mut batch {
            let stored = table(write.stored).map_err(Failure::Refused)?;
            let of = self.client.statements().of(stored);
            let mut values = Vec::with_capacity(4);
            let stamp = stored.is_fenced().then_some(CqlValue::BigInt(stamp));
            let (partition, key) = (blob(&write.partition), blob(&write.key));
            if let Some(value) = write.value.take() {
                let expiry = (write.expires_secs > 0).then_some(CqlValue::Int(write.expires_secs.cast_signed()));
                let statement = if expiry.is_some() { &of.put_expiring } else { &of.put };
                values.extend([partition, key, CqlValue::Blob(value)].into_iter().chain(stamp).chain(expiry));
                statements.push((statement, values));
            } else {
                values.extend(stamp.into_iter().chain([partition, key]));
                statements.push((&of.delete, values));
            }
        }
        if statements.len() == 1
            && let Some((statement, values)) = statements.pop()
        {
            return self.client.write(statement, values).await;
        }
        self.client.batch(name, statements).await
    }
}

/// Writes of one partition in batches that are not too large.
fn in_batches(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut batches: Vec<Vec<Write>> = Vec::new();
    let mut bytes = 0;
    for write in writes {
        let length = write.key.len() + write.value.as_ref().map_or(0, Vec::len);
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_ROWS && bytes + length < BATCH_BYTES => {
                bytes += length;
                batch.push(write);
            }
            _ => {
                bytes = length;
                batches.push(vec![write]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u32, length: usize) -> Write {
        let place = Place { stored: Stored::History, partition: vec![1], key: number.to_be_bytes().to_vec() };
        write(&place, Some(vec![7; length]), PUTS)
    }

    #[test]
    fn batches_are_bounded_and_keep_every_row() {
        let rows: Vec<_> = (0..1_000).map(|number| row(number, if number == 500 { BATCH_BYTES } else { 10 })).collect();
        let batches = in_batches(rows.clone());
        assert!(batches.iter().all(|batch| batch.len() <= BATCH_ROWS) && batches.len() <= 8);
        assert_eq!(batches.concat(), rows);
    }

    #[test]
    fn a_journal_is_read_as_it_was_written() {
        let commit = Commit { stamp: 5 << 30 | 3, writes: vec![row(1, 3)] };
        let note = postcard::to_extend(&commit, vec![JOURNAL_VERSION]).unwrap();
        assert_eq!(postcard::from_bytes::<Commit>(&note[1..]).unwrap(), commit);
        assert!(table(200).is_err());
    }
}
