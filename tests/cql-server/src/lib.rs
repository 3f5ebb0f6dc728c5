//! A running CQL server for tests.
//!
//! [`shared`] gives one node that all test processes of a run share: the one that `ROOKERY_TEST_CQL` names
//! (`[user:password@]host[:port],...`), else a ScyllaDB container where a container daemon runs, else Apache Cassandra
//! as a process (a Java runtime of version 17 and Maven on the `PATH`). [`Cluster`] is a server of a test's own, whose
//! nodes can be killed, paused and restarted; it is always Apache Cassandra.
//!
//! Invariants: everything listens on loopback addresses of its own and keeps its data in a temporary folder; every
//! process is stopped by its id, also when the test's process was killed (`watch.sh`). Where no server can be had, the
//! answer is none and a line that says so; with `CI=true` it is an error.
//!
//! Knows nothing of what is stored.

mod cassandra;
mod cluster;
mod container;
mod registration;
mod shared;
mod tls;

pub use cluster::Cluster;
pub use shared::shared;
pub use tls::Certificates;

use anyhow::{Result, bail};
use std::{io::Write as _, time::Duration};

/// How to reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// `host:port` of some of its nodes.
    pub contact_points: Vec<String>,
    /// The name and the password to log in with, if it asks for them. The user may do everything.
    pub login: Option<(String, String)>,
    /// What TLS is made with, if it is asked for: of both sides.
    pub tls: Option<Certificates>,
    /// How many copies of the data there can be.
    pub nodes: usize,
}

/// Between two looks at a server that starts.
#[expect(clippy::disallowed_methods, reason = "this crate blocks, and says so")]
fn wait_a_while(duration: Duration) {
    std::thread::sleep(duration);
}

/// What a test does that cannot have its server: an error in CI, a line that cannot be overlooked elsewhere.
fn unavailable(why: &str) -> Result<()> {
    if std::env::var("CI").is_ok_and(|value| value == "true") {
        bail!("no CQL server for the tests: {why}");
    }
    let line = "*".repeat(100);
    // Past the test harness, which keeps what a passing test prints.
    let _ = writeln!(
        std::io::stderr(),
        "\n{line}\nSKIPPED: a test of the CQL store did not run: {why}\n\
         (install a Java runtime 17 and Maven, or set ROOKERY_TEST_CQL=host:port)\n{line}\n"
    );
    Ok(())
}
