//! The tables: numbered migrations, applied once and in order.
//!
//! Every statement may be repeated and every table has a fixed id, so that processes which migrate at the same time do
//! no harm. What was applied stands in a table of its own with its checksum: a file that was changed afterwards, or a
//! number that this version does not know, is refused.

use super::{
    client::Client,
    options::{OpenError, Options},
};
use scylla::statement::unprepared::Statement;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// How long a change of the schema may take: all nodes of the server have to agree.
const SCHEMA_TIMEOUT: Duration = Duration::from_secs(60);

/// A migration: its number and its statements.
struct Migration {
    number: i32,
    text: &'static str,
}

/// All of them, in order. One that was released is never changed.
const MIGRATIONS: [Migration; 2] = [
    Migration { number: 1, text: include_str!("../../migrations/0001_tables.cql") },
    Migration { number: 2, text: include_str!("../../migrations/0002_nodes.cql") },
];

impl Migration {
    fn checksum(&self) -> String {
        hex(&Sha256::digest(self.text))
    }

    /// Its statements, for this keyspace.
    fn statements(&self, keyspace: &str) -> Vec<String> {
        let lines = self.text.lines().filter(|line| !line.trim_start().starts_with("--"));
        let text = lines.collect::<Vec<_>>().join("\n").replace("{keyspace}", keyspace);
        text.split(';').map(|statement| with_ids(keyspace, statement.trim())).filter(|text| !text.is_empty()).collect()
    }
}

/// Whether the name can be a keyspace: it becomes part of statements.
pub(super) fn check_name(keyspace: &str) -> Result<(), OpenError> {
    let fits = (1..=48).contains(&keyspace.len())
        && keyspace.starts_with(|first: char| first.is_ascii_lowercase())
        && keyspace.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if fits { Ok(()) } else { Err(OpenError::KeyspaceName(keyspace.to_owned())) }
}

/// Looks that the tables are as this version needs them, or makes them so when that is configured.
pub(super) async fn prepare(client: &Client, options: &Options) -> Result<(), OpenError> {
    if options.migrate {
        return migrate(client, options).await.map(|_| ());
    }
    let keyspace = &options.keyspace;
    let schema = |problem: String| OpenError::Schema { keyspace: keyspace.clone(), problem };
    if !has_table(client, keyspace, None).await? {
        return Err(schema("does not exist".to_owned()));
    }
    if !has_table(client, keyspace, Some("migrations")).await? {
        return Err(schema("has no tables of Rookery".to_owned()));
    }
    match pending(&applied(client, keyspace).await?, keyspace)?.len() {
        0 => Ok(()),
        missing => Err(schema(format!("lacks {missing} of {} migrations", MIGRATIONS.len()))),
    }
}

/// Makes what is missing; answers how many migrations that were.
pub(super) async fn migrate(client: &Client, options: &Options) -> Result<usize, OpenError> {
    let keyspace = &options.keyspace;
    if !has_table(client, keyspace, None).await? {
        run(client, "create the keyspace", &create_keyspace(options, knows_tablets(client).await?)).await?;
    }
    let table = format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.migrations (number int PRIMARY KEY, checksum text, applied_at timestamp) \
         WITH id = {}",
        table_id(keyspace, "migrations")
    );
    run(client, "create the table of migrations", &table).await?;
    let pending = pending(&applied(client, keyspace).await?, keyspace)?;
    for migration in &pending {
        for statement in migration.statements(keyspace) {
            run(client, &format!("apply migration {}", migration.number), &statement).await?;
        }
        let note = format!(
            "INSERT INTO {keyspace}.migrations (number, checksum, applied_at) VALUES ({}, '{}', toTimestamp(now()))",
            migration.number,
            migration.checksum()
        );
        run(client, "note a migration", &note).await?;
        tracing::info!(keyspace, number = migration.number, "migration applied");
    }
    client.session().refresh_metadata().await.map_err(|error| refused("read the schema", &error))?;
    Ok(pending.len())
}

/// The migrations that are not applied yet.
fn pending(applied: &BTreeMap<i32, String>, keyspace: &str) -> Result<Vec<&'static Migration>, OpenError> {
    let foreign = |problem| OpenError::Foreign { keyspace: keyspace.to_owned(), problem };
    let newest = MIGRATIONS.last().map_or(0, |migration| migration.number);
    if let Some((number, _)) = applied.last_key_value().filter(|(number, _)| **number > newest) {
        let problem = format!("has migration {number}, and this version of Rookery knows {newest}");
        return Err(foreign(problem));
    }
    let mut pending = Vec::new();
    for migration in &MIGRATIONS {
        match applied.get(&migration.number) {
            None => pending.push(migration),
            Some(checksum) if *checksum == migration.checksum() => {}
            Some(_) => return Err(foreign(format!("has another migration {}", migration.number))),
        }
    }
    Ok(pending)
}

async fn applied(client: &Client, keyspace: &str) -> Result<BTreeMap<i32, String>, OpenError> {
    let action = "read which migrations are applied";
    let statement = format!("SELECT number, checksum FROM {keyspace}.migrations");
    let answer = client.session().query_unpaged(statement, ()).await.map_err(|error| refused(action, &error))?;
    let rows = answer.into_rows_result().map_err(|error| refused(action, &error))?;
    let rows = rows.rows::<(i32, String)>().map_err(|error| refused(action, &error))?;
    rows.map(|row| row.map_err(|error| refused(action, &error))).collect()
}

/// Whether there is such a keyspace, or such a table in it.
async fn has_table(client: &Client, keyspace: &str, table: Option<&str>) -> Result<bool, OpenError> {
    let action = "read the schema";
    let (of, and) = match table {
        None => ("keyspaces", String::new()),
        Some(table) => ("tables", format!(" AND table_name = '{table}'")),
    };
    let statement = format!("SELECT keyspace_name FROM system_schema.{of} WHERE keyspace_name = '{keyspace}'{and}");
    let answer = client.session().query_unpaged(statement, ()).await.map_err(|error| refused(action, &error))?;
    Ok(answer.into_rows_result().map_err(|error| refused(action, &error))?.rows_num() > 0)
}

/// Whether the server keeps tables in tablets unless it is told not to. Only ScyllaDB has the word.
async fn knows_tablets(client: &Client) -> Result<bool, OpenError> {
    let action = "ask what the server can do";
    let statement = "SELECT column_name FROM system_schema.columns WHERE keyspace_name = 'system_schema' \
                     AND table_name = 'scylla_keyspaces' AND column_name = 'initial_tablets'";
    let answer = client.session().query_unpaged(statement, ()).await.map_err(|error| refused(action, &error))?;
    Ok(answer.into_rows_result().map_err(|error| refused(action, &error))?.rows_num() > 0)
}

/// Conditional statements need tables without tablets on servers before 2025.4.
fn create_keyspace(options: &Options, tablets: bool) -> String {
    let place = options.datacenter.as_deref().unwrap_or("replication_factor").replace('\'', "''");
    let without = if tablets { " AND tablets = {'enabled': false}" } else { "" };
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = \
         {{'class': 'NetworkTopologyStrategy', '{place}': {}}}{without}",
        options.keyspace, options.replication_factor
    )
}

async fn run(client: &Client, action: &str, statement: &str) -> Result<(), OpenError> {
    let mut statement = Statement::new(statement);
    statement.set_request_timeout(Some(SCHEMA_TIMEOUT));
    client.session().query_unpaged(statement, ()).await.map(|_| ()).map_err(|error| refused(action, &error))
}

fn refused(action: &str, error: &dyn std::error::Error) -> OpenError {
    OpenError::Statement { action: action.to_owned(), detail: error.to_string().replace('\n', " ") }
}

/// The statement with the ids of its tables.
fn with_ids(keyspace: &str, statement: &str) -> String {
    let mut text = statement.to_owned();
    while let Some(start) = text.find("{id:") {
        let end = start + text[start..].find('}').expect("a migration closes its braces");
        let id = table_id(keyspace, &text[start + 4..end]);
        text.replace_range(start..=end, &id.to_string());
    }
    text
}

/// The id of a table: made of its name, in the form of a random one.
fn table_id(keyspace: &str, table: &str) -> Uuid {
    let digest = Sha256::digest(format!("rookery {keyspace}.{table}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_become_part_of_statements_are_checked() {
        for good in ["rookery", "r", "r_2"] {
            check_name(good).unwrap();
        }
        for bad in ["", "Rookery", "2r", "r-k", "r; DROP", "_r", &"r".repeat(49)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tables_have_ids_of_their_own_in_every_keyspace() {
        let ids = [("a", "x"), ("a", "y"), ("b", "x")].map(|(keyspace, table)| table_id(keyspace, table));
        assert!(ids[0] != ids[1] && ids[0] != ids[2]);
        assert_eq!(ids[0], table_id("a", "x"));
    }

    #[test]
    fn migrations_are_whole_statements_in_order() {
        assert!(MIGRATIONS.iter().enumerate().all(|(index, migration)| migration.number == index as i32 + 1));
        for migration in &MIGRATIONS {
            for statement in migration.statements("k") {
                assert!(statement.starts_with("CREATE TABLE IF NOT EXISTS k.") || statement.starts_with("ALTER"));
                assert!(!statement.contains("{id:") && !statement.contains("{keyspace}"), "{statement}");
            }
        }
    }

    #[test]
    fn a_released_migration_is_never_changed() {
        let sums: Vec<_> = MIGRATIONS.iter().map(|migration| migration.checksum()[..16].to_owned()).collect();
        assert_eq!(sums, ["82942f416867b444", "abed4068eb2d321b"]);
    }

    #[test]
    fn newer_and_other_migrations_are_refused() {
        let current: BTreeMap<_, _> = MIGRATIONS.iter().map(|one| (one.number, one.checksum())).collect();
        assert!(pending(&current, "k").unwrap().is_empty());
        assert_eq!(pending(&BTreeMap::new(), "k").unwrap().len(), MIGRATIONS.len());
        let mut newer = current.clone();
        newer.insert(1_000, String::new());
        assert!(matches!(pending(&newer, "k"), Err(OpenError::Foreign { .. })));
        let other = BTreeMap::from([(1, "other".to_owned())]);
        assert!(matches!(pending(&other, "k"), Err(OpenError::Foreign { .. })));
    }

    #[test]
    fn tablets_are_named_only_where_they_are_known() {
        let options = Options { replication_factor: 1, ..Options::new(Vec::new(), "k") };
        assert!(create_keyspace(&options, true).contains("tablets"));
        assert!(!create_keyspace(&options, false).contains("tablets"));
    }
}
