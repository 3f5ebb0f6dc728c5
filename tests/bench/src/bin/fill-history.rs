//! Writes long histories into the store of a gateway that is stopped: `fill-history DATA_DIR NEWEST SESSION=COUNT...`
//!
//! A million messages through WhatsApp would take minutes, and a page of them would be the same. One message a
//! second, the last one in the second before `NEWEST` (seconds since the epoch).

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use rookery_protocol::{Incarnation, Jid, SessionId, Timestamp, api::MessageType};
use rookery_storage::{Fence, HistoryRow, Stores, embedded};

/// Messages that are written at once, and how many such writes are under way.
const BATCH: u64 = 250;
const WRITES: usize = 8;
/// Chats that the messages belong to.
const CHATS: u64 = 100;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().context("DATA_DIR is missing")?;
    let newest = arguments.next().context("NEWEST is missing")?.parse()?;
    let histories = arguments.map(|argument| {
        let (session, count) = argument.split_once('=').context("not SESSION=COUNT")?;
        Ok((session.parse()?, count.parse()?))
    });
    let histories: Vec<(SessionId, u64)> = histories.collect::<anyhow::Result<_>>()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(fill(&dir, newest, &histories))
}

async fn fill(dir: &str, newest: i64, histories: &[(SessionId, u64)]) -> anyhow::Result<()> {
    let stores = embedded::open(embedded::Options::new(dir)).await?;
    for (session, count) in histories {
        let seen = stores.owners.read(*session).await?.context("a session without an owner row")?;
        let fence = stores.owners.claim(*session, &seen, &"bench".parse()?, Incarnation::generate()).await?;
        fill_one(&stores, &fence, newest, *count).await?;
        stores.owners.release(&fence).await?;
    }
    Ok(stores.engine.close().await?)
}

async fn fill_one(stores: &Stores, fence: &Fence, newest: i64, count: u64) -> anyhow::Result<()> {
    let chats = (0..CHATS).map(|chat| Jid::from_phone(&format!("1888{chat:07}"))).collect::<Result<Vec<_>, _>>()?;
    let chats = &chats;
    stream::iter(0..count.div_ceil(BATCH))
        .map(|batch| async move {
            let numbers = batch * BATCH..count.min((batch + 1) * BATCH);
            let rows = numbers.map(|number| row(number, newest - (count - number).cast_signed(), chats));
            anyhow::Ok(stores.history.insert(fence, rows.collect::<Result<_, _>>()?).await?)
        })
        .buffer_unordered(WRITES)
        .try_collect()
        .await
}

fn row(number: u64, secs: i64, chats: &[Jid]) -> anyhow::Result<HistoryRow> {
    let chat = chats[(number % CHATS) as usize].clone();
    let from_me = number.is_multiple_of(3);
    let timestamp = Timestamp::from_secs(secs);
    Ok(HistoryRow {
        sort_key: secs.cast_unsigned() << 20 | (number & 0xF_FFFF),
        sender: (!from_me).then(|| chat.clone()),
        from_me,
        text: Some(format!("Message {number}: a text of a usual length, as people send it.")),
        sent_at: from_me.then_some(timestamp),
        ..HistoryRow::new(format!("3EB0{number:018X}").parse()?, chat, MessageType::Text, timestamp)
    })
}
