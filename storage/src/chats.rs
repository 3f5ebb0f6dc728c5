//! Chats: what the list of a session's chats shows. Pure.
//!
//! One small row a chat, under the chat's address, whatever happens in it: the list is sorted when it is read, so that
//! a message rewrites one row and moves nothing. Who counts what is here; engines read a row, let it take something in,
//! and write it in the batch of what it took.

use crate::HistoryRow;
use rookery_protocol::{Jid, JidServer, MessageId, Timestamp};
use serde::{Deserialize, Serialize};

/// A chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatRow {
    /// Its address.
    pub jid: Jid,
    /// Its name, for groups, and as the phone's history gave it.
    pub name: Option<String>,
    /// The latest message that is stored.
    pub last: Option<LastMessage>,
    /// When something last happened in it, as a sort key: that of the latest message, or a time from history.
    pub active: u64,
    /// Inbound messages that nobody has read.
    pub unread: u32,
    /// Somebody has marked it as unread.
    pub marked_unread: bool,
    /// It is archived.
    pub archived: bool,
    /// Since when it is pinned.
    pub pinned_at: Option<Timestamp>,
    /// Whether it is muted.
    pub muted: Option<Mute>,
    /// Everything up to this sort key is read.
    pub read_until: u64,
    /// It was deleted when this was its latest activity; it is shown again when there is more.
    pub deleted_until: u64,
    /// What the phone's history says of it is in.
    pub synced: bool,
}

/// The latest message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastMessage {
    /// Its place in the history.
    pub sort_key: u64,
    /// Its id.
    pub message_id: MessageId,
    /// Whether the linked account wrote it.
    pub from_me: bool,
    /// When it was written.
    pub timestamp: Timestamp,
}

/// For how long a chat is muted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mute {
    /// Until somebody says otherwise.
    Forever,
    /// Until this time.
    Until(Timestamp),
}

/// Something that was decided about a chat, on one of the account's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatChange {
    /// Archived, or brought back.
    Archived(bool),
    /// Pinned since then, or no longer.
    Pinned(Option<Timestamp>),
    /// Muted, or no longer.
    Muted(Option<Mute>),
    /// Everything up to this sort key has been read.
    Read(u64),
    /// Marked as unread.
    MarkedUnread,
    /// Emptied. The messages stay in the history of the session.
    Cleared,
    /// Deleted. The messages stay in the history of the session; the chat is not shown until there is another.
    Deleted,
    /// Named.
    Named(String),
    /// A name that was asked for: one that was told meanwhile stays.
    KnownAs(String),
}

/// What the phone's history says of a chat. It counts the first time only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatFacts {
    /// Its address.
    pub jid: Jid,
    /// Its name.
    pub name: Option<String>,
    /// When something last happened in it.
    pub active_at: Option<Timestamp>,
    /// Inbound messages that nobody has read.
    pub unread: u32,
    /// Somebody has marked it as unread.
    pub marked_unread: bool,
    /// It is archived.
    pub archived: bool,
    /// Since when it is pinned.
    pub pinned_at: Option<Timestamp>,
    /// Whether it is muted.
    pub muted: Option<Mute>,
}

/// Where a page of chats ends: the last chat's activity and address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChatPlace {
    /// Its latest activity.
    pub active: u64,
    /// Its address.
    pub jid: Jid,
}

/// The sort key that begins a time's second.
pub(crate) fn sort_key_of(time: Timestamp) -> u64 {
    u64::try_from(time.as_secs()).unwrap_or(0) << 20
}

/// Whether an address has chats: people and groups, not channels and statuses.
pub(crate) fn has_chat(jid: &Jid) -> bool {
    matches!(jid.server(), JidServer::PhoneNumber | JidServer::Lid | JidServer::Group)
}

impl ChatRow {
    /// A chat in which nothing has happened.
    pub(crate) fn new(jid: Jid) -> Self {
        Self {
            jid,
            name: None,
            last: None,
            active: 0,
            unread: 0,
            marked_unread: false,
            archived: false,
            pinned_at: None,
            muted: None,
            read_until: 0,
            deleted_until: 0,
            synced: false,
        }
    }

    /// Whether it belongs into the list.
    pub(crate) fn is_shown(&self) -> bool {
        self.active > self.deleted_until
    }

    /// Its place in the list.
    pub(crate) fn place(&self) -> ChatPlace {
        ChatPlace { active: self.active, jid: self.jid.clone() }
    }

    /// A message that is stored now. An inbound one waits to be read; who writes has read what was there.
    pub(crate) fn receive(&mut self, message: &HistoryRow) {
        self.remember(message);
        if message.from_me {
            self.read(message.sort_key, 0);
        } else if message.sort_key > self.read_until {
            self.unread = self.unread.saturating_add(1);
        }
    }

    /// A message from the phone's history. What of those is unread, the history says itself.
    pub(crate) fn remember(&mut self, message: &HistoryRow) {
        self.active = self.active.max(message.sort_key);
        if self.last.as_ref().is_none_or(|last| last.sort_key <= message.sort_key) {
            self.last = Some(LastMessage {
                sort_key: message.sort_key,
                message_id: message.message_id.clone(),
                from_me: message.from_me,
                timestamp: message.timestamp,
            });
        }
    }

    /// What the phone's history says of it.
    pub(crate) fn sync(&mut self, facts: &ChatFacts) {
        if self.name.is_none() {
            self.name.clone_from(&facts.name);
        }
        if std::mem::replace(&mut self.synced, true) {
            return;
        }
        let active = facts.active_at.map_or(0, sort_key_of);
        if active >= self.read_until {
            self.unread = self.unread.saturating_add(facts.unread);
            self.marked_unread |= facts.marked_unread;
        }
        self.active = self.active.max(active);
        self.archived |= facts.archived;
        self.pinned_at = self.pinned_at.or(facts.pinned_at);
        self.muted = self.muted.or(facts.muted);
    }

    /// Whether all messages up to this sort key are all that there is.
    pub(crate) fn ends_by(&self, sort_key: u64) -> bool {
        self.last.as_ref().is_none_or(|last| last.sort_key <= sort_key)
    }

    /// Everything up to a sort key has been read, which leaves so many unread.
    pub(crate) fn read(&mut self, until: u64, left: u32) {
        if until >= self.read_until {
            self.read_until = until;
            self.unread = self.unread.min(left);
        }
        self.marked_unread = false;
    }

    /// Takes in what was decided. `left` is how many inbound messages are stored behind the place that was read.
    pub(crate) fn apply(&mut self, change: ChatChange, left: u32) {
        match change {
            ChatChange::Archived(archived) => self.archived = archived,
            ChatChange::Pinned(since) => self.pinned_at = since,
            ChatChange::Muted(mute) => self.muted = mute,
            ChatChange::Read(until) => self.read(until, left),
            ChatChange::MarkedUnread => self.marked_unread = true,
            ChatChange::Cleared => {
                self.last = None;
                self.read(self.active, 0);
            }
            ChatChange::Deleted => {
                self.deleted_until = self.active;
                self.last = None;
                self.read(self.active, 0);
            }
            ChatChange::Named(name) => self.name = Some(name).filter(|name| !name.is_empty()),
            ChatChange::KnownAs(name) => self.name = self.name.take().or(Some(name).filter(|name| !name.is_empty())),
        }
    }

    /// Takes in the chat that turned out to be this one under another address.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.name = self.name.take().or(other.name);
        self.active = self.active.max(other.active);
        let key = |last: &Option<LastMessage>| last.as_ref().map(|last| last.sort_key);
        if key(&self.last) < key(&other.last) {
            self.last = other.last;
        }
        self.unread = self.unread.saturating_add(other.unread);
        self.marked_unread |= other.marked_unread;
        self.archived |= other.archived;
        self.pinned_at = self.pinned_at.or(other.pinned_at);
        self.muted = self.muted.or(other.muted);
        self.read_until = self.read_until.max(other.read_until);
        self.deleted_until = self.deleted_until.max(other.deleted_until);
        self.synced |= other.synced;
    }
}
