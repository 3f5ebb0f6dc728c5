//! `/api/whatsapp/messages` and the history of a session.

use super::{
    Api, Routes,
    body::{Incoming, incoming},
    contacts::addresses,
    error::{from_send, from_session},
    idempotency::{Key, Meaning, Says},
    query::{CursorKind, Query, listed},
    reply::json,
    route,
    sessions::session_id,
    with,
};
use crate::session::{Content, SendReceipt, SendRequest};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rookery_protocol::{
    ApiError, ErrorBody, ErrorCode, Jid, JidServer, MessageId, SessionId, Timestamp,
    api::{
        Direction, List, Media, Message, MessageMedia, MessageStatus, MessageType, ParticipantReceipt, Receipts,
        SendText, Sent, SentStatus,
    },
};
use rookery_storage::{ContactRow, HistoryQuery, HistoryRow, ParticipantRow, SendOutcome, search};
use std::{sync::Arc, time::Duration};
use warp::{Filter, http::StatusCode, path, reply::Response};

/// WhatsApp's own limit.
const MAX_TEXT_CHARS: usize = 65_536;

/// WhatsApp shows it for no longer.
const MAX_TYPING_MS: u64 = 25_000;

type Answer = Result<Response, ApiError>;

pub(super) fn routes(api: &Arc<Api>) -> Vec<Routes> {
    let text = path!("api" / "whatsapp" / "messages" / "text").and(with(api));
    let history = path!("api" / "whatsapp" / "sessions" / String / "messages").and(with(api));
    let one = path!("api" / "whatsapp" / "sessions" / String / "messages" / String).and(with(api));
    vec![
        route("messages_text", text.and(warp::post()).and(incoming(api)).then(send_text)),
        route("messages_list", history.and(warp::get()).and(incoming(api)).then(list)),
        route("messages_get", one.and(warp::get()).and(incoming(api)).then(get)),
    ]
}

/// Send a text.
#[utoipa::path(
    post, path = "/api/whatsapp/messages/text", tag = "Messages",
    security(("token" = [])), request_body = SendText,
    params(
        ("wait_ms" = Option<u32>, Query, description = "How long to wait for WhatsApp, in milliseconds.", maximum = 60000),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request are one message, for 24 hours.", min_length = 1, max_length = 255),
    ),
    responses(
        (status = 200, description = "WhatsApp has it.", body = Sent),
        (status = 202, description = "It is on disk and will be sent.", body = Sent),
        (status = 404, description = "`session_not_found`", body = ErrorBody),
        (status = 409, description = "`session_state`: not linked; `idempotency_conflict`: the key was used for another request.", body = ErrorBody),
        (status = 422, description = "`validation_failed`; `rejected`: WhatsApp refused the message for good.", body = ErrorBody),
        (status = 429, description = "`too_many_requests`", body = ErrorBody),
    ),
)]
pub(super) async fn send_text(api: Arc<Api>, mut request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let mut query = request.query()?;
    let wait_ms = query.wait_ms();
    query.finish()?;
    let key = Key::of(&request.headers)?;
    let mut fields = request.fields().await?;
    let session = fields.parsed::<SessionId>("session_id");
    let to = fields.text("to", 255);
    let chat = if to.is_empty() { None } else { recipient(&mut fields, &to) };
    let text = fields.text("message", MAX_TEXT_CHARS);
    let typing = typing(&mut fields);
    fields.finish()?;
    let (session, chat) = (session.expect("no problem was noted"), chat.expect("no problem was noted"));
    let idempotency = key.map(|key| key.stands_for(&Meaning { session, chat: &chat, typing, says: Says::Text(&text) }));
    let content = Content::text(text);
    let wait = wait_ms.map_or(api.send_wait, Duration::from_millis);
    let send = SendRequest { to, chat, sender: None, content, idempotency, wait, typing };
    let receipt = api.sessions.send(user, session, send).await.map_err(from_session)?;
    sent(session, receipt.map_err(|error| from_send(session, &error))?)
}

/// The address that a caller means.
pub(super) fn recipient(fields: &mut super::body::Fields, to: &str) -> Option<Jid> {
    Jid::from_recipient(to).map_err(|error| fields.problem("to", error.to_string())).ok()
}

/// How long the recipient is to see somebody typing first.
pub(super) fn typing(fields: &mut super::body::Fields) -> Duration {
    Duration::from_millis(fields.optional_number("typing_ms", MAX_TYPING_MS).unwrap_or(0))
}

/// The answer to an accepted send.
pub(super) fn sent(session_id: SessionId, receipt: SendReceipt) -> Answer {
    let (status, code) = match receipt.outcome {
        Some(SendOutcome::Sent(_)) => (SentStatus::Sent, StatusCode::OK),
        None => (SentStatus::Queued, StatusCode::ACCEPTED),
        Some(SendOutcome::Failed(why)) => return Err(ApiError::new(ErrorCode::Rejected, why)),
    };
    let SendReceipt { message_id, to, chat, accepted_at, .. } = receipt;
    let body = Sent { success: true, message_id, session_id, to, chat, status, timestamp: accepted_at };
    Ok(json(code, &body))
}

/// The history of a session, newest first.
#[utoipa::path(
    get, path = "/api/whatsapp/sessions/{session_id}/messages", tag = "Messages",
    security(("token" = [])), operation_id = "list_messages",
    params(
        ("session_id" = SessionId, Path, description = "The session."),
        ("query" = Option<String>, Query, description = "Only with all these words, in text, caption or file name, whatever their case and diacritics; the last one may be the beginning of a word. At most 16 words.", min_length = 1, max_length = 256),
        ("chat" = Option<String>, Query, description = "Only of this chat: phone number, JID, LID or group JID."),
        ("from" = Option<Timestamp>, Query, description = "Only from this time on."),
        ("until" = Option<Timestamp>, Query, description = "Only before this time."),
        ("direction" = Option<Direction>, Query, description = "Only inbound or only outbound."),
        ("type" = Option<MessageType>, Query, description = "Only of this kind."),
        ("limit" = Option<u8>, Query, description = "Rows of a page, 1 to 200; 50 without it.", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before."),
    ),
    responses(
        (status = 200, description = "A page.", body = List<Message>),
        (status = 404, description = "`session_not_found`", body = ErrorBody),
        (status = 422, description = "`validation_failed`; `errors` names the fields.", body = ErrorBody),
    ),
)]
pub(super) async fn list(id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let id = session_id(&id)?;
    let mut asked = request.query()?;
    let (query, words) = (history_query(&mut asked), asked.get("query", search::Query::parse));
    asked.finish()?;
    let page = match words {
        Some(words) => api.sessions.search(user, id, &words, &query).await,
        None => api.sessions.history(user, id, &query).await,
    };
    let page = page.map_err(from_session)?;
    Ok(json(StatusCode::OK, &listed(CursorKind::Messages, page, |row| message(id, row, None))))
}

/// One message with its receipts; in a group a page of the members' receipts.
#[utoipa::path(
    get, path = "/api/whatsapp/sessions/{session_id}/messages/{message_id}", tag = "Messages",
    security(("token" = [])), operation_id = "get_message",
    params(
        ("session_id" = SessionId, Path, description = "The session."),
        ("message_id" = MessageId, Path, description = "The message."),
        ("limit" = Option<u8>, Query, description = "Members of a page, 1 to 200; 50 without it.", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before, of the members' receipts."),
    ),
    responses(
        (status = 200, description = "The message.", body = Message),
        (status = 404, description = "`session_not_found`, `message_not_found`", body = ErrorBody),
    ),
)]
pub(super) async fn get(id: String, message_id: String, api: Arc<Api>, request: Incoming) -> Answer {
    let user = api.user(&request).await?;
    let id = session_id(&id)?;
    let message_id = self::message_id(&message_id)?;
    let mut asked = request.query()?;
    let (limit, after) = (asked.limit(), asked.cursor::<Jid>(CursorKind::Participants));
    asked.finish()?;
    let find = async || {
        let rows = api.sessions.message(user, id, &message_id).await.map_err(from_session)?;
        rows.into_iter().next().ok_or_else(no_message)
    };
    let mut row = find().await?;
    let mut participants = None;
    if row.from_me && row.chat.server() == JidServer::Group {
        let page = api.sessions.participants(id, &row, after.as_ref(), limit).await.map_err(from_session)?;
        participants = Some(listed(CursorKind::Participants, page, participant));
        // Once more, so that the message's own times are not behind its members'.
        row = find().await?;
    }
    let receipts = Receipts {
        server_at: row.sent_at,
        delivered_at: row.delivered_at,
        read_at: row.read_at,
        played_at: row.played_at,
        participants,
    };
    Ok(json(StatusCode::OK, &message(id, row, Some(receipts))))
}

/// The message id in a path. What is no id is no message.
pub(super) fn message_id(text: &str) -> Result<MessageId, ApiError> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| no_message())?;
    decoded.parse().map_err(|_| no_message())
}

/// What is asked for does not exist.
pub(super) fn no_message() -> ApiError {
    ApiError::new(ErrorCode::MessageNotFound, "There is no such message.")
}

/// The path under which the file of a message can be had, once it is at WhatsApp.
fn media_url(session: SessionId, row: &HistoryRow) -> Option<String> {
    row.file.as_ref()?.direct_path.as_ref()?;
    let id = utf8_percent_encode(row.message_id.as_str(), NON_ALPHANUMERIC);
    Some(format!("/api/whatsapp/sessions/{session}/messages/{id}/media"))
}

fn history_query(query: &mut Query) -> HistoryQuery {
    let time = |text: &str| text.parse::<Timestamp>().map_err(|_| "must be an RFC 3339 time");
    let direction = |text: &str| match text {
        "inbound" => Ok(Direction::Inbound),
        "outbound" => Ok(Direction::Outbound),
        _ => Err("must be inbound or outbound"),
    };
    let kind = |text: &str| {
        let found = MessageType::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or("is no type of message")
    };
    HistoryQuery {
        chat: query.get("chat", Jid::from_recipient),
        from: query.get("from", time),
        until: query.get("until", time),
        direction: query.get("direction", direction),
        kind: query.get("type", kind),
        after: None,
        before: query.cursor(CursorKind::Messages),
        limit: query.limit(),
    }
}

/// A row as the API shows it.
fn message(session: SessionId, row: HistoryRow, receipts: Option<Receipts>) -> Message {
    let status = status(&row);
    let url = media_url(session, &row);
    let shown = row.reactions.into_iter().filter(|reaction| !reaction.emoji.is_empty());
    let reactions = shown.collect();
    Message {
        message_id: row.message_id,
        chat: row.chat,
        sender: row.sender,
        from_me: row.from_me,
        kind: row.kind,
        text: row.text,
        caption: row.caption,
        media: row
            .media
            .map(|media| MessageMedia { file: Media { url, ..media }, shape: row.shape.unwrap_or_default() }),
        reply_to: row.reply_to,
        timestamp: row.timestamp,
        status,
        error: row.failure,
        edited_at: row.edited_at,
        revoked_at: row.revoked_at,
        reactions,
        receipts,
    }
}

/// A member's receipts as the API shows them.
fn participant((row, contact): (ParticipantRow, Option<ContactRow>)) -> ParticipantReceipt {
    let ParticipantRow { participant, delivered_at, read_at, played_at } = row;
    // The contact is kept under the phone number, where it is known.
    let jid = contact.as_ref().map_or_else(|| participant.clone(), |contact| contact.jid.clone());
    let (lid, phone) = addresses(&jid, contact.as_ref().and_then(|contact| contact.other.as_ref()));
    ParticipantReceipt { participant, jid, lid, phone, delivered_at, read_at, played_at }
}

/// The furthest stage that a message has reached.
fn status(row: &HistoryRow) -> MessageStatus {
    if row.played_at.is_some() {
        MessageStatus::Played
    } else if row.read_at.is_some() {
        MessageStatus::Read
    } else if row.delivered_at.is_some() {
        MessageStatus::Delivered
    } else if row.failure.is_some() {
        MessageStatus::Failed
    } else if row.sent_at.is_some() {
        MessageStatus::Sent
    } else {
        MessageStatus::Pending
    }
}
