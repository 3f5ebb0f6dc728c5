//! The participant hash: by it client and server find out that they know different devices.
//!
//! A message's acknowledgement carries the server's hash when the client has sent to other devices than
//! there are; the client then asks for the devices anew. Must not know how a message is delivered.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use sha2::Digest;
use wacore_binary::Jid;

use crate::account::{Account, DeviceKey};
use crate::messages::{Envelope, is_peer};
use crate::stanza::{attr_is, text_of};

/// `2:` and the first 6 bytes of SHA-256 over the sorted `USER.0:DEVICE@SERVER`, in base64 without
/// padding.
pub(crate) fn hash(devices: impl IntoIterator<Item = Jid>) -> String {
    let form = |device: Jid| {
        let mut form = String::new();
        device.push_phash_form_to(&mut form);
        form
    };
    let mut names: Vec<String> = devices.into_iter().map(form).collect();
    names.sort();
    let digest = sha2::Sha256::digest(names.concat().as_bytes());
    format!("2:{}", BASE64_STANDARD_NO_PAD.encode(&digest[..6]))
}

/// All devices of an account, the phone first.
fn devices(account: &Account) -> Vec<u16> {
    let mut devices = vec![0];
    devices.extend(account.state().companions());
    devices
}

/// The hash of the devices of a message to a user, when the client has sent to others: those of both
/// accounts without the sending one.
pub(crate) fn stale_direct(envelope: &Envelope<'_>) -> Option<String> {
    if is_peer(envelope.node) {
        return None;
    }
    envelope.node.get_optional_child("participants")?;
    let recipient = envelope.world.resolve(&envelope.to)?;
    let (sender, sending) = (&envelope.login.account, envelope.login.device);
    let reached: BTreeSet<DeviceKey> = envelope
        .participants()
        .ok()?
        .iter()
        .filter_map(|(jid, _)| Some(envelope.world.resolve(jid)?.key(jid.device)))
        .collect();
    let mut expected = BTreeSet::new();
    let mut jids = Vec::new();
    for account in [&recipient, sender] {
        for device in devices(account) {
            let own = account.number == sender.number;
            if !(own && device == sending) && expected.insert(account.key(device)) {
                jids.push(if envelope.to.is_lid() { account.lid(device) } else { account.pn(device) });
            }
        }
    }
    (reached != expected).then(|| hash(jids))
}

/// The hash of a group's devices, the sending one among them, when the client has stated another.
pub(crate) fn stale_group(envelope: &Envelope<'_>, members: &[Arc<Account>]) -> Option<String> {
    let stated = text_of(envelope.node, "phash");
    if stated.is_empty() {
        return None;
    }
    let of = |jid: fn(&Account, u16) -> Jid| {
        hash(members.iter().flat_map(|m| devices(m).into_iter().map(move |d| jid(m, d))))
    };
    let (by_number, by_lid) = (of(Account::pn), of(Account::lid));
    if stated == by_number || stated == by_lid {
        return None;
    }
    Some(if attr_is(envelope.node, "addressing_mode", "lid") { by_lid } else { by_number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_does_not_depend_on_the_order() {
        let jid = |device| Jid::pn_device("15550001", device);
        let ordered = hash([jid(0), jid(3), jid(12)]);
        assert_eq!(ordered, hash([jid(12), jid(0), jid(3)]));
        assert_ne!(ordered, hash([jid(0), jid(3)]));
        assert_ne!(ordered, hash([0, 3, 12].map(|d| Jid::lid_device("15550001", d))));
        assert_eq!(ordered.len(), 2 + 8);
    }
}
