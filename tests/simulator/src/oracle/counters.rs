//! What was used already: ratchet counters and sizes of messages.
//!
//! Invariant: memory is bounded and small: a chain of ratchet counters is a set of intervals and the
//! fingerprints of its last few messages, a message id is a hash. Pure; the oracle's locks guard it.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Messages of one chain that are recognised when they are sent again.
const FINGERPRINTS: usize = 512;
/// Chains of one pair of devices; the oldest are forgotten.
const CHAINS: usize = 4_096;
/// Message ids whose size is remembered.
const SIZES: usize = 200_000;

/// A hash of anything, for keys of bounded size.
pub(super) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// One use of a counter.
pub(super) struct Seen {
    /// The sending device and the recipient.
    pub(super) pair: u64,
    /// The ratchet chain.
    pub(super) chain: u64,
    pub(super) counter: u32,
    /// Of message id and ciphertext: equal for a message that is sent again as it was.
    pub(super) fingerprint: u64,
}

/// The chains that one device uses towards another.
#[derive(Default)]
pub(super) struct Pair {
    chains: HashMap<u64, Chain>,
    order: VecDeque<u64>,
}

impl Pair {
    /// Marks a counter as used. False when it was used before, for another message.
    pub(super) fn first_use(&mut self, seen: &Seen) -> bool {
        if !self.chains.contains_key(&seen.chain) {
            if let Some(former) = self.order.back().and_then(|c| self.chains.get_mut(c)) {
                former.retire();
            }
            if self.order.len() >= CHAINS
                && let Some(oldest) = self.order.pop_front()
            {
                self.chains.remove(&oldest);
            }
            self.order.push_back(seen.chain);
        }
        let chain = self.chains.entry(seen.chain).or_default();
        chain.first_use(seen.counter, seen.fingerprint)
    }
}

/// The counters of one chain that were used: disjoint intervals in ascending order, and the
/// fingerprints of the latest.
#[derive(Default)]
struct Chain {
    used: Vec<(u32, u32)>,
    recent: VecDeque<(u32, u64)>,
}

impl Chain {
    /// Marks a counter as used. False when it was used before, for another message.
    fn first_use(&mut self, counter: u32, fingerprint: u64) -> bool {
        if !self.insert(counter) {
            return self.recent.contains(&(counter, fingerprint));
        }
        if self.recent.len() >= FINGERPRINTS {
            self.recent.pop_front();
        }
        self.recent.push_back((counter, fingerprint));
        true
    }

    /// A newer chain took over: few messages of this one can still come again.
    fn retire(&mut self) {
        while self.recent.len() > FINGERPRINTS / 16 {
            self.recent.pop_front();
        }
        self.recent.shrink_to_fit();
    }

    fn insert(&mut self, counter: u32) -> bool {
        // The first interval that does not end before the counter.
        let at = self.used.partition_point(|(_, end)| *end < counter);
        if self.used.get(at).is_some_and(|(start, _)| *start <= counter) {
            return false;
        }
        let joins_former = at > 0 && self.used[at - 1].1 + 1 == counter;
        let joins_next = self.used.get(at).is_some_and(|(start, _)| counter + 1 == *start);
        match (joins_former, joins_next) {
            (true, true) => {
                self.used[at - 1].1 = self.used[at].1;
                self.used.remove(at);
            }
            (true, false) => self.used[at - 1].1 = counter,
            (false, true) => self.used[at].0 = counter,
            (false, false) => self.used.insert(at, (counter, counter)),
        }
        true
    }
}

/// Sizes of messages by a hash of their id and devices.
#[derive(Default)]
pub(super) struct Sizes {
    sizes: HashMap<u64, u32>,
    order: VecDeque<u64>,
}

impl Sizes {
    /// Remembers a size and returns the former one.
    pub(super) fn remember(&mut self, key: u64, size: usize) -> Option<usize> {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let former = self.sizes.insert(key, size);
        if former.is_none() {
            self.order.push_back(key);
            if self.order.len() > SIZES
                && let Some(oldest) = self.order.pop_front()
            {
                self.sizes.remove(&oldest);
            }
        }
        former.map(|f| f as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_exactly_what_was_inserted() {
        let mut chain = Chain::default();
        let mut state = 7u32;
        let mut inserted = std::collections::HashSet::new();
        for _ in 0..2_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let counter = (state >> 16) % 600;
            assert_eq!(chain.insert(counter), inserted.insert(counter), "{counter}");
        }
        assert!(chain.used.windows(2).all(|w| w[0].1 + 1 < w[1].0), "disjoint and joined");
        let mut chain = Chain::default();
        for counter in 0..100_000 {
            assert!(chain.first_use(counter, 1));
        }
        assert_eq!(chain.used, [(0, 99_999)]);
        assert_eq!(chain.recent.len(), FINGERPRINTS);
    }
}
