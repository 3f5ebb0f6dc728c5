//! What can be set, and what can go wrong at start.

use crate::EncryptionKeys;
use std::{io, path::PathBuf, time::Duration};

/// How to open the embedded engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory that holds the data and nothing else. Created when it does not exist.
    pub data_dir: PathBuf,
    /// How much decoded data is kept in memory, in bytes.
    pub cache_bytes: u64,
    /// How many writes may wait; more are refused as overload.
    pub queue: usize,
    /// How long a call may wait before its work begins; then it is refused as overload. Work that has begun is
    /// given as long again before its outcome is unknown.
    pub deadline: Duration,
    /// What key material is encrypted with.
    pub encryption: EncryptionKeys,
}

impl Options {
    /// The defaults for this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            cache_bytes: 32 * 1024 * 1024,
            queue: 4_096,
            deadline: Duration::from_secs(5),
            encryption: EncryptionKeys::default(),
        }
    }
}

/// Why the engine did not open. Nothing that was there has been changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("data directory {} is in use by another process", dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// There are files in it that are not ours.
    #[error("data directory {} holds no Rookery data, but is not empty (it has `{found}`); give an empty one", dir.display())]
    Foreign {
        /// The data directory.
        dir: PathBuf,
        /// The name of one of the files.
        found: String,
    },
    /// A newer version of Rookery wrote it.
    #[error("data directory {} has format {found}; this version of Rookery reads up to {supported}", dir.display())]
    Newer {
        /// The data directory.
        dir: PathBuf,
        /// The format that it has.
        found: u32,
        /// The newest format that this version reads.
        supported: u32,
    },
    /// What is stored cannot be read.
    #[error("data directory {} is damaged: {detail}; restore it from a backup", dir.display())]
    Corrupt {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The operating system refused: no such place, no permission, disk full.
    #[error("data directory {} cannot be used: failed to {action}", dir.display())]
    Io {
        /// The data directory.
        dir: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}
