//! The embedded engine: all stores in one database in one directory, for a node on its own.
//!
//! [`open`] is the entry. Below it: `directory` says whose the directory is, `clean` whether its journals are as
//! they were left, `database` opens it, one `writer` thread runs every write as a `transaction` and flushes many at a time, and there is a file a
//! store. What `tables` says is where everything is.
//!
//! Invariants: a write is on disk before it is answered and before anybody reads it; operations take effect one
//! after the other; what a process killed at any moment had been told is there at the next start.

mod chats;
mod clean;
pub(crate) mod codec;
mod contacts;
pub(crate) mod database;
mod directory;
mod early;
mod engine;
pub(crate) mod engines;
mod handle;
mod history;
mod keys;
mod nodes;
mod options;
mod outbox;
mod owners;
mod recent;
mod sessions;
mod sync;
mod tokens;
pub(crate) mod transaction;
mod words;
mod writer;

pub use options::{OpenError, Options};

pub(crate) use owners::OWNERS_AT_ONCE;

use crate::{
    Stores,
    encryption::EncryptedKeys,
    fence::{Gate, always_open},
};
use engines::Handle;
use handle::Local;
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// Opens the data directory, or makes a new store in it when it is empty.
///
/// The directory is locked until [`crate::Engine::close`] or until the process ends. Needs a tokio runtime.
pub async fn open(options: Options) -> Result<Stores, OpenError> {
    open_with_gate(options, always_open()).await
}

/// The same, for a node that may not always act.
pub async fn open_with_gate(options: Options, gate: Arc<dyn Gate>) -> Result<Stores, OpenError> {
    let (dir, encryption) = (options.data_dir.clone(), options.encryption.clone());
    let handle = spawn_blocking(move || Local::open(&options, gate)).await.unwrap_or_else(|panic| {
        // The engine has assertions about its files.
        Err(OpenError::Corrupt { dir, detail: format!("the engine does not understand its files: {panic}") })
    })?;
    let store = Arc::new(Embedded(Handle::Local(handle)));
    Ok(Stores {
        tokens: store.clone(),
        sessions: store.clone(),
        owners: store.clone(),
        keys: EncryptedKeys::over(store.clone(), encryption),
        outbox: store.clone(),
        history: store.clone(),
        contacts: store.clone(),
        chats: store.clone(),
        syncs: store.clone(),
        words: store.clone(),
        nodes: store.clone(),
        engine: store,
    })
}

/// All stores, over either engine.
pub(crate) struct Embedded(pub(crate) Handle);
