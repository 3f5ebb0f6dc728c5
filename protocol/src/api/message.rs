//! Bodies of `/api/whatsapp/messages` and of a session's history.

use super::List;
use crate::{Jid, MessageId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /whatsapp/messages/text`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SendText {
    /// The session that sends.
    #[schema(format = Uuid)]
    pub session_id: String,
    /// The recipient: phone number, JID, LID or group JID.
    #[schema(min_length = 1, max_length = 255, example = "+1 555 000 2002")]
    pub to: String,
    /// The text, 1 to 65,536 characters.
    #[schema(min_length = 1, max_length = 65536)]
    pub message: String,
    /// For how many milliseconds, at most 25,000, the recipient sees somebody typing (or recording) first.
    #[schema(maximum = 25000)]
    pub typing_ms: Option<u32>,
}

/// `POST /whatsapp/messages/media` with a URL. An upload has the same fields as `multipart/form-data`, with the part
/// `file` in the place of `media_url`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SendMedia {
    /// The session that sends.
    #[schema(format = Uuid)]
    pub session_id: String,
    /// The recipient: phone number, JID, LID or group JID.
    #[schema(min_length = 1, max_length = 255, example = "+1 555 000 2002")]
    pub to: String,
    /// Where the file is: an `http:`, `https:` or `data:` URL.
    #[schema(example = "https://example.org/picture.jpg")]
    pub media_url: String,
    /// What it is sent as. The file's content has to fit.
    #[serde(rename = "type")]
    pub kind: MediaKind,
    /// A text with it, at most 1,024 characters; not with audio.
    #[schema(max_length = 1024)]
    pub caption: Option<String>,
    /// The name of a document; without it the name is the host's or the URL's.
    #[schema(max_length = 255)]
    pub file_name: Option<String>,
    /// For how many milliseconds, at most 25,000, the recipient sees somebody typing (or recording) first.
    #[schema(maximum = 25000)]
    pub typing_ms: Option<u32>,
}

/// `POST /whatsapp/messages/media` with an upload.
#[derive(Clone, Debug, ToSchema)]
pub struct UploadMedia {
    /// The session that sends.
    #[schema(format = Uuid)]
    pub session_id: String,
    /// The recipient: phone number, JID, LID or group JID.
    #[schema(min_length = 1, max_length = 255)]
    pub to: String,
    /// The file.
    #[schema(format = Binary)]
    pub file: String,
    /// What it is sent as. The file's content has to fit.
    #[schema(rename = "type")]
    pub kind: MediaKind,
    /// A text with it, at most 1,024 characters; not with audio.
    #[schema(max_length = 1024)]
    pub caption: Option<String>,
    /// The name of a document; without it the name is the part's.
    #[schema(max_length = 255)]
    pub file_name: Option<String>,
    /// For how many milliseconds, at most 25,000, the recipient sees somebody typing (or recording) first.
    #[schema(maximum = 25000)]
    pub typing_ms: Option<u32>,
}

/// What a file is sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MediaKind {
    /// A JPEG, PNG, WebP or GIF picture.
    Image,
    /// A sound; Ogg Opus becomes a voice note.
    Audio,
    /// A film.
    Video,
    /// Any file.
    Document,
}

/// How far an accepted send has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SentStatus {
    /// WhatsApp has acknowledged it.
    Sent,
    /// It is stored and will be sent when the session is connected.
    Queued,
}

/// The answer to an accepted send: 200 `sent`, 202 `queued`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sent {
    /// Always true.
    pub success: bool,
    /// WhatsApp's id of the message.
    pub message_id: MessageId,
    /// The session that sends.
    pub session_id: SessionId,
    /// The recipient as the caller named it.
    pub to: String,
    /// The recipient's address.
    pub chat: Jid,
    /// How far it has come.
    pub status: SentStatus,
    /// When it was accepted.
    pub timestamp: Timestamp,
}

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Somebody else.
    Inbound,
    /// The linked account, on this device or another.
    Outbound,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageType {
    /// Text.
    Text,
    /// A picture.
    Image,
    /// A voice note or an audio file.
    Audio,
    /// A video.
    Video,
    /// A file.
    Document,
    /// A sticker.
    Sticker,
    /// A place.
    Location,
    /// One or more contact cards.
    Contact,
    /// A poll.
    Poll,
    /// A kind that is stored but has no name of its own yet.
    Other,
    /// A message that could not be decrypted.
    Undecryptable,
}

impl MessageType {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Text,
        Self::Image,
        Self::Audio,
        Self::Video,
        Self::Document,
        Self::Sticker,
        Self::Location,
        Self::Contact,
        Self::Poll,
        Self::Other,
        Self::Undecryptable,
    ];

    /// As the contract writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Document => "document",
            Self::Sticker => "sticker",
            Self::Location => "location",
            Self::Contact => "contact",
            Self::Poll => "poll",
            Self::Other => "other",
            Self::Undecryptable => "undecryptable",
        }
    }
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageStatus {
    /// Stored, not acknowledged by WhatsApp yet.
    Pending,
    /// Acknowledged by WhatsApp; for an inbound message, received.
    Sent,
    /// Arrived on a device of the recipient; in a group, of at least one member.
    Delivered,
    /// Seen by the recipient; in a group, by at least one member.
    Read,
    /// Listened to or watched by the recipient; in a group, by at least one member.
    Played,
    /// Given up; it will not be sent.
    Failed,
}

/// A file that came or went with a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Media {
    /// Its MIME type as the sender gave it.
    pub mime_type: Option<String>,
    /// Its size in bytes as the sender gave it.
    pub size: Option<u64>,
    /// Its name, for documents.
    pub file_name: Option<String>,
    /// SHA-256 of the plain file, hex.
    pub sha256: Option<String>,
    /// A path of ours that streams the file; `null` while there is none.
    pub url: Option<String>,
}

/// How a file looks and how long it plays, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MediaShape {
    /// The width of an image or video in pixels, as it is shown.
    pub width: Option<u32>,
    /// Its height.
    pub height: Option<u32>,
    /// How long a video or a sound plays, in seconds.
    pub seconds: Option<u32>,
}

/// The file of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageMedia {
    /// The file.
    #[serde(flatten)]
    pub file: Media,
    /// How it looks and plays.
    #[serde(flatten)]
    pub shape: MediaShape,
}

/// An emoji that somebody put on a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reaction {
    /// Who.
    pub sender: Jid,
    /// Which.
    pub emoji: String,
    /// When.
    pub timestamp: Timestamp,
}

/// When a message of ours reached which stage. In a group these are the times of the first member that did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipts {
    /// WhatsApp acknowledged it.
    pub server_at: Option<Timestamp>,
    /// The first device of the recipient has it.
    pub delivered_at: Option<Timestamp>,
    /// The recipient saw it.
    pub read_at: Option<Timestamp>,
    /// The recipient played it.
    pub played_at: Option<Timestamp>,
    /// Each member's receipts in a group, in the order of their addresses; a page of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participants: Option<List<ParticipantReceipt>>,
}

/// When a group's message reached one of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParticipantReceipt {
    /// The member, as the group addresses its members.
    pub participant: Jid,
    /// The address to write to: by phone number where it is known.
    pub jid: Jid,
    /// The address without the phone number.
    pub lid: Option<Jid>,
    /// The phone number, digits alone.
    pub phone: Option<String>,
    /// The member's first device has it.
    pub delivered_at: Option<Timestamp>,
    /// The member saw it.
    pub read_at: Option<Timestamp>,
    /// The member played it.
    pub played_at: Option<Timestamp>,
}

/// A message of a session's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// WhatsApp's id.
    pub message_id: MessageId,
    /// The chat it belongs to: a user or a group.
    pub chat: Jid,
    /// Who wrote it; unknown for the account itself before it is linked.
    pub sender: Option<Jid>,
    /// Whether the linked account wrote it.
    pub from_me: bool,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: MessageType,
    /// The text of a text message.
    pub text: Option<String>,
    /// The caption of a media message.
    pub caption: Option<String>,
    /// The file of a media message.
    pub media: Option<MessageMedia>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// WhatsApp's time for an inbound message, the time of acceptance for an outbound one.
    pub timestamp: Timestamp,
    /// How far it has come.
    pub status: MessageStatus,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it was last edited.
    pub edited_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The emojis on it.
    pub reactions: Vec<Reaction>,
    /// Its receipts; only where one message is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipts: Option<Receipts>,
}
