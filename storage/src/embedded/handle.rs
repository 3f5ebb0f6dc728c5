//! The way to the writer of the database on disk, and the way to read from it.

use super::{
    database::Disk,
    engines::Database,
    options::{OpenError, Options},
    transaction::Transaction,
    writer::{self, Queue, Queued},
};
use crate::{Gate, StoreError, metrics::record};
use std::{
    sync::{Arc, PoisonError, RwLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Semaphore, mpsc::error::TrySendError},
    task::spawn_blocking,
    time::{sleep, timeout},
};

/// Longer reads that go on at once. More wait.
const READERS: usize = 8;

/// The open engine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Local(Arc<Shared>);

struct Shared {
    open: RwLock<Option<Open>>,
    readers: Arc<Semaphore>,
    deadline: Duration,
    gate: Arc<dyn Gate>,
}

struct Open {
    database: Arc<Disk>,
    queue: Queue,
    writer: JoinHandle<bool>,
}

impl Local {
    /// Opens the database and starts the writer. Blocks.
    pub(super) fn open(options: &Options, gate: Arc<dyn Gate>) -> Result<Self, OpenError> {
        let database = Arc::new(Disk::open(options)?);
        let (queue, writer) =
            writer::start(Arc::clone(&database), options.queue.max(1), options.deadline).map_err(|source| {
                OpenError::Io { dir: options.data_dir.clone(), action: "start the writer's thread", source }
            })?;
        Ok(Self(Arc::new(Shared {
            open: RwLock::new(Some(Open { database, queue, writer })),
            readers: Arc::new(Semaphore::new(READERS)),
            deadline: options.deadline,
            gate,
        })))
    }

    /// Whether this node may act.
    pub(super) fn gate(&self) -> &Arc<dyn Gate> {
        &self.0.gate
    }

    /// Queues work for the writer and waits until it is on disk.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (operation, answered) = Queued::new(name, work);
        self.with_open(|open| open.queue.clone())?.try_send(Box::new(operation)).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Overloaded,
            TrySendError::Closed(_) => StoreError::Unavailable("the writer has stopped".to_owned()),
        })?;
        match timeout(self.0.deadline * 2, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Engine("the writer has stopped".into())),
            Err(_) => Err(StoreError::Engine("the disk did not answer in time".into())),
        }
    }

    /// A read of a few rows by their keys, in the calling task: it takes microseconds when the rows are in
    /// memory and one access to the disk each when they are not.
    pub(super) fn read_now<T>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        let database = Database::Disk(self.database()?);
        let result = work(&database);
        record(name, start);
        result
    }

    /// A read of many rows, on a thread of its own.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        let readers = Arc::clone(&self.0.readers).acquire_owned();
        let Ok(Ok(permit)) = timeout(self.0.deadline, readers).await else {
            return Err(StoreError::Overloaded);
        };
        let database = Database::Disk(self.database()?);
        let reading = spawn_blocking(move || {
            let _permit = permit;
            work(&database)
        });
        let result = reading.await.map_err(|error| StoreError::Engine(Box::new(error)))?;
        record(name, start);
        result
    }

    /// Lets the writer finish what is queued, waits for reads that go on, and closes the files.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let open = self.0.open.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Open { database, queue, writer }) = open else { return Ok(()) };
        drop(queue);
        let finish = async move {
            let ended = spawn_blocking(move || writer.join()).await;
            while Arc::strong_count(&database) > 1 {
                sleep(Duration::from_millis(1)).await;
            }
            let intact = matches!(ended, Ok(Ok(true)));
            let closed = spawn_blocking(move || {
                if let Some(database) = Arc::into_inner(database) {
                    database.close(intact);
                }
            });
            let closed = closed.await;
            matches!((ended, closed), (Ok(Ok(_)), Ok(())))
        };
        match timeout(self.0.deadline * 2, finish).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Engine("a thread of the database has panicked".into())),
            Err(_) => Err(StoreError::Engine("the database does not come to an end".into())),
        }
    }

    fn database(&self) -> Result<Arc<Disk>, StoreError> {
        self.with_open(|open| Arc::clone(&open.database))
    }

    fn with_open<T>(&self, take: impl FnOnce(&Open) -> T) -> Result<T, StoreError> {
        let open = self.0.open.read().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().map(take).ok_or_else(|| StoreError::Unavailable("the store is closed".to_owned()))
    }
}
