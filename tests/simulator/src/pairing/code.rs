//! Pairing by code: the client shows eight characters, the user types them on the phone.
//!
//! The code only protects an exchange of ephemeral keys; from it both sides derive the secret that a QR
//! code would have carried.

use std::sync::Arc;

use wacore::libsignal::protocol::{KeyPair, PublicKey};
use wacore::pair_code::PairCodeUtils;
use wacore_binary::Node;

use super::{Approval, approve};
use crate::account::{Account, lock};
use crate::error::{PhoneError, StanzaError};
use crate::handshake::{key_pair, public_bytes};
use crate::link::Link;
use crate::router::Session;
use crate::stanza::{child_array, child_bytes, element, required_jid, text_of};
use crate::world::{World, server_notification};

const WRAPPED_KEY_BYTES: usize = 80;
const CODE_CHARACTERS: usize = 8;
const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// A client that shows a code.
pub(super) struct PendingCode {
    pub(super) link: Arc<Link>,
    noise: [u8; 32],
    wrapped: [u8; WRAPPED_KEY_BYTES],
    reference: [u8; 16],
    /// The ephemeral keys, once the code was typed: the companion's public and the phone's own.
    ephemerals: Option<([u8; 32], KeyPair)>,
}

/// Answers the client's two steps.
pub(super) fn handle(session: &Session, node: &Node, registration: &Node) -> Result<(), StanzaError> {
    let number = required_jid(registration, "jid")?.user.to_string();
    match text_of(registration, "stage").as_str() {
        "companion_hello" => hello(session, node, registration, number),
        "companion_finish" => finish(session, node, registration, &number),
        _ => Err(StanzaError::Malformed("stage")),
    }
}

fn hello(session: &Session, node: &Node, registration: &Node, number: String) -> Result<(), StanzaError> {
    let reference: [u8; 16] = rand::random();
    let pending = PendingCode {
        link: session.link.clone(),
        noise: child_array(registration, "companion_server_auth_key_pub")?,
        wrapped: child_array(registration, "link_code_pairing_wrapped_companion_ephemeral_pub")?,
        reference,
        ephemerals: None,
    };
    if pending.noise != session.noise {
        return Err(StanzaError::Malformed("companion_server_auth_key_pub"));
    }
    lock(&session.world.pairings).codes.insert(number, pending);
    let reference = element("link_code_pairing_ref").bytes(reference).build();
    let answer = element("link_code_companion_reg").attr("stage", "companion_hello").children([reference]);
    session.reply(node, Some(answer.build()));
    Ok(())
}

/// The user types the code on the phone. Slow: it derives two keys from the code.
pub(crate) fn enter(world: &World, account: &Account, code: &str) -> Result<(), PhoneError> {
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
    if code.len() != CODE_CHARACTERS {
        return Err(PhoneError::WrongCode("not eight characters".into()));
    }
    let (wrapped, link) = {
        let pairings = lock(&world.pairings);
        let pending = pairings.codes.get(&*account.number);
        let pending = pending.ok_or(PhoneError::NoPendingCode)?;
        (pending.wrapped, pending.link.clone())
    };
    // The crate names these for the companion's side; the wrapping is the same both ways.
    let companion = PairCodeUtils::decrypt_primary_ephemeral_pub(&wrapped, &code)
        .map_err(|e| PhoneError::WrongCode(e.to_string()))?;
    let own = key_pair();
    let sealed = PairCodeUtils::encrypt_ephemeral_pub(&public_bytes(&own), &code);
    let reference = {
        let mut pairings = lock(&world.pairings);
        let pending = pairings.codes.get_mut(&*account.number);
        let pending = pending.filter(|p| p.link.id == link.id);
        let pending = pending.ok_or(PhoneError::NoPendingCode)?;
        pending.ephemerals = Some((companion, own));
        pending.reference
    };
    let registration = element("link_code_companion_reg").attr("stage", "primary_hello").children([
        element("link_code_pairing_wrapped_primary_ephemeral_pub").bytes(sealed).build(),
        element("primary_identity_pub").bytes(public_bytes(&account.identity)).build(),
        element("link_code_pairing_ref").bytes(reference).build(),
    ]);
    let notice = server_notification(world.next_id(), "link_code_companion_reg", registration.build());
    link.send_node(&notice);
    Ok(())
}

fn finish(session: &Session, node: &Node, registration: &Node, number: &str) -> Result<(), StanzaError> {
    let sealed = child_bytes(registration, "link_code_pairing_wrapped_key_bundle")?;
    let world = &session.world;
    let pending = {
        let mut pairings = lock(&world.pairings);
        match pairings.codes.get(number) {
            Some(p) if p.link.id == session.link.id => pairings.codes.remove(number),
            _ => None,
        }
    };
    let (pending, account) = pending.zip(world.account(number)).ok_or(StanzaError::Malformed("jid"))?;
    let ephemerals = pending.ephemerals.ok_or(StanzaError::Malformed("stage"))?;
    let (companion, adv_secret) = open_bundle(&account, &ephemerals, sealed)
        .ok_or(StanzaError::Malformed("link_code_pairing_wrapped_key_bundle"))?;
    session.reply(node, None);
    let approval = Approval { link: &pending.link, noise: pending.noise, companion, adv_secret: &adv_secret };
    approve(world, &account, &approval).map_err(|_| StanzaError::Refused { code: 409, text: "conflict" })?;
    Ok(())
}

/// Opens the companion's key bundle: its identity key, and the secret that both sides derive. `None`
/// when the code that was typed is not the one that the client shows.
fn open_bundle(
    account: &Account,
    (companion_ephemeral, own): &([u8; 32], KeyPair),
    sealed: &[u8],
) -> Option<([u8; 32], [u8; 32])> {
    let (salt, rest) = sealed.split_at_checked(SALT_BYTES)?;
    let (nonce, ciphertext) = rest.split_at_checked(NONCE_BYTES)?;
    let shared = agree(own, companion_ephemeral)?;
    let mut key = [0; 32];
    wacore::crypto::hkdf_sha256_into(&shared, Some(salt), b"link_code_pairing_key_bundle_encryption_key", &mut key)
        .ok()?;
    let mut bundle = Vec::new();
    wacore::libsignal::crypto::aes_256_gcm_decrypt(&key, nonce.try_into().ok()?, b"", ciphertext, &mut bundle).ok()?;
    // The companion's identity, the phone's identity, then random bytes.
    let companion: [u8; 32] = bundle.get(..32)?.try_into().ok()?;
    let random = bundle.get(64..96)?;
    let identities = agree(&account.identity, &companion)?;
    let mut adv_secret = [0; 32];
    let material = [&shared[..], &identities, random].concat();
    wacore::crypto::hkdf_sha256_into(&material, None, b"adv_secret", &mut adv_secret).ok()?;
    Some((companion, adv_secret))
}

fn agree(own: &KeyPair, other: &[u8; 32]) -> Option<Vec<u8>> {
    let other = PublicKey::from_djb_public_key_bytes(other).ok()?;
    let shared = own.private_key.calculate_agreement(&other).ok()?;
    Some(shared.to_vec())
}
