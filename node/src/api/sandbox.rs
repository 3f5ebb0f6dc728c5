//! Routes that only a sandbox build has: faults for tests.

use super::{
    Api, Routes,
    body::{Incoming, incoming},
    error::from_session,
    reply::json,
    route,
    sessions::session_id,
    with,
};
use rookery_protocol::{ApiError, api::Success};
use std::sync::Arc;
use warp::{Filter, http::StatusCode, path, reply::Response};

pub(super) fn routes(api: &Arc<Api>) -> Vec<Routes> {
    let panic = path!("api" / "sandbox" / "sessions" / String / "panic").and(with(api));
    vec![route("sandbox_panic", panic.and(warp::post()).and(incoming(api)).then(make_panic))]
}

async fn make_panic(id: String, api: Arc<Api>, request: Incoming) -> Result<Response, ApiError> {
    let user = api.user(&request).await?;
    api.sessions.panic(user, session_id(&id)?).await.map_err(from_session)?;
    Ok(json(StatusCode::ACCEPTED, &Success { success: true }))
}
