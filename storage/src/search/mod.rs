//! Text search over a session's history.
//!
//! The index has a row for each word and *segment* (some thousand messages that were indexed together) with the sort
//! keys of the messages that have the word: a [`Posting`]. The session's owner builds segments in the background
//! ([`index`]), never in the batch of a send. What is above [`IndexState::through`] is not in the index yet and is
//! looked through as it is; what is below and was written later (late messages, edits) is in a list of *late* messages
//! and is looked at one by one, until a segment of its own takes it in.
//!
//! A posting only proposes: each message is compared with the words asked for as it is now ([`Query::matches`]), so
//! that postings of a text that was edited or revoked, and those that a crash has left, do no harm.
//! Nothing here knows of an engine: every row is found by its session and its place, or by a range of places.

mod build;
mod posting;
mod query;
mod run;
mod words;

pub use build::{Progress, SEGMENT_MIN, index};
pub use posting::Posting;
pub use query::{Query, QueryError};
pub use run::{Found, search};
pub(crate) use words::folded;

use serde::{Deserialize, Serialize};

/// How far the index of a session is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexState {
    /// All messages up to this sort key are in segments, or in a list of late ones.
    pub through: u64,
    /// How many segments there are; the number of the next one.
    pub segments: u32,
    /// The oldest generation of late messages that no segment has.
    pub first_late: u32,
    /// The generation that late messages are added to.
    pub late: u32,
}
