//! How a node gets its row: the one way into the cluster, and what keeps a second process of the same name out.
//!
//! The row of a dead incarnation, or none, is taken over. One that is not dead may belong to a process that has just
//! been killed, or to one that runs: it is watched for as long as any observer would, and a row that moves refuses the
//! start. Does no I/O.

use crate::{
    clock::Moment,
    membership::{Death, Member, Status},
    timings::Timings,
};
use rookery_protocol::{Incarnation, NodeId};

/// What to do next. After each, the row is read with serial consistency and given to [`Join::row`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinStep {
    /// Write the row with this node's incarnation, `seq` 0 and status active: if there is none, or if it is of this
    /// incarnation and dead. Note when it was sent, with [`Join::sent`].
    Take(Option<Incarnation>),
    /// Read the row again at this moment.
    Watch(Moment),
    /// Declare the incarnation that is still in the row dead.
    Declare(Death),
    /// The node is in.
    Joined {
        /// The row's number of renewals.
        seq: u64,
        /// From when the first lease counts.
        sent: Moment,
        /// The incarnation in whose place it is.
        ended: Option<Incarnation>,
    },
    /// The node must not start.
    Refuse(JoinError),
}

/// Why a node must not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// A process of the same name runs.
    #[error(
        "another process runs as node {node} (incarnation {}); give this one a node id of its own, or stop the other",
        .incarnation.0
    )]
    Running {
        /// The name.
        node: NodeId,
        /// The incarnation that runs.
        incarnation: Incarnation,
    },
    /// The others gave this incarnation up while it started.
    #[error("node {0} was declared dead while it joined; start it again")]
    DeclaredDead(NodeId),
}

/// Joining.
#[derive(Debug)]
pub struct Join {
    node: NodeId,
    incarnation: Incarnation,
    timings: Timings,
    sent: Option<Moment>,
    ended: Option<Incarnation>,
    /// The row that is watched, since when, and how often it has moved.
    watched: Option<(Incarnation, u64, Moment, u32)>,
}

impl Join {
    /// For this node, under a fresh incarnation.
    pub fn new(node: NodeId, incarnation: Incarnation, timings: Timings) -> Self {
        Self { node, incarnation, timings, sent: None, ended: None, watched: None }
    }

    /// A [`JoinStep::Take`] is sent at this moment. Of several whose outcome is unknown the first counts.
    pub fn sent(&mut self, now: Moment) {
        self.sent.get_or_insert(now);
    }

    /// The node's row as it is now, or none.
    pub fn row(&mut self, row: Option<&Member>, now: Moment) -> JoinStep {
        match row {
            None => JoinStep::Take(None),
            Some(row) if row.incarnation == self.incarnation => match (row.status, self.sent) {
                (Status::Active | Status::Draining, Some(sent)) => {
                    JoinStep::Joined { seq: row.seq, sent, ended: self.ended }
                }
                _ => JoinStep::Refuse(JoinError::DeclaredDead(self.node.clone())),
            },
            Some(row) if row.status == Status::Dead => {
                self.ended = Some(row.incarnation);
                self.watched = None;
                JoinStep::Take(self.ended)
            }
            Some(row) => self.watch(row, now),
        }
    }

    fn watch(&mut self, row: &Member, now: Moment) -> JoinStep {
        let (incarnation, seq) = (row.incarnation, row.seq);
        let refuse = || JoinStep::Refuse(JoinError::Running { node: self.node.clone(), incarnation });
        let (since, moved) = match self.watched {
            Some((same, number, since, moved)) if (same, number) == (incarnation, seq) => (since, moved),
            // One renewal of a process that is gone may still have been on its way; two are a living one.
            Some((same, _, _, moved)) if same == incarnation && moved == 0 => (now, 1),
            Some(_) => return refuse(),
            None => (now, 0),
        };
        self.watched = Some((incarnation, seq, since, moved));
        let end = since + self.timings.observe;
        if now >= end {
            return JoinStep::Declare(Death { node: self.node.clone(), incarnation, seq });
        }
        JoinStep::Watch((now + self.timings.poll).min(end))
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
