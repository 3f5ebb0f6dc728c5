//! What can go wrong in a store, by what the caller can do about it.

use rookery_protocol::{Epoch, SessionId};

/// An error of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another owner has claimed the session; nothing was written and nothing will be.
    #[error("session {session} is owned under a newer epoch than {epoch}")]
    Fenced {
        /// Which session.
        session: SessionId,
        /// The epoch of the writer that was refused.
        epoch: Epoch,
    },
    /// The owner has used up the timestamps of its epoch; nothing was written. It claims the session once more.
    #[error("epoch {epoch} of session {session} has no more timestamps")]
    Spent {
        /// Which session.
        session: SessionId,
        /// The epoch.
        epoch: Epoch,
    },
    /// This node may not act for its sessions now; it may again later.
    #[error("this node may not act now{}", if *written { ", and its last write came late" } else { "" })]
    Frozen {
        /// Whether the write was made nevertheless, because the right to act was lost while it was under way. Without
        /// it, certainly not.
        written: bool,
    },
    /// The claim lost: the owner row is not at the expected epoch, or its owner is alive.
    #[error("session {session} could not be claimed")]
    ClaimLost {
        /// Which session.
        session: SessionId,
    },
    /// The row that the write needs is not there.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The write contradicts what is stored or exceeds a limit; nothing was written.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// Too much is queued; certainly not written. Try again later.
    #[error("the store is overloaded")]
    Overloaded,
    /// The store is closed or has failed; certainly not written.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A stored value cannot be read: the data is damaged or was written by a newer version.
    #[error("stored {what} cannot be read: {detail}")]
    Corrupt {
        /// What kind of row.
        what: &'static str,
        /// What is wrong with it, without its content.
        detail: String,
    },
    /// A row of key material is encrypted with a key that is not configured. It is not read; it is not damaged either.
    #[error("key material of session {session} is encrypted with key `{key_id}`, which is not configured")]
    Locked {
        /// Whose key material.
        session: SessionId,
        /// The id of the key.
        key_id: String,
    },
    /// The engine failed; whether the write took effect is unknown.
    #[error("the storage engine failed: {0}")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}
