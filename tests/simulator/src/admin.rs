//! The admin routes and the media, over HTTP. The routes are listed in [`ROUTES`], which `--help` prints.
//!
//! Only for machines and people that may do anything: there is no authorization.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use tokio::net::TcpListener;
use warp::http::header::{ACCEPT, CONTENT_TYPE};
use warp::http::{Method, Response, StatusCode};
use warp::path::FullPath;
use warp::{Filter, Rejection};

use crate::account::lock;
use crate::error::PhoneError;
use crate::faults::Faults;
use crate::media;
use crate::phones::Phone;
use crate::server::phone;
use crate::stats::Stats;
use crate::world::World;

/// What the admin port serves; printed by `--help`.
pub const ROUTES: &str = "\
POST /scan?phone=                  body: a client's QR code; answers `number:device`
POST /code?phone=                  body: the pairing code that a client shows
POST /inject?from=&to=             body: a text that the phone `from` sends; answers the message id
POST /burst?from=&to=&count=       the same, so many times as fast as the phone can
POST /history?phone=&chats=&msgs=  the phone gives its companions a chunk of history
POST /read?phone=&id=              the phone reads a message: its sender gets a receipt
POST /echo?phone=&on=true|false    the phone answers each text with `echo: TEXT`
POST /unlink?phone=&device=        the phone logs a companion out
GET  /inbox?phone=                 what the phone received, lines `from: text`; `&format=json` for JSON
GET  /receipts?phone=&id=          JSON: receipts for a message that the phone sent
GET  /devices?phone=               JSON: the phone's companions
GET  /stats                        counters; `?format=json` for JSON
GET  /violations                   JSON: what clients did that no correct client may do
GET  /root                         public key of the certificate chain, hex
POST /fault/drop?phone=&device=              drop the device's connection
POST /fault/freeze?phone=&device=&on=        stop reading and writing on it, or resume
POST /fault/redeliver?phone=&device=         send again what is not acknowledged; answers how much
POST /fault/refuse-logins[?reason=401]       refuse every login; without a reason: no longer
POST /fault/hold-acks?on=                    keep acknowledgements of messages back, or release them
POST /mms/TYPE/NAME                body: a medium; answers its `url` and `direct_path`
GET, DELETE /v/sim/NAME            a medium";

/// Bytes of a body that is not a medium.
const BODY_BYTES: usize = 128 << 10;
/// Messages of one burst.
const BURST: usize = 10_000;
/// Digits of a phone number.
const NUMBER_DIGITS: std::ops::RangeInclusive<usize> = 5..=15;

type Query = HashMap<String, String>;

/// Serves the admin port until the simulator stops.
pub(crate) async fn serve(world: Arc<World>, listener: TcpListener) {
    let stop = world.stop.clone();
    let query = warp::query::<Query>().or(warp::any().map(Query::new)).unify();
    let handler = warp::any()
        .map(move || world.clone())
        .and(warp::method())
        .and(warp::path::full())
        .and(query)
        .and(warp::header::optional::<String>(ACCEPT.as_str()))
        .and(warp::body::stream())
        .and_then(handle);
    // Open connections of clients must not hold the simulator back.
    let server = warp::serve(handler).incoming(listener).run();
    stop.run_until_cancelled(server).await;
}

async fn handle(
    world: Arc<World>,
    method: Method,
    path: FullPath,
    query: Query,
    accept: Option<String>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
) -> Result<Response<Bytes>, Rejection> {
    let limit = if path.as_str().starts_with("/mms/") {
        usize::try_from(world.config.limits.media_bytes).unwrap_or(usize::MAX)
    } else {
        BODY_BYTES
    };
    let json =
        query.get("format").is_some_and(|f| f == "json") || accept.is_some_and(|a| a.contains("application/json"));
    let answer = match read(body, limit).await {
        Some(body) => {
            let request = Request { world, query, body, json };
            request.answer(&method, path.as_str()).await
        }
        None => Err(Failure(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large".into())),
    };
    Ok(answer.unwrap_or_else(Failure::response))
}

async fn read(body: impl Stream<Item = Result<impl Buf, warp::Error>>, limit: usize) -> Option<Bytes> {
    let mut body = std::pin::pin!(body);
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.ok()?;
        if bytes.len() + chunk.remaining() > limit {
            return None;
        }
        bytes.extend_from_slice(chunk.chunk());
    }
    Some(bytes.freeze())
}

/// A refusal: a status and why.
struct Failure(StatusCode, String);

impl Failure {
    fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }

    fn response(self) -> Response<Bytes> {
        let body = serde_json::json!({ "message": self.1 }).to_string();
        respond(self.0, "application/json", body)
    }
}

impl From<PhoneError> for Failure {
    fn from(error: PhoneError) -> Self {
        let status = match error {
            PhoneError::UnknownNumber(_)
            | PhoneError::UnknownDevice(_)
            | PhoneError::UnknownMessage(_)
            | PhoneError::UnknownReference
            | PhoneError::NoPendingCode => StatusCode::NOT_FOUND,
            PhoneError::TooManyDevices(_) => StatusCode::CONFLICT,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

type Answer = Result<Response<Bytes>, Failure>;

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let kind = warp::http::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn text(body: impl Into<Bytes>) -> Response<Bytes> {
    respond(StatusCode::OK, "text/plain; charset=utf-8", body)
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => Ok(respond(StatusCode::OK, "application/json", body)),
        Err(e) => Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())),
    }
}

fn done() -> Response<Bytes> {
    text("ok")
}

struct Request {
    world: Arc<World>,
    query: Query,
    body: Bytes,
    json: bool,
}

impl Request {
    async fn answer(&self, method: &Method, path: &str) -> Answer {
        match (method.as_str(), path) {
            ("POST", "/code") => self.code().await,
            ("POST", "/burst") => self.burst().await,
            ("POST", path) if path.starts_with("/mms/") => self.upload(path),
            ("POST", path) if path.starts_with("/fault/") => self.fault(path),
            ("POST", path) => self.verb(path),
            ("GET", path) if path.starts_with(media::PATH) => self.download(path),
            ("DELETE", path) if path.starts_with(media::PATH) => {
                lock(&self.world.media).remove(&path[media::PATH.len()..]);
                Ok(done())
            }
            ("GET", path) => self.view(path),
            _ => Err(Failure(StatusCode::METHOD_NOT_ALLOWED, "no such method".into())),
        }
    }

    /// What a phone does.
    fn verb(&self, path: &str) -> Answer {
        match path {
            "/scan" => Ok(text(self.phone("phone")?.scan(self.text()?)?)),
            "/inject" => {
                let to = self.phone("to")?;
                let id = self.phone("from")?.send_text(to.number(), self.text()?)?;
                Ok(text(id))
            }
            "/history" => {
                let (chats, messages) = (self.number("chats", 3)?, self.number("msgs", 5)?);
                self.phone("phone")?.send_history(chats, messages)?;
                Ok(done())
            }
            "/read" => {
                self.phone("phone")?.mark_read(self.required("id")?)?;
                Ok(done())
            }
            "/echo" => {
                self.phone("phone")?.set_echo(self.on()?);
                Ok(done())
            }
            "/unlink" => {
                self.phone("phone")?.unlink(self.device()?)?;
                Ok(done())
            }
            _ => Err(not_found()),
        }
    }

    /// What can be seen.
    fn view(&self, path: &str) -> Answer {
        match path {
            "/inbox" => {
                let inbox = self.phone("phone")?.inbox();
                if self.json {
                    return json(&inbox);
                }
                let lines = inbox.iter().map(|m| format!("{}: {}\n", m.from, m.text));
                Ok(text(lines.collect::<String>()))
            }
            "/receipts" => json(&self.phone("phone")?.receipts(self.required("id")?)),
            "/devices" => json(&self.phone("phone")?.devices()),
            "/stats" if self.json => json(&Stats::of(&self.world)),
            "/stats" => Ok(text(Stats::of(&self.world).to_string())),
            "/violations" => json(&self.world.oracle.violations()),
            "/root" => Ok(text(hex::encode(self.world.identity.root()))),
            _ => Err(not_found()),
        }
    }

    fn fault(&self, path: &str) -> Answer {
        let faults = Faults::new(self.world.clone());
        let target = || Ok::<_, Failure>((self.phone("phone")?, self.device()?));
        let hit = match path {
            "/fault/drop" => {
                let (phone, device) = target()?;
                faults.drop_connection(phone.number(), device)
            }
            "/fault/freeze" => {
                let (phone, device) = target()?;
                faults.freeze(phone.number(), device, self.on()?)
            }
            "/fault/redeliver" => {
                let (phone, device) = target()?;
                let sent = faults.redeliver(phone.number(), device);
                return Ok(text(sent.to_string()));
            }
            "/fault/refuse-logins" => {
                let reason = self.query.get("reason").map(|r| r.parse());
                faults.refuse_logins(reason.transpose().map_err(|_| Failure::bad("reason"))?);
                true
            }
            "/fault/hold-acks" => {
                faults.hold_acks(self.on()?);
                true
            }
            _ => return Err(not_found()),
        };
        if hit {
            return Ok(done());
        }
        Err(Failure(StatusCode::NOT_FOUND, "the device has no connection".into()))
    }

    /// Deriving the keys from the code takes long, so that it runs apart.
    async fn code(&self) -> Answer {
        let (phone, code) = (self.phone("phone")?, self.text()?.to_string());
        let entered = tokio::task::spawn_blocking(move || phone.enter_code(&code)).await;
        entered.map_err(|e| Failure(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))??;
        Ok(done())
    }

    /// Encrypting so many messages takes long as well.
    async fn burst(&self) -> Answer {
        let (from, to) = (self.phone("from")?, self.phone("to")?);
        let (text, count) = (self.text()?.to_string(), self.number("count", 1)?);
        if count > BURST {
            return Err(Failure::bad(format!("`count` is more than {BURST}")));
        }
        let sending = move || (0..count).try_for_each(|_| from.send_text(to.number(), &text).map(drop));
        let sent = tokio::task::spawn_blocking(sending).await;
        sent.map_err(|e| Failure(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))??;
        Ok(done())
    }

    fn upload(&self, path: &str) -> Answer {
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.is_empty() {
            return Err(not_found());
        }
        if !media::store(&self.world, name, self.body.clone()) {
            return Err(Failure(StatusCode::PAYLOAD_TOO_LARGE, "too large".into()));
        }
        let host = self.world.media_host.get().cloned().unwrap_or_default();
        let direct_path = media::direct_path(name);
        json(&serde_json::json!({
            "url": format!("https://{host}{direct_path}"),
            "direct_path": direct_path,
        }))
    }

    fn download(&self, path: &str) -> Answer {
        let medium = lock(&self.world.media).get(&path[media::PATH.len()..]);
        let medium = medium.ok_or_else(not_found)?;
        Ok(respond(StatusCode::OK, "application/octet-stream", medium))
    }

    fn required(&self, key: &str) -> Result<&str, Failure> {
        let value = self.query.get(key).map(String::as_str);
        value.ok_or_else(|| Failure::bad(format!("`{key}` is missing")))
    }

    fn phone(&self, key: &str) -> Result<Phone, Failure> {
        let number = self.required(key)?.trim().trim_start_matches('+');
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        if !digits || !NUMBER_DIGITS.contains(&number.len()) {
            return Err(Failure::bad(format!("`{key}` is no phone number")));
        }
        Ok(phone(&self.world, number))
    }

    fn device(&self) -> Result<u16, Failure> {
        let device = self.required("device")?.parse();
        device.map_err(|_| Failure::bad("`device` is no device number"))
    }

    fn on(&self) -> Result<bool, Failure> {
        match self.required("on")? {
            "true" | "1" | "on" => Ok(true),
            "false" | "0" | "off" => Ok(false),
            _ => Err(Failure::bad("`on` is neither true nor false")),
        }
    }

    fn number(&self, key: &str, default: usize) -> Result<usize, Failure> {
        let Some(value) = self.query.get(key) else {
            return Ok(default);
        };
        value.parse().map_err(|_| Failure::bad(format!("`{key}` is no number")))
    }

    fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(&self.body).map_err(|_| Failure::bad("the body is not text"))
    }
}

fn not_found() -> Failure {
    Failure(StatusCode::NOT_FOUND, "not found".into())
}
