//! What the admin port answers: text, JSON, bytes, or a refusal with its status.

use bytes::Bytes;
use serde::Serialize;
use warp::http::header::CONTENT_TYPE;
use warp::http::{Response, StatusCode};

use crate::error::PhoneError;

/// A refusal: a status and why.
pub(super) struct Failure(pub(super) StatusCode, pub(super) String);

impl Failure {
    /// The request makes no sense.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }

    /// `{"message": ...}`.
    pub(super) fn response(self) -> Response<Bytes> {
        let body = serde_json::json!({ "message": self.1 }).to_string();
        respond(self.0, "application/json", body)
    }
}

impl From<PhoneError> for Failure {
    fn from(error: PhoneError) -> Self {
        let status = match error {
            PhoneError::UnknownNumber(_)
            | PhoneError::UnknownDevice(_)
            | PhoneError::UnknownMessage(_)
            | PhoneError::UnknownReference
            | PhoneError::NoPendingCode => StatusCode::NOT_FOUND,
            PhoneError::TooManyDevices(_) => StatusCode::CONFLICT,
            PhoneError::Timeout(_) => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

/// What every route gives.
pub(super) type Answer = Result<Response<Bytes>, Failure>;

/// A response with a content type.
pub(super) fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let kind = warp::http::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Plain text.
pub(super) fn text(body: impl Into<Bytes>) -> Response<Bytes> {
    respond(StatusCode::OK, "text/plain; charset=utf-8", body)
}

/// JSON.
pub(super) fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => Ok(respond(StatusCode::OK, "application/json", body)),
        Err(e) => Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())),
    }
}

/// It was done, and there is nothing to say.
pub(super) fn done() -> Response<Bytes> {
    text("ok")
}

/// No such route or thing.
pub(super) fn not_found() -> Failure {
    Failure(StatusCode::NOT_FOUND, "not found".into())
}
