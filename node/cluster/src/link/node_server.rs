//! `ractor_cluster`'s node server: how it is started, and what it tells.

use super::{Peer, config::Config, probe, shared::Shared, tls::Tls, transport::Cause};
use ractor::{Actor, ActorRef, SpawnErr, concurrency::JoinHandle};
use ractor_cluster::{
    IncomingEncryptionMode, NodeEventSubscription, NodeServer, NodeServerMessage,
    node::{NodeConnectionMode, NodeServerSessionInformation},
};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

/// Starts the node server with its own listener parked where nobody dials it.
///
/// The cookie keeps clusters apart that were configured wrongly and is no secret; certificates and the links' tokens
/// are what protects. It does not depend on the authority, which may be replaced while nodes run.
pub(super) async fn spawn(
    config: &Config,
    tls: Option<&Tls>,
) -> Result<(ActorRef<NodeServerMessage>, JoinHandle<()>), SpawnErr> {
    let name = Peer::to_string(&config.me());
    let encryption = tls.map_or(IncomingEncryptionMode::Raw, |tls| IncomingEncryptionMode::Tls(tls.acceptor()));
    let cookie = format!("rookery {}", config.cluster);
    // The host's name is the node's again: `ractor_cluster` takes a peer with its own host and port for itself.
    let server = NodeServer::new(0, cookie, name.clone(), name, Some(encryption), Some(NodeConnectionMode::Isolated))
        .with_listen_addr(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .with_max_inbound_frame_size(config.limits.frame_bytes());
    Actor::spawn(None, server, ()).await
}

/// Passes what the node server tells to the table.
pub(super) struct Subscription(pub(super) Arc<Shared>);

impl NodeEventSubscription for Subscription {
    fn node_session_opened(&self, session: NodeServerSessionInformation) {
        self.0.session_opened(&session);
    }

    fn node_session_authenticated(&self, _: NodeServerSessionInformation) {}

    fn node_session_ready(&self, session: NodeServerSessionInformation) {
        self.0.session_ready(&session);
    }

    fn node_session_disconnected(&self, session: NodeServerSessionInformation) {
        if let Some((link, Cause::Reset)) = self.0.session_closed(&session) {
            probe::start(&self.0, link.peer);
        }
    }
}
