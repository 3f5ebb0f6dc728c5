//! Requests whose session runs on another node.
//!
//! A handler is the first to know which session a request is about. When the session runs elsewhere it answers with
//! [`ApiError::elsewhere`] before anything has happened, and the server hands the request, as it came, to the node
//! that can answer: here by a [`Relay`], there by [`Inbound`], which runs the same routes. So every route is served
//! by every node, and no handler knows of other nodes.

use super::{Api, reply, routes};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, future::BoxFuture};
use http_body_util::{BodyExt, Full};
use rookery_protocol::{ApiError, ErrorCode, SessionId, UserId};
use std::{
    convert::Infallible,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tower_service::Service;
use warp::{
    Filter,
    http::{HeaderMap, HeaderName, Method, Request, Uri, header},
    reply::Response,
};

/// Between two tries to find the owner of a session that is on its way from one node to another.
const PAUSE: Duration = Duration::from_millis(100);
/// The largest body that is kept of those that are read as a stream, and handed on.
const MAX_STREAMED: usize = 1 << 20;
/// When to try again after no owner was found in time.
const LATER: Duration = Duration::from_secs(2);

/// The headers that an owner needs. The caller's token is none of them: it was checked where the request came in.
const PASSED: [HeaderName; 8] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::RANGE,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-request-id"),
];

/// A request on its way to the node that owns its session.
#[derive(Clone, Debug)]
pub(crate) struct Relayed {
    /// The session that it is about.
    pub session: SessionId,
    /// Who asks.
    pub user: UserId,
    /// `POST`, and so on.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// Those that matter.
    pub headers: HeaderMap,
    /// As it came.
    pub body: Bytes,
    /// When the answer is of no use any more.
    pub deadline: Instant,
}

/// What came of a try to have the owner answer.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Its answer.
    Answer(Response),
    /// This node is the owner, or may become it.
    Here,
    /// Nobody could be asked now, or the session is on its way; certainly not done.
    NotNow,
    /// It, or its answer, is larger than what nodes hand on.
    TooLarge,
}

/// The way to the other nodes.
#[async_trait]
pub(crate) trait Relay: Send + Sync {
    /// Asks the owner once. A request whose outcome is not known is asked for again with the same idempotency key,
    /// until the deadline.
    async fn relay(&self, request: &Relayed) -> Outcome;
}

/// What is learned of a request while it is handled, for the case that another node has to answer it.
#[derive(Debug, Default)]
pub(super) struct Slip {
    /// Who asks, where another node has found it out already.
    trusted: Option<UserId>,
    user: OnceLock<UserId>,
    body: OnceLock<Bytes>,
    /// What has come of a body that is read as a stream; none when it is too large to be handed on.
    streamed: Mutex<Option<BytesMut>>,
}

impl Slip {
    /// For a request of this node's own.
    fn new() -> Arc<Self> {
        Arc::new(Self { streamed: Mutex::new(Some(BytesMut::new())), ..Self::default() })
    }

    /// Keeps a part of a body that is read as a stream, as long as it is not too large.
    pub(super) fn note_part(&self, part: &[u8]) {
        let mut streamed = self.streamed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(body) = &mut *streamed {
            if body.len() + part.len() <= MAX_STREAMED {
                body.extend_from_slice(part);
            } else {
                *streamed = None;
            }
        }
    }

    /// The body, if it can be handed on.
    fn taken(&self) -> Option<Bytes> {
        if let Some(body) = self.body.get() {
            return Some(body.clone());
        }
        let streamed = self.streamed.lock().unwrap_or_else(PoisonError::into_inner);
        streamed.as_ref().map(|body| Bytes::copy_from_slice(body))
    }

    /// Who asks, by the word of another node.
    pub(super) fn trusted(&self) -> Option<UserId> {
        self.trusted
    }

    /// Notes who asks.
    pub(super) fn note_user(&self, user: UserId) {
        // Asked for twice, it is the same.
        let _ = self.user.set(user);
    }

    /// Keeps the body.
    pub(super) fn note_body(&self, body: &Bytes) {
        let _ = self.body.set(body.clone());
    }
}

/// Takes the slip of a request.
pub(super) fn slip() -> impl Filter<Extract = (Option<Arc<Slip>>,), Error = Infallible> + Clone {
    warp::ext::optional()
}

/// Answers a request through `service`, or has the owner of its session answer.
pub(super) async fn answer<S, B>(api: &Api, mut service: S, mut request: Request<B>) -> Response
where
    S: Service<Request<B>, Response = Response, Error = Infallible>
        + Service<Request<Full<Bytes>>, Response = Response, Error = Infallible>
        + Clone,
{
    let Some(relay) = &api.relay else { return call(&mut service, request).await };
    let deadline = Instant::now() + api.request_timeout.mul_f32(0.9);
    let slip = Slip::new();
    request.extensions_mut().insert(Arc::clone(&slip));
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut headers = passed(request.headers());
    let mut response = call(&mut service, request).await;
    loop {
        let Some(session) = elsewhere(&response) else { return response };
        let Some(user) = slip.user.get().copied() else { return response };
        let Some(body) = slip.taken() else { return reply::error(too_large()) };
        if method == Method::POST {
            // So that an owner which is asked again after a broken link knows what it has done already.
            headers
                .entry("idempotency-key")
                .or_insert_with(|| uuid::Uuid::new_v4().to_string().parse().expect("letters and digits"));
        }
        let relayed = Relayed {
            session,
            user,
            method: method.clone(),
            uri: uri.clone(),
            headers: headers.clone(),
            body,
            deadline,
        };
        match relay.relay(&relayed).await {
            Outcome::Answer(answer) => return answer,
            Outcome::Here => response = local(&mut service, relayed).await,
            Outcome::NotNow => {}
            Outcome::TooLarge => return reply::error(too_large()),
        }
        if elsewhere(&response).is_some() {
            if Instant::now() + PAUSE >= deadline {
                let text = "The session is on its way from one node to another.";
                return reply::error(ApiError::new(ErrorCode::Unavailable, text).retry_after(LATER));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Runs the routes for requests that other nodes hand on.
pub(crate) struct Inbound(Box<dyn Fn(Relayed) -> BoxFuture<'static, Response> + Send + Sync>);

impl Inbound {
    /// For the routes of this API.
    pub(crate) fn new(api: &Arc<Api>) -> Self {
        let service = warp::service(routes(api));
        Self(Box::new(move |request| {
            let mut service = service.clone();
            async move { local(&mut service, request).await }.boxed()
        }))
    }

    /// The answer, with its whole body; none when the session does not run here and is not to.
    pub(crate) async fn answer(&self, request: Relayed, request_id: &str) -> Option<(u16, HeaderMap, Bytes)> {
        let response = reply::in_time(request.deadline, (self.0)(request)).await;
        if elsewhere(&response).is_some() {
            return None;
        }
        let (head, body) = reply::sendable(reply::finish(response, request_id)).into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some((head.status.as_u16(), head.headers, body))
    }
}

/// Runs the routes for a request that was read already, for the user that was found out already.
async fn local<S>(service: &mut S, request: Relayed) -> Response
where
    S: Service<Request<Full<Bytes>>, Response = Response, Error = Infallible>,
{
    let mut again = Request::new(Full::new(request.body));
    *again.method_mut() = request.method;
    *again.uri_mut() = request.uri;
    *again.headers_mut() = request.headers;
    again.extensions_mut().insert(Arc::new(Slip { trusted: Some(request.user), ..Slip::default() }));
    call(service, again).await
}

async fn call<S, B>(service: &mut S, request: Request<B>) -> Response
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
{
    service.call(request).await.unwrap_or_else(|never: Infallible| match never {})
}

fn too_large() -> ApiError {
    let text = "The session is on another node, and what passes between nodes is limited: send a file above 1 MiB by its \
                media_url, and fetch one above 3 MiB in ranges.";
    ApiError::new(ErrorCode::PayloadTooLarge, text)
}

/// The session that another node has to answer for.
fn elsewhere(response: &Response) -> Option<SessionId> {
    response.extensions().get::<ApiError>().and_then(|error| error.elsewhere)
}

fn passed(headers: &HeaderMap) -> HeaderMap {
    let kept = |name: &HeaderName| headers.get(name).map(|value| (name.clone(), value.clone()));
    PASSED.iter().filter_map(kept).collect()
}
