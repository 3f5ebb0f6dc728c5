//! Which of this node's sessions to hand over next, and how fast.
//!
//! The plan is made anew with every view, so it goes on across changes; moves that were begun go on whatever the view
//! says. The invariant: no more moves are under way, and no more are begun a second, than this node's part of the
//! cluster's budget. A node that drains is not in the ring, so all of its sessions are to be moved. Does no I/O.

use crate::{
    clock::Moment,
    placement::Placement,
    ring::{Position, Ring},
};
use rookery_protocol::{NodeId, SessionId};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// How fast sessions move, in the whole cluster; every active node takes an equal part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Moves under way. A node's part is rounded up to one.
    pub under_way: u32,
    /// Moves begun a second. A node's part may be less than one.
    pub per_second: f64,
    /// After how long a move that failed, or found no room, is tried again.
    pub retry: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { under_way: 64, per_second: 50.0, retry: Duration::from_secs(5) }
    }
}

/// A move to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The session.
    pub session: SessionId,
    /// The best candidate that has room.
    pub to: NodeId,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Moves that ended well since the last time that there was nothing to move.
    pub done: u64,
    /// Tries that ended otherwise in that time.
    pub failed: u64,
    /// Moves under way.
    pub under_way: u64,
    /// Sessions that are still to be moved, those included that wait for a next try.
    pub left: u64,
}

/// The moves of one node.
#[derive(Debug)]
pub struct Rebalancer {
    me: NodeId,
    budget: Budget,
    parts: u32,
    /// Sessions to be moved, with the moment before which each is not tried.
    queue: VecDeque<(Moment, SessionId)>,
    under_way: BTreeMap<SessionId, NodeId>,
    credit: f64,
    credited: Option<Moment>,
    done: u64,
    failed: u64,
}

impl Rebalancer {
    /// For this node.
    pub fn new(me: NodeId, budget: Budget) -> Self {
        let (queue, under_way) = (VecDeque::new(), BTreeMap::new());
        Self { me, budget, parts: 1, queue, under_way, credit: 0.0, credited: None, done: 0, failed: 0 }
    }

    /// Plans anew: after a change of the view, and now and then since candidates get room. `own` are the sessions
    /// that run here. Those that are not connected go first, since nobody notices; the others in the order of the
    /// ring, which spreads them evenly over their targets.
    pub fn plan(&mut self, ring: &Ring, own: &Placement, is_connected: impl Fn(&SessionId) -> bool) {
        self.parts = u32::try_from(ring.nodes().len()).unwrap_or(u32::MAX).max(1);
        let waiting: BTreeMap<_, _> = self.queue.drain(..).map(|(after, session)| (session, after)).collect();
        let away = |session: &SessionId| ring.first(Position::of(session)).is_some_and(|node| *node != self.me);
        let mut connected = vec![];
        for session in own.iter().filter(away).filter(|session| !self.under_way.contains_key(session)) {
            let entry = (waiting.get(&session).copied().unwrap_or_default(), session);
            if is_connected(&session) { connected.push(entry) } else { self.queue.push_back(entry) }
        }
        self.queue.extend(connected);
        self.forget_if_done();
    }

    /// The moves to begin now.
    pub fn next(&mut self, ring: &Ring, now: Moment, is_full: impl Fn(&NodeId) -> bool) -> Vec<Move> {
        self.earn(now);
        let mut moves = vec![];
        // Each entry is looked at once: what cannot begin goes to the back.
        for _ in 0..self.queue.len() {
            if self.credit < 1.0 || self.under_way.len() >= self.most_under_way() {
                break;
            }
            let Some((after, session)) = self.queue.pop_front() else { break };
            if after > now {
                self.queue.push_back((after, session));
                continue;
            }
            // This node itself ends the walk: better here than on a candidate that comes after it.
            match ring.place(&session, |node| *node != self.me && is_full(node)) {
                Some(to) if *to != self.me => {
                    self.credit -= 1.0;
                    self.under_way.insert(session, to.clone());
                    moves.push(Move { session, to: to.clone() });
                }
                _ => self.queue.push_back((now + self.budget.retry, session)),
            }
        }
        moves
    }

    /// A move has ended: the session is elsewhere, or is still here.
    pub fn ended(&mut self, session: &SessionId, moved: bool, now: Moment) {
        if self.under_way.remove(session).is_none() {
            return;
        }
        if moved {
            self.done += 1;
        } else {
            self.failed += 1;
            self.queue.push_back((now + self.budget.retry, *session));
        }
        self.forget_if_done();
    }

    /// The session is gone from this node for another reason, such as its deletion.
    pub fn forget(&mut self, session: &SessionId) {
        self.under_way.remove(session);
        self.queue.retain(|(_, queued)| queued != session);
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress {
            done: self.done,
            failed: self.failed,
            under_way: self.under_way.len() as u64,
            left: (self.queue.len() + self.under_way.len()) as u64,
        }
    }

    /// The sessions that are still here, as a drain that takes too long names them; those under way first.
    pub fn left(&self) -> impl Iterator<Item = SessionId> {
        self.under_way.keys().copied().chain(self.queue.iter().map(|(_, session)| *session))
    }

    fn most_under_way(&self) -> usize {
        (self.budget.under_way / self.parts).max(1) as usize
    }

    fn earn(&mut self, now: Moment) {
        let rate = self.budget.per_second / f64::from(self.parts);
        let earned = self.credited.map_or(1.0, |last| now.since(last).as_secs_f64() * rate);
        self.credited = Some(now);
        // What was not used is not saved up for longer than a second.
        self.credit = (self.credit + earned).min(rate.max(1.0));
    }

    fn forget_if_done(&mut self) {
        if self.queue.is_empty() && self.under_way.is_empty() {
            (self.done, self.failed) = (0, 0);
        }
    }
}

/// The sessions that this node is to claim if their owners gave them up or died: those whose best candidate it is and
/// which do not run here. After a death this is what the node looks at, from the one that was lost and any other:
/// a session need not have been where it belongs.
pub fn to_claim<'a>(
    all: &'a Placement,
    own: &'a Placement,
    ring: &'a Ring,
    me: &'a NodeId,
) -> impl Iterator<Item = SessionId> {
    all.of(ring, me).filter(|session| !own.contains(session))
}

#[cfg(test)]
#[path = "rebalance_tests.rs"]
mod tests;
