//! The chats of a session.

use super::{
    Api, Routes,
    body::{Incoming, incoming},
    contacts::addresses,
    error::from_session,
    query::{CursorKind, listed},
    reply::json,
    route,
    sessions::session_id,
    with,
};
use rookery_protocol::{
    ApiError, ErrorBody, Jid, JidServer, SessionId, Timestamp,
    api::{Chat, ChatMessage, List},
};
use rookery_storage::{ChatPlace, ChatRow, ContactRow, Mute, Page};
use std::{fmt, str::FromStr, sync::Arc};
use warp::{Filter, http::StatusCode, path, reply::Response};

type Answer = Result<Response, ApiError>;

pub(super) fn routes(api: &Arc<Api>) -> Vec<Routes> {
    let all = path!("api" / "whatsapp" / "sessions" / String / "chats").and(with(api));
    vec![route("chats_list", all.and(warp::get()).and(incoming(api)).then(list))]
}

/// The chats of a session by their latest activity, newest first.
#[utoipa::path(
    get, path = "/api/whatsapp/sessions/{session_id}/chats", tag = "Chats",
    security(("token" = [])), operation_id = "list_chats",
    params(
        ("session_id" = SessionId, Path, description = "The session."),
        ("limit" = Option<u8>, Query, description = "Rows of a page, 1 to 200; 50 without it.", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before. What moves up meanwhile is on the first page anew."),
    ),
    responses(
        (status = 200, description = "A page.", body = List<Chat>),
        (status = 404, description = "`session_not_found`", body = ErrorBody),
        (status = 422, description = "`validation_failed`; `errors` names the fields.", body = ErrorBody),
    ),
)]
pub(super) async fn list(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let id = session_id(&id)?;
    let mut query = request.query()?;
    let after = query.cursor::<Place>(CursorKind::Chats).map(|place| place.0);
    let limit = query.limit();
    query.finish()?;
    let page = api.sessions.chats(user, id, after.as_ref(), limit).await.map_err(from_session)?;
    let page = Page { rows: page.rows, next: page.next.map(Place) };
    let now = Timestamp::now();
    let show = |(row, contact): (_, Option<_>)| chat(row, contact.as_ref(), now);
    Ok(json(StatusCode::OK, &listed(CursorKind::Chats, page, show)))
}

/// A place in the list, as cursors have it.
struct Place(ChatPlace);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.active, self.0.jid)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (active, jid) = text.split_once('-').ok_or(())?;
        Ok(Self(ChatPlace { active: active.parse().map_err(drop)?, jid: jid.parse::<Jid>().map_err(drop)? }))
    }
}

/// A row as the API shows it.
fn chat(row: ChatRow, contact: Option<&ContactRow>, now: Timestamp) -> Chat {
    let (lid, phone) = addresses(&row.jid, contact.and_then(|contact| contact.other.as_ref()));
    let (muted, muted_until) = match row.muted {
        Some(Mute::Forever) => (true, None),
        Some(Mute::Until(time)) if time > now => (true, Some(time)),
        _ => (false, None),
    };
    let seconds = i64::try_from(row.active >> 20).unwrap_or(0);
    Chat {
        lid,
        phone,
        name: contact.and_then(ContactRow::name).map(str::to_owned).or(row.name),
        is_group: row.jid.server() == JidServer::Group,
        jid: row.jid,
        unread_count: row.unread,
        marked_unread: row.marked_unread,
        archived: row.archived,
        muted,
        muted_until,
        pinned_at: row.pinned_at,
        last_activity_at: Timestamp::from_secs(seconds),
        last_message: row.last.map(|last| ChatMessage {
            message_id: last.message_id,
            from_me: last.from_me,
            timestamp: last.timestamp,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_its_text() {
        let place = ChatPlace { active: 7 << 20, jid: "120363-1@g.us".parse().unwrap() };
        let again: Place = Place(place.clone()).to_string().parse().ok().unwrap();
        assert_eq!(again.0, place);
        for text in ["", "7", "x-1@lid", "7-", "-1@lid"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
