//! What several tests need.

use rookery_storage::{
    Stores,
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
