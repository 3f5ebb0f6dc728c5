//! Running the stores' operations.
//!
//! An operation is the same code for both engines: it reads, decides and says what to write. Here it runs on a thread
//! of its own, since it waits for the server in the middle, and alone among the operations of its session; what it
//! wants written is committed when it is through. How many run at once is bounded.

use super::{
    client::{Client, Failure},
    commit::{self, Commit},
    owners,
    place::Place,
    range::Row,
    rows::{Rows, session_place},
    statements::Stored,
};
use crate::{
    Gate, Owner, StoreError,
    embedded::{
        engines::Database,
        transaction::{Changes, Known, Transaction},
    },
    fence::may_begin,
    metrics::record,
};
use rookery_protocol::{Epoch, SessionId};
use scylla::value::CqlValue;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};
use uuid::Uuid;

/// Operations at once, each with a thread. More wait.
const OPERATIONS: usize = 256;
/// How long an operation may wait for a thread, and then for its turn in its session.
const PATIENCE: Duration = Duration::from_secs(5);
/// Locks that the turns of all sessions are kept with. Two sessions that share one wait for each other now and then.
const STRIPES: usize = 1_024;
/// Windows that are known to be listed. When there are more, all are forgotten, and each is listed once more.
const KNOWN_WINDOWS: usize = 100_000;
/// Epochs that are known. When there are more, all are forgotten and asked for again.
const KNOWN_EPOCHS: usize = 200_000;

/// An operation's turn in its session, until dropped.
pub(super) type Turn = OwnedMutexGuard<()>;

/// The CQL engine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Operations(pub(super) Arc<Core>);

/// What all operations share.
pub(super) struct Core {
    pub(super) client: Client,
    /// Whether this node may act.
    pub(super) gate: Arc<dyn Gate>,
    room: Arc<Semaphore>,
    turns: Vec<Arc<tokio::sync::Mutex<()>>>,
    /// The newest epochs that this process knows of.
    epochs: Mutex<HashMap<SessionId, Epoch>>,
    windows: Mutex<HashSet<(Vec<u8>, Vec<u8>)>>,
    /// Commits that are noted in the journal and did not get through to the end; they come first.
    unfinished: Mutex<HashMap<SessionId, Arc<Commit>>>,
}

impl Operations {
    pub(super) fn new(client: Client, gate: Arc<dyn Gate>) -> Self {
        Self(Arc::new(Core {
            client,
            gate,
            room: Arc::new(Semaphore::new(OPERATIONS)),
            turns: (0..STRIPES).map(|_| Arc::default()).collect(),
            epochs: Mutex::default(),
            windows: Mutex::default(),
            unfinished: Mutex::default(),
        }))
    }

    /// Whether this node may act.
    pub(crate) fn gate(&self) -> &Arc<dyn Gate> {
        &self.0.gate
    }

    /// Does work that reads and writes.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let core = Arc::clone(&self.0);
        self.run(name, move |rows| {
            let database = Database::Cql(rows);
            let (mut changes, mut known) = (Changes::default(), Known::default());
            let mut transaction = Transaction::new(&database, None, &mut changes, &mut known);
            let answer = work(&mut transaction)?;
            let writer = transaction.into_writer();
            if writer.is_some() || !changes.is_empty() {
                tokio::runtime::Handle::current().block_on(commit::commit(&core, writer.as_ref(), &changes))?;
            }
            Ok(answer)
        })
        .await
    }

    /// Does work that reads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(name, move |rows| work(&Database::Cql(rows))).await
    }

    /// Refuses everything from now on; what runs comes to an end.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        let all = u32::try_from(OPERATIONS).expect("a small number");
        let ended = timeout(PATIENCE, self.0.room.acquire_many(all)).await.is_ok();
        self.0.room.close();
        self.0.client.close();
        if ended { Ok(()) } else { Err(StoreError::Engine("operations do not come to an end".into())) }
    }

    async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(Rows) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        let permit = self.enter().await?;
        let core = Arc::clone(&self.0);
        let running = spawn_blocking(move || {
            let _permit = permit;
            work(Rows::new(core))
        });
        let result = running.await.map_err(|panic| StoreError::Engine(Box::new(panic)))?;
        record(name, start);
        result
    }

    async fn enter(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        match timeout(PATIENCE, Arc::clone(&self.0.room).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(StoreError::Unavailable("the store is closed".to_owned())),
            Err(_) => Err(StoreError::Overloaded),
        }
    }
}

impl Core {
    /// Waits for a turn in a session; brings to an end what was begun there before.
    pub(super) async fn turn(&self, session: SessionId) -> Result<Turn, StoreError> {
        let bytes = session.as_bytes();
        let stripe = usize::from(u16::from_be_bytes([bytes[14], bytes[15]])) % STRIPES;
        let turn = timeout(PATIENCE, Arc::clone(&self.turns[stripe]).lock_owned());
        let turn = turn.await.map_err(|_| StoreError::Overloaded)?;
        let unfinished = locked(&self.unfinished).get(&session).cloned();
        if let Some(commit) = unfinished {
            may_begin(&*self.gate)?;
            commit.apply(self).await?;
            locked(&self.unfinished).remove(&session);
        }
        Ok(turn)
    }

    /// A commit that is in the journal did not get through: it comes before anything else in its session.
    pub(super) fn leave_unfinished(&self, session: SessionId, commit: Arc<Commit>) {
        locked(&self.unfinished).insert(session, commit);
    }

    /// The newest epoch of a session that this process knows of; asked for when it knows none. None when there is no
    /// such session.
    pub(super) async fn epoch(&self, session: SessionId) -> Result<Option<Epoch>, StoreError> {
        if let Some(epoch) = locked(&self.epochs).get(&session) {
            return Ok(Some(*epoch));
        }
        let Some(owner) = self.owner(session).await? else { return Ok(None) };
        self.note_epoch(session, owner.epoch);
        Ok(Some(owner.epoch))
    }

    /// A claim has made this the newest epoch.
    pub(super) fn note_epoch(&self, session: SessionId, epoch: Epoch) {
        let mut epochs = locked(&self.epochs);
        if epochs.len() >= KNOWN_EPOCHS {
            epochs.clear();
        }
        epochs.insert(session, epoch);
    }

    /// The session is gone.
    pub(super) fn forget(&self, session: SessionId) {
        locked(&self.epochs).remove(&session);
        locked(&self.unfinished).remove(&session);
        locked(&self.windows).retain(|(of, _)| of.as_slice() != session.as_bytes());
    }

    /// The owner row, after every claim that was begun; none when there is no such session.
    pub(super) async fn owner(&self, session: SessionId) -> Result<Option<Owner>, StoreError> {
        let statement = &self.client.statements().owner_read;
        let answer = self.client.read(statement, (Uuid::from_bytes(*session.as_bytes()),)).await?;
        let row = answer
            .maybe_first_row::<(Option<i64>, Option<String>, Option<i64>)>()
            .map_err(|error| owners::corrupt(error.to_string()))?;
        let Some((Some(epoch), node, incarnation)) = row else {
            let exists = self.get(&session_place(session)).await?.is_some();
            return Ok(exists.then_some(Owner { epoch: Epoch(0), node: None }));
        };
        owners::owner(epoch, node.as_deref(), incarnation).map(Some)
    }

    /// Whether a window is not known to be listed.
    pub(super) fn is_new_window(&self, place: &Place) -> bool {
        !locked(&self.windows).contains(&(place.partition.clone(), place.key.clone()))
    }

    /// These windows are listed.
    pub(super) fn note_windows(&self, places: Vec<Place>) {
        let mut windows = locked(&self.windows);
        if windows.len() >= KNOWN_WINDOWS {
            windows.clear();
        }
        windows.extend(places.into_iter().map(|place| (place.partition, place.key)));
    }

    /// A value.
    pub(super) async fn get(&self, place: &Place) -> Result<Option<Vec<u8>>, StoreError> {
        let statement = &self.client.statements().of(place.stored).get;
        let answer = self.client.read(statement, (&place.partition, &place.key)).await?;
        let row = answer.maybe_first_row::<(Vec<u8>,)>().map_err(|error| unreadable(place.stored, &error))?;
        Ok(row.map(|(value,)| value))
    }

    /// The first rows of a range in a partition.
    pub(super) async fn slice(
        &self,
        stored: Stored,
        partition: &[u8],
        from: &[u8],
        until: Option<&[u8]>,
        limit: i32,
    ) -> Result<Vec<Row>, StoreError> {
        let statements = self.client.statements().of(stored);
        let answer = match until {
            Some(until) if until <= from => return Ok(Vec::new()),
            Some(until) => self.client.read(&statements.slice, (partition, from, until, limit)).await?,
            None => self.client.read(&statements.slice_to_end, (partition, from, limit)).await?,
        };
        let rows = answer.rows::<Row>().map_err(|error| unreadable(stored, &error))?;
        rows.map(|row| row.map_err(|error| unreadable(stored, &error))).collect()
    }

    /// The last rows of a range in a partition, from its end on.
    pub(super) async fn slice_back(
        &self,
        stored: Stored,
        partition: &[u8],
        from: &[u8],
        until: &[u8],
        limit: i32,
    ) -> Result<Vec<Row>, StoreError> {
        let statement = &self.client.statements().of(stored).slice_back;
        let answer = self.client.read(statement, (partition, from, until, limit)).await?;
        let rows = answer.rows::<Row>().map_err(|error| unreadable(stored, &error))?;
        rows.map(|row| row.map_err(|error| unreadable(stored, &error))).collect()
    }

    /// The first rows of the same range in several partitions, by partition.
    pub(super) async fn slices(
        &self,
        stored: Stored,
        partitions: Vec<Vec<u8>>,
        from: &[u8],
        until: &[u8],
        limit: i32,
    ) -> Result<HashMap<Vec<u8>, Vec<Row>>, StoreError> {
        let statement = &self.client.statements().of(stored).slices;
        let answer = self.client.read(statement, (partitions, from, until, limit)).await?;
        let mut found: HashMap<_, Vec<Row>> = HashMap::new();
        for row in answer.rows::<(Vec<u8>, Vec<u8>, Vec<u8>)>().map_err(|error| unreadable(stored, &error))? {
            let (partition, key, value) = row.map_err(|error| unreadable(stored, &error))?;
            found.entry(partition).or_default().push((key, value));
        }
        Ok(found)
    }

    /// Rows by partition and key, any partition with any key.
    pub(super) async fn many(
        &self,
        stored: Stored,
        partitions: Vec<Vec<u8>>,
        keys: Vec<Vec<u8>>,
    ) -> Result<HashMap<(Vec<u8>, Vec<u8>), Vec<u8>>, StoreError> {
        let statement = &self.client.statements().of(stored).many;
        let answer = self.client.read(statement, (partitions, keys)).await?;
        let rows = answer.rows::<(Vec<u8>, Vec<u8>, Vec<u8>)>().map_err(|error| unreadable(stored, &error))?;
        rows.map(|row| {
            let (partition, key, value) = row.map_err(|error| unreadable(stored, &error))?;
            Ok(((partition, key), value))
        })
        .collect()
    }

    /// Removes a partition as it is before a timestamp.
    pub(super) async fn erase(
        &self,
        stored: Stored,
        partition: &[u8],
        stamp: super::stamp::Stamp,
    ) -> Result<(), Failure> {
        let statement = &self.client.statements().of(stored).erase;
        if stored.is_fenced() {
            return self.client.write(statement, (stamp.value(), partition)).await;
        }
        self.client.write(statement, (partition,)).await
    }
}

/// Bytes as a bound value.
pub(super) fn blob(bytes: &[u8]) -> CqlValue {
    CqlValue::Blob(bytes.to_vec())
}

fn unreadable(stored: Stored, error: &dyn std::error::Error) -> StoreError {
    StoreError::Unavailable(format!("the answer of the database about {stored:?} cannot be read: {error}"))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
