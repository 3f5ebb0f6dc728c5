//! Bodies of a session's chats.

use crate::{Jid, MessageId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A chat with somebody, or a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Chat {
    /// Its address, by phone number where it is known.
    pub jid: Jid,
    /// The address without the phone number, of a person.
    pub lid: Option<Jid>,
    /// The phone number of a person, digits alone.
    pub phone: Option<String>,
    /// The contact's name, or the group's, where known.
    pub name: Option<String>,
    /// Whether it is a group.
    pub is_group: bool,
    /// Messages that none of the account's devices has read.
    pub unread_count: u32,
    /// Whether somebody has marked it as unread.
    pub marked_unread: bool,
    /// Whether it is archived.
    pub archived: bool,
    /// Whether it is muted now.
    pub muted: bool,
    /// Until when it is muted; `null` while `muted` for good.
    pub muted_until: Option<Timestamp>,
    /// Since when it is pinned.
    pub pinned_at: Option<Timestamp>,
    /// When something last happened in it.
    pub last_activity_at: Timestamp,
    /// The latest message that is stored.
    pub last_message: Option<ChatMessage>,
}

/// A message, as its chat refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChatMessage {
    /// WhatsApp's id.
    pub message_id: MessageId,
    /// Whether the linked account wrote it.
    pub from_me: bool,
    /// When it was written.
    pub timestamp: Timestamp,
}
