//! Which engine keeps the data, and how it is reached: from the configuration to open stores.

use crate::config::{Config, ConfigError, CqlConfig, StorageEngine};
use anyhow::Context;
use rookery_cluster::lease::Lease;
use rookery_storage::{
    EncryptionKeys, Stores, embedded,
    scylla::{self, Options, Password, Tls},
};
use std::{path::Path, sync::Arc};

/// Opens the configured engine. What belongs to sessions is written while `lease` is open; a node without a cluster has
/// no lease and may always write.
pub(crate) async fn open(config: &Config, lease: Option<&Lease>) -> anyhow::Result<Stores> {
    let encryption = encryption_keys(&config.storage.encryption_keys_file)?;
    match config.storage.engine {
        StorageEngine::Embedded => {
            let options = embedded::Options { encryption, ..embedded::Options::new(&config.node.data_dir) };
            Ok(embedded::open(options).await?)
        }
        StorageEngine::Cql => {
            let options = Options { encryption, ..options(&config.cql)? };
            match lease.cloned() {
                Some(lease) => Ok(scylla::open_with_gate(&options, Arc::new(move || lease.is_open())).await?),
                None => Ok(scylla::open(&options).await?),
            }
        }
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
            let password = read_text("cql.password_file", &config.password_file)?;
            Some((user, Password(password.trim_end_matches(['\r', '\n']).to_owned())))
        }
    };
    Ok(Options {
        datacenter: text(&config.datacenter),
        login,
        tls: tls(config)?,
        replication_factor: config.replication_factor,
        migrate: config.migrate,
        concurrency: config.concurrency,
        ..Options::new(config.contact_points.clone(), &config.keyspace)
    })
}

fn tls(config: &CqlConfig) -> anyhow::Result<Option<Tls>> {
    if config.ca_file.as_os_str().is_empty() {
        return Ok(None);
    }
    let authorities = read_text("cql.ca_file", &config.ca_file)?.into_bytes();
    let identity = if config.client_certificate_file.as_os_str().is_empty() {
        None
    } else {
        let certificate = read_text("cql.client_certificate_file", &config.client_certificate_file)?;
        let key = read_text("cql.client_key_file", &config.client_key_file)?;
        Some((certificate.into_bytes(), key.into_bytes()))
    };
    Ok(Some(Tls { authorities, identity }))
}

fn encryption_keys(file: &Path) -> anyhow::Result<EncryptionKeys> {
    if file.as_os_str().is_empty() {
        return Ok(EncryptionKeys::default());
    }
    let text = read_text("storage.encryption_keys_file", file)?;
    let keys = EncryptionKeys::parse(&text);
    keys.with_context(|| format!("storage.encryption_keys_file: {}", file.display()))
}

/// The text of a file that a setting names.
fn read_text(setting: &str, file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{setting}: {} cannot be read", file.display()))
}
