//! What [`crate::OutboxStore`] promises.

use super::sample;
use crate::{Accepted, Fence, HistoryRow, OutboxRow, SendOutcome, StoreError, Stores};
use anyhow::{Context, Result};

/// How long an idempotency key stands for its message.
const DAY_SECS: i64 = 24 * 60 * 60;

pub(super) async fn run(stores: &Stores) -> Result<()> {
    queue(stores).await?;
    repeated(stores).await?;
    uploads(stores).await?;
    idempotency(stores).await
}

/// The message of the only row with this send's id.
async fn shown(stores: &Stores, fence: &Fence, accepted: &Accepted) -> Result<HistoryRow> {
    let mut rows = stores.history.get(fence.session(), &accepted.history.message_id).await?;
    assert_eq!(rows.len(), 1);
    rows.pop().context("one row")
}

async fn seqs(stores: &Stores, fence: &Fence, after: Option<u64>, limit: usize) -> Result<Vec<u64>> {
    let rows = stores.outbox.pending(fence.session(), after, limit).await?;
    Ok(rows.into_iter().map(|row| row.seq).collect())
}

async fn queue(stores: &Stores) -> Result<()> {
    let (fence, chat) = (sample::claimed(stores).await?, sample::chat(1));
    let sends = [3_u64, 1, 2, 300].map(|seq| sample::accepted(seq, &chat, seq.cast_signed(), None));
    for send in &sends {
        stores.outbox.accept(&fence, send.clone()).await?;
    }
    assert_eq!(seqs(stores, &fence, None, 10).await?, [1, 2, 3, 300], "in order of acceptance");
    assert_eq!(seqs(stores, &fence, Some(1), 2).await?, [2, 3]);
    assert!(seqs(stores, &fence, Some(300), 10).await?.is_empty());
    assert_eq!(stores.outbox.pending(fence.session(), None, 1).await?, [sends[1].outbox.clone()]);

    let (sent, failed) = (&sends[0], &sends[1]);
    assert_eq!(shown(stores, &fence, sent).await?, sent.history, "it shows as pending at once");
    stores.outbox.resolve(&fence, 3, SendOutcome::Sent(sample::at(9))).await?;
    stores.outbox.resolve(&fence, 1, SendOutcome::Failed("no such account".to_owned())).await?;
    assert_eq!(shown(stores, &fence, sent).await?.sent_at, Some(sample::at(9)));
    let message = shown(stores, &fence, failed).await?;
    assert_eq!((message.sent_at, message.failure.as_deref()), (None, Some("no such account")));
    assert_eq!(seqs(stores, &fence, None, 10).await?, [2, 300]);
    let again = stores.outbox.resolve(&fence, 3, SendOutcome::Sent(sample::at(10))).await;
    assert!(matches!(again, Err(StoreError::NotFound(_))), "it is resolved");
    assert_eq!(shown(stores, &fence, sent).await?.sent_at, Some(sample::at(9)));

    let other = sample::claimed(stores).await?;
    assert!(seqs(stores, &other, None, 10).await?.is_empty(), "each session has its own");
    Ok(())
}

/// What is accepted again keeps its place in the history and what is known of it; a sequence number that is
/// taken leaves no trace.
async fn repeated(stores: &Stores) -> Result<()> {
    let (fence, chat) = (sample::claimed(stores).await?, sample::chat(1));
    let first = sample::accepted(1, &chat, 0, None);
    stores.outbox.accept(&fence, first.clone()).await?;
    stores.outbox.resolve(&fence, 1, SendOutcome::Sent(sample::at(1))).await?;
    let mut second = sample::accepted(1, &chat, 5, Some([1; 32]));
    second.outbox.seq = 2;
    stores.outbox.accept(&fence, second).await?;
    let message = shown(stores, &fence, &first).await?;
    assert_eq!((message.sort_key, message.sent_at), (first.history.sort_key, Some(sample::at(1))));
    let pending = stores.outbox.pending(fence.session(), None, 10).await?;
    assert_eq!(pending[0].sort_key, first.history.sort_key, "all rows name the same place");
    let record = stores.outbox.recorded(fence.session(), &[1; 32], sample::at(5)).await?.context("a record")?;
    assert_eq!(record.sort_key, first.history.sort_key);

    let mut taken = sample::accepted(9, &chat, 9, Some([9; 32]));
    taken.outbox.seq = 2;
    assert!(matches!(stores.outbox.accept(&fence, taken.clone()).await, Err(StoreError::Refused(_))));
    assert_eq!(stores.history.get(fence.session(), &taken.history.message_id).await?, []);
    assert_eq!(stores.outbox.recorded(fence.session(), &[9; 32], sample::at(9)).await?, None);
    Ok(())
}

/// A file that is at WhatsApp is known in the outbox and in the history, and stays known when the send ends.
async fn uploads(stores: &Stores) -> Result<()> {
    let (fence, chat) = (sample::claimed(stores).await?, sample::chat(1));
    let mut send = sample::accepted(1, &chat, 0, None);
    let file = sample::file(None);
    send.outbox.file = Some([7; 16]);
    send.history.file = Some(file.clone());
    stores.outbox.accept(&fence, send.clone()).await?;
    assert_eq!(stores.outbox.pending(fence.session(), None, 10).await?, [send.outbox.clone()]);
    assert_eq!(shown(stores, &fence, &send).await?.file, Some(file));

    stores.outbox.uploaded(&fence, 1, vec![9].into(), "/there").await?;
    let sent = OutboxRow { payload: vec![9].into(), file: None, ..send.outbox.clone() };
    assert_eq!(stores.outbox.pending(fence.session(), None, 10).await?, [sent]);
    assert_eq!(shown(stores, &fence, &send).await?.file, Some(sample::file(Some("/there"))));
    let none = stores.outbox.uploaded(&fence, 2, vec![9].into(), "/there").await;
    assert!(matches!(none, Err(StoreError::NotFound(_))));

    stores.outbox.resolve(&fence, 1, SendOutcome::Sent(sample::at(9))).await?;
    assert_eq!(shown(stores, &fence, &send).await?.file, Some(sample::file(Some("/there"))));
    stores.history.relocate(&fence, send.history.sort_key, "/elsewhere").await?;
    let message = shown(stores, &fence, &send).await?;
    assert_eq!(message.file, Some(sample::file(Some("/elsewhere"))));
    assert_eq!(message.sent_at, Some(sample::at(9)));

    let text = sample::accepted(3, &chat, 3, None);
    stores.outbox.accept(&fence, text.clone()).await?;
    stores.history.relocate(&fence, text.history.sort_key, "/x").await?;
    stores.history.relocate(&fence, u64::MAX, "/x").await?;
    assert_eq!(shown(stores, &fence, &text).await?, text.history, "what has no file gets none");

    sample::claim(stores, fence.session()).await?;
    let late = stores.history.relocate(&fence, send.history.sort_key, "/late").await;
    assert!(matches!(late, Err(StoreError::Fenced { .. })));
    let late = stores.outbox.uploaded(&fence, 3, vec![9].into(), "/late").await;
    assert!(matches!(late, Err(StoreError::Fenced { .. })));
    Ok(())
}

async fn idempotency(stores: &Stores) -> Result<()> {
    let (fence, other, chat) = (sample::claimed(stores).await?, sample::claimed(stores).await?, sample::chat(1));
    let (old, young) = ([1; 32], [2; 32]);
    let sends = [(1, old, 0), (2, young, 10)].map(|(seq, key, secs)| sample::accepted(seq, &chat, secs, Some(key)));
    for send in &sends {
        stores.outbox.accept(&fence, send.clone()).await?;
    }
    let record = sends[0].idempotency.clone().map(|(_, record)| record);
    let recorded = |key, secs| stores.outbox.recorded(fence.session(), key, sample::at(secs));
    assert_eq!(recorded(&old, 0).await?, record);
    assert_eq!(recorded(&old, DAY_SECS - 1).await?, record);
    assert_eq!(recorded(&old, DAY_SECS).await?, None, "it counts for 24 hours");
    assert_eq!(recorded(&[3; 32], 0).await?, None);
    assert_eq!(stores.outbox.recorded(other.session(), &old, sample::at(0)).await?, None);

    // Sweeping is for all sessions; those of other cases are swept as well.
    while stores.outbox.sweep(sample::at(DAY_SECS), 1).await? > 0 {}
    let swept = recorded(&old, 0).await?.is_none();
    assert!(swept || stores.engine.expires(), "it is swept, where it does not go by itself");
    assert!(recorded(&young, 0).await?.is_some(), "it is younger");
    assert_eq!(stores.history.get(fence.session(), &sends[0].history.message_id).await?.len(), 1);

    // A key that is used again after its day is young again.
    let mut again = sample::accepted(3, &chat, DAY_SECS + 20, Some(young));
    again.history.message_id = sends[1].history.message_id.clone();
    stores.outbox.accept(&fence, again).await?;
    while stores.outbox.sweep(sample::at(DAY_SECS + 10), 100).await? > 0 {}
    assert!(recorded(&young, DAY_SECS + 20).await?.is_some(), "the sweep goes by the newer use");
    Ok(())
}
