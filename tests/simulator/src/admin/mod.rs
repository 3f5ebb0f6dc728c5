//! The admin routes and the media, over HTTP. All routes stand in one table, which `--help` prints and the OpenAPI
//! document is made from.
//!
//! Only for machines and people that may do anything: there is no authorization.

mod answer;
mod content;
mod evidence;
mod faults;
mod groups;
mod media_host;
mod openapi;
mod profile;
mod route;
mod verbs;

use std::collections::HashMap;
use std::str::FromStr;
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
use answer::{Answer, Failure, text};
use route::{Body, Route, Run};

/// The OpenAPI document, as it is checked in.
const OPENAPI: &str = include_str!("../../openapi.json");

fn routes() -> impl Iterator<Item = &'static Route> {
    [verbs::ROUTES, groups::ROUTES, profile::ROUTES, evidence::ROUTES, faults::ROUTES, media_host::ROUTES]
        .into_iter()
        .flatten()
}

/// What the admin port serves, one route a line.
pub fn admin_routes() -> String {
    routes().map(Route::line).collect::<Vec<_>>().join("\n")
}

/// The OpenAPI document of the admin port, made anew.
pub fn admin_openapi() -> String {
    let document = openapi::document(routes());
    serde_json::to_string_pretty(&document).expect("a value can be written") + "\n"
}

/// Bytes of a body that is not a medium.
const BODY_BYTES: usize = 128 << 10;
/// Bytes of a body that may hold a medium in base64.
const JSON_BYTES: usize = 24 << 20;
/// Message ids of one check.
const IDS: usize = 1_000_000;
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
    let answer = async {
        let route = find(method.as_str(), path.as_str(), &query)?;
        let body = read(body, body_limit(route)).await;
        let body = body.ok_or_else(|| Failure(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large".into()))?;
        Request { world, query, body, json }.answer(route).await
    };
    Ok(answer.await.unwrap_or_else(Failure::response))
}

/// Answers a request that is bytes: method and path with query on the first line, then the body. The status.
pub(crate) async fn answer_line(world: Arc<World>, request: &[u8]) -> u16 {
    let end = request.iter().position(|b| *b == b'\n').unwrap_or(request.len());
    let line = String::from_utf8_lossy(&request[..end]).into_owned();
    let body = Bytes::copy_from_slice(request.get(end + 1..).unwrap_or_default());
    let (method, place) = line.split_once(' ').unwrap_or((&line, ""));
    let (path, query) = place.split_once('?').unwrap_or((place, ""));
    let decoded = |part: &str| part.replace('+', " ");
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query = pairs.filter(|(key, _)| !key.is_empty()).map(|(k, v)| (decoded(k), decoded(v))).collect();
    let answer = async {
        let route = find(method, path, &query)?;
        if body.len() > body_limit(route) {
            return Err(Failure(StatusCode::PAYLOAD_TOO_LARGE, String::new()));
        }
        Request { world: world.clone(), query: query.clone(), body, json: true }.answer(route).await
    };
    answer.await.unwrap_or_else(Failure::response).status().as_u16()
}

/// The route that a request is for. What it does not take it must not be given: a parameter that is misspelt would
/// silently do nothing.
fn find(method: &str, path: &str, query: &Query) -> Result<&'static Route, Failure> {
    let mut at_path = routes().filter(|r| r.is_at(path)).peekable();
    if at_path.peek().is_none() {
        return Err(Failure(StatusCode::NOT_FOUND, "no such route".into()));
    }
    let route = at_path.find(|r| r.method == method);
    let route = route.ok_or_else(|| Failure(StatusCode::METHOD_NOT_ALLOWED, "no such method".into()))?;
    match query.keys().find(|key| !route.takes(key)) {
        Some(key) => Err(Failure::bad(format!("no parameter `{key}`"))),
        None => Ok(route),
    }
}

fn body_limit(route: &Route) -> usize {
    match route.body {
        Body::Json(_) => JSON_BYTES,
        Body::Text(_) if route.path.starts_with("/check/") => JSON_BYTES,
        Body::Text(_) | Body::Bytes | Body::None => BODY_BYTES,
    }
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
    async fn answer(self, route: &Route) -> Answer {
        match route.run {
            Run::Now(run) => run(&self),
            Run::Hit(act) => faults::hits(&self, act(&self)?),
            Run::Count(act) => Ok(text(act(&self)?.to_string())),
            Run::Later(run) => run(self).await,
            Run::MediaHost => Err(answer::not_found()),
        }
    }

    fn required(&self, key: &str) -> Result<&str, Failure> {
        let value = self.query.get(key).map(String::as_str);
        value.ok_or_else(|| Failure::bad(format!("`{key}` is missing")))
    }

    fn phone(&self, key: &str) -> Result<Phone, Failure> {
        let number = number(self.required(key)?).map_err(|_| Failure::bad(format!("`{key}` is no phone number")))?;
        Ok(phone(&self.world, number))
    }

    fn device(&self) -> Result<u16, Failure> {
        self.parsed("device")
    }

    fn on(&self) -> Result<bool, Failure> {
        self.flag("on")
    }

    fn flag(&self, key: &str) -> Result<bool, Failure> {
        match self.required(key)? {
            "true" | "1" | "on" => Ok(true),
            "false" | "0" | "off" => Ok(false),
            _ => Err(Failure::bad(format!("`{key}` is neither true nor false"))),
        }
    }

    fn number(&self, key: &str, default: usize) -> Result<usize, Failure> {
        let Some(value) = self.query.get(key) else {
            return Ok(default);
        };
        value.parse().map_err(|_| Failure::bad(format!("`{key}` is no number")))
    }

    fn parsed<T: FromStr>(&self, key: &str) -> Result<T, Failure> {
        self.required(key)?.parse().map_err(|_| Failure::bad(format!("`{key}` is no such number")))
    }

    /// The lines of the body that are not empty.
    fn lines(&self) -> Result<impl Iterator<Item = &str>, Failure> {
        Ok(self.text()?.lines().map(str::trim).filter(|line| !line.is_empty()).take(IDS))
    }

    fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(&self.body).map_err(|_| Failure::bad("the body is not text"))
    }
}

/// The digits of a phone number, which may begin with a `+`.
fn number(text: &str) -> Result<&str, Failure> {
    let number = text.trim().trim_start_matches('+');
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    if digits && NUMBER_DIGITS.contains(&number.len()) { Ok(number) } else { Err(Failure::bad("no phone number")) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_document_that_is_checked_in_is_of_these_routes() {
        assert!(
            OPENAPI == admin_openapi(),
            "run: cargo run -q -p whatsapp-simulator -- --openapi > tests/simulator/openapi.json"
        );
    }

    #[test]
    fn no_route_is_hidden_by_another() {
        let mut places = HashSet::new();
        for route in routes() {
            assert!(places.insert((route.method, route.path)), "{} twice", route.path);
            let query = Query::new();
            let found = find(route.method, &route.path.replace(['{', '}'], ""), &query);
            assert!(found.is_ok_and(|f| f.path == route.path), "{}", route.path);
            let names: HashSet<_> = route.query.iter().map(|p| p.name).collect();
            assert_eq!(names.len(), route.query.len(), "{}", route.path);
        }
    }

    #[test]
    fn what_is_misspelt_is_refused() {
        let status = |method, path, key: &str| {
            let query = Query::from([(key.to_string(), String::new())]);
            find(method, path, &query).err().map(|f| f.0.as_u16())
        };
        assert_eq!(status("POST", "/scan", "phone"), None);
        assert_eq!(status("POST", "/scan", "fone"), Some(400));
        assert_eq!(status("GET", "/scan", "phone"), Some(405));
        assert_eq!(status("POST", "/scam", "phone"), Some(404));
        assert_eq!(status("GET", "/v/sim/", "hash"), Some(404), "a name is missing");
        assert_eq!(status("GET", "/v/sim/x", "hash"), None, "clients append what they like");
    }
}
