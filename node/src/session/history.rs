//! A session's history sync: chunks from the phone, into history, contacts and chats.
//!
//! A chunk is announced, fetched by the library, and then ours to store. The announcement is acknowledged when it is
//! on our list of what we wait for, durably, and leaves the list when everything announced is stored. What is still on
//! the list when nothing comes any more (a crash, a failed download) the phone is asked for again, by the id of the
//! announcement. Storing a chunk twice changes nothing, so asking once too often is harmless.
//!
//! Bounded: parts of a chunk, chunks that wait, chunks that are decoded at a time over all sessions. While chunks wait,
//! the phone's next announcement is not acknowledged, which slows it down; nobody else's messages wait for it.

use super::{
    sort_key::SortKeys,
    whatsapp::{Chunk, Line},
};
use crate::metrics;
use rookery_protocol::{MessageId, api::HistorySync};
use rookery_storage::{Fence, HistorySyncRow, Import, StoreError, Stores, WaitingChunk};
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
/// Announced chunks that are remembered.
const MAX_WAITING: usize = 1_000;
/// How long nothing has to happen before the phone is asked for what is missing; six times as long each time.
const QUIET: Duration = Duration::from_secs(10);
/// How often it is asked for one chunk.
const ASKS: u32 = 3;
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

struct Ledger {
    state: HistorySyncRow,
    /// Chunks that this client has announced and handed over, since both were last the same or asked for.
    announced: u64,
    stored: u64,
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
    ledger: Mutex<Ledger>,
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
        let ledger = Mutex::new(Ledger {
            state,
            announced: 0,
            stored: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            working: false,
            watching: false,
            active: Instant::now(),
            line: None,
        });
        let saving = tokio::sync::Mutex::default();
        Arc::new(Self { fence, stores, keys, decoders, closed, ledger, depth: watch::Sender::new(0), saving })
    }

    /// How far it has come; none before the phone has sent anything.
    pub(crate) fn progress(&self) -> Option<HistorySync> {
        let ledger = self.ledger();
        let HistorySyncRow { progress, messages, done, .. } = ledger.state;
        (ledger.state != HistorySyncRow::default()).then_some(HistorySync { progress, messages, done })
    }

    /// A client starts: what an earlier one has announced and not handed over will not come from it any more.
    pub(crate) fn begin(&self) {
        let mut ledger = self.ledger();
        (ledger.announced, ledger.stored) = (0, 0);
    }

    /// There is a connection, through which the phone can be asked; or there is none.
    pub(crate) fn connection(self: &Arc<Self>, line: Option<Line>) {
        let mut ledger = self.ledger();
        ledger.line = line;
        ledger.active = Instant::now();
        self.watch(&mut ledger);
    }

    /// Another account may be linked now: counts from nothing.
    pub(crate) fn restart(self: &Arc<Self>) {
        self.ledger().state = HistorySyncRow::default();
        let intake = Arc::clone(self);
        tokio::spawn(async move {
            let _one = intake.saving.lock().await;
            let mut begun = intake.stores.syncs.restart(&intake.fence).await;
            if begun.is_ok() {
                // What has been announced meanwhile.
                let state = intake.ledger().state.clone();
                begun = intake.stores.syncs.save(&intake.fence, &state).await;
            }
            if let Err(error) = begun {
                tracing::warn!(session_id = %intake.fence.session(), %error, "a history sync could not be begun anew");
            }
        });
    }

    /// The phone has announced chunks. They are remembered, durably, when this returns. With `patient` it takes as long
    /// as others wait.
    pub(crate) async fn announced(self: &Arc<Self>, ids: Vec<MessageId>, patient: bool) -> Result<(), StoreError> {
        {
            let mut ledger = self.ledger();
            ledger.active = Instant::now();
            ledger.announced += ids.len() as u64;
            if ledger.stored < ledger.announced {
                for id in ids {
                    let waiting = &mut ledger.state.waiting;
                    if waiting.len() < MAX_WAITING && !waiting.iter().any(|chunk| chunk.id == id) {
                        waiting.push(WaitingChunk { id, asked: 0 });
                    }
                }
                self.watch(&mut ledger);
            }
        }
        self.save().await?;
        if patient {
            let mut depth = self.depth.subscribe();
            let _ = tokio::time::timeout(PATIENCE, depth.wait_for(|depth| *depth < EASY)).await;
        }
        Ok(())
    }

    /// A chunk is here.
    pub(crate) fn put(self: &Arc<Self>, chunk: Chunk) {
        let mut ledger = self.ledger();
        ledger.active = Instant::now();
        let bytes = chunk.bytes();
        if ledger.queue.len() >= QUEUE_CHUNKS || ledger.queued_bytes + bytes > QUEUE_BYTES {
            tracing::warn!(session_id = %self.fence.session(), bytes, "history comes too fast; a chunk will be asked for again");
            return;
        }
        ledger.queue.push_back(chunk);
        ledger.queued_bytes += bytes;
        self.depth.send_modify(|depth| *depth += 1);
        if !std::mem::replace(&mut ledger.working, true) {
            let intake = Arc::clone(self);
            tokio::spawn(async move { intake.work().await });
        }
    }

    /// Stores what is queued, and ends.
    async fn work(self: Arc<Self>) {
        loop {
            let chunk = {
                let mut ledger = self.ledger();
                let Some(chunk) = ledger.queue.pop_front() else {
                    ledger.working = false;
                    return;
                };
                ledger.queued_bytes -= chunk.bytes();
                chunk
            };
            let progress = chunk.progress();
            let stored = self.store(chunk).await;
            self.depth.send_modify(|depth| *depth -= 1);
            let result = match stored {
                Ok(()) => self.stored(progress).await,
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
                    self.ledger().state.messages += new;
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
    async fn stored(&self, progress: Option<u32>) -> Result<(), ChunkError> {
        {
            let mut ledger = self.ledger();
            ledger.active = Instant::now();
            ledger.stored += 1;
            let settled = ledger.stored >= ledger.announced;
            let state = &mut ledger.state;
            state.progress = state.progress.max(progress.unwrap_or(0)).min(100);
            if settled {
                state.waiting.clear();
            }
            state.done |= state.progress == 100 && state.waiting.is_empty();
        }
        Ok(self.save().await?)
    }

    async fn save(&self) -> Result<(), StoreError> {
        let _one = self.saving.lock().await;
        let state = self.ledger().state.clone();
        self.stores.syncs.save(&self.fence, &state).await
    }

    /// Sees to it that somebody looks after what is missing.
    fn watch(self: &Arc<Self>, ledger: &mut Ledger) {
        if !ledger.state.waiting.is_empty() && ledger.line.is_some() && !std::mem::replace(&mut ledger.watching, true) {
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
            let (pause, due) = {
                let mut ledger = self.ledger();
                let Some(line) = ledger.line.clone().filter(|_| !ledger.state.waiting.is_empty()) else {
                    ledger.watching = false;
                    return;
                };
                let quiet = ledger.active.elapsed();
                let due = if ledger.working { vec![] } else { self.due(&mut ledger.state, quiet) };
                if due.is_empty() {
                    (QUIET / 10, None)
                } else {
                    ledger.active = Instant::now();
                    (ledger.announced, ledger.stored) = (0, 0);
                    (QUIET, Some((line, due)))
                }
            };
            if let Some((line, due)) = due {
                if let Err(error) = self.save().await {
                    tracing::warn!(session_id = %self.fence.session(), %error, "a history sync could not be noted");
                }
                for id in due {
                    if let Err(error) = line.ask_for_chunk(&id).await {
                        tracing::warn!(session_id = %self.fence.session(), error = format!("{error:#}"), "history could not be asked for");
                    }
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// What to ask for after so long a silence; what was asked for often enough is given up.
    fn due(&self, state: &mut HistorySyncRow, quiet: Duration) -> Vec<MessageId> {
        let is_due = |chunk: &WaitingChunk| quiet >= QUIET * 6_u32.saturating_pow(chunk.asked.min(ASKS));
        let before = state.waiting.len();
        state.waiting.retain(|chunk| chunk.asked < ASKS || !is_due(chunk));
        let given_up = before - state.waiting.len();
        if given_up > 0 {
            tracing::warn!(session_id = %self.fence.session(), given_up, "the phone did not send announced history");
        }
        state.done |= state.progress == 100 && state.waiting.is_empty();
        let due = state.waiting.iter_mut().filter(|chunk| is_due(chunk));
        due.map(|chunk| {
            chunk.asked += 1;
            chunk.id.clone()
        })
        .collect()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
