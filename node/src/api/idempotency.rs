//! `Idempotency-Key`: which requests are the same. The one place that says what a key stands for.
//!
//! Keys and requests are kept as hashes. A request is what makes its message what it is; how long its caller waits is
//! no part of it.

use crate::session::digest;
use rookery_protocol::{ApiError, Jid, SessionId, api::MessageType};
use std::time::Duration;
use warp::http::HeaderMap;

/// The hash of a key, and that of the request it stands for.
pub(super) type Idempotency = ([u8; 32], [u8; 32]);

/// A caller's key.
#[derive(Clone, Debug)]
pub(super) struct Key(String);

/// What a key stands for.
pub(super) struct Meaning<'a> {
    pub session: SessionId,
    pub chat: &'a Jid,
    pub typing: Duration,
    pub says: Says<'a>,
}

/// What a message says.
pub(super) enum Says<'a> {
    /// A text.
    Text(&'a str),
    /// A file.
    File {
        kind: MessageType,
        caption: Option<&'a str>,
        /// The name that the caller gives it: in a field, or with the upload.
        name: Option<&'a str>,
        source: Source<'a>,
    },
}

/// Where a file comes from. What a URL leads to is not looked at: it may be gone when the request is repeated.
pub(super) enum Source<'a> {
    /// From a URL.
    Url(&'a str),
    /// It was uploaded; its SHA-256.
    Upload(&'a [u8; 32]),
}

impl Key {
    /// The key of a request, if it has one: 1 to 255 printable characters.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let mut values = headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else { return Ok(None) };
        match value.to_str() {
            Ok(key) if (1..=255).contains(&key.len()) && values.next().is_none() => Ok(Some(Self(key.to_owned()))),
            _ => Err(ApiError::field("Idempotency-Key", "must be given once and have 1 to 255 printable characters")),
        }
    }

    /// The key and what it stands for, as they are kept. Keys of one session mean nothing in another.
    pub(super) fn stands_for(&self, meaning: &Meaning<'_>) -> Idempotency {
        (digest(&[meaning.session.as_bytes(), self.0.as_bytes()]), meaning.hash())
    }
}

impl Meaning<'_> {
    fn hash(&self) -> [u8; 32] {
        let typing = self.typing.as_millis().to_be_bytes();
        let common: [&[u8]; 3] = [self.session.as_bytes(), self.chat.as_str().as_bytes(), &typing];
        match &self.says {
            Says::Text(text) => {
                let text: [&[u8]; 2] = [b"text", text.as_bytes()];
                digest(&[&common[..], &text].concat())
            }
            Says::File { kind, caption, name, source } => {
                let (caption, name) = (optional(*caption), optional(*name));
                let (way, what): (&[u8], &[u8]) = match source {
                    Source::Url(url) => (b"url", url.as_bytes()),
                    Source::Upload(sha256) => (b"upload", &sha256[..]),
                };
                let file: [&[u8]; 6] = [b"file", kind.as_str().as_bytes(), &caption, &name, way, what];
                digest(&[&common[..], &file].concat())
            }
        }
    }
}

/// An empty text is another than none.
fn optional(text: Option<&str>) -> Vec<u8> {
    text.map_or(vec![], |text| [&[1], text.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn whatever_makes_another_message_makes_another_request() {
        let (session, other) = (SessionId::generate(), SessionId::generate());
        let chats: [Jid; 2] = ["15550001@s.whatsapp.net".parse().unwrap(), "15550002@s.whatsapp.net".parse().unwrap()];
        let hash = |session, chat, typing, says| Meaning { session, chat, typing, says }.hash();
        let text = || Says::Text("x");
        let (none, some) = (Duration::ZERO, Duration::from_millis(1));
        let file = |kind, caption, name, source| {
            let says = Says::File { kind, caption, name, source };
            hash(session, &chats[0], none, says)
        };
        let url = || Source::Url("data:,x");
        let (image, document) = (MessageType::Image, MessageType::Document);
        let hashes = [
            hash(session, &chats[0], none, text()),
            hash(other, &chats[0], none, text()),
            hash(session, &chats[1], none, text()),
            hash(session, &chats[0], some, text()),
            hash(session, &chats[0], none, Says::Text("y")),
            file(image, None, None, url()),
            file(document, None, None, url()),
            file(image, Some(""), None, url()),
            file(image, Some("x"), None, url()),
            file(image, None, Some("x"), url()),
            file(image, None, None, Source::Url("data:,y")),
            file(image, None, None, Source::Upload(&[1; 32])),
            file(image, None, Some("x"), Source::Upload(&[1; 32])),
        ];
        assert_eq!(HashSet::from(hashes).len(), hashes.len());
        assert_eq!(hash(session, &chats[0], none, text()), hashes[0]);
    }
}
