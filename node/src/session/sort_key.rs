//! Sort keys of history rows: server seconds `<< 20 |` count of arrival.

use super::indexer::Reminder;
use rookery_protocol::Timestamp;
use rookery_storage::search::SEGMENT_MIN;
use std::sync::atomic::{AtomicU64, Ordering};

const ARRIVAL_BITS: u32 = 20;
/// After how many messages it may be time to index them.
const REMIND_EVERY: u64 = SEGMENT_MIN as u64;

/// Gives out a session's sort keys. The count of arrival goes round, so that two messages of one second have
/// one key only when a million came between them.
pub(crate) struct SortKeys {
    next: AtomicU64,
    index: Option<Reminder>,
}

impl SortKeys {
    /// Goes on after the newest key in use. `index` hears whenever many keys have been given out.
    pub(crate) fn after(last: Option<u64>, index: Option<Reminder>) -> Self {
        Self { next: AtomicU64::new(last.map_or(0, |key| key + 1)), index }
    }

    /// The key of a message of this time that arrives now.
    pub(crate) fn next(&self, time: Timestamp) -> u64 {
        let arrival = self.next.fetch_add(1, Ordering::Relaxed) & ((1 << ARRIVAL_BITS) - 1);
        if let Some(index) = &self.index
            && arrival.is_multiple_of(REMIND_EVERY)
        {
            index.remind();
        }
        u64::try_from(time.as_secs()).unwrap_or(0) << ARRIVAL_BITS | arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_time_and_then_by_arrival() {
        let keys = SortKeys::after(None, None);
        let (first, second) = (keys.next(Timestamp::from_secs(10)), keys.next(Timestamp::from_secs(10)));
        let older = keys.next(Timestamp::from_secs(9));
        assert!(older < first && first < second);
    }

    #[test]
    fn a_restart_repeats_no_key_of_the_newest_second() {
        let last = SortKeys::after(None, None).next(Timestamp::from_secs(10));
        assert!(SortKeys::after(Some(last), None).next(Timestamp::from_secs(10)) > last);
    }
}
