//! Messages with files: `/api/whatsapp/messages/media`, and the file of a stored message.

pub(super) mod download;
mod form;

use super::{
    Api, Routes,
    body::{Fields, Incoming, incoming},
    error::{from_problem, from_send, from_session},
    idempotency::{Idempotency, Key, Meaning, Says, Source},
    messages::{recipient, sent, typing},
    route, with,
};
use crate::{
    fetch::{MAX_URL_CHARS, data_of},
    media::{Arrived, Wish},
    session::SendRequest,
};
use rookery_protocol::{
    ApiError, ErrorBody, ErrorCode, Jid, SessionId, UserId,
    api::{MessageType, SendMedia, Sent, UploadMedia},
};
use std::{sync::Arc, time::Duration};
use warp::{Filter, path, reply::Response};

/// WhatsApp's own limit.
const MAX_CAPTION_CHARS: usize = 1024;
/// The longest name of a document.
const MAX_NAME_CHARS: usize = 255;
/// What is left of a request's time for its answer.
const ANSWER_TIME: Duration = Duration::from_secs(2);

type Answer = Result<Response, ApiError>;

pub(super) fn routes(api: &Arc<Api>) -> Vec<Routes> {
    let send = path!("api" / "whatsapp" / "messages" / "media").and(with(api));
    let file = path!("api" / "whatsapp" / "sessions" / String / "messages" / String / "media").and(with(api));
    vec![
        route("messages_media", send.and(warp::post()).and(incoming(api)).then(send_media)),
        route("messages_media_get", file.and(warp::get()).and(incoming(api)).then(download::download)),
    ]
}

/// What a request asks for, apart from the file.
struct Wanted {
    session: SessionId,
    to: String,
    chat: Jid,
    wish: Wish,
    typing: Duration,
}

/// Who asks, and how.
struct Caller {
    user: UserId,
    key: Option<Key>,
    wait: Duration,
    deadline: tokio::time::Instant,
}

/// Send a file by its URL, or as an upload.
#[utoipa::path(
    post, path = "/api/whatsapp/messages/media", tag = "Messages",
    security(("token" = [])),
    request_body(content((SendMedia = "application/json"), (UploadMedia = "multipart/form-data"))),
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
        (status = 502, description = "`media_fetch_failed`: the host of `media_url` failed.", body = ErrorBody),
    ),
)]
pub(super) async fn send_media(api: Arc<Api>, mut request: Incoming) -> Answer {
    let deadline = request.arrived + api.request_timeout.saturating_sub(ANSWER_TIME);
    let user = api.user(&request).await?;
    let mut query = request.query()?;
    let wait = query.wait_ms().map_or(api.send_wait, Duration::from_millis);
    query.finish()?;
    let key = Key::of(&request.headers)?;
    let caller = Caller { user, key, wait, deadline };
    match request.essence().as_str() {
        "multipart/form-data" => send_upload(&api, &caller, request).await,
        "application/json" => send_url(&api, &caller, &mut request).await,
        _ => {
            let text = "The content type must be application/json or multipart/form-data.";
            Err(ApiError::new(ErrorCode::UnsupportedMediaType, text))
        }
    }
}

async fn send_url(api: &Api, caller: &Caller, request: &mut Incoming) -> Answer {
    let mut fields = request.fields().await?;
    // A data: URL is as long as the body may be.
    let url = fields.text("media_url", usize::MAX);
    if data_of(&url).is_none() && url.len() > MAX_URL_CHARS {
        fields.problem("media_url", format!("must have at most {MAX_URL_CHARS} characters"));
    }
    let wanted = Wanted::take(fields, "media_url")?;
    let idempotency = wanted.idempotency(caller, None, Source::Url(&url));
    api.sessions.may_send(caller.user, wanted.session).await.map_err(from_session)?;
    if let Some((key, hash)) = idempotency {
        // What was accepted before need not be fetched again, and may be gone from where it was.
        let repeated = api.sessions.repeated(caller.user, wanted.session, key, hash, caller.wait).await;
        if let Some(receipt) = repeated.map_err(from_session)?.map_err(|error| from_send(wanted.session, &error))? {
            return sent(wanted.session, receipt);
        }
    }
    let arrived = api.media.fetch(caller.user, &url).await.map_err(from_problem)?;
    accept(api, caller, wanted, arrived, idempotency).await
}

async fn send_upload(api: &Api, caller: &Caller, request: Incoming) -> Answer {
    let (mut fields, arrived) = form::read(api, caller.user, request).await?;
    fields.refuse("media_url", "must not be given in a form: the file is the part `file`");
    if arrived.is_none() {
        fields.problem("file", "is required");
    }
    let wanted = Wanted::take(fields, "file")?;
    let arrived = arrived.expect("no problem was noted");
    let idempotency = wanted.idempotency(caller, arrived.name(), Source::Upload(arrived.sha256()));
    accept(api, caller, wanted, arrived, idempotency).await
}

async fn accept(
    api: &Api,
    caller: &Caller,
    wanted: Wanted,
    arrived: Arrived,
    idempotency: Option<Idempotency>,
) -> Answer {
    let Wanted { session, to, chat, wish, typing } = wanted;
    let content = api.media.prepare(arrived, wish).await.map_err(from_problem)?;
    let left = caller.deadline.saturating_duration_since(tokio::time::Instant::now());
    let send = SendRequest { to, chat, sender: None, content, idempotency, wait: caller.wait.min(left), typing };
    let receipt = api.sessions.send(caller.user, session, send).await.map_err(from_session)?;
    sent(session, receipt.map_err(|error| from_send(session, &error))?)
}

impl Wanted {
    /// Reads what is common to all ways to send a file; `field` holds the file.
    fn take(mut fields: Fields, field: &'static str) -> Result<Self, ApiError> {
        let session = fields.parsed::<SessionId>("session_id");
        let to = fields.text("to", 255);
        let chat = if to.is_empty() { None } else { recipient(&mut fields, &to) };
        let kind = fields.parsed_with("type", |text| match text {
            "image" => Ok(MessageType::Image),
            "audio" => Ok(MessageType::Audio),
            "video" => Ok(MessageType::Video),
            "document" => Ok(MessageType::Document),
            _ => Err("must be image, audio, video or document"),
        });
        let caption = fields.optional_text("caption", MAX_CAPTION_CHARS);
        if caption.is_some() && kind == Some(MessageType::Audio) {
            fields.problem("caption", "must not be given: WhatsApp shows none with a sound");
        }
        let file_name = fields.optional_text("file_name", MAX_NAME_CHARS);
        let typing = typing(&mut fields);
        fields.finish()?;
        let kind = kind.expect("no problem was noted");
        let wish = Wish { kind, caption, file_name, field };
        let (session, chat) = (session.expect("no problem was noted"), chat.expect("no problem was noted"));
        Ok(Self { session, to, chat, wish, typing })
    }

    /// The caller's key and what it stands for: these fields, and a file that came with a name or without.
    fn idempotency(&self, caller: &Caller, came_as: Option<&str>, source: Source<'_>) -> Option<Idempotency> {
        let Wish { kind, caption, file_name, .. } = &self.wish;
        let name = file_name.as_deref().or(came_as);
        let says = Says::File { kind: *kind, caption: caption.as_deref(), name, source };
        let meaning = Meaning { session: self.session, chat: &self.chat, typing: self.typing, says };
        Some(caller.key.as_ref()?.stands_for(&meaning))
    }
}
