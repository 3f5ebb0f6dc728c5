//! What changes a message after it was sent: edits, revokes and reactions.
//!
//! Pure. The invariant: a message and its amendments give the same row in whatever order they come and however often.
//! Of an author's edits, and of a person's reactions, the latest by its own time counts; a revoke is for good.

use crate::HistoryRow;
use rookery_protocol::{
    Jid, JidServer, MessageId, Timestamp,
    api::{MessageType, Reaction},
};
use serde::{Deserialize, Serialize};

/// Most people whose reactions to one message are kept: a group has no more members.
pub const MAX_REACTIONS: usize = 1_024;

/// A change of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amendment {
    /// The chat that both are in.
    pub chat: Jid,
    /// The message that is changed.
    pub message_id: MessageId,
    /// Who changes it.
    pub by: Jid,
    /// Whether that is the linked account.
    pub from_me: bool,
    /// When, by the clock of whoever changes it.
    pub at: Timestamp,
    /// What changes.
    pub change: Change,
}

/// What an [`Amendment`] does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The text, or the caption, is another one. Only the author may.
    Edit {
        /// The new text.
        text: String,
    },
    /// The message is taken back for everyone. The author may, and in a group whoever WhatsApp lets act as its admin.
    Revoke {
        /// As an admin of the group.
        as_admin: bool,
    },
    /// Somebody's reaction is this one now. Anybody may.
    React {
        /// The emoji; empty when the reaction is taken back.
        emoji: String,
    },
}

impl Amendment {
    /// Whether this message is the one that is meant, and whoever changes it may.
    pub fn concerns(&self, row: &HistoryRow) -> bool {
        let same = row.message_id == self.message_id && row.chat == self.chat;
        same && match self.change {
            Change::React { .. } => true,
            Change::Revoke { as_admin: true } => row.chat.server() == JidServer::Group,
            Change::Edit { .. } | Change::Revoke { as_admin: false } => self.is_by_author_of(row),
        }
    }

    /// A chat with one other person has two authors, whichever of their names a message came under.
    fn is_by_author_of(&self, row: &HistoryRow) -> bool {
        let one_of_many = row.chat.server() == JidServer::Group && !row.from_me;
        row.from_me == self.from_me && (!one_of_many || row.sender.as_ref() == Some(&self.by))
    }

    /// Changes the row of a message that it [concerns](Self::concerns); whether that made a difference.
    pub fn apply(&self, row: &mut HistoryRow) -> bool {
        match &self.change {
            Change::Revoke { .. } => revoke(row, self.at),
            _ if row.revoked_at.is_some() => false,
            Change::Edit { text } => edit(row, self.at, text),
            Change::React { emoji } => {
                let reaction = Reaction { sender: self.by.clone(), emoji: emoji.clone(), timestamp: self.at };
                react(&mut row.reactions, reaction)
            }
        }
    }

    /// Whether it takes the place of another amendment by the same person, of the same kind and of the same message,
    /// while the message is not there yet.
    pub fn replaces(&self, other: &Self) -> bool {
        match (&self.change, &other.change) {
            (Change::Edit { text: a }, Change::Edit { text: b })
            | (Change::React { emoji: a }, Change::React { emoji: b }) => (self.at, a) > (other.at, b),
            (Change::Revoke { .. }, Change::Revoke { .. }) => self.at < other.at,
            _ => false,
        }
    }
}

impl HistoryRow {
    /// The row of a message that was delivered again: its place, its time, its receipts and its amendments stay.
    #[must_use]
    pub fn delivered_again(&self, again: Self) -> Self {
        // A message that could be read is not unread because it cannot be read once more.
        let lost = again.kind == MessageType::Undecryptable && self.kind != MessageType::Undecryptable;
        let [sent_at, delivered_at, read_at, played_at] =
            std::array::from_fn(|stage| earliest(self.times()[stage], again.times()[stage]));
        let content = if lost { self.clone() } else { again };
        let (sort_key, timestamp) = (self.sort_key, self.timestamp);
        let mut row = Self { sort_key, timestamp, sent_at, delivered_at, read_at, played_at, ..content };
        if let (Some(at), Some(words)) = (self.edited_at, self.words()) {
            edit(&mut row, at, words);
        }
        for reaction in &self.reactions {
            react(&mut row.reactions, reaction.clone());
        }
        if let Some(at) = self.revoked_at {
            revoke(&mut row, at);
        }
        row
    }

    /// Notes a time of a receipt; the earliest stays. Whether that made a difference.
    pub fn reach(&mut self, kind: crate::ReceiptKind, at: Timestamp) -> bool {
        note(kind.of(&mut self.delivered_at, &mut self.read_at, &mut self.played_at), at)
    }

    fn times(&self) -> [Option<Timestamp>; 4] {
        [self.sent_at, self.delivered_at, self.read_at, self.played_at]
    }

    /// Its text or its caption.
    fn words(&self) -> Option<&str> {
        self.text.as_deref().or(self.caption.as_deref())
    }

    fn set_words(&mut self, words: &str) {
        let captioned = matches!(
            self.kind,
            MessageType::Image | MessageType::Video | MessageType::Document | MessageType::Audio | MessageType::Sticker
        );
        let words = Some(words.to_owned());
        (self.text, self.caption) = if captioned { (None, words) } else { (words, None) };
    }
}

fn edit(row: &mut HistoryRow, at: Timestamp, text: &str) -> bool {
    if (row.edited_at, row.words().unwrap_or_default()) >= (Some(at), text) {
        return false;
    }
    row.edited_at = Some(at);
    row.set_words(text);
    true
}

fn revoke(row: &mut HistoryRow, at: Timestamp) -> bool {
    if row.revoked_at.is_some_and(|before| before <= at) {
        return false;
    }
    row.revoked_at = Some(at);
    row.edited_at = None;
    row.text = None;
    row.caption = None;
    row.media = None;
    row.file = None;
    row.reply_to = None;
    row.reactions = Vec::new();
    true
}

/// Keeps the latest reaction of each person, in the order of their names. One that was taken back stays, without an
/// emoji, since an older one may come later.
fn react(reactions: &mut Vec<Reaction>, new: Reaction) -> bool {
    match reactions.binary_search_by(|known| known.sender.cmp(&new.sender)) {
        Ok(place) => {
            let known = &mut reactions[place];
            if (known.timestamp, &known.emoji) >= (new.timestamp, &new.emoji) {
                return false;
            }
            *known = new;
            true
        }
        Err(_) if reactions.len() >= MAX_REACTIONS => false,
        Err(place) => {
            reactions.insert(place, new);
            true
        }
    }
}

/// The earlier of two times.
pub(crate) fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Writes a time that stays once it is written, but for an earlier one; whether that made a difference.
pub(crate) fn note(time: &mut Option<Timestamp>, at: Timestamp) -> bool {
    let first = earliest(*time, Some(at));
    std::mem::replace(time, first) != first
}

#[cfg(test)]
#[path = "amend_tests.rs"]
mod tests;
