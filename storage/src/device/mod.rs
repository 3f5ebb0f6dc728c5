//! The WhatsApp library's storage of one device, over the key store of any engine.
//!
//! What the library asks for is split by its five traits: `signal`, `app_sync`, `protocol`, `secrets`
//! and `record`. Nothing is cached: the library caches what it uses, and a node has thousands of these.
//!
//! Invariants: a write is durable when it returns. What is read and then written is atomic within the session,
//! since all its writers are here: a write that depends on what it read runs alone, and plain writes run side
//! by side, so that they share a flush. No write is begun, and none is reported as done, while the engine's gate is shut.

mod app_sync;
mod encoding;
mod keys;
mod protocol;
mod record;
mod secrets;
mod signal;
mod timed;

use crate::{Fence, KeyKind, KeyOp, KeyStore, StoreError};
use bytes::Bytes;
use std::{fmt, sync::Arc};
use tokio::sync::{Mutex, RwLock};
use wacore::store::error::{Result, StoreError as LibraryError};

/// The storage of one device: implements [`wacore::store::traits::Backend`].
pub struct DeviceBackend {
    keys: Arc<dyn KeyStore>,
    fence: Fence,
    /// Shared by plain writes; held alone by a write that depends on what it read.
    order: RwLock<()>,
    /// The same for the secrets of messages, which are merged with every message and mixed with nothing else.
    secrets: Mutex<()>,
    /// How often the messages that were sent are looked through for old ones.
    sent_sweep: timed::Pace,
}

impl DeviceBackend {
    /// The device of the session that `fence` lets us write.
    pub fn new(keys: Arc<dyn KeyStore>, fence: Fence) -> Self {
        Self { keys, fence, order: RwLock::new(()), secrets: Mutex::new(()), sent_sweep: timed::Pace::default() }
    }

    async fn get(&self, kind: KeyKind, key: &[u8]) -> Result<Option<Bytes>> {
        self.keys.get(self.fence.session(), kind, key).await.map_err(library_error)
    }

    async fn get_many(&self, kind: KeyKind, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.keys.get_many(self.fence.session(), kind, keys).await.map_err(library_error)
    }

    async fn scan(&self, kind: KeyKind, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>> {
        self.keys.scan(self.fence.session(), kind, prefix).await.map_err(library_error)
    }

    /// Writes what does not depend on what is there.
    async fn write(&self, ops: Vec<KeyOp>) -> Result<()> {
        let _shared = self.order.read().await;
        self.apply(ops).await
    }

    async fn apply(&self, ops: Vec<KeyOp>) -> Result<()> {
        if ops.is_empty() {
            return Ok(());
        }
        self.keys.write(&self.fence, ops).await.map_err(library_error)
    }
}

impl fmt::Debug for DeviceBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceBackend").field(&self.fence).finish()
    }
}

fn library_error(error: StoreError) -> LibraryError {
    match error {
        StoreError::Corrupt { .. } => LibraryError::Serialization(Box::new(error)),
        _ => LibraryError::Database(Box::new(error)),
    }
}

fn put(kind: KeyKind, key: impl Into<Bytes>, value: impl Into<Bytes>) -> KeyOp {
    KeyOp::Put { kind, key: key.into(), value: value.into() }
}

fn delete(kind: KeyKind, key: impl Into<Bytes>) -> KeyOp {
    KeyOp::Delete { kind, key: key.into() }
}

/// Text as it is in a key or a value.
fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A number as it is in a key: in the order of numbers.
fn number(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_small() {
        assert!(size_of::<DeviceBackend>() <= 256, "{}", size_of::<DeviceBackend>());
    }

    #[test]
    fn a_backend_is_all_that_the_library_asks_for() {
        fn is_backend<T: wacore::store::traits::Backend>() {}
        is_backend::<DeviceBackend>();
    }
}
