//! The rows that stores keep, as plain values.

use crate::Amendment;
use bytes::Bytes;
use rookery_protocol::{
    DeviceId, Epoch, Incarnation, Jid, MessageId, NodeId, SessionId, Timestamp, TokenId, UserId,
    api::{Direction, Media, MediaShape, MessageType, Reaction, SessionStatus, StatusChange},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// An API token. The secret itself is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Its id.
    pub id: TokenId,
    /// Whose it is.
    pub user_id: UserId,
    /// Its name.
    pub name: String,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
}

/// A session as it is remembered across restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Its id.
    pub session_id: SessionId,
    /// The user whose token created it.
    pub user_id: UserId,
    /// Its name.
    pub name: String,
    /// Whether it should be connected: false after the user disconnected it.
    pub wanted: bool,
    /// The linked device; none before pairing and after the device was removed.
    pub device: Option<DeviceId>,
    /// The linked account's LID.
    pub lid: Option<Jid>,
    /// The linked account's name.
    pub push_name: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last connected.
    pub connected_at: Option<Timestamp>,
    /// Why it is not connected.
    pub last_error: Option<String>,
    /// The last three statuses, newest first; never empty.
    pub statuses: Vec<StatusChange>,
}

impl SessionRow {
    /// Where it stands.
    pub fn status(&self) -> SessionStatus {
        self.statuses.first().map_or(SessionStatus::Stopped, |change| change.status)
    }

    /// A new session of this user, under a fresh id, that is about to be paired.
    pub fn new(user_id: UserId, name: impl Into<String>, created_at: Timestamp) -> Self {
        Self {
            session_id: SessionId::generate(),
            user_id,
            name: name.into(),
            wanted: true,
            device: None,
            lid: None,
            push_name: None,
            created_at,
            connected_at: None,
            last_error: None,
            statuses: vec![StatusChange { status: SessionStatus::Starting, at: created_at }],
        }
    }
}

/// Who may act for a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The count of claims so far.
    pub epoch: Epoch,
    /// The node that claimed last; none when it has released the session.
    pub node: Option<(NodeId, Incarnation)>,
}

/// A kind of key material: a table of the WhatsApp library's storage traits.
///
/// The number is part of the stored key and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum KeyKind {
    /// The device itself: identity, registration, account. One row.
    Device = 1,
    /// Identity keys of peers.
    Identity = 2,
    /// Signal sessions.
    Session = 3,
    /// One-time prekeys.
    PreKey = 4,
    /// Signed prekeys.
    SignedPreKey = 5,
    /// Sender keys of groups.
    SenderKey = 6,
    /// App state keys.
    SyncKey = 7,
    /// App state versions.
    SyncVersion = 8,
    /// App state mutation MACs.
    MutationMac = 9,
    /// Which device of a group has our sender key.
    SenderKeyDevice = 10,
    /// LID to phone number.
    LidMapping = 11,
    /// Phone number to LID.
    PnMapping = 12,
    /// Base keys of retried messages.
    BaseKey = 13,
    /// Device lists of users.
    DeviceList = 14,
    /// Group metadata.
    GroupMetadata = 15,
    /// Trusted contact tokens.
    TcToken = 16,
    /// Sent messages, for retries.
    SentMessage = 17,
    /// Inbound messages that are not processed to the end.
    PendingInbound = 18,
    /// Secrets of messages, for edits, reactions and polls.
    MessageSecret = 19,
    /// Small values: counters and markers.
    Meta = 20,
}

/// One change of a session's key material. A list of them is applied as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOp {
    /// Write a row.
    Put {
        /// Its kind.
        kind: KeyKind,
        /// Its key within the kind.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Remove a row; nothing happens when it is not there.
    Delete {
        /// Its kind.
        kind: KeyKind,
        /// Its key within the kind.
        key: Bytes,
    },
}

/// An accepted send that waits to be acknowledged by WhatsApp. Resolved rows leave the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRow {
    /// Place in the session's outbox, in order of acceptance; assigned by the owner, unique in the session.
    pub seq: u64,
    /// The id that it will have on the wire, in every attempt.
    pub message_id: MessageId,
    /// The recipient.
    pub chat: Jid,
    /// What to send: the encoded protobuf message.
    pub payload: Bytes,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The sort key of its history row.
    pub sort_key: u64,
    /// The node's spooled file that has to be at WhatsApp before the message can be sent.
    pub file: Option<[u8; 16]>,
}

/// What an idempotency key stands for. Kept 24 hours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendRecord {
    /// SHA-256 of the request that used the key first.
    pub request_hash: [u8; 32],
    /// The message it made.
    pub message_id: MessageId,
    /// The recipient as the caller named it.
    pub to: String,
    /// The recipient's address.
    pub chat: Jid,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The sort key of its history row.
    pub sort_key: u64,
}

/// All that is written when a send is accepted, as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What to send.
    pub outbox: OutboxRow,
    /// How it shows in the history.
    pub history: HistoryRow,
    /// The caller's idempotency key (as a hash) and what it stands for.
    pub idempotency: Option<([u8; 32], SendRecord)>,
}

/// How an accepted send ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// WhatsApp acknowledged it at this time.
    Sent(Timestamp),
    /// It was given up for this reason.
    Failed(String),
}

/// A message of a session's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// Place in the history: server seconds `<< 20 |` count of arrival, unique in the session. A message
    /// that is delivered again keeps the key of its first delivery, and one whose key is taken gets the next free
    /// one: a count of arrival can come round, or begin anew with a restart, within one second.
    pub sort_key: u64,
    /// WhatsApp's id.
    pub message_id: MessageId,
    /// The chat it belongs to.
    pub chat: Jid,
    /// Who wrote it, where known.
    pub sender: Option<Jid>,
    /// Whether the linked account wrote it.
    pub from_me: bool,
    /// What it is.
    pub kind: MessageType,
    /// The text of a text message.
    pub text: Option<String>,
    /// The caption of a media message.
    pub caption: Option<String>,
    /// The file of a media message.
    pub media: Option<Media>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// When it was written.
    pub timestamp: Timestamp,
    /// When WhatsApp acknowledged it.
    pub sent_at: Option<Timestamp>,
    /// When the first device of the recipient had it; in a group, of the first member.
    pub delivered_at: Option<Timestamp>,
    /// When the recipient saw it; in a group, the first member.
    pub read_at: Option<Timestamp>,
    /// When the recipient played it; in a group, the first member.
    pub played_at: Option<Timestamp>,
    /// Why it was given up.
    pub failure: Option<String>,
    /// When it was last edited.
    pub edited_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The latest reaction of each person, in the order of their names; one without an emoji was taken back.
    pub reactions: Vec<Reaction>,
    /// Where WhatsApp keeps the file of a media message, and its key.
    pub file: Option<MediaFile>,
    /// How the file of a media message looks and plays.
    pub shape: Option<MediaShape>,
}

impl HistoryRow {
    /// Somebody's message of which no more is known. Its sort key is 0: for whoever stores it to assign.
    pub fn new(message_id: MessageId, chat: Jid, kind: MessageType, timestamp: Timestamp) -> Self {
        Self {
            sort_key: 0,
            message_id,
            chat,
            sender: None,
            from_me: false,
            kind,
            text: None,
            caption: None,
            media: None,
            reply_to: None,
            timestamp,
            sent_at: None,
            delivered_at: None,
            read_at: None,
            played_at: None,
            failure: None,
            edited_at: None,
            revoked_at: None,
            reactions: Vec::new(),
            file: None,
            shape: None,
        }
    }
}

/// A file that WhatsApp keeps, as messages refer to it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaFile {
    /// The path on WhatsApp's media hosts; none while the file is not there yet.
    pub direct_path: Option<String>,
    /// The key that decrypts it; none for a file that is not encrypted. Never shown to anybody.
    pub media_key: Option<Bytes>,
    /// SHA-256 of the plain file.
    pub sha256: Bytes,
    /// SHA-256 of what WhatsApp keeps.
    pub encrypted_sha256: Option<Bytes>,
    /// The plain file's length in bytes, as its sender gave it.
    pub length: u64,
}

impl fmt::Debug for MediaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaFile").field("length", &self.length).finish_non_exhaustive()
    }
}

/// The stage that a receipt reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReceiptKind {
    /// A device of the recipient has it.
    Delivered,
    /// The recipient saw it.
    Read,
    /// The recipient played it.
    Played,
}

impl ReceiptKind {
    /// Which of three times is this stage's.
    pub(crate) fn of<'a>(
        self,
        delivered: &'a mut Option<Timestamp>,
        read: &'a mut Option<Timestamp>,
        played: &'a mut Option<Timestamp>,
    ) -> &'a mut Option<Timestamp> {
        match self {
            Self::Delivered => delivered,
            Self::Read => read,
            Self::Played => played,
        }
    }
}

/// A receipt for messages of the account's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageReceipt {
    /// The chat of the messages, under either of its names (LID or phone number).
    pub chat: Jid,
    /// Whose receipt it is, in a group.
    pub participant: Option<Jid>,
    /// Their ids.
    pub ids: Vec<MessageId>,
    /// The stage they have reached.
    pub kind: ReceiptKind,
    /// When.
    pub at: Timestamp,
}

/// When a message of the account's own reached a member of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParticipantRow {
    /// The member, as the group addresses its members.
    pub participant: Jid,
    /// The member's first device has it.
    pub delivered_at: Option<Timestamp>,
    /// The member saw it.
    pub read_at: Option<Timestamp>,
    /// The member played it.
    pub played_at: Option<Timestamp>,
}

/// Which messages of a history, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only of this chat.
    pub chat: Option<Jid>,
    /// Only from this time on.
    pub from: Option<Timestamp>,
    /// Only before this time.
    pub until: Option<Timestamp>,
    /// Only inbound or only outbound.
    pub direction: Option<Direction>,
    /// Only of this kind.
    pub kind: Option<MessageType>,
    /// Only newer than this sort key.
    pub after: Option<u64>,
    /// Only older than this sort key: where the page before ended.
    pub before: Option<u64>,
    /// At most this many rows, at least 1.
    pub limit: usize,
}

impl HistoryQuery {
    /// The oldest and the newest sort key that can be meant; none when nothing can.
    pub fn span(&self) -> Option<(u64, u64)> {
        let first_of = |secs: i64| u64::try_from(secs).unwrap_or(0) << 20;
        let mut oldest = self.from.map_or(0, |from| first_of(from.as_secs()));
        if let Some(after) = self.after {
            oldest = oldest.max(after.checked_add(1)?);
        }
        let mut newest = u64::MAX;
        if let Some(until) = self.until {
            // Within its second a message has no order by time that its sort key knows of.
            let fraction = i64::from(until.as_micros() % 1_000_000 > 0);
            newest = first_of(until.as_secs() + fraction).checked_sub(1)?;
        }
        if let Some(before) = self.before {
            newest = newest.min(before.checked_sub(1)?);
        }
        (oldest <= newest).then_some((oldest, newest))
    }

    /// Whether a row passes the filters; where it is does not matter.
    pub fn matches(&self, row: &HistoryRow) -> bool {
        let direction = if row.from_me { Direction::Outbound } else { Direction::Inbound };
        self.chat.as_ref().is_none_or(|chat| *chat == row.chat)
            && self.from.is_none_or(|from| row.timestamp >= from)
            && self.until.is_none_or(|until| row.timestamp < until)
            && self.direction.is_none_or(|wanted| wanted == direction)
            && self.kind.is_none_or(|kind| kind == row.kind)
    }
}

/// One page of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, C> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page begins; none at the end. A page may be short or empty and still have a next one,
    /// since a filter looks at a bounded number of rows only.
    pub next: Option<C>,
}

/// Something that came before the message that it is about. Kept for [`EARLY_KEPT_SECS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyRow {
    /// When it came.
    pub received_at: Timestamp,
    /// What it is.
    pub what: Early,
}

/// What can come before the message that it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Early {
    /// A change of the message.
    Amendment(Amendment),
    /// A receipt for it: one id, which is the message's.
    Receipt(MessageReceipt),
}

/// How long an [`EarlyRow`] waits for its message, in seconds. Messages from before the device was linked may come with
/// the history of the phone, and many never do.
pub const EARLY_KEPT_SECS: i64 = 30 * 24 * 60 * 60;
