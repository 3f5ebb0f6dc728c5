//! Requests for sessions that run elsewhere: asks their owners.
//!
//! Where a session was found last is remembered for a while; whoever is asked knows better and says so, and then the
//! owner's row is read again. Nothing is decided here: the claim of that row decides.

use super::{heart::Heart, links::Links};
use crate::api::{Outcome, Relay, Relayed};
use async_trait::async_trait;
use rookery_cluster::{
    claim::Decision,
    link::{CallError, NotSent},
};
use rookery_protocol::{
    NodeId, SessionId,
    cluster::{Call, FailureKind, Forwarded, Header, HttpReply, Principal, Reply, Request},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use warp::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    reply::Response,
};

/// How long an owner that was found is asked without reading the row again.
const REMEMBERED: Duration = Duration::from_secs(30);
/// How many owners are remembered.
const MOST: usize = 100_000;

/// The way to the owners of sessions.
pub(crate) struct Owners {
    heart: Arc<Heart>,
    links: Links,
    found: Mutex<HashMap<SessionId, (NodeId, Instant)>>,
}

impl Owners {
    pub(super) fn new(heart: Arc<Heart>, links: Links) -> Self {
        Self { heart, links, found: Mutex::default() }
    }

    async fn find(&self, session: SessionId) -> Option<Decision> {
        let remembered = {
            let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.get(&session).filter(|(_, at)| at.elapsed() < REMEMBERED).map(|(node, _)| node.clone())
        };
        if let Some(node) = remembered {
            return Some(Decision::Forward(node));
        }
        let found = match self.heart.find(session).await {
            Ok(found) => found?,
            Err(error) => {
                tracing::warn!(%session, %error, "the owner of a session could not be read");
                return None;
            }
        };
        if let Decision::Forward(node) = &found {
            self.remember(session, node.clone());
        }
        Some(found)
    }

    fn remember(&self, session: SessionId, node: NodeId) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= MOST {
            found.retain(|_, (_, at)| at.elapsed() < REMEMBERED);
        }
        if found.len() < MOST {
            found.insert(session, (node, Instant::now()));
        }
    }

    fn forget(&self, session: SessionId) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    }
}

#[async_trait]
impl Relay for Owners {
    async fn relay(&self, request: &Relayed) -> Outcome {
        let session = request.session;
        let node = match self.find(session).await {
            Some(Decision::Claim | Decision::Serve(_) | Decision::Stop) => return Outcome::Here,
            Some(Decision::Forward(node)) => node,
            Some(Decision::Wait(_)) | None => return Outcome::NotNow,
        };
        match self.links.call(&node, call(request)).await {
            Ok(Reply::Http(reply)) => {
                metrics::counter!(crate::metrics::FORWARDED, "outcome" => "answered").increment(1);
                Outcome::Answer(response(reply))
            }
            Ok(Reply::Failed(failure)) if failure.kind == FailureKind::ReplyTooLarge => Outcome::TooLarge,
            Err(CallError::NotSent(NotSent::TooLarge)) => Outcome::TooLarge,
            other => {
                metrics::counter!(crate::metrics::FORWARDED, "outcome" => "again").increment(1);
                tracing::debug!(%session, %node, ?other, "the owner did not answer");
                self.forget(session);
                Outcome::NotNow
            }
        }
    }
}

/// The request in the form in which nodes hand it on.
fn call(request: &Relayed) -> Call {
    let left = request.deadline.saturating_duration_since(tokio::time::Instant::now());
    let id = request.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let forwarded = Forwarded {
        session: Some(request.session),
        principal: Principal::User(request.user),
        method: request.method.to_string(),
        path: request.uri.to_string(),
        headers: passed_on(&request.headers),
        body: request.body.clone(),
        hops: 1,
    };
    let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
    Call { request_id: id.to_owned(), deadline_ms, request: Request::Http(forwarded) }
}

/// Headers in the form in which nodes hand them on.
pub(super) fn passed_on(headers: &HeaderMap) -> Vec<Header> {
    headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec().into())).collect()
}

/// The owner's answer as this node gives it.
fn response(reply: HttpReply) -> Response {
    let mut response = Response::new(reply.body.into());
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in reply.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_maybe_shared(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
