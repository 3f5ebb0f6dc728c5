//! The links to the other nodes, as this crate uses them.

use super::{
    heart::Heart,
    inbox::Inbox,
    standing::{Run, Standing},
};
use crate::config::ClusterConfig;
use anyhow::Context;
use async_trait::async_trait;
use rookery_cluster::link::{
    self, CallError, CertificateFiles, Event, Handler, Inbound, Limits, PeerAddress, Security,
};
use rookery_protocol::{
    NodeId,
    cluster::{Call, NodeStats, Reply, Request, Versions},
};
use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    time::Instant,
};

/// How often changed certificates are looked for.
const RELOAD: Duration = Duration::from_secs(30);
/// How long calls of others may go on when this node stops.
const GRACE: Duration = Duration::from_secs(1);
/// When others may ask again a node that has not started yet.
const STARTING_MS: u32 = 200;

/// The links to the other nodes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Links {
    inner: link::Links,
    view: Arc<watch::Sender<Vec<PeerAddress>>>,
}

impl Links {
    /// Listens for others; none is dialled before [`Links::follow`] says who they are.
    pub(super) async fn bind(
        settings: &ClusterConfig,
        listen: SocketAddr,
        me: &Run,
        inbox: Arc<OnceLock<Inbox>>,
    ) -> anyhow::Result<Self> {
        let files = CertificateFiles {
            authority: settings.ca_file.clone(),
            certificate: settings.cert_file.clone(),
            key: settings.key_file.clone(),
        };
        let security = if settings.insecure {
            Security::InsecureLoopback
        } else {
            Security::MutualTls { files, reload_interval: Some(RELOAD) }
        };
        let config = link::Config {
            node: me.0.clone(),
            incarnation: me.1,
            cluster: settings.name.clone(),
            listen,
            security,
            limits: Limits { read_idle: Duration::from_millis(settings.idle_ms), ..Limits::default() },
            fast_death: settings.fast_death,
            versions: Versions::OURS,
        };
        let (view, members) = watch::channel(vec![]);
        let inner = link::Links::start(config, members, Arc::new(Receiver(inbox))).await.context("cluster.listen")?;
        Ok(Self { inner, view: Arc::new(view) })
    }

    /// Where this node listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.inner.address()
    }

    /// Links to the nodes that live, from now on.
    pub(super) fn follow(&self, mut standing: watch::Receiver<Arc<Standing>>) {
        let view = Arc::clone(&self.view);
        tokio::spawn(async move {
            loop {
                let members = standing.borrow_and_update().clone();
                let members = members.living().map(|row| PeerAddress {
                    node: row.node.clone(),
                    incarnation: row.incarnation,
                    address: row.link_address.clone(),
                });
                view.send_replace(members.collect());
                if standing.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Tells the heart of nodes whose hosts say that they are gone.
    pub(super) async fn report(self, heart: Arc<Heart>) {
        let mut events = self.inner.events();
        loop {
            match events.recv().await {
                Ok(Event::Gone(peer)) => heart.is_gone(&(peer.node, peer.incarnation)),
                Ok(Event::Up(_) | Event::Down { .. }) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Asks a node.
    pub(super) async fn call(&self, node: &NodeId, call: Call) -> Result<Reply, CallError> {
        let deadline = Instant::now() + Duration::from_millis(call.deadline_ms.into());
        self.inner.call(node, &call.request_id, call.request, deadline).await
    }

    /// What runs on a node.
    pub(super) async fn stats(&self, node: &NodeId, timeout: Duration) -> Option<NodeStats> {
        match self.inner.call(node, "", Request::Stats, Instant::now() + timeout).await {
            Ok(Reply::Stats(stats)) => Some(stats),
            _ => None,
        }
    }

    /// Ends the links.
    pub(super) async fn shut_down(&self) {
        self.inner.shutdown(GRACE).await;
    }
}

/// Hands the calls of others to the inbox, once there is one.
struct Receiver(Arc<OnceLock<Inbox>>);

#[async_trait]
impl Handler for Receiver {
    async fn handle(&self, inbound: Inbound) -> Reply {
        let Some(inbox) = self.0.get() else { return Reply::Busy { retry_after_ms: STARTING_MS } };
        inbox.answer(inbound).await
    }
}
