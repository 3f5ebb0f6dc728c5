//! What [`crate::OwnerStore`] promises: one owner, and no write of an older one.

use super::sample;
use crate::{KeyKind, KeyOp, Owner, ReceiptKind, SendOutcome, StoreError, Stores};
use anyhow::{Context, Result};
use rookery_protocol::{Epoch, Incarnation, SessionId, UserId};
use std::collections::HashMap;
use tokio::join;

pub(super) async fn run(stores: &Stores) -> Result<()> {
    claims(stores).await?;
    racing_claims(stores).await?;
    scans(stores).await?;
    fences(stores).await
}

async fn claims(stores: &Stores) -> Result<()> {
    let row = sample::session(UserId::generate());
    let (id, node, incarnation) = (row.session_id, "node-1".parse()?, Incarnation(7));
    assert_eq!(stores.owners.read(id).await?, None);
    let nobody = Owner { epoch: Epoch(0), node: None };
    let unknown = stores.owners.claim(SessionId::generate(), &nobody, &node, incarnation).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_) | StoreError::ClaimLost { .. })));

    stores.sessions.create(&row).await?;
    assert_eq!(stores.owners.read(id).await?.as_ref(), Some(&nobody));
    let fence = stores.owners.claim(id, &nobody, &node, incarnation).await?;
    assert_eq!((fence.session(), fence.epoch()), (id, Epoch(1)));
    let owned = Owner { epoch: Epoch(1), node: Some((node.clone(), incarnation)) };
    assert_eq!(stores.owners.read(id).await?.as_ref(), Some(&owned));
    let again = stores.owners.claim(id, &nobody, &node, incarnation).await;
    assert!(matches!(again, Err(StoreError::ClaimLost { session }) if session == id), "what was seen is old");

    stores.owners.release(&fence).await?;
    stores.owners.release(&fence).await?;
    let released = Owner { epoch: Epoch(1), node: None };
    assert_eq!(stores.owners.read(id).await?.as_ref(), Some(&released), "the epoch stays");
    let stale = stores.owners.claim(id, &owned, &node, incarnation).await;
    assert!(matches!(stale, Err(StoreError::ClaimLost { .. })), "the owner that was seen is gone");
    let next = stores.owners.claim(id, &released, &node, Incarnation(8)).await?;
    assert_eq!(next.epoch(), Epoch(2));
    stores.owners.release(&fence).await?;
    let found = stores.owners.read(id).await?.context("an owner row")?;
    assert_eq!(found.node, Some((node, Incarnation(8))), "an old owner releases nothing");
    Ok(())
}

/// A scan has every session that was ever claimed, once.
async fn scans(stores: &Stores) -> Result<()> {
    let mut expected = Vec::new();
    for number in 0..5 {
        let row = sample::session(UserId::generate());
        stores.sessions.create(&row).await?;
        if number > 0 {
            let fence = sample::claim(stores, row.session_id).await?;
            if number > 1 {
                stores.owners.release(&fence).await?;
            }
        }
        expected.push((row.session_id, stores.owners.read(row.session_id).await?.context("an owner row")?));
    }
    let (mut found, mut after) = (HashMap::new(), None);
    loop {
        let page = stores.owners.scan(after, 3).await?;
        assert!(page.rows.len() <= 3);
        for (session, owner) in page.rows {
            assert!(owner.epoch.0 > 0, "nobody has claimed {session}");
            assert_eq!(found.insert(session, owner), None, "{session} comes twice");
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found.get(&expected[0].0), None, "it was never claimed");
    for (session, owner) in &expected[1..] {
        assert_eq!(found.get(session), Some(owner));
    }
    let all = stores.owners.scan(None, usize::MAX).await?;
    assert_eq!((all.rows.len(), all.next), (found.len(), None));
    Ok(())
}

async fn racing_claims(stores: &Stores) -> Result<()> {
    let row = sample::session(UserId::generate());
    stores.sessions.create(&row).await?;
    let seen = Owner { epoch: Epoch(0), node: None };
    let (node_1, node_2) = ("node-1".parse()?, "node-2".parse()?);
    let (first, second) = join!(
        stores.owners.claim(row.session_id, &seen, &node_1, Incarnation(1)),
        stores.owners.claim(row.session_id, &seen, &node_2, Incarnation(2)),
    );
    assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1, "one of two claims wins");
    Ok(())
}

async fn fences(stores: &Stores) -> Result<()> {
    let row = sample::session(UserId::generate());
    stores.sessions.create(&row).await?;
    let (session, chat) = (row.session_id, sample::chat(1));
    let old = sample::claim(stores, session).await?;
    let ops = || vec![KeyOp::Put { kind: KeyKind::Session, key: "peer".into(), value: "state".into() }];
    stores.keys.write(&old, ops()).await?;
    let new = sample::claim(stores, session).await?;

    let ids = [sample::outbound(1, &chat, 0).message_id];
    let refused = [
        stores.keys.write(&old, ops()).await,
        stores.keys.clear(&old).await,
        stores.sessions.update(&old, &row).await,
        stores.sessions.delete(&old).await,
        stores.outbox.accept(&old, sample::accepted(1, &chat, 0, None)).await,
        stores.outbox.resolve(&old, 1, SendOutcome::Sent(sample::at(1))).await,
        stores.history.insert(&old, vec![sample::inbound(1, &chat, 0)]).await,
        sample::receipt(stores, &old, &chat, &ids, ReceiptKind::Read, sample::at(2)).await,
    ];
    for (number, result) in refused.into_iter().enumerate() {
        let fenced = |error: &StoreError| matches!(error, StoreError::Fenced { session: of, epoch } if (*of, *epoch) == (session, old.epoch()));
        assert!(result.as_ref().is_err_and(fenced), "write {number} of an old owner: {result:?}");
    }
    assert_eq!(stores.keys.get(session, KeyKind::Session, b"peer").await?.as_deref(), Some(&b"state"[..]));
    assert!(stores.outbox.pending(session, None, 10).await?.is_empty());
    assert!(stores.history.last_sort_key(session).await?.is_none());
    assert!(new.next_timestamp()? > old.next_timestamp()?, "logical time goes on over owners");
    stores.keys.write(&new, ops()).await?;
    Ok(())
}
