//! `[cluster]`: the node among others.

use super::{Config, ConfigError, StorageEngine};
use rookery_cluster::timings::Timings;
use rookery_protocol::cluster::ClusterName;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// `[cluster]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterConfig {
    pub name: ClusterName,
    pub listen: String,
    pub advertise: String,
    pub advertise_api: String,
    pub ca_file: PathBuf,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub insecure: bool,
    pub weight: u16,
    pub max_sessions: u32,
    pub renew_ms: u64,
    pub lease_ms: u64,
    pub renew_timeout_ms: u64,
    pub observe_ms: u64,
    pub poll_ms: u64,
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

    /// How many sessions the node takes at most.
    pub(crate) fn capacity(&self) -> Option<u32> {
        (self.max_sessions > 0).then_some(self.max_sessions)
    }

    /// The times of leases and deaths.
    pub(crate) fn timings(&self) -> Timings {
        let millis = Duration::from_millis;
        Timings {
            renew: millis(self.renew_ms),
            renew_timeout: millis(self.renew_timeout_ms),
            lease: millis(self.lease_ms),
            observe: millis(self.observe_ms),
            poll: millis(self.poll_ms),
            fast_death: self.fast_death,
            ..Timings::default()
        }
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
            return fail(
                "listen",
                "a cluster needs storage.engine = \"cql\": the embedded database is of one node alone",
            );
        }
        if self.advertise.is_empty() && listen.ip().is_unspecified() {
            return fail(
                "advertise",
                "must say where others reach this node, since cluster.listen is no single address",
            );
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
        self.timings().validate().map_err(|error| ConfigError::new(error.to_string()))?;
        if !(8000..=15_000).contains(&self.idle_ms) {
            return fail("idle_ms", "must be 8000 to 15000");
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
