//! `<message>`: acknowledged, judged by the oracle, and brought to every device that it is addressed to.

use std::sync::Arc;

use bytes::Bytes;
use wacore_binary::jid::Server;
use wacore_binary::{Jid, JidExt as _, Node};

use crate::account::Account;
use crate::error::StanzaError;
use crate::groups;
use crate::phash;
use crate::router::{Login, Session};
use crate::settings;
use crate::stanza::{attr_is, content, decode, element, encode, jid_of, required_jid, server_jid, text_of};
use crate::status;
use crate::world::World;

/// Devices of one message: an account's at both ends, or those of all members of a group.
const RECIPIENTS: usize = 16_384;

/// The error for who may not write first.
const NO_TOKEN: u16 = 463;

/// A message on its way.
pub(crate) struct Envelope<'a> {
    pub(crate) world: &'a Arc<World>,
    pub(crate) login: &'a Login,
    pub(crate) node: &'a Node,
    pub(crate) id: String,
    pub(crate) to: Jid,
    /// When the server accepted it, seconds since the epoch.
    pub(crate) time: u64,
}

/// Answers a `<message>`.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let envelope = Envelope {
        world: &session.world,
        login: session.login()?,
        id: text_of(node, "id"),
        to: required_jid(node, "to")?,
        time: session.world.faults.now(),
        node,
    };
    if envelope.id.is_empty() {
        return Err(StanzaError::Malformed("id"));
    }
    let from = envelope.login.key();
    let refused = session.world.faults.rejection(&from).or_else(|| refusal(&envelope));
    let stale = stale(&envelope);
    let mut acknowledgement = element("ack")
        .attr("class", "message")
        .attr("id", envelope.id.as_str())
        .attr("from", &envelope.to)
        .attr("t", envelope.time);
    if let Some(code) = refused {
        session.world.stats.count("message refused");
        acknowledgement = acknowledgement.attr("error", code);
    } else if let Some(phash) = &stale {
        session.world.stats.count("stale devices");
        acknowledgement = acknowledgement.attr("phash", phash.as_str());
    }
    let limit = session.world.config.limits.held_acks;
    let clean = stale.is_none();
    let told = session.world.faults.acknowledge(&from, &session.link, &acknowledgement.build(), limit);
    if refused.is_some() {
        return Ok(());
    }
    if envelope.lacks_phash() {
        session.world.oracle.missing_phash(&from, &envelope.to.user, &envelope.id);
    }
    let connection = session.link.id;
    session.world.ledger.accepted_over(&from, &envelope.id, envelope.time, connection, told && clean);
    match envelope.to.server {
        Server::Group => groups::fan_out(&envelope),
        Server::Broadcast => status::fan_out(&envelope),
        _ => direct(&envelope),
    }
}

/// The error with which the server refuses a message.
fn refusal(envelope: &Envelope<'_>) -> Option<u16> {
    match envelope.to.server {
        Server::Group => groups::refusal(envelope),
        Server::Broadcast => (!envelope.to.is_status_broadcast()).then_some(404),
        _ => {
            let recipient = envelope.world.resolve(&envelope.to)?;
            settings::is_stranger(&recipient, &envelope.login.account).then_some(NO_TOKEN)
        }
    }
}

/// The hash of the devices that the client should have sent to, when it has sent to others.
fn stale(envelope: &Envelope<'_>) -> Option<String> {
    match envelope.to.server {
        Server::Group => groups::stale_phash(envelope),
        Server::Broadcast => None,
        _ => phash::stale_direct(envelope),
    }
}

impl Envelope<'_> {
    /// A message to a group says which devices its sender knows, unless it is for one that could not read it.
    fn lacks_phash(&self) -> bool {
        let says = |key| self.node.attrs.get(key).is_some();
        self.to.server == Server::Group && !says("phash") && !says("participant")
    }

    /// The ciphertexts by device, from `<participants>`.
    pub(crate) fn participants(&self) -> Result<Vec<(Jid, &Node)>, StanzaError> {
        let Some(participants) = self.node.get_optional_child("participants") else {
            return Ok(Vec::new());
        };
        let mut list = Vec::new();
        for to in participants.get_children_by_tag("to") {
            if list.len() >= RECIPIENTS {
                return Err(StanzaError::Malformed("participants"));
            }
            let jid = required_jid(to, "jid")?;
            if let Some(enc) = to.get_optional_child("enc") {
                list.push((jid, enc));
            }
        }
        Ok(list)
    }

    /// The parts of the stanza that every recipient gets.
    pub(crate) fn copied(&self) -> Vec<(&'static str, String)> {
        ["type", "category", "edit"]
            .into_iter()
            .map(|key| (key, text_of(self.node, key)))
            .filter(|(_, value)| !value.is_empty())
            .collect()
    }

    /// Lets the oracle see a ciphertext on its way to a device.
    pub(crate) fn observe(&self, account: &Account, device: u16, enc: &Node) {
        if let Some(ciphertext) = content(enc) {
            let (from, to) = (self.login.key(), account.key(device));
            let direct = self.to.server != Server::Group;
            self.world.oracle.ciphertext(&from, &to, &self.id, &text_of(enc, "type"), ciphertext, direct);
        }
    }
}

/// A message to a user: each device's ciphertext goes to that device, the sender's own among them.
fn direct(envelope: &Envelope<'_>) -> Result<(), StanzaError> {
    let mut deliveries = envelope.participants()?;
    if deliveries.is_empty()
        && let Some(enc) = envelope.node.get_optional_child("enc")
    {
        deliveries.push((envelope.to.clone(), enc));
    }
    for (jid, enc) in deliveries {
        let Some(account) = envelope.world.resolve(&jid) else {
            envelope.world.stats.count("message to nobody");
            continue;
        };
        if settings::is_blocked(&envelope.login.account, &account) {
            continue;
        }
        envelope.observe(&account, jid.device, enc);
        let stanza = direct_stanza(envelope, &jid, &account, enc);
        envelope.world.deliver(&account, jid.device, stanza);
    }
    Ok(())
}

fn direct_stanza(envelope: &Envelope<'_>, to: &Jid, recipient: &Account, enc: &Node) -> Node {
    let Login { account, device } = envelope.login;
    let by_lid = to.is_lid() || envelope.to.is_lid();
    let mut message = element("message")
        .attr("id", envelope.id.as_str())
        .attr("t", envelope.time)
        .attr("notify", account.push_name());
    message = if by_lid {
        message.attr("from", account.lid(*device)).attr("addressing_mode", "lid").attr("sender_pn", account.pn(0))
    } else {
        message.attr("from", account.pn(*device)).attr("sender_lid", account.lid(0))
    };
    if recipient.number == account.number {
        message = message.attr("recipient", &envelope.to);
        if let Some(number) = jid_of(envelope.node, "peer_recipient_pn") {
            message = message.attr("peer_recipient_pn", number);
        }
    }
    for (key, value) in envelope.copied() {
        message = message.attr(key, value);
    }
    let mut parts = vec![enc.clone()];
    parts.extend(envelope.node.get_optional_child("device-identity").cloned());
    message.children(parts).build()
}

/// The device wants its stanzas: it gets what has waited, framed by two announcements.
pub(crate) fn activate(world: &World, account: &Account, number: u16) {
    let mut state = account.state();
    let Some(device) = state.devices.get_mut(&number) else {
        return;
    };
    let Some(link) = device.link.clone() else {
        return;
    };
    device.active = true;
    device.queue.rewind();
    let waiting = device.queue.len();
    if waiting > 0 {
        let (messages, receipts, notifications) = device.queue.counts();
        world.stats.add("offline stanza", waiting as u64);
        let preview = element("offline_preview")
            .attr("count", waiting)
            .attr("message", messages)
            .attr("notification", notifications)
            .attr("receipt", receipts)
            .attr("appdata", 0);
        link.send_node(&from_server("ib", preview.build()));
    }
    while let Some(stanza) = device.queue.next(link.id, &world.ledger) {
        link.send(with_offline(stanza));
    }
    let done = element("offline").attr("count", waiting).build();
    link.send_node(&from_server("ib", done));
}

/// Sends again what the device has not acknowledged. Returns how much.
pub(crate) fn redeliver(world: &World, account: &Account, number: u16) -> usize {
    let mut state = account.state();
    let Some(device) = state.devices.get_mut(&number) else {
        return 0;
    };
    device.queue.rewind();
    device.pump(&world.ledger);
    device.queue.len()
}

fn from_server(tag: &'static str, child: Node) -> Node {
    element(tag).attr("from", server_jid()).children([child]).build()
}

/// Marks a stanza as one that has waited.
fn with_offline(stanza: Bytes) -> Bytes {
    let Some(mut node) = decode(&stanza) else {
        return stanza;
    };
    node.attrs.insert("offline", "0");
    encode(&node).unwrap_or(stanza)
}

/// Whether a message is one between the devices of an account (`category=peer`).
pub(crate) fn is_peer(node: &Node) -> bool {
    attr_is(node, "category", "peer")
}
