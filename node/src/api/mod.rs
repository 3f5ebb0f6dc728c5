//! The REST contract, a file a resource.
//!
//! A request goes `server` (limits, request id) -> the resource's filter -> its handler -> a service. Handlers
//! answer `Result<Response, ApiError>`; the server gives errors their body, so that there is one place for it.
//! Nothing here touches the database or WhatsApp but through a service.

mod accept;
mod auth;
mod body;
mod chats;
mod contacts;
mod error;
mod idempotency;
mod linger;
mod media;
mod messages;
mod methods;
mod openapi;
mod query;
mod relay;
mod reply;
#[cfg(feature = "sandbox")]
mod sandbox;
mod server;
mod service;
mod sessions;
mod tokens;

pub(crate) use auth::{Access, MetricsAccess};
pub(crate) use openapi::document as openapi_document;
pub(crate) use relay::{Inbound, Outcome, Relay, Relayed};
pub(crate) use server::Server;
pub(crate) use service::ProbeCache;

use self::reply::Route;
use crate::{
    cluster::Cluster,
    media::{Media, Received},
    session::Sessions,
};
use metrics_exporter_prometheus::PrometheusHandle;
use rookery_protocol::{ApiError, NodeId};
use rookery_storage::Stores;
use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use warp::{Filter, filters::BoxedFilter, reply::Response};

/// What the handlers work with.
pub(crate) struct Api {
    pub sessions: Arc<Sessions>,
    pub stores: Stores,
    pub access: Access,
    pub node: NodeId,
    pub recorder: PrometheusHandle,
    /// Under which token metrics are served, if they are.
    pub metrics: Option<MetricsAccess>,
    /// Whether they are served among the API's routes, or at an address of their own.
    pub metrics_here: bool,
    /// Whether the node may act: false while it starts and while it stops.
    pub ready: AtomicBool,
    pub media: Media,
    pub received: Arc<Received>,
    pub send_wait: Duration,
    pub request_timeout: Duration,
    pub max_body_bytes: usize,
    pub read_timeout: Duration,
    pub probe: service::ProbeCache,
    /// The way to the other nodes, where there are any.
    pub relay: Option<Arc<dyn Relay>>,
    /// The cluster, where there is one.
    pub cluster: Option<Cluster>,
}

/// A route, or several: a filter that answers.
type Routes = BoxedFilter<(Response,)>;

/// All routes. What no route takes becomes an error as well, so the filter never rejects.
pub(crate) fn routes(api: &Arc<Api>) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + use<> {
    let mut all = messages::routes(api);
    all.extend(media::routes(api));
    all.extend(contacts::routes(api));
    all.extend(chats::routes(api));
    all.extend(sessions::routes(api));
    all.extend(tokens::routes(api));
    all.extend(service::routes(api));
    all.extend(openapi::routes(api));
    #[cfg(feature = "sandbox")]
    all.extend(sandbox::routes(api));
    let first = warp::any().and_then(|| async { Err::<Response, _>(warp::reject::not_found()) }).boxed();
    let routes = all.into_iter().rev().fold(first, |rest, route| route.or(rest).unify().boxed());
    routes.recover(error::from_rejection).unify()
}

/// Hands the context to a handler.
fn with(api: &Arc<Api>) -> impl Filter<Extract = (Arc<Api>,), Error = Infallible> + Clone + use<> {
    let api = Arc::clone(api);
    warp::any().map(move || Arc::clone(&api))
}

/// The route of a handler, under a name for metrics and logs.
fn route(
    name: &'static str,
    handler: impl Filter<Extract = (Result<Response, ApiError>,), Error = warp::Rejection> + Send + Sync + Clone + 'static,
) -> Routes {
    let answer = move |result: Result<Response, ApiError>| {
        let mut response = result.unwrap_or_else(reply::error);
        response.extensions_mut().insert(Route(name));
        response
    };
    handler.map(answer).boxed()
}
