//! What can be seen: phones' inboxes, counters, and what the oracle knows.

use std::collections::HashSet;

use warp::http::StatusCode;

use super::Request;
use super::answer::{Answer, Failure, json, not_found, respond, text};
use super::route::{Body, Kind, Param, Reply, Route, Run};
use super::verbs::{get, post};
use crate::account::DeviceKey;
use crate::oracle::checks;
use crate::stats::Stats;

const PHONE: Param = Param::required("phone", Kind::Phone, "the phone's number");
const DEVICE: Param = Param::required("device", Kind::Integer, "the device's number");
const MESSAGE: Param = Param::required("id", Kind::Text, "the message's id");
const IDS: Body = Body::Text("message ids, one a line");

/// The routes of this module.
pub(super) const ROUTES: &[Route] = &[
    Route {
        query: &[PHONE],
        reply: Reply::TextOrList("InboxMessage"),
        ..get("/inbox", "what the phone received", inbox)
    },
    Route {
        query: &[PHONE, MESSAGE],
        reply: Reply::List("Receipt"),
        ..get("/receipts", "the receipts for a message that the phone sent", receipts)
    },
    Route { query: &[PHONE], reply: Reply::List("DeviceInfo"), ..get("/devices", "the phone's companions", devices) },
    Route { reply: Reply::TextOrJson("Stats"), ..get("/stats", "counters", stats) },
    Route {
        reply: Reply::List("Violation"),
        ..get("/violations", "what clients did that no correct client may do", violations)
    },
    Route {
        reply: Reply::List("Notice"),
        ..get("/noticed", "what clients did that looks wrong, and may have an innocent cause", noticed)
    },
    Route {
        query: &[MESSAGE],
        reply: Reply::Json("Trace"),
        ..get("/trace", "a message from its acceptance to each device's acknowledgement", trace)
    },
    Route {
        reply: Reply::List("Trace"),
        ..get("/undelivered", "messages that a device has yet to acknowledge, or that were for none", undelivered)
    },
    Route {
        reply: Reply::List("Trace"),
        ..get("/duplicates", "messages that a device got again for no reason", duplicates)
    },
    Route {
        query: &[PHONE, DEVICE],
        reply: Reply::List("Acknowledged"),
        ..get("/acknowledged", "the messages that a device has acknowledged", acknowledged)
    },
    Route {
        query: &[
            Param::optional("phone", Kind::Phone, "of this phone's account alone"),
            Param::optional("device", Kind::Integer, "of this device alone"),
        ],
        reply: Reply::List("Connection"),
        ..get("/connections", "who was connected when, and in whose name", connections)
    },
    Route {
        query: &[PHONE, DEVICE],
        body: IDS,
        reply: Reply::List("Violation"),
        ..post("/check/stored", "what a device has acknowledged that is not among these ids", Run::Now(check_stored))
    },
    Route {
        query: &[PHONE],
        body: IDS,
        reply: Reply::List("Violation"),
        ..post("/check/sent", "which of these messages of the account did not arrive once", Run::Now(check_sent))
    },
    Route {
        reply: Reply::Text("hex"),
        ..get("/root", "the public key that signs the certificate chain", |r| {
            Ok(text(hex::encode(r.world.identity.root())))
        })
    },
    Route {
        reply: Reply::Text("this document, as JSON"),
        ..get("/openapi.json", "describes these routes", |_| {
            Ok(respond(StatusCode::OK, "application/json", super::OPENAPI))
        })
    },
];

fn inbox(request: &Request) -> Answer {
    let inbox = request.phone("phone")?.inbox();
    if request.json {
        return json(&inbox);
    }
    let lines = inbox.iter().map(|m| format!("{}: {}\n", m.from, m.text));
    Ok(text(lines.collect::<String>()))
}

fn receipts(request: &Request) -> Answer {
    json(&request.phone("phone")?.receipts(request.required("id")?))
}

fn devices(request: &Request) -> Answer {
    json(&request.phone("phone")?.devices())
}

fn stats(request: &Request) -> Answer {
    let stats = Stats::of(&request.world);
    if request.json { json(&stats) } else { Ok(text(stats.to_string())) }
}

fn violations(request: &Request) -> Answer {
    json(&request.world.oracle.violations())
}

fn noticed(request: &Request) -> Answer {
    json(&request.world.oracle.noticed())
}

fn trace(request: &Request) -> Answer {
    json(&request.world.ledger.trace(request.required("id")?).ok_or_else(not_found)?)
}

fn undelivered(request: &Request) -> Answer {
    json(&request.world.ledger.undelivered())
}

fn duplicates(request: &Request) -> Answer {
    json(&request.world.ledger.duplicates())
}

fn device(request: &Request) -> Result<DeviceKey, Failure> {
    Ok(DeviceKey { number: request.phone("phone")?.number().into(), device: request.device()? })
}

fn acknowledged(request: &Request) -> Answer {
    json(&request.world.ledger.acknowledged_by(&device(request)?))
}

fn connections(request: &Request) -> Answer {
    let oracle = &request.world.oracle;
    if request.query.contains_key("device") {
        return json(&oracle.connections(Some(&device(request)?)));
    }
    let mut connections = oracle.connections(None);
    if request.query.contains_key("phone") {
        let prefix = format!("{}:", request.phone("phone")?.number());
        connections.retain(|c| c.device.starts_with(&prefix));
    }
    json(&connections)
}

fn check_stored(request: &Request) -> Answer {
    let (key, world) = (device(request)?, &request.world);
    let stored: HashSet<&str> = request.lines()?.collect();
    json(&checks::stored(&world.ledger, &key, &stored, |id| world.oracle.describe(id)))
}

fn check_sent(request: &Request) -> Answer {
    let phone = request.phone("phone")?;
    json(&checks::sent(&request.world.ledger, phone.number(), request.lines()?))
}
