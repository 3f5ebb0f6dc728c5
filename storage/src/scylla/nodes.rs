//! The nodes of the cluster: conditional statements on a table with a partition a node.
//!
//! A conditional statement that was not answered may have been done. Then the row is read with serial consistency, and
//! what it says is weighed by [`crate::nodes`]. These statements do not wait behind others: a node that is busy must
//! not be taken for a dead one.

use super::{client::Failure, operations::Operations, owners::applied, statements::Statement};
use crate::{
    NodeRow, NodeStatus, NodeStore, Renewal, StoreError,
    metrics::record,
    nodes::{Outcome, joined, marked, may_be_marked, renewed},
};
use async_trait::async_trait;
use rookery_protocol::{Incarnation, NodeId, Timestamp};
use scylla::{DeserializeRow, serialize::row::SerializeRow};
use std::time::Instant;

/// A row of the table.
#[derive(DeserializeRow)]
struct Stored {
    node: String,
    incarnation: i64,
    seq: i64,
    status: String,
    link_address: String,
    api_address: String,
    weight: i32,
    protocol: i32,
    version: String,
    started_at: i64,
}

#[async_trait]
impl NodeStore for Operations {
    async fn list(&self) -> Result<Vec<NodeRow>, StoreError> {
        let start = Instant::now();
        let answer = self.0.client.read(&self.0.client.statements().node_list, ()).await?;
        let rows = answer.rows::<Stored>().map_err(|error| unreadable(&error))?;
        let rows = rows.map(|row| row.map_err(|error| unreadable(&error)).and_then(Stored::row)).collect();
        record("node_list", start);
        rows
    }

    async fn read(&self, node: &NodeId) -> Result<Option<NodeRow>, StoreError> {
        let answer = self.0.client.read(&self.0.client.statements().node_read, (node.as_str(),)).await?;
        let row = answer.maybe_first_row::<Stored>().map_err(|error| unreadable(&error))?;
        row.map(Stored::row).transpose()
    }

    async fn join(&self, row: &NodeRow, seen: Option<&NodeRow>) -> Result<bool, StoreError> {
        if seen.is_some_and(|seen| seen.status.is_alive()) {
            return Ok(false);
        }
        let new = Stored::from(row);
        let rest = (&new.link_address, &new.api_address, new.weight, new.protocol, &new.version, new.started_at);
        let (link, api, weight, protocol, version, started_at) = rest;
        let statements = self.0.client.statements();
        let outcome = if let Some(seen) = seen {
            let old = seen.incarnation.0.cast_signed();
            let values = (
                new.incarnation,
                new.seq,
                &new.status,
                link,
                api,
                weight,
                protocol,
                version,
                started_at,
                &new.node,
                old,
            );
            self.decide("node_join", &statements.node_replace, values, &row.node).await?
        } else {
            let values =
                (&new.node, new.incarnation, new.seq, &new.status, link, api, weight, protocol, version, started_at);
            self.decide("node_join", &statements.node_create, values, &row.node).await?
        };
        Ok(joined(row, seen, &outcome)?)
    }

    async fn renew(&self, node: &NodeId, incarnation: Incarnation, seq: u64) -> Result<Renewal, StoreError> {
        let now = seq.cast_signed();
        let values = (now + 1, node.as_str(), incarnation.0.cast_signed(), now);
        let outcome = self.decide("node_renew", &self.0.client.statements().node_renew, values, node).await?;
        Ok(renewed(incarnation, seq, outcome)?)
    }

    async fn mark(
        &self,
        node: &NodeId,
        incarnation: Incarnation,
        seq_seen: u64,
        status: NodeStatus,
    ) -> Result<bool, StoreError> {
        may_be_marked(status)?;
        let values = (name(status), node.as_str(), incarnation.0.cast_signed(), seq_seen.cast_signed());
        let outcome = self.decide("node_mark", &self.0.client.statements().node_mark, values, node).await?;
        Ok(marked(incarnation, seq_seen, status, &outcome)?)
    }
}

impl Operations {
    /// Runs a conditional statement; what is known of it, with the row as it is then.
    async fn decide(
        &self,
        operation: &'static str,
        statement: &Statement,
        values: impl SerializeRow + Send + Sync,
        node: &NodeId,
    ) -> Result<Outcome, StoreError> {
        let start = Instant::now();
        let answer = self.0.client.execute(statement, &values).await.and_then(applied);
        let outcome = match answer {
            Ok(true) => Outcome::Applied,
            Ok(false) => Outcome::Refused(NodeStore::read(self, node).await?),
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::Unknown(error)) => {
                tracing::debug!(%node, operation, %error, "the outcome of a change of a node is not known");
                Outcome::Unknown(NodeStore::read(self, node).await?)
            }
        };
        record(operation, start);
        Ok(outcome)
    }
}

impl From<&NodeRow> for Stored {
    fn from(row: &NodeRow) -> Self {
        Self {
            node: row.node.as_str().to_owned(),
            incarnation: row.incarnation.0.cast_signed(),
            seq: row.seq.cast_signed(),
            status: name(row.status).to_owned(),
            link_address: row.link_address.clone(),
            api_address: row.api_address.clone(),
            weight: row.weight.into(),
            protocol: row.protocol.into(),
            version: row.version.clone(),
            started_at: row.started_at.as_micros(),
        }
    }
}

impl Stored {
    fn row(self) -> Result<NodeRow, StoreError> {
        let corrupt = |what: &str| StoreError::Corrupt { what: "node", detail: format!("`{}`: its {what}", self.node) };
        Ok(NodeRow {
            node: self.node.parse().map_err(|_| corrupt("name is none"))?,
            incarnation: Incarnation(self.incarnation.cast_unsigned()),
            seq: self.seq.cast_unsigned(),
            status: status(&self.status).ok_or_else(|| corrupt("status is not known"))?,
            weight: self.weight.try_into().map_err(|_| corrupt("weight is out of range"))?,
            protocol: self.protocol.try_into().map_err(|_| corrupt("protocol is out of range"))?,
            link_address: self.link_address,
            api_address: self.api_address,
            version: self.version,
            started_at: Timestamp::from_micros(self.started_at),
        })
    }
}

fn name(status: NodeStatus) -> &'static str {
    match status {
        NodeStatus::Active => "active",
        NodeStatus::Draining => "draining",
        NodeStatus::Dead => "dead",
    }
}

fn status(text: &str) -> Option<NodeStatus> {
    [NodeStatus::Active, NodeStatus::Draining, NodeStatus::Dead].into_iter().find(|status| name(*status) == text)
}

fn unreadable(error: &dyn std::error::Error) -> StoreError {
    StoreError::Corrupt { what: "node", detail: error.to_string() }
}
