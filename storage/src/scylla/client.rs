//! The driver: its settings, each in one place, how errors are told apart, and what is measured of every statement.
//!
//! The settings are those under which a server of three nodes that loses one, or whose node stops without closing its
//! connections, fails no request: connections are probed every two seconds, a statement that may be repeated goes to a
//! second node when the first has not answered in 100 ms, and nothing waits longer than two seconds for an answer.

use super::{
    options::{OpenError, Options},
    statements::{Kind, Statement, Statements},
};
use crate::{StoreError, metrics};
use scylla::{
    client::{
        PoolSize, execution_profile::ExecutionProfile, execution_profile::ExecutionProfileHandle, session::Session,
        session_builder::SessionBuilder,
    },
    cluster::metadata::Strategy,
    errors::{
        ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError, MetadataError,
        NewSessionError, RequestAttemptError,
    },
    policies::{
        load_balancing::DefaultPolicy,
        retry::{DefaultRetryPolicy, FallthroughRetryPolicy},
        speculative_execution::SimpleSpeculativeExecutionPolicy,
    },
    response::query_result::QueryRowsResult,
    serialize::row::SerializeRow,
    statement::{
        Consistency, SerialConsistency,
        batch::{Batch, BatchType},
        prepared::PreparedStatement,
    },
    value::CqlValue,
};
use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{sleep, timeout},
};

/// How long the server may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for a conditional statement: longer than the server's own limit, whose answer says more than ours.
const CONDITIONAL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a silent connection is probed, and how long the probe may take: a node that has stopped is noticed.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// When a statement that may be repeated is sent to a second node.
const SPECULATION: Duration = Duration::from_millis(100);
/// How often a write whose outcome is not known is tried in all. Its timestamp makes it the same write.
const WRITE_ATTEMPTS: u32 = 3;
/// A statement that took longer is logged, without its values.
const SLOW: Duration = Duration::from_millis(500);
/// A clock that differs more from the database's is warned of.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// The answer of the server to a conditional statement of unknown outcome (`CAS_WRITE_UNKNOWN`).
const CAS_WRITE_UNKNOWN: i32 = 0x1700;

/// Connections to a server.
pub(super) struct Client {
    session: Session,
    statements: Statements,
    data: ExecutionProfileHandle,
    conditional: ExecutionProfileHandle,
    room: Semaphore,
    deadline: Duration,
    closed: AtomicBool,
}

/// Why a statement did not go well.
#[derive(Debug)]
pub(super) enum Failure {
    /// It certainly had no effect.
    Refused(StoreError),
    /// Nobody knows.
    Unknown(StoreError),
}

impl Failure {
    /// What it says about a statement that was tried so often: a refusal says nothing of the attempts before.
    fn at(self, attempt: u32) -> Self {
        match self {
            Self::Refused(error) if attempt > 1 => Self::Unknown(StoreError::Engine(Box::new(error))),
            failure => failure,
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) | Failure::Unknown(error) => error,
        }
    }
}

impl Client {
    /// Connects.
    pub(super) async fn connect(options: &Options) -> Result<Self, OpenError> {
        super::schema::check_name(&options.keyspace)?;
        let mut balancing = DefaultPolicy::builder().token_aware(true);
        if let Some(datacenter) = &options.datacenter {
            balancing = balancing.prefer_datacenter(datacenter.clone()).permit_dc_failover(false);
        }
        let profile = ExecutionProfile::builder()
            .consistency(Consistency::LocalQuorum)
            .serial_consistency(Some(SerialConsistency::LocalSerial))
            .load_balancing_policy(balancing.build());
        let speculation = SimpleSpeculativeExecutionPolicy { max_retry_count: 1, retry_interval: SPECULATION };
        let data = profile
            .clone()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .retry_policy(Arc::new(DefaultRetryPolicy::new()))
            .speculative_execution_policy(Some(Arc::new(speculation)))
            .build()
            .into_handle();
        let conditional = profile
            .request_timeout(Some(CONDITIONAL_TIMEOUT))
            .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
            .build()
            .into_handle();
        let mut builder = SessionBuilder::new()
            .known_nodes(&options.contact_points)
            .default_execution_profile_handle(data.clone())
            .connection_timeout(CONNECT_TIMEOUT)
            .keepalive_interval(KEEPALIVE)
            .keepalive_timeout(KEEPALIVE)
            .pool_size(PoolSize::PerShard(NonZeroUsize::MIN))
            .keyspaces_to_fetch([options.keyspace.clone()]);
        if let Some((user, password)) = &options.login {
            builder = builder.user(user, &password.0);
        }
        if let Some(tls) = &options.tls {
            builder = builder.tls_context(Some(super::tls::config(tls)?));
        }
        let session = builder.build().await.map_err(|error| explain(options, &error))?;
        Ok(Self {
            session,
            statements: Statements::new(&options.keyspace),
            data,
            conditional,
            room: Semaphore::new(options.concurrency.max(1)),
            deadline: options.deadline,
            closed: AtomicBool::new(false),
        })
    }

    /// The statements on the tables.
    pub(super) fn statements(&self) -> &Statements {
        &self.statements
    }

    /// The driver, for what is no prepared statement: the schema.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Refuses everything from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.room.close();
    }

    /// Warns of what will hurt later: a keyspace without copies, a clock that is off.
    pub(super) async fn look_around(&self, options: &Options) {
        let cluster = self.session.get_cluster_state();
        let copies = cluster.get_keyspace(&options.keyspace).and_then(|keyspace| match &keyspace.strategy {
            Strategy::SimpleStrategy { replication_factor } => Some(*replication_factor),
            Strategy::NetworkTopologyStrategy { datacenter_repfactors } => {
                datacenter_repfactors.values().copied().max()
            }
            _ => None,
        });
        if copies == Some(1) {
            tracing::warn!(
                keyspace = options.keyspace,
                "the keyspace has one copy (replication factor 1): the loss of a database node loses data"
            );
        }
        match self.clock_difference().await {
            Ok(difference) if difference > CLOCK_TOLERANCE => tracing::warn!(
                seconds = difference.as_secs_f64(),
                "this node's clock differs from the database's; let both follow a time server"
            ),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the database's clock could not be read"),
        }
    }

    async fn clock_difference(&self) -> Result<Duration, Box<dyn std::error::Error + Send + Sync>> {
        let asked = SystemTime::now();
        let start = Instant::now();
        let statement = "SELECT toUnixTimestamp(now()) FROM system.local";
        let answer = self.session.query_unpaged(statement, ()).await?.into_rows_result()?;
        let took = start.elapsed();
        let (millis,) = answer.first_row::<(i64,)>()?;
        Ok(difference(asked, took, UNIX_EPOCH + Duration::from_millis(u64::try_from(millis)?)))
    }

    /// A read; its rows.
    pub(super) async fn read(
        &self,
        statement: &Statement,
        values: impl SerializeRow,
    ) -> Result<QueryRowsResult, StoreError> {
        let answer = self.execute(statement, &values).await?;
        answer.ok_or_else(|| StoreError::Unavailable(format!("{}: no rows in the answer", statement.name)))
    }

    /// A write that may be repeated: by its timestamp or by its key it is the same write.
    pub(super) async fn write(&self, statement: &Statement, values: impl SerializeRow) -> Result<(), Failure> {
        let mut attempt = 1;
        loop {
            match self.execute(statement, &values).await {
                Ok(_) => return Ok(()),
                Err(Failure::Unknown(error)) if attempt < WRITE_ATTEMPTS => {
                    again(statement.name, attempt, &error).await;
                }
                Err(failure) => return Err(failure.at(attempt)),
            }
            attempt += 1;
        }
    }

    /// A statement; its rows, if it has any.
    pub(super) async fn execute(
        &self,
        statement: &Statement,
        values: &impl SerializeRow,
    ) -> Result<Option<QueryRowsResult>, Failure> {
        let prepared = self.prepared(statement).await?;
        let _room = if statement.urgent { None } else { Some(self.enter().await.map_err(Failure::Refused)?) };
        let start = Instant::now();
        let answer = self.session.execute_unpaged(prepared, values).await;
        measure(statement.name, start, answer.as_ref().err());
        match answer {
            Ok(answer) => Ok(answer.into_rows_result().ok()),
            Err(error) => Err(judge(statement.kind, error)),
        }
    }

    /// Several writes into one partition, as a whole or not at all.
    pub(super) async fn batch(
        &self,
        name: &'static str,
        writes: Vec<(&Statement, Vec<CqlValue>)>,
    ) -> Result<(), Failure> {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        batch.set_execution_profile_handle(Some(self.data.clone()));
        let mut values = Vec::with_capacity(writes.len());
        for (statement, row) in writes {
            batch.append_statement(self.prepared(statement).await?.clone());
            values.push(row);
        }
        let mut attempt = 1;
        loop {
            let room = self.enter().await.map_err(Failure::Refused)?;
            let start = Instant::now();
            let answer = self.session.batch(&batch, &values).await;
            drop(room);
            measure(name, start, answer.as_ref().err());
            let Err(error) = answer else { return Ok(()) };
            match judge(Kind::Write, error) {
                Failure::Unknown(error) if attempt < WRITE_ATTEMPTS => again(name, attempt, &error).await,
                failure => return Err(failure.at(attempt)),
            }
            attempt += 1;
        }
    }

    async fn enter(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        match timeout(self.deadline, self.room.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(StoreError::Unavailable("the store is closed".to_owned())),
            Err(_) => Err(StoreError::Overloaded),
        }
    }

    async fn prepared<'a>(&self, statement: &'a Statement) -> Result<&'a PreparedStatement, Failure> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Failure::Refused(StoreError::Unavailable("the store is closed".to_owned())));
        }
        let prepare = async {
            let mut prepared = self.session.prepare(statement.cql.as_str()).await?;
            let profile = match statement.kind {
                Kind::Read | Kind::Write => self.data.clone(),
                Kind::Conditional | Kind::Serial => self.conditional.clone(),
            };
            prepared.set_execution_profile_handle(Some(profile));
            prepared.set_is_idempotent(matches!(statement.kind, Kind::Read | Kind::Write));
            if statement.kind == Kind::Serial {
                prepared.set_consistency(Consistency::LocalSerial);
            }
            Ok(prepared)
        };
        let result: Result<_, scylla::errors::PrepareError> = statement.prepared.get_or_try_init(|| prepare).await;
        result.map_err(|error| Failure::Refused(StoreError::Unavailable(format!("{}: {error}", statement.name))))
    }
}

/// How far two clocks are apart at least, when the other one was read some time while the answer took so long.
fn difference(asked: SystemTime, took: Duration, theirs: SystemTime) -> Duration {
    let ours = asked + took / 2;
    let apart = ours.duration_since(theirs).or_else(|_| theirs.duration_since(ours)).unwrap_or_default();
    apart.saturating_sub(took / 2)
}

async fn again(name: &'static str, attempt: u32, error: &StoreError) {
    tracing::debug!(statement = name, attempt, %error, "a write is tried again");
    sleep(Duration::from_millis(rand::random_range(20..80)) * attempt).await;
}

fn measure(name: &'static str, start: Instant, error: Option<&ExecutionError>) {
    let took = start.elapsed();
    ::metrics::histogram!(metrics::CQL_SECONDS, "statement" => name).record(took.as_secs_f64());
    if let Some(error) = error {
        ::metrics::counter!(metrics::CQL_ERRORS, "statement" => name, "kind" => error_kind(error)).increment(1);
    }
    if took > SLOW {
        tracing::warn!(statement = name, milliseconds = took.as_millis(), "slow statement");
    }
}

/// The kind of an error, as a label.
fn error_kind(error: &ExecutionError) -> &'static str {
    match error {
        ExecutionError::RequestTimeout(_) => "timeout",
        ExecutionError::ConnectionPoolError(_) | ExecutionError::EmptyPlan => "no_connection",
        ExecutionError::LastAttemptError(RequestAttemptError::BrokenConnectionError(_)) => "broken_connection",
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _)) => match error {
            DbError::Unavailable { .. } => "unavailable",
            DbError::WriteTimeout { .. } => "write_timeout",
            DbError::ReadTimeout { .. } => "read_timeout",
            DbError::Overloaded => "overloaded",
            _ => "server",
        },
        _ => "other",
    }
}

/// What an error says about the statement.
fn judge(kind: Kind, error: ExecutionError) -> Failure {
    let refused = |error: ExecutionError| Failure::Refused(StoreError::Unavailable(format!("the database: {error}")));
    if matches!(kind, Kind::Read | Kind::Serial) {
        return refused(error);
    }
    match &error {
        ExecutionError::ConnectionPoolError(_) | ExecutionError::EmptyPlan | ExecutionError::PrepareError(_) => {
            refused(error)
        }
        ExecutionError::LastAttemptError(RequestAttemptError::UnableToAllocStreamId) => refused(error),
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(told, _)) => match told {
            DbError::Unavailable { .. }
            | DbError::IsBootstrapping
            | DbError::Overloaded
            | DbError::RateLimitReached { .. }
            | DbError::Unauthorized
            | DbError::Invalid
            | DbError::SyntaxError => refused(error),
            DbError::Other(CAS_WRITE_UNKNOWN) => Failure::Unknown(StoreError::Engine(Box::new(error))),
            _ => Failure::Unknown(StoreError::Engine(Box::new(error))),
        },
        _ => Failure::Unknown(StoreError::Engine(Box::new(error))),
    }
}

/// Why there is no connection, in one line.
fn explain(options: &Options, error: &NewSessionError) -> OpenError {
    let points = options.contact_points.join(", ");
    let detail = error.to_string().replace('\n', " ");
    if let NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
        last_connection_error: ConnectionError::ConnectionSetupRequestError(setup),
    })) = error
        && let ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError, said) = setup.get_error()
    {
        return OpenError::Login { points, detail: said.replace('\n', " ") };
    }
    let asks = detail.contains("uthenticat") || detail.contains("credentials");
    if asks { OpenError::Login { points, detail } } else { OpenError::Unreachable { points, detail } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scylla::errors::WriteType;

    fn told(error: DbError) -> ExecutionError {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, String::new()))
    }

    #[test]
    fn clocks_are_apart_by_what_the_way_there_and_back_does_not_explain() {
        let (asked, took) = (UNIX_EPOCH + Duration::from_secs(1_000), Duration::from_millis(400));
        for (millis, apart) in [(0, 0), (200, 0), (400, 0), (2_400, 2_000), (-1_500, 1_500)] {
            let theirs =
                (asked + Duration::from_secs(10)).checked_sub(Duration::from_millis((10_000_i64 - millis) as u64));
            assert_eq!(difference(asked, took, theirs.unwrap()), Duration::from_millis(apart), "{millis}");
        }
    }

    #[test]
    fn what_is_certain_is_told_from_what_is_not() {
        let unavailable = || DbError::Unavailable { consistency: Consistency::LocalQuorum, required: 2, alive: 1 };
        let write_timeout = || DbError::WriteTimeout {
            consistency: Consistency::LocalQuorum,
            received: 1,
            required: 2,
            write_type: WriteType::Simple,
        };
        for kind in [Kind::Write, Kind::Conditional] {
            assert!(matches!(judge(kind, told(unavailable())), Failure::Refused(StoreError::Unavailable(_))));
            assert!(matches!(judge(kind, ExecutionError::EmptyPlan), Failure::Refused(_)));
            for unknown in [
                told(write_timeout()),
                told(DbError::Other(CAS_WRITE_UNKNOWN)),
                ExecutionError::RequestTimeout(REQUEST_TIMEOUT),
            ] {
                assert!(matches!(judge(kind, unknown), Failure::Unknown(StoreError::Engine(_))));
            }
        }
        let read = judge(Kind::Read, ExecutionError::RequestTimeout(REQUEST_TIMEOUT));
        assert!(matches!(read, Failure::Refused(StoreError::Unavailable(_))), "a read has no outcome");
    }
}
