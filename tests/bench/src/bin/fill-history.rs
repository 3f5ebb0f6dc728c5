//! Writes long histories into the store of a gateway that is stopped: `fill-history [--index] DATA_DIR NEWEST SESSION=COUNT...`
//!
//! A million messages through WhatsApp would take minutes, and a page of them would be the same. One message a
//! second, the last one in the second before `NEWEST` (seconds since the epoch). With `--index` they are indexed for
//! searches as well.

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use rookery_protocol::{Incarnation, Jid, SessionId, Timestamp, api::MessageType};
use rookery_storage::{
    Fence, HistoryRow, Stores, embedded,
    search::{Progress, index},
};

/// Messages that are written at once, and how many such writes are under way.
const BATCH: u64 = 250;
const WRITES: usize = 8;
/// Chats that the messages belong to.
const CHATS: u64 = 100;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let indexed = arguments.next_if(|argument| argument == "--index").is_some();
    let dir = arguments.next().context("DATA_DIR is missing")?;
    let newest = arguments.next().context("NEWEST is missing")?.parse()?;
    let histories = arguments.map(|argument| {
        let (session, count) = argument.split_once('=').context("not SESSION=COUNT")?;
        Ok((session.parse()?, count.parse()?))
    });
    let histories: Vec<(SessionId, u64)> = histories.collect::<anyhow::Result<_>>()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(fill(&dir, newest, &histories, indexed))
}

async fn fill(dir: &str, newest: i64, histories: &[(SessionId, u64)], indexed: bool) -> anyhow::Result<()> {
    let stores = embedded::open(embedded::Options::new(dir)).await?;
    for (session, count) in histories {
        let seen = stores.owners.read(*session).await?.context("a session without an owner row")?;
        let fence = stores.owners.claim(*session, &seen, &"bench".parse()?, Incarnation::generate()).await?;
        fill_one(&stores, &fence, newest, *count).await?;
        while indexed && index(&stores, &fence, Timestamp::now()).await? != Progress::Idle {}
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
        text: Some(text(number)),
        sent_at: from_me.then_some(timestamp),
        ..HistoryRow::new(format!("3EB0{number:018X}").parse()?, chat, MessageType::Text, timestamp)
    })
}

/// A text of a usual length. Of its words, one has a number of its own, some are of five thousand that are the rarer
/// the higher their number, and the rest are in every text.
fn text(number: u64) -> String {
    let word = |place: u64| {
        let mixed = (number * 4 + place).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let share = mixed as f64 / (1_u64 << 24) as f64;
        (share * share * share * 5_000.0) as u64
    };
    format!("Message {number}: word{} word{}, as people send word{}.", word(0), word(1), word(2))
}
