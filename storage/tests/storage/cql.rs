//! The CQL engine is what the traits promise, on a running server; and what can be wrong with a server.

use super::{cql_reads, support};
use ::scylla::client::{session::Session, session_builder::SessionBuilder};
use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use rookery_cql_server::{Access, Cluster};
use rookery_protocol::{
    Incarnation, SessionId, Timestamp, UserId,
    api::{SessionStatus, StatusChange},
};
use rookery_storage::{
    EARLY_KEPT_SECS, Fence, Gate, KeyKind, KeyOp, SessionRow, StoreError, Stores,
    conformance::{Factory, run_all},
    scylla::{self, OpenError, Options, Password, Tls},
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Random histories; each takes a connection or two.
const CASES: u32 = 4;

/// Tables of which nothing belongs to a session that is written under a fence: plain timestamps, or conditional statements.
const OTHERS: [&str; 5] = ["control", "idempotency", "migrations", "nodes", "session_owner"];

pub(super) struct Cql(pub(super) Options);

#[async_trait]
impl Factory for Cql {
    /// All places are one keyspace: everything is made under fresh ids.
    async fn open_with_gate(&self, _place: &str, gate: Arc<dyn Gate>) -> Result<Stores> {
        Ok(scylla::open_with_gate(&self.0, gate).await?)
    }
}

/// The server that all tests share, and a keyspace of this test's own.
pub(super) fn options(test: &str) -> Result<Option<(Access, Options)>> {
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

pub(super) async fn raw(access: &Access) -> Result<Session> {
    let mut builder = SessionBuilder::new().known_nodes(&access.contact_points);
    if let Some((user, password)) = &access.login {
        builder = builder.user(user, password);
    }
    Ok(builder.build().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cql_engine_conforms_and_writes_with_logical_timestamps() -> Result<()> {
    let Some((access, options)) = options("conformance")? else { return Ok(()) };
    let encrypted = Options { encryption: support::encryption_keys(&["a"])?, ..options.clone() };
    run_all(&Cql(encrypted), support::seed(), CASES).await?;
    let session = raw(&access).await?;
    every_table_is_known(&session, &options.keyspace).await?;
    for (table, _) in scylla::fenced_tables() {
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

/// Every table of the keyspace is in the list of the fenced ones, or of those that need no fence.
async fn every_table_is_known(session: &Session, keyspace: &str) -> Result<()> {
    let statement = format!("SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{keyspace}'");
    let rows = session.query_unpaged(statement, ()).await?.into_rows_result()?;
    let mut found: Vec<String> =
        rows.rows::<(String,)>()?.map(|row| row.map(|(name,)| name)).collect::<Result<_, _>>()?;
    found.sort();
    let fenced = scylla::fenced_tables();
    let mut known: Vec<_> = fenced.iter().map(|(table, _)| *table).chain(OTHERS).collect();
    known.sort_unstable();
    assert_eq!(found, known);
    Ok(())
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

/// Owner rows are read ten thousand at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_of_owners_is_cheap() -> Result<()> {
    const ROWS: usize = 10_000;
    let Some((access, options)) = options("owners")? else { return Ok(()) };
    let stores = scylla::open(&options).await?;
    let session = raw(&access).await?;
    let insert = format!(
        "INSERT INTO {}.session_owner (session, epoch, node, incarnation) VALUES (?, 7, 'node-1', 5)",
        options.keyspace
    );
    let insert = session.prepare(insert).await?;
    let ids: Vec<_> = (0..ROWS).map(|_| SessionId::generate()).collect();
    stream::iter(&ids)
        .map(|id| session.execute_unpaged(&insert, (uuid::Uuid::from_bytes(*id.as_bytes()),)))
        .buffer_unordered(64)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let start = Instant::now();
    let all = stores.owners.scan(None, ROWS).await?;
    let took = start.elapsed();
    println!("{} owner rows took {took:?}", all.rows.len());
    assert_eq!(all.rows.len(), ROWS);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (mut found, mut after) = (HashSet::new(), None);
    loop {
        let page = stores.owners.scan(after, 999).await?;
        found.extend(page.rows.into_iter().map(|(session, _)| session));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, ids.into_iter().collect::<HashSet<_>>());
    Ok(())
}

/// What is too large for the server is refused, and nothing of it is written; the largest that is not is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_over_the_limit_is_refused() -> Result<()> {
    let Some((_, options)) = options("limits")? else { return Ok(()) };
    let stores = scylla::open(&options).await?;
    let fence = claimed(&stores).await?;
    let big = |bytes: usize| KeyOp::Put { kind: KeyKind::Session, key: "big".into(), value: vec![7; bytes].into() };
    let refused = stores.keys.write(&fence, vec![put("small", "v"), big(9 << 20)]).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    assert!(stores.keys.scan(fence.session(), KeyKind::Session, b"").await?.is_empty());
    let row = stores.sessions.get(fence.session()).await?.context("a session")?;
    let refused = stores.sessions.update(&fence, &SessionRow { name: "n".repeat(9 << 20), ..row.clone() }).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    assert_eq!(stores.sessions.get(fence.session()).await?, Some(row));
    stores.keys.write(&fence, vec![big(1 << 20)]).await?;
    let stored = stores.keys.get(fence.session(), KeyKind::Session, b"big").await?;
    assert_eq!(stored.map(|value| value.len()), Some(1 << 20));
    Ok(())
}

/// A row of a format that is not known stops whoever reads it, and is named by its key.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_format_is_refused_with_the_rows_key() -> Result<()> {
    let Some((access, options)) = options("formats")? else { return Ok(()) };
    let stores = scylla::open(&options).await?;
    let fence = claimed(&stores).await?;
    stores.keys.write(&fence, vec![put("peer", "state")]).await?;
    let raw = raw(&access).await?;
    let stamp = fence.next_timestamp()?.cast_signed();
    let update = format!(
        "UPDATE {}.keys USING TIMESTAMP {stamp} SET value = 0x63 WHERE partition = ? AND key = ?",
        options.keyspace
    );
    let key = [&[KeyKind::Session as u8], &b"peer"[..]].concat();
    raw.query_unpaged(update, (fence.session().as_bytes().to_vec(), key)).await?;
    let error = stores.keys.get(fence.session(), KeyKind::Session, b"peer").await.err().context("format 99")?;
    let hex = cql_reads::hex(fence.session().as_bytes());
    let said = error.to_string();
    assert!(said.contains("format 99") && said.contains(&format!("{hex}0370656572")), "{said}");
    Ok(())
}

/// A server that takes connections and says nothing, or ends them, is one that does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_at_the_start_is_named_in_time() -> Result<()> {
    for silent in [true, false] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let server = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                if silent {
                    kept.push(connection);
                }
            }
        });
        let start = Instant::now();
        let error = scylla::open(&Options::new(vec![address.clone()], "rookery")).await.err().context("no server")?;
        server.abort();
        assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains(&address) && !said.contains('\n'), "{said}");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
    Ok(())
}

/// A server that asks for TLS and a certificate lets in who has both, and nobody is let in by a server of another
/// authority.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_encrypted_and_both_sides_are_known() -> Result<()> {
    let Some(server) = tokio::task::block_in_place(Cluster::start_guarded)? else { return Ok(()) };
    let access = server.access();
    let known = access.tls.clone().context("certificates")?;
    let identity = Some((known.certificate.clone().into_bytes(), known.key.clone().into_bytes()));
    let tls = Tls { authorities: known.authority.clone().into_bytes(), identity };
    let options = Options { tls: Some(tls.clone()), ..with(&access, "guarded") };
    let stores = scylla::open(&options).await?;
    let fence = claimed(&stores).await?;
    stores.keys.write(&fence, vec![put("peer", "state")]).await?;
    stores.engine.probe().await?;
    stores.engine.close().await?;

    // The client's own certificate is of the right authority, but is no authority.
    let stranger = Tls { authorities: known.certificate.into_bytes(), ..tls.clone() };
    let nobody = Tls { identity: None, ..tls.clone() };
    for (why, tls) in [("another authority", Some(stranger)), ("no certificate", Some(nobody)), ("no TLS", None)] {
        let error = scylla::open(&Options { tls, ..options.clone() }).await.err().context(why)?;
        assert!(matches!(error, OpenError::Unreachable { .. }), "{why}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    let (user, _) = options.login.clone().context("a login")?;
    let wrong = Options { login: Some((user, Password("secret-guess".to_owned()))), ..options.clone() };
    let error = scylla::open(&wrong).await.err().context("the password is wrong")?;
    assert!(matches!(error, OpenError::Login { .. }), "{error}");
    Ok(())
}

/// What is warned of on this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            said.push(format!("{field}={value:?}"));
        });
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// One copy of the data is enough for a test, and is warned of.
#[tokio::test]
async fn a_keyspace_with_one_copy_is_warned_of() -> Result<()> {
    let shared = tokio::task::spawn_blocking(rookery_cql_server::shared).await??;
    let Some(access) = shared else { return Ok(()) };
    let keyspace = format!("one_copy_{:016x}", rand::random::<u64>());
    let options = Options { replication_factor: 1, ..with(&access, &keyspace) };
    let warnings = Warnings::default();
    let heard = tracing::subscriber::set_default(warnings.clone());
    scylla::open(&options).await?;
    drop(heard);
    let said = warnings.0.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
    assert!(said.contains("one copy") && said.contains(&keyspace), "{said}");
    assert!(!said.contains("clock"), "one clock is not apart from itself: {said}");
    Ok(())
}
