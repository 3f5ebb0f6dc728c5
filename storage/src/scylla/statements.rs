//! Every statement on the tables, prepared when it is first used.

use scylla::statement::prepared::PreparedStatement;
use tokio::sync::OnceCell;

/// The columns of a node.
const NODE: &str = "node, incarnation, seq, status, link_address, api_address, weight, protocol, version, started_at";

/// Most nodes that a list has.
const NODES_LIMIT: u32 = 1_000;

/// How a statement is to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A read.
    Read,
    /// A write that may be repeated.
    Write,
    /// A conditional write: never repeated.
    Conditional,
    /// A read that brings an undecided conditional write to an end first.
    Serial,
}

/// A statement.
pub(super) struct Statement {
    /// Its name in metrics and logs.
    pub(super) name: &'static str,
    pub(super) cql: String,
    pub(super) kind: Kind,
    /// Whether it goes before all others instead of waiting for its turn.
    pub(super) urgent: bool,
    pub(super) prepared: OnceCell<PreparedStatement>,
}

impl Statement {
    fn new(name: &'static str, kind: Kind, cql: String) -> Self {
        Self { name, cql, kind, urgent: false, prepared: OnceCell::new() }
    }
}

/// A table whose rows have a partition, a key and a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(super) enum Stored {
    Control,
    Sessions,
    Keys,
    Outbox,
    Journal,
    Idempotency,
    History,
    HistoryById,
    Windows,
    SessionRows,
}

impl Stored {
    /// All of them, in the order of their numbers, which journals name and which never change.
    pub(super) const ALL: [Self; 10] = [
        Self::Control,
        Self::Sessions,
        Self::Keys,
        Self::Outbox,
        Self::Journal,
        Self::Idempotency,
        Self::History,
        Self::HistoryById,
        Self::Windows,
        Self::SessionRows,
    ];

    /// Its name in the keyspace.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Sessions => "sessions",
            Self::Keys => "keys",
            Self::Outbox => "outbox",
            Self::Journal => "journal",
            Self::Idempotency => "idempotency",
            Self::History => "history",
            Self::HistoryById => "history_by_id",
            Self::Windows => "windows",
            Self::SessionRows => "session_rows",
        }
    }

    /// Whether its rows belong to sessions and are written with the timestamps of owners.
    pub(super) fn is_fenced(self) -> bool {
        !matches!(self, Self::Control | Self::Idempotency)
    }
}

/// The statements of one table.
pub(super) struct OfTable {
    pub(super) get: Statement,
    pub(super) slice: Statement,
    pub(super) slice_to_end: Statement,
    pub(super) slice_back: Statement,
    pub(super) slices: Statement,
    pub(super) many: Statement,
    pub(super) put: Statement,
    pub(super) put_expiring: Statement,
    pub(super) delete: Statement,
    pub(super) erase: Statement,
}

macro_rules! of_table {
    ($keyspace:expr, $table:literal, $fenced:expr) => {{
        let keyspace = $keyspace;
        let table = concat!(".", $table);
        let stamp = if $fenced { " USING TIMESTAMP ?" } else { "" };
        let expiry = if $fenced { " USING TIMESTAMP ? AND TTL ?" } else { " USING TTL ?" };
        let read = |name, rest: &str, columns: &str| {
            Statement::new(name, Kind::Read, format!("SELECT {columns} FROM {keyspace}{table} WHERE {rest}"))
        };
        OfTable {
            get: read(concat!($table, "_get"), "partition = ? AND key = ?", "value"),
            slice: read(concat!($table, "_slice"), "partition = ? AND key >= ? AND key < ? LIMIT ?", "key, value"),
            slice_to_end: read(concat!($table, "_slice"), "partition = ? AND key >= ? LIMIT ?", "key, value"),
            slice_back: read(
                concat!($table, "_slice_back"),
                "partition = ? AND key >= ? AND key < ? ORDER BY key DESC LIMIT ?",
                "key, value",
            ),
            slices: read(
                concat!($table, "_slices"),
                "partition IN ? AND key >= ? AND key < ? PER PARTITION LIMIT ?",
                "partition, key, value",
            ),
            many: read(concat!($table, "_many"), "partition IN ? AND key IN ?", "partition, key, value"),
            put: Statement::new(
                concat!($table, "_put"),
                Kind::Write,
                format!("INSERT INTO {keyspace}{table} (partition, key, value) VALUES (?, ?, ?){stamp}"),
            ),
            put_expiring: Statement::new(
                concat!($table, "_put_expiring"),
                Kind::Write,
                format!("INSERT INTO {keyspace}{table} (partition, key, value) VALUES (?, ?, ?){expiry}"),
            ),
            delete: Statement::new(
                concat!($table, "_delete"),
                Kind::Write,
                format!("DELETE FROM {keyspace}{table}{stamp} WHERE partition = ? AND key = ?"),
            ),
            erase: Statement::new(
                concat!($table, "_erase"),
                Kind::Write,
                format!("DELETE FROM {keyspace}{table}{stamp} WHERE partition = ?"),
            ),
        }
    }};
}

/// All statements of a keyspace.
pub(super) struct Statements {
    /// In the order of [`Stored::ALL`].
    tables: Vec<OfTable>,
    pub(super) owner_read: Statement,
    pub(super) owner_claim: Statement,
    pub(super) owner_release: Statement,
    pub(super) owner_remove: Statement,
    pub(super) owner_scan: Statement,
    pub(super) owner_scan_on: Statement,
    pub(super) node_list: Statement,
    pub(super) node_read: Statement,
    pub(super) node_create: Statement,
    pub(super) node_replace: Statement,
    pub(super) node_renew: Statement,
    pub(super) node_mark: Statement,
}

impl Statements {
    /// Those of this keyspace, which is a checked name.
    pub(super) fn new(keyspace: &str) -> Self {
        let owner = |name, kind, text: &str| {
            Statement::new(name, kind, text.replace("session_owner", &format!("{keyspace}.session_owner")))
        };
        let node = |name, kind, text: String| {
            let text = text.replace(" nodes ", &format!(" {keyspace}.nodes "));
            Statement { urgent: true, ..Statement::new(name, kind, text) }
        };
        Self {
            tables: vec![
                of_table!(keyspace, "control", false),
                of_table!(keyspace, "sessions", true),
                of_table!(keyspace, "keys", true),
                of_table!(keyspace, "outbox", true),
                of_table!(keyspace, "journal", true),
                of_table!(keyspace, "idempotency", false),
                of_table!(keyspace, "history", true),
                of_table!(keyspace, "history_by_id", true),
                of_table!(keyspace, "windows", true),
                of_table!(keyspace, "session_rows", true),
            ],
            owner_read: owner(
                "owner_read",
                Kind::Serial,
                "SELECT epoch, node, incarnation FROM session_owner WHERE session = ?",
            ),
            owner_claim: owner(
                "owner_claim",
                Kind::Conditional,
                "UPDATE session_owner SET epoch = ?, node = ?, incarnation = ? WHERE session = ? \
                 IF epoch = ? AND node = ? AND incarnation = ?",
            ),
            owner_release: owner(
                "owner_release",
                Kind::Conditional,
                "UPDATE session_owner SET node = null, incarnation = null WHERE session = ? IF epoch = ?",
            ),
            owner_remove: owner(
                "owner_remove",
                Kind::Conditional,
                "DELETE FROM session_owner WHERE session = ? IF epoch = ?",
            ),
            owner_scan: owner(
                "owner_scan",
                Kind::Read,
                "SELECT session, epoch, node, incarnation FROM session_owner LIMIT ?",
            ),
            owner_scan_on: owner(
                "owner_scan",
                Kind::Read,
                "SELECT session, epoch, node, incarnation FROM session_owner WHERE token(session) > token(?) LIMIT ?",
            ),
            node_list: node("node_list", Kind::Read, format!("SELECT {NODE} FROM nodes LIMIT {NODES_LIMIT}")),
            node_read: node("node_read", Kind::Serial, format!("SELECT {NODE} FROM nodes WHERE node = ?")),
            node_create: node(
                "node_join",
                Kind::Conditional,
                format!("INSERT INTO nodes ({NODE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS"),
            ),
            node_replace: node(
                "node_join",
                Kind::Conditional,
                "UPDATE nodes SET incarnation = ?, seq = ?, status = ?, link_address = ?, api_address = ?, weight = ?, \
                 protocol = ?, version = ?, started_at = ? WHERE node = ? IF incarnation = ? AND status = 'dead'"
                    .to_owned(),
            ),
            node_renew: node(
                "node_renew",
                Kind::Conditional,
                "UPDATE nodes SET seq = ? WHERE node = ? \
                 IF incarnation = ? AND seq = ? AND status IN ('active', 'draining')"
                    .to_owned(),
            ),
            node_mark: node(
                "node_mark",
                Kind::Conditional,
                "UPDATE nodes SET status = ? WHERE node = ? \
                 IF incarnation = ? AND seq = ? AND status IN ('active', 'draining')"
                    .to_owned(),
            ),
        }
    }

    /// Those of one table.
    pub(super) fn of(&self, table: Stored) -> &OfTable {
        &self.tables[table as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fenced_tables_have_no_write_without_a_timestamp() {
        let statements = Statements::new("k");
        for (number, table) in Stored::ALL.into_iter().enumerate() {
            assert_eq!(table as usize, number);
            let of = statements.of(table);
            assert!(of.get.cql.contains(&format!(" k.{} ", table.name())), "{}", of.get.cql);
            for statement in [&of.put, &of.put_expiring, &of.delete, &of.erase] {
                assert_eq!(statement.cql.contains("USING TIMESTAMP ?"), table.is_fenced(), "{}", statement.cql);
            }
        }
    }
}
