//! What a [`Gate`] promises: nothing that belongs to a session is written while it is shut, and nothing is reported as
//! done that came back to a shut one.

use super::{Factory, sample};
use crate::{
    ChatChange, ContactFacts, DeviceBackend, Fence, Gate, HistorySyncRow, KeyKind, KeyOp, ReceiptKind, SendOutcome,
    StoreError, Stores, search::IndexState,
};
use anyhow::{Context, Result};
use rookery_protocol::Jid;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use wacore::store::traits::SignalStore;

/// A gate that is open for so many looks.
struct Looks(AtomicUsize);

/// More looks than a test takes.
const OPEN: usize = usize::MAX;

impl Gate for Looks {
    fn open(&self) -> bool {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            OPEN => Some(OPEN),
            left => left.checked_sub(1),
        });
        left.is_ok()
    }
}

pub(super) async fn run(factory: &dyn Factory) -> Result<()> {
    let gate = Arc::new(Looks(AtomicUsize::new(OPEN)));
    let stores = factory.open_with_gate("gate", gate.clone()).await.context("open")?;
    let fence = sample::claimed(&stores).await?;
    let chat = sample::chat(1);
    stores.history.insert(&fence, vec![sample::inbound(7, &chat, 7)]).await?;
    stores.outbox.accept(&fence, sample::accepted(2, &chat, 2, None)).await?;

    gate.0.store(0, Ordering::SeqCst);
    for (write, result) in all_writes(&stores, &fence, &chat).await? {
        assert!(matches!(result, Err(StoreError::Frozen { written: false })), "{write}: {result:?}");
    }
    let claimed = sample::claim(&stores, fence.session()).await.err().context("who may not act claims nothing")?;
    assert!(matches!(claimed.downcast_ref(), Some(StoreError::Frozen { written: false })), "{claimed:?}");
    gate.0.store(OPEN, Ordering::SeqCst);
    nothing_was_written(&stores, &fence, &chat).await?;

    let put = |value: &'static str| KeyOp::Put { kind: KeyKind::Session, key: "k".into(), value: value.into() };
    gate.0.store(1, Ordering::SeqCst);
    let late = stores.keys.write(&fence, vec![put("late")]).await;
    assert!(matches!(late, Err(StoreError::Frozen { written: true })), "the gate was shut meanwhile: {late:?}");
    gate.0.store(1, Ordering::SeqCst);
    let late = stores.history.insert(&fence, vec![sample::inbound(8, &chat, 8)]).await;
    assert!(matches!(late, Err(StoreError::Frozen { written: true })), "the gate was shut meanwhile: {late:?}");
    gate.0.store(0, Ordering::SeqCst);
    let stored = stores.keys.get(fence.session(), KeyKind::Session, b"k").await?;
    assert_eq!(stored.as_deref(), Some(&b"late"[..]), "it was written, and reading needs no gate");

    let device = DeviceBackend::new(stores.keys.clone(), fence.clone());
    let shut = device.put_session("peer", b"1").await.err().context("the gate is shut")?;
    let cause = std::error::Error::source(&shut).and_then(|source| source.downcast_ref());
    assert!(matches!(cause, Some(StoreError::Frozen { written: false })), "{shut:?}");
    gate.0.store(2, Ordering::SeqCst);
    device.put_session("peer", b"2").await?;

    gate.0.store(0, Ordering::SeqCst);
    stores.owners.release(&fence).await.context("whoever may not act may give away")?;
    gate.0.store(OPEN, Ordering::SeqCst);
    sample::claim(&stores, fence.session()).await?;
    stores.engine.close().await?;
    Ok(())
}

type Results = Vec<(&'static str, Result<(), StoreError>)>;

/// Every write that takes a fence.
async fn all_writes(stores: &Stores, fence: &Fence, chat: &Jid) -> Result<Results> {
    let put = KeyOp::Put { kind: KeyKind::Session, key: "k".into(), value: "v".into() };
    let row = stores.sessions.get(fence.session()).await?.context("a session")?;
    let ids = [sample::inbound(7, chat, 7).message_id];
    let facts = ContactFacts { push_name: Some("n".to_owned()), ..ContactFacts::of(chat.clone()) };
    Ok(vec![
        ("keys.write", stores.keys.write(fence, vec![put]).await),
        ("keys.clear", stores.keys.clear(fence).await),
        ("sessions.update", stores.sessions.update(fence, &row).await),
        ("sessions.delete", stores.sessions.delete(fence).await),
        ("outbox.accept", stores.outbox.accept(fence, sample::accepted(1, chat, 0, None)).await),
        ("outbox.resolve", stores.outbox.resolve(fence, 2, SendOutcome::Failed("f".to_owned())).await),
        ("history.insert", stores.history.insert(fence, vec![sample::inbound(1, chat, 0)]).await),
        ("history.receipts", sample::receipt(stores, fence, chat, &ids, ReceiptKind::Read, sample::at(2)).await),
        ("history.amend", stores.history.amend(fence, Vec::new()).await),
        ("history.relocate", stores.history.relocate(fence, sample::sort_key(7, 7), "/p").await),
        ("contacts.learn", stores.contacts.learn(fence, vec![facts]).await),
        ("chats.change", stores.chats.change(fence, vec![(chat.clone(), ChatChange::Archived(true))]).await),
        ("syncs.save", stores.syncs.save(fence, &HistorySyncRow::default()).await),
        ("syncs.restart", stores.syncs.restart(fence, &HistorySyncRow::default()).await),
        ("words.advance", stores.words.advance(fence, IndexState::default()).await),
        ("words.forget_late", stores.words.forget_late(fence, 0).await),
    ])
}

async fn nothing_was_written(stores: &Stores, fence: &Fence, chat: &Jid) -> Result<()> {
    let session = fence.session();
    assert!(stores.sessions.get(session).await?.is_some());
    assert_eq!(stores.keys.get(session, KeyKind::Session, b"k").await?, None);
    let waiting: Vec<_> = stores.outbox.pending(session, None, 10).await?.iter().map(|row| row.seq).collect();
    assert_eq!(waiting, [2]);
    assert_eq!(stores.history.last_sort_key(session).await?, Some(sample::inbound(7, chat, 7).sort_key));
    assert_eq!(stores.contacts.get(session, std::slice::from_ref(chat)).await?, [None]);
    Ok(())
}
