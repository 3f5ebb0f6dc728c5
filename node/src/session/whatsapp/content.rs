//! From WhatsApp's messages to rows of the history, and from a text to a message.

use super::amend;
use bytes::Bytes;
use rookery_protocol::{
    Jid, MessageId, Timestamp,
    api::{Media, MediaShape, MessageType},
};
use rookery_storage::{HistoryRow, MediaFile};
use whatsapp_rust::{
    download::Downloadable,
    proto_helpers::{MessageBuilderExt, MessageExt},
    wacore::types::message::{MessageCategory, MessageInfo, MessageSource},
    waproto::{codec, whatsapp as wa},
};

/// The encoded message that carries `text`.
pub(crate) fn text_payload(text: &str) -> Vec<u8> {
    codec::message_to_vec(&wa::Message::text(text))
}

/// What an encoded message is.
pub(crate) fn payload_kind(payload: &[u8]) -> MessageType {
    let message = codec::message_decode(payload).ok();
    message.and_then(|message| kind(message.get_base_message())).unwrap_or(MessageType::Other)
}

/// An address of ours from the library's; without its device.
pub(super) fn jid(jid: &whatsapp_rust::Jid) -> Option<Jid> {
    jid.to_non_ad_string().parse().ok()
}

/// The row of a message; none for what is no message to a user: keys, settings, and what the account's own
/// devices tell each other. Its sort key is the receiver's to assign.
pub(super) fn row(message: &wa::Message, info: &MessageInfo) -> Option<HistoryRow> {
    if matches!(info.category, MessageCategory::Peer) {
        return None;
    }
    let base = message.get_base_message();
    let kind = kind(base)?;
    let mut row = empty_row(info, kind)?;
    row.text = message.text_content().map(str::to_owned);
    row.caption = message.get_caption().map(str::to_owned);
    (row.media, row.file) = media(base).unzip();
    row.shape = shape(base).filter(|shape| *shape != MediaShape::default());
    row.reply_to = context(base).and_then(|c| c.stanza_id.as_deref()).and_then(|id| id.parse().ok());
    Some(row)
}

/// The row that holds the place of a message that could not be decrypted.
pub(super) fn undecryptable(info: &MessageInfo) -> Option<HistoryRow> {
    if matches!(info.category, MessageCategory::Peer) || amend::is_amendment(info) {
        return None;
    }
    empty_row(info, MessageType::Undecryptable)
}

fn empty_row(info: &MessageInfo, kind: MessageType) -> Option<HistoryRow> {
    let timestamp = Timestamp::from_micros(info.timestamp.timestamp_micros());
    let source = &info.source;
    let id = info.id.parse::<MessageId>().ok()?;
    Some(HistoryRow {
        sender: sender(source),
        from_me: source.is_from_me,
        sent_at: Some(timestamp),
        ..HistoryRow::new(id, chat(source)?, kind, timestamp)
    })
}

/// The chat by phone number where both of its names are known, so that one chat has one name.
pub(super) fn chat(source: &MessageSource) -> Option<Jid> {
    let other = if source.is_from_me { &source.recipient_alt } else { &source.sender_alt };
    match other {
        Some(alt) if !source.is_group && source.chat.is_lid() && alt.is_pn() => jid(alt),
        _ => jid(&source.chat),
    }
}

/// Who wrote a message, by phone number where that is known.
pub(super) fn sender(source: &MessageSource) -> Option<Jid> {
    match &source.sender_alt {
        Some(alt) if source.sender.is_lid() && alt.is_pn() => jid(alt),
        _ => jid(&source.sender),
    }
}

fn kind(base: &wa::Message) -> Option<MessageType> {
    let kind = if base.conversation.is_some() || base.extended_text_message.is_set() {
        MessageType::Text
    } else if base.image_message.is_set() {
        MessageType::Image
    } else if base.audio_message.is_set() {
        MessageType::Audio
    } else if base.video_message.is_set() || base.ptv_message.is_set() {
        MessageType::Video
    } else if base.document_message.is_set() {
        MessageType::Document
    } else if base.sticker_message.is_set() {
        MessageType::Sticker
    } else if base.location_message.is_set() || base.live_location_message.is_set() {
        MessageType::Location
    } else if base.contact_message.is_set() || base.contacts_array_message.is_set() {
        MessageType::Contact
    } else if base.poll_creation_message.is_set()
        || base.poll_creation_message_v2.is_set()
        || base.poll_creation_message_v3.is_set()
    {
        MessageType::Poll
    } else if amends(base) || base.protocol_message.is_set() || base.sender_key_distribution_message.is_set() {
        return None;
    } else {
        MessageType::Other
    };
    Some(kind)
}

/// What changes another message is none of its own, even when it could not be opened.
fn amends(base: &wa::Message) -> bool {
    base.reaction_message.is_set() || base.enc_reaction_message.is_set() || base.secret_encrypted_message.is_set()
}

/// The file of a message: as it is shown, and as it can be had.
fn media(base: &wa::Message) -> Option<(Media, MediaFile)> {
    macro_rules! file {
        ($message:expr, $name:expr) => {
            described(
                Media {
                    mime_type: $message.mimetype.clone(),
                    size: $message.file_length,
                    file_name: $name,
                    sha256: $message.file_sha256.as_ref().map(hex::encode),
                    url: None,
                },
                $message,
            )
        };
    }
    if let Some(image) = base.image_message.as_option() {
        return Some(file!(image, None));
    }
    if let Some(audio) = base.audio_message.as_option() {
        return Some(file!(audio, None));
    }
    if let Some(video) = base.video_message.as_option().or(base.ptv_message.as_option()) {
        return Some(file!(video, None));
    }
    if let Some(document) = base.document_message.as_option() {
        return Some(file!(document, document.file_name.clone()));
    }
    base.sticker_message.as_option().map(|sticker| file!(sticker, None))
}

/// How the file of a message looks and plays, as its sender says. Zero is what some senders write for unknown.
fn shape(base: &wa::Message) -> Option<MediaShape> {
    let known = |number: Option<u32>| number.filter(|number| *number > 0);
    let shape = |width, height, seconds| {
        Some(MediaShape { width: known(width), height: known(height), seconds: known(seconds) })
    };
    if let Some(image) = base.image_message.as_option() {
        return shape(image.width, image.height, None);
    }
    if let Some(video) = base.video_message.as_option().or(base.ptv_message.as_option()) {
        return shape(video.width, video.height, video.seconds);
    }
    if let Some(audio) = base.audio_message.as_option() {
        return shape(None, None, audio.seconds);
    }
    base.sticker_message.as_option().and_then(|sticker| shape(sticker.width, sticker.height, None))
}

fn described(media: Media, file: &dyn Downloadable) -> (Media, MediaFile) {
    let bytes = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
    let file = MediaFile {
        direct_path: file.direct_path().filter(|path| path.starts_with('/')).map(str::to_owned),
        media_key: bytes(file.media_key()),
        sha256: bytes(file.file_sha256()).unwrap_or_default(),
        encrypted_sha256: bytes(file.file_enc_sha256()),
        length: file.file_length().unwrap_or(0),
    };
    (media, file)
}

fn context(base: &wa::Message) -> Option<&wa::ContextInfo> {
    if let Some(m) = base.extended_text_message.as_option() {
        return m.context_info.as_option();
    }
    if let Some(m) = base.image_message.as_option() {
        return m.context_info.as_option();
    }
    if let Some(m) = base.video_message.as_option() {
        return m.context_info.as_option();
    }
    if let Some(m) = base.audio_message.as_option() {
        return m.context_info.as_option();
    }
    base.document_message.as_option().and_then(|m| m.context_info.as_option())
}
