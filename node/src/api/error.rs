//! From the errors of services and filters to the errors of the API.

use super::reply;
use crate::{
    media::Problem,
    session::{MediaError, SendError, SessionError},
};
use rookery_protocol::{ApiError, ErrorCode, SessionId};
use rookery_storage::StoreError;
use std::{convert::Infallible, time::Duration};
use warp::{
    Rejection,
    reject::{self, Reject},
    reply::Response,
};

/// When to try again after a lack of room.
const SOON: Duration = Duration::from_secs(1);
/// When to try again after a failure of something we depend on.
const LATER: Duration = Duration::from_secs(5);

/// An API error as a rejection of a filter.
#[derive(Debug)]
pub(super) struct Refused(pub ApiError);

impl Reject for Refused {}

/// What no route took.
pub(super) async fn from_rejection(rejection: Rejection) -> Result<Response, Infallible> {
    let error = if let Some(Refused(error)) = rejection.find() {
        error.clone()
    } else if rejection.find::<reject::MethodNotAllowed>().is_some() {
        ApiError::new(ErrorCode::MethodNotAllowed, "The method is not allowed for this path.")
    } else if rejection.is_not_found() {
        ApiError::new(ErrorCode::NotFound, "There is no such path.")
    } else {
        ApiError::new(ErrorCode::MalformedRequest, "The request cannot be read.")
    };
    Ok(reply::error(error))
}

/// An error of the store.
pub(super) fn from_store(error: &StoreError) -> ApiError {
    match error {
        StoreError::Overloaded => ApiError::new(ErrorCode::Unavailable, "The store is overloaded.").retry_after(SOON),
        StoreError::Frozen { written: false } => {
            ApiError::new(ErrorCode::Unavailable, "This node may not act now.").retry_after(SOON)
        }
        StoreError::Unavailable(_)
        | StoreError::ClaimLost { .. }
        | StoreError::Fenced { .. }
        | StoreError::Spent { .. } => {
            tracing::warn!(%error, "store refused a request");
            ApiError::new(ErrorCode::Unavailable, "The store is unavailable.").retry_after(LATER)
        }
        StoreError::NotFound(_) => ApiError::new(ErrorCode::SessionNotFound, "There is no such session."),
        StoreError::Engine(_) | StoreError::Frozen { written: true } => {
            tracing::error!(%error, "store failed");
            ApiError::new(ErrorCode::DeadlineExceeded, "The store failed; whether the change was made is not known.")
        }
        StoreError::Corrupt { .. } | StoreError::Locked { .. } | StoreError::Refused(_) => {
            tracing::error!(%error, "stored data is not as it should be");
            ApiError::new(ErrorCode::Internal, "Stored data is not as it should be.")
        }
    }
}

/// An error of a session.
pub(super) fn from_session(error: SessionError) -> ApiError {
    match error {
        SessionError::NotFound => ApiError::new(ErrorCode::SessionNotFound, "There is no such session."),
        SessionError::Elsewhere(session) => ApiError::elsewhere(session),
        SessionError::Closing => {
            ApiError::new(ErrorCode::Unavailable, "The session is not available on this node now.").retry_after(SOON)
        }
        SessionError::TooMany => {
            ApiError::new(ErrorCode::TooManyRequests, "The user has too many sessions.").retry_after(LATER)
        }
        SessionError::State(why) => ApiError::new(ErrorCode::SessionState, capitalised(why)),
        SessionError::NotConnected => {
            let text = "The session has to be connected for this, and is about to be.";
            ApiError::new(ErrorCode::WhatsappUnavailable, text).retry_after(LATER)
        }
        SessionError::Whatsapp(why) => {
            ApiError::new(ErrorCode::WhatsappUnavailable, format!("WhatsApp did not answer as expected: {why}."))
                .retry_after(LATER)
        }
        SessionError::Store(error) => from_store(&error),
    }
}

/// An error of a send: it was certainly not accepted.
pub(super) fn from_send(session: SessionId, error: &SendError) -> ApiError {
    match error {
        SendError::QueueFull => {
            let text = "Too many messages of this session are waiting to be sent.";
            ApiError::new(ErrorCode::TooManyRequests, text).retry_after(LATER)
        }
        SendError::TooFast(wait) => {
            ApiError::new(ErrorCode::TooManyRequests, "The session sends too fast.").retry_after(*wait)
        }
        SendError::IdempotencyConflict => {
            let text = "The Idempotency-Key was used for another request.";
            ApiError::new(ErrorCode::IdempotencyConflict, text)
        }
        // Stopped here a moment ago; it may run elsewhere by now.
        SendError::Closed => ApiError::elsewhere(session),
        SendError::Store(error) => from_store(error),
    }
}

/// A file that a caller wants sent was not taken: certainly nothing was accepted.
pub(super) fn from_problem(problem: Problem) -> ApiError {
    match problem {
        Problem::Field(field, why) => ApiError::field(field, why),
        Problem::Host(why) => ApiError::new(ErrorCode::MediaFetchFailed, capitalised(&why)),
        Problem::TooLarge(limit) => {
            ApiError::new(ErrorCode::PayloadTooLarge, format!("The file is larger than {limit} bytes."))
        }
        Problem::Busy(text) => ApiError::new(ErrorCode::TooManyRequests, text).retry_after(LATER),
        Problem::Node(error) => from_disk(&error),
    }
}

/// The file of a stored message cannot be given.
pub(super) fn from_media(error: MediaError) -> ApiError {
    match error {
        MediaError::Session(error) => from_session(error),
        MediaError::Gone => {
            let text = "Neither WhatsApp nor the phone gave the file: it has expired.";
            ApiError::new(ErrorCode::MediaGone, text)
        }
        MediaError::Disk(error) => from_disk(&error),
    }
}

fn from_disk(error: &std::io::Error) -> ApiError {
    tracing::error!(%error, "a file could not be kept");
    ApiError::new(ErrorCode::Unavailable, "The node cannot keep files now.").retry_after(LATER)
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}
