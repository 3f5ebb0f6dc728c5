//! The media host: uploads that may be resumed, downloads of a whole medium or a range of it.
//!
//! Errors are `{"message": ...}`: 401 for a wrong authorization, 404 for what never was there, 410 for what
//! has expired, 413, 416, and 400 for an upload that is not what its name, the hash, says.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use sha2::Digest;
use warp::http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE};
use warp::http::{HeaderValue, Method, Response, StatusCode};

use super::{AUTH, Found, PATH, UPLOAD_PATH, direct_path, url};
use crate::account::lock;
use crate::faults::MediaFault;
use crate::world::World;

/// A request to the media host.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) query: &'a HashMap<String, String>,
    /// The header `Range`.
    pub(crate) range: Option<&'a str>,
}

/// A refusal.
type Failure = (StatusCode, &'static str);
type Answer = Result<Response<Bytes>, Failure>;

/// Whether a path is the media host's.
pub(crate) fn is_media(path: &str) -> bool {
    path.starts_with(UPLOAD_PATH) || path.starts_with(PATH)
}

/// Answers a request. The host may be down, slow or lying.
pub(crate) async fn answer(
    world: &Arc<World>,
    request: &Request<'_>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Response<Bytes> {
    let fault = world.faults.media();
    let answer = match fault {
        Some(MediaFault::Down) => Err((StatusCode::SERVICE_UNAVAILABLE, "the media host is down")),
        Some(MediaFault::Slow(pause)) => {
            tokio::time::sleep(pause).await;
            route(world, request, body, false).await
        }
        Some(MediaFault::Lying) => route(world, request, body, true).await,
        None => route(world, request, body, false).await,
    };
    answer.unwrap_or_else(|(status, message)| {
        world.stats.count(&format!("media {}", status.as_u16()));
        respond(status, "application/json", serde_json::json!({ "message": message }).to_string())
    })
}

async fn route(
    world: &Arc<World>,
    request: &Request<'_>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    lying: bool,
) -> Answer {
    let name = request.path.rsplit('/').next().filter(|n| !n.is_empty());
    let name = name.ok_or((StatusCode::NOT_FOUND, "not found"))?;
    let upload = request.path.starts_with(UPLOAD_PATH);
    match request.method.as_str() {
        "POST" if upload && request.query.contains_key("resume") => Ok(progress(world, name)),
        "POST" if upload => receive(world, request, name, body).await,
        "GET" | "HEAD" if !upload => download(world, request, name, lying),
        // Clients delete history when they have it.
        "DELETE" if !upload => {
            lock(&world.media).remove(name);
            Ok(respond(StatusCode::OK, "application/json", "{}"))
        }
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, "no such method")),
    }
}

/// How much of a medium there is, for a client whose upload broke off or who may not have to upload at all.
fn progress(world: &World, name: &str) -> Response<Bytes> {
    let answer = match lock(&world.media).find(name) {
        Found::Whole(_) => stored(world, name, Some("complete")),
        Found::Part(part) => serde_json::json!({ "resume": part.len().to_string() }),
        Found::Expired | Found::Nothing => serde_json::json!({ "resume": "0" }),
    };
    respond(StatusCode::OK, "application/json", answer.to_string())
}

fn stored(world: &World, name: &str, resume: Option<&str>) -> serde_json::Value {
    let mut answer = serde_json::json!({ "url": url(world, name), "direct_path": direct_path(name) });
    if let Some(resume) = resume {
        answer["resume"] = resume.into();
    }
    answer
}

/// A medium on its way. What has come of it is kept when the connection breaks.
struct Upload<'a> {
    world: &'a World,
    name: &'a str,
    bytes: BytesMut,
    done: bool,
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if !self.done && !self.bytes.is_empty() {
            self.world.stats.count("upload broken off");
            let mut media = lock(&self.world.media);
            if !matches!(media.find(self.name), Found::Whole(_)) {
                media.put(self.name, self.bytes.split().freeze(), false);
            }
        }
    }
}

async fn receive(
    world: &Arc<World>,
    request: &Request<'_>,
    name: &str,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Answer {
    if request.query.get("auth").is_some_and(|auth| auth != AUTH) {
        return Err((StatusCode::UNAUTHORIZED, "the authorization is wrong or has expired"));
    }
    let limit = usize::try_from(world.config.limits.media_bytes).unwrap_or(usize::MAX);
    let offset = request.query.get("file_offset").and_then(|o| o.parse().ok()).unwrap_or(0);
    let mut upload = Upload { world, name, bytes: BytesMut::new(), done: false };
    if offset > 0 {
        match lock(&world.media).find(name) {
            Found::Part(part) if part.len() >= offset => upload.bytes.extend_from_slice(&part[..offset]),
            _ => return Err((StatusCode::BAD_REQUEST, "there is no such part to go on from")),
        }
    }
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| (StatusCode::BAD_REQUEST, "the upload broke off"))?;
        if upload.bytes.len() + chunk.remaining() > limit {
            upload.done = true;
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "too large"));
        }
        upload.bytes.extend_from_slice(chunk.chunk());
    }
    upload.done = true;
    let data = upload.bytes.split().freeze();
    if hash_in(name).is_some_and(|hash| *sha2::Sha256::digest(&data) != hash) {
        return Err((StatusCode::BAD_REQUEST, "the upload has another hash than its name says"));
    }
    if !super::store(world, name, data) {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, "too large"));
    }
    Ok(respond(StatusCode::OK, "application/json", stored(world, name, None).to_string()))
}

/// The hash that a client names its upload by, in one of the forms of base64 that clients use.
fn hash_in(name: &str) -> Option<[u8; 32]> {
    let plain = name.replace("%3D", "").replace("%2B", "-").replace("%2F", "_").replace("%3d", "");
    let plain = plain.trim_end_matches('=').replace('+', "-");
    BASE64_URL_SAFE_NO_PAD.decode(plain).ok()?.try_into().ok()
}

fn download(world: &World, request: &Request<'_>, name: &str, lying: bool) -> Answer {
    let mut medium = match lock(&world.media).find(name) {
        Found::Whole(medium) => medium,
        Found::Expired => return Err((StatusCode::GONE, "expired")),
        Found::Part(_) | Found::Nothing => return Err((StatusCode::NOT_FOUND, "not found")),
    };
    if lying {
        medium = medium.iter().map(|byte| !byte).collect::<Vec<_>>().into();
    }
    let kind = "application/octet-stream";
    let length = medium.len();
    let mut response = match request.range.map_or(Wanted::All, |r| Wanted::read(r, length)) {
        Wanted::All => respond(StatusCode::OK, kind, medium),
        Wanted::Nothing => {
            let mut refusal = respond(StatusCode::RANGE_NOT_SATISFIABLE, kind, "");
            header(&mut refusal, &format!("bytes */{length}"));
            return Ok(refusal);
        }
        Wanted::Part(range) => {
            let shown = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            let mut part = respond(StatusCode::PARTIAL_CONTENT, kind, medium.slice(range));
            header(&mut part, &shown);
            part
        }
    };
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

fn header(response: &mut Response<Bytes>, range: &str) {
    let range = HeaderValue::from_str(range).expect("numbers are a header");
    response.headers_mut().insert(CONTENT_RANGE, range);
}

/// What a header `Range` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// The whole medium, also when the header cannot be read.
    All,
    /// Some of its bytes.
    Part(Range<usize>),
    /// Bytes that it does not have.
    Nothing,
}

impl Wanted {
    fn read(header: &str, length: usize) -> Self {
        let Some((first, last)) = header.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
            return Self::All;
        };
        let range = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(length),
            (Ok(first), Err(_)) if last.is_empty() => first..length,
            (Err(_), Ok(last)) if first.is_empty() => length.saturating_sub(last)..length,
            _ => return Self::All,
        };
        if range.start < range.end { Self::Part(range) } else { Self::Nothing }
    }
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_medium() {
        let read = |header| Wanted::read(header, 10);
        assert_eq!(read("bytes=0-3"), Wanted::Part(0..4));
        assert_eq!(read("bytes=4-"), Wanted::Part(4..10));
        assert_eq!(read("bytes=-3"), Wanted::Part(7..10));
        assert_eq!(read("bytes=8-99"), Wanted::Part(8..10));
        assert_eq!(read("bytes=10-"), Wanted::Nothing);
        for nonsense in ["bytes=a-b", "items=0-1", "bytes=3-1", "bytes=0-1,3-4", "bytes=-"] {
            assert_eq!(read(nonsense), Wanted::All, "{nonsense}");
        }
    }

    #[test]
    fn a_name_may_be_a_hash() {
        let hash = [0xfb; 32];
        for name in [BASE64_URL_SAFE_NO_PAD.encode(hash), format!("{}%3D", BASE64_URL_SAFE_NO_PAD.encode(hash))] {
            assert_eq!(hash_in(&name), Some(hash));
        }
        assert_eq!(hash_in("medium-7"), None);
    }
}
