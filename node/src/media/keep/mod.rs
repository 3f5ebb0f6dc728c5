//! Files of messages that are kept beyond WhatsApp's own time, in a folder of this node or a bucket.
//!
//! What fails here fails nothing else: a file that cannot be written is fetched from WhatsApp again, one that cannot be
//! read as well. Everything is bounded: what is written at a time, what may wait for it, all files together, and how
//! long each stays. It knows neither WhatsApp nor messages; whoever reads checks that the file is what it should be.

mod s3;

use crate::metrics;
use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt};
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart, local::LocalFileSystem, path::Path,
    prefix::PrefixStore,
};
use rookery_protocol::{SessionId, Timestamp};
pub(crate) use s3::S3Settings;
use std::{
    fs::{DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};
use url::Url;

/// Files that are written at a time; each holds up to twice [`PART_BYTES`] in memory.
const WRITERS: usize = 4;
/// Files that may wait to be written; further ones are not kept.
const WAITING: usize = 256;
/// How much of a file is written at a time. S3 takes no smaller parts than 5 MiB, but for the last.
const PART_BYTES: usize = 5 << 20;
/// How often a file is written before it is given up.
const ATTEMPTS: u32 = 3;
/// The pause after a failure; doubles each time.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a file may take to be written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long the store may take to begin an answer, and to go on with it, before WhatsApp is asked.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Files that are removed at a time, and the pause after them.
const REMOVED_AT_ONCE: usize = 100;
const REMOVAL_PAUSE: Duration = Duration::from_millis(200);
/// A file that was being written this long ago is being written no more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Where a URL of the configuration says that files are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// The node's own folder.
    Own,
    /// This folder.
    Folder(PathBuf),
    /// This bucket, under this prefix.
    Bucket(String, String),
}

impl Location {
    /// Reads it, or says what it has to be.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const PROBLEM: &str = "must be empty, file:///a/folder or s3://bucket/prefix";
        if text.is_empty() {
            return Ok(Self::Own);
        }
        let url = Url::parse(text).map_err(|_| PROBLEM)?;
        let plain = url.username().is_empty() && url.password().is_none() && url.port().is_none();
        if !plain || url.query().is_some() || url.fragment().is_some() {
            return Err(PROBLEM);
        }
        match (url.scheme(), url.host_str()) {
            ("file", _) => url.to_file_path().map(Self::Folder).map_err(|()| PROBLEM),
            ("s3", Some(bucket)) => Ok(Self::Bucket(bucket.to_owned(), url.path().trim_matches('/').to_owned())),
            _ => Err(PROBLEM),
        }
    }
}

/// What is opened.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket.
    S3(Box<S3Settings>),
}

/// Bounds on what is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepLimits {
    /// How long a file stays.
    pub retention: Duration,
    /// All files together.
    pub max_bytes: u64,
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Keep(Arc<Shared>);

struct Shared {
    store: Arc<dyn ObjectStore>,
    folder: Option<PathBuf>,
    limits: KeepLimits,
    /// What all files take, as far as it is known: counted at every sweep, and what was written since.
    used: AtomicU64,
    writers: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Keep {
    /// Opens the store; a folder is made when there is none. Blocks.
    pub(crate) fn open(place: Place, limits: KeepLimits) -> anyhow::Result<Self> {
        let (store, folder): (Arc<dyn ObjectStore>, _) = match place {
            Place::Folder(folder) => {
                DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
                let store = LocalFileSystem::new_with_prefix(&folder)?.with_automatic_cleanup(true);
                (Arc::new(store), Some(folder))
            }
            Place::S3(settings) => {
                let prefix = Path::parse(&settings.prefix).context("the prefix of the bucket's URL")?;
                (Arc::new(PrefixStore::new(s3::open(*settings)?, prefix)), None)
            }
        };
        let (writers, waiting) = (Arc::new(Semaphore::new(WRITERS)), Arc::new(Semaphore::new(WAITING)));
        Ok(Self(Arc::new(Shared { store, folder, limits, used: AtomicU64::new(0), writers, waiting })))
    }

    /// Writes a kept file into `into`; false when there is none, or when the store fails. At most `max_bytes` are read.
    pub(crate) async fn read(&self, session: SessionId, name: &[u8], into: &File, max_bytes: u64) -> bool {
        match self.try_read(&place(session, name), into, max_bytes).await {
            Ok(found) => {
                count("read", if found { "ok" } else { "absent" });
                found
            }
            Err(error) => {
                count("read", "failed");
                tracing::warn!(session_id = %session, %error, "a kept file could not be read");
                false
            }
        }
    }

    async fn try_read(&self, path: &Path, into: &File, max_bytes: u64) -> anyhow::Result<bool> {
        let found = match timeout(STEP_TIMEOUT, self.0.store.get(path)).await? {
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            found => found?,
        };
        anyhow::ensure!(found.meta.size <= max_bytes, "it is larger than a file may be");
        let mut chunks = found.into_stream();
        let mut at = 0;
        while let Some(chunk) = timeout(STEP_TIMEOUT, chunks.try_next()).await?? {
            anyhow::ensure!(at + chunk.len() as u64 <= max_bytes, "it is larger than it was said to be");
            let (mut file, length) = (into.try_clone()?, chunk.len() as u64);
            spawn_blocking(move || file.write_all(&chunk)).await??;
            at += length;
        }
        Ok(true)
    }

    /// Keeps a whole file, soon and in the background; not when there is no room for it, or too much to do.
    pub(crate) fn write_soon(&self, session: SessionId, name: &[u8], file: File) {
        let Ok(turn) = Arc::clone(&self.0.waiting).try_acquire_owned() else {
            return count("write", "skipped");
        };
        let (keep, path) = (self.clone(), place(session, name));
        tokio::spawn(async move { keep.write(session, &path, file, turn).await });
    }

    async fn write(&self, session: SessionId, path: &Path, file: File, _turn: OwnedSemaphorePermit) {
        let file = Arc::new(file);
        let Ok(_writer) = self.0.writers.acquire().await else { return };
        for attempt in 1..=ATTEMPTS {
            let written = timeout(WRITE_TIMEOUT, self.try_write(path, &file)).await;
            match written.map_err(anyhow::Error::from).and_then(|written| written) {
                Ok(true) => return count("write", "ok"),
                Ok(false) => return count("write", "full"),
                Err(error) => {
                    tracing::warn!(session_id = %session, attempt, error = format!("{error:#}"), "a file could not be kept");
                }
            }
            tokio::time::sleep(PAUSE * 2_u32.pow(attempt)).await;
        }
        count("write", "failed");
    }

    /// False when there is no room.
    async fn try_write(&self, path: &Path, file: &Arc<File>) -> anyhow::Result<bool> {
        let length = file.metadata()?.len();
        if self.0.used.load(Ordering::Relaxed).saturating_add(length) > self.0.limits.max_bytes {
            return Ok(false);
        }
        if length <= PART_BYTES as u64 {
            let whole = part(file, 0).await?;
            self.0.store.put(path, PutPayload::from(whole)).await?;
        } else {
            let upload = self.0.store.put_multipart(path).await?;
            let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
            if let Err(error) = stream(&mut upload, file).await {
                let _ = upload.abort().await;
                return Err(error);
            }
            upload.finish().await?;
        }
        self.0.used.fetch_add(length, Ordering::Relaxed);
        Ok(true)
    }

    /// Removes what is not what it should be, so that it is written anew.
    pub(crate) async fn discard(&self, session: SessionId, name: &[u8]) {
        tracing::warn!(session_id = %session, "a kept file is damaged and is removed");
        let _ = timeout(STEP_TIMEOUT, self.0.store.delete(&place(session, name))).await;
    }

    /// Removes all files of a session. What cannot be removed now goes when its time is over.
    pub(crate) async fn forget(&self, session: SessionId) {
        let folder = Path::from(session.to_string());
        if let Err(error) = self.remove(Some(&folder), |_| true).await {
            tracing::warn!(session_id = %session, %error, "kept files of a deleted session are left for later");
        }
    }

    /// Removes, without haste, every file whose time is over; answers how many.
    pub(crate) async fn sweep(&self) -> Result<usize, object_store::Error> {
        if let Some(folder) = self.0.folder.clone() {
            // What a crash has left of files that were being written; the store does not list it.
            let _ = spawn_blocking(move || remove_abandoned(&folder)).await;
        }
        let now = Timestamp::now().as_secs();
        let oldest = now.saturating_sub(i64::try_from(self.0.limits.retention.as_secs()).unwrap_or(i64::MAX));
        let (removed, left) = self.remove(None, |file| file.last_modified.timestamp() <= oldest).await?;
        self.0.used.store(left, Ordering::Relaxed);
        Ok(removed)
    }

    /// Removes the files that `goes` names; how many, and how many bytes stay.
    async fn remove(
        &self,
        folder: Option<&Path>,
        goes: impl Fn(&ObjectMeta) -> bool,
    ) -> Result<(usize, u64), object_store::Error> {
        let mut files = self.0.store.list(folder).chunks(REMOVED_AT_ONCE);
        let (mut removed, mut left) = (0, 0);
        while let Some(some) = files.next().await {
            let mut gone = 0;
            for file in some {
                let file = file?;
                if !goes(&file) {
                    left += file.size;
                    continue;
                }
                match self.0.store.delete(&file.location).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => gone += 1,
                    Err(error) => return Err(error),
                }
            }
            removed += gone;
            if gone > 0 {
                tokio::time::sleep(REMOVAL_PAUSE).await;
            }
        }
        Ok((removed, left))
    }
}

/// Where a file is kept: a folder a session.
fn place(session: SessionId, name: &[u8]) -> Path {
    Path::from_iter([session.to_string(), hex::encode(name)])
}

async fn stream(upload: &mut WriteMultipart, file: &Arc<File>) -> anyhow::Result<()> {
    let mut at = 0;
    loop {
        let next = part(file, at).await?;
        if next.is_empty() {
            return Ok(());
        }
        at += next.len() as u64;
        upload.wait_for_capacity(1).await?;
        upload.put(next.into());
    }
}

/// What stands in a file from `at` on, at most [`PART_BYTES`] of it.
async fn part(file: &Arc<File>, at: u64) -> io::Result<Vec<u8>> {
    let file = Arc::clone(file);
    let reading = spawn_blocking(move || {
        let left = file.metadata()?.len().saturating_sub(at).min(PART_BYTES as u64);
        let mut part = vec![0; usize::try_from(left).unwrap_or(PART_BYTES)];
        file.read_exact_at(&mut part, at)?;
        Ok(part)
    });
    reading.await.map_err(io::Error::other)?
}

/// Removes files that nobody writes any more. The store marks them by a `#` in their name.
fn remove_abandoned(folder: &std::path::Path) -> io::Result<()> {
    for entry in folder.read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_abandoned(&entry.path())?;
        } else if entry.file_name().to_string_lossy().contains('#') {
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > ABANDONED {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

fn count(operation: &'static str, outcome: &'static str) {
    ::metrics::counter!(metrics::KEPT_FILES, "operation" => operation, "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    const LIMITS: KeepLimits = KeepLimits { retention: Duration::from_secs(3600), max_bytes: 20 << 20 };

    fn session(number: u128) -> SessionId {
        uuid::Uuid::from_u128(number).to_string().parse().unwrap()
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    async fn text(keep: &Keep, session: SessionId, name: &[u8], max_bytes: u64) -> Option<Vec<u8>> {
        let mut into = tempfile::tempfile().unwrap();
        if !keep.read(session, name, &into, max_bytes).await {
            return None;
        }
        let mut bytes = vec![];
        into.rewind().unwrap();
        into.read_to_end(&mut bytes).unwrap();
        Some(bytes)
    }

    async fn write(keep: &Keep, session: SessionId, name: &[u8], bytes: &[u8]) -> bool {
        keep.try_write(&place(session, name), &Arc::new(file(bytes))).await.unwrap()
    }

    #[test]
    fn a_url_says_where() {
        let bucket = |bucket: &str, prefix: &str| Location::Bucket(bucket.to_owned(), prefix.to_owned());
        for (text, location) in [
            ("", Location::Own),
            ("file:///srv/a%20b", Location::Folder("/srv/a b".into())),
            ("s3://bucket", bucket("bucket", "")),
            ("s3://bucket/a/b/", bucket("bucket", "a/b")),
        ] {
            assert_eq!(Location::parse(text), Ok(location), "{text}");
        }
        for text in
            ["folder", "/folder", "http://bucket/", "s3://", "s3://id:key@bucket/", "s3://b/?x", "file://host/x"]
        {
            assert!(Location::parse(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn files_are_kept_within_bounds_and_go_with_their_session() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::open(Place::Folder(dir.path().join("kept")), LIMITS).unwrap();
        let large: Vec<_> = (0..PART_BYTES * 2 + 77).map(|n| n as u8).collect();
        assert!(write(&keep, session(1), b"small", b"1234").await);
        assert!(write(&keep, session(1), b"large", &large).await);
        assert!(write(&keep, session(2), b"small", b"").await);
        assert!(text(&keep, session(1), b"large", 11 << 20).await == Some(large));
        assert_eq!(text(&keep, session(1), b"small", 4).await.as_deref(), Some(&b"1234"[..]));
        assert_eq!(text(&keep, session(1), b"small", 3).await, None, "larger than a file may be");
        assert_eq!(text(&keep, session(2), b"large", 11 << 20).await, None, "of another session");
        assert!(!write(&keep, session(2), b"more", &vec![0; 11 << 20]).await, "no room");
        keep.forget(session(1)).await;
        assert_eq!(text(&keep, session(1), b"small", 4).await, None);
        assert_eq!(text(&keep, session(2), b"small", 4).await.as_deref(), Some(&b""[..]));
        assert_eq!(keep.sweep().await.unwrap(), 0);
        assert_eq!(keep.0.used.load(Ordering::Relaxed), 0, "counted anew");
        assert!(write(&keep, session(2), b"more", &vec![0; 11 << 20]).await, "there is room again");
    }

    #[tokio::test]
    async fn what_is_old_or_was_never_finished_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("kept");
        let keep = Keep::open(Place::Folder(folder.clone()), LIMITS).unwrap();
        for name in ["old", "new", "old#1", "new#1"] {
            let path = folder.join(session(1).to_string());
            std::fs::create_dir_all(&path).unwrap();
            let file = File::create(path.join(name)).unwrap();
            if name.starts_with("old") {
                file.set_modified(std::time::SystemTime::now() - Duration::from_secs(4000)).unwrap();
            }
        }
        assert_eq!(keep.sweep().await.unwrap(), 1);
        let mut left: Vec<_> =
            folder.join(session(1).to_string()).read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["new", "new#1"]);
    }

    #[tokio::test]
    async fn a_store_that_fails_has_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::open(Place::Folder(dir.path().join("kept")), LIMITS).unwrap();
        std::fs::remove_dir_all(dir.path().join("kept")).unwrap();
        std::fs::write(dir.path().join("kept"), "no folder").unwrap();
        assert_eq!(text(&keep, session(1), b"any", 4).await, None);
        assert!(keep.try_write(&place(session(1), b"any"), &Arc::new(file(b"x"))).await.is_err());
    }
}
