//! The engines that the stores run on: the database on disk, and the tables of a CQL server.
//!
//! A store says what it reads and writes by [`Table`] and key, once; both engines hold ordered tables, and what an
//! operation reads and then writes is atomic within its session. Where the rows are is the engine's own affair.

use super::{
    codec::{self, Row},
    database::{Disk, DiskView, Pair},
    handle::Local,
    transaction::Transaction,
};
use crate::{
    Gate, StoreError,
    scylla::{Operations, Rows},
    tables::{self, Table},
};
use fjall::UserValue;
use rookery_protocol::SessionId;
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

/// Where rows are read from.
pub(crate) enum Database {
    /// The database on disk.
    Disk(Arc<Disk>),
    /// A CQL server, as one operation sees it.
    Cql(Rows),
}

impl Database {
    /// A row as it is now.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        match self {
            Self::Disk(disk) => disk.get(table, key),
            Self::Cql(rows) => rows.get(table, key),
        }
    }

    /// A decoded row as it is now.
    pub(crate) fn row<R: Row>(&self, table: Table, key: &[u8]) -> Result<Option<R>, StoreError> {
        self.get(table, key)?.map(|stored| codec::decode_at(key, &stored)).transpose()
    }

    /// All tables as they are now: on disk, what was written together is read together.
    pub(crate) fn view(&self) -> View<'_> {
        match self {
            Self::Disk(disk) => View::Disk(disk.view()),
            Self::Cql(rows) => View::Cql(rows),
        }
    }

    /// These rows will be read one by one: an engine for which each is a way there and back fetches them at once. Others
    /// do not ask which rows they are.
    pub(crate) fn expect(&self, wanted: impl FnOnce() -> Vec<(Table, Vec<u8>)>) -> Result<(), StoreError> {
        match self {
            Self::Disk(_) => Ok(()),
            Self::Cql(rows) => rows.expect(wanted()),
        }
    }

    /// The operation is about this session: from here on nothing but it changes the session's rows. On disk nothing
    /// but it changes anything.
    pub(crate) fn enter(&self, session: SessionId) -> Result<(), StoreError> {
        match self {
            Self::Disk(_) => Ok(()),
            Self::Cql(rows) => rows.enter(session),
        }
    }
}

/// All tables at one moment.
pub(crate) enum View<'a> {
    /// Of the database on disk.
    Disk(DiskView<'a>),
    /// Of a CQL server, which has no such moment: rows are as they are when they are read.
    Cql(&'a Rows),
}

impl View<'_> {
    /// A row.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        match self {
            Self::Disk(view) => view.get(table, key),
            Self::Cql(rows) => rows.get(table, key),
        }
    }

    /// A decoded row.
    pub(crate) fn row<R: Row>(&self, table: Table, key: &[u8]) -> Result<Option<R>, StoreError> {
        self.get(table, key)?.map(|stored| codec::decode_at(key, &stored)).transpose()
    }

    /// These rows will be read one by one, as in [`Database::expect`].
    pub(crate) fn expect(&self, wanted: impl FnOnce() -> Vec<(Table, Vec<u8>)>) -> Result<(), StoreError> {
        match self {
            Self::Disk(_) => Ok(()),
            Self::Cql(rows) => rows.expect(wanted()),
        }
    }

    /// The rows between two keys in the order of their keys.
    pub(crate) fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        until: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Pair, StoreError>>> {
        match self {
            Self::Disk(view) => Box::new(view.range(table, from, until)),
            Self::Cql(rows) => Box::new(rows.range(table, from, until)),
        }
    }

    /// A session's messages after this sort key, oldest first.
    pub(crate) fn newer_than(
        &self,
        session: SessionId,
        sort_key: u64,
    ) -> Box<dyn Iterator<Item = Result<Pair, StoreError>>> {
        match self {
            Self::Disk(view) => {
                let (from, until) = (tables::of_session(session), tables::history(session, sort_key));
                Box::new(view.range(Table::History, Bound::Included(&from), Bound::Excluded(&until)).rev())
            }
            Self::Cql(rows) => Box::new(rows.newer_than(session, sort_key)),
        }
    }

    /// The rows whose key begins with `prefix`, after the key `after`, in the order of their keys.
    pub(crate) fn prefix(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Pair, StoreError>>> {
        let end = tables::end_of(prefix);
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        self.range(table, from, end.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
    }
}

/// How operations are run. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Handle {
    /// On the database on disk.
    Local(Local),
    /// On a CQL server.
    Cql(Operations),
}

impl Handle {
    /// Does work that writes, and waits until it is durable.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self {
            Self::Local(local) => local.write(name, work).await,
            Self::Cql(operations) => operations.write(name, work).await,
        }
    }

    /// A read of a few rows by their keys: on disk it is done in the calling task.
    pub(crate) async fn read_now<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self {
            Self::Local(local) => local.read_now(name, work),
            Self::Cql(operations) => operations.read(name, work).await,
        }
    }

    /// A read of many rows.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self {
            Self::Local(local) => local.read(name, work).await,
            Self::Cql(operations) => operations.read(name, work).await,
        }
    }

    /// Whether this node may act: the gate that its fences carry.
    pub(crate) fn gate(&self) -> &Arc<dyn Gate> {
        match self {
            Self::Local(local) => local.gate(),
            Self::Cql(operations) => operations.gate(),
        }
    }

    /// Finishes what was begun; later calls are refused.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Local(local) => local.close().await,
            Self::Cql(operations) => operations.close().await,
        }
    }

    /// Parts of a piece of work over several sessions that are written apart: all in one on disk, where that saves
    /// flushes, and a part a session on a CQL server, where a session's order is its own. Each item keeps its number.
    pub(crate) fn parts<T>(&self, items: Vec<T>, session_of: impl Fn(&T) -> SessionId) -> Vec<Vec<(usize, T)>> {
        let numbered = items.into_iter().enumerate();
        match self {
            Self::Local(_) => vec![numbered.collect()],
            Self::Cql(_) => {
                let mut parts = BTreeMap::<_, Vec<_>>::new();
                for (number, item) in numbered {
                    parts.entry(session_of(&item)).or_default().push((number, item));
                }
                parts.into_values().collect()
            }
        }
    }
}
