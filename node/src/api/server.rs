//! The HTTP server: connections, limits, deadlines and request ids around the routes.
//!
//! Every request gets an answer as JSON, also one that panics or takes too long. The server knows no route.

use super::{
    Api,
    linger::{Lent, lend},
    methods, relay, reply,
    reply::Route,
    routes,
    service::metrics_page,
};
use crate::{config::ApiConfig, metrics};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use rookery_protocol::{ApiError, ErrorCode};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use warp::{
    http::{HeaderValue, Method, Request, StatusCode, header},
    reply::Response,
};

/// The largest head of a request.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// How long requests under way may go on once the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
#[error("{key} = {address}")]
pub(crate) struct ServerError {
    key: &'static str,
    address: SocketAddr,
    source: std::io::Error,
}

/// A server that holds its port and does not serve yet.
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// What the server lets pass.
#[derive(Clone)]
struct Limits {
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    head_timeout: Duration,
    request_timeout: Duration,
}

impl Server {
    /// Takes the port. `key` names it in the configuration.
    pub(crate) async fn bind(key: &'static str, address: SocketAddr) -> Result<Self, ServerError> {
        let failed = |source| ServerError { key, address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address it listens at, with the port that the system chose.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves all routes until `stop`, then lets requests under way finish.
    pub(crate) async fn serve(self, api: Arc<Api>, config: &ApiConfig, stop: CancellationToken) {
        let limits = Limits {
            connections: Arc::new(Semaphore::new(config.max_connections)),
            requests: Arc::new(Semaphore::new(config.max_requests)),
            head_timeout: Duration::from_millis(config.read_timeout_ms),
            request_timeout: Duration::from_millis(config.request_timeout_ms),
        };
        let service = warp::service(routes(&api));
        self.run(limits, stop, move |request: Request<Lent>| {
            let (api, service) = (Arc::clone(&api), service.clone());
            async move { relay::answer(&api, service, request).await }
        })
        .await;
    }

    /// Serves the metrics page alone.
    pub(crate) async fn serve_metrics(self, api: Arc<Api>, stop: CancellationToken) {
        let limits = Limits {
            connections: Arc::new(Semaphore::new(64)),
            requests: Arc::new(Semaphore::new(8)),
            head_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        };
        self.run(limits, stop, move |request: Request<Lent>| {
            let api = Arc::clone(&api);
            async move {
                let allowed = api.metrics.as_ref().map_or(Ok(()), |access| access.require(request.headers()));
                match allowed {
                    Ok(()) if request.uri().path() == "/metrics" => metrics_page(&api),
                    Ok(()) => reply::error(ApiError::new(ErrorCode::NotFound, "There is no such path.")),
                    Err(error) => reply::error(error),
                }
            }
        })
        .await;
    }

    async fn run<H, F>(self, limits: Limits, stop: CancellationToken, handler: H)
    where
        H: Fn(Request<Lent>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let graceful = GracefulShutdown::new();
        loop {
            let permit = tokio::select! {
                () = stop.cancelled() => break,
                permit = Arc::clone(&limits.connections).acquire_owned() => permit.expect("never closed"),
            };
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of file descriptors, most likely: without a pause this would spin.
                        tracing::warn!(%error, "connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let connection = graceful.watch(connection(stream, &limits, handler.clone()));
            ::metrics::gauge!(metrics::HTTP_CONNECTIONS).increment(1);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection ended");
                }
                ::metrics::gauge!(metrics::HTTP_CONNECTIONS).decrement(1);
                drop(permit);
            });
        }
        drop(self.listener);
        if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests under way did not finish in time");
        }
    }
}

/// One connection, as a future that ends with it.
fn connection<H, F>(
    stream: TcpStream,
    limits: &Limits,
    handler: H,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send + use<H, F>
where
    H: Fn(Request<Lent>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    // Answers are small and written at once.
    let _ = stream.set_nodelay(true);
    let limits = limits.clone();
    let head_timeout = limits.head_timeout;
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (handler, limits) = (handler.clone(), limits.clone());
        async move { Ok::<_, Infallible>(reply::sendable(handle(request, &limits, handler).await)) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
}

async fn handle<H, F>(mut request: Request<Incoming>, limits: &Limits, handler: H) -> Response
where
    H: Fn(Request<Lent>) -> F,
    F: Future<Output = Response> + Send,
{
    let started = Instant::now();
    let request_id = request_id(&request);
    let method = method_label(request.method());
    let vital = is_vital(request.uri().path());
    if request.method() == Method::HEAD {
        // What GET would answer; the HTTP library knows that it has to leave the body out.
        *request.method_mut() = Method::GET;
    }
    let uri = request.uri().clone();
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        request.headers_mut().insert("x-request-id", value);
    }
    let span = tracing::info_span!("request", %request_id);
    let (head, body) = request.into_parts();
    let (body, rest) = lend(body);
    let request = Request::from_parts(head, body);
    let response = async {
        let permit = limits.requests.try_acquire();
        if permit.is_err() && !vital {
            let text = "Too many requests are under way.";
            return reply::error(ApiError::new(ErrorCode::Unavailable, text).retry_after(Duration::from_secs(1)));
        }
        reply::in_time(Instant::now() + limits.request_timeout, handler(request)).await
    }
    .instrument(span.clone())
    .await;
    rest.discard();
    let mut response = reply::finish(response, &request_id);
    if response.status() == StatusCode::METHOD_NOT_ALLOWED
        && let Some(methods) = methods::allowed(uri.path())
    {
        response.headers_mut().insert(header::ALLOW, methods);
    }
    let route = response.extensions().get::<Route>().map_or("other", |route| route.0);
    let (status, elapsed) = (response.status(), started.elapsed());
    ::metrics::counter!(metrics::HTTP_REQUESTS, "route" => route, "method" => method, "status" => status_label(status.as_u16()))
        .increment(1);
    ::metrics::histogram!(metrics::HTTP_SECONDS, "route" => route).record(elapsed.as_secs_f64());
    let _entered = span.enter();
    tracing::info!(target: "rookery::access", route, method, status = status.as_u16(), elapsed_ms = elapsed.as_millis() as u64, "request");
    response
}

/// Whether a path has to answer also when there is too much to do: those who watch the node ask there.
fn is_vital(path: &str) -> bool {
    matches!(path, "/api/health" | "/api/health/live" | "/api/health/ready" | "/metrics")
}

/// The caller's request id, if it is one that can be logged, or a fresh one.
fn request_id(request: &Request<Incoming>) -> String {
    let given = request.headers().get("x-request-id").and_then(|value| value.to_str().ok());
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b':');
    match given {
        Some(id) if (1..=128).contains(&id.len()) && id.bytes().all(legal) => id.to_owned(),
        _ => uuid::Uuid::new_v4().to_string(),
    }
}

/// A method as a label: callers may invent methods, labels may not grow with them.
fn method_label(method: &hyper::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn status_label(status: u16) -> String {
    status.to_string()
}
