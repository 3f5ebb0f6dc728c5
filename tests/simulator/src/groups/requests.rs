//! `xmlns=w:g2`: what clients ask of groups.

use std::sync::Arc;

use wacore_binary::jid::Server;
use wacore_binary::{Jid, Node};

use super::{Change, Group, GroupOptions, NOT_ACCEPTABLE, NOT_FOUND, NewGroup, change, create};
use crate::account::Account;
use crate::error::StanzaError;
use crate::router::{Login, Session};
use crate::stanza::{attr_is, children, content, element, jid_of, required_jid, text_of};
use crate::world::World;

/// Participants of one request.
const PARTICIPANTS: usize = 1_024;
/// What is neither known nor may be found out.
const GONE: StanzaError = StanzaError::Refused { code: 410, text: "gone" };
const NOT_AUTHORIZED: StanzaError = StanzaError::Refused { code: 401, text: "not-authorized" };

/// Answers `xmlns=w:g2`.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    let child = children(node).first().ok_or(StanzaError::Malformed("w:g2"))?;
    let request = Request { world: &session.world, login, to: required_jid(node, "to")?, child };
    let answer = if attr_is(node, "type", "get") { request.get()? } else { request.set()? };
    session.reply(node, answer);
    Ok(())
}

/// The members that a request names.
fn numbers(world: &World, node: &Node) -> Result<Vec<Arc<str>>, StanzaError> {
    let participants: Vec<&Node> = node.get_children_by_tag("participant").collect();
    if participants.len() > PARTICIPANTS {
        return Err(NOT_ACCEPTABLE);
    }
    let account = |p: &&Node| jid_of(p, "jid").and_then(|j| world.resolve(&j));
    Ok(participants.iter().filter_map(account).map(|a| a.number.clone()).collect())
}

fn text(node: &Node) -> String {
    String::from_utf8_lossy(content(node).unwrap_or_default()).into_owned()
}

fn number(node: &Node, key: &str) -> u32 {
    text_of(node, key).parse().unwrap_or(0)
}

fn approval(node: &Node) -> bool {
    node.get_optional_child("group_join").is_some_and(|join| attr_is(join, "state", "on"))
}

/// Each participant that a request names is answered for.
fn answers(tag: &'static str, named: &Node) -> Node {
    let participants = named.get_children_by_tag("participant");
    let answers = participants.map(|p| element("participant").attr("jid", text_of(p, "jid")).build());
    element(tag).children(answers).build()
}

struct Request<'a> {
    world: &'a Arc<World>,
    login: &'a Login,
    to: Jid,
    child: &'a Node,
}

impl Request<'_> {
    fn account(&self) -> &Account {
        &self.login.account
    }

    fn group(&self) -> Result<Arc<Group>, StanzaError> {
        self.world.groups.get(&self.to.user).ok_or(NOT_FOUND)
    }

    fn invited(&self) -> Result<Arc<Group>, StanzaError> {
        let code = text_of(self.child, "code");
        // A link that was replaced leads nowhere any more.
        self.world.groups.by_invite(&code).ok_or(if code.is_empty() { NOT_ACCEPTABLE } else { GONE })
    }

    fn get(&self) -> Result<Option<Node>, StanzaError> {
        let own = &self.account().number;
        let answer = match self.child.tag.as_ref() {
            "query" => {
                let group = self.group()?;
                if !group.has(own) {
                    return Err(super::FORBIDDEN);
                }
                group.node(self.world, true)
            }
            "participating" => {
                let groups = self.world.groups.of(own);
                element("groups").children(groups.iter().map(|g| g.node(self.world, true))).build()
            }
            "invite" if self.child.attrs.get("code").is_some() => self.invited()?.node(self.world, false),
            "invite" => {
                let group = self.group()?;
                if !group.admins.contains(own) {
                    return Err(NOT_AUTHORIZED);
                }
                element("invite").attr("code", group.invite.as_str()).build()
            }
            "membership_approval_requests" => {
                let group = self.group()?;
                if !group.admins.contains(own) {
                    return Err(NOT_AUTHORIZED);
                }
                group.requests_node(self.world)
            }
            _ => return Err(StanzaError::Refused { code: 501, text: "feature-not-implemented" }),
        };
        Ok(Some(answer))
    }

    fn set(&self) -> Result<Option<Node>, StanzaError> {
        let child = self.child;
        let simple = match child.tag.as_ref() {
            "create" => return self.create().map(Some),
            "leave" => return self.leave().map(Some),
            "invite" if child.attrs.get("code").is_some() => return self.join(&*self.invited()?).map(Some),
            "accept" => {
                let group = self.group()?;
                let known = group.invite == text_of(child, "code");
                return if known { self.join(&group).map(Some) } else { Err(GONE) };
            }
            "add" | "remove" | "promote" | "demote" => return self.members(child, child).map(Some),
            "membership_requests_action" => {
                let action = children(child).first().ok_or(StanzaError::Malformed("action"))?;
                let answer = self.members(action, action)?;
                return Ok(Some(element("membership_requests_action").children([answer]).build()));
            }
            "cancel_membership_requests" => {
                self.change(&Change::Cancel)?;
                return Ok(Some(answers("cancel_membership_requests", child)));
            }
            "invite" => {
                let group = self.change(&Change::Invite)?;
                return Ok(Some(element("invite").attr("code", group.invite.as_str()).build()));
            }
            "subject" => Change::Subject(text(child)),
            "description" => {
                let known = self.group()?.description.as_ref().map(|d| d.id.clone()).unwrap_or_default();
                let prev = text_of(child, "prev");
                if !prev.is_empty() && prev != known {
                    // Somebody else has changed it meanwhile.
                    return Err(StanzaError::Refused { code: 409, text: "conflict" });
                }
                let body = child.get_optional_child("body").filter(|_| !attr_is(child, "delete", "true"));
                Change::Description(text_of(child, "id"), body.map(text))
            }
            "locked" => Change::Locked(true),
            "unlocked" => Change::Locked(false),
            "announcement" => Change::Announce(true),
            "not_announcement" => Change::Announce(false),
            "ephemeral" => Change::Ephemeral(number(child, "expiration")),
            "not_ephemeral" => Change::Ephemeral(0),
            "membership_approval_mode" => Change::Approval(approval(child)),
            "member_add_mode" => Change::MembersAdd(text(child) == "all_member_add"),
            _ => return Err(StanzaError::Refused { code: 501, text: "feature-not-implemented" }),
        };
        self.change(&simple)?;
        Ok(None)
    }

    fn change(&self, to_do: &Change) -> Result<Arc<Group>, StanzaError> {
        change(self.world, self.account(), &self.to.user, to_do)
    }

    fn create(&self) -> Result<Node, StanzaError> {
        let child = self.child;
        let of = |tag| child.get_optional_child(tag);
        let options = GroupOptions {
            by_lid: self.world.config.lid_groups,
            locked: of("locked").is_some(),
            announce: of("announcement").is_some(),
            ephemeral_seconds: of("ephemeral").map_or(0, |e| number(e, "expiration")),
            approval: of("membership_approval_mode").is_some_and(approval),
            members_add: of("member_add_mode").is_some_and(|m| text(m) == "all_member_add"),
        };
        let description = of("description").and_then(|d| Some((text_of(d, "id"), text(d.get_optional_child("body")?))));
        let key = text_of(child, "key");
        let new = NewGroup {
            subject: text_of(child, "subject"),
            others: numbers(self.world, child)?,
            options,
            description,
            key: &key,
        };
        Ok(create(self.world, self.account(), new)?.node(self.world, true))
    }

    /// The client joins by a link, or asks to.
    fn join(&self, group: &Group) -> Result<Node, StanzaError> {
        if group.has(&self.account().number) {
            return Err(StanzaError::Refused { code: 409, text: "conflict" });
        }
        let joined = change(self.world, self.account(), &group.id, &Change::Join)?;
        let tag = if joined.has(&self.account().number) { "group" } else { "membership_approval_request" };
        Ok(element(tag).attr("jid", joined.jid()).build())
    }

    fn members(&self, action: &Node, named: &Node) -> Result<Node, StanzaError> {
        let who = numbers(self.world, named)?;
        let group = self.group()?;
        let (tag, to_do) = match action.tag.as_ref() {
            "add" => ("add", Change::Add(who)),
            "remove" => ("remove", Change::Remove(who)),
            "promote" => ("promote", Change::Promote(who)),
            "demote" => ("demote", Change::Demote(who)),
            "approve" => ("approve", Change::Approve(who)),
            "reject" => ("reject", Change::Reject(who)),
            _ => return Err(StanzaError::Malformed("action")),
        };
        self.change(&to_do)?;
        // Each participant is answered for, in the form in which the client named it.
        let answers = named.get_children_by_tag("participant").map(|participant| {
            let answer = element("participant").attr("jid", text_of(participant, "jid"));
            let account = jid_of(participant, "jid").and_then(|j| self.world.resolve(&j));
            match account {
                None => answer.attr("error", 404).build(),
                Some(account) if tag == "add" && group.has(&account.number) => answer.attr("error", 409).build(),
                Some(account) if matches!(tag, "remove" | "promote" | "demote") && !group.has(&account.number) => {
                    answer.attr("error", 404).build()
                }
                Some(_) => answer.build(),
            }
        });
        Ok(element(tag).children(answers).build())
    }

    fn leave(&self) -> Result<Node, StanzaError> {
        let mut left = Vec::new();
        for group in self.child.get_children_by_tag("group").take(PARTICIPANTS) {
            let jid = required_jid(group, "id")?;
            if jid.server != Server::Group {
                return Err(StanzaError::Malformed("id"));
            }
            let me = vec![self.account().number.clone()];
            change(self.world, self.account(), &jid.user, &Change::Remove(me))?;
            left.push(element("group").attr("id", jid).build());
        }
        Ok(element("leave").children(left).build())
    }
}
