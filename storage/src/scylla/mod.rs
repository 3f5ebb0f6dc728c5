//! The CQL engine: the same stores in the tables of ScyllaDB or Apache Cassandra.
//!
//! [`open`] is the entry. The stores themselves are those of [`crate::embedded`]: they name what they read and write by
//! table and key. Below them: `place` says in which table and partition a row is, `rows` reads, `commit` writes,
//! `operations` runs an operation alone in its session; `keys` and `owners` are this engine's own, the one because it
//! is on the path of every message, the other because it needs conditional statements, as `nodes` does. All of them go through
//! `client`, which holds the driver and its settings; `schema` makes the tables.
//!
//! Invariants: what belongs to a session is written with a `stamp::Stamp` of the session's [`crate::Fence`] as its
//! timestamp, so that no clock is trusted and a late write of an old owner loses against every write of the next one.
//! Conditional statements are used for claims and for the nodes of the cluster alone. Statements are prepared; a batch is in one partition. A database
//! that does not answer is [`crate::StoreError::Unavailable`] or, when the outcome of a write is not known,
//! [`crate::StoreError::Engine`]: never a row that is not there.

mod backwards;
mod claim;
mod client;
mod commit;
#[cfg(test)]
mod cost_tests;
mod engine;
mod keys;
mod nodes;
mod operations;
mod options;
mod owners;
mod place;
mod range;
mod remove;
mod rows;
mod schema;
mod seal;
mod stamp;
mod statements;
mod tls;
mod windows;

pub(crate) use operations::Operations;
pub use options::{OpenError, Options, Password, Tls};
pub(crate) use rows::Rows;

use crate::{
    Gate, Stores,
    embedded::{Embedded, engines::Handle},
    encryption::EncryptedKeys,
    fence::always_open,
};
use std::sync::Arc;

/// Connects to the server, looks that the keyspace and its tables are there (or makes them, when `options.migrate` says
/// so) and answers the stores in them. Needs a tokio runtime with several threads.
pub async fn open(options: &Options) -> Result<Stores, OpenError> {
    open_with_gate(options, always_open()).await
}

/// The same, for a node that may not always act.
pub async fn open_with_gate(options: &Options, gate: Arc<dyn Gate>) -> Result<Stores, OpenError> {
    let client = client::Client::connect(options).await?;
    schema::prepare(&client, options).await?;
    client.look_around(options).await;
    let operations = Operations::new(client, gate);
    let own = Arc::new(operations.clone());
    let store = Arc::new(Embedded(Handle::Cql(operations)));
    Ok(Stores {
        tokens: store.clone(),
        sessions: store.clone(),
        owners: own.clone(),
        keys: EncryptedKeys::over(own.clone(), options.encryption.clone()),
        outbox: store.clone(),
        history: store.clone(),
        contacts: store.clone(),
        chats: store.clone(),
        syncs: store.clone(),
        words: store,
        nodes: own.clone(),
        engine: own,
    })
}

/// The tables of what belongs to sessions, which are written with timestamps of owners alone; and whether what a new
/// owner has loaded from it can change no more.
#[cfg(feature = "conformance")]
pub fn fenced_tables() -> Vec<(&'static str, bool)> {
    let fenced = statements::Stored::ALL.into_iter().filter(|stored| stored.is_fenced());
    fenced.map(|stored| (stored.name(), seal::sealed().any(|sealed| sealed == stored))).collect()
}

/// Makes the keyspace and its tables, or brings them to the form that this version needs; answers how many steps that
/// took. Several processes may do it at once.
pub async fn migrate(options: &Options) -> Result<usize, OpenError> {
    let client = client::Client::connect(options).await?;
    schema::migrate(&client, options).await
}
