//! Logical timestamps of writes.

use crate::{Fence, StoreError};

/// The timestamp of a write into what belongs to a session: `epoch << 30 | n`. There is none without a claim but for the
/// rows that make a session, which are older than any claim's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(i64);

impl Stamp {
    /// The next one of an owner.
    pub(super) fn next(fence: &Fence) -> Result<Self, StoreError> {
        Ok(Self(fence.next_timestamp()?.cast_signed()))
    }

    /// The one before all writes of an owner: what is older belongs to owners before.
    pub(super) fn first(fence: &Fence) -> Self {
        Self((fence.epoch().0 << 30).cast_signed())
    }

    /// Of the rows that make a session, before anybody has claimed it.
    pub(super) fn creation() -> Self {
        Self(1)
    }

    /// In the server's terms.
    pub(super) fn value(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::always_open;
    use rookery_protocol::{Epoch, SessionId};

    #[test]
    fn every_write_of_an_owner_is_newer_than_all_before() {
        let session = SessionId::generate();
        let [old, new] = [1, 2].map(|epoch| Fence::new(session, Epoch(epoch), always_open()));
        let late: Vec<_> = (0..1_000).map(|_| Stamp::next(&old).unwrap()).collect();
        assert!(late.is_sorted() && late[0] > Stamp::first(&old) && Stamp::first(&old) > Stamp::creation());
        assert!(Stamp::first(&new) > late[999] && Stamp::next(&new).unwrap() > Stamp::first(&new));
    }
}
