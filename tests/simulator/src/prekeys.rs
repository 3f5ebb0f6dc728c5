//! Signal keys of devices: upload, count, digest, rotation, and handing them out.
//!
//! Invariant: a one-time prekey is handed out once. Keys are held as fixed arrays, because a server has
//! hundreds of them for every device.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use wacore_binary::{Jid, Node};

use crate::account::Account;
use crate::error::StanzaError;
use crate::oracle::PrekeyId;
use crate::phones;
use crate::router::Session;
use crate::stanza::{child_array, children, element, jid_of};
use crate::world::{World, server_notification};

/// A device is told at each key that is taken when fewer than this are left. WhatsApp's own bound is not
/// known; notices with a count of 9 were seen, each followed by one with a count one less.
const LOW_WATER: usize = 10;
/// The type byte of a Curve25519 key, as a bundle states it.
const KEY_TYPE: u8 = 5;
/// Users of one request for bundles.
const BUNDLES_AT_ONCE: usize = 2_048;

/// A one-time prekey: 3 bytes of id, 32 of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PreKey {
    pub(crate) id: [u8; 3],
    pub(crate) key: [u8; 32],
}

/// A signed prekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignedPreKey {
    pub(crate) id: [u8; 3],
    pub(crate) key: [u8; 32],
    pub(crate) signature: [u8; 64],
}

/// What a device has uploaded.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    pub(crate) registration: [u8; 4],
    pub(crate) identity: [u8; 32],
    pub(crate) signed: SignedPreKey,
    one_time: VecDeque<PreKey>,
}

/// What somebody gets who wants to open a Signal session with a device.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    pub(crate) registration: [u8; 4],
    pub(crate) identity: [u8; 32],
    pub(crate) signed: SignedPreKey,
    pub(crate) one_time: Option<PreKey>,
    /// The device's signed identity; none for a phone.
    pub(crate) device_identity: Option<Box<[u8]>>,
}

impl Issued {
    /// The prekeys that are given away with it.
    pub(crate) fn ids(&self) -> impl Iterator<Item = PrekeyId> + use<> {
        let one_time = self.one_time.map(|key| PrekeyId::OneTime(key_id(&key.id)));
        one_time.into_iter().chain([PrekeyId::Signed(key_id(&self.signed.id))])
    }
}

impl Bundle {
    /// How many one-time prekeys nobody has taken.
    pub(crate) fn one_time_left(&self) -> usize {
        self.one_time.len()
    }

    /// Loses all one-time prekeys. Returns how many there were.
    pub(crate) fn exhaust(&mut self) -> usize {
        std::mem::take(&mut self.one_time).len()
    }

    /// Adds uploaded prekeys; one with a known id takes the place of the former.
    fn add(&mut self, new: Vec<PreKey>, limit: usize) {
        if !self.one_time.is_empty() {
            let ids: HashSet<[u8; 3]> = new.iter().map(|k| k.id).collect();
            self.one_time.retain(|k| !ids.contains(&k.id));
        }
        self.one_time.extend(new);
        self.one_time.truncate(limit);
        self.one_time.shrink_to_fit();
    }

    /// Takes a one-time prekey, and says how many are left when the device must be told.
    fn take(&mut self) -> (Option<PreKey>, Option<usize>) {
        let key = self.one_time.pop_front();
        let left = self.one_time.len();
        (key, (key.is_some() && left < LOW_WATER).then_some(left))
    }
}

/// Answers `xmlns=encrypt`.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let first = children(node).first();
    match first.map_or("", |c| c.tag.as_ref()) {
        "count" => count(session, node),
        "digest" => digest(session, node),
        "rotate" => rotate(session, node),
        "key" => hand_out(session, node),
        _ if node.get_optional_child("registration").is_some() => upload(session, node),
        _ => Err(StanzaError::Refused { code: 501, text: "feature-not-implemented" }),
    }
}

fn signed_prekey(node: &Node) -> Result<SignedPreKey, StanzaError> {
    let node = node.get_optional_child("skey").ok_or(StanzaError::Malformed("skey"))?;
    Ok(SignedPreKey {
        id: child_array(node, "id")?,
        key: child_array(node, "value")?,
        signature: child_array(node, "signature")?,
    })
}

fn upload(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    let limit = session.world.config.limits.prekeys;
    let keys = node.get_optional_child("list").map_or(&[][..], children);
    if keys.len() > limit {
        return Err(StanzaError::Malformed("list"));
    }
    let keys = keys
        .iter()
        .map(|k| Ok(PreKey { id: child_array(k, "id")?, key: child_array(k, "value")? }))
        .collect::<Result<Vec<_>, StanzaError>>()?;
    let fresh = Bundle {
        registration: child_array(node, "registration")?,
        identity: child_array(node, "identity")?,
        signed: signed_prekey(node)?,
        one_time: VecDeque::new(),
    };
    let first = {
        let mut state = login.account.state();
        let device = state.devices.get_mut(&login.device).ok_or(StanzaError::NotLoggedIn)?;
        let first = device.bundle.is_none();
        let bundle = device.bundle.get_or_insert_with(|| Box::new(fresh.clone()));
        bundle.registration = fresh.registration;
        bundle.identity = fresh.identity;
        bundle.signed = fresh.signed;
        bundle.add(keys, limit);
        first
    };
    session.reply(node, None);
    if first {
        // The phone sees the new device and shares its app state key with it.
        phones::welcome(&session.world, &login.account, login.device);
        session.world.announce_device(&login.account, login.device, true);
    }
    Ok(())
}

/// Runs `read` on the device's own bundle.
fn with_own<T>(session: &Session, read: impl FnOnce(&mut Bundle) -> T) -> Result<T, StanzaError> {
    let login = session.login()?;
    let mut state = login.account.state();
    let bundle = state.devices.get_mut(&login.device).and_then(|d| d.bundle.as_deref_mut());
    bundle.map(read).ok_or(StanzaError::Refused { code: 404, text: "item-not-found" })
}

fn count(session: &Session, node: &Node) -> Result<(), StanzaError> {
    session.login()?;
    let count = with_own(session, |b| b.one_time_left()).unwrap_or(0);
    session.reply(node, Some(element("count").attr("value", count).build()));
    Ok(())
}

fn rotate(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let rotate = node.get_optional_child("rotate").ok_or(StanzaError::Malformed("rotate"))?;
    let signed = signed_prekey(rotate)?;
    with_own(session, |bundle| bundle.signed = signed)?;
    session.reply(node, None);
    Ok(())
}

fn digest(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let answer = with_own(session, |bundle| {
        let keys: Vec<&[u8]> = bundle.one_time.iter().map(|k| k.key.as_slice()).collect();
        let hash = wacore::prekeys::compute_key_bundle_digest(
            &bundle.identity,
            &bundle.signed.key,
            &bundle.signed.signature,
            &keys,
        );
        let ids = bundle.one_time.iter().map(|k| element("id").bytes(k.id).build());
        element("digest")
            .children([
                element("registration").bytes(bundle.registration).build(),
                element("type").bytes([KEY_TYPE]).build(),
                element("identity").bytes(bundle.identity).build(),
                signed_node(&bundle.signed),
                element("list").children(ids).build(),
                element("hash").bytes(hash).build(),
            ])
            .build()
    })?;
    session.reply(node, Some(answer));
    Ok(())
}

fn signed_node(signed: &SignedPreKey) -> Node {
    element("skey")
        .children([
            element("id").bytes(signed.id).build(),
            element("value").bytes(signed.key).build(),
            element("signature").bytes(signed.signature).build(),
        ])
        .build()
}

fn hand_out(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    let request = node.get_optional_child("key").ok_or(StanzaError::Malformed("key"))?;
    if children(request).len() > BUNDLES_AT_ONCE {
        return Err(StanzaError::Malformed("key"));
    }
    let mut users = Vec::new();
    for user in request.get_children_by_tag("user") {
        let jid = jid_of(user, "jid").ok_or(StanzaError::Malformed("jid"))?;
        let own =
            session.world.resolve(&jid).is_some_and(|a| a.number == login.account.number && jid.device == login.device);
        users.push(user_node(&jid, issue(&session.world, &jid, own)));
    }
    session.reply(node, Some(element("list").children(users).build()));
    Ok(())
}

fn user_node(jid: &Jid, issued: Option<Issued>) -> Node {
    let user = element("user").attr("jid", jid);
    let Some(issued) = issued else {
        let error = element("error").attr("code", 406).attr("text", "not-acceptable");
        return user.children([error.build()]).build();
    };
    let mut parts = vec![
        element("registration").bytes(issued.registration).build(),
        element("type").bytes([KEY_TYPE]).build(),
        element("identity").bytes(issued.identity).build(),
    ];
    if let Some(key) = issued.one_time {
        let parts_of_key = [element("id").bytes(key.id).build(), element("value").bytes(key.key).build()];
        parts.push(element("key").children(parts_of_key).build());
    }
    parts.push(signed_node(&issued.signed));
    if let Some(identity) = issued.device_identity {
        parts.push(element("device-identity").bytes(identity.to_vec()).build());
    }
    user.children(parts).build()
}

/// The keys of a device for somebody who wants to write to it. A device that asks for its `own` gets no
/// one-time key.
pub(crate) fn issue(world: &Arc<World>, jid: &Jid, own: bool) -> Option<Issued> {
    issue_of(world, &world.resolve(jid)?, jid.device, own)
}

/// The same by account and device number.
pub(crate) fn issue_of(world: &Arc<World>, account: &Arc<Account>, device: u16, own: bool) -> Option<Issued> {
    let issued = if device == 0 { account.phone.bundle() } else { issue_of_companion(world, account, device, own)? };
    world.oracle.prekeys_given(&account.key(device), issued.ids());
    Some(issued)
}

fn issue_of_companion(world: &Arc<World>, account: &Arc<Account>, device: u16, own: bool) -> Option<Issued> {
    let (issued, low) = {
        let mut state = account.state();
        let device = state.devices.get_mut(&device)?;
        let device_identity = Some(device.identity.clone());
        let bundle = device.bundle.as_deref_mut()?;
        let (one_time, low) = if own { (None, None) } else { bundle.take() };
        let issued = Issued {
            registration: bundle.registration,
            identity: bundle.identity,
            signed: bundle.signed,
            one_time,
            device_identity,
        };
        (issued, low)
    };
    if let Some(left) = low {
        let count = element("count").attr("value", left).build();
        let notice = server_notification(world.next_id(), "encrypt", count);
        world.stats.count("prekeys low");
        world.deliver(account, device, notice);
    }
    Some(issued)
}

/// The prekeys that a device offers itself, with a receipt that asks for a message again.
pub(crate) fn offered(receipt: &Node) -> impl Iterator<Item = PrekeyId> {
    let id = |tag| {
        let key = receipt.get_optional_child("keys")?.get_optional_child(tag)?;
        child_array(key, "id").ok().map(|id: [u8; 3]| key_id(&id))
    };
    let one_time = id("key").map(PrekeyId::OneTime);
    one_time.into_iter().chain(id("skey").map(PrekeyId::Signed))
}

/// The number that big-endian key id bytes mean.
pub(crate) fn key_id(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |id, b| id << 8 | u32::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(count: u8) -> Bundle {
        let mut bundle = Bundle {
            registration: [0; 4],
            identity: [1; 32],
            signed: SignedPreKey { id: [0, 0, 1], key: [2; 32], signature: [3; 64] },
            one_time: VecDeque::new(),
        };
        bundle.add((0..count).map(key).collect(), 100);
        bundle
    }

    fn key(id: u8) -> PreKey {
        PreKey { id: [0, 0, id], key: [id; 32] }
    }

    #[test]
    fn a_key_is_handed_out_once_and_the_device_is_told_when_few_are_left() {
        let mut bundle = bundle(12);
        let mut told = Vec::new();
        let mut ids = HashSet::new();
        while let (Some(key), tell) = bundle.take() {
            assert!(ids.insert(key.id));
            told.extend(tell);
        }
        assert_eq!(ids.len(), 12);
        assert_eq!(told, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(bundle.take(), (None, None));
    }

    #[test]
    fn uploading_again_replaces_by_id() {
        let mut bundle = bundle(3);
        bundle.add(vec![key(2), key(9)], 100);
        assert_eq!(bundle.one_time.len(), 4);
        bundle.add((10..200).map(key).collect(), 100);
        assert_eq!(bundle.one_time.len(), 100, "bounded");
    }

    #[test]
    fn what_a_retry_receipt_offers_is_read() {
        let key = |tag, id: [u8; 3]| element(tag).children([element("id").bytes(id).build()]).build();
        let with = |keys: Vec<Node>| element("receipt").children([element("keys").children(keys).build()]).build();
        let both = with(vec![key("key", [0, 1, 0]), key("skey", [0, 0, 2])]);
        assert_eq!(offered(&both).collect::<Vec<_>>(), [PrekeyId::OneTime(256), PrekeyId::Signed(2)]);
        assert_eq!(offered(&with(vec![key("skey", [0, 0, 2])])).collect::<Vec<_>>(), [PrekeyId::Signed(2)]);
        assert_eq!(offered(&element("receipt").build()).count(), 0);
    }

    #[test]
    fn key_ids_are_big_endian() {
        assert_eq!(key_id(&[1, 0, 2]), 65_538);
    }
}
