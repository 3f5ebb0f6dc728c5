//! The embedded engine is what the traits promise.

use super::support;
use anyhow::Result;
use async_trait::async_trait;
use rookery_storage::{
    Gate, Stores,
    conformance::{Factory, run_all},
    embedded::{self, Options},
};
use std::sync::Arc;
use tempfile::TempDir;

struct Embedded(TempDir);

#[async_trait]
impl Factory for Embedded {
    async fn open_with_gate(&self, place: &str, gate: Arc<dyn Gate>) -> Result<Stores> {
        let options = Options::new(self.0.path().join(place));
        Ok(embedded::open_with_gate(options, gate).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_conforms() -> Result<()> {
    run_all(&Embedded(tempfile::tempdir()?), support::seed(), 64).await
}
