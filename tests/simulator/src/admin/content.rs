//! What a phone sends, as JSON.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use super::answer::Failure;
use crate::phones::{Content, MediumKind, SendOptions};

/// What is sent, and how.
#[derive(Debug, Deserialize)]
pub(super) struct Sent {
    #[serde(flatten)]
    what: What,
    #[serde(default)]
    by_lid: bool,
    #[serde(default)]
    held: bool,
    #[serde(default)]
    reply_to: Option<String>,
    #[serde(default)]
    ephemeral_seconds: u32,
    /// A small JPEG in base64.
    #[serde(default)]
    thumbnail: Option<String>,
}

/// The JSON of a [`Content`].
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum What {
    Text {
        text: String,
    },
    Reaction {
        message_id: String,
        emoji: String,
    },
    Edit {
        message_id: String,
        text: String,
    },
    Revoke {
        message_id: String,
    },
    Poll {
        question: String,
        options: Vec<String>,
    },
    Vote {
        message_id: String,
        options: Vec<String>,
    },
    Medium {
        medium: Medium,
        data: String,
        mimetype: String,
        #[serde(default)]
        caption: Option<String>,
        #[serde(default)]
        view_once: bool,
    },
    Location {
        latitude_micro: i32,
        longitude_micro: i32,
        name: String,
    },
    Contact {
        name: String,
        number: String,
    },
    Disappearing {
        seconds: u32,
    },
}

/// The JSON of a [`MediumKind`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Medium {
    Image,
    Video,
    Audio,
    Document,
    Sticker,
}

impl From<Medium> for MediumKind {
    fn from(medium: Medium) -> Self {
        match medium {
            Medium::Image => Self::Image,
            Medium::Video => Self::Video,
            Medium::Audio => Self::Audio,
            Medium::Document => Self::Document,
            Medium::Sticker => Self::Sticker,
        }
    }
}

impl Sent {
    /// What is sent, and how.
    pub(super) fn read(self) -> Result<(Content, SendOptions), Failure> {
        let thumbnail = self.thumbnail.map(|t| decode("thumbnail", &t)).transpose()?;
        let Self { by_lid, held, reply_to, ephemeral_seconds, .. } = self;
        Ok((self.what.read()?, SendOptions { by_lid, reply_to, ephemeral_seconds, thumbnail, held }))
    }
}

impl What {
    fn read(self) -> Result<Content, Failure> {
        Ok(match self {
            Self::Text { text } => Content::Text(text),
            Self::Reaction { message_id, emoji } => Content::Reaction { message_id, emoji },
            Self::Edit { message_id, text } => Content::Edit { message_id, text },
            Self::Revoke { message_id } => Content::Revoke { message_id },
            Self::Poll { question, options } => Content::Poll { question, options },
            Self::Vote { message_id, options } => Content::Vote { message_id, options },
            Self::Medium { medium, data, mimetype, caption, view_once } => {
                let data = decode("data", &data)?;
                Content::Medium { kind: medium.into(), data, mimetype, caption, view_once }
            }
            Self::Location { latitude_micro, longitude_micro, name } => {
                Content::Location { latitude_micro, longitude_micro, name }
            }
            Self::Contact { name, number } => Content::Contact { name, number },
            Self::Disappearing { seconds } => Content::Disappearing { seconds },
        })
    }
}

fn decode(key: &str, text: &str) -> Result<Bytes, Failure> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| Failure::bad(format!("`{key}` is not base64")))?;
    Ok(bytes.into())
}

/// A status and who sees it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Status {
    pub(super) content: Sent,
    pub(super) to: Vec<String>,
}

/// Members that come or go.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Members {
    pub(super) members: Vec<String>,
}
