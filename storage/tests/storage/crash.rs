//! A process that is killed at any moment loses nothing that it had been told, and leaves nothing torn.
//!
//! The test runs itself again as a child that writes without end and reports every answer on its standard
//! output. After a while the child is killed. Then the data is opened here, and compared with the report.

use super::support;
use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rookery_protocol::{Incarnation, Jid, SessionId, Timestamp, UserId, api::MessageType};
use rookery_storage::{
    Accepted, Fence, HistoryQuery, HistoryRow, KeyKind, KeyOp, MessageReceipt, OutboxRow, ReceiptKind, SendOutcome,
    SendRecord, SessionRow, Stores,
};
use std::{
    collections::BTreeMap,
    env,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The directory that a child writes in; its presence makes a process a child.
const CHILD_DIR: &str = "ROOKERY_CRASH_DIR";

const ROUNDS: u32 = 200;
const WRITERS: u64 = 8;

/// Rows that one list of key changes writes, all with the same number in them.
const KEYS: u8 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_being_killed() -> Result<()> {
    if let Ok(dir) = env::var(CHILD_DIR) {
        return write_without_end(Path::new(&dir)).await;
    }
    let mut random = StdRng::seed_from_u64(support::seed());
    let start = Instant::now();
    let mut acknowledged = 0;
    let mut dir = tempfile::tempdir()?;
    let mut known = Known::default();
    for round in 0..ROUNDS {
        if round % 10 == 0 {
            dir = tempfile::tempdir()?;
            known = Known::default();
        }
        let data = dir.path().join("data");
        let report = run_and_kill(&data, Duration::from_micros(random.random_range(0..100_000))).await?;
        acknowledged += known.learn(&report)?;
        if data.exists() {
            known.check(&data).await.with_context(|| format!("round {round}, {:?}", dir.path()))?;
        }
    }
    println!("{ROUNDS} rounds in {:?}, {acknowledged} writes acknowledged", start.elapsed());
    assert!(acknowledged > u64::from(ROUNDS), "the children must have written");
    Ok(())
}

/// Runs a child, lets it write for as long, kills it, and answers what it reported.
async fn run_and_kill(dir: &Path, time: Duration) -> Result<Vec<String>> {
    let mut child = Command::new(env::current_exe()?)
        .args(["--exact", "storage::crash::what_was_acknowledged_survives_being_killed", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("the output is piped")?);
    let reader = thread::spawn(move || output.lines().map_while(io::Result::ok).collect::<Vec<_>>());
    // The moment of the kill is what is random here; nothing is waited for.
    tokio::time::sleep(time).await;
    child.kill()?;
    let status = child.wait()?;
    ensure!(!status.success(), "the child ended by itself");
    let mut lines = reader.join().expect("the reader does not panic");
    // The harness writes lines of its own, and the last one may be cut short.
    lines.retain(|line| line.starts_with("ack ") && line.ends_with(" ."));
    Ok(lines)
}

// What the child does.

/// Prints a line as a whole, at once.
fn report(line: &str) {
    let mut output = io::stdout().lock();
    let _ = output.write_all(format!("\nack {line} .\n").as_bytes());
    let _ = output.flush();
}

async fn write_without_end(dir: &Path) -> Result<()> {
    let stores = support::open(dir).await?;
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(stores.clone(), writer))).collect();
    for writer in writers {
        writer.await??;
    }
    Ok(())
}

async fn write(stores: Stores, writer: u64) -> Result<()> {
    let session = SessionRow::new(UserId::generate(), format!("writer {writer}"), Timestamp::now());
    let id = session.session_id;
    stores.sessions.create(&session).await?;
    report(&format!("session {id}"));
    let seen = stores.owners.read(id).await?.context("an owner row")?;
    let fence = stores.owners.claim(id, &seen, &"node-1".parse()?, Incarnation::generate()).await?;
    report(&format!("epoch {id} {}", fence.epoch()));
    for number in 1.. {
        stores.keys.write(&fence, key_ops(number)).await?;
        report(&format!("keys {id} {number}"));
        stores.outbox.accept(&fence, accepted(number)).await?;
        report(&format!("accepted {id} {number}"));
        if number % 2 == 0 {
            stores.outbox.resolve(&fence, number, SendOutcome::Sent(at(number))).await?;
            report(&format!("resolved {id} {number}"));
            receipt(&stores, &fence, number).await?;
            report(&format!("read {id} {number}"));
        }
        stores.history.insert(&fence, (0..3).map(|part| inbound(number, part)).collect()).await?;
        report(&format!("inbound {id} {number}"));
    }
    Ok(())
}

async fn receipt(stores: &Stores, fence: &Fence, number: u64) -> Result<()> {
    let id = accepted(number).history.message_id;
    let receipt =
        MessageReceipt { chat: chat(), participant: None, ids: vec![id], kind: ReceiptKind::Read, at: at(number) };
    for answer in stores.history.receipts(vec![(fence.clone(), receipt)]).await? {
        answer?;
    }
    Ok(())
}

fn chat() -> Jid {
    Jid::from_phone("15550001").expect("a phone number")
}

fn at(number: u64) -> Timestamp {
    Timestamp::from_secs(1_755_000_000 + number.cast_signed())
}

/// A list of changes that hangs together: each row says the same number.
fn key_ops(number: u64) -> Vec<KeyOp> {
    let value = number.to_be_bytes().to_vec();
    let put = |key: u8| KeyOp::Put { kind: KeyKind::Session, key: vec![key].into(), value: value.clone().into() };
    (0..KEYS).map(put).collect()
}

fn message(id: &str, sort_key: u64, own: bool) -> HistoryRow {
    HistoryRow {
        sort_key,
        sender: (!own).then(chat),
        from_me: own,
        text: Some("x".repeat(200)),
        ..HistoryRow::new(id.parse().expect("an id"), chat(), MessageType::Text, at(sort_key >> 20))
    }
}

fn inbound(number: u64, part: u64) -> HistoryRow {
    message(&format!("IN{number}-{part}"), number << 20 | (part + 1), false)
}

fn accepted(number: u64) -> Accepted {
    let history = message(&format!("OUT{number}"), number << 20, true);
    let outbox = OutboxRow {
        seq: number,
        message_id: history.message_id.clone(),
        chat: chat(),
        payload: vec![0; 100].into(),
        accepted_at: at(number),
        sort_key: history.sort_key,
        file: None,
    };
    let record = SendRecord {
        request_hash: [0; 32],
        message_id: history.message_id.clone(),
        to: "15550001".to_owned(),
        chat: chat(),
        accepted_at: at(number),
        sort_key: history.sort_key,
    };
    Accepted { outbox, history, idempotency: Some((key_of(number), record)) }
}

fn key_of(number: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

// What the parent knows.

/// What the children of one directory had been told.
#[derive(Default)]
struct Known {
    sessions: BTreeMap<SessionId, Told>,
}

/// The highest number of each kind that was acknowledged.
#[derive(Default)]
struct Told {
    epoch: u64,
    keys: u64,
    accepted: u64,
    resolved: u64,
    read: u64,
    inbound: u64,
}

impl Known {
    fn learn(&mut self, report: &[String]) -> Result<u64> {
        for line in report {
            let words: Vec<_> = line.split(' ').collect();
            let told = self.sessions.entry(words[2].parse()?).or_default();
            let number = || words[3].parse::<u64>();
            match words[1] {
                "session" => {}
                "epoch" => told.epoch = number()?,
                "keys" => told.keys = number()?,
                "accepted" => told.accepted = number()?,
                "resolved" => told.resolved = number()?,
                "read" => told.read = number()?,
                "inbound" => told.inbound = number()?,
                other => anyhow::bail!("unknown report `{other}`"),
            }
        }
        Ok(report.len() as u64)
    }

    async fn check(&self, dir: &Path) -> Result<()> {
        let stores = support::open(dir).await?;
        for (id, told) in &self.sessions {
            told.check(&stores, *id).await.with_context(|| format!("session {id}"))?;
        }
        Ok(stores.engine.close().await?)
    }
}

impl Told {
    async fn check(&self, stores: &Stores, id: SessionId) -> Result<()> {
        ensure!(stores.sessions.get(id).await?.is_some(), "the session is gone");
        let epoch = stores.owners.read(id).await?.context("the owner row is gone")?.epoch;
        ensure!(epoch.0 >= self.epoch, "the epoch went back to {epoch}");

        let keys = stores.keys.scan(id, KeyKind::Session, &[]).await?;
        let whole = keys.len() == usize::from(KEYS) && keys.iter().all(|(_, value)| *value == keys[0].1);
        ensure!(keys.is_empty() || whole, "a list of key changes is torn");
        let number = keys.first().map_or(Ok(0), |(_, value)| value.as_ref().try_into().map(u64::from_be_bytes))?;
        ensure!(number >= self.keys, "keys {number} are older than {}", self.keys);

        let history = history(stores, id).await?;
        let outbox = stores.outbox.pending(id, None, usize::MAX).await?;
        let pending: Vec<_> = outbox.iter().map(|row| row.seq).collect();
        let mut number = 1;
        // One more than was told may be there, and must be whole as well.
        loop {
            let own = history.get(&format!("OUT{number}"));
            let record = stores.outbox.recorded(id, &key_of(number), at(number)).await?;
            ensure!(own.is_some() == record.is_some(), "accepted {number} is torn");
            let Some(own) = own else { break };
            let resolved = own.sent_at.is_some();
            ensure!(resolved != pending.contains(&number), "accepted or resolved {number} is torn");
            ensure!(resolved || number % 2 == 1 || number > self.resolved, "resolved {number} is lost");
            ensure!(own.read_at.is_some() || number % 2 == 1 || number > self.read, "receipt of {number} is lost");
            number += 1;
        }
        ensure!(number > self.accepted, "accepted {number} is lost");
        for number in 1.. {
            let parts = (0..3).filter(|part| history.contains_key(&format!("IN{number}-{part}"))).count();
            ensure!(parts == 0 || parts == 3, "inbound {number} is torn");
            if parts == 0 {
                ensure!(number > self.inbound, "inbound {number} is lost");
                break;
            }
        }
        Ok(())
    }
}

/// All messages of a session by id; the index by chat must have the same.
async fn history(stores: &Stores, id: SessionId) -> Result<BTreeMap<String, HistoryRow>> {
    let mut by_time = Vec::new();
    let mut by_chat = Vec::new();
    for (chat, rows) in [(None, &mut by_time), (Some(chat()), &mut by_chat)] {
        let mut query = HistoryQuery { chat, limit: 500, ..HistoryQuery::default() };
        loop {
            let page = stores.history.list(id, &query).await?;
            rows.extend(page.rows);
            query.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
    }
    ensure!(by_time == by_chat, "the index by chat differs");
    for row in by_time.iter().take(5) {
        ensure!(stores.history.get(id, &row.message_id).await? == [row.clone()], "the index by id differs");
    }
    Ok(by_time.into_iter().map(|row| (row.message_id.to_string(), row)).collect())
}
