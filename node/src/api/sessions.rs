//! `/api/whatsapp/sessions`

use super::{
    Api, Routes,
    accept::preferred,
    body::{Incoming, incoming},
    error::from_session,
    openapi::FileBytes,
    query::{CursorKind, listed},
    reply::{bytes, json},
    route, with,
};
use crate::session::DeviceKey;
use rookery_protocol::{
    ApiError, ErrorBody, ErrorCode, Jid, SessionId,
    api::{
        ActiveSession, ChangedSession, CreateSession, List, PairingCode, PairingCodeRequest, QrCode, Session,
        SessionStatus, Success,
    },
};
use std::{convert, sync::Arc};
use warp::{
    Filter,
    http::{HeaderValue, StatusCode, header},
    path,
    reply::Response,
};

/// The forms of a QR code.
const JSON: &str = "application/json";
const PNG: &str = "image/png";
const SVG: &str = "image/svg+xml";

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

/// Create a session and start to pair it.
#[utoipa::path(
    post, path = "/api/whatsapp/sessions", tag = "Sessions",
    security(("token" = [])), operation_id = "create_session", request_body = CreateSession,
    responses(
        (status = 201, description = "The session.", body = Session),
        (status = 422, description = "`validation_failed`; `errors` names the fields.", body = ErrorBody),
        (status = 429, description = "`too_many_requests`: the user has too many.", body = ErrorBody),
    ),
)]
pub(super) async fn create(api: Arc<Api>, mut request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let mut fields = request.fields().await?;
    let name = fields.name("session_name", 255);
    fields.finish()?;
    let session = api.sessions.create_session(user, name).await.map_err(from_session)?;
    Ok(json(StatusCode::CREATED, &session))
}

/// The sessions of the user, in order of creation.
#[utoipa::path(
    get, path = "/api/whatsapp/sessions", tag = "Sessions",
    security(("token" = [])), operation_id = "list_sessions",
    params(
        ("limit" = Option<u8>, Query, description = "Rows of a page, 1 to 200; 50 without it.", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before."),
    ),
    responses(
        (status = 200, description = "A page.", body = List<Session>),
        (status = 422, description = "`validation_failed`; `errors` names the fields.", body = ErrorBody),
    ),
)]
pub(super) async fn list(api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let mut query = request.query()?;
    let (after, limit) = (query.cursor::<SessionId>(CursorKind::Sessions), query.limit());
    query.finish()?;
    let page = api.sessions.list(user, after, limit).await.map_err(from_session)?;
    Ok(json(StatusCode::OK, &listed(CursorKind::Sessions, page, convert::identity)))
}

/// Where a session stands.
#[utoipa::path(
    get, path = "/api/whatsapp/sessions/{session_id}/status", tag = "Sessions",
    security(("token" = [])), operation_id = "session_status",
    params(("session_id" = SessionId, Path, description = "The session.")),
    responses(
        (status = 200, description = "The session.", body = Session),
        (status = 404, description = "`session_not_found`", body = ErrorBody),
    ),
)]
pub(super) async fn status(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let session = api.sessions.session(user, session_id(&id)?).await.map_err(from_session)?;
    Ok(json(StatusCode::OK, &session))
}

/// The session of a device.
#[utoipa::path(
    get, path = "/api/whatsapp/sessions/{device_id}", tag = "Sessions",
    security(("token" = [])), operation_id = "session_by_device",
    params(("device_id" = String, Path, description = "Device id, JID, phone number or session id.")),
    responses(
        (status = 200, description = "The session.", body = ActiveSession),
        (status = 404, description = "`session_not_found`", body = ErrorBody),
    ),
)]
pub(super) async fn by_device(key: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let decoded = percent_encoding::percent_decode_str(&key).decode_utf8().ok();
    let key = decoded.and_then(|key| DeviceKey::parse(&key)).ok_or_else(no_session)?;
    let session = api.sessions.by_device(user, &key).await.map_err(from_session)?;
    let active = session.status == SessionStatus::Working;
    Ok(json(StatusCode::OK, &ActiveSession { active, session }))
}

/// Close the connection and keep the link.
#[utoipa::path(
    delete, path = "/api/whatsapp/sessions/{session_id}/disconnect", tag = "Sessions",
    security(("token" = [])), operation_id = "disconnect_session",
    params(("session_id" = SessionId, Path, description = "The session.")),
    responses(
        (status = 200, description = "The session.", body = ChangedSession),
        (status = 404, description = "`session_not_found`", body = ErrorBody),
    ),
)]
pub(super) async fn disconnect(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let session = api.sessions.disconnect(user, session_id(&id)?).await.map_err(from_session)?;
    Ok(done(session))
}

/// Connect again, or start a new pairing.
#[utoipa::path(
    post, path = "/api/whatsapp/sessions/{session_id}/connect", tag = "Sessions",
    security(("token" = [])), operation_id = "connect_session",
    params(("session_id" = SessionId, Path, description = "The session.")),
    responses(
        (status = 200, description = "The session.", body = ChangedSession),
        (status = 404, description = "`session_not_found`", body = ErrorBody),
    ),
)]
pub(super) async fn connect(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let session = api.sessions.connect(user, session_id(&id)?).await.map_err(from_session)?;
    Ok(done(session))
}

/// Log out and forget the device; keep the session and its history.
#[utoipa::path(
    delete, path = "/api/whatsapp/sessions/{session_id}/device", tag = "Sessions",
    security(("token" = [])), operation_id = "remove_device",
    params(("session_id" = SessionId, Path, description = "The session.")),
    responses(
        (status = 200, description = "The session.", body = ChangedSession),
        (status = 404, description = "`session_not_found`", body = ErrorBody),
    ),
)]
pub(super) async fn remove_device(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let session = api.sessions.remove_device(user, session_id(&id)?).await.map_err(from_session)?;
    Ok(done(session))
}

/// Log out, and delete the session with all its data.
#[utoipa::path(
    delete, path = "/api/whatsapp/sessions/{session_id}", tag = "Sessions",
    security(("token" = [])), operation_id = "delete_session",
    params(("session_id" = SessionId, Path, description = "The session.")),
    responses(
        (status = 200, description = "It is gone.", body = Success),
        (status = 404, description = "`session_not_found`", body = ErrorBody),
    ),
)]
pub(super) async fn delete(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let id = session_id(&id)?;
    api.sessions.delete(user, id).await.map_err(from_session)?;
    // Nothing of it can be reached any more; where files are kept far away, removing them takes its time.
    tokio::spawn(async move { api.received.forget(id).await });
    Ok(json(StatusCode::OK, &Success { success: true }))
}

/// The QR code to scan: JSON, PNG or SVG, as `Accept` asks for.
#[utoipa::path(
    get, path = "/api/whatsapp/sessions/{session_id}/qr", tag = "Sessions",
    security(("token" = [])), operation_id = "session_qr",
    params(("session_id" = SessionId, Path, description = "The session.")),
    responses(
        (status = 200, description = "The code.", content((QrCode = "application/json"), (FileBytes = "image/png"), (String = "image/svg+xml"))),
        (status = 404, description = "`session_not_found`", body = ErrorBody),
        (status = 409, description = "`qr_not_available`: none is due.", body = ErrorBody),
    ),
)]
pub(super) async fn qr(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let view = api.sessions.view(user, session_id(&id)?).await.map_err(from_session)?;
    let none =
        || ApiError::new(ErrorCode::QrNotAvailable, format!("No QR code is due: the session is {}.", view.status()));
    let due = view.qr.as_ref().filter(|_| view.status() == SessionStatus::ScanQrCode).ok_or_else(none)?;
    let mut response = match preferred(&request.headers, &[JSON, PNG, SVG]) {
        PNG => bytes(StatusCode::OK, PNG, crate::qr::png(&due.code)?),
        SVG => bytes(StatusCode::OK, SVG, crate::qr::svg(&due.code)?),
        _ => json(StatusCode::OK, &QrCode { qr: due.code.clone(), qr_expires_at: due.expires_at }),
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// A code that links the session when it is typed on the phone.
#[utoipa::path(
    post, path = "/api/whatsapp/sessions/{session_id}/pairing-code", tag = "Sessions",
    security(("token" = [])), operation_id = "pairing_code", request_body = PairingCodeRequest,
    params(("session_id" = SessionId, Path, description = "The session.")),
    responses(
        (status = 200, description = "The code.", body = PairingCode),
        (status = 404, description = "`session_not_found`", body = ErrorBody),
        (status = 409, description = "`session_state`: it is linked already.", body = ErrorBody),
        (status = 422, description = "`validation_failed`; `errors` names the fields.", body = ErrorBody),
    ),
)]
pub(super) async fn pairing_code(id: String, api: Arc<Api>, mut request: Incoming) -> Answer {
    let user = api.user(&request).await?;
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

/// The answer of a route that changes a session.
fn done(session: Session) -> Response {
    json(StatusCode::OK, &ChangedSession { success: true, session })
}
