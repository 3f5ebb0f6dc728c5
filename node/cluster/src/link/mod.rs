//! Links: authenticated, bounded calls between the nodes of a cluster.
//!
//! `ractor_cluster` carries the calls; what it lacks is here. Every pair of nodes has one link, dialled by the node
//! with the larger name. A link exists only between incarnations that the membership names on both sides, is mutual
//! TLS in which the certificate names the cluster and the node, and is up or gone: a peer that stays silent is cut off
//! by a watchdog, and the link is made again with back-off.
//!
//! Invariants: a call that is answered by [`CallError::NotSent`] has not been executed; every accepted call has an end
//! by its deadline; the sender that a [`Handler`] sees is the one whose certificate opened the link; calls, bytes and
//! half-open handshakes are bounded per peer and in all.
//!
//! Decides nothing about ownership or membership, and knows neither a database nor HTTP.
//!
//! `ractor_cluster` logs whole payloads at `debug`: whoever sets up logging caps it, see [`LOG_CAP`].
//!
//! The built-in listener of `ractor_cluster` cannot be switched off. It is parked on a loopback port of the system's
//! choice, demands a certificate of the cluster, and every connection that it lets in is closed.

mod accept;
mod calls;
mod config;
mod dial;
mod establish;
mod half_open;
mod handle;
mod log_limit;
mod node_server;
mod preface;
mod probe;
mod router;
mod shared;
mod table;
mod tls;
mod transport;

pub use calls::{CallError, NotSent, Unknown};
pub use config::{CertificateFiles, Config, ConfigError, Limits, PeerAddress, Security, View};
pub use establish::LinkFailure;
pub use handle::{LinkError, Links};
pub use preface::Refusal;
pub use router::{Handler, Inbound};
pub use shared::{Counts, Event, LinkState, PeerState};
pub use tls::TlsError;
pub use transport::Cause;

use rookery_protocol::{Incarnation, NodeId};
use std::fmt;

/// The filter directive that keeps `ractor_cluster` from logging payloads and links' tokens. Applications put it after
/// whatever an operator configures.
pub const LOG_CAP: &str = "ractor_cluster=warn";

/// A node's run at the other end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
}

impl fmt::Display for Peer {
    /// `node~incarnation`: the name of the run among `ractor_cluster`'s nodes. Distinct per run, so that an old link
    /// and a new one never compete for one name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}", self.node, self.incarnation.0)
    }
}
