//! The embedded engine is what the traits promise.

use super::support;
use anyhow::Result;
use async_trait::async_trait;
use rookery_storage::{
    Stores,
    conformance::{Factory, run_all},
};
use tempfile::TempDir;

struct Embedded(TempDir);

#[async_trait]
impl Factory for Embedded {
    async fn open(&self, place: &str) -> Result<Stores> {
        Ok(support::open(&self.0.path().join(place)).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_conforms() -> Result<()> {
    run_all(&Embedded(tempfile::tempdir()?), support::seed(), 64).await
}
