//! Files of stored messages, as their users get them: out of the cache, the store that keeps them, or WhatsApp.
//!
//! Whatever is handed out has the hash that its message says. What only some place failed to give is sought at the
//! next; what is gone everywhere is said to be gone to all who asked meanwhile. Knows nothing of HTTP.

use super::{Cache, Keep, cache::Key};
use crate::session::{Arrival, MediaError, Sessions, digest};
use rookery_protocol::SessionId;
use rookery_storage::{HistoryRow, MediaFile};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Seek},
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::spawn_blocking};

/// How long it is remembered that a file is gone, for those who ask at the same time.
const GONE_TIME: Duration = Duration::from_secs(120);
/// Files that are fetched at a time as soon as their messages have come.
const ARRIVALS_AT_ONCE: usize = 2;
/// How often such a file is tried.
const ATTEMPTS: u32 = 3;
/// The pause after a failure; doubles each time.
const PAUSE: Duration = Duration::from_secs(2);

/// Files of stored messages.
pub(crate) struct Received {
    cache: Cache,
    keep: Option<Keep>,
    max_file_bytes: u64,
    /// Which files were found to be gone, and when.
    gone: Mutex<HashMap<Key, Instant>>,
}

impl Received {
    /// Files of at most this size, out of these places.
    pub(crate) fn new(cache: Cache, keep: Option<Keep>, max_file_bytes: u64) -> Self {
        Self { cache, keep, max_file_bytes, gone: Mutex::default() }
    }

    /// The file of a message, whole.
    pub(crate) async fn open(
        &self,
        sessions: &Sessions,
        id: SessionId,
        row: &HistoryRow,
        file: &MediaFile,
    ) -> Result<File, MediaError> {
        let (asked, name) = (Instant::now(), name(id, row, file));
        let fetch = |into: File| async {
            if self.is_gone_since(&name, asked) {
                return Err(MediaError::Gone);
            }
            let fetched = self.fetch(sessions, id, row, file, &name, into).await;
            if matches!(fetched, Err(MediaError::Gone)) {
                self.note_gone(&name);
            }
            fetched
        };
        self.cache.get(&name, fetch).await
    }

    async fn fetch(
        &self,
        sessions: &Sessions,
        id: SessionId,
        row: &HistoryRow,
        file: &MediaFile,
        name: &Key,
        mut into: File,
    ) -> Result<File, MediaError> {
        let object = &name[id.as_bytes().len()..];
        if let Some(keep) = &self.keep {
            if keep.read(id, object, &into, self.max_file_bytes).await {
                match checked(into.try_clone()?, file).await {
                    Ok(whole) => return Ok(whole),
                    Err(_) => keep.discard(id, object).await,
                }
            }
            into.set_len(0)?;
            into.rewind()?;
        }
        let whole = checked(sessions.download(id, row, file, into).await?, file).await?;
        if let Some(keep) = &self.keep {
            keep.write_soon(id, object, whole.try_clone()?);
        }
        Ok(whole)
    }

    /// Fetches files as their messages come, until nobody tells of any more. Nothing depends on it: a file that could
    /// not be had is fetched when somebody asks for it.
    pub(crate) async fn take_arrivals(self: Arc<Self>, sessions: Arc<Sessions>, mut arrivals: mpsc::Receiver<Arrival>) {
        let arriving = async_stream(&mut arrivals);
        futures_util::StreamExt::for_each_concurrent(arriving, ARRIVALS_AT_ONCE, |(id, row)| {
            let (received, sessions) = (Arc::clone(&self), Arc::clone(&sessions));
            async move { received.take(&sessions, id, &row).await }
        })
        .await;
    }

    async fn take(&self, sessions: &Sessions, id: SessionId, came: &HistoryRow) {
        let Ok(Some(row)) = sessions.stored(id, came).await else { return };
        let Some(file) = &row.file else { return };
        for attempt in 1..=ATTEMPTS {
            match self.open(sessions, id, &row, file).await {
                Ok(_) => return,
                Err(MediaError::Gone) => break,
                Err(error) => {
                    tracing::debug!(session_id = %id, attempt, %error, "a file could not be fetched on arrival");
                }
            }
            tokio::time::sleep(PAUSE * 2_u32.pow(attempt)).await;
        }
    }

    /// Removes all files of a session that was deleted.
    pub(crate) async fn forget(&self, session: SessionId) {
        self.cache.forget(session.as_bytes());
        if let Some(keep) = &self.keep {
            keep.forget(session).await;
        }
    }

    fn is_gone_since(&self, name: &Key, asked: Instant) -> bool {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.get(name).is_some_and(|found| *found >= asked)
    }

    fn note_gone(&self, name: &Key) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.retain(|_, found| found.elapsed() < GONE_TIME);
        gone.insert(name.clone(), Instant::now());
    }
}

/// What arrives, as a stream.
fn async_stream(arrivals: &mut mpsc::Receiver<Arrival>) -> impl futures_util::Stream<Item = Arrival> {
    futures_util::stream::poll_fn(|context| arrivals.poll_recv(context))
}

/// The name of a file: its session first. With the key in it: whoever only knows what the file is gets none that
/// others fetched.
fn name(id: SessionId, row: &HistoryRow, file: &MediaFile) -> Key {
    let key = file.media_key.as_deref().unwrap_or_default();
    let what = digest(&[row.kind.as_str().as_bytes(), key, &file.sha256]);
    [id.as_bytes(), &what[..]].concat()
}

/// The file, which has to be what its message says.
async fn checked(file: File, message: &MediaFile) -> Result<File, MediaError> {
    let expected = message.sha256.clone();
    let checking = spawn_blocking(move || {
        let mut hash = Sha256::new();
        let (mut chunk, mut at) = (vec![0; 64 << 10], 0);
        loop {
            let read = file.read_at(&mut chunk, at)?;
            if read == 0 {
                break;
            }
            hash.update(&chunk[..read]);
            at += read as u64;
        }
        if expected.is_empty() || hash.finalize()[..] == *expected { Ok(file) } else { Err(MediaError::Gone) }
    });
    checking.await.map_err(|error| MediaError::Disk(io::Error::other(error)))?
}
