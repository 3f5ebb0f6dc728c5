//! Takes a node's place in the cluster, as [`rookery_cluster::join`] says.

use super::standing::{Run, member};
use anyhow::Context;
use rookery_cluster::{
    clock::{Clock as _, Moment},
    join::{Join, JoinStep},
    timings::Timings,
};
use rookery_protocol::{Incarnation, Timestamp, cluster::PROTOCOL};
use rookery_storage::{NodeRow, NodeStatus, Stores};
use std::time::Duration;

/// Between two tries of what did not work.
const AGAIN: Duration = Duration::from_millis(100);
/// How often in a row the database may fail before the start is given up.
const FAILURES: u32 = 20;

/// What a node says of itself when it joins.
pub(super) struct Introduction {
    pub me: Run,
    pub link_address: String,
    pub api_address: String,
    pub weight: u16,
}

/// A place in the cluster.
pub(super) struct Joined {
    pub row: NodeRow,
    /// From when the first lease counts.
    pub sent: Moment,
    /// The run in whose place this one is.
    pub ended: Option<Incarnation>,
}

/// Joins. While a run before this one still counts as alive this waits until that one is declared dead, and fails when
/// it goes on counting: then another process has the same name.
pub(super) async fn join(stores: &Stores, introduction: &Introduction, timings: Timings) -> anyhow::Result<Joined> {
    let (node, incarnation) = introduction.me.clone();
    let clock = rookery_cluster::clock::BootClock;
    let mut join = Join::new(node.clone(), incarnation, timings);
    let mut failures = 0;
    loop {
        let row = match stores.nodes.read(&node).await {
            Ok(row) => row,
            Err(error) if failures < FAILURES => {
                failures += 1;
                tracing::warn!(%error, "the node's row could not be read");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(error).context("the node's row could not be read"),
        };
        let seen = row.clone().map(member);
        match join.row(seen.as_ref(), clock.now()) {
            JoinStep::Take(_) => {
                join.sent(clock.now());
                // Whatever comes of it is read.
                if let Err(error) = stores.nodes.join(&introduction.row(), row.as_ref()).await {
                    tracing::warn!(%error, "joining is tried again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
            JoinStep::Watch(until) => {
                tracing::info!(%node, "a run of this node before this one may be alive: it is watched");
                tokio::time::sleep(until.since(clock.now())).await;
            }
            JoinStep::Declare(death) => {
                stores.nodes.mark(&death.node, death.incarnation, death.seq, NodeStatus::Dead).await?;
            }
            JoinStep::Joined { sent, ended, .. } => {
                return Ok(Joined { row: row.context("the node's row is gone")?, sent, ended });
            }
            JoinStep::Refuse(error) => return Err(error).context("node.id"),
        }
    }
}

impl Introduction {
    fn row(&self) -> NodeRow {
        NodeRow {
            node: self.me.0.clone(),
            incarnation: self.me.1,
            seq: 0,
            status: NodeStatus::Active,
            link_address: self.link_address.clone(),
            api_address: self.api_address.clone(),
            weight: self.weight,
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Timestamp::now(),
        }
    }
}
