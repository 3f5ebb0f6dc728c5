//! Answers.

use rookery_protocol::ApiError;
use serde::Serialize;
use warp::{
    http::{HeaderValue, StatusCode, header},
    reply::Response,
};

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

/// Gives an error its body and every answer its request id.
pub(super) fn finish(response: Response, request_id: &str) -> Response {
    let mut response = response;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let route = response.extensions().get::<Route>().copied();
        response = match super::auth::fixed_body(&error) {
            Some(body) => bytes(status(&error), "application/json", body),
            None => json(status(&error), &error.body(request_id)),
        };
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
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
