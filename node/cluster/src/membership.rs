//! From the nodes' rows, read again and again, to a view of the cluster and to deaths.
//!
//! The invariant: an incarnation counts as dead only when its row said so, or when its row was taken over, which is
//! done from dead incarnations alone; and this node asks for a death only after it has watched the row stand still for
//! longer than a lease, or when the host's kernel said that the process is gone. Time in which this node could not
//! read the rows or not renew its own does not count: when the database comes back after an outage, nobody has
//! renewed, and nobody is dead. Does no I/O: its caller reads the rows and carries deaths out.

pub use crate::view::{Change, Fate, Member, Peer, Status, View};

use crate::{clock::Moment, timings::Timings};
use rookery_protocol::{Incarnation, NodeId};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// How many ended incarnations of one node are remembered, and how many whose fate is open. Of others the row must be
/// read again.
const REMEMBERED: usize = 64;
/// How often a row may still change after the kernel said that its process is gone: renewals that were not yet seen.
const LATE_RENEWALS: u32 = 2;
/// Behind how many other observers a node waits for its turn to declare a death.
const LONGEST_QUEUE: u32 = 20;

/// A death to be carried out: `status = dead`, if the row is still of this incarnation, has this `seq` and is not
/// dead yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The node.
    pub node: NodeId,
    /// Whose row it must be.
    pub incarnation: Incarnation,
    /// What `seq` must be.
    pub seq: u64,
}

/// What came of a [`Death`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeathOutcome {
    /// It is dead.
    Applied,
    /// The row was otherwise; this is it, read with serial consistency, or none.
    Refused(Option<Member>),
    /// No answer, or one that decides nothing.
    Unknown,
}

/// What is known of one node.
#[derive(Debug)]
struct Seen {
    member: Member,
    suspected: bool,
    /// How long the row has stood still under this node's eyes, up to the last read.
    silence: Duration,
    /// When the last read that counts was begun.
    read_from: Moment,
    link_reset: bool,
    refusals: u32,
    /// Since when the process is gone, as its host's kernel says, and how often the row has changed since.
    gone: Option<(Moment, u32)>,
    /// Not before this moment is its death asked for again.
    try_after: Moment,
    ended: VecDeque<Incarnation>,
    /// Incarnations that owner rows name and whose fate is open, and when each was first named.
    named: VecDeque<(Incarnation, Moment)>,
}

/// What this node knows of all nodes, itself included.
#[derive(Debug)]
pub struct Membership {
    me: NodeId,
    timings: Timings,
    seen: BTreeMap<NodeId, Seen>,
    last_read: Option<Moment>,
}

impl Membership {
    /// For a node that has joined as `own`, in place of the incarnation `ended` if there was one.
    pub fn new(own: Member, ended: Option<Incarnation>, timings: Timings, now: Moment) -> Self {
        let me = own.node.clone();
        let mut seen = Seen::new(own, now);
        seen.ended.extend(ended);
        Self { me: me.clone(), timings, seen: BTreeMap::from([(me, seen)]), last_read: None }
    }

    /// The rows of all nodes were read; the read was begun at `from` and answered `now`. Reads are made one after
    /// the other. `open` is whether this node's own lease is: one that cannot renew must not judge others.
    pub fn rows(&mut self, rows: Vec<Member>, from: Moment, now: Moment, open: bool) -> Vec<Change> {
        // What passed since the last read is watched time, unless reads had failed in between.
        let watched = self.last_read.map_or(Duration::ZERO, |last| now.since(last).min(self.timings.poll * 2));
        self.last_read = Some(now);
        let mut changes = vec![];
        for row in rows {
            let node = row.node.clone();
            if self.take_in(row, from, &mut changes)
                && let Some(seen) = self.seen.get_mut(&node)
                && open
            {
                seen.silence += watched;
            }
        }
        self.suspect(&mut changes);
        changes
    }

    /// The link to this incarnation was reset by its host.
    pub fn link_reset(&mut self, node: &NodeId, incarnation: Incarnation) -> Option<Change> {
        let seen = self.seen.get_mut(node).filter(|seen| seen.is_living(incarnation))?;
        seen.link_reset = true;
        seen.refusals = 0;
        let newly = !std::mem::replace(&mut seen.suspected, true);
        newly.then(|| Change::Suspected(node.clone()))
    }

    /// A connection to this incarnation's link address was refused by its host.
    pub fn connect_refused(&mut self, node: &NodeId, incarnation: Incarnation, now: Moment) {
        let enough = self.timings.refusals;
        let fast = self.timings.fast_death;
        if let Some(seen) = self.seen.get_mut(node).filter(|seen| seen.is_living(incarnation) && seen.link_reset) {
            seen.refusals += 1;
            if fast && seen.refusals >= enough && seen.gone.is_none() {
                seen.gone = Some((now, 0));
                seen.try_after = now;
            }
        }
    }

    /// A connection to the node was made, or failed in any other way than being refused: its process may be there.
    pub fn connect_undecided(&mut self, node: &NodeId, made: bool) {
        if let Some(seen) = self.seen.get_mut(node) {
            seen.refusals = 0;
            seen.link_reset &= !made;
            seen.gone = None;
        }
    }

    /// The deaths to carry out now. Each is asked for again when its outcome stays unknown.
    pub fn due(&mut self, now: Moment) -> Vec<Death> {
        let due: Vec<_> =
            self.seen.keys().filter(|node| self.death_of(node).is_some_and(|at| at <= now)).cloned().collect();
        let mut deaths = vec![];
        for node in due {
            let again = now + self.timings.renew_timeout;
            if let Some(seen) = self.seen.get_mut(&node) {
                seen.try_after = again;
                let Member { incarnation, seq, .. } = seen.member;
                deaths.push(Death { node, incarnation, seq });
            }
        }
        deaths
    }

    /// When [`Self::due`] should be asked next, if nothing is read until then.
    pub fn next_due(&self) -> Option<Moment> {
        self.seen.keys().filter_map(|node| self.death_of(node)).min()
    }

    /// Takes in what came of a death.
    pub fn declared(&mut self, death: &Death, outcome: DeathOutcome, now: Moment) -> Vec<Change> {
        let mut changes = vec![];
        match outcome {
            DeathOutcome::Applied => {
                let dead = self.seen.get(&death.node).filter(|seen| seen.member.incarnation == death.incarnation);
                if let Some(seen) = dead {
                    let row = Member { status: Status::Dead, ..seen.member.clone() };
                    let from = seen.read_from;
                    self.take_in(row, from, &mut changes);
                }
            }
            DeathOutcome::Refused(Some(row)) => {
                let from = self.seen.get(&death.node).map_or(now, |seen| seen.read_from);
                self.take_in(row, from, &mut changes);
                if let Some(seen) = self.seen.get_mut(&death.node) {
                    seen.try_after = now;
                }
            }
            // A row that is not there cannot be declared dead; the others see that as well.
            DeathOutcome::Refused(None) | DeathOutcome::Unknown => {}
        }
        changes
    }

    /// What has become of an incarnation that a session's owner row names; that row was read, its answer included,
    /// before `named_at`.
    ///
    /// Incarnations have no order. A node's row that is of another one says that the one named has ended, but only
    /// when it was read after the name: else the name may be the younger. An answer of [`Fate::Unknown`] remembers the
    /// name, so that the next read of the rows decides it.
    pub fn fate(&mut self, node: &NodeId, incarnation: Incarnation, named_at: Moment) -> Fate {
        let Some(seen) = self.seen.get_mut(node) else { return Fate::Unknown };
        if seen.ended.contains(&incarnation) {
            return Fate::Dead;
        }
        if seen.member.incarnation == incarnation {
            return match seen.member.status {
                Status::Active => Fate::Alive,
                Status::Draining => Fate::Draining,
                Status::Dead => Fate::Dead,
            };
        }
        let named_at = seen.first_named(incarnation, named_at);
        if seen.read_from < named_at {
            return Fate::Unknown;
        }
        seen.end(incarnation);
        Fate::Dead
    }

    /// The view of this moment.
    pub fn view(&self) -> View {
        let peer = |seen: &Seen| Peer { member: seen.member.clone(), suspected: seen.suspected };
        View { peers: self.seen.iter().map(|(node, seen)| (node.clone(), peer(seen))).collect() }
    }

    /// Takes one row in; whether it was no news of a living node.
    fn take_in(&mut self, row: Member, from: Moment, changes: &mut Vec<Change>) -> bool {
        let Some(seen) = self.seen.get_mut(&row.node) else {
            if row.status != Status::Dead {
                changes.push(Change::Joined(row.clone()));
            }
            self.seen.insert(row.node.clone(), Seen::new(row, from));
            return false;
        };
        if seen.ended.contains(&row.incarnation) {
            return false;
        }
        if seen.member.incarnation != row.incarnation {
            let old = seen.member.clone();
            seen.end(old.incarnation);
            if old.status != Status::Dead {
                changes.push(Change::Died { node: old.node, incarnation: old.incarnation });
            }
            if row.status != Status::Dead {
                changes.push(Change::Joined(row.clone()));
            }
            let (ended, named) = (std::mem::take(&mut seen.ended), std::mem::take(&mut seen.named));
            *seen = Seen { ended, named, ..Seen::new(row, from) };
            return false;
        }
        seen.same_incarnation(row, from, changes)
    }

    fn suspect(&mut self, changes: &mut Vec<Change>) {
        for (node, seen) in &mut self.seen {
            let silent = seen.silence >= self.timings.lease && seen.member.status != Status::Dead;
            if silent && *node != self.me && !std::mem::replace(&mut seen.suspected, true) {
                changes.push(Change::Suspected(node.clone()));
            }
        }
    }

    /// When the death of a node is to be asked for, as far as is known now.
    fn death_of(&self, node: &NodeId) -> Option<Moment> {
        let seen = self.seen.get(node).filter(|seen| seen.member.status != Status::Dead && *node != self.me)?;
        let turn = self.timings.stagger * self.queue_before_me(node);
        let silent = (seen.silence >= self.timings.observe + turn).then_some(seen.try_after);
        let gone = seen.gone.map(|(since, _)| (since + turn).max(seen.try_after));
        silent.into_iter().chain(gone).min()
    }

    /// How many nodes come before this one in declaring the death of `node`: those that follow it in the order of
    /// names, from the last to the first again.
    fn queue_before_me(&self, node: &NodeId) -> u32 {
        let observers = self.seen.iter().filter(|(_, seen)| seen.member.status == Status::Active && !seen.suspected);
        let before = observers.map(|(other, _)| other).filter(|other| {
            let (others, mine) = ((*other < node, *other), (self.me < *node, &self.me));
            *other != node && others < mine
        });
        (before.count() as u32).min(LONGEST_QUEUE)
    }
}

impl Seen {
    fn new(member: Member, read_from: Moment) -> Self {
        Self {
            member,
            suspected: false,
            silence: Duration::ZERO,
            read_from,
            link_reset: false,
            refusals: 0,
            gone: None,
            try_after: Moment::default(),
            ended: VecDeque::new(),
            named: VecDeque::new(),
        }
    }

    fn is_living(&self, incarnation: Incarnation) -> bool {
        self.member.incarnation == incarnation && self.member.status != Status::Dead
    }

    fn end(&mut self, incarnation: Incarnation) {
        self.named.retain(|(named, _)| *named != incarnation);
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(incarnation);
    }

    fn first_named(&mut self, incarnation: Incarnation, now: Moment) -> Moment {
        if let Some((_, first)) = self.named.iter().find(|(named, _)| *named == incarnation) {
            return *first;
        }
        if self.named.len() == REMEMBERED {
            self.named.pop_front();
        }
        self.named.push_back((incarnation, now));
        now
    }

    /// Whether the row is as it was, and of a living node.
    fn same_incarnation(&mut self, row: Member, from: Moment, changes: &mut Vec<Change>) -> bool {
        // Dead is final, and a lower number is older than what is known.
        if self.member.status == Status::Dead || row.seq < self.member.seq {
            return false;
        }
        self.read_from = self.read_from.max(from);
        let renewed = row.seq > self.member.seq;
        if row.status == Status::Dead {
            changes.push(Change::Died { node: row.node.clone(), incarnation: row.incarnation });
        } else if row.status == Status::Draining && self.member.status == Status::Active {
            changes.push(Change::Draining(row.node.clone()));
        }
        let status = row.status.max(self.member.status);
        self.member = Member { status, ..row };
        if renewed {
            self.renewed(changes);
        }
        !renewed && status != Status::Dead
    }

    fn renewed(&mut self, changes: &mut Vec<Change>) {
        self.silence = Duration::ZERO;
        if let Some((_, late)) = &mut self.gone {
            *late += 1;
            if *late <= LATE_RENEWALS {
                return;
            }
            // Something else than the host answered for it: the process renews, so it is there.
            self.gone = None;
            self.link_reset = false;
        }
        if std::mem::take(&mut self.suspected) && self.member.status != Status::Dead {
            changes.push(Change::Recovered(self.member.node.clone()));
        }
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
