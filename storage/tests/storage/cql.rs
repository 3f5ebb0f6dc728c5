//! The CQL engine is what the traits promise, on a running server; and what can be wrong with a server.

use super::support;
use ::scylla::client::{session::Session, session_builder::SessionBuilder};
use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use rookery_cql_server::Access;
use rookery_protocol::{
    Incarnation, SessionId, Timestamp, UserId,
    api::{SessionStatus, StatusChange},
};
use rookery_storage::{
    EARLY_KEPT_SECS, Fence, Gate, KeyKind, KeyOp, SessionRow, StoreError, Stores,
    conformance::{Factory, run_all},
    scylla::{self, OpenError, Options, Password},
};
use std::sync::Arc;

/// Random histories; each takes a connection or two.
const CASES: u32 = 4;

/// Tables that hold what belongs to sessions.
const FENCED: [&str; 8] =
    ["sessions", "keys", "outbox", "journal", "history", "history_by_id", "windows", "session_rows"];

struct Cql(Options);

#[async_trait]
impl Factory for Cql {
    /// All places are one keyspace: everything is made under fresh ids.
    async fn open_with_gate(&self, _place: &str, gate: Arc<dyn Gate>) -> Result<Stores> {
        Ok(scylla::open_with_gate(&self.0, gate).await?)
    }
}

/// The server that all tests share, and a keyspace of this test's own.
fn options(test: &str) -> Result<Option<(Access, Options)>> {
    let Some(access) = tokio::task::block_in_place(rookery_cql_server::shared)? else { return Ok(None) };
    let options = with(&access, &format!("{test}_{}_{:08x}", std::process::id(), rand::random::<u32>()));
    Ok(Some((access, options)))
}

pub(super) fn with(access: &Access, keyspace: &str) -> Options {
    let login = access.login.clone().map(|(user, password)| (user, Password(password)));
    let copies = u16::try_from(access.nodes.min(3)).unwrap_or(1);
    Options {
        login,
        migrate: true,
        replication_factor: copies,
        ..Options::new(access.contact_points.clone(), keyspace)
    }
}

async fn raw(access: &Access) -> Result<Session> {
    let mut builder = SessionBuilder::new().known_nodes(&access.contact_points);
    if let Some((user, password)) = &access.login {
        builder = builder.user(user, password);
    }
    Ok(builder.build().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cql_engine_conforms_and_writes_with_logical_timestamps() -> Result<()> {
    let Some((access, options)) = options("conformance")? else { return Ok(()) };
    run_all(&Cql(options.clone()), support::seed(), CASES).await?;
    let session = raw(&access).await?;
    for table in FENCED {
        let statement = format!("SELECT WRITETIME(value) FROM {}.{table}", options.keyspace);
        let rows = session.query_unpaged(statement, ()).await?.into_rows_result()?;
        let mut found = 0;
        for row in rows.rows::<(Option<i64>,)>()? {
            let (time,) = row?;
            // A clock would give 2^50 microseconds; the epochs of a test stay far below.
            assert!(time.is_some_and(|time| time < 1 << 44), "{table} has a row of a clock's time: {time:?}");
            found += 1;
        }
        assert!(found > 0 || ["outbox", "journal"].contains(&table), "{table} was not written");
    }
    what_waits_goes_by_itself(&session, &options.keyspace).await
}

/// Rows that wait for their message have an end, and nothing else of a session has.
async fn what_waits_goes_by_itself(session: &Session, keyspace: &str) -> Result<()> {
    let statement = format!("SELECT partition, key, TTL(value) FROM {keyspace}.session_rows");
    let rows = session.query_unpaged(statement, ()).await?.into_rows_result()?;
    let mut waiting = 0;
    for row in rows.rows::<(Vec<u8>, Vec<u8>, Option<i32>)>()? {
        let (partition, key, ends) = row?;
        let waits = partition.last() == Some(&2) && key.first() == Some(&1);
        assert_eq!(ends.is_some(), waits, "{partition:02x?} {key:02x?}");
        assert!(ends.is_none_or(|secs| i64::from(secs) <= EARLY_KEPT_SECS));
        waiting += u32::from(waits);
    }
    assert!(waiting > 0, "nothing waits");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_at_once_end_with_one_schema() -> Result<()> {
    let Some((access, options)) = options("schema")? else { return Ok(()) };
    let absent = Options { migrate: false, ..options.clone() };
    let error = scylla::open(&absent).await.err().context("there is no keyspace")?;
    assert!(matches!(error, OpenError::Schema { .. }), "{error}");
    assert!(error.to_string().contains("migrate-schema") && !error.to_string().contains('\n'), "{error}");

    let (a, b, c) = tokio::join!(scylla::open(&options), scylla::open(&options), scylla::open(&options));
    let opened = [a?, b?, c?];
    let rows: Vec<_> = (0..30).map(|_| session_row()).collect();
    for (number, row) in rows.iter().enumerate() {
        opened[number % 3].sessions.create(row).await?;
    }
    for stores in &opened {
        for row in &rows {
            assert_eq!(stores.sessions.get(row.session_id).await?.as_ref(), Some(row), "nothing is lost");
        }
    }
    assert_eq!(scylla::migrate(&options).await?, 0, "there is nothing left to do");

    let session = raw(&access).await?;
    let newer = format!("INSERT INTO {}.migrations (number, checksum) VALUES (1000, '')", options.keyspace);
    session.query_unpaged(newer, ()).await?;
    for options in [&absent, &options] {
        let error = scylla::open(options).await.err().context("the schema is newer")?;
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_used_is_named_in_one_line() -> Result<()> {
    let nobody = Options::new(vec!["127.0.0.1:9".to_owned()], "rookery");
    let error = scylla::open(&nobody).await.err().context("nobody listens there")?;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1:9") && !error.to_string().contains('\n'), "{error}");
    let bad = Options::new(vec!["127.0.0.1:9".to_owned()], "no; such");
    assert!(matches!(scylla::open(&bad).await.err(), Some(OpenError::KeyspaceName(_))));

    let Some((access, options)) = options("login")? else { return Ok(()) };
    if access.login.is_some() {
        let wrong = Options { login: Some(("cassandra".to_owned(), Password("secret-guess".to_owned()))), ..options };
        let error = scylla::open(&wrong).await.err().context("the password is wrong")?;
        assert!(matches!(error, OpenError::Login { .. }), "{error}");
        let shown = format!("{error} {error:?} {wrong:?}");
        assert!(!shown.contains("secret-guess") && !error.to_string().contains('\n'), "{shown}");
    }
    Ok(())
}

fn session_row() -> SessionRow {
    let at = Timestamp::from_secs(1_755_000_000);
    SessionRow {
        session_id: SessionId::generate(),
        user_id: UserId::generate(),
        name: "a session".to_owned(),
        wanted: true,
        device: None,
        lid: None,
        push_name: None,
        created_at: at,
        connected_at: None,
        last_error: None,
        statuses: vec![StatusChange { status: SessionStatus::Starting, at }],
    }
}

/// A session, and the right to write it.
pub(super) async fn claimed(stores: &Stores) -> Result<Fence> {
    let row = session_row();
    stores.sessions.create(&row).await?;
    claim(stores, row.session_id).await
}

pub(super) async fn claim(stores: &Stores, session: SessionId) -> Result<Fence> {
    let seen = stores.owners.read(session).await?.context("an owner row")?;
    Ok(stores.owners.claim(session, &seen, &"node".parse()?, Incarnation::generate()).await?)
}

pub(super) fn put(key: &str, value: &str) -> KeyOp {
    KeyOp::Put { kind: KeyKind::Session, key: Bytes::from(key.to_owned()), value: Bytes::from(value.to_owned()) }
}

/// An old owner in another process does not hear of the claim. Whatever it writes late, at whatever step, changes
/// nothing that the new owner has loaded.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_changes_nothing() -> Result<()> {
    let Some((_, options)) = options("zombie")? else { return Ok(()) };
    let (old_node, new_node) = (scylla::open(&options).await?, scylla::open(&options).await?);
    let old = claimed(&old_node).await?;
    let session = old.session();
    old_node.keys.write(&old, vec![put("kept", "old"), put("changed", "old"), put("removed", "old")]).await?;
    let row = old_node.sessions.get(session).await?.context("a session")?;

    let new = claim(&new_node, session).await?;
    let late = SessionRow { name: "late".to_owned(), ..row.clone() };
    let zombie = |step: &'static str| {
        let (stores, fence) = (old_node.clone(), old.clone());
        async move {
            let ops = vec![put("kept", step), put("changed", step), put("new", step), put("removed", step)];
            stores.keys.write(&fence, ops).await?;
            stores.keys.clear(&fence).await?;
            stores.keys.write(&fence, vec![put("kept", step), put("new", step)]).await
        }
    };
    zombie("after the claim").await?;
    let loaded = new_node.keys.scan(session, KeyKind::Session, b"").await?;
    assert_eq!(keys(&loaded), [("changed", "old"), ("kept", "old"), ("removed", "old")], "as it was sealed");
    new_node.keys.write(&new, vec![put("changed", "new")]).await?;
    let removed = KeyOp::Delete { kind: KeyKind::Session, key: "removed".into() };
    new_node.keys.write(&new, vec![removed]).await?;
    new_node.sessions.update(&new, &SessionRow { name: "new".to_owned(), ..row.clone() }).await?;
    zombie("after the first writes").await?;
    let expected = [("changed", "new"), ("kept", "old")];
    let loaded = new_node.keys.scan(session, KeyKind::Session, b"").await?;
    assert_eq!(keys(&loaded), expected);
    old_node.sessions.update(&old, &late).await?;
    assert_eq!(new_node.sessions.get(session).await?.context("a session")?.name, "new");

    // A planned handover needs no seal: there is no write whose outcome is not known.
    new_node.owners.release(&new).await?;
    let third = claim(&old_node, session).await?;
    zombie("after the next handover").await.expect_err("the process knows the newer epoch by now");
    let loaded = old_node.keys.scan(session, KeyKind::Session, b"").await?;
    assert_eq!(keys(&loaded), expected);
    assert_eq!(third.epoch().0, 3);
    let refused = new_node.keys.write(&old, vec![put("kept", "refused")]).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    Ok(())
}

fn keys(rows: &[(Bytes, Bytes)]) -> Vec<(&str, &str)> {
    let text = |bytes| std::str::from_utf8(bytes).unwrap_or("no text");
    rows.iter().map(|(key, value)| (text(key), text(value))).collect()
}
