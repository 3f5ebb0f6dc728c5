//! All sessions of the cluster in the order of the ring, so that a change of the view is answered by the stretches of
//! the ring that changed hands and not by a look at every session.
//!
//! Every node keeps one: when a node is lost, each of the others knows at once which sessions it is to take over. An
//! entry is 24 bytes in a B-tree, about 40 with the tree. Knows the best candidates only: who really owns a session
//! stands in its owner row.

use crate::ring::{Arc, Position, Ring};
use rookery_protocol::{NodeId, SessionId};
use std::{collections::BTreeSet, ops::RangeInclusive};

/// Sessions in the order of the ring.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    sessions: BTreeSet<(Position, SessionId)>,
}

/// A session whose best candidate is another one now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved<'a> {
    /// The session.
    pub session: SessionId,
    /// Who was to have it; none when the ring was empty.
    pub from: Option<&'a NodeId>,
    /// Who is to have it; none when the ring is empty.
    pub to: Option<&'a NodeId>,
}

impl Placement {
    /// Adds a session; false when it was there.
    pub fn insert(&mut self, session: SessionId) -> bool {
        self.sessions.insert((Position::of(&session), session))
    }

    /// Removes one; false when it was not there.
    pub fn remove(&mut self, session: &SessionId) -> bool {
        self.sessions.remove(&(Position::of(session), *session))
    }

    /// Whether it is there.
    pub fn contains(&self, session: &SessionId) -> bool {
        self.sessions.contains(&(Position::of(session), *session))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// All of them, in the order of the ring: as good as random, and the same on every node.
    pub fn iter(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.iter().map(|(_, session)| *session)
    }

    /// The sessions whose best candidate changes from one ring to the other.
    pub fn moved<'a>(&'a self, before: &'a Ring, after: &'a Ring) -> impl Iterator<Item = Moved<'a>> {
        let changes = stretches(before, after).filter(|(_, from, to)| from != to);
        changes
            .flat_map(move |(stretch, from, to)| self.within(stretch).map(move |session| Moved { session, from, to }))
    }

    /// The sessions whose best candidate is this node.
    pub fn of<'a>(&'a self, ring: &'a Ring, node: &'a NodeId) -> impl Iterator<Item = SessionId> {
        let own = stretches(ring, ring).filter(move |(_, owner, _)| *owner == Some(node));
        own.flat_map(|(stretch, _, _)| self.within(stretch))
    }

    fn within(&self, stretch: RangeInclusive<u64>) -> impl Iterator<Item = SessionId> {
        let first = (Position(*stretch.start()), SessionId::from_bytes([0; 16]));
        let last = (Position(*stretch.end()), SessionId::from_bytes([u8::MAX; 16]));
        self.sessions.range(first..=last).map(|(_, session)| *session)
    }
}

impl FromIterator<SessionId> for Placement {
    fn from_iter<I: IntoIterator<Item = SessionId>>(sessions: I) -> Self {
        Self { sessions: sessions.into_iter().map(|session| (Position::of(&session), session)).collect() }
    }
}

impl Extend<SessionId> for Placement {
    fn extend<I: IntoIterator<Item = SessionId>>(&mut self, sessions: I) {
        self.sessions.extend(sessions.into_iter().map(|session| (Position::of(&session), session)));
    }
}

/// Cuts the whole ring where either of two rings has a point, and says to whom each stretch belongs in both.
fn stretches<'a>(
    before: &'a Ring,
    after: &'a Ring,
) -> impl Iterator<Item = (RangeInclusive<u64>, Option<&'a NodeId>, Option<&'a NodeId>)> {
    let (mut old, mut new) = (Walk::over(before), Walk::over(after));
    let mut start = Some(0);
    std::iter::from_fn(move || {
        let from = start?;
        let end = old.end().min(new.end());
        let stretch = (from..=end, old.owner(), new.owner());
        old.pass(end);
        new.pass(end);
        // What lies behind the last point belongs to the first one: the ring is closed.
        start = end.checked_add(1);
        Some(stretch)
    })
}

/// Goes along a ring from zero.
struct Walk<'a> {
    ring: &'a Ring,
    next: usize,
}

impl<'a> Walk<'a> {
    fn over(ring: &'a Ring) -> Self {
        Self { ring, next: 0 }
    }

    fn arc(&self) -> Option<&'a Arc> {
        self.ring.arcs().get(self.next)
    }

    fn end(&self) -> u64 {
        self.arc().map_or(u64::MAX, |arc| arc.end)
    }

    fn owner(&self) -> Option<&'a NodeId> {
        let arc = self.arc().or_else(|| self.ring.arcs().first())?;
        self.ring.nodes().get(arc.node as usize)
    }

    fn pass(&mut self, end: u64) {
        while self.arc().is_some_and(|arc| arc.end <= end) {
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::FULL_WEIGHT;
    use proptest::prelude::*;

    fn node(number: u8) -> NodeId {
        format!("n{number}").parse().unwrap()
    }

    fn ring(nodes: &[(u8, u16)]) -> Ring {
        Ring::new(nodes.iter().map(|(number, weight)| (node(*number), *weight)))
    }

    fn sessions(seed: u64, count: u64) -> Vec<SessionId> {
        (0..count).map(|n| SessionId::from_bytes((u128::from(seed) << 64 | u128::from(n)).to_be_bytes())).collect()
    }

    #[test]
    fn sessions_come_and_go() {
        let mut placement = Placement::default();
        let session = sessions(1, 1)[0];
        assert!(placement.insert(session) && !placement.insert(session) && placement.contains(&session));
        assert_eq!((placement.len(), placement.iter().next()), (1, Some(session)));
        assert!(placement.remove(&session) && !placement.remove(&session) && placement.is_empty());
    }

    #[test]
    fn the_first_node_takes_all_and_the_last_one_leaves_all() {
        let placement: Placement = sessions(1, 500).into_iter().collect();
        let (none, one) = (ring(&[]), ring(&[(1, FULL_WEIGHT)]));
        assert_eq!(placement.moved(&none, &one).filter(|moved| moved.to == Some(&node(1))).count(), 500);
        assert_eq!(placement.moved(&one, &none).filter(|moved| moved.to.is_none()).count(), 500);
        assert_eq!(placement.moved(&one, &one).count(), 0);
        assert_eq!(placement.of(&none, &node(1)).count(), 0);
    }

    proptest! {
        #[test]
        fn it_answers_as_a_look_at_every_session_would(
            before in prop::collection::vec((0_u8..20, 0_u16..200), 0..8),
            after in prop::collection::vec((0_u8..20, 0_u16..200), 0..8),
            seed in any::<u64>(),
        ) {
            let (before, after) = (ring(&before), ring(&after));
            let all = sessions(seed, 300);
            let placement: Placement = all.iter().copied().collect();
            let mut moved: Vec<_> = placement.moved(&before, &after).collect();
            moved.sort_by_key(|moved| moved.session);
            let looked_at: Vec<_> = all.iter().map(|session| Moved {
                session: *session,
                from: before.first(Position::of(session)),
                to: after.first(Position::of(session)),
            }).filter(|moved| moved.from != moved.to).collect();
            prop_assert_eq!(moved, looked_at);
            for number in 0..20 {
                let node = node(number);
                let own: BTreeSet<_> = placement.of(&after, &node).collect();
                let looked_at = all.iter().filter(|session| after.first(Position::of(session)) == Some(&node));
                prop_assert_eq!(own, looked_at.copied().collect::<BTreeSet<_>>());
            }
        }
    }
}
