//! This node among others: who lives, which sessions belong here, and how the others are reached.
//!
//! [`heart`] keeps the node's row and watches the others'; from their rows follows a [`standing`], which says where
//! each session belongs. [`moves`] brings sessions there, [`relay`] asks their owners on behalf of callers, and
//! [`inbox`] answers when this node is asked. Nothing here decides who owns a session: the claim of its row does.

mod heart;
mod inbox;
mod join;
mod links;
mod moves;
mod relay;
mod standing;

use self::{
    heart::Heart,
    inbox::Inbox,
    join::{Introduction, join},
    links::Links,
    moves::Moves,
    relay::Owners,
};
use crate::{
    api::{Inbound, Relay},
    config::{ClusterConfig, Config},
    session::{Place, Placement, Sessions},
};
use anyhow::Context;
use async_trait::async_trait;
use rookery_cluster::{
    claim::Decision,
    clock::BootClock,
    lease::Lease,
    membership::{Member, Status},
};
use rookery_protocol::{Incarnation, NodeId, SessionId, cluster::NodeStats};
use rookery_storage::{NodeStatus, Owner, StoreError, Stores};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::task::JoinSet;

/// How long a node that leaves waits for its sessions to be gone, of the time that its stop may take.
const LEAVE_PART: f32 = 0.6;

/// A node's membership. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster {
    heart: Arc<Heart>,
    links: Links,
    inbox: Arc<OnceLock<Inbox>>,
    owners: Arc<Owners>,
    moves: Arc<OnceLock<Arc<Moves>>>,
    settings: Arc<ClusterConfig>,
    stores: Stores,
}

/// What is known of a node.
pub(crate) struct Known {
    /// Which.
    pub node: NodeId,
    /// Whether it takes sessions.
    pub active: bool,
    /// The version of its binary.
    pub version: String,
    /// Its part of all sessions by the ring.
    pub share: f64,
    /// What runs on it, and how long the answer took; none when it did not answer.
    pub stats: Option<(NodeStats, Duration)>,
}

impl Cluster {
    /// Joins the cluster. `lease` is the gate of the stores.
    pub(crate) async fn join(
        config: &Config,
        api: SocketAddr,
        incarnation: Incarnation,
        stores: &Stores,
        lease: Lease,
    ) -> anyhow::Result<Self> {
        let settings = &config.cluster;
        let listen = settings.listen().context("cluster.listen")?;
        let me = (config.node.id.clone(), incarnation);
        let inbox = Arc::new(OnceLock::new());
        let links = Links::bind(settings, listen, &me, Arc::clone(&inbox)).await?;
        let or = |text: &String, other: SocketAddr| if text.is_empty() { other.to_string() } else { text.clone() };
        let introduction = Introduction {
            me,
            link_address: or(&settings.advertise, links.address()),
            api_address: or(&settings.advertise_api, api),
            weight: settings.weight,
        };
        let timings = settings.timings();
        let joined = join(stores, &introduction, timings).await?;
        let heart = Heart::new(stores.clone(), joined, timings, lease);
        heart.look_around().await.context("the rows of the nodes")?;
        links.follow(heart.standing());
        let owners = Arc::new(Owners::new(Arc::clone(&heart), links.clone()));
        let settings = Arc::new(settings.clone());
        Ok(Self { heart, links, inbox, owners, moves: Arc::default(), settings, stores: stores.clone() })
    }

    /// Which sessions may run here.
    pub(crate) fn placement(&self) -> Arc<dyn Placement> {
        Arc::new(Places(Arc::clone(&self.heart)))
    }

    /// The way to the owners of sessions.
    pub(crate) fn relay(&self) -> Arc<dyn Relay> {
        self.owners.clone()
    }

    /// Takes part: renews the lease, watches the others, answers them, and brings sessions to their places.
    pub(crate) fn start(&self, sessions: &Arc<Sessions>, inbound: Inbound, tasks: &mut JoinSet<()>) {
        let moves = Moves::new(
            Arc::clone(sessions),
            self.stores.clone(),
            Arc::clone(&self.heart),
            self.links.clone(),
            &self.settings,
        );
        let moves = Arc::clone(self.moves.get_or_init(|| Arc::new(moves)));
        let inbox = Inbox {
            inbound,
            sessions: Arc::clone(sessions),
            stores: self.stores.clone(),
            heart: Arc::clone(&self.heart),
            capacity: self.settings.capacity(),
            weight: self.settings.weight,
        };
        assert!(self.inbox.set(inbox).is_ok(), "a cluster is started once");
        tasks.spawn(Arc::clone(&self.heart).renew());
        tasks.spawn(Arc::clone(&self.heart).watch());
        tasks.spawn(self.links.clone().report(Arc::clone(&self.heart)));
        tasks.spawn(moves.run());
    }

    /// Whether this node may act now and takes sessions.
    pub(crate) fn is_ready(&self) -> bool {
        self.heart.may_act() && !self.heart.now().is_draining()
    }

    /// Waits until this run of the node has been declared dead.
    pub(crate) async fn ended(&self) {
        self.heart.ended.cancelled().await;
    }

    /// Hands all sessions over, within a part of this time; what is left is told.
    pub(crate) async fn leave(&self, sessions: &Sessions, time: Duration) {
        match self.heart.mark(NodeStatus::Draining).await {
            Ok(true) => {}
            marked => tracing::warn!(?marked, "the node could not be marked as draining"),
        }
        let deadline = tokio::time::Instant::now() + time.mul_f32(LEAVE_PART);
        let alone = self.heart.now().takers() == 0;
        while !alone && sessions.count() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = sessions.count();
        if left > 0 {
            tracing::warn!(left, "sessions are left that no other node has taken");
        }
    }

    /// The node's run is over: the others need not wait for its lease.
    pub(crate) async fn end(&self) {
        if !matches!(self.heart.mark(NodeStatus::Dead).await, Ok(true)) {
            tracing::warn!("the end of the node could not be noted; the others wait until its lease has run out");
        }
        self.links.shut_down().await;
    }

    /// All nodes that live, each asked what runs on it.
    pub(crate) async fn nodes(&self, timeout: Duration) -> Vec<Known> {
        let standing = self.heart.now();
        let shares = standing.shares();
        let known = |row: &Member| {
            let (node, active) = (row.node.clone(), row.status == Status::Active);
            let (share, version) = (shares.get(&node).copied().unwrap_or(0.0), standing.version(&node));
            async move {
                let stats = self.stats(&node, timeout).await;
                Known { node, active, version, share, stats }
            }
        };
        let asked: Vec<_> = standing.living().map(known).collect();
        futures_util::future::join_all(asked).await
    }

    async fn stats(&self, node: &NodeId, timeout: Duration) -> Option<(NodeStats, Duration)> {
        let start = tokio::time::Instant::now();
        let stats = if node == self.heart.now().me() {
            self.inbox.get()?.stats()
        } else {
            self.links.stats(node, timeout).await?
        };
        Some((stats, start.elapsed()))
    }

    /// Which sessions are on their way from this node to which other one.
    pub(crate) fn leaving(&self) -> BTreeMap<SessionId, NodeId> {
        self.moves.get().map(|moves| moves.leaving()).unwrap_or_default()
    }
}

/// A lease that is not open yet.
pub(crate) fn new_lease() -> Lease {
    Lease::new(BootClock)
}

/// Places as the cluster decides.
struct Places(Arc<Heart>);

#[async_trait]
impl Placement for Places {
    async fn place(&self, session: SessionId, owner: &Owner) -> Result<Place, StoreError> {
        let decision = self.0.decide(session, owner).await?;
        Ok(if decision == Decision::Claim { Place::Here } else { Place::Elsewhere })
    }

    fn belongs_here(&self, session: SessionId) -> bool {
        let standing = self.0.now();
        standing.place(session) == Some(standing.me()) && !standing.is_draining()
    }

    fn is_alone(&self) -> bool {
        false
    }
}
