//! The nodes of a cluster, as every node of it reads them.

use crate::StoreError;
use rookery_protocol::{Incarnation, NodeId, Timestamp};
use serde::{Deserialize, Serialize};

/// A node of the cluster: who it is, how to reach it, and a count that says that it is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its stable name.
    pub node: NodeId,
    /// The run of its process that joined last.
    pub incarnation: Incarnation,
    /// How often this incarnation has renewed its row.
    pub seq: u64,
    /// What may be expected of it.
    pub status: NodeStatus,
    /// Where other nodes reach it: `host:port`.
    pub link_address: String,
    /// Where its REST API is: `host:port`.
    pub api_address: String,
    /// Its share of the sessions, against those of other nodes.
    pub weight: u16,
    /// The version of the envelope between nodes that it speaks.
    pub protocol: u16,
    /// The version of its binary, for people.
    pub version: String,
    /// When this incarnation was started, by its own clock.
    pub started_at: Timestamp,
}

/// What may be expected of a node. The number is part of the stored row and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeStatus {
    /// It takes sessions.
    Active,
    /// It gives its sessions away and takes none.
    Draining,
    /// It has gone, or was declared gone; it will never act again. Terminal for an incarnation.
    Dead,
}

impl NodeStatus {
    /// Whether a node with this status may still act.
    pub fn is_alive(self) -> bool {
        self != Self::Dead
    }
}

/// What became of a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The row counts one more.
    Renewed,
    /// The row is not as expected: this is what it is now; none when there is none.
    Refused(Option<NodeRow>),
}

/// What is known of a conditional write once it was answered, or the row read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was applied.
    Applied,
    /// It was refused; the row as it is.
    Refused(Option<NodeRow>),
    /// It was not answered; the row as it is, after whatever was begun has come to an end.
    Unknown(Option<NodeRow>),
}

/// A conditional write that certainly was not applied although nothing was in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

/// What a join came to.
pub(crate) fn joined(row: &NodeRow, seen: Option<&NodeRow>, outcome: &Outcome) -> Result<bool, Lost> {
    match outcome {
        Outcome::Applied => Ok(true),
        Outcome::Refused(now) | Outcome::Unknown(now)
            if now.as_ref().is_some_and(|now| now.incarnation == row.incarnation) =>
        {
            Ok(true)
        }
        Outcome::Unknown(now) if now.as_ref() == seen => Err(Lost),
        _ => Ok(false),
    }
}

/// What a renewal from this count came to.
pub(crate) fn renewed(incarnation: Incarnation, seq: u64, outcome: Outcome) -> Result<Renewal, Lost> {
    match outcome {
        Outcome::Applied => Ok(Renewal::Renewed),
        Outcome::Unknown(Some(now))
            if now.incarnation == incarnation && now.status.is_alive() && now.seq == seq + 1 =>
        {
            Ok(Renewal::Renewed)
        }
        Outcome::Unknown(Some(now)) if now.incarnation == incarnation && now.status.is_alive() && now.seq == seq => {
            Err(Lost)
        }
        Outcome::Refused(now) | Outcome::Unknown(now) => Ok(Renewal::Refused(now)),
    }
}

/// Refuses the one status that is not given by a mark.
pub(crate) fn may_be_marked(status: NodeStatus) -> Result<(), StoreError> {
    if status == NodeStatus::Active {
        return Err(StoreError::Refused("a node becomes active by joining alone"));
    }
    Ok(())
}

/// What a change of status came to.
pub(crate) fn marked(
    incarnation: Incarnation,
    seq_seen: u64,
    status: NodeStatus,
    outcome: &Outcome,
) -> Result<bool, Lost> {
    match outcome {
        Outcome::Applied => Ok(true),
        Outcome::Refused(Some(now)) | Outcome::Unknown(Some(now))
            if now.incarnation == incarnation && now.status == status =>
        {
            Ok(true)
        }
        Outcome::Unknown(Some(now))
            if now.incarnation == incarnation && now.seq == seq_seen && now.status.is_alive() =>
        {
            Err(Lost)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(incarnation: u64, seq: u64, status: NodeStatus) -> NodeRow {
        NodeRow {
            node: "n".parse().unwrap(),
            incarnation: Incarnation(incarnation),
            seq,
            status,
            link_address: String::new(),
            api_address: String::new(),
            weight: 1,
            protocol: 1,
            version: String::new(),
            started_at: Timestamp::from_secs(0),
        }
    }

    #[test]
    fn a_join_of_unknown_outcome_is_decided_by_the_incarnation_that_is_there() {
        let (mine, dead) = (row(2, 0, NodeStatus::Active), row(1, 9, NodeStatus::Dead));
        let other = row(3, 0, NodeStatus::Active);
        assert_eq!(joined(&mine, Some(&dead), &Outcome::Unknown(Some(mine.clone()))), Ok(true));
        assert_eq!(joined(&mine, Some(&dead), &Outcome::Unknown(Some(dead.clone()))), Err(Lost));
        assert_eq!(joined(&mine, None, &Outcome::Unknown(None)), Err(Lost));
        assert_eq!(joined(&mine, Some(&dead), &Outcome::Unknown(Some(other.clone()))), Ok(false));
        assert_eq!(joined(&mine, None, &Outcome::Refused(Some(other))), Ok(false));
        assert_eq!(joined(&mine, None, &Outcome::Refused(Some(mine.clone()))), Ok(true), "an earlier try won");
    }

    #[test]
    fn a_renewal_of_unknown_outcome_is_decided_by_the_count_that_is_there() {
        let after = |now: Option<NodeRow>| renewed(Incarnation(1), 5, Outcome::Unknown(now));
        assert_eq!(after(Some(row(1, 6, NodeStatus::Draining))), Ok(Renewal::Renewed));
        assert_eq!(after(Some(row(1, 5, NodeStatus::Active))), Err(Lost));
        for gone in [Some(row(1, 6, NodeStatus::Dead)), Some(row(2, 6, NodeStatus::Active)), None] {
            assert_eq!(after(gone.clone()), Ok(Renewal::Refused(gone)));
        }
        let ahead = Some(row(1, 6, NodeStatus::Active));
        let refused = renewed(Incarnation(1), 5, Outcome::Refused(ahead.clone()));
        assert_eq!(refused, Ok(Renewal::Refused(ahead)), "an earlier request has counted, at its own time");
    }

    #[test]
    fn a_mark_of_unknown_outcome_is_decided_by_the_status_that_is_there() {
        let after = |now: NodeRow| marked(Incarnation(1), 5, NodeStatus::Dead, &Outcome::Unknown(Some(now)));
        assert_eq!(after(row(1, 5, NodeStatus::Dead)), Ok(true));
        assert_eq!(after(row(1, 5, NodeStatus::Active)), Err(Lost));
        assert_eq!(after(row(1, 6, NodeStatus::Active)), Ok(false), "it was alive");
        assert_eq!(after(row(2, 0, NodeStatus::Dead)), Ok(false), "another incarnation");
    }
}
