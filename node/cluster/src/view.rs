//! What is known of the nodes at one moment: who is there, and what has become of an incarnation.

use crate::ring::Ring;
use rookery_protocol::{Incarnation, NodeId};
use std::collections::BTreeMap;

/// What a node's row says of its incarnation. It only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It takes sessions.
    Active,
    /// It gives its sessions away and takes no new ones.
    Draining,
    /// It has ended, or was declared dead. Final.
    Dead,
}

/// A node's row, as far as the cluster's decisions and links need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The stable name.
    pub node: NodeId,
    /// The run of its process.
    pub incarnation: Incarnation,
    /// How often this incarnation has renewed the row.
    pub seq: u64,
    /// What has become of the incarnation.
    pub status: Status,
    /// Its share of the sessions, in percent of an ordinary node's.
    pub weight: u16,
    /// Where it takes links.
    pub link_address: String,
    /// Where it takes requests of other nodes for large bodies.
    pub api_address: String,
    /// The newest version of the envelope that it understands.
    pub protocol: u16,
}

/// What has become of an incarnation, for whoever wants to succeed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It may act.
    Alive,
    /// It may act, and gives its sessions away.
    Draining,
    /// It never acts again: its sessions may be claimed.
    Dead,
    /// The node's row must be read again, after the row that names the incarnation was read.
    Unknown,
}

/// A change of the view, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new incarnation is there.
    Joined(Member),
    /// It gives its sessions away.
    Draining(NodeId),
    /// It renews its row no more, or its link broke; it may still act.
    Suspected(NodeId),
    /// It renews its row again.
    Recovered(NodeId),
    /// The incarnation has ended. When it is the node's own, the node stops at once.
    Died {
        /// The node.
        node: NodeId,
        /// Which of its incarnations.
        incarnation: Incarnation,
    },
}

impl Change {
    /// Whether sessions belong elsewhere from now on.
    pub fn moves_sessions(&self) -> bool {
        !matches!(self, Self::Suspected(_) | Self::Recovered(_))
    }
}

/// A node of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its row.
    pub member: Member,
    /// Whether it may have stopped.
    pub suspected: bool,
}

/// All nodes that are known, the dead ones included, in order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub(crate) peers: BTreeMap<NodeId, Peer>,
}

impl View {
    /// One node.
    pub fn get(&self, node: &NodeId) -> Option<&Peer> {
        self.peers.get(node)
    }

    /// All of them, the dead ones too.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// Those that may act: not the dead ones.
    pub fn living(&self) -> impl Iterator<Item = &Peer> {
        self.peers().filter(|peer| peer.member.status != Status::Dead)
    }

    /// Those that take sessions. One that is only suspected counts: a pause must not move its sessions.
    pub fn active(&self) -> impl Iterator<Item = &Peer> {
        self.peers().filter(|peer| peer.member.status == Status::Active)
    }

    /// The ring over those that take sessions.
    pub fn ring(&self) -> Ring {
        Ring::new(self.active().map(|peer| (peer.member.node.clone(), peer.member.weight)))
    }
}
