//! Bodies of the service routes.

use crate::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};
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
