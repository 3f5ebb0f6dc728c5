//! May this node act now?
//!
//! [`Keeper`] decides about renewals; [`Lease`] is what the gates ask, from any thread. The invariant: the lease is
//! never open later than the lease time after the *sending* of a renewal that the node's row has taken. Whoever sees
//! that renewal sees it after it was sent, so an observer that waits longer than the lease outlasts it. Dead is
//! final. Knows no database: its caller carries the renewals out.

use crate::{
    clock::{Clock, Moment},
    membership::Status,
    timings::Timings,
};
use rookery_protocol::Incarnation;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The deadline of a lease that will never open again.
const CLOSED_FOR_GOOD: u64 = 0;
/// The deadline of one that has not been open yet: a nanosecond after the clock's zero, which is past.
const NOT_YET: u64 = 1;

/// Until when the node may act. Cheap to clone and to ask.
#[derive(Clone)]
pub struct Lease {
    deadline: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
}

impl Lease {
    /// A lease that is not open yet.
    pub fn new(clock: impl Clock) -> Self {
        Self { deadline: Arc::new(AtomicU64::new(NOT_YET)), clock: Arc::new(clock) }
    }

    /// Whether the node may act now. Ask before every act, and after a wait within one.
    pub fn is_open(&self) -> bool {
        self.is_open_at(self.clock.now())
    }

    /// Whether the node may act at `now`.
    pub fn is_open_at(&self, now: Moment) -> bool {
        now.as_nanos() < self.deadline.load(Ordering::Acquire)
    }

    /// How long the node may still act; zero when it may not.
    pub fn remaining(&self) -> Duration {
        self.deadline().since(self.clock.now())
    }

    /// The moment from which the node may not act.
    pub fn deadline(&self) -> Moment {
        Moment::from_nanos(self.deadline.load(Ordering::Acquire))
    }

    /// The present moment on the clock of the lease.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    fn extend(&self, deadline: Moment) {
        let later = |old: u64| (old != CLOSED_FOR_GOOD && old < deadline.as_nanos()).then_some(deadline.as_nanos());
        // An error says that nothing was to be changed.
        let _ = self.deadline.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
    }

    fn close(&self) {
        self.deadline.store(CLOSED_FOR_GOOD, Ordering::Release);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.deadline()).finish()
    }
}

/// Where this node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may act.
    Open,
    /// It may not act until a renewal succeeds: no send, no ack, no write, no new connection; sockets stay.
    Frozen,
    /// It was declared dead, or succeeded by another process of its name. It never acts again, and exits.
    Dead,
}

/// A renewal to be carried out: `seq = expected + 1`, if the row is still of this incarnation, is not dead and has
/// the expected `seq`. A draining node renews as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Whose row it must be.
    pub incarnation: Incarnation,
    /// What `seq` must be.
    pub expected: u64,
    /// When it was sent; the lease is counted from here.
    pub sent: Moment,
}

/// What the node's own row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnRow {
    /// Whose row it is.
    pub incarnation: Incarnation,
    /// How often it was renewed.
    pub seq: u64,
    /// What has become of it.
    pub status: Status,
}

/// What came of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalOutcome {
    /// The row was as expected and is renewed.
    Applied,
    /// It was not; this is the row, read with serial consistency, or none.
    Refused(Option<OwnRow>),
    /// No answer, or one that decides nothing.
    Unknown,
}

/// Keeps the lease.
#[derive(Debug)]
pub struct Keeper {
    incarnation: Incarnation,
    timings: Timings,
    lease: Lease,
    seq: u64,
    due: Moment,
    in_flight: bool,
    /// When the first of the renewals of this `seq` was sent whose outcome is unknown.
    doubt: Option<Moment>,
    dead: bool,
}

impl Keeper {
    /// For a node that has joined with a row of this `seq`; joining is its first renewal, and was `sent` then.
    pub fn joined(incarnation: Incarnation, seq: u64, sent: Moment, timings: Timings, lease: Lease) -> Self {
        lease.extend(sent + timings.lease);
        let due = sent + timings.renew;
        Self { incarnation, timings, lease, seq, due, in_flight: false, doubt: None, dead: false }
    }

    /// When [`Self::renew`] is to be called next; none once dead, or while a renewal is under way.
    pub fn due(&self) -> Option<Moment> {
        (!self.dead && !self.in_flight).then_some(self.due)
    }

    /// The renewal to send right now. One at a time: its outcome is to be reported before the next.
    pub fn renew(&mut self, now: Moment) -> Option<Renewal> {
        if self.dead || self.in_flight {
            return None;
        }
        self.in_flight = true;
        Some(Renewal { incarnation: self.incarnation, expected: self.seq, sent: now })
    }

    /// Takes in what came of a renewal.
    pub fn renewed(&mut self, renewal: Renewal, outcome: RenewalOutcome, now: Moment) -> Standing {
        self.in_flight = false;
        match outcome {
            RenewalOutcome::Applied => self.taken(renewal.expected + 1, renewal.sent),
            RenewalOutcome::Unknown => {
                self.doubt.get_or_insert(renewal.sent);
                self.due = now + self.timings.renew / 4;
            }
            RenewalOutcome::Refused(row) => self.refused(renewal, row, now),
        }
        self.standing(now)
    }

    /// The node's own row was seen otherwise, as in a read of all rows.
    pub fn seen(&mut self, row: OwnRow, now: Moment) -> Standing {
        if row.incarnation == self.incarnation && row.status == Status::Dead {
            self.die();
        }
        self.standing(now)
    }

    /// Where the node stands.
    pub fn standing(&self, now: Moment) -> Standing {
        if self.dead {
            Standing::Dead
        } else if self.lease.is_open_at(now) {
            Standing::Open
        } else {
            Standing::Frozen
        }
    }

    /// The node ends: it never acts again, whatever its row says.
    pub fn die(&mut self) {
        self.dead = true;
        self.lease.close();
    }

    fn refused(&mut self, renewal: Renewal, row: Option<OwnRow>, now: Moment) {
        let Some(row) = row.filter(|row| row.incarnation == self.incarnation && row.status != Status::Dead) else {
            return self.die();
        };
        // An earlier renewal of unknown outcome was the one that the row has taken. Which one is not known, so the
        // lease is counted from the first.
        match self.doubt {
            Some(sent) if row.seq == renewal.expected + 1 => self.taken(row.seq, sent),
            _ => self.seq = row.seq,
        }
        self.due = now;
    }

    fn taken(&mut self, seq: u64, sent: Moment) {
        self.seq = seq;
        self.doubt = None;
        self.due = sent + self.timings.renew;
        self.lease.extend(sent + self.timings.lease);
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
