//! The planned move of one session away from this node, as the old owner sees it.
//!
//! Requests are answered `Moved`, sends under way are finished, all is flushed, the socket is closed, the owner row is
//! given up, and the new owner is told. The invariants: the row is given up only when nothing can reach the database
//! under the old epoch any more and the outcome of every write is known, since the new owner of a session that was
//! given up does not seal it; and once giving up was tried, this process never acts under that epoch again, whatever
//! came of it: a release whose answer was lost may still be carried out later. Does no I/O.

use crate::clock::Moment;
use rookery_protocol::NodeId;
use std::time::Duration;

/// How long each part may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoverLimits {
    /// Sends under way; what is not finished then stays in the outbox and is sent by the new owner.
    pub finish: Duration,
    /// Writing all that is not yet written.
    pub flush: Duration,
    /// Closing the socket and the store.
    pub close: Duration,
    /// How often the row is given up before the session is taken back.
    pub releases: u32,
}

impl Default for HandoverLimits {
    fn default() -> Self {
        let (finish, flush, close) = (Duration::from_secs(3), Duration::from_secs(2), Duration::from_secs(2));
        Self { finish, flush, close, releases: 3 }
    }
}

/// What happens to a session that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverEvent {
    /// This many sends are under way, a login counted as one; reported at the start and whenever it falls. A login
    /// that the server sees after the new owner's would take the connection away from it.
    Sending(usize),
    /// All is written, or something could not be.
    Flushed(bool),
    /// The socket is closed, nothing connects again, and nothing more is written.
    Closed {
        /// Whether no write is in doubt, and no login is still on its way to the server.
        settled: bool,
    },
    /// The row is given up, or had been taken by somebody else.
    Released,
    /// No answer, or one that decides nothing.
    ReleaseUnknown,
    /// This node's lease is not open any more.
    Frozen,
    /// Time has passed.
    Tick,
}

/// What the session's actor has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandoverEffect {
    /// Answer new requests with `Moved` to this node.
    AnswerMoved(NodeId),
    /// Write all that is not yet written, then report [`HandoverEvent::Flushed`].
    Flush,
    /// Close the socket, stop the client, a planned reconnect included, and shut the store of this epoch, then report
    /// [`HandoverEvent::Closed`].
    Close,
    /// Give the owner row up, then report what came of it.
    Release,
    /// Tell this node that the session is free. It may get lost: the new owner looks by itself, too.
    Tell(NodeId),
    /// The move is off: go on under the same epoch; the socket was never closed.
    Resume,
    /// The move is off, and the epoch is spent: decide anew from the owner row, which ends in a claim under a new
    /// epoch if the session is still this node's.
    Reclaim,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Finishing,
    Flushing,
    Closing,
    Releasing(u32),
    Over,
}

/// The move of one session.
#[derive(Debug)]
pub struct Handover {
    target: NodeId,
    limits: HandoverLimits,
    phase: Phase,
    deadline: Moment,
}

impl Handover {
    /// Begins to move a session to `target`, with so many sends under way.
    pub fn begin(target: NodeId, limits: HandoverLimits, sending: usize, now: Moment) -> (Self, Vec<HandoverEffect>) {
        let mut effects = vec![HandoverEffect::AnswerMoved(target.clone())];
        let mut handover = Self { target, limits, phase: Phase::Finishing, deadline: now + limits.finish };
        effects.extend(handover.apply(HandoverEvent::Sending(sending), now));
        (handover, effects)
    }

    /// Where it goes.
    pub fn target(&self) -> &NodeId {
        &self.target
    }

    /// When to report [`HandoverEvent::Tick`]; none once it is over, or while the row is given up.
    pub fn deadline(&self) -> Option<Moment> {
        (!matches!(self.phase, Phase::Over | Phase::Releasing(_))).then_some(self.deadline)
    }

    /// Whether it has ended, one way or the other.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Takes an event in and says what is to be done. What does not belong to the present part says nothing.
    pub fn apply(&mut self, event: HandoverEvent, now: Moment) -> Vec<HandoverEffect> {
        let late = now >= self.deadline;
        match (self.phase, event) {
            (Phase::Finishing, HandoverEvent::Sending(0)) => self.flush(now),
            (Phase::Finishing, HandoverEvent::Tick) if late => self.flush(now),
            (Phase::Flushing, HandoverEvent::Flushed(true)) => {
                self.enter(Phase::Closing, now + self.limits.close, HandoverEffect::Close)
            }
            (Phase::Flushing, HandoverEvent::Flushed(false)) => self.end(HandoverEffect::Resume),
            (Phase::Flushing, HandoverEvent::Tick) if late => self.end(HandoverEffect::Resume),
            (Phase::Finishing | Phase::Flushing, HandoverEvent::Frozen) => self.end(HandoverEffect::Resume),
            (Phase::Closing, HandoverEvent::Closed { settled: true }) => {
                self.enter(Phase::Releasing(1), now, HandoverEffect::Release)
            }
            (Phase::Closing, HandoverEvent::Closed { settled: false } | HandoverEvent::Frozen) => {
                self.end(HandoverEffect::Reclaim)
            }
            (Phase::Closing, HandoverEvent::Tick) if late => self.end(HandoverEffect::Reclaim),
            (Phase::Releasing(_), HandoverEvent::Released) => self.end(HandoverEffect::Tell(self.target.clone())),
            (Phase::Releasing(tried), HandoverEvent::ReleaseUnknown) if tried < self.limits.releases => {
                self.enter(Phase::Releasing(tried + 1), now, HandoverEffect::Release)
            }
            (Phase::Releasing(_), HandoverEvent::ReleaseUnknown) => self.end(HandoverEffect::Reclaim),
            _ => vec![],
        }
    }

    fn flush(&mut self, now: Moment) -> Vec<HandoverEffect> {
        self.enter(Phase::Flushing, now + self.limits.flush, HandoverEffect::Flush)
    }

    fn enter(&mut self, phase: Phase, deadline: Moment, effect: HandoverEffect) -> Vec<HandoverEffect> {
        self.phase = phase;
        self.deadline = deadline;
        vec![effect]
    }

    fn end(&mut self, effect: HandoverEffect) -> Vec<HandoverEffect> {
        self.phase = Phase::Over;
        vec![effect]
    }
}

#[cfg(test)]
mod tests {
    use super::{HandoverEffect as Do, HandoverEvent as On, *};

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn target() -> NodeId {
        "b".parse().unwrap()
    }

    fn begin(sending: usize) -> (Handover, Vec<Do>) {
        Handover::begin(target(), HandoverLimits::default(), sending, at(0))
    }

    #[test]
    fn an_idle_session_moves_without_a_wait() {
        let (mut handover, effects) = begin(0);
        assert_eq!(effects, [Do::AnswerMoved(target()), Do::Flush]);
        assert_eq!(handover.apply(On::Flushed(true), at(10)), [Do::Close]);
        assert_eq!(handover.apply(On::Closed { settled: true }, at(20)), [Do::Release]);
        assert_eq!(handover.deadline(), None);
        assert_eq!(handover.apply(On::Released, at(30)), [Do::Tell(target())]);
        assert!(handover.is_over());
        assert_eq!(handover.apply(On::Tick, at(99_000)), []);
    }

    #[test]
    fn sends_are_waited_for_but_not_for_ever() {
        let (mut handover, effects) = begin(2);
        assert_eq!(effects, [Do::AnswerMoved(target())]);
        assert_eq!(handover.apply(On::Sending(1), at(100)), []);
        assert_eq!(handover.apply(On::Tick, at(2_999)), []);
        assert_eq!(handover.apply(On::Tick, at(3_000)), [Do::Flush]);
        assert_eq!(handover.apply(On::Sending(0), at(3_001)), [], "flushed once");
    }

    #[test]
    fn what_cannot_be_written_keeps_the_session_here() {
        for (event, when) in [(On::Flushed(false), 10), (On::Tick, 2_000), (On::Frozen, 10)] {
            let (mut handover, _) = begin(0);
            assert_eq!(handover.apply(event, at(when)), [Do::Resume]);
            assert!(handover.is_over());
        }
    }

    #[test]
    fn a_write_in_doubt_is_never_left_to_an_owner_that_does_not_seal() {
        for (event, when) in [(On::Closed { settled: false }, 10), (On::Tick, 9_000), (On::Frozen, 10)] {
            let (mut handover, _) = begin(0);
            handover.apply(On::Flushed(true), at(5));
            assert_eq!(handover.apply(event, at(when)), [Do::Reclaim]);
        }
    }

    #[test]
    fn after_a_release_in_doubt_the_epoch_is_spent() {
        let (mut handover, _) = begin(0);
        handover.apply(On::Flushed(true), at(5));
        handover.apply(On::Closed { settled: true }, at(6));
        assert_eq!(handover.apply(On::ReleaseUnknown, at(3_000)), [Do::Release]);
        assert_eq!(handover.apply(On::Frozen, at(3_001)), [], "a release is no act");
        assert_eq!(handover.apply(On::ReleaseUnknown, at(6_000)), [Do::Release]);
        assert_eq!(handover.apply(On::ReleaseUnknown, at(9_000)), [Do::Reclaim]);
    }
}
