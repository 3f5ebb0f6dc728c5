//! What a node's links are set up with, and its check.

use super::Peer;
use rookery_protocol::{
    Incarnation, NodeId,
    cluster::{ClusterName, Versions},
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tokio::sync::watch;

/// Everything that links need to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub node: NodeId,
    /// This run of it.
    pub incarnation: Incarnation,
    /// The cluster. Nodes of another one are refused.
    pub cluster: ClusterName,
    /// Where links are accepted. Port 0 takes a free one ([`super::Links::address`]).
    pub listen: SocketAddr,
    /// How peers prove who they are.
    pub security: Security,
    /// Bounds and times.
    pub limits: Limits,
    /// Whether a peer counts as gone once its link was reset and its port then refused three connects in a row. Only
    /// the kernel of the peer's own host may answer for it: switch it off where a firewall or a proxy answers with
    /// resets, or where addresses pass from host to host within seconds.
    pub fast_death: bool,
    /// The versions of the envelope that this node speaks: [`Versions::OURS`] but in tests of upgrades.
    pub versions: Versions,
}

/// How peers prove who they are.
#[derive(Clone, Debug)]
pub enum Security {
    /// Mutual TLS with certificates of the cluster's authority.
    MutualTls {
        /// Where they are.
        files: CertificateFiles,
        /// How often the files are looked at for a change; `None` never (then [`super::Links::reload`] does).
        reload_interval: Option<Duration>,
    },
    /// Nothing proves anything. Everybody must be on a loopback address: for tests and development.
    InsecureLoopback,
}

/// Where a node's certificates are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate of the cluster's authority; several while one replaces another.
    pub authority: PathBuf,
    /// The node's certificate, followed by intermediate ones if there are any.
    pub certificate: PathBuf,
    /// The key of the node's certificate.
    pub key: PathBuf,
}

/// Bounds and times of links.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Calls under way to one peer; more are refused at once. Also how many of one peer's calls are handled at once.
    pub calls_per_peer: usize,
    /// Bytes of calls under way to one peer.
    pub call_bytes_per_peer: usize,
    /// Calls of all peers handled at once.
    pub inbound_calls: usize,
    /// The largest envelope, either way. Larger things do not travel by links.
    pub envelope_bytes: usize,
    /// Handshakes under way with whoever connects; the oldest makes room.
    pub half_open: usize,
    /// The same for one address.
    pub half_open_per_address: usize,
    /// How long a handshake may take in all, TLS included.
    pub handshake: Duration,
    /// How long a TCP connect may take.
    pub connect: Duration,
    /// After what silence a link is dead. Peers ping every 1 to 5 s.
    pub read_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls_per_peer: 256,
            call_bytes_per_peer: 64 << 20,
            inbound_calls: 2048,
            envelope_bytes: 4 << 20,
            half_open: 256,
            half_open_per_address: 32,
            handshake: Duration::from_secs(5),
            connect: Duration::from_secs(2),
            read_idle: Duration::from_secs(8),
        }
    }
}

impl Limits {
    /// The largest frame that is taken from a peer: an envelope and what `ractor_cluster` puts around it.
    pub(super) fn frame_bytes(&self) -> u64 {
        (self.envelope_bytes + (64 << 10)) as u64
    }
}

/// Why a configuration is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Without certificates only loopback addresses will do.
    #[error("links without certificates listen on loopback addresses only, not on {0}")]
    NotLoopback(SocketAddr),
    /// A bound that cannot work.
    #[error("{name} must be {range}")]
    Limit {
        /// Which one.
        name: &'static str,
        /// What it may be.
        range: &'static str,
    },
}

impl Config {
    /// Checks what can be checked without the network.
    pub fn check(&self) -> Result<(), ConfigError> {
        if matches!(self.security, Security::InsecureLoopback) && !self.listen.ip().is_loopback() {
            return Err(ConfigError::NotLoopback(self.listen));
        }
        let limits = &self.limits;
        let seconds = |duration: Duration, from: u64, to: u64| {
            (Duration::from_secs(from)..=Duration::from_secs(to)).contains(&duration)
        };
        for (fits, name, range) in [
            ((1..=65_536).contains(&limits.calls_per_peer), "calls_per_peer", "1 to 65536"),
            ((1..=65_536).contains(&limits.inbound_calls), "inbound_calls", "1 to 65536"),
            ((4096..=16 << 20).contains(&limits.envelope_bytes), "envelope_bytes", "4 KiB to 16 MiB"),
            (
                (limits.envelope_bytes..=1 << 30).contains(&limits.call_bytes_per_peer),
                "call_bytes_per_peer",
                "envelope_bytes to 1 GiB",
            ),
            ((1..=65_536).contains(&limits.half_open), "half_open", "1 to 65536"),
            ((1..=limits.half_open).contains(&limits.half_open_per_address), "half_open_per_address", "1 to half_open"),
            (seconds(limits.handshake, 1, 30), "handshake", "1 to 30 s"),
            (seconds(limits.connect, 1, 30), "connect", "1 to 30 s"),
            // Below it a healthy peer that pings every 5 s would be cut off.
            (seconds(limits.read_idle, 8, 15), "read_idle", "8 to 15 s"),
        ] {
            if !fits {
                return Err(ConfigError::Limit { name, range });
            }
        }
        Ok(())
    }

    /// This node as its peers see it.
    pub(super) fn me(&self) -> Peer {
        Peer { node: self.node.clone(), incarnation: self.incarnation }
    }
}

/// A member of the cluster and where its links are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    /// The node.
    pub node: NodeId,
    /// The run of it that is a member.
    pub incarnation: Incarnation,
    /// `host:port`.
    pub address: String,
}

impl PeerAddress {
    pub(super) fn peer(&self) -> Peer {
        Peer { node: self.node.clone(), incarnation: self.incarnation }
    }
}

/// The members as this node sees them, itself included or not. Links to whoever is not among them are cut and refused.
pub type View = watch::Receiver<Vec<PeerAddress>>;

/// A configuration that passes the check, for tests.
#[cfg(test)]
pub(super) fn sample() -> Config {
    Config {
        node: "a".parse().unwrap(),
        incarnation: Incarnation(1),
        cluster: "c".parse().unwrap(),
        listen: "127.0.0.1:0".parse().unwrap(),
        security: Security::InsecureLoopback,
        limits: Limits::default(),
        fast_death: true,
        versions: Versions::OURS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_certificates_only_loopback_will_do() {
        assert_eq!(sample().check(), Ok(()));
        for listen in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1"] {
            let config = Config { listen: listen.parse().unwrap(), ..sample() };
            assert!(matches!(config.check(), Err(ConfigError::NotLoopback(_))), "{listen}");
        }
    }

    #[test]
    fn bounds_that_cannot_work_are_refused() {
        let with = |change: fn(&mut Limits)| {
            let mut config = sample();
            change(&mut config.limits);
            config.check()
        };
        assert!(with(|limits| limits.read_idle = Duration::from_secs(5)).is_err());
        assert!(with(|limits| limits.calls_per_peer = 0).is_err());
        assert!(with(|limits| limits.call_bytes_per_peer = 1).is_err());
        assert!(with(|limits| limits.half_open_per_address = limits.half_open + 1).is_err());
    }
}
