//! A session's history sync: chunks from the phone, into history, contacts and chats.
//!
//! A chunk is announced, fetched by the library, and then ours to store. The announcement is acknowledged when it is
//! on our list of what we wait for, durably, and leaves the list when its chunk is stored. What is still on
//! the list when nothing comes any more (a crash, a failed download) the phone is asked for again, by the id of the
//! announcement. Storing a chunk twice changes nothing, so asking once too often is harmless. What is on the list and
//! when it leaves decides [`ledger`].
//!
//! Bounded: parts of a chunk, chunks that wait, chunks that are decoded at a time over all sessions. While chunks wait,
//! the phone's next announcement is not acknowledged, which slows it down; nobody else's messages wait for it.

mod ledger;

use super::{
    sort_key::SortKeys,
    whatsapp::{Chunk, Line},
};
use crate::metrics;
use ledger::{Ledger, Overdue, QUIET};
use rookery_protocol::{MessageId, api::HistorySync};
use rookery_storage::{Fence, HistorySyncRow, Import, StoreError, Stores};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Chunks that are decoded at a time, over all sessions.
const DECODERS: usize = 4;
/// Decoded parts that wait to be stored.
const PARTS: usize = 2;
/// Compressed bytes of a session's chunks that wait. What comes on top is dropped and asked for later.
const QUEUE_BYTES: usize = 32 << 20;
/// Chunks of a session that wait.
const QUEUE_CHUNKS: usize = 256;
/// Chunks that may wait before the next announcement does.
const EASY: usize = 2;
/// How long an announcement waits for that.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an overloaded store is asked to take a part.
const STORE_ATTEMPTS: u32 = 200;

/// Bounds what all sessions do at a time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Decoders(Arc<Semaphore>);

impl Decoders {
    /// As many as a process should have.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(DECODERS)))
    }
}

/// Why a chunk was not stored.
#[derive(Debug, thiserror::Error)]
enum ChunkError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("the session is closing")]
    Closing,
}

/// What a session's history sync is at.
struct Desk {
    ledger: Ledger,
    queue: VecDeque<Chunk>,
    queued_bytes: usize,
    /// A task empties the queue.
    working: bool,
    /// A task looks after what is missing.
    watching: bool,
    /// When something last came.
    active: Instant,
    line: Option<Line>,
}

/// The history sync of a session that this node owns.
pub(crate) struct HistoryIntake {
    fence: Fence,
    stores: Stores,
    keys: Arc<SortKeys>,
    decoders: Decoders,
    closed: CancellationToken,
    desk: Mutex<Desk>,
    /// How many chunks wait or are being stored.
    depth: watch::Sender<usize>,
    /// Writes of the state go one after the other, so that the latest is the last.
    saving: tokio::sync::Mutex<()>,
}

impl HistoryIntake {
    /// Goes on where an earlier owner has left `state`. Everything ends with `closed`.
    pub(crate) fn new(
        fence: Fence,
        stores: Stores,
        keys: Arc<SortKeys>,
        decoders: Decoders,
        state: HistorySyncRow,
        closed: CancellationToken,
    ) -> Arc<Self> {
        let desk = Mutex::new(Desk {
            ledger: Ledger::new(state),
            queue: VecDeque::new(),
            queued_bytes: 0,
            working: false,
            watching: false,
            active: Instant::now(),
            line: None,
        });
        let saving = tokio::sync::Mutex::default();
        Arc::new(Self { fence, stores, keys, decoders, closed, desk, depth: watch::Sender::new(0), saving })
    }

    /// How far it has come; none before the phone has sent anything.
    pub(crate) fn progress(&self) -> Option<HistorySync> {
        let desk = self.desk();
        let state = desk.ledger.state();
        let HistorySyncRow { progress, messages, done, .. } = *state;
        (*state != HistorySyncRow::default()).then_some(HistorySync { progress, messages, done })
    }

    /// There is a connection, through which the phone can be asked; or there is none.
    pub(crate) fn connection(self: &Arc<Self>, line: Option<Line>) {
        let mut desk = self.desk();
        desk.line = line;
        desk.active = Instant::now();
        self.watch(&mut desk);
    }

    /// Another account may be linked now: counts from nothing.
    pub(crate) fn restart(self: &Arc<Self>) {
        self.desk().ledger = Ledger::default();
        let intake = Arc::clone(self);
        tokio::spawn(async move {
            let _one = intake.saving.lock().await;
            // With what has been announced meanwhile.
            let state = intake.desk().ledger.state().clone();
            if let Err(error) = intake.stores.syncs.restart(&intake.fence, &state).await {
                tracing::warn!(session_id = %intake.fence.session(), %error, "a history sync could not be begun anew");
            }
        });
    }

    /// The phone has announced chunks. They are remembered, durably, when this returns. With `patient` it takes as long
    /// as others wait.
    pub(crate) async fn announced(self: &Arc<Self>, ids: Vec<MessageId>, patient: bool) -> Result<(), StoreError> {
        {
            let mut desk = self.desk();
            desk.active = Instant::now();
            for id in ids {
                desk.ledger.announced(id);
            }
            self.watch(&mut desk);
        }
        // Even where all were known: they may not be durable yet.
        self.save().await?;
        if patient {
            let mut depth = self.depth.subscribe();
            let _ = tokio::time::timeout(PATIENCE, depth.wait_for(|depth| *depth < EASY)).await;
        }
        Ok(())
    }

    /// A chunk is here.
    pub(crate) fn put(self: &Arc<Self>, chunk: Chunk) {
        let mut desk = self.desk();
        desk.active = Instant::now();
        let bytes = chunk.bytes();
        if desk.queue.len() >= QUEUE_CHUNKS || desk.queued_bytes + bytes > QUEUE_BYTES {
            tracing::warn!(session_id = %self.fence.session(), bytes, "history comes too fast; a chunk will be asked for again");
            return;
        }
        desk.queue.push_back(chunk);
        desk.queued_bytes += bytes;
        self.depth.send_modify(|depth| *depth += 1);
        if !std::mem::replace(&mut desk.working, true) {
            let intake = Arc::clone(self);
            tokio::spawn(async move { intake.work().await });
        }
    }

    /// Stores what is queued, and ends.
    async fn work(self: Arc<Self>) {
        loop {
            let chunk = {
                let mut desk = self.desk();
                let Some(chunk) = desk.queue.pop_front() else {
                    desk.working = false;
                    return;
                };
                desk.queued_bytes -= chunk.bytes();
                chunk
            };
            let (id, progress) = (chunk.announcement(), chunk.progress());
            let stored = self.store(chunk).await;
            self.depth.send_modify(|depth| *depth -= 1);
            let result = match stored {
                Ok(()) => self.stored(id, progress).await,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                tracing::warn!(session_id = %self.fence.session(), %error, "a part of the history was not stored");
            }
        }
    }

    async fn store(&self, chunk: Chunk) -> Result<(), ChunkError> {
        let _permit = self.decoders.0.acquire().await.map_err(|_| ChunkError::Closing)?;
        let (give, mut take) = mpsc::channel::<Import>(PARTS);
        let keys = Arc::clone(&self.keys);
        let decoding =
            tokio::task::spawn_blocking(move || chunk.decode(&keys, |part| give.blocking_send(part).is_ok()));
        while let Some(part) = take.recv().await {
            // Returning drops the receiver, which ends the decoder.
            self.import(part).await?;
        }
        let decoded = decoding.await.map_err(|panic| ChunkError::Unreadable(panic.to_string()))?;
        decoded.map_err(ChunkError::Unreadable)
    }

    async fn import(&self, part: Import) -> Result<(), ChunkError> {
        let kinds: Vec<_> = part.messages.iter().map(|row| (row.from_me, row.kind)).collect();
        for attempt in 0..STORE_ATTEMPTS {
            if self.closed.is_cancelled() {
                return Err(ChunkError::Closing);
            }
            match self.stores.syncs.import(&self.fence, part.clone()).await {
                Ok(new) => {
                    for (from_me, kind) in kinds {
                        metrics::message(if from_me { "outbound" } else { "inbound" }, kind, "imported");
                    }
                    self.desk().ledger.imported(new);
                    return Ok(());
                }
                Err(StoreError::Overloaded) => {
                    tokio::time::sleep(Duration::from_millis(10) * (attempt + 1).min(20)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Overloaded.into())
    }

    /// A chunk is stored.
    async fn stored(&self, announcement: Option<MessageId>, progress: Option<u32>) -> Result<(), ChunkError> {
        {
            let mut desk = self.desk();
            desk.active = Instant::now();
            if let Some(id) = announcement {
                desk.ledger.stored(id, progress);
            }
        }
        Ok(self.save().await?)
    }

    async fn save(&self) -> Result<(), StoreError> {
        let _one = self.saving.lock().await;
        let state = self.desk().ledger.state().clone();
        self.stores.syncs.save(&self.fence, &state).await
    }

    /// Sees to it that somebody looks after what is missing.
    fn watch(self: &Arc<Self>, desk: &mut Desk) {
        if desk.ledger.waits() && desk.line.is_some() && !std::mem::replace(&mut desk.watching, true) {
            let intake = Arc::clone(self);
            tokio::spawn(async move {
                tokio::select! {
                    () = intake.closed.cancelled() => {}
                    () = intake.look_after() => {}
                }
            });
        }
    }

    /// Asks the phone for what is missing whenever nothing has come for a while, until nothing is missing or there is
    /// no connection.
    async fn look_after(&self) {
        loop {
            let (line, Overdue { ask, given_up }) = {
                let mut desk = self.desk();
                let Some(line) = desk.line.clone().filter(|_| desk.ledger.waits()) else {
                    desk.watching = false;
                    return;
                };
                let quiet = if desk.working { Duration::ZERO } else { desk.active.elapsed() };
                let overdue = desk.ledger.overdue(quiet);
                if overdue != Overdue::default() {
                    desk.active = Instant::now();
                }
                (line, overdue)
            };
            if given_up > 0 {
                tracing::warn!(session_id = %self.fence.session(), given_up, "the phone did not send announced history");
            }
            if given_up > 0 || !ask.is_empty() {
                if let Err(error) = self.save().await {
                    tracing::warn!(session_id = %self.fence.session(), %error, "a history sync could not be noted");
                }
                for id in ask {
                    if let Err(error) = line.ask_for_chunk(&id).await {
                        tracing::warn!(session_id = %self.fence.session(), error = format!("{error:#}"), "history could not be asked for");
                    }
                }
            }
            tokio::time::sleep(QUIET / 10).await;
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
