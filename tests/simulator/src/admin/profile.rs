//! What a phone shows of itself, what its devices agree on, and its calls.

use serde::Deserialize;

use super::Request;
use super::answer::{Answer, done, json, text};
use super::route::{Body, Kind, Param, Reply, Route, Run};
use super::verbs::{body, get, post};
use crate::app_state::StateChange;
use crate::phones::Activity;
use crate::profile::BusinessProfile;

const PHONE: Param = Param::required("phone", Kind::Phone, "the phone's number");
const CONTACT: Param = Param::required("number", Kind::Phone, "the contact's number");
const CHAT: Param = Param::required("chat", Kind::Text, "a number, or a group's JID");
const CALL: &[Param] = &[PHONE, Param::required("id", Kind::Text, "the call's id")];
const ON: Param = Param::required("on", Kind::Flag, "from now on, or no longer");
const ACTIVITIES: &[&str] = &["typing", "recording", "paused"];

/// The routes of this module.
pub(super) const ROUTES: &[Route] = &[
    Route {
        query: &[PHONE],
        reply: Reply::Json("Profile"),
        ..get("/profile", "what others see of the account", profile)
    },
    Route {
        query: &[PHONE],
        body: Body::Text("the new text"),
        ..post("/about", "the account's about text", Run::Now(about))
    },
    Route {
        query: &[PHONE],
        body: Body::Bytes,
        ..post("/picture", "sets the account's picture, a JPEG, or removes it", Run::Now(picture))
    },
    Route {
        query: &[PHONE],
        body: Body::Json("Business"),
        ..post("/business", "makes it a business's account; with `null`: no longer", Run::Now(business))
    },
    Route {
        query: &[
            PHONE,
            Param::required("category", Kind::Text, "such as last, online, profile, status, groupadd, readreceipts"),
            Param::required("value", Kind::Text, "such as all, contacts, none"),
        ],
        ..post("/privacy", "sets what the account shows to whom", Run::Now(privacy))
    },
    Route { query: &[PHONE, CONTACT], ..post("/trust", "lets a contact write first", Run::Now(trust)) },
    Route { query: &[PHONE, CONTACT, ON], ..post("/block", "blocks a contact, or no longer", Run::Now(block)) },
    Route { query: &[PHONE], reply: Reply::List("Number"), ..get("/blocked", "the blocked contacts", blocked) },
    Route { query: &[PHONE, ON], ..post("/available", "the phone is in use, or no longer", Run::Now(available)) },
    Route {
        query: &[PHONE, CONTACT],
        reply: Reply::Text("`true` or `false`: the contact is available"),
        ..post("/watch", "the phone wants to see when a contact comes and goes", Run::Now(watch))
    },
    Route {
        query: &[PHONE, CHAT, Param::required("activity", Kind::OneOf(ACTIVITIES), "what")],
        ..post("/activity", "the phone shows that somebody types", Run::Now(activity))
    },
    Route {
        query: &[PHONE],
        body: Body::Json("StateChanges"),
        ..post("/state", "changes what all devices of the account agree on", Run::Now(change_state))
    },
    Route {
        query: &[PHONE, CHAT],
        reply: Reply::Json("ChatState"),
        ..get("/chat-state", "what all devices of the account agree on about a chat", chat_state)
    },
    Route {
        query: &[PHONE],
        reply: Reply::List("Event"),
        ..get("/events", "what the phone saw besides messages: presence, typing, calls, history that was taken", events)
    },
    Route {
        query: &[PHONE, CONTACT, Param::optional("video", Kind::Flag, "with pictures; false")],
        reply: Reply::Text("the call's id"),
        ..post("/call", "the phone calls", Run::Now(call))
    },
    Route { query: CALL, ..post("/call/accept", "the phone takes a call", Run::Now(accept)) },
    Route { query: CALL, ..post("/call/reject", "the phone refuses a call", Run::Now(reject)) },
    Route { query: CALL, ..post("/call/end", "the phone ends a call", Run::Now(end)) },
];

fn profile(request: &Request) -> Answer {
    let phone = request.phone("phone")?;
    json(&serde_json::json!({ "push_name": phone.push_name(), "about": phone.about(), "lid": phone.lid() }))
}

fn about(request: &Request) -> Answer {
    request.phone("phone")?.set_about(request.text()?);
    Ok(done())
}

fn picture(request: &Request) -> Answer {
    let picture = (!request.body.is_empty()).then_some(&request.body[..]);
    request.phone("phone")?.set_picture(picture, None)?;
    Ok(done())
}

fn business(request: &Request) -> Answer {
    request.phone("phone")?.set_business(body::<Option<BusinessProfile>>(request)?);
    Ok(done())
}

fn privacy(request: &Request) -> Answer {
    request.phone("phone")?.set_privacy(request.required("category")?, request.required("value")?)?;
    Ok(done())
}

fn trust(request: &Request) -> Answer {
    request.phone("phone")?.trust(request.phone("number")?.number())?;
    Ok(done())
}

fn block(request: &Request) -> Answer {
    request.phone("phone")?.set_blocked(request.phone("number")?.number(), request.on()?)?;
    Ok(done())
}

fn blocked(request: &Request) -> Answer {
    json(&request.phone("phone")?.blocked())
}

fn available(request: &Request) -> Answer {
    request.phone("phone")?.set_available(request.on()?);
    Ok(done())
}

fn watch(request: &Request) -> Answer {
    Ok(text(request.phone("phone")?.watch(request.phone("number")?.number())?.to_string()))
}

fn activity(request: &Request) -> Answer {
    let activity = match request.required("activity")? {
        "typing" => Activity::Typing,
        "recording" => Activity::Recording,
        "paused" => Activity::Paused,
        _ => return Err(super::Failure::bad(format!("`activity` is none of {}", ACTIVITIES.join(", ")))),
    };
    let chat = request.required("chat")?.trim().trim_start_matches('+');
    request.phone("phone")?.set_activity(chat, activity)?;
    Ok(done())
}

/// Changes that are made together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateChanges {
    changes: Vec<StateChange>,
}

fn change_state(request: &Request) -> Answer {
    request.phone("phone")?.change_state(&body::<StateChanges>(request)?.changes)?;
    Ok(done())
}

fn chat_state(request: &Request) -> Answer {
    json(&request.phone("phone")?.chat_state(request.required("chat")?))
}

fn events(request: &Request) -> Answer {
    json(&request.phone("phone")?.events())
}

fn call(request: &Request) -> Answer {
    let video = request.query.contains_key("video") && request.flag("video")?;
    Ok(text(request.phone("phone")?.call(request.phone("number")?.number(), video)?))
}

fn accept(request: &Request) -> Answer {
    request.phone("phone")?.accept_call(request.required("id")?)?;
    Ok(done())
}

fn reject(request: &Request) -> Answer {
    request.phone("phone")?.reject_call(request.required("id")?)?;
    Ok(done())
}

fn end(request: &Request) -> Answer {
    request.phone("phone")?.end_call(request.required("id")?)?;
    Ok(done())
}
