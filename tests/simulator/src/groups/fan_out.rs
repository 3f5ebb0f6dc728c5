//! Messages to a group: each reaches every member's devices and phone.

use std::collections::BTreeMap;

use wacore_binary::{Jid, Node};

use super::{Group, NOT_FOUND};
use crate::account::DeviceKey;
use crate::error::StanzaError;
use crate::messages::Envelope;
use crate::phash;
use crate::router::Login;
use crate::stanza::{attr_is, content, element, jid_of, text_of};

/// The hash of the group's devices, when the client has stated another.
pub(crate) fn stale_phash(envelope: &Envelope<'_>) -> Option<String> {
    let group = envelope.world.groups.get(&envelope.to.user)?;
    phash::stale_group(envelope, &group.accounts(envelope.world))
}

/// Why the group does not take a message: the error of its acknowledgement. Clients know 421 as an addressing
/// mode that is not the group's.
pub(crate) fn refusal(envelope: &Envelope<'_>) -> Option<u16> {
    let Some(group) = envelope.world.groups.get(&envelope.to.user) else {
        return Some(404);
    };
    let stated = text_of(envelope.node, "addressing_mode");
    if !group.may_write(&envelope.login.account.number) {
        Some(403)
    } else if !stated.is_empty() && stated != group.addressing_mode() {
        Some(421)
    } else {
        None
    }
}

/// Brings a message to every member: each device gets its own ciphertext, if there is one (it carries
/// the sender key), and the shared one. Phones are devices too.
pub(crate) fn fan_out(envelope: &Envelope<'_>) -> Result<(), StanzaError> {
    let Envelope { world, login, .. } = envelope;
    let group = world.groups.get(&envelope.to.user).ok_or(NOT_FOUND)?;
    if let Some(only) = jid_of(envelope.node, "participant") {
        return resend(envelope, &group, &only);
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
        world.oracle.group_ciphertext(&login.key(), &envelope.to.user, &envelope.id, ciphertext);
    }
    for account in group.accounts(world) {
        let mut devices = vec![0];
        devices.extend(account.state().companions());
        let own = account.number == login.account.number;
        for device in devices.into_iter().filter(|d| !(own && *d == login.device)) {
            let keyed = keyed.get(&account.key(device)).copied();
            let parts = keyed.into_iter().chain(shared);
            world.deliver(&account, device, stanza(envelope, &group, parts));
        }
    }
    Ok(())
}

/// A message that one device could not decrypt is sent again to that device alone.
fn resend(envelope: &Envelope<'_>, group: &Group, only: &Jid) -> Result<(), StanzaError> {
    let account = envelope.world.resolve(only).ok_or(NOT_FOUND)?;
    let encs: Vec<&Node> = envelope.node.get_children_by_tag("enc").collect();
    for enc in &encs {
        envelope.observe(&account, only.device, enc);
    }
    let stanza = stanza(envelope, group, encs.into_iter());
    envelope.world.deliver(&account, only.device, stanza);
    Ok(())
}

fn stanza<'a>(envelope: &Envelope<'_>, group: &Group, encs: impl Iterator<Item = &'a Node>) -> Node {
    let Login { account, device } = envelope.login;
    let (participant, (key, other)) = group.address(account, *device);
    let mut message = element("message")
        .attr("id", envelope.id.as_str())
        .attr("from", &envelope.to)
        .attr("participant", participant)
        .attr(key, other)
        .attr("addressing_mode", group.addressing_mode())
        .attr("t", envelope.time)
        .attr("notify", account.push_name());
    for (key, value) in envelope.copied() {
        message = message.attr(key, value);
    }
    let mut parts: Vec<Node> = encs.cloned().collect();
    parts.extend(envelope.node.get_optional_child("device-identity").cloned());
    message.children(parts).build()
}
