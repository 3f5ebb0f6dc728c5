//! The admin routes and the media, over HTTP. The routes are listed in [`ROUTES`], which `--help` prints.
//!
//! Only for machines and people that may do anything: there is no authorization.

mod answer;
mod faults;
mod verbs;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::net::TcpListener;
use warp::http::header::{ACCEPT, RANGE};
use warp::http::{Method, Response, StatusCode};
use warp::path::FullPath;
use warp::{Filter, Rejection};

use crate::media;
use crate::phones::Phone;
use crate::server::phone;
use crate::world::World;
use answer::{Answer, Failure};

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
GET  /trace?id=                    JSON: a message from its acceptance to each device's acknowledgement
GET  /stats                        counters; `?format=json` for JSON
GET  /violations                   JSON: what clients did that no correct client may do
GET  /root                         public key of the certificate chain, hex
POST /fault/drop?phone=&device=              drop the device's connection
POST /fault/freeze?phone=&device=&on=        stop reading and writing on it, or resume
POST /fault/redeliver?phone=&device=         send again what is not acknowledged; answers how much
POST /fault/refuse-logins[?reason=401]       refuse every login; without a reason: no longer
POST /fault/hold-acks?on=                    keep acknowledgements of messages back, or release them
POST /fault/cut?phone=&device=               break the connection in the middle of a frame
POST /fault/stream-error?phone=&device=&code=  end its stream with an error
POST /fault/unknown?phone=&device=           send it a stanza that no client knows
POST /fault/exhaust-prekeys?phone=&device=   take its one-time prekeys away; answers how many
POST /fault/duplicate?on=                    deliver everything twice
POST /fault/hold-receipts?on=&seed=          keep receipts back, or release them in another order
POST /fault/reject?[phone=]&[code=463]       refuse messages of an account or all; without a code: no longer
POST /fault/delay?ms=&jitter-ms=&seed=       slow every connection down; 0 and 0: no longer
POST /fault/clock?ahead=                     put the server's clock ahead by so many seconds
POST /fault/media?state=                     the media host: `down`, `slow`, `lying` or `well`
POST /mms/TYPE/NAME                body: a medium; answers its `url` and `direct_path`
GET, HEAD, DELETE /v/sim/NAME      a medium, or a range of it";

/// Bytes of a body that is not a medium.
const BODY_BYTES: usize = 128 << 10;
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
        .and(warp::header::optional::<String>(RANGE.as_str()))
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
    range: Option<String>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
) -> Result<Response<Bytes>, Rejection> {
    if media::http::is_media(path.as_str()) {
        let request =
            media::http::Request { method: &method, path: path.as_str(), query: &query, range: range.as_deref() };
        return Ok(media::http::answer(&world, &request, body).await);
    }
    let json =
        query.get("format").is_some_and(|f| f == "json") || accept.is_some_and(|a| a.contains("application/json"));
    let answer = match read(body, BODY_BYTES).await {
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
            ("POST", path) if path.starts_with("/fault/") => self.fault(path),
            ("POST", path) => self.verb(path),
            ("GET", path) => self.view(path),
            _ => Err(Failure(StatusCode::METHOD_NOT_ALLOWED, "no such method".into())),
        }
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
