//! The engine's database on disk: one for all tables, and what is read from it.
//!
//! Knows nothing of rows; [`super::codec`] does.

use super::{
    clean,
    codec::{self, Format},
    directory::{DataDir, FORMAT},
    options::{OpenError, Options},
    transaction::{Change, Changes},
};
use crate::{
    StoreError,
    tables::{self, Table},
};
use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot, UserValue};
use std::{io, ops::Bound, path::Path};

/// Size at which a table's rows in memory are written out.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;

/// Size of all journals at which tables with old rows are written out.
const JOURNAL_BYTES: u64 = 128 * 1024 * 1024;

/// One for flushes, one for compactions.
const WORKERS: usize = 2;

/// The open database. Fields drop in order: the lock goes last.
pub(crate) struct Disk {
    tables: Vec<Keyspace>,
    engine: fjall::Database,
    dir: DataDir,
}

/// A key and its stored value.
pub(crate) type Pair = (fjall::UserKey, UserValue);

impl Disk {
    /// Locks the directory and opens what is in it, or makes a new database in an empty one. Blocks.
    pub(super) fn open(options: &Options) -> Result<Self, OpenError> {
        let dir = DataDir::lock(&options.data_dir)?;
        let path = dir.store(|path| make(&dir, path, options))?;
        let lengths = clean::lengths(&path).map_err(dir.failed("measure its journals"))?;
        let engine = open_engine(&path, options).map_err(|error| explain(&dir, error))?;
        clean::report_dropped(&path, &lengths);
        let known = engine.list_keyspace_names();
        if let Some(missing) = Table::ALL.iter().find(|table| !known.iter().any(|name| **name == *table.name())) {
            return Err(dir.corrupt(format!("table `{}` is missing", missing.name())));
        }
        let tables = open_tables(&engine).map_err(|error| explain(&dir, error))?;
        let database = Self { tables, engine, dir };
        let format = database
            .get(Table::Control, &tables::format())
            .and_then(|stored| stored.map(|stored| codec::decode(&stored)).transpose());
        match format {
            Ok(Some(Format(FORMAT))) => Ok(database),
            Ok(Some(Format(found))) => Err(database.dir.corrupt(format!("its format row says {found}"))),
            Ok(None) => Err(database.dir.corrupt("its format row is missing")),
            Err(error) => Err(database.dir.corrupt(error.to_string())),
        }
    }

    /// Waits for the engine's threads and closes its files. `intact` says that no write has failed, so that
    /// whatever the journals lack at the next start has been damaged since. Blocks.
    pub(super) fn close(self, intact: bool) {
        let Self { tables, engine, dir } = self;
        drop(tables);
        drop(engine);
        if intact {
            dir.seal();
        }
    }

    /// A row as it is now. Only what is on disk is ever seen: the engine flushes before it shows.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        self.table(table).get(key).map_err(engine_error)
    }

    /// All tables as they are now, so that what was written together is read together.
    pub(super) fn view(&self) -> DiskView<'_> {
        DiskView { database: self, snapshot: self.engine.snapshot() }
    }

    /// Applies changes as a whole and flushes them to disk.
    pub(super) fn commit(&self, changes: &Changes) -> Result<(), fjall::Error> {
        let mut batch = self.engine.batch().durability(Some(PersistMode::SyncData));
        for (table, key, change) in changes.rows() {
            match change {
                Change::Put(value) => batch.insert(self.table(table), key, value.clone()),
                Change::Delete => batch.remove(self.table(table), key),
            }
        }
        batch.commit()
    }

    fn table(&self, table: Table) -> &Keyspace {
        &self.tables[table as usize]
    }
}

/// All tables at one moment.
pub(crate) struct DiskView<'a> {
    database: &'a Disk,
    snapshot: Snapshot,
}

impl DiskView<'_> {
    /// A row.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        self.snapshot.get(self.database.table(table), key).map_err(engine_error)
    }

    /// The rows between two keys in the order of their keys.
    pub(super) fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        until: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<Pair, StoreError>> + use<> {
        let rows = (!holds_nothing(from, until))
            .then(|| self.snapshot.range::<&[u8], _>(self.database.table(table), (from, until)));
        rows.into_iter().flatten().map(|row| row.into_inner().map_err(engine_error))
    }
}

/// Whether no key can be between these bounds. The engine and the standard library panic on some of those.
pub(crate) fn holds_nothing(from: Bound<&[u8]>, until: Bound<&[u8]>) -> bool {
    match (from, until) {
        (Bound::Included(from), Bound::Included(until)) => from > until,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(until) | Bound::Excluded(until)) => {
            from >= until
        }
        _ => false,
    }
}

/// An error of the engine in a read: nothing is known about why.
pub(super) fn engine_error(error: fjall::Error) -> StoreError {
    StoreError::Engine(Box::new(error))
}

fn make(dir: &DataDir, path: &Path, options: &Options) -> Result<(), OpenError> {
    let build = || {
        let engine = open_engine(path, options)?;
        let tables = open_tables(&engine)?;
        let mut batch = engine.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&tables[Table::Control as usize], tables::format(), codec::encode(&Format(FORMAT)));
        batch.commit()
    };
    build().map_err(|error| explain(dir, error))
}

fn open_engine(path: &Path, options: &Options) -> Result<fjall::Database, fjall::Error> {
    fjall::Database::builder(path)
        .cache_size(options.cache_bytes)
        .max_journaling_size(JOURNAL_BYTES)
        .worker_threads(WORKERS)
        .open()
}

fn open_tables(engine: &fjall::Database) -> Result<Vec<Keyspace>, fjall::Error> {
    let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
    Table::ALL.iter().map(|table| engine.keyspace(table.name(), options)).collect()
}

/// Tells an operating system that refuses from data that cannot be read.
fn explain(dir: &DataDir, error: fjall::Error) -> OpenError {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    let source = match error {
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => source,
        other => return dir.corrupt(other.to_string()),
    };
    match source.kind() {
        InvalidData | NotFound | UnexpectedEof => dir.corrupt(source.to_string()),
        _ => dir.failed("open the database")(source),
    }
}
