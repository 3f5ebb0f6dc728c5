//! What several tests need.

use rookery_storage::{
    ENCRYPTION_KEY_BYTES, EncryptionKeys, EncryptionKeysError, Stores,
    embedded::{self, OpenError, Options},
};
use std::path::Path;

/// The seed of this run: `ROOKERY_SEED`, or a fresh one; printed, so that a failure can be repeated.
pub(super) fn seed() -> u64 {
    let seed = std::env::var("ROOKERY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("ROOKERY_SEED={seed}");
    seed
}

/// Opens the embedded engine in this directory.
pub(super) async fn open(dir: &Path) -> Result<Stores, OpenError> {
    embedded::open(Options::new(dir)).await
}

/// Keys with these ids to encrypt with.
pub(super) fn encryption_keys(ids: &[&str]) -> Result<EncryptionKeys, EncryptionKeysError> {
    let key = |id: &&str| ((*id).to_owned(), [id.as_bytes()[0]; ENCRYPTION_KEY_BYTES]);
    EncryptionKeys::new(ids.iter().map(key).collect())
}
