//! What [`crate::NodeStore`] promises: one incarnation a node, a count that only its owner raises, and a death that is
//! final.

use crate::{NodeRow, NodeStatus, Renewal, StoreError, Stores};
use anyhow::{Context, Result};
use rookery_protocol::{Incarnation, NodeId, SessionId, Timestamp};
use tokio::join;

pub(super) async fn run(stores: &Stores) -> Result<()> {
    joins(stores).await?;
    renewals(stores).await?;
    deaths(stores).await?;
    racing(stores).await
}

/// A node of a fresh name.
fn node() -> Result<NodeRow> {
    let node: NodeId = format!("n-{}", SessionId::generate()).parse()?;
    Ok(NodeRow {
        node,
        incarnation: Incarnation::generate(),
        seq: 0,
        status: NodeStatus::Active,
        link_address: "10.0.0.1:7000".to_owned(),
        api_address: "[::1]:3000".to_owned(),
        weight: 100,
        protocol: 3,
        version: "1.2.3".to_owned(),
        started_at: Timestamp::from_micros(1_755_000_000_123_456),
    })
}

async fn joins(stores: &Stores) -> Result<()> {
    let (nodes, first) = (&stores.nodes, node()?);
    assert_eq!(nodes.read(&first.node).await?, None);
    assert!(nodes.join(&first, None).await?);
    assert_eq!(nodes.read(&first.node).await?.as_ref(), Some(&first));
    assert!(nodes.list().await?.contains(&first));
    assert!(nodes.join(&first, None).await?, "it has joined");

    let next = NodeRow { incarnation: Incarnation::generate(), weight: 7, version: "2".to_owned(), ..first.clone() };
    assert!(!nodes.join(&next, None).await?, "the place is taken");
    assert!(!nodes.join(&next, Some(&first)).await?, "by one that is not dead");
    assert!(nodes.mark(&first.node, first.incarnation, 0, NodeStatus::Dead).await?);
    let dead = NodeRow { status: NodeStatus::Dead, ..first.clone() };
    assert_eq!(nodes.read(&first.node).await?.as_ref(), Some(&dead));
    assert!(!nodes.join(&next, None).await?, "a dead one is not nobody");
    assert!(nodes.join(&next, Some(&dead)).await?);
    assert_eq!(nodes.read(&first.node).await?.as_ref(), Some(&next));
    let third = NodeRow { incarnation: Incarnation::generate(), ..first.clone() };
    assert!(!nodes.join(&third, Some(&dead)).await?, "what was seen is old");
    let listed = nodes.list().await?;
    assert_eq!(listed.iter().filter(|row| row.node == first.node).count(), 1, "a row a node");
    Ok(())
}

async fn renewals(stores: &Stores) -> Result<()> {
    let (nodes, row) = (&stores.nodes, node()?);
    let renew = |seq| nodes.renew(&row.node, row.incarnation, seq);
    assert_eq!(renew(0).await?, Renewal::Refused(None));
    assert!(nodes.join(&row, None).await?);
    for seq in 0..3 {
        assert_eq!(renew(seq).await?, Renewal::Renewed);
    }
    let now = NodeRow { seq: 3, ..row.clone() };
    assert_eq!(nodes.read(&row.node).await?.as_ref(), Some(&now), "nothing but the count");
    for other in [0, 2, 4] {
        assert_eq!(renew(other).await?, Renewal::Refused(Some(now.clone())), "it is at 3");
    }
    let other = nodes.renew(&row.node, Incarnation::generate(), 3).await?;
    assert_eq!(other, Renewal::Refused(Some(now)), "another incarnation");

    assert!(nodes.mark(&row.node, row.incarnation, 3, NodeStatus::Draining).await?);
    assert_eq!(renew(3).await?, Renewal::Renewed, "it is alive while it drains");
    assert!(nodes.mark(&row.node, row.incarnation, 3, NodeStatus::Draining).await?, "it drains");
    assert!(matches!(nodes.mark(&row.node, row.incarnation, 4, NodeStatus::Active).await, Err(StoreError::Refused(_))));
    Ok(())
}

async fn deaths(stores: &Stores) -> Result<()> {
    let (nodes, row) = (&stores.nodes, node()?);
    assert!(!nodes.mark(&row.node, row.incarnation, 0, NodeStatus::Dead).await?, "there is none");
    assert!(nodes.join(&row, None).await?);
    assert_eq!(nodes.renew(&row.node, row.incarnation, 0).await?, Renewal::Renewed);
    assert!(!nodes.mark(&row.node, row.incarnation, 0, NodeStatus::Dead).await?, "it has shown that it lives");
    assert!(!nodes.mark(&row.node, Incarnation::generate(), 1, NodeStatus::Dead).await?, "another incarnation");
    assert!(nodes.mark(&row.node, row.incarnation, 1, NodeStatus::Dead).await?);
    assert!(nodes.mark(&row.node, row.incarnation, 1, NodeStatus::Dead).await?, "it is dead");
    let dead = NodeRow { seq: 1, status: NodeStatus::Dead, ..row.clone() };
    assert_eq!(nodes.renew(&row.node, row.incarnation, 1).await?, Renewal::Refused(Some(dead.clone())));
    assert!(!nodes.mark(&row.node, row.incarnation, 1, NodeStatus::Draining).await?, "and stays dead");
    assert_eq!(nodes.read(&row.node).await?, Some(dead));
    Ok(())
}

/// Whoever dies at the moment of a renewal is either dead or renewed; of two incarnations one has the name.
async fn racing(stores: &Stores) -> Result<()> {
    let nodes = &stores.nodes;
    for round in 0..8 {
        let (first, second) = (node()?, node()?);
        let second = NodeRow { node: first.node.clone(), ..second };
        let (a, b) = join!(nodes.join(&first, None), nodes.join(&second, None));
        let (a, b) = (a?, b?);
        assert!(a != b, "round {round}: {a} {b}");
        let row = if a { first } else { second };
        let (renewed, died) = join!(
            nodes.renew(&row.node, row.incarnation, 0),
            nodes.mark(&row.node, row.incarnation, 0, NodeStatus::Dead)
        );
        let (renewed, died) = (renewed?, died?);
        assert!((renewed == Renewal::Renewed) != died, "round {round}: {renewed:?} {died}");
        let now = nodes.read(&row.node).await?.context("a node")?;
        assert_eq!((now.status.is_alive(), now.seq), (!died, u64::from(!died)));
    }
    Ok(())
}
