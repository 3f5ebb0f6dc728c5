//! What must hold in every schedule.

use crate::database::{Effect, MAX_SESSIONS};
use std::collections::HashSet;

/// A rule that was broken.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub rule: &'static str,
    pub what: String,
}

/// Who acts: the name and incarnation of a process, and the epoch under which it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Actor {
    pub by: (usize, u64),
    pub epoch: u64,
}

/// Counts of what happened, to see that schedules reach what they are to reach.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub frames: u64,
    pub late_frames: u64,
    pub kicks: u64,
    pub claims: u64,
    pub joins: u64,
    pub handovers: u64,
    pub deaths: u64,
    pub freezes: u64,
    pub pauses: u64,
    pub crashes: u64,
    pub unknown: u64,
    pub events: u64,
    /// The longest time, in microseconds, for which an older owner acted after a newer one had begun to.
    pub overlap: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    newest: [Option<(Actor, u64)>; MAX_SESSIONS],
    sent: HashSet<(usize, u64)>,
    /// For how long two may act at once: not at all, unless a host's kernel lies about a process.
    pub overlap_allowed: u64,
    pub violation: Option<Violation>,
    pub counts: Counts,
}

impl Oracle {
    pub(crate) fn violate(&mut self, rule: &'static str, what: String) {
        self.violation.get_or_insert(Violation { rule, what });
    }

    /// I1: a socket was opened, a write counted, or a frame was handed to the wire.
    pub(crate) fn act(&mut self, session: usize, actor: Actor, now: u64, what: &str) {
        match self.newest[session] {
            Some((newest, since)) if newest.epoch > actor.epoch => {
                self.counts.overlap = self.counts.overlap.max(now - since);
                if now - since >= self.overlap_allowed {
                    self.violate("I1", format!("session {session}: {what} by {actor:?} after {newest:?} has acted"));
                }
            }
            Some((newest, _)) if newest.epoch == actor.epoch && newest != actor => {
                self.violate("I1", format!("session {session}: {what} by {actor:?} beside {newest:?}"));
            }
            Some((newest, _)) if newest == actor => {}
            _ => self.newest[session] = Some((actor, now)),
        }
    }

    /// I2: a ratchet's counter goes out.
    pub(crate) fn wire(&mut self, session: usize, actor: Actor, counter: u64) {
        self.counts.frames += 1;
        let superseded = self.newest[session].is_some_and(|(newest, _)| newest.epoch > actor.epoch);
        self.counts.late_frames += u64::from(superseded);
        if !self.sent.insert((session, counter)) {
            self.violate("I2", format!("session {session}: counter {counter} is on the wire again, by {actor:?}"));
        }
    }

    /// I3 and the writes of I1.
    pub(crate) fn database(&mut self, effect: Effect, now: u64) {
        match effect {
            Effect::None => {}
            Effect::Epoch { session, before, after } => {
                self.counts.claims += 1;
                if after <= before {
                    self.violate("I3", format!("session {session}: epoch {before} was followed by {after}"));
                }
            }
            Effect::Counts { session, by, epoch } => self.act(session, Actor { by, epoch }, now, "a write that counts"),
        }
    }

    /// I4: a login takes the place of another connection.
    pub(crate) fn kick(&mut self, session: usize, kicked: Actor, kicker: Actor) {
        self.counts.kicks += 1;
        // Where two may act at once for a moment, the older one's login may also arrive as the later one.
        let older = kicked.epoch > kicker.epoch && self.overlap_allowed == 0;
        if older || (kicked.epoch == kicker.epoch && kicked != kicker) {
            self.violate("I4", format!("session {session}: {kicked:?} was kicked by {kicker:?}"));
        }
    }
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.late_frames += other.late_frames;
        self.kicks += other.kicks;
        self.claims += other.claims;
        self.joins += other.joins;
        self.handovers += other.handovers;
        self.deaths += other.deaths;
        self.freezes += other.freezes;
        self.pauses += other.pauses;
        self.crashes += other.crashes;
        self.unknown += other.unknown;
        self.events += other.events;
        self.overlap = self.overlap.max(other.overlap);
    }

    /// Whether everything that can happen to a cluster has happened.
    pub(crate) fn reaches_everything(&self) -> bool {
        let Self { frames, kicks, claims, joins, handovers, deaths, freezes, pauses, crashes, unknown, .. } = *self;
        [frames, kicks, claims, joins, handovers, deaths, freezes, pauses, crashes, unknown]
            .iter()
            .all(|count| *count > 100)
    }
}
