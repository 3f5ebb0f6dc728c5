//! Files on their way to WhatsApp, in a folder of the data directory.
//!
//! A [`Draft`] is what a caller's file is written to while it comes in: it has no name, so nothing of it outlives the
//! process. A [`Spooled`] file is sealed and durable before the message that refers to it is accepted; it is removed
//! when it is at WhatsApp or the message is given up, and what no message refers to is swept after a start. All of them
//! together are bounded. The spool knows nothing of messages and of what is in the files.

use rand::RngExt;
use sha2::{Digest, Sha256};
use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::io::AsyncWriteExt;

/// What a file is written in. A draft holds that much in memory.
const BUFFER_BYTES: usize = 128 << 10;
/// How the names of sealed files end.
const SUFFIX: &str = ".sealed";

/// The name of a spooled file.
pub(crate) type FileId = [u8; 16];

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    /// It is larger than a file may be.
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
    /// All files together are as many bytes as they may be.
    #[error("too many files are waiting to be sent")]
    Full,
    /// The disk failed.
    #[error("the file could not be kept")]
    Io(#[from] io::Error),
}

/// The folder. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Spool(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    used: AtomicU64,
    max_bytes: u64,
    max_file_bytes: u64,
}

impl Spool {
    /// Opens the folder, which is made when there is none; answers the files that an earlier process has left. Blocks.
    pub(crate) fn open(dir: &Path, max_bytes: u64, max_file_bytes: u64) -> io::Result<(Self, Vec<FileId>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let (mut left, mut used) = (vec![], 0);
        for entry in dir.read_dir()? {
            let entry = entry?;
            if let Some(id) = entry.file_name().to_str().and_then(id_of) {
                used += entry.metadata()?.len();
                left.push(id);
            }
        }
        let used = AtomicU64::new(used);
        Ok((Self(Arc::new(Shared { dir: dir.to_owned(), used, max_bytes, max_file_bytes })), left))
    }

    /// The largest file that is taken.
    pub(crate) fn max_file_bytes(&self) -> u64 {
        self.0.max_file_bytes
    }

    /// A file to write what comes in to.
    pub(crate) fn draft(&self) -> Result<Draft, SpoolError> {
        let path = self.0.dir.join(format!("{}.draft", hex::encode(fresh_id())));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        let reader = file.try_clone()?;
        let writer = tokio::io::BufWriter::with_capacity(BUFFER_BYTES, tokio::fs::File::from_std(file));
        Ok(Draft { writer, reader, hash: Sha256::new(), taken: Taken { spool: self.clone(), bytes: 0 } })
    }

    /// Makes a durable file of what `write` writes. Blocks.
    pub(crate) fn seal<T, E: From<SpoolError>>(
        &self,
        length: u64,
        write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
    ) -> Result<(Spooled, T), E> {
        let mut taken = Taken { spool: self.clone(), bytes: 0 };
        taken.grow(length)?;
        let id = fresh_id();
        let io = |error: io::Error| E::from(SpoolError::from(error));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path(&id)).map_err(io)?;
        // From here on the file goes when something fails.
        let spooled = Spooled { id, taken: Some(taken) };
        let mut writer = io::BufWriter::with_capacity(BUFFER_BYTES, file);
        let made = write(&mut writer)?;
        let file = writer.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(io)?;
        File::open(&self.0.dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        Ok((spooled, made))
    }

    /// Where a sealed file is.
    pub(crate) fn path(&self, id: &FileId) -> PathBuf {
        self.0.dir.join(format!("{}{SUFFIX}", hex::encode(id)))
    }

    /// Removes a sealed file; nothing happens when it is not there. Blocks for as long as the disk takes.
    pub(crate) fn remove(&self, id: &FileId) {
        let path = self.path(id);
        let length = std::fs::metadata(&path).map_or(0, |file| file.len());
        match std::fs::remove_file(&path) {
            Ok(()) => self.release(length),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "a file that was sent could not be removed"),
        }
    }

    fn release(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.0.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }
}

/// Room that is taken in the spool; given back when dropped.
struct Taken {
    spool: Spool,
    bytes: u64,
}

impl Taken {
    fn grow(&mut self, bytes: u64) -> Result<(), SpoolError> {
        let shared = &self.spool.0;
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= shared.max_bytes);
        shared.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).map_err(|_| SpoolError::Full)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.spool.release(self.bytes);
    }
}

/// A file that comes in.
pub(crate) struct Draft {
    writer: tokio::io::BufWriter<tokio::fs::File>,
    reader: File,
    hash: Sha256,
    taken: Taken,
}

impl Draft {
    /// Adds bytes at the end.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let (more, limit) = (bytes.len() as u64, self.taken.spool.max_file_bytes());
        if self.taken.bytes + more > limit {
            return Err(SpoolError::TooLarge(limit));
        }
        self.taken.grow(more)?;
        self.hash.update(bytes);
        Ok(self.writer.write_all(bytes).await?)
    }

    /// The whole file.
    pub(crate) async fn finish(mut self) -> Result<Plain, SpoolError> {
        self.writer.flush().await?;
        let (length, sha256) = (self.taken.bytes, self.hash.finalize().into());
        Ok(Plain { file: self.reader, length, sha256, _taken: self.taken })
    }
}

/// A file that has come in. It has no name and is gone when dropped.
pub(crate) struct Plain {
    /// The file; where it is read next is anywhere.
    pub file: File,
    /// Its length in bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    _taken: Taken,
}

/// A sealed file. Removed when dropped, unless it was told to stay.
pub(crate) struct Spooled {
    id: FileId,
    taken: Option<Taken>,
}

impl Spooled {
    /// Its name.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// It stays until [`Spool::remove`]: a stored message refers to it.
    pub(crate) fn stay(mut self) {
        if let Some(mut taken) = self.taken.take() {
            // The room is given back when the file is removed.
            taken.bytes = 0;
        }
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        if let Some(taken) = &mut self.taken {
            let path = taken.spool.path(&self.id);
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(%error, "a file that was not accepted could not be removed");
            }
        }
    }
}

impl fmt::Debug for Spooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spooled").field(&hex::encode(self.id)).finish()
    }
}

fn fresh_id() -> FileId {
    rand::rng().random()
}

fn id_of(name: &str) -> Option<FileId> {
    let mut id = FileId::default();
    hex::decode_to_slice(name.strip_suffix(SUFFIX)?, &mut id).ok()?;
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    fn used(spool: &Spool) -> u64 {
        spool.0.used.load(Ordering::Acquire)
    }

    fn seal(spool: &Spool, bytes: &[u8]) -> Result<Spooled, SpoolError> {
        spool.seal(bytes.len() as u64, |writer| Ok(writer.write_all(bytes)?)).map(|(file, ())| file)
    }

    #[tokio::test]
    async fn a_draft_leaves_nothing_and_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, left) = Spool::open(dir.path(), 10, 8).unwrap();
        assert!(left.is_empty());
        let mut draft = spool.draft().unwrap();
        draft.write(b"12345").await.unwrap();
        assert!(matches!(draft.write(b"6789").await, Err(SpoolError::TooLarge(8))));
        let mut other = spool.draft().unwrap();
        assert!(matches!(other.write(b"123456").await, Err(SpoolError::Full)));
        let mut plain = draft.finish().await.unwrap();
        assert_eq!((plain.length, plain.sha256), (5, Sha256::digest(b"12345").into()));
        let mut text = String::new();
        plain.file.rewind().unwrap();
        plain.file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), used(&spool)), ("12345", 5));
        assert_eq!(dir.path().read_dir().unwrap().count(), 0, "no name");
        drop((plain, other));
        assert_eq!(used(&spool), 0);
    }

    #[test]
    fn a_sealed_file_stays_only_when_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(dir.path(), 10, 10).unwrap();
        let refused = seal(&spool, b"123456").unwrap();
        assert!(matches!(seal(&spool, b"123456"), Err(SpoolError::Full)));
        let path = spool.path(&refused.id());
        assert_eq!(std::fs::read(&path).unwrap(), b"123456");
        drop(refused);
        assert!(!path.exists() && used(&spool) == 0);
        let failed: Result<(Spooled, ()), SpoolError> = spool.seal(3, |_| Err(SpoolError::Full));
        assert!(failed.is_err() && used(&spool) == 0 && dir.path().read_dir().unwrap().count() == 0);

        let kept = seal(&spool, b"abc").unwrap();
        let id = kept.id();
        kept.stay();
        assert_eq!(used(&spool), 3);
        let (spool, left) = Spool::open(dir.path(), 10, 10).unwrap();
        assert_eq!((left, used(&spool)), (vec![id], 3), "as the next process finds it");
        spool.remove(&id);
        spool.remove(&id);
        assert_eq!(used(&spool), 0);
        assert!(!spool.path(&id).exists());
    }
}
