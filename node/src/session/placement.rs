//! Where a session may run: what sessions ask of the cluster.

use rookery_protocol::SessionId;
use rookery_storage::Owner;

/// Where a session is to run, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Here: this node may claim it.
    Here,
    /// On another node, or on none for now.
    Elsewhere,
}

/// Says where sessions may run. It proposes; the claim of the owner's row decides.
pub(crate) trait Placement: Send + Sync {
    /// Where the session with this owner row is to run.
    fn place(&self, session: SessionId, owner: &Owner) -> Place;

    /// Whether there are no other nodes, so that every session runs here.
    fn is_alone(&self) -> bool;
}

/// A node without others: everything runs here.
pub(crate) struct Alone;

impl Placement for Alone {
    fn place(&self, _: SessionId, _: &Owner) -> Place {
        Place::Here
    }

    fn is_alone(&self) -> bool {
        true
    }
}
