//! The right to write a session's data, and the gate that every such write passes twice.

use crate::StoreError;
use rookery_protocol::{Epoch, SessionId};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Says whether this node may act for its sessions at this moment.
///
/// An engine is given one when it is opened. Whatever belongs to a session is written only while it is open, and no
/// write is reported as done that came back to a gate which had been shut meanwhile, so that no act follows.
pub trait Gate: Send + Sync {
    /// Whether it may. Asked before and after every write, so it must be quick.
    fn open(&self) -> bool;
}

impl<F: Fn() -> bool + Send + Sync> Gate for F {
    fn open(&self) -> bool {
        self()
    }
}

/// The gate of a node that may always act: one without a cluster.
pub(crate) fn always_open() -> Arc<dyn Gate> {
    Arc::new(|| true)
}

/// How many writes an epoch has timestamps for.
const WRITES: u64 = 1 << 30;

/// The right to write a session's data, obtained by claiming the session.
///
/// Every write of a session's data takes one, so no code can write without having claimed. A fence of an
/// older epoch than the session's newest claim is refused ([`StoreError::Fenced`]) or, in an engine
/// that cannot refuse, writes under an older timestamp that loses against every write of the next owner.
#[derive(Clone)]
pub struct Fence(Arc<Inner>);

struct Inner {
    session: SessionId,
    epoch: Epoch,
    writes: AtomicU64,
    gate: Arc<dyn Gate>,
}

impl Fence {
    /// Made by an engine's `claim` alone.
    pub(crate) fn new(session: SessionId, epoch: Epoch, gate: Arc<dyn Gate>) -> Self {
        Self(Arc::new(Inner { session, epoch, writes: AtomicU64::new(1), gate }))
    }

    /// The session that may be written.
    pub fn session(&self) -> SessionId {
        self.0.session
    }

    /// The epoch of the claim.
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    /// The logical time of the next write: `epoch << 30 | n`. No clock is involved, so a late write of an
    /// old owner is older than every write of the next one. `n` begins with 1: what is older than `epoch << 30` is of
    /// owners before. When there is no further `n` the answer is [`StoreError::Spent`], and the session has to be
    /// claimed once more.
    pub fn next_timestamp(&self) -> Result<u64, StoreError> {
        let n = self.0.writes.fetch_add(1, Ordering::Relaxed);
        if n < WRITES {
            Ok(self.0.epoch.0 << 30 | n)
        } else {
            Err(StoreError::Spent { session: self.session(), epoch: self.epoch() })
        }
    }

    /// Writes what belongs to the session, between two looks at the gate.
    pub(crate) async fn guarded<T>(&self, write: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.may_begin()?;
        let answer = write.await?;
        self.may_go_on()?;
        Ok(answer)
    }

    /// Whether a write may begin.
    pub(crate) fn may_begin(&self) -> Result<(), StoreError> {
        may_begin(&*self.0.gate)
    }

    /// Whether whoever waited for a write may go on from it, now that it has returned.
    pub(crate) fn may_go_on(&self) -> Result<(), StoreError> {
        if self.0.gate.open() { Ok(()) } else { Err(StoreError::Frozen { written: true }) }
    }
}

/// Whether a write may begin under this gate.
pub(crate) fn may_begin(gate: &dyn Gate) -> Result<(), StoreError> {
    if gate.open() { Ok(()) } else { Err(StoreError::Frozen { written: false }) }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({} at {})", self.0.session, self.0.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_has_no_more_timestamps_refuses_rather_than_begin_anew() {
        let fence = Fence::new(SessionId::generate(), Epoch(7), always_open());
        assert_eq!(fence.next_timestamp().unwrap(), 7 << 30 | 1);
        fence.0.writes.store(WRITES - 1, Ordering::Relaxed);
        let next = Fence::new(fence.session(), Epoch(8), always_open());
        assert_eq!(fence.next_timestamp().unwrap() + 2, next.next_timestamp().unwrap());
        for _ in 0..3 {
            assert!(matches!(fence.next_timestamp(), Err(StoreError::Spent { epoch: Epoch(7), .. })));
        }
    }
}
