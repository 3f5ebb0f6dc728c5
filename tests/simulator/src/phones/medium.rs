//! Media that a phone sends: encrypted, uploaded, described.

use buffa::MessageField;
use bytes::Bytes;
use wacore::download::MediaType;
use waproto::whatsapp as wa;
use waproto::whatsapp::message as parts;

use crate::error::PhoneError;
use crate::media;
use crate::stanza::unix_now;
use crate::world::World;

/// A kind of medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediumKind {
    /// A picture.
    Image,
    /// A film.
    Video,
    /// A short film that runs again and again, without sound.
    Gif,
    /// A sound.
    Audio,
    /// A voice note.
    Voice,
    /// A file.
    Document,
    /// A sticker.
    Sticker,
}

impl MediumKind {
    /// As `<enc mediatype>` names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
            Self::Gif => "gif",
            Self::Audio => "audio",
            Self::Voice => "ptt",
            Self::Document => "document",
            Self::Sticker => "sticker",
        }
    }

    fn media_type(self) -> MediaType {
        match self {
            Self::Image => MediaType::Image,
            Self::Video | Self::Gif => MediaType::Video,
            Self::Audio | Self::Voice => MediaType::Audio,
            Self::Document => MediaType::Document,
            Self::Sticker => MediaType::Sticker,
        }
    }
}

/// An encrypted and uploaded medium.
pub(super) struct Sealed {
    url: String,
    direct_path: String,
    mimetype: String,
    media_key: Vec<u8>,
    file_sha256: Vec<u8>,
    file_enc_sha256: Vec<u8>,
    file_length: u64,
}

/// Encrypts and uploads a medium.
pub(super) fn seal(world: &World, kind: MediumKind, data: &Bytes, mimetype: &str) -> Result<Sealed, PhoneError> {
    let encrypted =
        wacore::upload::encrypt_media(data, kind.media_type()).map_err(|e| PhoneError::Invalid(e.to_string()))?;
    let name = format!("medium-{}", world.next_number());
    if !media::store(world, &name, Bytes::from(encrypted.data_to_upload)) {
        return Err(PhoneError::Invalid("the medium is too large".into()));
    }
    Ok(Sealed {
        url: media::url(world, &name),
        direct_path: media::direct_path(&name),
        mimetype: mimetype.to_string(),
        media_key: encrypted.media_key.to_vec(),
        file_sha256: encrypted.file_sha256.to_vec(),
        file_enc_sha256: encrypted.file_enc_sha256.to_vec(),
        file_length: data.len() as u64,
    })
}

/// The fields that every kind of medium has.
macro_rules! describe {
    ($kind:ident, $sealed:expr, $($field:ident: $value:expr),*) => {
        MessageField::some(parts::$kind {
            url: Some($sealed.url),
            direct_path: Some($sealed.direct_path),
            mimetype: Some($sealed.mimetype),
            media_key: Some($sealed.media_key),
            media_key_timestamp: i64::try_from(unix_now()).ok(),
            file_sha256: Some($sealed.file_sha256),
            file_enc_sha256: Some($sealed.file_enc_sha256),
            file_length: Some($sealed.file_length),
            $($field: $value,)*
            ..Default::default()
        })
    };
}

/// The message that a medium becomes.
pub(super) fn message(
    kind: MediumKind,
    sealed: Sealed,
    caption: Option<String>,
    thumbnail: Option<&Bytes>,
) -> wa::Message {
    let mut message = wa::Message::default();
    let thumbnail = thumbnail.map(|t| t.to_vec());
    match kind {
        MediumKind::Image => {
            message.image_message = describe!(ImageMessage, sealed, caption: caption, jpeg_thumbnail: thumbnail);
        }
        MediumKind::Video | MediumKind::Gif => {
            let gif = Some(kind == MediumKind::Gif);
            message.video_message =
                describe!(VideoMessage, sealed, caption: caption, jpeg_thumbnail: thumbnail, gif_playback: gif);
        }
        MediumKind::Audio | MediumKind::Voice => {
            let voice = Some(kind == MediumKind::Voice);
            message.audio_message = describe!(AudioMessage, sealed, ptt: voice, seconds: Some(1));
        }
        MediumKind::Sticker => message.sticker_message = describe!(StickerMessage, sealed,),
        MediumKind::Document => {
            message.document_message = describe!(
                DocumentMessage,
                sealed,
                caption: caption,
                jpeg_thumbnail: thumbnail,
                file_name: Some("document".into())
            );
        }
    }
    message
}

/// A medium that may be looked at once.
pub(super) fn seen_once(mut message: wa::Message) -> wa::Message {
    if let Some(image) = message.image_message.as_option_mut() {
        image.view_once = Some(true);
    }
    if let Some(video) = message.video_message.as_option_mut() {
        video.view_once = Some(true);
    }
    if let Some(audio) = message.audio_message.as_option_mut() {
        audio.view_once = Some(true);
    }
    let inner = parts::FutureProofMessage { message: MessageField::some(message) };
    wa::Message { view_once_message_v2: MessageField::some(inner), ..Default::default() }
}

/// Says what a text or medium answers, and when it disappears. Other messages say neither.
pub(super) fn set_context(message: &mut wa::Message, context: &wa::ContextInfo) {
    if let Some(text) = message.conversation.take() {
        message.extended_text_message =
            MessageField::some(parts::ExtendedTextMessage { text: Some(text), ..Default::default() });
    }
    if let Some(once) = message.view_once_message_v2.as_option_mut()
        && let Some(inner) = once.message.as_option_mut()
    {
        set_context(inner, context);
    }
    macro_rules! set {
        ($($field:ident),*) => {
            $(if let Some(part) = message.$field.as_option_mut() {
                part.context_info = MessageField::some(context.clone());
            })*
        };
    }
    set!(
        extended_text_message,
        image_message,
        video_message,
        audio_message,
        document_message,
        sticker_message,
        location_message,
        contact_message
    );
}

/// What a message says of the medium in it: its key and where it is.
pub(super) fn medium_of(message: &wa::Message) -> Option<(Vec<u8>, String)> {
    macro_rules! find {
        ($($field:ident),*) => {
            $(if let Some(part) = message.$field.as_option() {
                return Some((part.media_key.clone()?, part.direct_path.clone()?));
            })*
        };
    }
    find!(image_message, video_message, audio_message, document_message, sticker_message);
    None
}

/// What a message says of itself: what it answers, and when it disappears.
pub(super) fn context_of(message: &wa::Message) -> Option<&wa::ContextInfo> {
    macro_rules! find {
        ($($field:ident),*) => {
            $(if let Some(part) = message.$field.as_option() {
                return part.context_info.as_option();
            })*
        };
    }
    find!(
        extended_text_message,
        image_message,
        video_message,
        audio_message,
        document_message,
        sticker_message,
        location_message,
        contact_message
    );
    None
}
