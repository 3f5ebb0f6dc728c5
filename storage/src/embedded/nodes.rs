//! The nodes of the cluster. A node with this engine is its own cluster; it is kept as any other, so that the code above
//! is one.

use super::Embedded;
use crate::{
    NodeRow, NodeStatus, NodeStore, Renewal, StoreError,
    nodes::{Lost, Outcome, joined, marked, may_be_marked, renewed},
    tables::{self, Table},
};
use async_trait::async_trait;
use rookery_protocol::{Incarnation, NodeId};

/// Most nodes that a list has.
pub(crate) const LIST_LIMIT: usize = 1_000;

#[async_trait]
impl NodeStore for Embedded {
    async fn list(&self) -> Result<Vec<NodeRow>, StoreError> {
        self.0
            .read("node_list", |database| {
                let rows = database.view().prefix(Table::Control, &tables::nodes(), None).take(LIST_LIMIT);
                rows.map(|row| row.and_then(|(key, stored)| super::codec::decode_at(&key, &stored))).collect()
            })
            .await
    }

    async fn read(&self, node: &NodeId) -> Result<Option<NodeRow>, StoreError> {
        let key = tables::node(node);
        self.0.read_now("node_read", move |database| database.row(Table::Control, &key)).await
    }

    async fn join(&self, row: &NodeRow, seen: Option<&NodeRow>) -> Result<bool, StoreError> {
        let (wanted, expected) = (row.clone(), seen.map(|seen| (seen.incarnation, seen.status)));
        let fits = move |now: Option<&NodeRow>| match (now, expected) {
            (None, None) => true,
            (Some(now), Some((incarnation, NodeStatus::Dead))) => {
                now.incarnation == incarnation && !now.status.is_alive()
            }
            _ => false,
        };
        let outcome = self.change("node_join", &row.node, move |now| fits(now).then_some(wanted)).await?;
        joined(row, seen, &outcome).map_err(StoreError::from)
    }

    async fn renew(&self, node: &NodeId, incarnation: Incarnation, seq: u64) -> Result<Renewal, StoreError> {
        let next = move |now: Option<&NodeRow>| {
            let now = now.filter(|now| now.incarnation == incarnation && now.seq == seq && now.status.is_alive())?;
            Some(NodeRow { seq: seq + 1, ..now.clone() })
        };
        Ok(renewed(incarnation, seq, self.change("node_renew", node, next).await?)?)
    }

    async fn mark(
        &self,
        node: &NodeId,
        incarnation: Incarnation,
        seq_seen: u64,
        status: NodeStatus,
    ) -> Result<bool, StoreError> {
        may_be_marked(status)?;
        let next = move |now: Option<&NodeRow>| {
            let now =
                now.filter(|now| now.incarnation == incarnation && now.seq == seq_seen && now.status.is_alive())?;
            Some(NodeRow { status, ..now.clone() })
        };
        Ok(marked(incarnation, seq_seen, status, &self.change("node_mark", node, next).await?)?)
    }
}

impl Embedded {
    /// Writes what `next` makes of the row, if it makes anything of it.
    async fn change(
        &self,
        name: &'static str,
        node: &NodeId,
        next: impl FnOnce(Option<&NodeRow>) -> Option<NodeRow> + Send + 'static,
    ) -> Result<Outcome, StoreError> {
        let key = tables::node(node);
        self.0
            .write(name, move |transaction| {
                let now: Option<NodeRow> = transaction.row(Table::Control, &key)?;
                let Some(row) = next(now.as_ref()) else { return Ok(Outcome::Refused(now)) };
                transaction.put_row(Table::Control, key, &row)?;
                Ok(Outcome::Applied)
            })
            .await
    }
}

impl From<Lost> for StoreError {
    fn from(Lost: Lost) -> Self {
        Self::Unavailable("the database did not make a change that nothing was in the way of".to_owned())
    }
}
