//! The configuration: defaults, a file, the environment and arguments, in this order.
//!
//! `config.default.toml` is the only place where defaults are written. Whatever is unknown or not valid stops
//! the start with one line that names it.

mod cluster;

pub(crate) use cluster::ClusterConfig;

use crate::{fetch::AllowList, media::Location};
use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Env, Format, Toml},
    util::nest,
    value::{Dict, Map, Value},
};
use rookery_protocol::NodeId;
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

/// The documented defaults.
pub(crate) const DEFAULTS: &str = include_str!("config.default.toml");

/// Environment variables that are no settings.
const OTHER_VARIABLES: [&str; 5] = ["config", "seed", "test_cql", "test_storage", "bench"];

/// The whole configuration; `config.default.toml` says what each value means.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub node: NodeConfig,
    pub storage: StorageConfig,
    pub cql: CqlConfig,
    pub cluster: ClusterConfig,
    pub api: ApiConfig,
    pub metrics: MetricsConfig,
    pub whatsapp: WhatsappConfig,
    pub sessions: SessionsConfig,
    pub sends: SendsConfig,
    pub media: MediaConfig,
    pub media_store: MediaStoreConfig,
    pub log: LogConfig,
}

/// `[node]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeConfig {
    pub id: NodeId,
    pub data_dir: PathBuf,
    pub shutdown_timeout_ms: u64,
    pub drain_delay_ms: u64,
}

/// `[storage]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StorageConfig {
    pub engine: StorageEngine,
    pub encryption_keys_file: PathBuf,
}

/// What keeps the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StorageEngine {
    /// A database in the data directory.
    Embedded,
    /// A CQL server.
    Cql,
}

/// `[cql]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CqlConfig {
    pub contact_points: Vec<String>,
    pub keyspace: String,
    pub datacenter: String,
    pub user: String,
    pub password_file: PathBuf,
    pub ca_file: PathBuf,
    pub client_certificate_file: PathBuf,
    pub client_key_file: PathBuf,
    pub replication_factor: u16,
    pub migrate: bool,
    pub concurrency: usize,
}

/// `[api]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiConfig {
    pub listen: SocketAddr,
    pub admin_key: Secret,
    pub open_token_management: bool,
    pub max_body_bytes: usize,
    pub max_connections: usize,
    pub max_requests: usize,
    pub read_timeout_ms: u64,
    pub request_timeout_ms: u64,
}

/// `[metrics]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MetricsConfig {
    pub enabled: bool,
    pub listen: String,
    pub token: Secret,
}

/// `[whatsapp]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhatsappConfig {
    pub url: String,
    pub version: String,
    pub device_name: String,
    pub prekeys: usize,
}

/// `[sessions]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionsConfig {
    pub login_burst: u32,
    pub logins_per_second: f64,
    pub logins_under_way: usize,
    pub pairings_per_second: f64,
    pub per_user_limit: usize,
    pub pairing_rounds: u32,
    pub replaced_retry_ms: u64,
    pub replaced_window_ms: u64,
    pub restart_min_ms: u64,
    pub restart_max_ms: u64,
}

/// `[sends]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SendsConfig {
    pub queue_limit: usize,
    pub per_second: f64,
    pub burst: u32,
    pub wait_ms: u64,
}

/// `[media]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MediaConfig {
    pub max_bytes: u64,
    pub spool_max_bytes: u64,
    pub cache_max_bytes: u64,
    pub concurrent: usize,
    pub transfer_timeout_ms: u64,
    pub phone_timeout_ms: u64,
    pub allow_hosts: Vec<String>,
    pub extra_roots: PathBuf,
}

/// `[media_store]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MediaStoreConfig {
    pub enabled: bool,
    pub url: String,
    pub on_arrival: bool,
    pub on_arrival_max_bytes: u64,
    pub retention_secs: u64,
    pub max_bytes: u64,
    pub sweep_secs: u64,
    pub s3_endpoint: String,
    pub s3_region: String,
    pub s3_access_key_id_file: PathBuf,
    pub s3_secret_access_key_file: PathBuf,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogConfig {
    pub format: LogFormat,
    pub filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// A configured secret; never shown.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// The secret, if one is set.
    pub(crate) fn get(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(self.0.as_str())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

/// What is wrong with the configuration, in one line.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub(crate) struct ConfigError(String);

impl ConfigError {
    /// What is wrong with which key.
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

/// Values that arguments set, in the place of configured ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// A file over the defaults.
    pub file: Option<PathBuf>,
    /// `(section.key, value)` pairs over everything else.
    pub values: Vec<(&'static str, String)>,
}

impl Config {
    /// Reads the configuration of this process.
    pub(crate) fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(file) = &overrides.file {
            if !file.is_file() {
                return Err(ConfigError(format!("{}: no such file", file.display())));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        let mut names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
        if let Some(name) = names.find(|name| is_misspelt(name)) {
            return Err(ConfigError(format!("{name}: settings are named ROOKERY_<SECTION>__<KEY>")));
        }
        figment = over_by_environment(&figment);
        for (key, value) in &overrides.values {
            let (origin, key, value) = ("argument".to_owned(), (*key).to_owned(), Value::from(value.clone()));
            figment = figment.merge(Setting { origin, key, value });
        }
        let config: Self = figment.extract().map_err(|error| ConfigError(one_line(&error)))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let fail = |key: &str, problem: &str| Err(ConfigError(format!("{key}: {problem}")));
        if self.api.admin_key.get().is_some_and(|key| key.len() < 16) {
            return fail("api.admin_key", "must have at least 16 characters");
        }
        if self.api.open_token_management && !self.api.listen.ip().is_loopback() {
            return fail("api.open_token_management", "allowed only while api.listen is a loopback address");
        }
        if !(1024..=64 << 20).contains(&self.api.max_body_bytes) {
            return fail("api.max_body_bytes", "must be 1024 to 67108864");
        }
        if self.api.max_connections == 0 || self.api.max_requests == 0 {
            return fail("api.max_connections and api.max_requests", "must be at least 1");
        }
        if self.api.request_timeout_ms < 1000 || self.api.read_timeout_ms < 100 {
            return fail("api.request_timeout_ms, api.read_timeout_ms", "must be at least 1000 and 100");
        }
        self.metrics_listen()?;
        if let Err(error) = crate::session::check_endpoint(&self.whatsapp.url) {
            return fail("whatsapp.url", &error.to_string());
        }
        self.whatsapp_version()?;
        if !(5..=812).contains(&self.whatsapp.prekeys) {
            return fail("whatsapp.prekeys", "must be 5 to 812");
        }
        for (key, rate) in [
            ("sessions.logins_per_second", self.sessions.logins_per_second),
            ("sessions.pairings_per_second", self.sessions.pairings_per_second),
            ("sends.per_second", self.sends.per_second),
        ] {
            if rate <= 0.0 || !rate.is_finite() {
                return fail(key, "must be above 0");
            }
        }
        if self.node.drain_delay_ms > 60_000 {
            return fail("node.drain_delay_ms", "must be at most 60000");
        }
        if self.sessions.per_user_limit == 0 {
            return fail("sessions.per_user_limit", "must be at least 1");
        }
        if self.sessions.login_burst == 0 || self.sessions.logins_under_way == 0 || self.sessions.pairing_rounds == 0 {
            return fail("sessions.login_burst, logins_under_way and pairing_rounds", "must be at least 1");
        }
        if self.sessions.logins_under_way > 100_000 {
            return fail("sessions.logins_under_way", "must be at most 100000");
        }
        if self.sends.queue_limit == 0 || self.sends.wait_ms > 60_000 {
            return fail("sends.queue_limit, sends.wait_ms", "must be at least 1, and at most 60000");
        }
        if self.sends.burst == 0 {
            return fail("sends.burst", "must be at least 1");
        }
        self.check_cql()?;
        self.cluster.check(self)?;
        self.check_media()
    }

    fn check_cql(&self) -> Result<(), ConfigError> {
        let fail = |key: &str, problem: &str| Err(ConfigError(format!("{key}: {problem}")));
        if self.storage.engine != StorageEngine::Cql {
            return Ok(());
        }
        if self.cql.contact_points.is_empty() {
            return fail("cql.contact_points", "must name a node of the database");
        }
        if self.cql.user.is_empty() != self.cql.password_file.as_os_str().is_empty() {
            return fail("cql.user, cql.password_file", "need each other");
        }
        let identity = [&self.cql.client_certificate_file, &self.cql.client_key_file];
        match identity.iter().filter(|file| file.as_os_str().is_empty()).count() {
            0 if self.cql.ca_file.as_os_str().is_empty() => {
                return fail("cql.client_certificate_file, cql.client_key_file", "need cql.ca_file");
            }
            1 => return fail("cql.client_certificate_file, cql.client_key_file", "need each other"),
            _ => {}
        }
        if self.cql.replication_factor == 0 || self.cql.concurrency == 0 {
            return fail("cql.replication_factor, cql.concurrency", "must be at least 1");
        }
        Ok(())
    }

    fn check_media(&self) -> Result<(), ConfigError> {
        let fail = |key: &str, problem: &str| Err(ConfigError(format!("{key}: {problem}")));
        if !(1024..=2 << 30).contains(&self.media.max_bytes) {
            return fail("media.max_bytes", "must be 1024 to 2147483648");
        }
        if self.media.spool_max_bytes < 2 * self.media.max_bytes {
            return fail("media.spool_max_bytes", "must be at least twice media.max_bytes");
        }
        if !(1..=1024).contains(&self.media.concurrent) {
            return fail("media.concurrent", "must be 1 to 1024");
        }
        if self.media.transfer_timeout_ms < 100 {
            return fail("media.transfer_timeout_ms", "must be at least 100");
        }
        if !(100..=30_000).contains(&self.media.phone_timeout_ms) {
            return fail("media.phone_timeout_ms", "must be 100 to 30000");
        }
        self.check_media_store()?;
        self.allowed_hosts().map(drop)
    }

    fn check_media_store(&self) -> Result<(), ConfigError> {
        let fail = |key: &str, problem: &str| Err(ConfigError(format!("media_store.{key}: {problem}")));
        let store = &self.media_store;
        if let Err(problem) = Location::parse(&store.url) {
            return fail("url", problem);
        }
        if store.retention_secs == 0 || store.sweep_secs == 0 {
            return fail("retention_secs, media_store.sweep_secs", "must be at least 1");
        }
        let key_files = [&store.s3_access_key_id_file, &store.s3_secret_access_key_file];
        if key_files.iter().filter(|file| file.as_os_str().is_empty()).count() == 1 {
            return fail("s3_access_key_id_file, media_store.s3_secret_access_key_file", "must be given together");
        }
        if !(store.s3_endpoint.is_empty()
            || store.s3_endpoint.starts_with("http://")
            || store.s3_endpoint.starts_with("https://"))
        {
            return fail("s3_endpoint", "must begin with http:// or https://");
        }
        Ok(())
    }

    /// The hosts that may be fetched from although their addresses are not public.
    pub(crate) fn allowed_hosts(&self) -> Result<AllowList, ConfigError> {
        let wrong = |entry| ConfigError(format!("media.allow_hosts: {entry:?} is no host and no host:port"));
        AllowList::parse(&self.media.allow_hosts).map_err(wrong)
    }

    /// The address of its own that `/metrics` has, if any.
    pub(crate) fn metrics_listen(&self) -> Result<Option<SocketAddr>, ConfigError> {
        match self.metrics.listen.as_str() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| ConfigError(format!("metrics.listen: {text:?} is no address"))),
        }
    }

    /// The version of WhatsApp Web to claim, if one is set.
    pub(crate) fn whatsapp_version(&self) -> Result<Option<(u32, u32, u32)>, ConfigError> {
        let text = self.whatsapp.version.as_str();
        if text.is_empty() {
            return Ok(None);
        }
        let parts: Vec<u32> = text.split('.').map_while(|part| part.parse().ok()).collect();
        match parts[..] {
            [a, b, c] if text.split('.').count() == 3 => Ok(Some((a, b, c))),
            _ => Err(ConfigError("whatsapp.version: must be three numbers, as in 2.3000.1023456789".into())),
        }
    }

    /// How long a stop may take.
    pub(crate) fn shutdown_timeout(&self) -> Duration {
        Duration::from_millis(self.node.shutdown_timeout_ms)
    }
}

/// A value from somewhere that is no file.
struct Setting {
    origin: String,
    key: String,
    value: Value,
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone()).interpolater(|_, keys| keys.join("."))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = nest(&self.key, self.value.clone()).into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(nested))
    }
}

/// Lays the environment over what is configured. A variable is read as a number or a truth value only where the
/// default is no text: a key of digits alone is still a key.
fn over_by_environment(defaults: &Figment) -> Figment {
    let variables = Env::prefixed("ROOKERY_").filter(|key| key.as_str().contains("__")).split("__");
    let mut figment = defaults.clone();
    for (key, text) in variables.iter() {
        let key = key.into_string();
        let origin = format!("environment variable ROOKERY_{}", key.to_ascii_uppercase().replace('.', "__"));
        let is_text = matches!(defaults.find_value(&key), Ok(Value::String(..)));
        let value = if is_text { Value::from(text) } else { parsed(&text) };
        figment = figment.merge(Setting { origin, key, value });
    }
    figment
}

/// A text as TOML would read it.
fn parsed(text: &str) -> Value {
    match text.parse::<Value>() {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

fn is_misspelt(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("ROOKERY_") else { return false };
    let rest = rest.to_ascii_lowercase();
    let named = rest.contains("__") && rest.split("__").all(|part| !part.is_empty());
    !named && !OTHER_VARIABLES.contains(&rest.as_str())
}

fn one_line(error: &figment::Error) -> String {
    error.to_string().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_form_shows_no_secret() {
        let shown = format!("{:?}", Secret("correct horse battery staple".into()));
        assert_eq!(shown, "***");
    }

    #[test]
    fn variables_without_a_section_are_noticed() {
        for name in ["ROOKERY_LISTEN", "ROOKERY_API__", "ROOKERY___LISTEN", "ROOKERY_"] {
            assert!(is_misspelt(name), "{name}");
        }
        for name in ["ROOKERY_API__LISTEN", "ROOKERY_SEED", "ROOKERY_CONFIG", "PATH"] {
            assert!(!is_misspelt(name), "{name}");
        }
    }
}
