//! What can be set, and what can go wrong at start.

use crate::EncryptionKeys;
use std::{fmt, time::Duration};

/// How to reach the server and what to keep there.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` of some nodes of the server; the others are found through them.
    pub contact_points: Vec<String>,
    /// The keyspace, lower case.
    pub keyspace: String,
    /// The datacenter whose nodes are asked; none: all nodes alike.
    pub datacenter: Option<String>,
    /// The name and password to log in with.
    pub login: Option<(String, Password)>,
    /// How connections are encrypted; none: they are not.
    pub tls: Option<Tls>,
    /// How many copies a keyspace has that is made here. One that exists keeps what it has.
    pub replication_factor: u16,
    /// Whether tables are made or changed at start.
    pub migrate: bool,
    /// How many statements may be under way; further ones wait.
    pub concurrency: usize,
    /// How long a call may wait before its work begins; then it is refused as overload.
    pub deadline: Duration,
    /// What key material is encrypted with.
    pub encryption: EncryptionKeys,
}

impl Options {
    /// The defaults for a server and a keyspace.
    pub fn new(contact_points: Vec<String>, keyspace: impl Into<String>) -> Self {
        Self {
            contact_points,
            keyspace: keyspace.into(),
            datacenter: None,
            login: None,
            tls: None,
            replication_factor: 3,
            migrate: false,
            concurrency: 512,
            deadline: Duration::from_secs(5),
            encryption: EncryptionKeys::default(),
        }
    }
}

/// A password; never shown.
#[derive(Clone)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// TLS to the server's nodes. Each must have a certificate with its IP address, of one of these authorities.
#[derive(Clone)]
pub struct Tls {
    /// Certificates of the authorities that are trusted, and no others: PEM.
    pub authorities: Vec<u8>,
    /// The certificate with its chain, and its private key, that this process shows: PEM each.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("with_identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

/// Why the engine did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nobody answers.
    #[error("no CQL server answers at {points}: {detail}")]
    Unreachable {
        /// The contact points.
        points: String,
        /// What was tried last.
        detail: String,
    },
    /// The server does not let us in.
    #[error("the CQL server at {points} refuses the login: {detail}")]
    Login {
        /// The contact points.
        points: String,
        /// What the server said.
        detail: String,
    },
    /// What TLS is to work with is not usable.
    #[error("TLS to the CQL server: {0}")]
    Tls(String),
    /// The name can be no keyspace.
    #[error("`{0}` can be no keyspace: 1 to 48 lower case letters, digits and `_`, a letter first")]
    KeyspaceName(String),
    /// The keyspace, or its tables, are not there.
    #[error("keyspace `{keyspace}` {problem}; run `rookery migrate-schema`")]
    Schema {
        /// The keyspace.
        keyspace: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A newer version of Rookery, or somebody else, has changed the tables.
    #[error("keyspace `{keyspace}` {problem}; use the version of Rookery that made it")]
    Foreign {
        /// The keyspace.
        keyspace: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The server refused a statement.
    #[error("the CQL server refused to {action}: {detail}")]
    Statement {
        /// What was tried.
        action: String,
        /// What the server said.
        detail: String,
    },
}
