//! No write of an old owner changes what the next owners have: for every table of what belongs to sessions.
//!
//! A zombie is played by statements past the stores, with the highest timestamps that its epoch has, on every row that
//! the session has in a table: written over, removed, with its whole partition, and with rows of its own. Two promises
//! are held: what a newer owner has *written* does not change, in any table; and in the tables that are sealed nothing
//! changes that a newer owner has *loaded*.

use super::cql::{self, Cql};
use ::scylla::client::session::Session;
use anyhow::{Context, Result, ensure};
use rookery_protocol::{Jid, SessionId, Timestamp, api::MessageType};
use rookery_storage::{
    Accepted, ContactFacts, Fence, HistoryRow, OutboxRow, SendRecord, Stores, conformance::Factory,
    scylla::fenced_tables,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

/// The rows of a session in a table, by partition and key, with their timestamps.
pub(super) type Rows = BTreeMap<(Vec<u8>, Vec<u8>), (Vec<u8>, i64)>;

/// All that the server has of a session, by table.
pub(super) type Everything = BTreeMap<&'static str, Rows>;

/// Writes into every table; each round other values.
pub(super) async fn fill(stores: &Stores, fence: &Fence, round: u64) -> Result<()> {
    let (session, chat) = (fence.session(), "15550001@s.whatsapp.net".parse::<Jid>()?);
    let value = format!("round {round}");
    stores.keys.write(fence, vec![cql::put("peer", &value), cql::put(&value, &value)]).await?;
    let mut row = stores.sessions.get(session).await?.context("a session")?;
    row.name.clone_from(&value);
    stores.sessions.update(fence, &row).await?;
    let at = Timestamp::from_secs(1_755_000_000 + round.cast_signed());
    let message = HistoryRow {
        sort_key: at.as_secs().cast_unsigned() << 20,
        from_me: true,
        text: Some(value.clone()),
        ..HistoryRow::new(format!("OUT{round}").parse()?, chat.clone(), MessageType::Text, at)
    };
    let record = SendRecord {
        request_hash: [7; 32],
        message_id: message.message_id.clone(),
        to: "15550001".to_owned(),
        chat: chat.clone(),
        accepted_at: at,
        sort_key: message.sort_key,
    };
    let outbox = OutboxRow {
        seq: round,
        message_id: message.message_id.clone(),
        chat: chat.clone(),
        payload: value.clone().into(),
        accepted_at: at,
        sort_key: message.sort_key,
        file: None,
    };
    let idempotency = Some(([round as u8; 32], record));
    stores.outbox.accept(fence, Accepted { outbox, history: message, idempotency }).await?;
    let facts = ContactFacts { push_name: Some(value), ..ContactFacts::of(chat) };
    Ok(stores.contacts.learn(fence, vec![facts]).await?)
}

/// What a server holds, past the stores.
pub(super) struct Raw {
    pub(super) session: Session,
    pub(super) keyspace: String,
}

impl Raw {
    /// All rows of a session. A table without any has been forgotten by [`fill`].
    pub(super) async fn everything(&self, of: SessionId) -> Result<Everything> {
        let mut found = Everything::new();
        for (table, _) in fenced_tables() {
            let statement = format!("SELECT partition, key, value, WRITETIME(value) FROM {}.{table}", self.keyspace);
            let rows = self.session.query_unpaged(statement, ()).await?.into_rows_result()?;
            let mut of_table = Rows::new();
            for row in rows.rows::<(Vec<u8>, Vec<u8>, Option<Vec<u8>>, Option<i64>)>()? {
                let (partition, key, value, stamp) = row?;
                // A session's own row is in a partition of many sessions.
                if [&partition, &key].iter().any(|part| part.windows(16).any(|id| id == of.as_bytes())) {
                    of_table.insert((partition, key), (value.unwrap_or_default(), stamp.unwrap_or_default()));
                }
            }
            found.insert(table, of_table);
        }
        Ok(found)
    }

    /// Puts a row with this timestamp.
    pub(super) async fn put(&self, table: &str, row: (&[u8], &[u8], &[u8]), stamp: i64) -> Result<()> {
        let statement = format!(
            "INSERT INTO {}.{table} (partition, key, value) VALUES (?, ?, ?) USING TIMESTAMP {stamp}",
            self.keyspace
        );
        self.session.query_unpaged(statement, row).await?;
        Ok(())
    }

    /// Everything that an owner of this epoch could still do to rows of a session, as they were when it had them.
    async fn attack(&self, seen: &Everything, stamps: &Stamps) -> Result<()> {
        for (table, rows) in seen {
            let sealed = fenced_tables().contains(&(*table, true));
            for ((partition, key), (value, _)) in rows {
                self.put(table, (partition, key, value), stamps.next()).await?;
                if *table == "sessions" {
                    continue;
                }
                let delete = format!(
                    "DELETE FROM {}.{table} USING TIMESTAMP {} WHERE partition = ? AND key = ?",
                    self.keyspace,
                    stamps.next()
                );
                self.session.query_unpaged(delete, (partition, key)).await?;
                if sealed {
                    let new = [key, &b"new"[..]].concat();
                    self.put(table, (partition, &new, value), stamps.next()).await?;
                }
            }
            let mut partitions: Vec<_> = rows.keys().map(|(partition, _)| partition).collect();
            partitions.dedup();
            for partition in partitions.into_iter().filter(|_| *table != "sessions") {
                let erase = format!(
                    "DELETE FROM {}.{table} USING TIMESTAMP {} WHERE partition = ?",
                    self.keyspace,
                    stamps.next()
                );
                self.session.query_unpaged(erase, (partition,)).await?;
            }
            // The last word is a row.
            for ((partition, key), (value, _)) in rows {
                self.put(table, (partition, key, value), stamps.next()).await?;
            }
        }
        Ok(())
    }
}

/// The timestamps of an epoch, the late ones.
#[derive(Clone)]
struct Stamps(Arc<AtomicI64>);

impl Stamps {
    fn of(fence: &Fence) -> Self {
        Self(Arc::new(AtomicI64::new((fence.epoch().0 << 30 | 1 << 29).cast_signed())))
    }

    fn next(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Nothing has changed in what is sealed, nor in what was written since this epoch's claim.
pub(super) fn compare(before: &Everything, after: &Everything, new: &Fence, step: &str) {
    for (table, sealed) in fenced_tables() {
        if sealed {
            assert_eq!(values(&after[table]), values(&before[table]), "{step}: {table} changed under its owner");
        }
        for (place, (value, stamp)) in &before[table] {
            if *stamp >= (new.epoch().0 << 30).cast_signed() {
                let now = after[table].get(place);
                assert_eq!(now, Some(&(value.clone(), *stamp)), "{step}: a newer owner's row of {table} changed");
            }
        }
    }
}

fn values(rows: &Rows) -> BTreeMap<&(Vec<u8>, Vec<u8>), &Vec<u8>> {
    rows.iter().map(|(place, (value, _))| (place, value)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_changes_nothing_in_any_table() -> Result<()> {
    let Some((access, options)) = cql::options("zombie")? else { return Ok(()) };
    let (factory, raw) = (Cql(options.clone()), cql::raw(&access).await?);
    let raw = Arc::new(Raw { session: raw, keyspace: options.keyspace.clone() });
    // A process each, which know nothing of each other.
    let nodes = [factory.open("").await?, factory.open("").await?, factory.open("").await?];
    let mut owner = cql::claimed(&nodes[0]).await?;
    fill(&nodes[0], &owner, 1).await?;
    let session = owner.session();

    for round in 1..6 {
        let next_node = &nodes[round % 3];
        let old = Stamps::of(&owner);
        let seen = raw.everything(session).await?;
        for (table, rows) in &seen {
            ensure!(!rows.is_empty(), "{table} has nothing of the session: fill() has to write it");
        }
        // What it writes before the claim is its good right, and it goes on through the claim, the load and the seal.
        let stop = Arc::new(AtomicBool::new(false));
        let zombie = {
            let (raw, seen, old, stop) = (Arc::clone(&raw), seen.clone(), old.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    raw.attack(&seen, &old).await?;
                    rounds += 1;
                }
                Ok::<u32, anyhow::Error>(rounds)
            })
        };
        let new = cql::claim(next_node, session).await?;
        let loaded = raw.everything(session).await?;
        raw.attack(&seen, &old).await?;
        let rounds = {
            stop.store(true, Ordering::Relaxed);
            zombie.await??
        };
        ensure!(rounds > 0);
        compare(&loaded, &raw.everything(session).await?, &new, "after the claim");

        fill(next_node, &new, round as u64 + 1).await?;
        let written = raw.everything(session).await?;
        raw.attack(&seen, &old).await?;
        compare(&written, &raw.everything(session).await?, &new, "after its writes");
        owner = new;
    }
    // The store reads as it did.
    let row = nodes[2].sessions.get(session).await?.context("a session")?;
    assert_eq!(row.name, "round 6");
    Ok(())
}
