//! Health, readiness, reachability and metrics.

use super::{
    Api, Routes,
    body::{Incoming, incoming},
    error::from_store,
    reply::{bytes, json},
    route, with,
};
use crate::{
    cluster::{Cluster as Membership, Known},
    metrics,
};
use rookery_protocol::{
    ApiError, ErrorBody, ErrorCode, Timestamp,
    api::{
        Cluster, ClusterNode, Health, NodeReachability, NodeState, Probe, SessionMove, SessionStatus,
        StorageReachability,
    },
};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;
use warp::{Filter, http::StatusCode, path, reply::Response};

/// How long the answer of the store is good for. Anybody may ask; nobody may make the store work.
const PROBE_LIFETIME: Duration = Duration::from_secs(1);
/// How long the store may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

type Answer = Result<Response, ApiError>;

/// The last answer of the store, shared by all who ask.
#[derive(Default)]
pub(crate) struct ProbeCache(Mutex<Option<(Instant, Option<Duration>)>>);

pub(super) fn routes(api: &Arc<Api>) -> Vec<Routes> {
    let health = path!("api" / "health").and(with(api));
    let live = path!("api" / "health" / "live").and(with(api));
    let ready = path!("api" / "health" / "ready").and(with(api));
    let connection = path!("api" / "test-node-connection").and(with(api));
    let cluster = path!("api" / "cluster").and(with(api));
    let metrics = path!("metrics").and(with(api));
    vec![
        route("health", health.and(warp::get()).then(health_of)),
        route("health_live", live.and(warp::get()).then(liveness)),
        route("health_ready", ready.and(warp::get()).then(readiness)),
        route("test_node_connection", connection.and(warp::get()).and(incoming(api)).then(test_connection)),
        route("cluster", cluster.and(warp::get()).and(incoming(api)).then(cluster_of)),
        route("metrics", metrics.and(warp::get()).and(incoming(api)).then(render_metrics)),
    ]
}

/// The process is alive.
#[utoipa::path(
    get, path = "/api/health", tag = "Service",
    operation_id = "health",
    responses((status = 200, description = "It is.", body = Health)),
)]
pub(super) async fn health_of(_api: Arc<Api>) -> Answer {
    Ok(json(StatusCode::OK, &health()))
}

/// The node may be given requests.
#[utoipa::path(
    get, path = "/api/health/ready", tag = "Service",
    operation_id = "ready",
    responses((status = 200, description = "It may.", body = Health)),
)]
pub(super) async fn readiness(api: Arc<Api>) -> Answer {
    let in_place = api.cluster.as_ref().is_none_or(Membership::is_ready);
    if api.ready.load(Ordering::Acquire) && in_place && api.probe_store().await.is_some() {
        return Ok(json(StatusCode::OK, &health()));
    }
    let text = "The node is starting or stopping, may not act now, or its storage does not answer.";
    Err(ApiError::new(ErrorCode::Unavailable, text).retry_after(Duration::from_secs(1)))
}

/// The process is alive.
#[utoipa::path(
    get, path = "/api/health/live", tag = "Service",
    operation_id = "live",
    responses((status = 200, description = "It is.", body = Health)),
)]
pub(super) async fn liveness(_api: Arc<Api>) -> Answer {
    Ok(json(StatusCode::OK, &health()))
}

fn health() -> Health {
    Health {
        status: "OK".into(),
        timestamp: Timestamp::now(),
        service: "Rookery WhatsApp API".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        sandbox: cfg!(feature = "sandbox"),
    }
}

/// Whether the node and its storage answer; with the admin key, in detail.
#[utoipa::path(
    get, path = "/api/test-node-connection", tag = "Service",
    security((), ("admin_key" = [])),
    responses((status = 200, description = "What could be reached.", body = Probe)),
)]
pub(super) async fn test_connection(api: Arc<Api>, request: Incoming) -> Answer {
    let latency = api.probe_store().await;
    let nodes = api.reach_nodes().await;
    let message = match (latency, nodes.iter().all(|node| node.reachable)) {
        (None, _) => "The storage could not be reached.",
        (Some(_), false) => "A node could not be reached.",
        (Some(_), true) if nodes.len() > 1 => "All nodes and their storage answer.",
        (Some(_), true) => "The node and its storage answer.",
    };
    let success = latency.is_some() && nodes.iter().all(|node| node.reachable);
    let mut probe = Probe { success, message: message.into(), nodes: None, storage: None };
    if api.access.is_admin(&request.headers) {
        probe.nodes = Some(nodes);
        probe.storage = Some(StorageReachability {
            engine: api.stores.engine.name().into(),
            reachable: latency.is_some(),
            latency_ms: millis(latency.unwrap_or(PROBE_TIMEOUT)),
        });
    }
    Ok(json(StatusCode::OK, &probe))
}

/// The nodes, what each owns, and the sessions on their way between them.
#[utoipa::path(
    get, path = "/api/cluster", tag = "Service",
    security(("admin_key" = [])), operation_id = "cluster",
    responses((status = 200, description = "The cluster as this node sees it.", body = Cluster)),
)]
pub(super) async fn cluster_of(api: Arc<Api>, request: Incoming) -> Answer {
    api.access.require_admin(&request.headers)?;
    if let Some(cluster) = &api.cluster {
        let mut nodes: Vec<_> = cluster.nodes(PROBE_TIMEOUT).await.into_iter().map(cluster_node).collect();
        nodes.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        let from = &api.node;
        let moving = |(session_id, to)| SessionMove { session_id, from: from.clone(), to };
        return Ok(json(
            StatusCode::OK,
            &Cluster { nodes, moves: cluster.leaving().into_iter().map(moving).collect() },
        ));
    }
    let sessions_by_status = api.sessions.by_status();
    let node = ClusterNode {
        node_id: api.node.clone(),
        state: if api.ready.load(Ordering::Acquire) { NodeState::Active } else { NodeState::Draining },
        version: env!("CARGO_PKG_VERSION").into(),
        ring_share: 1.0,
        sessions: sessions_by_status.values().sum(),
        sessions_by_status,
    };
    Ok(json(StatusCode::OK, &Cluster { nodes: vec![node], moves: vec![] }))
}

/// A node as the API shows it. What one that does not answer has is not known.
fn cluster_node(known: Known) -> ClusterNode {
    let stats = known.stats.map(|(stats, _)| stats);
    let draining = !known.active || stats.as_ref().is_some_and(|stats| stats.draining);
    let counts = stats.into_iter().flat_map(|stats| stats.sessions);
    let counts = counts.filter_map(|(status, count)| Some((SessionStatus::parse(&status)?, u64::from(count))));
    let sessions_by_status: BTreeMap<_, _> = counts.collect();
    ClusterNode {
        node_id: known.node,
        state: if draining { NodeState::Draining } else { NodeState::Active },
        version: known.version,
        ring_share: known.share,
        sessions: sessions_by_status.values().sum(),
        sessions_by_status,
    }
}

fn millis(latency: Duration) -> u64 {
    u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)
}

impl Api {
    /// Asks every node that lives.
    async fn reach_nodes(&self) -> Vec<NodeReachability> {
        let Some(cluster) = &self.cluster else {
            return vec![NodeReachability { node_id: self.node.clone(), reachable: true, latency_ms: 0 }];
        };
        let reached = cluster.nodes(PROBE_TIMEOUT).await.into_iter().map(|known| NodeReachability {
            node_id: known.node,
            reachable: known.stats.is_some(),
            latency_ms: millis(known.stats.map_or(PROBE_TIMEOUT, |(_, latency)| latency)),
        });
        reached.collect()
    }

    async fn probe_store(&self) -> Option<Duration> {
        let mut last = self.probe.0.lock().await;
        if let Some((at, latency)) = *last
            && at.elapsed() < PROBE_LIFETIME
        {
            return latency;
        }
        let latency = match tokio::time::timeout(PROBE_TIMEOUT, self.stores.engine.probe()).await {
            Ok(Ok(latency)) => Some(latency),
            Ok(Err(error)) => {
                tracing::warn!(error = %from_store(&error), "storage probe failed");
                None
            }
            Err(_) => None,
        };
        *last = Some((Instant::now(), latency));
        latency
    }
}

/// Figures for Prometheus, unless they have an address of their own.
#[utoipa::path(
    get, path = "/metrics", tag = "Service",
    security((), ("metrics_token" = [])), operation_id = "metrics",
    responses(
        (status = 200, description = "Figures.", content_type = "text/plain", body = String),
        (status = 404, description = "`not_found`: they are served elsewhere, or not at all.", body = ErrorBody),
    ),
)]
pub(super) async fn render_metrics(api: Arc<Api>, request: Incoming) -> Answer {
    let Some(access) = api.metrics.as_ref().filter(|_| api.metrics_here) else {
        return Err(ApiError::new(ErrorCode::NotFound, "There is no such path."));
    };
    access.require(&request.headers)?;
    Ok(metrics_page(&api))
}

/// The page that Prometheus scrapes.
pub(super) fn metrics_page(api: &Api) -> Response {
    metrics::observe_process();
    let oldest = api.sessions.oldest_unsent();
    let age = oldest.map_or(0.0, |at| (Timestamp::now().as_micros() - at.as_micros()) as f64 / 1e6);
    ::metrics::gauge!(metrics::OUTBOX_AGE).set(age.max(0.0));
    bytes(StatusCode::OK, "text/plain; version=0.0.4", api.recorder.render())
}
