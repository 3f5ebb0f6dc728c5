//! Answers.

use bytes::Bytes;
use futures_util::{FutureExt, Stream, stream};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use rookery_protocol::{ApiError, ErrorCode};
use serde::Serialize;
use std::{fs::File, io, os::unix::fs::FileExt, panic::AssertUnwindSafe, sync::Arc};
use tokio::time::Instant;
use warp::{
    http::{HeaderValue, StatusCode, header},
    reply::Response,
};

/// How much of a file is in memory at a time, for each answer.
const CHUNK_BYTES: usize = 128 << 10;

/// The name of the route that made an answer, for metrics and logs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route(pub &'static str);

/// A JSON answer.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("our bodies have string keys only");
    bytes(status, "application/json", body)
}

/// An answer of some other type.
pub(super) fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<hyper::body::Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

/// A part of a file, as the body of an answer.
#[derive(Clone, Debug)]
pub(super) struct FilePart {
    /// The file, read by position.
    pub file: Arc<File>,
    /// Where the part begins.
    pub start: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// An answer whose body is a part of a file. The body is put in its place by [`sendable`].
pub(super) fn file(status: StatusCode, part: FilePart) -> Response {
    let mut response = empty(status);
    response.headers_mut().insert(header::CONTENT_LENGTH, part.length.into());
    response.extensions_mut().insert(part);
    response
}

/// The body of an answer on the wire.
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An answer as the server sends it.
pub(super) fn sendable(response: Response) -> warp::http::Response<Body> {
    let (mut head, body) = response.into_parts();
    let body = match head.extensions.remove::<FilePart>() {
        Some(part) => StreamBody::new(part.chunks()).map_err(BoxError::from).boxed_unsync(),
        None => body.map_err(BoxError::from).boxed_unsync(),
    };
    warp::http::Response::from_parts(head, body)
}

impl FilePart {
    /// The bytes, a chunk at a time.
    fn chunks(self) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send {
        stream::unfold(self, |mut part| async move {
            let length = usize::try_from(part.length).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            if length == 0 {
                return None;
            }
            let (file, start) = (Arc::clone(&part.file), part.start);
            let reading = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; length];
                file.read_exact_at(&mut chunk, start)?;
                Ok(Frame::data(Bytes::from(chunk)))
            });
            let chunk = reading.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            part.start += length as u64;
            // After an error there is no more.
            part.length = if chunk.is_ok() { part.length - length as u64 } else { 0 };
            Some((chunk, part))
        })
    }
}

/// An error on its way to [`finish`].
pub(super) fn error(error: ApiError) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status(&error);
    response.extensions_mut().insert(error);
    response
}

fn status(error: &ApiError) -> StatusCode {
    StatusCode::from_u16(error.code.status()).expect("the table holds valid statuses")
}

/// A handler's answer, or what stands in for it when the handler panics or is not done by the deadline.
pub(super) async fn in_time(deadline: Instant, handler: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout_at(deadline, AssertUnwindSafe(handler).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!("a handler panicked");
            error(ApiError::new(ErrorCode::Internal, "An internal error occurred."))
        }
        Err(_) => {
            let text = "The request took too long; its outcome is not known.";
            error(ApiError::new(ErrorCode::DeadlineExceeded, text))
        }
    }
}

/// Gives an error its body and every answer its request id.
pub(super) fn finish(response: Response, request_id: &str) -> Response {
    let mut response = response;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let route = response.extensions().get::<Route>().copied();
        let headers = std::mem::take(response.headers_mut());
        response = match super::auth::fixed_body(&error) {
            Some(body) => bytes(status(&error), "application/json", body),
            None => json(status(&error), &error.body(request_id)),
        };
        response.headers_mut().extend(headers);
        if let Some(delay) = error.retry_after {
            let seconds = delay.as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(route) = route {
            response.extensions_mut().insert(route);
        }
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
