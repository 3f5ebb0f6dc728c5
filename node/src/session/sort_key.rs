//! Sort keys of history rows: server seconds `<< 20 |` count of arrival.

use rookery_protocol::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};

const ARRIVAL_BITS: u32 = 20;

/// Gives out a session's sort keys. The count of arrival goes round, so that two messages of one second have
/// one key only when a million came between them.
#[derive(Debug)]
pub(crate) struct SortKeys(AtomicU64);

impl SortKeys {
    /// Goes on after the newest key in use.
    pub(crate) fn after(last: Option<u64>) -> Self {
        Self(AtomicU64::new(last.map_or(0, |key| key + 1)))
    }

    /// The key of a message of this time that arrives now.
    pub(crate) fn next(&self, time: Timestamp) -> u64 {
        let arrival = self.0.fetch_add(1, Ordering::Relaxed) & ((1 << ARRIVAL_BITS) - 1);
        u64::try_from(time.as_secs()).unwrap_or(0) << ARRIVAL_BITS | arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_time_and_then_by_arrival() {
        let keys = SortKeys::after(None);
        let (first, second) = (keys.next(Timestamp::from_secs(10)), keys.next(Timestamp::from_secs(10)));
        let older = keys.next(Timestamp::from_secs(9));
        assert!(older < first && first < second);
    }

    #[test]
    fn a_restart_repeats_no_key_of_the_newest_second() {
        let last = SortKeys::after(None).next(Timestamp::from_secs(10));
        assert!(SortKeys::after(Some(last)).next(Timestamp::from_secs(10)) > last);
    }
}
