//! `/api/whatsapp/sessions`

use super::{
    Api, Routes,
    body::{Incoming, incoming},
    error::from_session,
    query::{CursorKind, encode},
    reply::{bytes, json},
    route, with,
};
use crate::session::DeviceKey;
use rookery_protocol::{
    ApiError, ErrorCode, Jid, SessionId,
    api::{ActiveSession, List, PairingCode, QrCode, Session, SessionStatus, Success},
};
use std::sync::Arc;
use warp::{
    Filter,
    http::{StatusCode, header},
    path,
    reply::Response,
};

type Answer = Result<Response, ApiError>;

pub(super) fn routes(api: &Arc<Api>) -> Vec<Routes> {
    let all = || path!("api" / "whatsapp" / "sessions").and(with(api));
    let one = || path!("api" / "whatsapp" / "sessions" / String).and(with(api));
    let part = |part: &'static str| {
        path!("api" / "whatsapp" / "sessions" / String / ..).and(path(part)).and(path::end()).and(with(api))
    };
    let request = || incoming(api);
    vec![
        route("sessions_status", part("status").and(warp::get()).and(request()).then(status)),
        route("sessions_create", all().and(warp::post()).and(request()).then(create)),
        route("sessions_list", all().and(warp::get()).and(request()).then(list)),
        route("sessions_disconnect", part("disconnect").and(warp::delete()).and(request()).then(disconnect)),
        route("sessions_remove_device", part("device").and(warp::delete()).and(request()).then(remove_device)),
        route("sessions_connect", part("connect").and(warp::post()).and(request()).then(connect)),
        route("sessions_qr", part("qr").and(warp::get()).and(request()).then(qr)),
        route("sessions_pairing_code", part("pairing-code").and(warp::post()).and(request()).then(pairing_code)),
        route("sessions_by_device", one().and(warp::get()).and(request()).then(by_device)),
        route("sessions_delete", one().and(warp::delete()).and(request()).then(delete)),
    ]
}

async fn create(api: Arc<Api>, mut request: Incoming) -> Answer {
    let user = api.user(&request.headers).await?;
    let mut fields = request.fields().await?;
    let name = fields.name("session_name", 255);
    fields.finish()?;
    let session = api.sessions.create_session(user, name).await.map_err(from_session)?;
    Ok(json(StatusCode::CREATED, &session))
}

async fn list(api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request.headers).await?;
    let query = request.query()?;
    let after = query.cursor::<SessionId>(CursorKind::Sessions)?;
    let page = api.sessions.list(user, after, query.limit()?).await.map_err(from_session)?;
    let next_cursor = page.next.map(|next| encode(CursorKind::Sessions, &next));
    Ok(json(StatusCode::OK, &List { data: page.rows, next_cursor }))
}

async fn status(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request.headers).await?;
    let session = api.sessions.session(user, session_id(&id)?).await.map_err(from_session)?;
    Ok(json(StatusCode::OK, &session))
}

async fn by_device(key: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request.headers).await?;
    let decoded = percent_encoding::percent_decode_str(&key).decode_utf8().ok();
    let key = decoded.and_then(|key| DeviceKey::parse(&key)).ok_or_else(no_session)?;
    let session = api.sessions.by_device(user, &key).await.map_err(from_session)?;
    let active = session.status == SessionStatus::Working;
    Ok(json(StatusCode::OK, &ActiveSession { active, session }))
}

async fn disconnect(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request.headers).await?;
    let session = api.sessions.disconnect(user, session_id(&id)?).await.map_err(from_session)?;
    Ok(done(session))
}

async fn connect(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request.headers).await?;
    let session = api.sessions.connect(user, session_id(&id)?).await.map_err(from_session)?;
    Ok(done(session))
}

async fn remove_device(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request.headers).await?;
    let session = api.sessions.remove_device(user, session_id(&id)?).await.map_err(from_session)?;
    Ok(done(session))
}

async fn delete(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request.headers).await?;
    api.sessions.delete(user, session_id(&id)?).await.map_err(from_session)?;
    Ok(json(StatusCode::OK, &Success { success: true }))
}

async fn qr(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request.headers).await?;
    let view = api.sessions.view(user, session_id(&id)?).await.map_err(from_session)?;
    let none =
        || ApiError::new(ErrorCode::QrNotAvailable, format!("No QR code is due: the session is {}.", view.status()));
    let due = view.qr.as_ref().filter(|_| view.status() == SessionStatus::ScanQrCode).ok_or_else(none)?;
    let wanted = request.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if wanted.contains("image/png") {
        return Ok(bytes(StatusCode::OK, "image/png", crate::qr::png(&due.code)?));
    }
    if wanted.contains("image/svg+xml") {
        return Ok(bytes(StatusCode::OK, "image/svg+xml", crate::qr::svg(&due.code)?));
    }
    Ok(json(StatusCode::OK, &QrCode { qr: due.code.clone(), qr_expires_at: due.expires_at }))
}

async fn pairing_code(id: String, api: Arc<Api>, mut request: Incoming) -> Answer {
    let user = api.user(&request.headers).await?;
    let id = session_id(&id)?;
    let mut fields = request.fields().await?;
    let phone = fields.parsed_with("phone", |text| {
        let jid = Jid::from_recipient(text).map_err(|error| error.to_string())?;
        jid.phone().map(str::to_owned).ok_or_else(|| "must be a phone number".to_owned())
    });
    fields.finish()?;
    let phone = phone.expect("no problem was noted");
    let code = api.sessions.pairing_code(user, id, &phone).await.map_err(from_session)?;
    Ok(json(StatusCode::OK, &PairingCode { code }))
}

/// The id in a path. What is no id is no session.
pub(super) fn session_id(text: &str) -> Result<SessionId, ApiError> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| no_session())?;
    decoded.parse().map_err(|_| no_session())
}

fn no_session() -> ApiError {
    ApiError::new(ErrorCode::SessionNotFound, "There is no such session.")
}

/// The answer of a route that changes a session: `success` beside the session as it is now.
fn done(session: Session) -> Response {
    #[derive(serde::Serialize)]
    struct Done {
        success: bool,
        #[serde(flatten)]
        session: Session,
    }
    json(StatusCode::OK, &Done { success: true, session })
}
