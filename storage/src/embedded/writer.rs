//! The one writer: it takes what is queued, runs it as one batch, and has it flushed to disk and answered.
//!
//! Since it alone writes, whatever an operation reads and then writes is atomic, and operations take effect in
//! the order of the queue. While one batch is flushed, by a thread of its own, the next one is filled on top of
//! it; nothing is answered before it is on disk. Once a flush has failed nothing is known about the disk any
//! more: the writer refuses everything until the process is started again.

use super::{
    database::Disk,
    engines::Database,
    transaction::{Changes, Known, Transaction},
};
use crate::{
    Fence, StoreError,
    metrics::{BATCH_OPERATIONS, QUEUE_DEPTH, record},
};
use std::{
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

/// From so many operations in a batch on, flushes have a pace: it is worth a moment's wait to have more of them share
/// one. Fewer mean that the callers wait for each other's answers, and are not made to wait longer.
const CROWD: usize = 8;

/// The least time between the beginnings of two flushes in a crowd.
const PACE: Duration = Duration::from_millis(1);

/// Operations that have run and are not answered yet.
struct Batch {
    changes: Arc<Changes>,
    done: Vec<Box<dyn Operation>>,
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
    /// The fence under which it writes: its gate is looked at before the flush and after.
    fence: Option<Fence>,
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
        (Self { name, since: Instant::now(), work: Some(work), fence: None, result: None, answer }, answered)
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
        let mut result = work(&mut transaction);
        if let (Ok(_), Some(fence)) = (&result, transaction.writer()) {
            match fence.may_begin() {
                Ok(()) => self.fence = Some(fence.clone()),
                Err(frozen) => result = Err(frozen),
            }
        }
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
        let result = result.and_then(|value| {
            flush()?;
            self.fence.as_ref().map_or(Ok(()), Fence::may_go_on)?;
            Ok(value)
        });
        self.answer(result);
    }
}

/// Where operations are queued.
pub(super) type Queue = mpsc::Sender<Box<dyn Operation>>;

/// Starts the threads. They end when the queue is closed and empty; the one that is joined says whether every flush
/// went well.
pub(super) fn start(database: Arc<Disk>, capacity: usize, deadline: Duration) -> io::Result<(Queue, JoinHandle<bool>)> {
    let (queue, operations) = mpsc::channel(capacity);
    let (hand_over, mut batches) = mpsc::channel::<Batch>(1);
    let (report, flushed) = mpsc::channel(1);
    let disk = Arc::clone(&database);
    let flusher = thread::Builder::new().name("storage-flush".to_owned()).spawn(move || {
        while let Some(batch) = batches.blocking_recv() {
            flush(&disk, batch, &report);
        }
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let writer = Writer {
        database: Database::Disk(database),
        operations,
        deadline,
        known: Known::default(),
        open: Changes::default(),
        done: Vec::new(),
        flushing: None,
        hand_over,
        flushed,
        failure: None,
    };
    let thread = thread::Builder::new().name("storage-writer".to_owned()).spawn(move || {
        let intact = runtime.block_on(writer.run());
        // It ends with the channel that the writer held.
        flusher.join().is_ok() && intact
    })?;
    Ok((queue, thread))
}

/// Brings a batch to the disk and answers its operations. The writer fills the next batch until it hears of this one's
/// end, which in a crowd is a little later than it could be.
fn flush(database: &Disk, batch: Batch, report: &mpsc::Sender<Result<(), String>>) {
    let Batch { changes, done } = batch;
    let (begun, crowd) = (Instant::now(), done.len() >= CROWD);
    let committed = if changes.is_empty() { Ok(()) } else { database.commit(&changes).map_err(Arc::new) };
    drop(changes);
    let reason = |error: &fjall::Error| format!("the storage engine has failed: {error}");
    let answer = || match &committed {
        Ok(()) => Ok(()),
        // It had failed before: nothing was written.
        Err(error) if matches!(**error, fjall::Error::Poisoned) => Err(StoreError::Unavailable(reason(error))),
        // Nobody knows.
        Err(error) => Err(StoreError::Engine(Box::new(Arc::clone(error)))),
    };
    for operation in done {
        operation.finish(&answer);
    }
    if crowd && committed.is_ok() {
        #[expect(clippy::disallowed_methods, reason = "this thread is the store's own")]
        thread::sleep(PACE.saturating_sub(begun.elapsed()));
    }
    // The writer waits for this and goes only when it has it.
    let _ = report.blocking_send(committed.as_ref().copied().map_err(|error| reason(error)));
}

struct Writer {
    database: Database,
    operations: mpsc::Receiver<Box<dyn Operation>>,
    deadline: Duration,
    known: Known,
    /// The changes of the batch that is being filled, and its operations.
    open: Changes,
    done: Vec<Box<dyn Operation>>,
    /// The changes of the batch that is being flushed.
    flushing: Option<Arc<Changes>>,
    hand_over: mpsc::Sender<Batch>,
    flushed: mpsc::Receiver<Result<(), String>>,
    /// Why nothing is written any more.
    failure: Option<String>,
}

impl Writer {
    async fn run(mut self) -> bool {
        let mut closed = false;
        while !(closed && self.flushing.is_none() && self.done.is_empty()) {
            tokio::select! {
                biased;
                flushed = self.flushed.recv(), if self.flushing.is_some() => self.settle(flushed),
                operation = self.operations.recv(), if !closed && self.has_room() => match operation {
                    Some(operation) => self.take(operation),
                    None => closed = true,
                },
            }
            while self.has_room()
                && let Ok(operation) = self.operations.try_recv()
            {
                self.take(operation);
            }
            if self.flushing.is_none() && !self.done.is_empty() {
                self.flush();
            }
        }
        self.failure.is_none()
    }

    fn has_room(&self) -> bool {
        self.done.len() < MAX_OPERATIONS && self.open.bytes() < MAX_BYTES
    }

    /// Runs an operation in memory.
    fn take(&mut self, mut operation: Box<dyn Operation>) {
        if let Some(reason) = &self.failure {
            operation.refuse(StoreError::Unavailable(reason.clone()));
        } else if operation.since().elapsed() > self.deadline {
            operation.refuse(StoreError::Overloaded);
        } else {
            let flushing = self.flushing.as_deref();
            operation.run(Transaction::new(&self.database, flushing, &mut self.open, &mut self.known));
            self.done.push(operation);
        }
    }

    /// Hands the open batch over.
    fn flush(&mut self) {
        metrics::gauge!(QUEUE_DEPTH).set(self.operations.len() as f64);
        metrics::histogram!(BATCH_OPERATIONS).record(self.done.len() as f64);
        let changes = Arc::new(std::mem::take(&mut self.open));
        let batch = Batch { changes: Arc::clone(&changes), done: std::mem::take(&mut self.done) };
        self.flushing = Some(changes);
        if self.hand_over.try_send(batch).is_err() {
            // The thread has panicked, and with it went the operations: their callers hear that the writer is gone.
            self.fail("the thread that flushes has ended".to_owned());
        }
    }

    /// Takes in how the flush ended: without an answer, the thread has ended.
    fn settle(&mut self, flushed: Option<Result<(), String>>) {
        self.flushing = None;
        let failure = flushed.unwrap_or_else(|| Err("the thread that flushes has ended".to_owned()));
        if let Err(reason) = failure {
            self.fail(reason);
        }
    }

    /// From now on nothing is written; what has run on top of a batch that is not on disk has not happened.
    fn fail(&mut self, reason: String) {
        error!(reason, "nothing is written until the next start");
        self.flushing = None;
        self.open = Changes::default();
        for operation in self.done.drain(..) {
            operation.refuse(StoreError::Unavailable(reason.clone()));
        }
        self.failure = Some(reason);
    }
}
