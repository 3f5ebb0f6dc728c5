//! What a message is and says, as a person would see it.

use buffa::Message as _;
use serde::Serialize;
use waproto::whatsapp as wa;
use waproto::whatsapp::message::protocol_message::Type;

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// A text.
    Text,
    /// A picture.
    Image,
    /// A film.
    Video,
    /// A sound, perhaps a voice note.
    Audio,
    /// A file.
    Document,
    /// A sticker.
    Sticker,
    /// A reaction to a message; an empty one takes it back.
    Reaction,
    /// A new text for a message.
    Edit,
    /// A message is taken back.
    Revoke,
    /// A poll.
    Poll,
    /// A vote in a poll.
    PollVote,
    /// A place.
    Location,
    /// A contact's card.
    Contact,
    /// After how long messages of the chat disappear.
    Disappearing,
    /// Anything else.
    Other,
}

/// What a person would see of a message.
pub(super) struct Seen {
    pub(super) kind: MessageKind,
    pub(super) text: String,
    /// The message that it is about.
    pub(super) target: Option<String>,
}

/// Takes off what only says how a message is to be shown.
pub(super) fn inner(message: &wa::Message) -> &wa::Message {
    let wrappers = [
        &message.view_once_message_v2,
        &message.view_once_message,
        &message.view_once_message_v2_extension,
        &message.document_with_caption_message,
        &message.ephemeral_message,
        &message.edited_message,
    ];
    wrappers.into_iter().find_map(|w| w.as_option()?.message.as_option()).map_or(message, inner)
}

/// Reads a message; `None` for what only devices talk about.
pub(super) fn read(message: &wa::Message) -> Option<Seen> {
    let message = inner(message);
    let seen = |kind, text: String| Some(Seen { kind, text, target: None });
    if let Some(text) = &message.conversation {
        return seen(MessageKind::Text, text.clone());
    }
    if let Some(extended) = message.extended_text_message.as_option() {
        return seen(MessageKind::Text, extended.text.clone().unwrap_or_default());
    }
    if let Some((kind, text)) = medium(message).or_else(|| other(message)) {
        return seen(kind, text);
    }
    if let Some(reaction) = message.reaction_message.as_option() {
        let text = format!("<reaction {}>", reaction.text.clone().unwrap_or_default());
        let target = reaction.key.as_option().and_then(|k| k.id.clone());
        return Some(Seen { kind: MessageKind::Reaction, text, target });
    }
    if let Some(vote) = message.poll_update_message.as_option() {
        let target = vote.poll_creation_message_key.as_option().and_then(|k| k.id.clone());
        return Some(Seen { kind: MessageKind::PollVote, text: "<poll vote>".into(), target });
    }
    if let Some(protocol) = message.protocol_message.as_option() {
        return of_protocol(protocol);
    }
    let internal = message.sender_key_distribution_message.is_set() || message.encode_to_vec().is_empty();
    if internal { None } else { seen(MessageKind::Other, "<other>".into()) }
}

fn medium(message: &wa::Message) -> Option<(MessageKind, String)> {
    let shown = |kind, caption: &Option<String>, name: &str| {
        Some((kind, caption.clone().unwrap_or_else(|| format!("<{name}>"))))
    };
    if let Some(image) = message.image_message.as_option() {
        return shown(MessageKind::Image, &image.caption, "image");
    }
    if let Some(video) = message.video_message.as_option() {
        return shown(MessageKind::Video, &video.caption, "video");
    }
    if let Some(document) = message.document_message.as_option() {
        return shown(MessageKind::Document, &document.caption, "document");
    }
    if message.audio_message.is_set() {
        return shown(MessageKind::Audio, &None, "audio");
    }
    if message.sticker_message.is_set() {
        return shown(MessageKind::Sticker, &None, "sticker");
    }
    None
}

fn other(message: &wa::Message) -> Option<(MessageKind, String)> {
    let polls = [&message.poll_creation_message, &message.poll_creation_message_v2, &message.poll_creation_message_v3];
    if polls.iter().any(|p| p.is_set()) {
        return Some((MessageKind::Poll, "<poll>".into()));
    }
    if message.location_message.is_set() {
        return Some((MessageKind::Location, "<location>".into()));
    }
    message.contact_message.is_set().then(|| (MessageKind::Contact, "<contact>".into()))
}

fn of_protocol(protocol: &wa::message::ProtocolMessage) -> Option<Seen> {
    let target = protocol.key.as_option().and_then(|k| k.id.clone());
    if let Some(edited) = protocol.edited_message.as_option() {
        return Some(Seen { kind: MessageKind::Edit, text: read(edited)?.text, target });
    }
    if protocol.r#type == Some(Type::EPHEMERAL_SETTING) {
        let text = format!("<disappearing {}>", protocol.ephemeral_expiration.unwrap_or(0));
        return Some(Seen { kind: MessageKind::Disappearing, text, target: None });
    }
    (target.is_some() && protocol.r#type == Some(Type::REVOKE)).then(|| Seen {
        kind: MessageKind::Revoke,
        text: "<revoked>".into(),
        target,
    })
}
