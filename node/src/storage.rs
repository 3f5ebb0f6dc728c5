//! Which engine keeps the data, and how it is reached: from the configuration to open stores.

use crate::config::{Config, ConfigError, CqlConfig, StorageEngine};
use anyhow::Context;
use rookery_storage::{
    Stores, embedded,
    scylla::{self, Options, Password},
};

/// Opens the configured engine.
pub(crate) async fn open(config: &Config) -> anyhow::Result<Stores> {
    match config.storage.engine {
        StorageEngine::Embedded => Ok(embedded::open(embedded::Options::new(&config.node.data_dir)).await?),
        StorageEngine::Cql => Ok(scylla::open(&options(&config.cql)?).await?),
    }
}

/// Makes the tables of the configured CQL server, or brings them to this version's form.
pub(crate) async fn migrate(config: &Config) -> anyhow::Result<()> {
    if config.storage.engine != StorageEngine::Cql {
        anyhow::bail!(ConfigError::new("storage.engine: only \"cql\" has a schema to migrate"));
    }
    let applied = scylla::migrate(&options(&config.cql)?).await?;
    println!("keyspace {}: {applied} migrations applied", config.cql.keyspace);
    Ok(())
}

fn options(config: &CqlConfig) -> anyhow::Result<Options> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let login = match text(&config.user) {
        None => None,
        Some(user) => {
            let file = &config.password_file;
            let read = std::fs::read_to_string(file);
            let password = read.with_context(|| format!("cql.password_file: {} cannot be read", file.display()))?;
            Some((user, Password(password.trim_end_matches(['\r', '\n']).to_owned())))
        }
    };
    Ok(Options {
        datacenter: text(&config.datacenter),
        login,
        replication_factor: config.replication_factor,
        migrate: config.migrate,
        concurrency: config.concurrency,
        ..Options::new(config.contact_points.clone(), &config.keyspace)
    })
}
