//! Groups: a phone makes and changes them.

use serde::Deserialize;

use super::Request;
use super::answer::{Answer, Failure, done, json, text};
use super::content::Members;
use super::route::{Body, Kind, Param, Reply, Route, Run};
use super::verbs::{body, get, post};
use crate::error::PhoneError;
use crate::groups::GroupOptions;
use crate::phones::Phone;

const PHONE: Param = Param::required("phone", Kind::Phone, "the phone's number");
const GROUP: Param = Param::required("group", Kind::Text, "the group's JID");
const IN_GROUP: &[Param] = &[PHONE, GROUP];
const SETTINGS: &[Param] = &[
    PHONE,
    GROUP,
    Param::optional("locked", Kind::Flag, "only admins change what the group says of itself"),
    Param::optional("announce", Kind::Flag, "only admins write"),
    Param::optional("approval", Kind::Flag, "an admin must approve who wants to join"),
    Param::optional("members-add", Kind::Flag, "every member may add others"),
    Param::optional("ephemeral-seconds", Kind::Integer, "after how many seconds messages disappear; 0 for never"),
];

/// The routes of this module.
pub(super) const ROUTES: &[Route] = &[
    Route {
        query: &[PHONE],
        body: Body::Json("Group"),
        reply: Reply::Text("the group's JID"),
        ..post("/groups", "the phone makes a group", Run::Now(create))
    },
    change("/groups/add", "the phone adds members", |r| members(r, Phone::add_to_group)),
    change("/groups/remove", "the phone removes members, or itself", |r| members(r, Phone::remove_from_group)),
    change("/groups/promote", "the phone makes members admins", |r| members(r, Phone::promote_in_group)),
    change("/groups/demote", "the phone makes admins members", |r| members(r, Phone::demote_in_group)),
    Route {
        query: &[PHONE, GROUP, Param::required("approve", Kind::Flag, "let them in, or not")],
        ..change("/groups/decide", "the phone decides on who has asked to join", decide)
    },
    Route { query: IN_GROUP, ..post("/groups/leave", "the phone leaves a group", Run::Now(leave)) },
    Route {
        query: IN_GROUP,
        body: Body::Text("the new subject"),
        ..post("/groups/subject", "the phone renames a group", Run::Now(rename))
    },
    Route {
        query: IN_GROUP,
        body: Body::Text("the new description"),
        ..post("/groups/description", "the phone describes a group", Run::Now(describe))
    },
    Route {
        query: IN_GROUP,
        body: Body::Bytes,
        ..post("/groups/picture", "the phone sets a group's picture, a JPEG, or removes it", Run::Now(picture))
    },
    Route { query: SETTINGS, ..post("/groups/settings", "the phone sets how a group works", Run::Now(set)) },
    Route {
        query: IN_GROUP,
        reply: Reply::Text("the code at the end of the link"),
        ..get("/groups/invite", "the link to join a group", invite)
    },
    Route {
        query: IN_GROUP,
        ..post("/groups/revoke-invite", "the phone makes another link to join a group", Run::Now(revoke_invite))
    },
    Route {
        query: &[PHONE, Param::required("code", Kind::Text, "the end of the link")],
        reply: Reply::Text("the group's JID"),
        ..post("/groups/join", "the phone joins a group by its link, or asks to", Run::Now(join))
    },
    Route { query: IN_GROUP, reply: Reply::List("Number"), ..get("/groups/members", "a group's members", list) },
];

/// A change that is about members.
const fn change(path: &'static str, about: &'static str, run: fn(&Request) -> Answer) -> Route {
    let route = post(path, about, Run::Now(run));
    Route { query: IN_GROUP, body: Body::Json("Members"), ..route }
}

/// A new group.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGroup {
    subject: String,
    members: Vec<String>,
    #[serde(default)]
    by_lid: bool,
}

fn create(request: &Request) -> Answer {
    let group: NewGroup = body(request)?;
    let members = digits(&group.members)?;
    let options = GroupOptions { by_lid: group.by_lid, ..GroupOptions::default() };
    Ok(text(request.phone("phone")?.create_group_with(&group.subject, &members, options)?))
}

/// Phone numbers, which may begin with a `+`.
pub(super) fn digits(numbers: &[String]) -> Result<Vec<&str>, Failure> {
    numbers.iter().map(|n| super::number(n)).collect()
}

/// A verb of a phone on a group and numbers.
type OnMembers = fn(&Phone, &str, &[&str]) -> Result<(), PhoneError>;

fn members(request: &Request, verb: OnMembers) -> Answer {
    let Members { members } = body(request)?;
    verb(&request.phone("phone")?, request.required("group")?, &digits(&members)?)?;
    Ok(done())
}

fn decide(request: &Request) -> Answer {
    let (approve, Members { members }) = (request.flag("approve")?, body(request)?);
    let group = request.required("group")?;
    request.phone("phone")?.decide_group_requests(group, &digits(&members)?, approve)?;
    Ok(done())
}

fn leave(request: &Request) -> Answer {
    request.phone("phone")?.leave_group(request.required("group")?)?;
    Ok(done())
}

fn rename(request: &Request) -> Answer {
    request.phone("phone")?.set_group_subject(request.required("group")?, request.text()?)?;
    Ok(done())
}

fn describe(request: &Request) -> Answer {
    request.phone("phone")?.set_group_description(request.required("group")?, request.text()?)?;
    Ok(done())
}

fn picture(request: &Request) -> Answer {
    let picture = (!request.body.is_empty()).then_some(&request.body[..]);
    request.phone("phone")?.set_group_picture(request.required("group")?, picture)?;
    Ok(done())
}

/// A verb of a phone on a group.
type Set = fn(&Phone, &str, bool) -> Result<(), PhoneError>;

fn set(request: &Request) -> Answer {
    let (phone, group) = (request.phone("phone")?, request.required("group")?);
    let settings: [(&str, Set); 4] = [
        ("locked", Phone::set_group_locked),
        ("announce", Phone::set_group_announce),
        ("approval", Phone::set_group_approval),
        ("members-add", Phone::set_group_members_add),
    ];
    for (key, set) in settings {
        if request.query.contains_key(key) {
            set(&phone, group, request.flag(key)?)?;
        }
    }
    if request.query.contains_key("ephemeral-seconds") {
        phone.set_group_ephemeral(group, request.parsed("ephemeral-seconds")?)?;
    }
    Ok(done())
}

fn invite(request: &Request) -> Answer {
    Ok(text(request.phone("phone")?.group_invite(request.required("group")?)?))
}

fn revoke_invite(request: &Request) -> Answer {
    request.phone("phone")?.revoke_group_invite(request.required("group")?)?;
    Ok(done())
}

fn join(request: &Request) -> Answer {
    Ok(text(request.phone("phone")?.join_group(request.required("code")?)?))
}

fn list(request: &Request) -> Answer {
    json(&request.phone("phone")?.group_members(request.required("group")?)?)
}
