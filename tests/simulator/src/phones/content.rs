//! What a phone can send, and the message that it becomes.

use std::sync::Arc;

use buffa::MessageField;
use bytes::Bytes;
use wacore::download::MediaType;
use waproto::whatsapp as wa;
use waproto::whatsapp::message as parts;

use super::outbound::Chat;
use crate::account::{Account, lock};
use crate::error::PhoneError;
use crate::media;
use crate::stanza::unix_now;
use crate::world::World;

/// Bytes of a text; WhatsApp takes no longer ones.
const TEXT_BYTES: usize = 65_536;
/// Options of a poll.
const OPTIONS: std::ops::RangeInclusive<usize> = 2..=12;

/// What a phone sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A text.
    Text(String),
    /// A reaction to a message that the phone has sent or received; an empty one takes it back.
    Reaction {
        /// The message's id.
        message_id: String,
        /// One emoji, or nothing.
        emoji: String,
    },
    /// A new text for a message that the phone has sent.
    Edit {
        /// The message's id.
        message_id: String,
        /// The new text.
        text: String,
    },
    /// Takes back a message that the phone has sent.
    Revoke {
        /// The message's id.
        message_id: String,
    },
    /// A poll with one choice.
    Poll {
        /// What is asked.
        question: String,
        /// 2 to 12 answers.
        options: Vec<String>,
    },
    /// A medium, uploaded before it is sent.
    Medium {
        /// What it is.
        kind: MediumKind,
        /// Its bytes.
        data: Bytes,
        /// Its MIME type.
        mimetype: String,
        /// A text with it; ignored for sounds and stickers.
        caption: Option<String>,
        /// It may be looked at once.
        view_once: bool,
    },
}

/// A kind of medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediumKind {
    /// A picture.
    Image,
    /// A film.
    Video,
    /// A sound.
    Audio,
    /// A file.
    Document,
    /// A sticker.
    Sticker,
}

/// What a stanza says of the message that it carries.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// The attribute `type`.
    pub(super) kind: &'static str,
    /// The attribute `edit`.
    pub(super) edit: Option<&'static str>,
}

impl Style {
    /// A text.
    pub(super) const TEXT: Self = Self { kind: "text", edit: None };
}

/// Makes the message.
pub(super) fn build(
    world: &World,
    account: &Account,
    chat: &Chat,
    content: &Content,
) -> Result<(wa::Message, Style), PhoneError> {
    let kind = |kind| Style { kind, edit: None };
    let built = match content {
        Content::Text(text) => (text_message(text)?, Style::TEXT),
        Content::Reaction { message_id, emoji } => {
            let reaction = parts::ReactionMessage {
                key: MessageField::some(key(world, account, chat, message_id)?),
                text: Some(emoji.clone()),
                sender_timestamp_ms: now_ms(),
                ..Default::default()
            };
            let message = wa::Message { reaction_message: MessageField::some(reaction), ..Default::default() };
            (message, kind("reaction"))
        }
        Content::Edit { message_id, text } => {
            let edit = parts::ProtocolMessage {
                key: MessageField::some(own_key(world, account, chat, message_id)?),
                r#type: Some(parts::protocol_message::Type::MESSAGE_EDIT),
                edited_message: MessageField::some(text_message(text)?),
                timestamp_ms: now_ms(),
                ..Default::default()
            };
            let message = wa::Message { protocol_message: MessageField::some(edit), ..Default::default() };
            (message, Style { kind: "text", edit: Some("1") })
        }
        Content::Revoke { message_id } => {
            let revoke = parts::ProtocolMessage {
                key: MessageField::some(own_key(world, account, chat, message_id)?),
                r#type: Some(parts::protocol_message::Type::REVOKE),
                ..Default::default()
            };
            let message = wa::Message { protocol_message: MessageField::some(revoke), ..Default::default() };
            (message, Style { kind: "text", edit: Some("7") })
        }
        Content::Poll { question, options } => (poll(question, options)?, kind("poll")),
        Content::Medium { view_once, .. } => {
            let message = medium(world, content)?;
            let message = if *view_once { seen_once(message) } else { message };
            (message, kind("media"))
        }
    };
    Ok(built)
}

fn now_ms() -> Option<i64> {
    i64::try_from(unix_now() * 1_000).ok()
}

fn text_message(text: &str) -> Result<wa::Message, PhoneError> {
    if text.len() > TEXT_BYTES {
        return Err(PhoneError::Invalid("the text is too long".into()));
    }
    Ok(wa::Message { conversation: Some(text.to_string()), ..Default::default() })
}

/// The key of a message that the phone knows.
fn key(world: &World, account: &Account, chat: &Chat, id: &str) -> Result<wa::MessageKey, PhoneError> {
    let sent = lock(&account.phone.sent).message(id).is_some();
    let received = lock(&account.phone.inbox).by_id(id);
    let (from_me, participant) = match received {
        _ if sent => (true, None),
        Some(received) => {
            let author = received.group.and_then(|_| world.resolve(&received.sender)).map(|a| a.pn(0).to_string());
            (received.message.from_me, author)
        }
        None => return Err(PhoneError::UnknownMessage(id.to_string())),
    };
    Ok(wa::MessageKey {
        remote_jid: Some(chat.jid().to_string()),
        from_me: Some(from_me),
        id: Some(id.to_string()),
        participant,
    })
}

fn own_key(world: &World, account: &Account, chat: &Chat, id: &str) -> Result<wa::MessageKey, PhoneError> {
    let key = key(world, account, chat, id)?;
    if key.from_me != Some(true) {
        return Err(PhoneError::Invalid("the message is of somebody else".into()));
    }
    Ok(key)
}

fn poll(question: &str, options: &[String]) -> Result<wa::Message, PhoneError> {
    if !OPTIONS.contains(&options.len()) {
        return Err(PhoneError::Invalid(format!("a poll has {} to {} options", OPTIONS.start(), OPTIONS.end())));
    }
    let options = options
        .iter()
        .map(|name| parts::poll_creation_message::Option { option_name: Some(name.clone()), ..Default::default() })
        .collect();
    let poll = parts::PollCreationMessage {
        name: Some(question.to_string()),
        options,
        selectable_options_count: Some(1),
        ..Default::default()
    };
    let secret =
        wa::MessageContextInfo { message_secret: Some(rand::random::<[u8; 32]>().to_vec()), ..Default::default() };
    Ok(wa::Message {
        poll_creation_message_v3: MessageField::some(poll),
        message_context_info: MessageField::some(secret),
        ..Default::default()
    })
}

/// The fields that every kind of medium has.
macro_rules! medium_message {
    ($kind:ident, $sealed:expr, $($field:ident: $value:expr),*) => {
        MessageField::some(parts::$kind {
            url: Some($sealed.url),
            direct_path: Some($sealed.direct_path),
            mimetype: Some($sealed.mimetype),
            media_key: Some($sealed.media_key),
            file_sha256: Some($sealed.file_sha256),
            file_enc_sha256: Some($sealed.file_enc_sha256),
            file_length: Some($sealed.file_length),
            $($field: $value,)*
            ..Default::default()
        })
    };
}

/// An encrypted and uploaded medium.
struct Sealed {
    url: String,
    direct_path: String,
    mimetype: String,
    media_key: Vec<u8>,
    file_sha256: Vec<u8>,
    file_enc_sha256: Vec<u8>,
    file_length: u64,
}

fn seal(world: &World, kind: MediumKind, data: &Bytes, mimetype: &str) -> Result<Sealed, PhoneError> {
    let kind = match kind {
        MediumKind::Image => MediaType::Image,
        MediumKind::Video => MediaType::Video,
        MediumKind::Audio => MediaType::Audio,
        MediumKind::Document => MediaType::Document,
        MediumKind::Sticker => MediaType::Sticker,
    };
    let encrypted = wacore::upload::encrypt_media(data, kind).map_err(|e| PhoneError::Invalid(e.to_string()))?;
    let name = format!("medium-{}", world.next_number());
    let direct_path = media::direct_path(&name);
    let host = world.media_host.get().cloned().unwrap_or_default();
    if !media::store(world, &name, Bytes::from(encrypted.data_to_upload)) {
        return Err(PhoneError::Invalid("the medium is too large".into()));
    }
    Ok(Sealed {
        url: format!("https://{host}{direct_path}"),
        direct_path,
        mimetype: mimetype.to_string(),
        media_key: encrypted.media_key.to_vec(),
        file_sha256: encrypted.file_sha256.to_vec(),
        file_enc_sha256: encrypted.file_enc_sha256.to_vec(),
        file_length: data.len() as u64,
    })
}

fn medium(world: &World, content: &Content) -> Result<wa::Message, PhoneError> {
    let Content::Medium { kind, data, mimetype, caption, .. } = content else {
        return Err(PhoneError::Invalid("no medium".into()));
    };
    let sealed = seal(world, *kind, data, mimetype)?;
    let caption = caption.clone();
    let mut message = wa::Message::default();
    match kind {
        MediumKind::Image => message.image_message = medium_message!(ImageMessage, sealed, caption: caption),
        MediumKind::Video => message.video_message = medium_message!(VideoMessage, sealed, caption: caption),
        MediumKind::Audio => message.audio_message = medium_message!(AudioMessage, sealed,),
        MediumKind::Sticker => message.sticker_message = medium_message!(StickerMessage, sealed,),
        MediumKind::Document => {
            message.document_message = medium_message!(DocumentMessage, sealed, caption: caption);
        }
    }
    Ok(message)
}

fn seen_once(message: wa::Message) -> wa::Message {
    let inner = parts::FutureProofMessage { message: MessageField::some(message) };
    wa::Message { view_once_message_v2: MessageField::some(inner), ..Default::default() }
}

/// Finds where a message goes: a number, or a group's JID.
pub(super) fn chat(world: &Arc<World>, to: &str) -> Result<Chat, PhoneError> {
    let unknown = || PhoneError::UnknownNumber(to.to_string());
    match to.strip_suffix("@g.us") {
        Some(id) => world.groups.get(id).map(Chat::Group).ok_or_else(unknown),
        None => world.account(to).map(Chat::User).ok_or_else(unknown),
    }
}
