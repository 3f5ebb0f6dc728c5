//! What phones do.

use std::pin::Pin;
use std::time::Duration;

use serde::de::DeserializeOwned;
use warp::http::StatusCode;

use super::Request;
use super::answer::{Answer, Failure, done, json, text};
use super::content::{Sent, Status};
use super::groups::digits;
use super::route::{Body, Kind, Param, Reply, Route, Run};
use crate::phones::HistorySize;

/// Messages of one burst.
const BURST: usize = 10_000;
/// How long a wait may take.
const WAIT_MS: usize = 60_000;

const PHONE: Param = Param::required("phone", Kind::Phone, "the phone's number");
const FROM: Param = Param::required("from", Kind::Phone, "the phone that sends");
const TO: Param = Param::required("to", Kind::Phone, "the number that it sends to");
const CHAT: Param = Param::required("to", Kind::Text, "a number, or a group's JID");
const MESSAGE: Param = Param::required("id", Kind::Text, "the message's id");
const DEVICE: Param = Param::required("device", Kind::Integer, "the device's number");

/// The routes of this module.
pub(super) const ROUTES: &[Route] = &[
    Route {
        query: &[PHONE],
        body: Body::Text("a client's QR code, plain or as a link"),
        reply: Reply::Text("`number:device`"),
        ..post("/scan", "the phone links a client by its QR code", Run::Now(scan))
    },
    Route {
        query: &[PHONE],
        body: Body::Text("the code that a client shows"),
        ..post("/code", "the phone links a client by its pairing code", Run::Later(code))
    },
    Route {
        query: &[FROM, TO],
        body: Body::Text("the text"),
        reply: Reply::Text("the message id"),
        ..post("/inject", "a phone sends a text to a number", Run::Now(inject))
    },
    Route {
        query: &[FROM, CHAT],
        body: Body::Json("Content"),
        reply: Reply::Text("the message id"),
        ..post("/send", "a phone sends anything to a number or a group", Run::Later(send))
    },
    Route {
        query: &[FROM, TO, Param::optional("count", Kind::Integer, "1 to 10000")],
        body: Body::Text("the text"),
        ..post("/burst", "a phone sends a text so many times as fast as it can", Run::Later(burst))
    },
    Route {
        query: &[
            PHONE,
            Param::optional("chats", Kind::Integer, "how many chats; 3"),
            Param::optional("msgs", Kind::Integer, "messages of each; 5"),
        ],
        ..post("/history", "the phone gives its companions a chunk of history", Run::Now(history))
    },
    Route {
        query: &[
            PHONE,
            Param::required("chats", Kind::Integer, "how many chats"),
            Param::required("messages", Kind::Integer, "messages of all chats together"),
        ],
        ..post("/history-size", "how much history the phone has for new companions", Run::Now(history_size))
    },
    Route {
        query: &[PHONE, MESSAGE],
        ..post("/read", "the phone reads a message: its sender gets a receipt", Run::Now(read))
    },
    Route {
        query: &[PHONE, MESSAGE],
        ..post("/release", "the phone sends a message that it has held back", Run::Now(release))
    },
    Route {
        query: &[PHONE, Param::required("on", Kind::Flag, "from now on, or no longer")],
        ..post("/echo", "the phone answers each text with `echo: TEXT`", Run::Now(echo))
    },
    Route { query: &[PHONE, DEVICE], ..post("/unlink", "the phone logs a companion out", Run::Now(unlink)) },
    Route {
        query: &[PHONE],
        ..post("/forget-sessions", "the phone loses its Signal sessions", Run::Now(forget_sessions))
    },
    Route {
        query: &[PHONE, MESSAGE],
        ..post("/played", "the phone plays a message: its sender gets a receipt", Run::Now(played))
    },
    Route {
        query: &[PHONE],
        body: Body::Json("Status"),
        reply: Reply::Text("the message id"),
        ..post("/status", "the phone posts a status", Run::Later(status))
    },
    Route {
        query: &[
            PHONE,
            Param::optional("text", Kind::Text, "its text"),
            Param::optional("id", Kind::Text, "its id"),
            Param::optional("from", Kind::Phone, "its sender"),
            Param::optional("timeout-ms", Kind::Integer, "how long; 10000, at most 60000"),
        ],
        method: "GET",
        reply: Reply::Json("InboxMessage"),
        ..post("/wait", "waits for a message in the phone's inbox; 408 when none comes", Run::Later(wait))
    },
];

/// A `POST` without parameters that answers `ok`: what most routes vary.
pub(super) const fn post(path: &'static str, about: &'static str, run: Run) -> Route {
    Route { method: "POST", path, about, query: &[], body: Body::None, reply: Reply::Done, run }
}

/// A `GET` without parameters.
pub(super) const fn get(path: &'static str, about: &'static str, run: fn(&Request) -> Answer) -> Route {
    let route = post(path, about, Run::Now(run));
    Route { method: "GET", ..route }
}

fn scan(request: &Request) -> Answer {
    Ok(text(request.phone("phone")?.scan(request.text()?)?))
}

fn inject(request: &Request) -> Answer {
    let to = request.phone("to")?;
    Ok(text(request.phone("from")?.send_text(to.number(), request.text()?)?))
}

fn history(request: &Request) -> Answer {
    let (chats, messages) = (request.number("chats", 3)?, request.number("msgs", 5)?);
    request.phone("phone")?.send_history(chats, messages)?;
    Ok(done())
}

fn history_size(request: &Request) -> Answer {
    let size = HistorySize { chats: request.parsed("chats")?, messages: request.parsed("messages")? };
    request.phone("phone")?.set_history(size);
    Ok(done())
}

fn read(request: &Request) -> Answer {
    request.phone("phone")?.mark_read(request.required("id")?)?;
    Ok(done())
}

fn release(request: &Request) -> Answer {
    request.phone("phone")?.release(request.required("id")?)?;
    Ok(done())
}

fn echo(request: &Request) -> Answer {
    request.phone("phone")?.set_echo(request.on()?);
    Ok(done())
}

fn unlink(request: &Request) -> Answer {
    request.phone("phone")?.unlink(request.device()?)?;
    Ok(done())
}

fn forget_sessions(request: &Request) -> Answer {
    request.phone("phone")?.forget_sessions();
    Ok(done())
}

fn played(request: &Request) -> Answer {
    request.phone("phone")?.mark_played(request.required("id")?)?;
    Ok(done())
}

fn status(request: Request) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
    Box::pin(apart(move || {
        let Status { content, to } = body(&request)?;
        let (content, _) = content.read()?;
        Ok(text(request.phone("phone")?.post_status(&content, &digits(&to)?)?))
    }))
}

/// The JSON of a request.
pub(super) fn body<T: DeserializeOwned>(request: &Request) -> Result<T, Failure> {
    serde_json::from_slice(&request.body).map_err(|e| Failure::bad(format!("the body: {e}")))
}

/// Work that takes long, apart from the tasks that serve connections.
async fn apart(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Failure(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?
}

/// Deriving the keys from the code takes long.
fn code(request: Request) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
    Box::pin(apart(move || {
        request.phone("phone")?.enter_code(request.text()?)?;
        Ok(done())
    }))
}

/// Encrypting a large medium takes long.
fn send(request: Request) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
    Box::pin(apart(move || {
        let (content, options) = body::<Sent>(&request)?.read()?;
        let to = request.required("to")?.trim().trim_start_matches('+');
        Ok(text(request.phone("from")?.send_with(to, &content, &options)?))
    }))
}

/// Encrypting so many messages takes long as well.
fn burst(request: Request) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
    Box::pin(apart(move || {
        let (from, to) = (request.phone("from")?, request.phone("to")?);
        let (text, count) = (request.text()?, request.number("count", 1)?);
        if count > BURST {
            return Err(Failure::bad(format!("`count` is more than {BURST}")));
        }
        for _ in 0..count {
            from.send_text(to.number(), text)?;
        }
        Ok(done())
    }))
}

fn wait(request: Request) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
    Box::pin(async move {
        let phone = request.phone("phone")?;
        let timeout = Duration::from_millis(request.number("timeout-ms", 10_000)?.min(WAIT_MS) as u64);
        let given = |key: &str| request.query.get(key).map(String::as_str);
        let from = given("from").map(super::number).transpose()?;
        let (wanted, id) = (given("text"), given("id"));
        let matches = |m: &crate::phones::InboxMessage| {
            wanted.is_none_or(|t| m.text == t) && id.is_none_or(|i| m.id == i) && from.is_none_or(|f| m.from == f)
        };
        json(&phone.wait_for(timeout, matches).await?)
    })
}
