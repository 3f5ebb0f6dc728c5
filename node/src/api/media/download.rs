//! `GET …/messages/{message}/media`: the decrypted file of a message, whole or a range of it.
//!
//! What a stranger sent must not become a page of ours: it is always a download, of the type its sender gave or of
//! none, and no browser may guess.

use super::{
    super::{
        Api,
        body::Incoming,
        error::{from_media, from_session},
        messages::{message_id, no_message},
        openapi::FileBytes,
        reply::{self, FilePart},
        sessions::session_id,
    },
    Answer,
};
use crate::session::Found;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rookery_protocol::{ApiError, ErrorBody, ErrorCode, MessageId, SessionId, api::MessageType};
use rookery_storage::{HistoryRow, MediaFile};
use std::{fs::File, sync::Arc};
use warp::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    reply::Response,
};

const OCTETS: &str = "application/octet-stream";
/// What RFC 8187 lets stand as it is in a file name.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The file of a message.
#[utoipa::path(
    get, path = "/api/whatsapp/sessions/{session_id}/messages/{message_id}/media", tag = "Messages",
    security(("token" = [])), operation_id = "download_media",
    params(
        ("session_id" = SessionId, Path, description = "The session."),
        ("message_id" = MessageId, Path, description = "The message."),
        ("Range" = Option<String>, Header, description = "One range of bytes."),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the file that the caller has."),
    ),
    responses(
        (status = 200, description = "The file, of the type that its sender gave.", content_type = "*/*", body = FileBytes),
        (status = 206, description = "A part of it.", content_type = "*/*", body = FileBytes),
        (status = 304, description = "The caller has it."),
        (status = 404, description = "`session_not_found`, `message_not_found`, `media_not_found`", body = ErrorBody),
        (status = 409, description = "`session_state`: it is stopped, has failed or is not linked, and this node has no copy.", body = ErrorBody),
        (status = 410, description = "`media_gone`: neither WhatsApp nor the phone has it any more, or the message was taken back.", body = ErrorBody),
        (status = 413, description = "`payload_too_large`: larger than `media.max_bytes`.", body = ErrorBody),
        (status = 416, description = "`range_not_satisfiable`", body = ErrorBody),
    ),
)]
pub(super) async fn download(id: String, message: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let id = session_id(&id)?;
    let message = message_id(&message)?;
    let no_file = || ApiError::new(ErrorCode::MediaNotFound, "The message has no file that could be fetched.");
    let revoked = || ApiError::new(ErrorCode::MediaGone, "The message was taken back.");
    let (row, file) = match api.sessions.message_with_file(user, id, &message).await.map_err(from_session)? {
        Found::File(found) => *found,
        Found::NoMessage => return Err(no_message()),
        Found::NoFile => return Err(no_file()),
        Found::Revoked => return Err(revoked()),
    };
    let etag = etag(&file);
    if matches_etag(&request.headers, &header::IF_NONE_MATCH, &etag) {
        return Ok(described(reply::empty(StatusCode::NOT_MODIFIED), &row, &etag));
    }
    let largest = api.media.max_file_bytes();
    if file.length > largest {
        let text = format!("The file is larger than {largest} bytes, the largest that this node fetches.");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, text));
    }
    let opened = api.received.open(&api.sessions, id, &row, &file).await.map_err(from_media)?;
    let length = opened.metadata().map_err(|error| from_media(error.into()))?.len();
    Ok(answer(&request.headers, &row, &etag, opened, length))
}

fn answer(headers: &HeaderMap, row: &HistoryRow, etag: &str, file: File, length: u64) -> Response {
    // A range of another version of the file is of no use.
    let fresh = !headers.contains_key(header::IF_RANGE) || matches_etag(headers, &header::IF_RANGE, etag);
    let wanted = headers.get(header::RANGE).filter(|_| fresh).and_then(|range| range.to_str().ok());
    let range = wanted.map_or(Range::Whole, |range| Range::parse(range, length));
    let (status, start, end) = match range {
        Range::Whole => (StatusCode::OK, 0, length),
        Range::Part(start, end) => (StatusCode::PARTIAL_CONTENT, start, end),
        Range::Outside => {
            let text = format!("The file has {length} bytes.");
            let mut response = reply::error(ApiError::new(ErrorCode::RangeNotSatisfiable, text));
            let length = HeaderValue::try_from(format!("bytes */{length}")).expect("digits");
            response.headers_mut().insert(header::CONTENT_RANGE, length);
            return response;
        }
    };
    let part = FilePart { file: Arc::new(file), start, length: end - start };
    let mut response = described(reply::file(status, part), row, etag);
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {start}-{}/{length}", end - 1);
        response.headers_mut().insert(header::CONTENT_RANGE, HeaderValue::try_from(range).expect("digits"));
    }
    response
}

/// The headers that every answer about the file has.
fn described(mut response: Response, row: &HistoryRow, etag: &str) -> Response {
    let media = row.media.as_ref();
    let kind = media.and_then(|media| media.mime_type.as_deref()).filter(|kind| is_mime_type(kind)).unwrap_or(OCTETS);
    let name = media.and_then(|media| media.file_name.clone()).unwrap_or_else(|| name_of(row, kind));
    let fixed = [
        (header::ACCEPT_RANGES, "bytes"),
        (header::CACHE_CONTROL, "private, no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
    ];
    let headers = response.headers_mut();
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, disposition(&name)),
        (header::ETAG, etag.to_owned()),
    ] {
        headers.insert(name, HeaderValue::try_from(value).expect("checked or escaped"));
    }
    response
}

/// `type/subtype` with parameters, as ASCII without what could end the header.
fn is_mime_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim();
    let token = |part: &str| {
        let legal = |c: u8| c.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&c);
        !part.is_empty() && part.bytes().all(legal)
    };
    let printable = text.len() <= 255 && text.bytes().all(|c| (b' '..=b'~').contains(&c));
    printable && essence.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub))
}

/// A name for a file that came without one.
fn name_of(row: &HistoryRow, kind: &str) -> String {
    let extension = match kind.split(';').next().unwrap_or_default().trim() {
        "image/jpeg" => "jpg",
        "image/png" => "png",
        "image/webp" => "webp",
        "image/gif" => "gif",
        "audio/ogg" => "ogg",
        "audio/mpeg" => "mp3",
        "audio/mp4" => "m4a",
        "audio/aac" => "aac",
        "audio/amr" => "amr",
        "video/mp4" => "mp4",
        "video/3gpp" => "3gp",
        "application/pdf" => "pdf",
        _ if row.kind == MessageType::Sticker => "webp",
        _ => "bin",
    };
    format!("{}.{extension}", row.message_id)
}

/// Always a download; the name in ASCII for old clients and in full for others.
fn disposition(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._ ".contains(c) { c } else { '_' }).collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(name, NAME))
}

fn etag(file: &MediaFile) -> String {
    let hash = if file.sha256.is_empty() { file.encrypted_sha256.as_deref().unwrap_or_default() } else { &file.sha256 };
    format!("\"{}\"", hex::encode(hash))
}

fn matches_etag(headers: &HeaderMap, name: &header::HeaderName, etag: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Which bytes are asked for: from, and to (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    /// All, also when what is asked for is not understood, or is several ranges.
    Whole,
    Part(u64, u64),
    /// None that the file has.
    Outside,
}

impl Range {
    fn parse(text: &str, length: u64) -> Self {
        let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Self::Whole;
        };
        let number = |text: &str| -> Option<u64> {
            let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
            digits.then(|| text.parse().unwrap_or(u64::MAX))
        };
        match (first.trim(), last.trim()) {
            ("", suffix) => match number(suffix) {
                None => Self::Whole,
                Some(0) => Self::Outside,
                Some(_) if length == 0 => Self::Outside,
                Some(suffix) => Self::Part(length.saturating_sub(suffix), length),
            },
            (first, last) => {
                let last = if last.is_empty() { Some(u64::MAX) } else { number(last) };
                match (number(first), last) {
                    (Some(first), Some(last)) if first > last => Self::Whole,
                    (Some(first), Some(_)) if first >= length => Self::Outside,
                    (Some(first), Some(last)) => Self::Part(first, last.saturating_add(1).min(length)),
                    _ => Self::Whole,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (text, expected) in [
            ("bytes=0-0", Range::Part(0, 1)),
            ("bytes=2-", Range::Part(2, 10)),
            ("bytes=2-99", Range::Part(2, 10)),
            ("bytes=-3", Range::Part(7, 10)),
            ("bytes=-99", Range::Part(0, 10)),
            ("bytes=9-9", Range::Part(9, 10)),
            ("bytes=10-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=99999999999999999999999-", Range::Outside),
            ("bytes=5-2", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("bytes=a-b", Range::Whole),
            ("bytes=", Range::Whole),
            ("lines=1-2", Range::Whole),
        ] {
            assert_eq!(Range::parse(text, 10), expected, "{text}");
        }
        assert_eq!(Range::parse("bytes=-1", 0), Range::Outside);
    }

    #[test]
    fn a_senders_words_cannot_leave_their_header() {
        assert_eq!(
            disposition("a\"b\r\nü.pdf"),
            "attachment; filename=\"a_b___.pdf\"; filename*=UTF-8''a%22b%0D%0A%C3%BC.pdf"
        );
        for good in ["image/jpeg", "audio/ogg; codecs=opus", "application/vnd.ms-excel"] {
            assert!(is_mime_type(good), "{good}");
        }
        for bad in ["", "image", "/", "image/", "a b/c", "image/jpeg\r\nX: y", "ü/x", "text/html\0"] {
            assert!(!is_mime_type(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_within_the_file(text: String, length: u64, range in "bytes=[0-9]{0,20}-[0-9]{0,20}") {
            for text in [text, range] {
                if let Range::Part(start, end) = Range::parse(&text, length) {
                    prop_assert!(start < end && end <= length);
                }
            }
        }

        #[test]
        fn every_name_makes_a_header(name: String) {
            prop_assert!(HeaderValue::try_from(disposition(&name)).is_ok());
        }
    }
}
