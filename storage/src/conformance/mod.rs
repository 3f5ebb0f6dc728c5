//! The suite that every engine passes: what the traits promise, case by case and at random.
//!
//! An engine's test calls [`run_all`] with a [`Factory`] that opens it. The random part compares the engine with
//! a plain model of all stores, and a device over the engine with the library's own store in memory; it closes
//! and opens the engine on the way. It prints its seed.
//!
//! Everything is made under fresh ids, so that cases may share a place and leave their data behind.

mod chats;
mod contacts;
mod device;
mod device_model;
mod driver;
mod gate;
mod history;
mod keys;
mod marks;
mod model;
mod model_peers;
mod nodes;
mod outbox;
mod owners;
mod sample;
mod sessions;
mod steps;
mod sync;
mod tokens;
mod words;

use crate::{Gate, Stores, fence::always_open};
use anyhow::{Context, Result};
use async_trait::async_trait;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::sync::Arc;

/// Opens an engine.
#[async_trait]
pub trait Factory: Send + Sync {
    /// Opens the place with this name, with this gate. A new one is empty; one that was opened and closed before has its
    /// data.
    async fn open_with_gate(&self, place: &str, gate: Arc<dyn Gate>) -> Result<Stores>;

    /// The same, for one who may always act.
    async fn open(&self, place: &str) -> Result<Stores> {
        self.open_with_gate(place, always_open()).await
    }
}

/// Runs everything; panics or answers an error at the first difference. Needs a runtime with several threads.
///
/// `cases` is how many random histories of each sort are tried.
pub async fn run_all(factory: &dyn Factory, seed: u64, cases: u32) -> Result<()> {
    let stores = factory.open("cases").await.context("open")?;
    tokens::run(&stores).await.context("tokens")?;
    sessions::run(&stores).await.context("sessions")?;
    owners::run(&stores).await.context("owners")?;
    nodes::run(&stores).await.context("nodes")?;
    keys::run(&stores).await.context("keys")?;
    outbox::run(&stores).await.context("outbox")?;
    history::run(&stores).await.context("history")?;
    contacts::run(&stores).await.context("contacts")?;
    chats::run(&stores).await.context("chats")?;
    sync::run(&stores).await.context("history sync")?;
    marks::run(&stores).await.context("marks")?;
    words::run(&stores, seed).await.context("words")?;
    device::run(&stores).await.context("device")?;
    engine(&stores).await.context("engine")?;
    gate::run(factory).await.context("gate")?;
    device_model::run(factory, seed, cases).await.context("devices at random")?;
    driver::run(factory, seed, cases).context("stores at random")
}

/// The probe works until the engine is closed, and closing twice does no harm.
async fn engine(stores: &Stores) -> Result<()> {
    assert!(!stores.engine.name().is_empty());
    stores.engine.probe().await?;
    stores.engine.close().await?;
    stores.engine.close().await?;
    assert!(matches!(stores.engine.probe().await, Err(crate::StoreError::Unavailable(_))));
    let read = stores.sessions.get(rookery_protocol::SessionId::generate()).await;
    assert!(matches!(read, Err(crate::StoreError::Unavailable(_))));
    Ok(())
}

/// A runner of random cases that is the same for the same seed.
fn runner(seed: u64, cases: u32) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 256, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}
