//! The contacts of a session, and their pictures.

use super::{
    Api, Routes,
    body::{Incoming, incoming},
    error::from_session,
    query::{CursorKind, listed},
    reply::json,
    route,
    sessions::session_id,
    with,
};
use rookery_protocol::{
    ApiError, ErrorBody, ErrorCode, Jid, JidServer, SessionId,
    api::{Contact, List, ProfilePicture},
};
use rookery_storage::{ContactQuery, ContactRow};
use std::sync::Arc;
use warp::{Filter, http::StatusCode, path, reply::Response};

/// Longest text to look for, in characters.
const MAX_QUERY_CHARS: usize = 255;

type Answer = Result<Response, ApiError>;

pub(super) fn routes(api: &Arc<Api>) -> Vec<Routes> {
    let all = path!("api" / "whatsapp" / "sessions" / String / "contacts").and(with(api));
    let one = path!("api" / "whatsapp" / "sessions" / String / "contacts" / String / "picture").and(with(api));
    vec![
        route("contacts_list", all.and(warp::get()).and(incoming(api)).then(list)),
        route("contacts_picture", one.and(warp::get()).and(incoming(api)).then(picture)),
    ]
}

/// The contacts of a session, in the order of their addresses.
#[utoipa::path(
    get, path = "/api/whatsapp/sessions/{session_id}/contacts", tag = "Contacts",
    security(("token" = [])), operation_id = "list_contacts",
    params(
        ("session_id" = SessionId, Path, description = "The session."),
        ("query" = Option<String>, Query, description = "Only those with this text in a name or a number, whatever the case of letters and their diacritics.", min_length = 1, max_length = 255),
        ("limit" = Option<u8>, Query, description = "Rows of a page, 1 to 200; 50 without it.", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before."),
    ),
    responses(
        (status = 200, description = "A page. One with a `query` may be short or empty and still have a next one.", body = List<Contact>),
        (status = 404, description = "`session_not_found`", body = ErrorBody),
        (status = 422, description = "`validation_failed`; `errors` names the fields.", body = ErrorBody),
    ),
)]
pub(super) async fn list(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let id = session_id(&id)?;
    let mut query = request.query()?;
    let text = |text: &str| match text.trim() {
        text if (1..=MAX_QUERY_CHARS).contains(&text.chars().count()) => Ok(text.to_owned()),
        _ => Err(format!("must have 1 to {MAX_QUERY_CHARS} characters")),
    };
    let wanted = ContactQuery {
        text: query.get("query", text),
        after: query.cursor(CursorKind::Contacts),
        limit: query.limit(),
    };
    query.finish()?;
    let page = api.sessions.contacts(user, id, &wanted).await.map_err(from_session)?;
    Ok(json(StatusCode::OK, &listed(CursorKind::Contacts, page, contact)))
}

/// The profile picture of a contact or a group.
#[utoipa::path(
    get, path = "/api/whatsapp/sessions/{session_id}/contacts/{jid}/picture", tag = "Contacts",
    security(("token" = [])), operation_id = "contact_picture",
    params(
        ("session_id" = SessionId, Path, description = "The session."),
        ("jid" = String, Path, description = "Whose: phone number, JID, LID or group JID."),
        ("type" = Option<String>, Query, description = "`full`, or `preview` for the small form; `full` without it.", pattern = "^(full|preview)$"),
    ),
    responses(
        (status = 200, description = "Where WhatsApp has it.", body = ProfilePicture),
        (status = 404, description = "`session_not_found`; `picture_not_found`: there is none, or none for this account.", body = ErrorBody),
        (status = 409, description = "`session_state`: it is stopped, has failed or is not linked.", body = ErrorBody),
        (status = 422, description = "`validation_failed`; `errors` names the fields.", body = ErrorBody),
    ),
)]
pub(super) async fn picture(id: String, jid: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let id = session_id(&id)?;
    let mut query = request.query()?;
    let preview = query.get("type", |text| match text {
        "full" => Ok(false),
        "preview" => Ok(true),
        _ => Err("must be full or preview"),
    });
    let jid = address(&jid).map_err(|why| query.problem("jid", why)).ok();
    query.finish()?;
    let jid = jid.expect("no problem was noted");
    let found = api.sessions.picture(user, id, &jid, preview.unwrap_or(false)).await.map_err(from_session)?;
    let found = found.ok_or_else(|| {
        ApiError::new(ErrorCode::PictureNotFound, "There is no picture, or none that this account may see.")
    })?;
    Ok(json(StatusCode::OK, &ProfilePicture { jid, id: found.id, url: found.url }))
}

/// The address in a path.
fn address(text: &str) -> Result<Jid, String> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| "must be UTF-8")?;
    Jid::from_recipient(&decoded).map_err(|error| error.to_string())
}

/// A row as the API shows it.
fn contact(row: ContactRow) -> Contact {
    let name = row.name().map(str::to_owned);
    let (lid, phone) = addresses(&row.jid, row.other.as_ref());
    let ContactRow { jid, full_name, short_name, push_name, business_name, .. } = row;
    Contact { jid, lid, phone, name, full_name, short_name, push_name, business_name }
}

/// The LID and the phone number of somebody with these addresses.
pub(super) fn addresses(jid: &Jid, other: Option<&Jid>) -> (Option<Jid>, Option<String>) {
    let all = || std::iter::once(jid).chain(other);
    let lid = all().find(|jid| jid.server() == JidServer::Lid).cloned();
    let phone = all().find_map(|jid| jid.phone()).map(str::to_owned);
    (lid, phone)
}
