//! Bodies of the service routes.

use super::SessionStatus;
use crate::{NodeId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// `GET /health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `OK`.
    pub status: String,
    /// The present.
    pub timestamp: Timestamp,
    /// The name of the service.
    pub service: String,
    /// The version of the binary.
    pub version: String,
    /// True in a binary that can only talk to the simulator.
    pub sandbox: bool,
}

/// `GET /test-node-connection`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Probe {
    /// Whether everything could be reached.
    pub success: bool,
    /// What could not be reached, without names of machines.
    pub message: String,
    /// With the admin key: the nodes one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeReachability>>,
    /// With the admin key: the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageReachability>,
}

/// Whether a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeReachability {
    /// Which.
    pub node_id: NodeId,
    /// Whether it answered in time.
    pub reachable: bool,
    /// How long it took, in milliseconds.
    pub latency_ms: u64,
}

/// Whether the store answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StorageReachability {
    /// Which engine.
    pub engine: String,
    /// Whether it answered in time.
    pub reachable: bool,
    /// How long it took, in milliseconds.
    pub latency_ms: u64,
}

/// `GET /cluster`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Cluster {
    /// The nodes, by their names.
    pub nodes: Vec<ClusterNode>,
    /// Sessions on their way from one node to another.
    pub moves: Vec<SessionMove>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterNode {
    /// Which.
    pub node_id: NodeId,
    /// What it may do.
    pub state: NodeState,
    /// The version of its binary.
    pub version: String,
    /// Its part of all sessions by the ring, from 0 to 1.
    pub ring_share: f64,
    /// The sessions that it owns.
    pub sessions: u64,
    /// Of these, how many are in which status.
    pub sessions_by_status: BTreeMap<SessionStatus, u64>,
}

/// What a node may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It owns sessions and takes new ones.
    Active,
    /// It starts or stops, and takes no new ones.
    Draining,
}

/// A session that changes its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionMove {
    /// Which.
    pub session_id: SessionId,
    /// The node that gives it up.
    pub from: NodeId,
    /// The node that takes it.
    pub to: NodeId,
}
