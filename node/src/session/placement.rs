//! Where a session may run: what sessions ask of the cluster.

use async_trait::async_trait;
use rookery_protocol::SessionId;
use rookery_storage::{Owner, StoreError};

/// Where a session is to run, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Here: this node may claim it.
    Here,
    /// On another node, or on none for now.
    Elsewhere,
}

/// Says where sessions may run. It proposes; the claim of the owner's row decides.
#[async_trait]
pub(crate) trait Placement: Send + Sync {
    /// Where the session with this owner row is to run.
    async fn place(&self, session: SessionId, owner: &Owner) -> Result<Place, StoreError>;

    /// Whether a session that nobody has yet is to run here.
    fn belongs_here(&self, session: SessionId) -> bool;

    /// Whether there are no other nodes, so that every session runs here.
    fn is_alone(&self) -> bool;
}

/// A node without others: everything runs here.
pub(crate) struct Alone;

#[async_trait]
impl Placement for Alone {
    async fn place(&self, _: SessionId, _: &Owner) -> Result<Place, StoreError> {
        Ok(Place::Here)
    }

    fn belongs_here(&self, _: SessionId) -> bool {
        true
    }

    fn is_alone(&self) -> bool {
        true
    }
}
