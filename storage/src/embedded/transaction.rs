//! What a write sees and changes: the database under all that went before it in the same batch.
//!
//! Operations of one batch see each other's effects, and one that fails leaves none.

use super::{
    codec::{self, Row},
    database::{Database, Pair, holds_nothing},
};
use crate::{
    Fence, Owner, StoreError,
    tables::{self, Table},
};
use fjall::UserValue;
use rookery_protocol::SessionId;
use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
};

/// Longest key that is stored, in bytes. CQL and the engine take 65,535.
const MAX_KEY_BYTES: usize = 16 * 1024;

/// What became of a row.
#[derive(Clone)]
pub(super) enum Change {
    /// It has this stored value.
    Put(UserValue),
    /// It is gone.
    Delete,
}

/// Changes that are not on disk yet.
#[derive(Default)]
pub(super) struct Changes {
    tables: [BTreeMap<Vec<u8>, Change>; Table::ALL.len()],
    bytes: usize,
}

impl Changes {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }

    /// About how large they are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Each change, once a key.
    pub(super) fn into_rows(self) -> impl Iterator<Item = (Table, Vec<u8>, Change)> {
        let of_table =
            |(table, rows): (Table, BTreeMap<_, _>)| rows.into_iter().map(move |(key, value)| (table, key, value));
        Table::ALL.into_iter().zip(self.tables).flat_map(of_table)
    }
}

/// One operation's access to the tables.
pub(super) struct Transaction<'a> {
    database: &'a Database,
    changes: &'a mut Changes,
    /// Sessions whose data is being removed, which takes several batches.
    leaving: &'a mut HashSet<SessionId>,
    /// What this operation replaced: a change of an operation before it, or none.
    undo: Vec<(Table, Vec<u8>, Option<Change>)>,
}

impl<'a> Transaction<'a> {
    /// On top of these changes.
    pub(super) fn new(database: &'a Database, changes: &'a mut Changes, leaving: &'a mut HashSet<SessionId>) -> Self {
        Self { database, changes, leaving, undo: Vec::new() }
    }

    /// Takes back what this operation changed.
    pub(super) fn roll_back(mut self) {
        for (table, key, before) in self.undo.drain(..).rev() {
            let rows = &mut self.changes.tables[table as usize];
            match before {
                Some(change) => rows.insert(key, change),
                None => rows.remove(&key),
            };
        }
    }

    /// A stored value.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        match self.changes.tables[table as usize].get(key) {
            Some(Change::Put(value)) => Ok(Some(value.clone())),
            Some(Change::Delete) => Ok(None),
            None => self.database.get(table, key),
        }
    }

    /// A decoded row.
    pub(super) fn row<R: Row>(&self, table: Table, key: &[u8]) -> Result<Option<R>, StoreError> {
        self.get(table, key)?.map(|stored| codec::decode(&stored)).transpose()
    }

    /// The first `limit` rows from `from` on and before `until`, in the order of their keys.
    pub(super) fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        until: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        if holds_nothing(from, until) {
            return Ok(Vec::new());
        }
        let changed: Vec<_> = self.changes.tables[table as usize].range::<[u8], _>((from, until)).collect();
        // Every row that is changed may hide one of the database's.
        let wanted = limit.saturating_add(changed.len());
        let stored: Result<Vec<Pair>, _> = self.database.view().range(table, from, until).take(wanted).collect();
        if changed.is_empty() {
            return stored;
        }
        let mut rows: BTreeMap<_, _> = stored?.into_iter().collect();
        for (key, change) in changed {
            match change {
                Change::Put(value) => rows.insert(key.as_slice().into(), value.clone()),
                Change::Delete => rows.remove(key.as_slice()),
            };
        }
        Ok(rows.into_iter().take(limit).collect())
    }

    /// The first `limit` rows whose key begins with `prefix`, after the key `after`.
    pub(super) fn prefix(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let end = tables::end_of(prefix);
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        self.range(table, from, end.as_deref().map_or(Bound::Unbounded, Bound::Excluded), limit)
    }

    /// Writes a stored value.
    pub(super) fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        if key.len() > MAX_KEY_BYTES {
            return Err(StoreError::Refused("a key is too long"));
        }
        let value = UserValue::from(value);
        self.changes.bytes += key.len() + value.len();
        self.change(table, key, Change::Put(value));
        Ok(())
    }

    /// Writes a row.
    pub(super) fn put_row<R: Row>(&mut self, table: Table, key: Vec<u8>, row: &R) -> Result<(), StoreError> {
        self.put(table, key, codec::encode(row))
    }

    /// Writes an index entry that says all with its key.
    pub(super) fn put_entry(&mut self, table: Table, key: Vec<u8>) -> Result<(), StoreError> {
        self.put(table, key, codec::wrap(&[]))
    }

    /// Removes a row.
    pub(super) fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.changes.bytes += key.len();
        self.change(table, key, Change::Delete);
    }

    /// Checks that the session exists and that this is still its newest fence.
    pub(super) fn check(&self, fence: &Fence) -> Result<(), StoreError> {
        self.check_leaving(fence)?;
        if self.leaving.contains(&fence.session()) { Err(StoreError::NotFound("session")) } else { Ok(()) }
    }

    /// The same, for a session that may be on its way out.
    pub(super) fn check_leaving(&self, fence: &Fence) -> Result<(), StoreError> {
        let session = fence.session();
        let owner: Owner = self.row(Table::Control, &tables::owner(session))?.ok_or(StoreError::NotFound("session"))?;
        if owner.epoch == fence.epoch() { Ok(()) } else { Err(StoreError::Fenced { session, epoch: fence.epoch() }) }
    }

    /// From now on the session's data is on its way out and nothing may be added.
    pub(super) fn leave(&mut self, session: SessionId) {
        self.leaving.insert(session);
    }

    /// The session and all its data are gone.
    pub(super) fn left(&mut self, session: SessionId) {
        self.leaving.remove(&session);
    }

    fn change(&mut self, table: Table, key: Vec<u8>, change: Change) {
        let before = self.changes.tables[table as usize].insert(key.clone(), change);
        self.undo.push((table, key, before));
    }
}
