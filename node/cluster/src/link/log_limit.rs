//! How often the same thing is logged: strangers must not fill a disk. Pure; takes `now`.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Lets one line a key through in an interval and counts the others.
pub(super) struct LogLimit<K> {
    interval: Duration,
    capacity: usize,
    lines: HashMap<K, (Instant, u64)>,
}

impl<K: Hash + Eq> LogLimit<K> {
    pub(super) fn new(interval: Duration, capacity: usize) -> Self {
        Self { interval, capacity, lines: HashMap::new() }
    }

    /// `Some` when the line may be logged, with the number of lines that were held back since the last one.
    pub(super) fn allow(&mut self, key: K, now: Instant) -> Option<u64> {
        if let Some((since, held)) = self.lines.get_mut(&key) {
            if now.duration_since(*since) < self.interval {
                *held += 1;
                return None;
            }
            let held = std::mem::take(held);
            *since = now;
            return Some(held);
        }
        if self.lines.len() >= self.capacity {
            let interval = self.interval;
            self.lines.retain(|_, (since, _)| now.duration_since(*since) < interval);
            if self.lines.len() >= self.capacity {
                return None;
            }
        }
        self.lines.insert(key, (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_interval_and_the_rest_counted() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut limit = LogLimit::new(5 * second, 2);
        assert_eq!(limit.allow('a', start), Some(0));
        assert_eq!(limit.allow('a', start + second), None);
        assert_eq!(limit.allow('a', start + 2 * second), None);
        assert_eq!(limit.allow('b', start + 2 * second), Some(0));
        assert_eq!(limit.allow('c', start + 2 * second), None, "no room");
        assert_eq!(limit.allow('a', start + 5 * second), Some(2));
        assert_eq!(limit.allow('c', start + 8 * second), Some(0), "the room of what is old");
    }
}
