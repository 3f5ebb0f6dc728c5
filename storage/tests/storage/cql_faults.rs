//! Faults of a database of three nodes under load: what was acknowledged is read back, and what is not possible is
//! refused in time.

use super::{
    cql::{self, Cql},
    cql_fence::{self, Raw},
    support,
};
use ::scylla::{client::session_builder::SessionBuilder, statement::Consistency};
use anyhow::{Context, Result};
use rookery_cql_server::Cluster;
use rookery_storage::{Fence, KeyKind, Stores, conformance::run_all, scylla};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{task::JoinHandle, time::sleep};

/// Sessions that are written side by side.
const WRITERS: usize = 8;
/// The longest that a write may take while one of three nodes is away.
const WORST_OF_ONE: Duration = Duration::from_millis(2_500);
/// The longest that a call may take whatever is away: attempts, and their limits.
const WORST_OF_ALL: Duration = Duration::from_secs(10);
/// How long the database may take to be well again.
const RECOVERY: Duration = Duration::from_secs(90);

/// Writers that count up, each a key of its session, and remember what was acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Result<(Fence, u64, Duration)>>>,
}

impl Load {
    async fn start(stores: &Stores) -> Result<Self> {
        let (stop, acknowledged, failed) = (Arc::default(), Arc::default(), Arc::default());
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            let fence = cql::claimed(stores).await?;
            let (stores, stop): (_, Arc<AtomicBool>) = (stores.clone(), Arc::clone(&stop));
            let (acknowledged, failed): (Arc<AtomicU64>, Arc<AtomicU64>) =
                (Arc::clone(&acknowledged), Arc::clone(&failed));
            writers.push(tokio::spawn(async move {
                let (mut last, mut number, mut worst) = (0, 0_u64, Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let start = Instant::now();
                    let written = stores.keys.write(&fence, vec![cql::put("count", &number.to_string())]).await;
                    worst = worst.max(start.elapsed());
                    if written.is_ok() {
                        last = number;
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    } else {
                        failed.fetch_add(1, Ordering::Relaxed);
                        sleep(Duration::from_millis(20)).await;
                    }
                }
                Ok((fence, last, worst))
            }));
        }
        Ok(Self { stop, acknowledged, failed, writers })
    }

    /// Waits until so many more writes were acknowledged.
    async fn more(&self, count: u64) -> Result<()> {
        let (start, from) = (Instant::now(), self.acknowledged.load(Ordering::Relaxed));
        while self.acknowledged.load(Ordering::Relaxed) < from + count {
            anyhow::ensure!(start.elapsed() < RECOVERY, "writes do not go on");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Stops the writers; what each had acknowledged last, how many failed, and the longest write.
    async fn stop(self) -> Result<(BTreeMap<u64, (Fence, u64)>, u64, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        let (mut last, mut worst) = (BTreeMap::new(), Duration::ZERO);
        for (number, writer) in (0..).zip(self.writers) {
            let (fence, acknowledged, longest) = writer.await??;
            worst = worst.max(longest);
            last.insert(number, (fence, acknowledged));
        }
        Ok((last, self.failed.load(Ordering::Relaxed), worst))
    }
}

/// Every acknowledged write is there, or a later one that was not answered.
async fn read_back(stores: &Stores, last: &BTreeMap<u64, (Fence, u64)>) -> Result<()> {
    for (fence, acknowledged) in last.values() {
        let start = Instant::now();
        let stored = loop {
            match stores.keys.get(fence.session(), KeyKind::Session, b"count").await {
                Ok(stored) => break stored.context("an acknowledged write is gone")?,
                Err(error) => anyhow::ensure!(start.elapsed() < RECOVERY, "reads do not go on: {error}"),
            }
        };
        let stored: u64 = std::str::from_utf8(&stored)?.parse()?;
        assert!(stored >= *acknowledged, "{stored} is read, {acknowledged} was acknowledged");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_the_nodes_of_the_database() -> Result<()> {
    let Some(mut cluster) = tokio::task::block_in_place(|| Cluster::start(3))? else { return Ok(()) };
    let stores = scylla::open(&cql::with(&cluster.access(), "faults")).await?;

    let load = Load::start(&stores).await?;
    load.more(200).await?;
    cluster.pause(1)?;
    load.more(200).await?;
    cluster.resume(1)?;
    load.more(50).await?;
    let (last, failed, worst) = load.stop().await?;
    println!("one node paused: {failed} failed, the longest write took {worst:?}");
    assert_eq!(failed, 0, "one of three nodes is paused");
    assert!(worst < WORST_OF_ONE, "{worst:?}");
    read_back(&stores, &last).await?;

    let load = Load::start(&stores).await?;
    load.more(200).await?;
    cluster.kill(2)?;
    load.more(200).await?;
    // With one copy gone, what was acknowledged is on the two others.
    let (last, failed, worst) = load.stop().await?;
    println!("one node killed: {failed} failed, the longest write took {worst:?}");
    assert_eq!(failed, 0, "one of three nodes is killed");
    read_back(&stores, &last).await?;

    // Now two are away: nothing can be acknowledged, and every call says so in time.
    let load = Load::start(&stores).await?;
    load.more(100).await?;
    cluster.pause(1)?;
    let start = Instant::now();
    assert!(
        cql::claimed(&stores).await.is_err() && start.elapsed() < WORST_OF_ALL,
        "a session was made by one of three nodes"
    );
    let (some, _) = last.first_key_value().map(|(_, entry)| entry).context("a session")?;
    let start = Instant::now();
    assert!(
        cql::claim(&stores, some.session()).await.is_err() && start.elapsed() < WORST_OF_ALL,
        "a claim was decided by one of three nodes"
    );
    cluster.resume(1)?;
    load.more(200).await?;
    let (last, _, worst) = load.stop().await?;
    assert!(worst < WORST_OF_ALL, "{worst:?}");
    read_back(&stores, &last).await?;

    tokio::task::block_in_place(|| cluster.restart(2))?;
    // Whatever a claim of unknown outcome came to, the next one is decided, and its fence is the newest.
    let start = Instant::now();
    let mut claimed = cql::claim(&stores, some.session()).await;
    while claimed.is_err() && start.elapsed() < RECOVERY {
        sleep(Duration::from_millis(200)).await;
        claimed = cql::claim(&stores, some.session()).await;
    }
    let fence = claimed?;
    stores.keys.write(&fence, vec![cql::put("count", "0")]).await?;
    let epoch = stores.owners.read(some.session()).await?.context("an owner")?.epoch;
    assert_eq!(epoch, fence.epoch());
    read_back(&stores, &last.into_iter().filter(|(_, (of, _))| of.session() != some.session()).collect()).await?;
    stores.engine.close().await?;
    let start = Instant::now();
    run_all(&Cql(cql::with(&cluster.access(), "three_copies")), support::seed(), 1)
        .await
        .context("with three copies")?;
    println!("conformance with three copies took {:?}", start.elapsed());
    let start = Instant::now();
    what_reached_one_node_alone_changes_nothing(&mut cluster).await?;
    println!("what reached one node took {:?}", start.elapsed());
    Ok(())
}

/// An old owner's writes had failed and reached one node alone. One session is taken over while that node is away,
/// another one when it is back: whatever was loaded then stays what it is, for this owner and for the next.
async fn what_reached_one_node_alone_changes_nothing(cluster: &mut Cluster) -> Result<()> {
    let options = cql::with(&cluster.access(), "one_node");
    let (old_node, new_node) = (scylla::open(&options).await?, scylla::open(&options).await?);
    let raw = Raw { session: cql::raw(&cluster.access()).await?, keyspace: options.keyspace.clone() };
    let mut owners = Vec::new();
    for _ in 0..2 {
        let owner = cql::claimed(&old_node).await?;
        cql_fence::fill(&old_node, &owner, 1).await?;
        cql_fence::fill(&old_node, &owner, 2).await?;
        owners.push((owner.clone(), raw.everything(owner.session()).await?));
    }

    cluster.kill(1)?;
    cluster.kill(2)?;
    let alone = SessionBuilder::new().known_node(&cluster.access().contact_points[0]).build().await?;
    for (owner, seen) in &owners {
        let stamp = (owner.epoch().0 << 30 | 1 << 29).cast_signed();
        for (table, rows) in seen {
            for ((partition, key), (value, _)) in rows {
                // A journal that cannot be read would end the takeover.
                let other = if *table == "journal" { value.clone() } else { another(value) };
                let new = ([key, &b"failed"[..]].concat(), value.clone());
                let failed = match (*table, partition.first()) {
                    // Of the rows that say that there is a session one has content, which no owner adds another to.
                    ("sessions", Some(&0x20)) => vec![(key.clone(), other)],
                    ("sessions", _) => Vec::new(),
                    _ => vec![(key.clone(), other), new],
                };
                for (key, value) in failed {
                    let mut statement = ::scylla::statement::Statement::new(format!(
                        "INSERT INTO {}.{table} (partition, key, value) VALUES (?, ?, ?) USING TIMESTAMP {stamp}",
                        options.keyspace
                    ));
                    statement.set_consistency(Consistency::One);
                    alone.query_unpaged(statement, (partition, key, value)).await?;
                }
            }
        }
    }
    drop(alone);
    tokio::task::block_in_place(|| cluster.restart(1).and_then(|()| cluster.restart(2)))?;
    cluster.kill(0)?;

    let mut loaded = Vec::new();
    for (number, (owner, _)) in owners.iter().enumerate() {
        if number == 1 {
            tokio::task::block_in_place(|| cluster.restart(0))?;
        }
        let new = again(async || cql::claim(&new_node, owner.session()).await).await?;
        again(async || cql_fence::fill(&new_node, &new, 3).await).await?;
        let rows = again(async || raw.everything(owner.session()).await).await?;
        loaded.push((new, rows));
    }
    // From now on the node that had them is asked every time.
    cluster.kill(2)?;
    for (new, before) in &loaded {
        for _ in 0..3 {
            let now = again(async || raw.everything(new.session()).await).await?;
            cql_fence::compare(before, &now, new, "after the node's return");
        }
        let next = again(async || cql::claim(&old_node, new.session()).await).await?;
        let now = again(async || raw.everything(new.session()).await).await?;
        for table in ["keys", "sessions"] {
            let values =
                |of: &cql_fence::Everything| of[table].values().map(|(value, _)| value.clone()).collect::<Vec<_>>();
            assert_eq!(values(&now), values(before), "the next owner has another {table}");
        }
        anyhow::ensure!(next.epoch() > new.epoch());
    }
    Ok(())
}

/// Another value of the same row: as an owner writes it, where the row holds a text of [`cql_fence::fill`]. What reached
/// one node may be what the next owner loads, and an owner reads these rows before it changes them.
fn another(value: &[u8]) -> Vec<u8> {
    for (text, other) in [(b"round".as_slice(), b"other".as_slice()), (b"OUT", b"TUO")] {
        if let Some(at) = value.windows(text.len()).position(|part| part == text) {
            return [&value[..at], other, &value[at + text.len()..]].concat();
        }
    }
    [value, b"failed"].concat()
}

/// Tries until the database has found itself again.
async fn again<T>(what: impl AsyncFn() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match what().await {
            Err(error) if start.elapsed() < RECOVERY => {
                println!("not yet: {error}");
                sleep(Duration::from_millis(200)).await;
            }
            done => return done,
        }
    }
}
