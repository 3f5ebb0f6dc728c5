//! The right to write a session's data.

use rookery_protocol::{Epoch, SessionId};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The right to write a session's data, obtained by claiming the session.
///
/// Every write of a session's data takes one, so no code can write without having claimed. A fence of an
/// older epoch than the session's newest claim is refused ([`crate::StoreError::Fenced`]) or, in an engine
/// that cannot refuse, writes under an older timestamp that loses against every write of the next owner.
#[derive(Clone)]
pub struct Fence(Arc<Inner>);

struct Inner {
    session: SessionId,
    epoch: Epoch,
    writes: AtomicU64,
}

impl Fence {
    /// Made by an engine's `claim` alone.
    pub(crate) fn new(session: SessionId, epoch: Epoch) -> Self {
        Self(Arc::new(Inner { session, epoch, writes: AtomicU64::new(1) }))
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
    /// owners before.
    pub fn next_timestamp(&self) -> u64 {
        let n = self.0.writes.fetch_add(1, Ordering::Relaxed);
        self.0.epoch.0 << 30 | n & ((1 << 30) - 1)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({} at {})", self.0.session, self.0.epoch)
    }
}
