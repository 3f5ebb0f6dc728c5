//! What one operation reads.
//!
//! An operation runs on a thread of its own and waits there for the server. What it has read once, or said that it
//! will read, it has at hand until it ends.

use super::{
    backwards::Backwards,
    operations::{Core, Turn},
    place::{self, OWNER, SESSION},
    range::Range,
    statements::Stored,
};
use crate::{
    Owner, StoreError,
    embedded::{codec, database::Pair},
    tables::{self, Table},
};
use fjall::UserValue;
use futures_util::future::{join, join_all};
use rookery_protocol::SessionId;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::runtime::Handle;

/// Rows that are asked for at once in one partition or several.
const AT_ONCE: usize = 50;

/// What operations have at hand, by table and key.
type Known = HashMap<(Table, Vec<u8>), Option<UserValue>>;

/// What was found of rows that were asked for.
type Found = Vec<((Table, Vec<u8>), Option<UserValue>)>;

/// A row that is asked for, of a known partition.
#[derive(Clone)]
struct Wanted {
    table: Table,
    key: Vec<u8>,
    /// Its key in the partition.
    stored: Vec<u8>,
}

/// Rows that are asked for, by where they are.
type ByPartition = BTreeMap<(Stored, Vec<u8>), Vec<Wanted>>;

/// Rows of one table that are asked for at once, by partition.
type Group = Vec<(Vec<u8>, Vec<Wanted>)>;

/// The tables as one operation sees them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rows(Arc<Shared>);

struct Shared {
    core: Arc<Core>,
    known: Mutex<Known>,
    /// The operation's turn in its session; it ends with the operation.
    turn: Mutex<Option<(SessionId, Turn)>>,
}

impl Rows {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self(Arc::new(Shared { core, known: Mutex::default(), turn: Mutex::default() }))
    }

    /// Waits for the operation's turn in this session, which it has until it ends: what it reads and then writes is
    /// atomic. An operation is about one session; a second one would be a deadlock in waiting.
    pub(crate) fn enter(&self, session: SessionId) -> Result<(), StoreError> {
        let entered = self.turn().as_ref().map(|(entered, _)| *entered);
        match entered {
            Some(entered) if entered == session => Ok(()),
            Some(_) => Err(StoreError::Refused("an operation is about one session")),
            None => {
                let turn = Handle::current().block_on(self.0.core.turn(session))?;
                *self.turn() = Some((session, turn));
                // What was read before may have changed.
                self.known().clear();
                Ok(())
            }
        }
    }

    /// A row.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        if let Some(known) = self.known().get(&(table, key.to_vec())) {
            return Ok(known.clone());
        }
        let found = Handle::current().block_on(self.fetch(table, key))?;
        self.known().insert((table, key.to_vec()), found.clone());
        Ok(found)
    }

    /// Fetches rows that will be read one by one.
    pub(crate) fn expect(&self, wanted: Vec<(Table, Vec<u8>)>) -> Result<(), StoreError> {
        let mut single = Vec::new();
        let mut by_partition = ByPartition::new();
        {
            let known = self.known();
            for (table, key) in wanted.into_iter().collect::<BTreeSet<_>>() {
                if known.contains_key(&(table, key.clone())) {
                    continue;
                }
                match place::place(table, &key) {
                    Some(place) if table != Table::Outbox => {
                        let wanted = Wanted { table, key, stored: place.key };
                        by_partition.entry((place.stored, place.partition)).or_default().push(wanted);
                    }
                    _ => single.push((table, key)),
                }
            }
        }
        Handle::current().block_on(async {
            let single = single.into_iter().map(|(table, key)| async move {
                let found = self.fetch(table, &key).await?;
                Ok::<_, StoreError>(vec![((table, key), found)])
            });
            let (single, many) = join(join_all(single), self.fetch_many(by_partition)).await;
            for found in single.into_iter().chain(many) {
                self.known().extend(found?);
            }
            Ok(())
        })
    }

    /// The rows between two keys in the order of their keys.
    pub(crate) fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        until: Bound<&[u8]>,
    ) -> impl Iterator<Item = Result<Pair, StoreError>> + use<> {
        let empty = crate::embedded::database::holds_nothing(from, until);
        let range = (!empty).then(|| Range::new(&self.0.core, table, from, until));
        let rows = self.clone();
        range.into_iter().flatten().inspect(move |row| {
            if let Ok((key, value)) = row
                && table == Table::Control
            {
                rows.known().insert((table, key.to_vec()), Some(value.clone()));
            }
        })
    }

    /// A session's messages after this sort key, oldest first.
    pub(crate) fn newer_than(
        &self,
        session: SessionId,
        sort_key: u64,
    ) -> impl Iterator<Item = Result<Pair, StoreError>> + use<> {
        Backwards::new(&self.0.core, session, sort_key)
    }

    async fn fetch(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        let core = &self.0.core;
        if table == Table::Control && key.first() == Some(&OWNER) {
            return self.owner(key).await;
        }
        let Some(place) = place::place(table, key) else { return Ok(None) };
        let Some(value) = core.get(&place).await? else { return Ok(None) };
        if table != Table::Outbox {
            return Ok(Some(value.into()));
        }
        let asked = key.get(16..).unwrap_or_default();
        match value.split_first_chunk::<8>() {
            Some((_, [])) => Ok(None),
            Some((seq, stored)) if seq == asked => Ok(Some(stored.to_vec().into())),
            // A send from a whole ring ago is still waiting there.
            Some(_) => Err(StoreError::Overloaded),
            None => Err(StoreError::Corrupt { what: "outbox row", detail: "it has no number".to_owned() }),
        }
    }

    /// The owner row in the form in which the stores read it: the epoch counts. It is asked for once; later claims of
    /// this process are known, and those of others are what timestamps are for.
    async fn owner(&self, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        let Some(session) = tables::session_of_owner(key) else { return Ok(None) };
        let epoch = self.0.core.epoch(session).await?;
        Ok(epoch.map(|epoch| codec::encode(&Owner { epoch, node: None }).into()))
    }

    /// Rows of one table at once, as long as there are not too many: of one partition, or one of each of several.
    async fn fetch_many(&self, by_partition: ByPartition) -> Vec<Result<Found, StoreError>> {
        let mut groups: Vec<(Stored, Group)> = Vec::new();
        for ((stored, partition), rows) in by_partition {
            for rows in rows.chunks(AT_ONCE) {
                let part = (partition.clone(), rows.to_vec());
                match groups.last_mut() {
                    Some((last, group)) if *last == stored && count(group) + rows.len() <= AT_ONCE => group.push(part),
                    _ => groups.push((stored, vec![part])),
                }
            }
        }
        join_all(groups.into_iter().map(|(stored, group)| self.fetch_group(stored, group))).await
    }

    async fn fetch_group(&self, stored: Stored, group: Group) -> Result<Found, StoreError> {
        let partitions = group.iter().map(|(partition, _)| partition.clone()).collect();
        let keys = group.iter().flat_map(|(_, rows)| rows.iter().map(|row| row.stored.clone())).collect();
        let mut found = self.0.core.many(stored, partitions, keys).await?;
        let mut answer = Found::new();
        for (partition, rows) in group {
            for Wanted { table, key, stored } in rows {
                let value = found.remove(&(partition.clone(), stored)).map(UserValue::from);
                answer.push(((table, key), value));
            }
        }
        Ok(answer)
    }

    fn turn(&self) -> MutexGuard<'_, Option<(SessionId, Turn)>> {
        self.0.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(group: &[(Vec<u8>, Vec<Wanted>)]) -> usize {
    group.iter().map(|(_, rows)| rows.len()).sum()
}

/// Where a session's row is, whose absence says that there is no session.
pub(super) fn session_place(session: SessionId) -> place::Place {
    let key = tables::session(session);
    debug_assert_eq!(key.first(), Some(&SESSION));
    place::place(Table::Control, &key).expect("sessions have a place")
}
