//! Groups: created, queried, and messages to them brought to every member's devices and phone.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use wacore_binary::jid::Server;
use wacore_binary::{Jid, Node};

use crate::account::DeviceKey;
use crate::error::StanzaError;
use crate::messages::Envelope;
use crate::phash;
use crate::router::{Login, Session};
use crate::stanza::{attr_is, children, content, element, jid_of, required_jid, text_of, unix_now};
use crate::world::World;

const NOT_FOUND: StanzaError = StanzaError::Refused { code: 404, text: "item-not-found" };

/// A group. Immutable: a change makes a new one.
pub(crate) struct Group {
    id: String,
    subject: String,
    creator: Arc<str>,
    members: Vec<Arc<str>>,
    created: u64,
}

/// All groups by id.
#[derive(Default)]
pub(crate) struct Groups(RwLock<HashMap<String, Arc<Group>>>);

impl Groups {
    fn get(&self, id: &str) -> Option<Arc<Group>> {
        let groups = self.0.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(id).cloned()
    }

    fn add(&self, group: Arc<Group>) {
        let mut groups = self.0.write().unwrap_or_else(PoisonError::into_inner);
        groups.insert(group.id.clone(), group);
    }

    fn of(&self, number: &str) -> Vec<Arc<Group>> {
        let groups = self.0.read().unwrap_or_else(PoisonError::into_inner);
        groups.values().filter(|g| g.has(number)).cloned().collect()
    }
}

impl Group {
    fn has(&self, number: &str) -> bool {
        self.members.iter().any(|m| **m == *number)
    }

    fn jid(&self) -> Jid {
        Jid::new(self.id.as_str(), Server::Group)
    }

    fn node(&self, world: &World) -> Node {
        let participants: Vec<Node> = self
            .members
            .iter()
            .map(|member| {
                let mut participant = element("participant").attr("jid", Jid::pn(&**member));
                if let Some(account) = world.account(member) {
                    participant = participant.attr("lid", account.lid(0));
                }
                if *member == self.creator {
                    participant = participant.attr("type", "superadmin");
                }
                participant.build()
            })
            .collect();
        element("group")
            .attr("id", self.id.as_str())
            .attr("creator", Jid::pn(&*self.creator))
            .attr("creation", self.created)
            .attr("subject", self.subject.as_str())
            .attr("s_t", self.created)
            .attr("s_o", Jid::pn(&*self.creator))
            .attr("addressing_mode", "pn")
            .attr("size", participants.len())
            .children(participants)
            .build()
    }
}

/// Answers `xmlns=w:g2`.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    let child = children(node).first().ok_or(StanzaError::Malformed("w:g2"))?;
    match child.tag.as_ref() {
        "create" => create(session, login, node, child),
        "query" => {
            let id = required_jid(node, "to")?.user;
            let group = session.world.groups.get(&id).ok_or(NOT_FOUND)?;
            session.reply(node, Some(group.node(&session.world)));
            Ok(())
        }
        "participating" => {
            let groups = session.world.groups.of(&login.account.number);
            let groups = groups.iter().map(|g| g.node(&session.world));
            session.reply(node, Some(element("groups").children(groups).build()));
            Ok(())
        }
        _ => Err(StanzaError::Refused { code: 501, text: "feature-not-implemented" }),
    }
}

fn create(session: &Session, login: &Login, node: &Node, create: &Node) -> Result<(), StanzaError> {
    let world = &session.world;
    let mut members = vec![login.account.number.clone()];
    for participant in create.get_children_by_tag("participant") {
        let account = jid_of(participant, "jid").and_then(|j| world.resolve(&j));
        if let Some(account) = account
            && !members.contains(&account.number)
        {
            members.push(account.number.clone());
        }
        if members.len() > world.config.limits.group_members {
            return Err(StanzaError::Refused { code: 406, text: "not-acceptable" });
        }
    }
    let group = Arc::new(Group {
        id: format!("1203630{:011}", world.next_number()),
        subject: text_of(create, "subject"),
        creator: login.account.number.clone(),
        members,
        created: unix_now(),
    });
    world.groups.add(group.clone());
    let group_node = group.node(world);
    session.reply(node, Some(group_node.clone()));
    let news = element("create").attr("type", "new").attr("key", text_of(create, "key")).children([group_node]).build();
    announce(world, login, &group, news);
    Ok(())
}

/// Tells every member's devices of a change.
fn announce(world: &Arc<World>, login: &Login, group: &Group, change: Node) {
    let notice = element("notification")
        .attr("from", group.jid())
        .attr("type", "w:gp2")
        .attr("id", world.next_id())
        .attr("t", unix_now())
        .attr("participant", login.account.pn(0))
        .attr("notify", login.account.push_name())
        .children([change])
        .build();
    for account in group.members.iter().filter_map(|m| world.account(m)) {
        let companions = account.state().companions();
        for companion in companions {
            world.deliver(&account, companion, notice.clone());
        }
    }
}

/// The hash of the group's devices, when the client has stated another.
pub(crate) fn stale_phash(envelope: &Envelope<'_>) -> Option<String> {
    let group = envelope.world.groups.get(&envelope.to.user)?;
    let members: Vec<_> = group.members.iter().filter_map(|m| envelope.world.account(m)).collect();
    phash::stale_group(envelope, &members)
}

/// Brings a message to every member: each device gets its own ciphertext, if there is one (it carries
/// the sender key), and the shared one. Phones are devices too.
pub(crate) fn fan_out(envelope: &Envelope<'_>) -> Result<(), StanzaError> {
    let Envelope { world, login, .. } = envelope;
    let group = world.groups.get(&envelope.to.user).ok_or(NOT_FOUND)?;
    if !group.has(&login.account.number) {
        return Err(StanzaError::Refused { code: 403, text: "forbidden" });
    }
    if let Some(only) = jid_of(envelope.node, "participant") {
        return resend(envelope, &only);
    }
    let mut keyed: BTreeMap<DeviceKey, &Node> = BTreeMap::new();
    for (jid, enc) in envelope.participants()? {
        if let Some(account) = world.resolve(&jid) {
            envelope.observe(&account, jid.device, enc);
            keyed.insert(account.key(jid.device), enc);
        }
    }
    let shared = envelope.node.get_children_by_tag("enc").find(|e| attr_is(e, "type", "skmsg"));
    if let Some(ciphertext) = shared.and_then(content) {
        let (sender, group) = (login.key(), &envelope.to.user);
        world.oracle.group_ciphertext(&sender, group, &envelope.id, ciphertext);
    }
    for account in group.members.iter().filter_map(|m| world.account(m)) {
        let mut devices = vec![0];
        devices.extend(account.state().companions());
        let own = account.number == login.account.number;
        for device in devices.into_iter().filter(|d| !(own && *d == login.device)) {
            let keyed = keyed.get(&account.key(device)).copied();
            let parts = keyed.into_iter().chain(shared);
            world.deliver(&account, device, stanza(envelope, parts));
        }
    }
    Ok(())
}

/// A message that one device could not decrypt is sent again to that device alone.
fn resend(envelope: &Envelope<'_>, only: &Jid) -> Result<(), StanzaError> {
    let account = envelope.world.resolve(only).ok_or(NOT_FOUND)?;
    let encs: Vec<&Node> = envelope.node.get_children_by_tag("enc").collect();
    for enc in &encs {
        envelope.observe(&account, only.device, enc);
    }
    let stanza = stanza(envelope, encs.into_iter());
    envelope.world.deliver(&account, only.device, stanza);
    Ok(())
}

fn stanza<'a>(envelope: &Envelope<'_>, encs: impl Iterator<Item = &'a Node>) -> Node {
    let Login { account, device } = envelope.login;
    let mut message = element("message")
        .attr("id", envelope.id.as_str())
        .attr("from", &envelope.to)
        .attr("participant", account.pn(*device))
        .attr("participant_lid", account.lid(0))
        .attr("addressing_mode", "pn")
        .attr("t", envelope.time)
        .attr("notify", account.push_name());
    for (key, value) in envelope.copied() {
        message = message.attr(key, value);
    }
    let mut parts: Vec<Node> = encs.cloned().collect();
    parts.extend(envelope.node.get_optional_child("device-identity").cloned());
    message.children(parts).build()
}
