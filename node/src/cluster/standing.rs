//! What this node knows of the cluster at one moment. Pure.

use rookery_cluster::{
    membership::{Member, Status, View},
    ring::Ring,
};
use rookery_protocol::{Incarnation, NodeId, SessionId};
use rookery_storage::{NodeRow, NodeStatus};
use std::collections::{BTreeMap, HashSet};

/// A run of a node.
pub(crate) type Run = (NodeId, Incarnation);

/// The cluster as this node sees it.
pub(crate) struct Standing {
    me: Run,
    view: View,
    ring: Ring,
    /// The versions of the nodes' binaries, for people.
    versions: BTreeMap<NodeId, String>,
    /// The nodes that have as many sessions as they take.
    full: HashSet<NodeId>,
}

impl Standing {
    pub(super) fn new(me: Run, view: View, versions: BTreeMap<NodeId, String>, full: HashSet<NodeId>) -> Self {
        let ring = view.ring();
        Self { me, view, ring, versions, full }
    }

    /// This node.
    pub(super) fn me(&self) -> &NodeId {
        &self.me.0
    }

    /// The nodes that may act.
    pub(super) fn living(&self) -> impl Iterator<Item = &Member> {
        self.view.living().map(|peer| &peer.member)
    }

    /// The other nodes that take sessions.
    pub(super) fn takers(&self) -> usize {
        self.view.active().filter(|peer| peer.member.node != self.me.0).count()
    }

    /// How many nodes take sessions.
    pub(super) fn active(&self) -> usize {
        self.view.active().count()
    }

    /// Whether this node gives its sessions away.
    pub(super) fn is_draining(&self) -> bool {
        self.view.get(&self.me.0).is_none_or(|own| own.member.status != Status::Active)
    }

    /// Each node's part of all sessions, by its name.
    pub(super) fn shares(&self) -> BTreeMap<NodeId, f64> {
        self.ring.shares().into_iter().map(|(node, share)| (node.clone(), share)).collect()
    }

    /// The version of a node's binary.
    pub(super) fn version(&self, node: &NodeId) -> String {
        self.versions.get(node).cloned().unwrap_or_default()
    }

    /// The nodes that have as many sessions as they take.
    pub(super) fn full(&self) -> &HashSet<NodeId> {
        &self.full
    }

    /// The node that a session belongs to, whoever has it now.
    pub(super) fn place(&self, session: SessionId) -> Option<&NodeId> {
        self.ring.place(&session, |node| self.full.contains(node))
    }
}

/// A node's row as the cluster's decisions take it.
pub(super) fn member(row: NodeRow) -> Member {
    Member {
        node: row.node,
        incarnation: row.incarnation,
        seq: row.seq,
        status: match row.status {
            NodeStatus::Active => Status::Active,
            NodeStatus::Draining => Status::Draining,
            NodeStatus::Dead => Status::Dead,
        },
        weight: row.weight,
        link_address: row.link_address,
        api_address: row.api_address,
        protocol: row.protocol,
    }
}
