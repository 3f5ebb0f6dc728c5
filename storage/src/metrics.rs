//! The names of the stores' metrics.

use std::time::Instant;

/// Histogram, seconds, by `operation`: how long a call took. A write's time includes its wait in the queue and
/// the flush to disk.
pub const SECONDS: &str = "rookery_storage_seconds";

/// Histogram: how many operations went to disk in one flush.
pub const BATCH_OPERATIONS: &str = "rookery_storage_batch_operations";

/// Gauge: how many writes wait.
pub const QUEUE_DEPTH: &str = "rookery_storage_queue_depth";

/// Records how long the operation that began at `start` took.
pub(crate) fn record(operation: &'static str, start: Instant) {
    metrics::histogram!(SECONDS, "operation" => operation).record(start.elapsed().as_secs_f64());
}

/// Histogram, seconds, by `statement`: how long a CQL server took to answer.
pub const CQL_SECONDS: &str = "rookery_cql_seconds";

/// Counter, by `statement` and `kind`: statements that a CQL server, or the way to it, has failed.
pub const CQL_ERRORS: &str = "rookery_cql_errors_total";
