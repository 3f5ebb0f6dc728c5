//! What is known of a session's history sync, and what a part of it brings.

use crate::{ChatFacts, ContactFacts, HistoryRow};
use rookery_protocol::MessageId;
use serde::{Deserialize, Serialize};

/// How far a session's history sync has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistorySyncRow {
    /// How much the phone has sent, of 100.
    pub progress: u32,
    /// Messages that came with it and were not there already.
    pub messages: u64,
    /// All that the phone gives a new companion is stored.
    pub done: bool,
    /// Chunks that were announced and are not known to be stored, oldest first.
    pub waiting: Vec<WaitingChunk>,
}

/// A chunk that was announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingChunk {
    /// The id of its announcement, by which the phone can be asked for it.
    pub id: MessageId,
    /// How often the phone was asked for it again.
    pub asked: u32,
    /// It was asked for and is not announced again yet.
    pub owed: bool,
}

/// A part of a history chunk, stored as a whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// Messages. One that is there already stays as it is.
    pub messages: Vec<HistoryRow>,
    /// What it says of chats.
    pub chats: Vec<ChatFacts>,
    /// What it says of people.
    pub contacts: Vec<ContactFacts>,
}
