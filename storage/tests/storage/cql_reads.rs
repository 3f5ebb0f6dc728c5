//! What reads pass over: rows that are gone stay in the server's files for days, and whoever reads past many of them is
//! slow. The paths of sends, idempotency keys and messages have none, however much traffic there was.

use super::cql;
use ::scylla::{client::session::Session, statement::Statement};
use anyhow::{Context, Result};
use rookery_protocol::{Jid, Timestamp, api::MessageType};
use rookery_storage::{
    Accepted, Fence, HistoryRow, KeyKind, KeyOp, MessageReceipt, OutboxRow, ReceiptKind, SendOutcome, SendRecord,
    Stores, scylla,
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Messages of each direction: a day of a busy session, but for the time that it takes.
const MESSAGES: u64 = 120;

/// Accepts, resolves and receives, as a day does.
async fn a_day(stores: &Stores, fence: &Fence) -> Result<()> {
    let chat: Jid = "15550001@s.whatsapp.net".parse()?;
    for number in 1..=MESSAGES {
        let at = Timestamp::from_secs(1_755_000_000 + number.cast_signed());
        let row = |id: &str, from_me: bool, count: u64| {
            anyhow::Ok(HistoryRow {
                sort_key: at.as_secs().cast_unsigned() << 20 | count,
                from_me,
                sender: (!from_me).then(|| chat.clone()),
                text: Some("text".to_owned()),
                ..HistoryRow::new(format!("{id}{number}").parse()?, chat.clone(), MessageType::Text, at)
            })
        };
        let sent = row("OUT", true, 0)?;
        let ids = vec![sent.message_id.clone()];
        let outbox = OutboxRow {
            seq: number,
            message_id: sent.message_id.clone(),
            chat: chat.clone(),
            payload: vec![1; 100].into(),
            accepted_at: at,
            sort_key: sent.sort_key,
            file: None,
        };
        let record = SendRecord {
            request_hash: [7; 32],
            message_id: sent.message_id.clone(),
            to: "15550001".to_owned(),
            chat: chat.clone(),
            accepted_at: at,
            sort_key: sent.sort_key,
        };
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        stores.outbox.accept(fence, Accepted { outbox, history: sent, idempotency: Some((key, record)) }).await?;
        stores.outbox.resolve(fence, number, SendOutcome::Sent(at)).await?;
        stores.history.insert(fence, vec![row("IN", false, 1)?]).await?;
        let receipt = MessageReceipt { chat: chat.clone(), participant: None, ids, kind: ReceiptKind::Delivered, at };
        stores.history.receipts(vec![(fence.clone(), receipt)]).await?;
        // The library keeps what it sent until it is old, and takes a prekey now and then.
        let sent = |number: u64| number.to_be_bytes().to_vec();
        let mut ops =
            vec![KeyOp::Put { kind: KeyKind::SentMessage, key: sent(number).into(), value: vec![2; 100].into() }];
        if let Some(old) = number.checked_sub(50) {
            ops.push(KeyOp::Delete { kind: KeyKind::SentMessage, key: sent(old).into() });
        }
        stores.keys.write(fence, ops).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_pass_over_nothing_that_is_gone() -> Result<()> {
    let Some((access, options)) = cql::options("reads")? else { return Ok(()) };
    let stores = scylla::open(&options).await?;
    let fence = cql::claimed(&stores).await?;
    a_day(&stores, &fence).await?;
    let raw = cql::raw(&access).await?;
    let (keyspace, session) = (&options.keyspace, hex(fence.session().as_bytes()));
    // Yesterday's records: their time is over, and their files are not gone yet.
    for number in 0..MESSAGES {
        let insert = format!(
            "INSERT INTO {keyspace}.idempotency (partition, key, value) VALUES (0x{session}, 0x{number:064x}, 0x01) USING TTL 1"
        );
        raw.query_unpaged(insert, ()).await?;
    }
    let start = Instant::now();
    let count = format!("SELECT COUNT(*) FROM {keyspace}.idempotency WHERE partition = 0x{session}");
    while raw.query_unpaged(count.as_str(), ()).await?.into_rows_result()?.first_row::<(i64,)>()?.0
        > MESSAGES.cast_signed()
    {
        anyhow::ensure!(start.elapsed() < Duration::from_secs(30), "records do not go by themselves");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(stores.outbox.pending(fence.session(), None, 10).await?.is_empty());

    let slice = |table: &str, partition: &str, prefix: &str| {
        format!(
            "SELECT key, value FROM {keyspace}.{table} WHERE partition = 0x{session}{partition} AND key >= 0x{prefix} LIMIT 512"
        )
    };
    let window = windows(&raw, keyspace, &session).await?;
    let reads = [
        ("outbox, all of a session", slice("outbox", "", ""), 0),
        ("journal", format!("SELECT value FROM {keyspace}.journal WHERE partition = 0x{session} AND key = 0x"), 0),
        (
            "idempotency, a key",
            format!(
                "SELECT value FROM {keyspace}.idempotency WHERE partition = 0x{session} AND key = 0x{:016x}{:048x}",
                7, 0
            ),
            0,
        ),
        ("windows, all of a session", slice("windows", "", ""), 0),
        ("messages of a window", slice("history", &window, "00"), 0),
        ("contacts and chats", slice("session_rows", "01", ""), 0),
        ("what waits, receipts", slice("session_rows", "02", ""), 0),
        // The one table with rows that come and go: bounded by what a session sends while a sweep of its library lasts.
        ("key material, what was sent", slice("keys", "", "11"), MESSAGES),
    ];
    for (what, statement, most) in reads {
        let (live, gone) = passed_over(&raw, statement).await?;
        println!("{what}: {live} rows, {gone} tombstones");
        assert!(gone <= most, "{what}: {gone} tombstones");
    }
    Ok(())
}

/// The newest window of a session's history, as it ends its partition.
async fn windows(raw: &Session, keyspace: &str, session: &str) -> Result<String> {
    let statement = format!("SELECT key FROM {keyspace}.windows WHERE partition = 0x{session} AND key >= 0x00 LIMIT 1");
    let (key,) = raw.query_unpaged(statement, ()).await?.into_rows_result()?.first_row::<(Vec<u8>,)>()?;
    Ok(hex(&key[key.len() - 4..]))
}

/// How many rows a read found, and how many tombstones it saw on the way, by the server's own account.
async fn passed_over(raw: &Session, statement: String) -> Result<(u64, u64)> {
    let mut statement = Statement::new(statement);
    statement.set_tracing(true);
    let answer = raw.query_unpaged(statement, ()).await?;
    let id = answer.tracing_id().context("a trace")?;
    let start = Instant::now();
    loop {
        // A trace is written after the answer.
        if let Ok(trace) = raw.get_tracing_info(&id).await {
            let said = trace.events.iter().filter_map(|event| event.activity.as_deref()).find_map(counts);
            if let Some(counts) = said {
                return Ok(counts);
            }
        }
        anyhow::ensure!(start.elapsed() < Duration::from_secs(20), "the server does not say what it read");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The numbers in "Read 12 live rows and 3 tombstone cells".
fn counts(said: &str) -> Option<(u64, u64)> {
    let rest = said.strip_prefix("Read ")?;
    let (live, rest) = rest.split_once(" live rows and ")?;
    let (gone, _) = rest.split_once(" tombstone")?;
    Some((live.parse().ok()?, gone.parse().ok()?))
}

/// Bytes as the server writes them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
