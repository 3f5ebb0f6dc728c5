//! Who serves a session: this node, its owner, or a new owner.
//!
//! The invariant: a session is claimed only when its last owner gave it up or has died, or was this very process,
//! which then acts under the new epoch alone. Whoever decides from an old owner row loses, since the claim is
//! conditional on the row. Does no I/O and knows nothing of the ring but the node that it proposes.

use crate::view::Fate;
use rookery_protocol::{Epoch, Incarnation, NodeId};

/// A session's owner row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerRow {
    /// The count of claims so far.
    pub epoch: Epoch,
    /// Who claimed last; none when it has given the session up, or when there was no claim yet.
    pub holder: Option<(NodeId, Incarnation)>,
}

/// This node, as far as the decision is concerned.
#[derive(Clone, Debug)]
pub struct Me {
    /// Its name.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
    /// Whether its lease is open.
    pub open: bool,
    /// Whether it gives its sessions away.
    pub draining: bool,
}

/// What to do with a request for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Serve it here, under this epoch.
    Serve(Epoch),
    /// Claim the session here, if the row is still the one decided from; then serve.
    Claim,
    /// Hand the request to this node: it owns the session, or should claim it.
    Forward(NodeId),
    /// Nobody can serve it at this moment; ask again soon, within the request's deadline.
    Wait(Wait),
    /// What runs here runs under an epoch that is over: stop it, then decide again.
    Stop,
}

/// Why nobody can serve a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// This node's lease is not open.
    Frozen,
    /// This node ends, and the session is still its own.
    Leaving,
    /// What became of the owner is not known: its node's row must be read again first.
    Unjudged,
    /// No node takes sessions, or all are full.
    NoRoom,
}

/// Decides. `running` is the epoch under which the session runs in this process, if it does; `fate` is that of the
/// row's holder, by [`Membership::fate`](crate::membership::Membership::fate); `place` is the ring's best candidate
/// that has room.
pub fn decide(me: &Me, row: &OwnerRow, running: Option<Epoch>, fate: Fate, place: Option<&NodeId>) -> Decision {
    let ours = is_ours(me, row);
    if let Some(epoch) = running {
        if !ours || row.epoch != epoch {
            return Decision::Stop;
        }
        return if me.open { Decision::Serve(epoch) } else { Decision::Wait(Wait::Frozen) };
    }
    match (&row.holder, fate) {
        // A claim that came late, or an owner that stopped: nobody else may take it, so this process claims anew.
        (Some(_), _) if ours && me.draining => Decision::Wait(Wait::Leaving),
        (Some(_), _) if ours => claim(me),
        (Some((owner, _)), Fate::Alive | Fate::Draining) => Decision::Forward(owner.clone()),
        (Some(_), Fate::Unknown) => Decision::Wait(Wait::Unjudged),
        (Some(_), Fate::Dead) | (None, _) => match place {
            None => Decision::Wait(Wait::NoRoom),
            Some(node) if *node == me.node && me.draining => Decision::Wait(Wait::Leaving),
            Some(node) if *node == me.node => claim(me),
            Some(node) => Decision::Forward(node.clone()),
        },
    }
}

/// Whether the row names this very process.
pub fn is_ours(me: &Me, row: &OwnerRow) -> bool {
    row.holder.as_ref().is_some_and(|(node, incarnation)| *node == me.node && *incarnation == me.incarnation)
}

/// What a session does whose connection another client has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// Another owner did: stop, and touch nothing.
    Superseded,
    /// Nobody of this cluster did: one retry, late, then a person has to look.
    Foreign,
}

/// Decides after WhatsApp reported a connection of this epoch replaced, from an owner row that was read since.
pub fn replaced(me: &Me, row: &OwnerRow, epoch: Epoch) -> Replaced {
    if is_ours(me, row) && row.epoch == epoch { Replaced::Foreign } else { Replaced::Superseded }
}

/// What stood in the way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setback {
    /// The claim was refused: the row was another.
    ClaimLost,
    /// The node that the request was handed to is not the owner.
    NotOwner,
}

/// How often one request is decided anew. Nodes with different views could hand it to each other for ever.
#[derive(Clone, Copy, Debug)]
pub struct Retries(u8);

impl Default for Retries {
    fn default() -> Self {
        Self(1)
    }
}

impl Retries {
    /// Whether to read the owner row again and decide once more; else the caller answers that it cannot be served
    /// now. The row that the other one told is no substitute: only the database decides.
    pub fn again(&mut self, _setback: Setback) -> bool {
        let left = self.0;
        self.0 = left.saturating_sub(1);
        left > 0
    }
}

fn claim(me: &Me) -> Decision {
    if me.open { Decision::Claim } else { Decision::Wait(Wait::Frozen) }
}

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
