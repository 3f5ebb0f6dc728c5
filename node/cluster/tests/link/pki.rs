//! Certificates for tests, good ones and others.

use rookery_cluster::certs;
use tempfile::TempDir;

/// A folder with the certificates of a cluster and of these nodes.
pub(crate) fn cluster(name: &str, nodes: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    certs::init(dir.path(), &name.parse().unwrap(), 10).unwrap();
    for node in nodes {
        certs::node(dir.path(), &node.parse().unwrap(), &[], 1).unwrap();
    }
    dir
}
