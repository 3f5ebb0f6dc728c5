//! What a phone sends, as JSON.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::answer::Failure;
use crate::phones::{Content, MediumKind};

/// The JSON of a [`Content`].
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Sent {
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
    Medium {
        medium: Medium,
        data: String,
        mimetype: String,
        #[serde(default)]
        caption: Option<String>,
        #[serde(default)]
        view_once: bool,
    },
}

/// The JSON of a [`MediumKind`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Medium {
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

impl TryFrom<Sent> for Content {
    type Error = Failure;

    fn try_from(sent: Sent) -> Result<Self, Failure> {
        Ok(match sent {
            Sent::Text { text } => Self::Text(text),
            Sent::Reaction { message_id, emoji } => Self::Reaction { message_id, emoji },
            Sent::Edit { message_id, text } => Self::Edit { message_id, text },
            Sent::Revoke { message_id } => Self::Revoke { message_id },
            Sent::Poll { question, options } => Self::Poll { question, options },
            Sent::Medium { medium, data, mimetype, caption, view_once } => {
                let data = BASE64_STANDARD.decode(data).map_err(|_| Failure::bad("`data` is not base64"))?;
                Self::Medium { kind: medium.into(), data: data.into(), mimetype, caption, view_once }
            }
        })
    }
}

/// A new group.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewGroup {
    pub(super) subject: String,
    pub(super) members: Vec<String>,
}

/// Members that come or go.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Members {
    pub(super) members: Vec<String>,
}
