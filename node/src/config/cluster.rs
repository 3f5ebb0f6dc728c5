//! `[cluster]`: the node among others.

use super::{Config, ConfigError, StorageEngine};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};

/// `[cluster]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterConfig {
    pub listen: String,
    pub advertise: String,
    pub advertise_api: String,
    pub ca_file: PathBuf,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub insecure: bool,
    pub weight: u16,
    pub max_sessions: usize,
    pub renew_ms: u64,
    pub lease_ms: u64,
    pub dead_after_ms: u64,
    pub fast_death: bool,
    pub idle_ms: u64,
    pub moves_under_way: usize,
    pub moves_per_second: f64,
}

impl ClusterConfig {
    /// Where this node listens for others; none when it is alone.
    pub(crate) fn listen(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }

    /// Refuses what cannot work.
    pub(super) fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let fail = |key: &str, problem: &str| Err(ConfigError::new(format!("cluster.{key}: {problem}")));
        if self.listen.is_empty() {
            return Ok(());
        }
        let Some(listen) = self.listen() else {
            return fail("listen", &format!("{:?} is no address with a port", self.listen));
        };
        if config.storage.engine != StorageEngine::Cql {
            return fail("listen", "a cluster needs storage.engine = \"cql\": the embedded database is of one node alone");
        }
        if self.advertise.is_empty() && listen.ip().is_unspecified() {
            return fail("advertise", "must say where others reach this node, since cluster.listen is no single address");
        }
        for (key, address) in [("advertise", &self.advertise), ("advertise_api", &self.advertise_api)] {
            if !address.is_empty() && !is_host_and_port(address) {
                return fail(key, "must be host:port");
            }
        }
        let files = [&self.ca_file, &self.cert_file, &self.key_file];
        let given = files.iter().filter(|file| !file.as_os_str().is_empty()).count();
        if self.insecure {
            if given > 0 {
                return fail("insecure", "must not be given together with certificates");
            }
            if !listen.ip().is_loopback() {
                return fail("insecure", "allowed only while cluster.listen is a loopback address");
            }
        } else if given < files.len() {
            return fail("ca_file, cluster.cert_file, cluster.key_file", "are needed; `rookery certs` makes them");
        }
        if !(1..=1000).contains(&self.weight) {
            return fail("weight", "must be 1 to 1000");
        }
        if self.moves_under_way == 0 || !(self.moves_per_second > 0.0 && self.moves_per_second.is_finite()) {
            return fail("moves_under_way, cluster.moves_per_second", "must be above 0");
        }
        Ok(())
    }
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}
