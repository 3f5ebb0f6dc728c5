//! What a write sees and changes: the database, under the batch that is being flushed, under all that went before
//! it in its own batch.
//!
//! Operations of one batch see each other's effects, and one that fails leaves none.

use super::{
    codec::{self, Row},
    database::{Pair, holds_nothing},
    engines::Database,
    recent::Recent,
};
use crate::{
    Fence, Owner, StoreError,
    tables::{self, Table},
};
use fjall::UserValue;
use rookery_protocol::{Epoch, SessionId};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
};

/// Longest key that is stored, in bytes. CQL and the engine take 65,535.
const MAX_KEY_BYTES: usize = 16 * 1024;

/// What became of a row.
#[derive(Clone)]
pub(crate) enum Change {
    /// It has this stored value.
    Put(UserValue),
    /// It is gone.
    Delete,
}

/// Changes that are not on disk yet.
#[derive(Default)]
pub(crate) struct Changes {
    tables: [BTreeMap<Vec<u8>, Change>; Table::ALL.len()],
    bytes: usize,
}

impl Changes {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }

    /// About how large they are.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Each change, once a key.
    pub(crate) fn rows<'a>(&'a self) -> impl Iterator<Item = (Table, &'a [u8], &'a Change)> {
        let of_table = |(table, rows): (Table, &'a BTreeMap<Vec<u8>, Change>)| {
            rows.iter().map(move |(key, change)| (table, key.as_slice(), change))
        };
        Table::ALL.into_iter().zip(&self.tables).flat_map(of_table)
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<&Change> {
        self.tables[table as usize].get(key)
    }

    fn range<'a>(
        &'a self,
        table: Table,
        from: Bound<&[u8]>,
        until: Bound<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a Change)> + use<'a> {
        self.tables[table as usize].range::<[u8], _>((from, until)).map(|(key, change)| (key.as_slice(), change))
    }
}

/// What the writer knows without a look at the database.
#[derive(Default)]
pub(crate) struct Known {
    /// Those whose data is being removed, which takes several batches.
    leaving: HashSet<SessionId>,
    /// The newest epochs, as the owner rows have them: every write of a session asks for its own.
    epochs: HashMap<SessionId, Epoch>,
    /// What was written last.
    recent: Recent,
}

impl Known {
    /// A row changes; what was read from it is not known any more.
    fn forget(&mut self, table: Table, key: &[u8]) {
        self.epoch_changes(table, key);
        self.recent.forget(table, key);
    }

    fn epoch_changes(&mut self, table: Table, key: &[u8]) {
        if table == Table::Control
            && let Some(session) = tables::session_of_owner(key)
        {
            self.epochs.remove(&session);
        }
    }
}

/// One operation's access to the tables.
pub(crate) struct Transaction<'a> {
    database: &'a Database,
    /// The batch before this one, which may not be in the database yet.
    flushing: Option<&'a Changes>,
    changes: &'a mut Changes,
    known: &'a mut Known,
    /// What this operation replaced: a change of an operation before it, or none.
    undo: Vec<(Table, Vec<u8>, Option<Change>)>,
    /// The fence that was found to be the newest.
    writer: Option<Fence>,
    /// The session whose removal this operation has begun.
    leaver: Option<SessionId>,
}

impl<'a> Transaction<'a> {
    /// On top of these changes, and of those that are being flushed.
    pub(crate) fn new(
        database: &'a Database,
        flushing: Option<&'a Changes>,
        changes: &'a mut Changes,
        known: &'a mut Known,
    ) -> Self {
        Self { database, flushing, changes, known, undo: Vec::new(), writer: None, leaver: None }
    }

    /// The fence that this operation has checked, under which it writes.
    pub(crate) fn writer(&self) -> Option<&Fence> {
        self.writer.as_ref()
    }

    /// The same, at the end of the operation.
    pub(crate) fn into_writer(self) -> Option<Fence> {
        self.writer
    }

    /// Whether what has its time is swept, and does not go by itself.
    pub(crate) fn sweeps(&self) -> bool {
        matches!(self.database, Database::Disk(_))
    }

    /// These rows will be read one by one, as in [`Database::expect`].
    pub(crate) fn expect(&self, wanted: impl FnOnce() -> Vec<(Table, Vec<u8>)>) -> Result<(), StoreError> {
        self.database.expect(wanted)
    }

    /// Takes back what this operation changed.
    pub(crate) fn roll_back(mut self) {
        if let Some(session) = self.leaver {
            self.known.leaving.remove(&session);
        }
        for (table, key, before) in self.undo.drain(..).rev() {
            self.known.forget(table, &key);
            let rows = &mut self.changes.tables[table as usize];
            match before {
                Some(change) => rows.insert(key, change),
                None => rows.remove(&key),
            };
        }
    }

    /// A stored value.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        if let Some(value) = self.known.recent.get(table, key) {
            return Ok(Some(value.clone()));
        }
        let changed = self.changes.get(table, key).or_else(|| self.flushing?.get(table, key));
        match changed {
            Some(Change::Put(value)) => Ok(Some(value.clone())),
            Some(Change::Delete) => Ok(None),
            None => self.database.get(table, key),
        }
    }

    /// A decoded row.
    pub(crate) fn row<R: Row>(&self, table: Table, key: &[u8]) -> Result<Option<R>, StoreError> {
        self.get(table, key)?.map(|stored| codec::decode_at(key, &stored)).transpose()
    }

    /// The first `limit` rows from `from` on and before `until`, in the order of their keys.
    pub(crate) fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        until: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        if holds_nothing(from, until) {
            return Ok(Vec::new());
        }
        // Looked at before the database: what the flush brings there meanwhile is the same.
        let flushing = self.flushing.into_iter().flat_map(|changes| changes.range(table, from, until));
        let changed: BTreeMap<_, _> = flushing.chain(self.changes.range(table, from, until)).collect();
        // Every row that is changed may hide one of the database's.
        let wanted = limit.saturating_add(changed.len());
        let stored: Result<Vec<Pair>, _> = self.database.view().range(table, from, until).take(wanted).collect();
        if changed.is_empty() {
            return stored;
        }
        let mut rows: BTreeMap<_, _> = stored?.into_iter().collect();
        for (key, change) in changed {
            match change {
                Change::Put(value) => rows.insert(key.into(), value.clone()),
                Change::Delete => rows.remove(key),
            };
        }
        Ok(rows.into_iter().take(limit).collect())
    }

    /// The first `limit` rows whose key begins with `prefix`, after the key `after`.
    pub(crate) fn prefix(
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
    pub(crate) fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        if key.len() > MAX_KEY_BYTES {
            return Err(StoreError::Refused("a key is too long"));
        }
        let value = UserValue::from(value);
        self.changes.bytes += key.len() + value.len();
        self.known.epoch_changes(table, &key);
        self.known.recent.put(table, &key, &value);
        self.change(table, key, Change::Put(value));
        Ok(())
    }

    /// Writes a row.
    pub(crate) fn put_row<R: Row>(&mut self, table: Table, key: Vec<u8>, row: &R) -> Result<(), StoreError> {
        self.put(table, key, codec::encode(row))
    }

    /// Writes an index entry that says all with its key.
    pub(crate) fn put_entry(&mut self, table: Table, key: Vec<u8>) -> Result<(), StoreError> {
        self.put(table, key, codec::wrap(&[]))
    }

    /// Removes a row.
    pub(crate) fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.changes.bytes += key.len();
        self.known.forget(table, &key);
        self.change(table, key, Change::Delete);
    }

    /// Checks that the session exists and that this is still its newest fence.
    pub(crate) fn check(&mut self, fence: &Fence) -> Result<(), StoreError> {
        self.check_leaving(fence)?;
        if self.known.leaving.contains(&fence.session()) { Err(StoreError::NotFound("session")) } else { Ok(()) }
    }

    /// The same, for a session that may be on its way out.
    pub(crate) fn check_leaving(&mut self, fence: &Fence) -> Result<(), StoreError> {
        let session = fence.session();
        self.database.enter(session)?;
        let newest = if let Some(epoch) = self.known.epochs.get(&session) {
            *epoch
        } else {
            let owner: Option<Owner> = self.row(Table::Control, &tables::owner(session))?;
            let epoch = owner.ok_or(StoreError::NotFound("session"))?.epoch;
            self.known.epochs.insert(session, epoch);
            epoch
        };
        if newest != fence.epoch() {
            return Err(StoreError::Fenced { session, epoch: fence.epoch() });
        }
        self.writer = Some(fence.clone());
        Ok(())
    }

    /// From now on the session's data is on its way out and nothing may be added.
    pub(crate) fn leave(&mut self, session: SessionId) {
        if self.known.leaving.insert(session) {
            self.leaver = Some(session);
        }
    }

    /// The session and all its data are gone.
    pub(crate) fn left(&mut self, session: SessionId) {
        self.known.leaving.remove(&session);
    }

    fn change(&mut self, table: Table, key: Vec<u8>, change: Change) {
        let before = self.changes.tables[table as usize].insert(key.clone(), change);
        self.undo.push((table, key, before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::{Options, database::Disk};
    use std::sync::Arc;

    const TABLE: Table = Table::Keys;

    fn keys(rows: &[Pair]) -> Vec<&[u8]> {
        rows.iter().map(|(key, _)| key.as_ref()).collect()
    }

    fn put(transaction: &mut Transaction<'_>, key: &str, value: &str) {
        transaction.put(TABLE, key.into(), value.into()).unwrap();
    }

    #[test]
    fn operations_see_what_went_before_and_a_failed_one_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::open(&Options::new(dir.path())).unwrap());
        let database = Database::Disk(Arc::clone(&disk));
        let (mut changes, mut known) = (Changes::default(), Known::default());
        let mut transaction = Transaction::new(&database, None, &mut changes, &mut known);
        for key in ["ka", "kb", "kc"] {
            put(&mut transaction, key, "stored");
        }
        disk.commit(&std::mem::take(&mut changes)).unwrap();

        let mut first = Transaction::new(&database, None, &mut changes, &mut known);
        put(&mut first, "kb", "first");
        put(&mut first, "kd", "first");
        first.delete(TABLE, "ka".into());

        let mut failed = Transaction::new(&database, None, &mut changes, &mut known);
        assert_eq!(failed.get(TABLE, b"kb").unwrap().as_deref(), Some(&b"first"[..]));
        assert_eq!(failed.get(TABLE, b"ka").unwrap(), None);
        put(&mut failed, "kb", "failed");
        put(&mut failed, "kb", "failed twice");
        put(&mut failed, "ka", "failed");
        put(&mut failed, "ke", "failed");
        failed.delete(TABLE, "kc".into());
        assert_eq!(keys(&failed.prefix(TABLE, b"k", None, 9).unwrap()), [b"ka", b"kb", b"kd", b"ke"]);
        failed.roll_back();

        let second = Transaction::new(&database, None, &mut changes, &mut known);
        assert_eq!(keys(&second.prefix(TABLE, b"k", None, 9).unwrap()), [b"kb", b"kc", b"kd"]);
        assert_eq!(keys(&second.prefix(TABLE, b"k", None, 2).unwrap()), [b"kb", b"kc"], "what is gone does not count");
        assert_eq!(keys(&second.prefix(TABLE, b"k", Some(b"kb"), 2).unwrap()), [b"kc", b"kd"]);
        assert_eq!(second.get(TABLE, b"kb").unwrap().as_deref(), Some(&b"first"[..]));
        disk.commit(&changes).unwrap();
        let rows: Result<Vec<Pair>, _> = database.view().prefix(TABLE, b"k", None).collect();
        assert_eq!(keys(&rows.unwrap()), [b"kb", b"kc", b"kd"]);
    }

    #[test]
    fn what_is_being_flushed_is_over_the_database_and_under_the_batch() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::open(&Options::new(dir.path())).unwrap());
        let database = Database::Disk(Arc::clone(&disk));
        let (mut stored, mut flushing, mut changes) = (Changes::default(), Changes::default(), Changes::default());
        let mut known = Known::default();
        let mut transaction = Transaction::new(&database, None, &mut stored, &mut known);
        for key in ["ka", "kb", "kc"] {
            put(&mut transaction, key, "stored");
        }
        disk.commit(&stored).unwrap();
        let mut transaction = Transaction::new(&database, None, &mut flushing, &mut known);
        put(&mut transaction, "ka", "flushing");
        put(&mut transaction, "kd", "flushing");
        transaction.delete(TABLE, "kb".into());
        transaction.delete(TABLE, "kc".into());

        for committed in [false, true] {
            let mut last = Transaction::new(&database, Some(&flushing), &mut changes, &mut known);
            put(&mut last, "kc", "last");
            last.delete(TABLE, "kd".into());
            assert_eq!(last.get(TABLE, b"ka").unwrap().as_deref(), Some(&b"flushing"[..]), "committed: {committed}");
            assert_eq!(last.get(TABLE, b"kb").unwrap(), None);
            assert_eq!(last.get(TABLE, b"kc").unwrap().as_deref(), Some(&b"last"[..]));
            assert_eq!(last.get(TABLE, b"kd").unwrap(), None);
            assert_eq!(keys(&last.prefix(TABLE, b"k", None, 9).unwrap()), [b"ka", b"kc"]);
            assert_eq!(keys(&last.prefix(TABLE, b"k", None, 1).unwrap()), [b"ka"]);
            last.roll_back();
            disk.commit(&flushing).unwrap();
        }
    }

    #[test]
    fn empty_and_inverted_ranges_have_no_rows() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::open(&Options::new(dir.path())).unwrap());
        let database = Database::Disk(Arc::clone(&disk));
        let (mut changes, mut known) = (Changes::default(), Known::default());
        let mut transaction = Transaction::new(&database, None, &mut changes, &mut known);
        put(&mut transaction, "b", "");
        let (b, c) = (&b"b"[..], &b"c"[..]);
        for (from, until) in [
            (Bound::Included(c), Bound::Included(b)),
            (Bound::Included(b), Bound::Excluded(b)),
            (Bound::Excluded(b), Bound::Excluded(b)),
            (Bound::Excluded(c), Bound::Excluded(b)),
        ] {
            assert!(transaction.range(TABLE, from, until, 9).unwrap().is_empty());
            assert_eq!(database.view().range(TABLE, from, until).count(), 0);
        }
        assert_eq!(transaction.range(TABLE, Bound::Included(b), Bound::Included(b), 9).unwrap().len(), 1);
    }
}
