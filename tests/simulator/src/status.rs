//! Messages to `status@broadcast`: what an account shows to those whom it chooses for a day.
//!
//! Invariant: a device that once got the account's sender key gets the statuses that follow, because clients
//! name only those devices that lack the key.

use std::collections::BTreeMap;

use wacore_binary::Node;

use crate::account::DeviceKey;
use crate::error::StanzaError;
use crate::messages::Envelope;
use crate::router::Login;
use crate::settings;
use crate::stanza::{attr_is, content, element};

/// Devices that may see the status of one account.
const AUDIENCE: usize = 16_384;

/// Brings a status to all who may see it.
pub(crate) fn fan_out(envelope: &Envelope<'_>) -> Result<(), StanzaError> {
    let Envelope { world, login, .. } = envelope;
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
    let audience = {
        let mut state = login.account.state();
        let known = state.status_audience.len();
        let new = keyed.keys().take(AUDIENCE.saturating_sub(known)).cloned();
        let new: Vec<DeviceKey> = new.collect();
        state.status_audience.extend(new);
        state.status_audience.clone()
    };
    for device in audience {
        let Some(account) = world.account(&device.number) else { continue };
        let keyed = keyed.get(&device).copied();
        if device != login.key() && !settings::is_blocked(&login.account, &account) {
            world.deliver(&account, device.device, stanza(envelope, keyed.into_iter().chain(shared)));
        }
    }
    Ok(())
}

fn stanza<'a>(envelope: &Envelope<'_>, encs: impl Iterator<Item = &'a Node>) -> Node {
    let Login { account, device } = envelope.login;
    let mut message = element("message")
        .attr("id", envelope.id.as_str())
        .attr("from", &envelope.to)
        .attr("participant", account.pn(*device))
        .attr("participant_lid", account.lid(0))
        .attr("t", envelope.time)
        .attr("notify", account.push_name());
    for (key, value) in envelope.copied() {
        message = message.attr(key, value);
    }
    let mut parts: Vec<Node> = encs.cloned().collect();
    parts.extend(envelope.node.get_optional_child("device-identity").cloned());
    message.children(parts).build()
}
