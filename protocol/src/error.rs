//! Errors as a caller of the API sees them: one code, one HTTP status each, one body.

use crate::SessionId;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};
use utoipa::ToSchema;

/// What is wrong, for programs. Stable: a code is never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The body is no JSON, or a header or the path cannot be read.
    MalformedRequest,
    /// No token, or one that is unknown or revoked.
    Unauthorized,
    /// No such path.
    NotFound,
    /// No such session, or one of another user.
    SessionNotFound,
    /// No such message in this session.
    MessageNotFound,
    /// The message has no file that could be fetched.
    MediaNotFound,
    /// There is no profile picture, or none that the account may see.
    PictureNotFound,
    /// No such token of this user.
    TokenNotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The same idempotency key was used with another body.
    IdempotencyConflict,
    /// No QR code is due: the session is linked, stopped, or the code has not come yet.
    QrNotAvailable,
    /// The session's state does not allow what was asked.
    SessionState,
    /// Neither WhatsApp nor the phone has the message's file any more.
    MediaGone,
    /// The body, or the file that is asked for, is larger than allowed.
    PayloadTooLarge,
    /// The body's content type is not the one expected.
    UnsupportedMediaType,
    /// The file has none of the bytes that are asked for.
    RangeNotSatisfiable,
    /// One or more fields are not valid; `errors` names them.
    ValidationFailed,
    /// WhatsApp refused the message for good.
    Rejected,
    /// A limit is reached; try again later.
    TooManyRequests,
    /// A defect of ours.
    Internal,
    /// The host that a URL of the request leads to could not be reached, failed or broke off; certainly not done.
    MediaFetchFailed,
    /// Certainly not done: the service cannot take the request now.
    Unavailable,
    /// WhatsApp refused or could not be reached; certainly not done.
    WhatsappUnavailable,
    /// The outcome was not known in time.
    DeadlineExceeded,
}

impl ErrorCode {
    /// The one table from code to HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::MalformedRequest => 400,
            Self::Unauthorized => 401,
            Self::NotFound
            | Self::SessionNotFound
            | Self::MessageNotFound
            | Self::MediaNotFound
            | Self::PictureNotFound
            | Self::TokenNotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::IdempotencyConflict | Self::QrNotAvailable | Self::SessionState => 409,
            Self::MediaGone => 410,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::RangeNotSatisfiable => 416,
            Self::ValidationFailed | Self::Rejected => 422,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::MediaFetchFailed => 502,
            Self::Unavailable | Self::WhatsappUnavailable => 503,
            Self::DeadlineExceeded => 504,
        }
    }
}

/// Field name to what is wrong with it.
pub type FieldErrors = BTreeMap<Cow<'static, str>, Vec<String>>;

/// An error on its way to a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// What is wrong, for programs.
    pub code: ErrorCode,
    /// What is wrong, for people. Holds no secret and no message text.
    pub message: Cow<'static, str>,
    /// The fields that are not valid.
    pub errors: FieldErrors,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The session that runs on another node, which has to answer instead. Never shown to a caller.
    pub elsewhere: Option<SessionId>,
}

impl ApiError {
    /// An error with this code and text.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), errors: FieldErrors::new(), retry_after: None, elsewhere: None }
    }

    /// Nothing was done: this session runs on another node.
    pub fn elsewhere(session: SessionId) -> Self {
        let error = Self::new(ErrorCode::Unavailable, "The session is not available on this node now.")
            .retry_after(Duration::from_secs(1));
        Self { elsewhere: Some(session), ..error }
    }

    /// One field is not valid.
    pub fn field(field: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> Self {
        let errors = FieldErrors::from([(field.into(), vec![problem.into()])]);
        Self::fields(errors)
    }

    /// Several fields are not valid.
    pub fn fields(errors: FieldErrors) -> Self {
        Self { errors, ..Self::new(ErrorCode::ValidationFailed, "The given data was invalid.") }
    }

    /// The same error with the advice to try again after `delay`.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The same error with the name of a field that it is about.
    #[must_use]
    pub fn naming(mut self, field: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> Self {
        self.errors.entry(field.into()).or_default().push(problem.into());
        self
    }

    /// The body for the request with this id.
    pub fn body(&self, request_id: &str) -> ErrorBody {
        ErrorBody {
            message: self.message.clone().into_owned(),
            code: self.code,
            request_id: request_id.to_owned(),
            errors: (!self.errors.is_empty()).then(|| self.errors.clone()),
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// The JSON of every error but the two 401 bodies, which the contract fixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong, for people.
    pub message: String,
    /// What is wrong, for programs.
    pub code: ErrorCode,
    /// The id under which the request stands in the logs.
    pub request_id: String,
    /// The fields that are not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Vec<String>>>)]
    pub errors: Option<FieldErrors>,
}

/// The JSON of a 401, which the contract fixes to the letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unauthorized {
    /// `Unauthorized - No Bearer Token` or `Unauthorized - Invalid Bearer Token`.
    pub message: String,
}
