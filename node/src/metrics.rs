//! Every metric: its name, labels and help. No label grows with sessions or people.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use rookery_protocol::api::{MessageType, SessionStatus};
use rookery_storage::metrics as storage;
use std::time::Duration;

/// Requests by `route`, `method` and `status`.
pub(crate) const HTTP_REQUESTS: &str = "rookery_http_requests_total";
/// Time from the first byte of a request to its answer, by `route`.
pub(crate) const HTTP_SECONDS: &str = "rookery_http_request_seconds";
/// Open connections to the API.
pub(crate) const HTTP_CONNECTIONS: &str = "rookery_http_connections";
/// Sessions that run on this node, by `status`.
pub(crate) const SESSIONS: &str = "rookery_sessions";
/// Session actors that failed and were started again.
pub(crate) const SESSION_FAILURES: &str = "rookery_session_failures_total";
/// Connections to WhatsApp that were opened again.
pub(crate) const RECONNECTS: &str = "rookery_reconnects_total";
/// Messages by `direction`, `kind` and `outcome`.
pub(crate) const MESSAGES: &str = "rookery_messages_total";
/// Receipts that came faster than they could be written.
pub(crate) const RECEIPTS_DROPPED: &str = "rookery_receipts_dropped_total";
/// Notes about people and chats that came faster than they could be written.
pub(crate) const NOTES_DROPPED: &str = "rookery_notes_dropped_total";
/// Accepted messages that WhatsApp has not acknowledged yet.
pub(crate) const OUTBOX_DEPTH: &str = "rookery_outbox_messages";
/// The age of the oldest of them.
pub(crate) const OUTBOX_AGE: &str = "rookery_outbox_oldest_seconds";
/// Files that are kept beyond WhatsApp's time, by `operation` (read, write) and `outcome`.
pub(crate) const KEPT_FILES: &str = "rookery_kept_files_total";
/// Requests for sessions of other nodes, by `outcome` of a try (answered, again).
pub(crate) const FORWARDED: &str = "rookery_forwarded_requests_total";
/// Sessions that this node took over, for whatever reason.
pub(crate) const TAKEOVERS: &str = "rookery_session_takeovers_total";
/// Sessions that this node handed over to another one.
pub(crate) const MOVES: &str = "rookery_session_moves_total";
/// Nodes that this one declared dead.
pub(crate) const DEATHS: &str = "rookery_node_deaths_total";
/// Times that this node's lease has run out.
pub(crate) const FREEZES: &str = "rookery_lease_freezes_total";
/// Nodes that live, as this one sees them.
pub(crate) const NODES: &str = "rookery_cluster_nodes";
/// Whether this node's lease is open.
pub(crate) const LEASE: &str = "rookery_lease_open";
/// The version and kind of this binary.
const BUILD_INFO: &str = "rookery_build_info";
const PROCESS_MEMORY: &str = "process_resident_memory_bytes";
const PROCESS_CPU: &str = "process_cpu_seconds_total";
const PROCESS_FDS: &str = "process_open_fds";
const PROCESS_THREADS: &str = "process_threads";

const SECONDS_BUCKETS: [f64; 14] =
    [0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// How often histograms are condensed.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Installs the recorder; answers the handle that renders what it has recorded.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_operations".into()), &[1.0, 4.0, 16.0, 64.0, 256.0])?
        .install_recorder()?;
    describe();
    for status in SessionStatus::ALL {
        metrics::gauge!(SESSIONS, "status" => status.as_str()).set(0.0);
    }
    for name in [OUTBOX_DEPTH, OUTBOX_AGE, HTTP_CONNECTIONS] {
        metrics::gauge!(name).set(0.0);
    }
    for name in [SESSION_FAILURES, RECONNECTS, RECEIPTS_DROPPED, NOTES_DROPPED] {
        metrics::counter!(name).absolute(0);
    }
    let sandbox = if cfg!(feature = "sandbox") { "true" } else { "false" };
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "sandbox" => sandbox).set(1.0);
    Ok(recorder)
}

/// Condenses histograms from time to time, until dropped.
pub(crate) async fn upkeep(recorder: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        recorder.run_upkeep();
    }
}

/// Counts a message.
pub(crate) fn message(direction: &'static str, kind: MessageType, outcome: &'static str) {
    metrics::counter!(MESSAGES, "direction" => direction, "kind" => kind.as_str(), "outcome" => outcome).increment(1);
}

/// Reads the figures of this process, as `/proc` gives them.
pub(crate) fn observe_process() {
    use metrics::gauge;
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let field = |name: &str| -> Option<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        if let Some(kib) = field("VmRSS:") {
            gauge!(PROCESS_MEMORY).set(kib * 1024.0);
        }
        if let Some(threads) = field("Threads:") {
            gauge!(PROCESS_THREADS).set(threads);
        }
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge!(PROCESS_FDS).set(files.count() as f64);
    }
    // Fields 14 and 15 are clock ticks; after the name in parentheses they are the 12th and 13th.
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
        && let Some((_, rest)) = stat.rsplit_once(')')
    {
        let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        gauge!(PROCESS_CPU).set(ticks / rustix::param::clock_ticks_per_second() as f64);
    }
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(HTTP_REQUESTS, "Requests by route, method and status.");
    describe_histogram!(HTTP_SECONDS, Unit::Seconds, "Time from a request's head to its answer, by route.");
    describe_gauge!(HTTP_CONNECTIONS, "Open connections to the API.");
    describe_gauge!(SESSIONS, "Sessions that run on this node, by status.");
    describe_counter!(SESSION_FAILURES, "Session actors that failed and were started again.");
    describe_counter!(RECONNECTS, "Connections to WhatsApp that were opened again.");
    describe_counter!(MESSAGES, "Messages by direction, kind and outcome.");
    describe_counter!(RECEIPTS_DROPPED, "Receipts that came faster than they could be written.");
    describe_counter!(NOTES_DROPPED, "News of contacts and chats that came faster than it could be written.");
    describe_gauge!(OUTBOX_DEPTH, "Accepted messages that WhatsApp has not acknowledged yet.");
    describe_gauge!(OUTBOX_AGE, Unit::Seconds, "Age of the oldest accepted message that is not acknowledged yet.");
    describe_counter!(
        KEPT_FILES,
        "Files read from and written to the store that keeps them, by operation and outcome."
    );
    describe_counter!(FORWARDED, "Requests for sessions of other nodes, by outcome of a try.");
    describe_counter!(TAKEOVERS, "Sessions that this node took over.");
    describe_counter!(MOVES, "Sessions that this node handed over to another one.");
    describe_counter!(DEATHS, "Nodes that this one declared dead.");
    describe_counter!(FREEZES, "Times that this node's lease has run out.");
    describe_gauge!(NODES, "Nodes of the cluster that live, as this one sees them.");
    describe_gauge!(LEASE, "1 while this node may act, 0 while it is frozen.");
    describe_histogram!(
        storage::SECONDS,
        Unit::Seconds,
        "Time of a call to the store, by operation; of a write with queue and flush."
    );
    describe_histogram!(storage::BATCH_OPERATIONS, "Operations that went to disk in one flush.");
    describe_gauge!(storage::QUEUE_DEPTH, "Writes that wait for the store.");
    describe_histogram!(storage::CQL_SECONDS, Unit::Seconds, "Time of a statement on a CQL server, by statement.");
    describe_counter!(storage::CQL_ERRORS, "Statements that a CQL server failed, by statement and kind of error.");
    describe_gauge!(BUILD_INFO, "Always 1; the labels tell the version and kind of the binary.");
    describe_gauge!(PROCESS_MEMORY, Unit::Bytes, "Resident memory of the process.");
    describe_gauge!(PROCESS_CPU, Unit::Seconds, "CPU time the process has used, user and system.");
    describe_gauge!(PROCESS_FDS, "Open file descriptors of the process.");
    describe_gauge!(PROCESS_THREADS, "Threads of the process.");
}
