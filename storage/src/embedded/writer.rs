//! The one thread that writes: it takes what is queued, runs it as one batch, flushes it to disk and answers.
//!
//! Since it alone writes, whatever an operation reads and then writes is atomic, and operations take effect in
//! the order of the queue. Once a flush has failed nothing is known about the disk any more: the writer
//! refuses everything until the process is started again.

use super::{
    database::Database,
    transaction::{Changes, Transaction},
};
use crate::{
    StoreError,
    metrics::{BATCH_OPERATIONS, QUEUE_DEPTH, record},
};
use rookery_protocol::SessionId;
use std::{
    collections::HashSet,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

/// Most operations in one batch.
const MAX_OPERATIONS: usize = 256;

/// No further operation is taken into a batch of this size.
pub(super) const MAX_BYTES: usize = 4 * 1024 * 1024;

/// How a batch ended.
enum Flush {
    /// It is on disk.
    Done,
    /// The engine had failed before: nothing was written.
    Refused(String),
    /// Nobody knows.
    Failed(Arc<fjall::Error>),
}

/// A queued operation, whatever it answers.
pub(super) trait Operation: Send {
    /// When it was queued.
    fn since(&self) -> Instant;
    /// Does its work in memory.
    fn run(&mut self, transaction: Transaction<'_>);
    /// Answers without having done anything.
    fn refuse(self: Box<Self>, error: StoreError);
    /// Answers what it found, now that the batch has ended.
    fn finish(self: Box<Self>, flush: &dyn Fn() -> Result<(), StoreError>);
}

/// An operation that answers a `T`.
pub(super) struct Queued<F, T> {
    name: &'static str,
    since: Instant,
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Queued<F, T>
where
    F: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send,
    T: Send,
{
    /// This work, and where its answer will be.
    pub(super) fn new(name: &'static str, work: F) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (answer, answered) = oneshot::channel();
        (Self { name, since: Instant::now(), work: Some(work), result: None, answer }, answered)
    }

    fn answer(self, result: Result<T, StoreError>) {
        record(self.name, self.since);
        // Whoever asked may have given up.
        let _ = self.answer.send(result);
    }
}

impl<F, T> Operation for Queued<F, T>
where
    F: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn since(&self) -> Instant {
        self.since
    }

    fn run(&mut self, mut transaction: Transaction<'_>) {
        let Some(work) = self.work.take() else { return };
        let result = work(&mut transaction);
        if result.is_err() {
            transaction.roll_back();
        }
        self.result = Some(result);
    }

    fn refuse(self: Box<Self>, error: StoreError) {
        self.answer(Err(error));
    }

    fn finish(mut self: Box<Self>, flush: &dyn Fn() -> Result<(), StoreError>) {
        let Some(result) = self.result.take() else { return };
        // An operation that found a reason not to write has its answer whatever became of the disk.
        let result = result.and_then(|value| flush().map(|()| value));
        self.answer(result);
    }
}

/// Where operations are queued.
pub(super) type Queue = mpsc::Sender<Box<dyn Operation>>;

/// Starts the thread. It ends when the queue is closed and empty, and says whether every flush went well.
pub(super) fn start(
    database: Arc<Database>,
    capacity: usize,
    deadline: Duration,
) -> io::Result<(Queue, JoinHandle<bool>)> {
    let (queue, operations) = mpsc::channel(capacity);
    let writer = Writer { database, operations, deadline, leaving: HashSet::new(), failure: None };
    let thread = thread::Builder::new().name("storage-writer".to_owned()).spawn(move || writer.run())?;
    Ok((queue, thread))
}

struct Writer {
    database: Arc<Database>,
    operations: mpsc::Receiver<Box<dyn Operation>>,
    deadline: Duration,
    leaving: HashSet<SessionId>,
    /// Why nothing is written any more.
    failure: Option<String>,
}

impl Writer {
    fn run(mut self) -> bool {
        while let Some(first) = self.operations.blocking_recv() {
            metrics::gauge!(QUEUE_DEPTH).set(self.operations.len() as f64);
            self.batch(first);
        }
        self.failure.is_none()
    }

    fn batch(&mut self, first: Box<dyn Operation>) {
        let mut changes = Changes::default();
        let mut done = Vec::new();
        let mut next = Some(first);
        while let Some(mut operation) = next.take() {
            if let Some(reason) = &self.failure {
                operation.refuse(StoreError::Unavailable(reason.clone()));
            } else if operation.since().elapsed() > self.deadline {
                operation.refuse(StoreError::Overloaded);
            } else {
                operation.run(Transaction::new(&self.database, &mut changes, &mut self.leaving));
                done.push(operation);
            }
            if done.len() < MAX_OPERATIONS && changes.bytes() < MAX_BYTES {
                next = self.operations.try_recv().ok();
            }
        }
        metrics::histogram!(BATCH_OPERATIONS).record(done.len() as f64);
        let flush = self.flush(changes);
        let answer = || match &flush {
            Flush::Done => Ok(()),
            Flush::Refused(reason) => Err(StoreError::Unavailable(reason.clone())),
            Flush::Failed(error) => Err(StoreError::Engine(Box::new(Arc::clone(error)))),
        };
        for operation in done {
            operation.finish(&answer);
        }
    }

    fn flush(&mut self, changes: Changes) -> Flush {
        if changes.is_empty() {
            return Flush::Done;
        }
        let Err(failure) = self.database.commit(changes.into_rows()) else {
            return Flush::Done;
        };
        error!(error = %failure, "the storage engine failed; nothing is written until the next start");
        let reason = format!("the storage engine has failed: {failure}");
        self.failure = Some(reason.clone());
        match failure {
            fjall::Error::Poisoned => Flush::Refused(reason),
            other => Flush::Failed(Arc::new(other)),
        }
    }
}
