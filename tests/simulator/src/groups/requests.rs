//! `xmlns=w:g2`: what clients ask of groups.

use std::sync::Arc;

use wacore_binary::Node;
use wacore_binary::jid::Server;

use super::{Change, NOT_ACCEPTABLE, NOT_FOUND, change, create};
use crate::error::StanzaError;
use crate::router::{Login, Session};
use crate::stanza::{children, content, element, jid_of, required_jid, text_of};
use crate::world::World;

/// Participants of one request.
const PARTICIPANTS: usize = 1_024;
/// A change of these members.
type MakeChange = fn(Vec<Arc<str>>) -> Change;

/// Bytes of a subject.
const SUBJECT_BYTES: usize = 1_024;

/// Answers `xmlns=w:g2`.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    let world = &session.world;
    let child = children(node).first().ok_or(StanzaError::Malformed("w:g2"))?;
    let answer = match child.tag.as_ref() {
        "create" => {
            let key = text_of(child, "key");
            let group = create(world, &login.account, text_of(child, "subject"), numbers(world, child)?, &key)?;
            Some(group.node(world))
        }
        "query" => {
            let id = required_jid(node, "to")?.user;
            Some(world.groups.get(&id).ok_or(NOT_FOUND)?.node(world))
        }
        "participating" => {
            let groups = world.groups.of(&login.account.number);
            Some(element("groups").children(groups.iter().map(|g| g.node(world))).build())
        }
        "leave" => Some(leave(world, login, child)?),
        tag => change_of(session, login, node, child, tag)?,
    };
    session.reply(node, answer);
    Ok(())
}

fn numbers(world: &World, node: &Node) -> Result<Vec<Arc<str>>, StanzaError> {
    let participants: Vec<&Node> = node.get_children_by_tag("participant").collect();
    if participants.len() > PARTICIPANTS {
        return Err(NOT_ACCEPTABLE);
    }
    let account = |p: &&Node| jid_of(p, "jid").and_then(|j| world.resolve(&j));
    Ok(participants.iter().filter_map(account).map(|a| a.number.clone()).collect())
}

fn change_of(
    session: &Session,
    login: &Login,
    node: &Node,
    child: &Node,
    tag: &str,
) -> Result<Option<Node>, StanzaError> {
    let world = &session.world;
    let to = required_jid(node, "to")?;
    let (tag, make): (_, MakeChange) = match tag {
        "add" => ("add", Change::Add),
        "remove" => ("remove", Change::Remove),
        "promote" => ("promote", Change::Promote),
        "demote" => ("demote", Change::Demote),
        "subject" => {
            let subject = content(child).filter(|s| s.len() <= SUBJECT_BYTES).ok_or(NOT_ACCEPTABLE)?;
            let subject = String::from_utf8_lossy(subject).into_owned();
            change(world, &login.account, &to.user, &Change::Subject(subject))?;
            return Ok(None);
        }
        _ => return Err(StanzaError::Refused { code: 501, text: "feature-not-implemented" }),
    };
    let who = numbers(world, child)?;
    change(world, &login.account, &to.user, &make(who))?;
    // Each participant is answered for, in the form in which the client named it.
    let answers = child.get_children_by_tag("participant").map(|participant| {
        let answer = element("participant").attr("jid", text_of(participant, "jid"));
        let known = jid_of(participant, "jid").is_some_and(|j| world.resolve(&j).is_some());
        if known { answer.build() } else { answer.attr("error", 404).build() }
    });
    Ok(Some(element(tag).children(answers).build()))
}

fn leave(world: &Arc<World>, login: &Login, node: &Node) -> Result<Node, StanzaError> {
    let mut left = Vec::new();
    for group in node.get_children_by_tag("group").take(PARTICIPANTS) {
        let jid = required_jid(group, "id")?;
        if jid.server != Server::Group {
            return Err(StanzaError::Malformed("id"));
        }
        let me = vec![login.account.number.clone()];
        change(world, &login.account, &jid.user, &Change::Remove(me))?;
        left.push(element("group").attr("id", jid).build());
    }
    Ok(element("leave").children(left).build())
}
