//! The consistent-hash ring: which node a session should be on.
//!
//! Every node of every build must place a session alike, so points are made from fixed-width bytes by a hash that is
//! specified (XXH64), and golden vectors hold it still. The ring only proposes; the session's owner row decides.
//! Knows nothing of incarnations: a node that restarts keeps its place.

use consistent_hash::{Node, RingHash, StaticHashRing};
use rookery_protocol::{NodeId, SessionId};
use std::{
    fmt,
    hash::{Hash, Hasher},
};
use twox_hash::XxHash64;

/// How many points a node of weight [`FULL_WEIGHT`] has on the ring. With 512, every fourth set of ten names would leave
/// some node with more than 1.1 times the mean of 10,000 sessions; with this, every fiftieth, and what is left of that
/// is the chance of the sessions' own positions.
pub const VIRTUAL_NODES: u64 = 2048;
/// The weight, in percent, of a node that takes an ordinary share. A node of weight 0 takes no session.
pub const FULL_WEIGHT: u16 = 100;
/// The largest weight: a hundred ordinary nodes.
pub const MAX_WEIGHT: u16 = 100 * FULL_WEIGHT;

/// Where something is on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub(crate) u64);

impl Position {
    /// Where a session is. It never changes, so it can be kept.
    pub fn of(session: &SessionId) -> Self {
        Self(XxHash64::oneshot(SESSION_SEED, session.as_bytes()))
    }
}

/// Different seeds, so that a session's point has nothing to do with a node's of the same bytes.
const SESSION_SEED: u64 = 1;
const NODE_SEED: u64 = 2;
const POINT_SEED: u64 = 3;

/// A stretch of the ring that belongs to one node: from the end of the arc before it, exclusively, to its own end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arc {
    pub(crate) end: u64,
    pub(crate) node: u32,
}

/// The ring over some nodes; immutable, built anew when they change.
pub struct Ring {
    points: StaticHashRing<'static, Key, u32, Points>,
    /// In order of their names.
    nodes: Vec<NodeId>,
    /// In order of their ends. The same points once more, because the crate's ring answers for one session only,
    /// and shares and changes of a view are about stretches of it.
    arcs: Vec<Arc>,
}

impl Ring {
    /// The ring over these nodes and their weights in percent; of nodes named twice the first counts.
    pub fn new(members: impl IntoIterator<Item = (NodeId, u16)>) -> Self {
        let mut members: Vec<_> = members.into_iter().collect();
        members.sort_by(|a, b| a.0.cmp(&b.0));
        members.dedup_by(|a, b| a.0 == b.0);
        let node = |(index, (id, weight)): (usize, &(NodeId, u16))| Node {
            key: Key { hash: XxHash64::oneshot(NODE_SEED, id.as_str().as_bytes()), node: id.clone() },
            value: index as u32,
            quantity: points_of(*weight),
        };
        let nodes: Vec<_> = members.iter().enumerate().map(node).collect();
        let mut arcs: Vec<Arc> = nodes
            .iter()
            .flat_map(|node| (0..node.quantity).map(|n| Arc { end: Points.hash_vnode(&node.key, n), node: node.value }))
            .collect();
        // Ties in the order in which the crate breaks them.
        arcs.sort_unstable_by_key(|arc| (arc.end, &nodes[arc.node as usize].key));
        Self {
            points: StaticHashRing::new(Points, nodes.into_iter()),
            nodes: members.into_iter().map(|(id, _)| id).collect(),
            arcs,
        }
    }

    /// The nodes that should have the session, the best first, each once.
    pub fn candidates(&self, session: &SessionId) -> impl Iterator<Item = &NodeId> {
        self.points.calc_candidates(&Position::of(session)).map(|node| &node.key.node)
    }

    /// The best candidate that has room. A node that is full is passed over, so its sessions spread over all others.
    pub fn place(&self, session: &SessionId, is_full: impl Fn(&NodeId) -> bool) -> Option<&NodeId> {
        self.candidates(session).find(|node| !is_full(node))
    }

    /// The best candidate of what is at this position.
    pub fn first(&self, position: Position) -> Option<&NodeId> {
        let next = self.arcs.partition_point(|arc| arc.end < position.0);
        let arc = self.arcs.get(next).or_else(|| self.arcs.first())?;
        Some(&self.nodes[arc.node as usize])
    }

    /// Which part of all sessions each node should have, in order of their names; the parts add up to 1.
    pub fn shares(&self) -> Vec<(&NodeId, f64)> {
        let mut lengths = vec![0_u128; self.nodes.len()];
        // The first arc begins where the last one ends, on the other side of zero.
        let mut start = self.arcs.last().map_or(0, |last| i128::from(last.end) - (1_i128 << 64));
        for arc in &self.arcs {
            lengths[arc.node as usize] += (i128::from(arc.end) - start).unsigned_abs();
            start = i128::from(arc.end);
        }
        self.nodes.iter().zip(lengths).map(|(node, length)| (node, length as f64 / 2_f64.powi(64))).collect()
    }

    /// The nodes of the ring in order of their names.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    pub(crate) fn arcs(&self) -> &[Arc] {
        &self.arcs
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("nodes", &self.nodes).field("points", &self.arcs.len()).finish_non_exhaustive()
    }
}

fn points_of(weight: u16) -> usize {
    let points = VIRTUAL_NODES * u64::from(weight.min(MAX_WEIGHT)) / u64::from(FULL_WEIGHT);
    // A node that is to have something has at least one point.
    points.max(u64::from(weight > 0)) as usize
}

/// A node in the crate's ring: only the hash of its name makes points.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    hash: u64,
    node: NodeId,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for Position {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// How points are made.
#[derive(Debug)]
struct Points;

impl RingHash for Points {
    fn hash_item<T: Hash>(&self, item: &T) -> u64 {
        let mut taken = Taken(0);
        item.hash(&mut taken);
        taken.finish()
    }

    fn hash_vnode<K: Hash>(&self, node: &K, number: usize) -> u64 {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.hash_item(node).to_le_bytes());
        bytes[8..].copy_from_slice(&(number as u32).to_le_bytes());
        XxHash64::oneshot(POINT_SEED, &bytes)
    }
}

/// Takes the one number that [`Key`] and [`Position`] write, which is a hash already.
struct Taken(u64);

impl Hasher for Taken {
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    /// Nothing on the ring is hashed from bytes here; what ever might be is still hashed well.
    fn write(&mut self, bytes: &[u8]) {
        self.0 = XxHash64::oneshot(self.0, bytes);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
