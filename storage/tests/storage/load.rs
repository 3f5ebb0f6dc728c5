//! More than the engine can do is refused, and what is refused has not been done.

use super::support;
use anyhow::{Context, Result};
use rookery_protocol::{Incarnation, Timestamp, UserId};
use rookery_storage::{
    Fence, KeyKind, KeyOp, SessionRow, StoreError, Stores,
    embedded::{self, Options},
};
use std::time::Duration;

async fn claimed(stores: &Stores) -> Result<Fence> {
    let row = SessionRow::new(UserId::generate(), "busy", Timestamp::now());
    stores.sessions.create(&row).await?;
    let seen = stores.owners.read(row.session_id).await?.context("an owner row")?;
    Ok(stores.owners.claim(row.session_id, &seen, &"node-1".parse()?, Incarnation(1)).await?)
}

/// Writes that many rows at once; answers the numbers of those that were taken, and how many were refused.
async fn flood(stores: &Stores, fence: &Fence, rows: u32) -> Result<(Vec<u32>, usize)> {
    let writes: Vec<_> = (0..rows)
        .map(|number| {
            let (stores, fence) = (stores.clone(), fence.clone());
            let key = number.to_be_bytes().to_vec().into();
            let put = KeyOp::Put { kind: KeyKind::PreKey, key, value: vec![7; 2_000].into() };
            tokio::spawn(async move { (number, stores.keys.write(&fence, vec![put]).await) })
        })
        .collect();
    let (mut taken, mut refused) = (Vec::new(), 0);
    for write in writes {
        match write.await? {
            (number, Ok(())) => taken.push(number),
            (_, Err(StoreError::Overloaded)) => refused += 1,
            (_, Err(error)) => return Err(error.into()),
        }
    }
    Ok((taken, refused))
}

async fn rows(stores: &Stores, fence: &Fence) -> Result<Vec<u32>> {
    let rows = stores.keys.scan(fence.session(), KeyKind::PreKey, &[]).await?;
    rows.iter().map(|(key, _)| Ok(u32::from_be_bytes(key.as_ref().try_into()?))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let stores = embedded::open(Options { queue: 2, ..Options::new(dir.path()) }).await?;
    let fence = claimed(&stores).await?;
    let (taken, refused) = flood(&stores, &fence, 2_000).await?;
    assert!(refused > 0, "two writes may wait");
    assert_eq!(rows(&stores, &fence).await?, taken, "what was refused was not written");
    stores.engine.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_too_long_is_not_begun() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let stores = support::open(dir.path()).await?;
    let fence = claimed(&stores).await?;
    stores.engine.close().await?;
    let stores = embedded::open(Options { deadline: Duration::from_micros(1), ..Options::new(dir.path()) }).await?;
    let put = KeyOp::Put { kind: KeyKind::PreKey, key: vec![1].into(), value: vec![1].into() };
    let result = stores.keys.write(&fence, vec![put]).await;
    assert!(matches!(result, Err(StoreError::Overloaded | StoreError::Engine(_))), "{result:?}");
    Ok(())
}

/// A session that is larger than one step of its removal goes as a whole, and a removal that was cut short is
/// repeated by the next owner.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_session_is_removed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let stores = support::open(dir.path()).await?;
    let (fence, kept) = (claimed(&stores).await?, claimed(&stores).await?);
    for fence in [&fence, &kept] {
        let (taken, _) = flood(&stores, fence, 4_000).await?;
        assert_eq!(taken.len(), 4_000);
    }
    // Dropped at its first wait: the removal has begun, or not.
    let removal = stores.sessions.delete(&fence);
    let _ = tokio::time::timeout(Duration::from_millis(1), removal).await;
    if let Some(seen) = stores.owners.read(fence.session()).await? {
        let next = stores.owners.claim(fence.session(), &seen, &"node-1".parse()?, Incarnation(2)).await?;
        assert!(matches!(stores.sessions.delete(&fence).await, Err(StoreError::Fenced { .. })));
        stores.sessions.delete(&next).await?;
    }
    assert!(rows(&stores, &fence).await?.is_empty());
    assert_eq!(stores.sessions.get(fence.session()).await?, None);
    assert_eq!(rows(&stores, &kept).await?.len(), 4_000);
    stores.engine.close().await?;
    Ok(())
}
