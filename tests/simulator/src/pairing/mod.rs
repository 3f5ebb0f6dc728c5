//! Linking a companion device: what the server knows of pairings that have begun, and the steps that QR
//! and code have in common.
//!
//! Invariant: a reference or code leads to one device at most, and is forgotten when the client's
//! connection ends.

mod code;
mod qr;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use buffa::Message as _;
use hmac::{KeyInit, Mac};
use wacore::libsignal::protocol::PublicKey;
use wacore_binary::Node;
use waproto::whatsapp as wa;

pub(crate) use code::enter as enter_code;
pub(crate) use qr::{offer, scan};

use crate::account::{Account, lock};
use crate::error::{PhoneError, StanzaError};
use crate::handshake::public_bytes;
use crate::link::{Link, Paired};
use crate::router::{LOGGED_OUT, Session};
use crate::stanza::{child_bytes, children, element, server_jid, unix_now};
use crate::world::World;

/// Prefix of what the account signs for a device.
const ACCOUNT_SIGNATURE_PREFIX: [u8; 2] = [6, 0];
/// Prefix of what the device signs.
const DEVICE_SIGNATURE_PREFIX: [u8; 2] = [6, 1];
/// A signed device identity is far smaller.
const IDENTITY_BYTES: usize = 4 << 10;

/// Pairings that have begun.
#[derive(Default)]
pub(crate) struct Pairings {
    references: HashMap<String, PendingReference>,
    codes: HashMap<String, code::PendingCode>,
}

struct PendingReference {
    link: Arc<Link>,
    noise: [u8; 32],
    expires: Instant,
}

impl Pairings {
    fn forget(&mut self, link: u64) {
        self.references.retain(|_, p| p.link.id != link);
        self.codes.retain(|_, p| p.link.id != link);
    }
}

/// Answers `xmlns=md`.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let child = children(node).first();
    match child.map(|c| (c.tag.as_ref(), c)) {
        Some(("link_code_companion_reg", registration)) => code::handle(session, node, registration),
        Some(("remove-companion-device", _)) => log_out(session, node),
        _ => Err(StanzaError::Refused { code: 501, text: "feature-not-implemented" }),
    }
}

/// What a phone gives a client that it links.
struct Approval<'a> {
    link: &'a Arc<Link>,
    noise: [u8; 32],
    /// The companion's identity key.
    companion: [u8; 32],
    /// The secret that the phone and the companion share.
    adv_secret: &'a [u8],
}

/// Makes the device and tells the client `pair-success`; the client answers with [`signed`].
fn approve(world: &World, account: &Arc<Account>, approval: &Approval<'_>) -> Result<u16, PhoneError> {
    let limit = world.config.limits.companion_devices;
    let device = {
        let mut state = account.state();
        if state.devices.len() >= limit {
            return Err(PhoneError::TooManyDevices(limit));
        }
        state.add_device(approval.noise)
    };
    approval.link.remember_paired(Paired { account: account.clone(), device, companion: approval.companion });
    let identity = device_identity(account, device, approval)?;
    let success = element("pair-success").children([
        element("device-identity").bytes(identity).build(),
        element("biz").attr("name", "").build(),
        element("device").attr("jid", account.pn(device)).attr("lid", account.lid(device)).build(),
        element("platform").attr("name", "android").build(),
    ]);
    approval.link.send_node(
        &element("iq")
            .attr("from", server_jid())
            .attr("type", "set")
            .attr("id", world.next_id())
            .attr("t", world.faults.now())
            .children([success.build()])
            .build(),
    );
    world.stats.count("paired");
    Ok(device)
}

/// The `ADVSignedDeviceIdentityHMAC`: the account vouches for the device, and the shared secret for the
/// account.
fn device_identity(account: &Account, device: u16, approval: &Approval<'_>) -> Result<Vec<u8>, PhoneError> {
    let details = wa::ADVDeviceIdentity {
        raw_id: Some(account.raw_id),
        timestamp: Some(unix_now()),
        key_index: Some(u32::from(device)),
        ..Default::default()
    }
    .encode_to_vec();
    let message = [&ACCOUNT_SIGNATURE_PREFIX[..], &details, &approval.companion].concat();
    let signature = account
        .identity
        .private_key
        .calculate_signature(&message, &mut rand::rng())
        .map_err(|e| PhoneError::Signal(e.to_string()))?;
    let signed = wa::ADVSignedDeviceIdentity {
        details: Some(details),
        account_signature_key: Some(public_bytes(&account.identity).to_vec()),
        account_signature: Some(signature.to_vec()),
        device_signature: None,
    }
    .encode_to_vec();
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(approval.adv_secret)
        .map_err(|e| PhoneError::InvalidQr(e.to_string()))?;
    mac.update(&signed);
    Ok(wa::ADVSignedDeviceIdentityHMAC {
        details: Some(signed),
        hmac: Some(mac.finalize().into_bytes().to_vec()),
        ..Default::default()
    }
    .encode_to_vec())
}

/// Whether the identity that a companion sends back is the account's, signed by the companion as well.
fn is_signed(paired: &Paired, identity: &[u8]) -> bool {
    let Ok(identity) = wa::ADVSignedDeviceIdentity::decode_from_slice(identity) else {
        return false;
    };
    let (Some(details), Some(by_account), Some(by_device)) =
        (identity.details, identity.account_signature, identity.device_signature)
    else {
        return false;
    };
    let Ok(companion) = PublicKey::from_djb_public_key_bytes(&paired.companion) else {
        return false;
    };
    let account = &paired.account.identity;
    let vouched = [&ACCOUNT_SIGNATURE_PREFIX[..], &details, &paired.companion].concat();
    let signed = [&DEVICE_SIGNATURE_PREFIX[..], &details, &paired.companion, &public_bytes(account)].concat();
    account.public_key.verify_signature(&vouched, &by_account) && companion.verify_signature(&signed, &by_device)
}

/// `<pair-device-sign>`: the companion has signed. It must connect anew, as a device.
pub(crate) fn signed(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let identity = child_bytes(node, "device-identity")?;
    if identity.len() > IDENTITY_BYTES {
        return Err(StanzaError::Malformed("device-identity"));
    }
    let paired = lock(&session.link.paired).take();
    let paired = paired.ok_or(StanzaError::NotLoggedIn)?;
    let (world, grace) = (&session.world, session.world.config.close_grace);
    let Paired { account, device: number, .. } = &paired;
    if !is_signed(&paired, identity) {
        world.oracle.bad_signature(&account.key(*number));
        account.state().devices.remove(number);
        let refused = element("stream:error").attr("code", LOGGED_OUT).build();
        session.link.say_and_close(Some(&refused), grace);
        return Ok(());
    }
    if let Some(device) = account.state().devices.get_mut(number) {
        device.identity = identity.into();
    }
    let restart = element("stream:error").attr("code", 515).build();
    session.link.say_and_close(Some(&restart), grace);
    Ok(())
}

/// The connection has ended: nobody can pair over it any more, and a device that never signed is gone.
pub(crate) fn abandon(session: &Session) {
    lock(&session.world.pairings).forget(session.link.id);
    if let Some(Paired { account, device, .. }) = lock(&session.link.paired).take() {
        account.state().devices.remove(&device);
    }
}

/// The client logs itself out. It closes the connection when it has the reply.
fn log_out(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    session.reply(node, None);
    session.world.remove_device(&login.account, login.device, None);
    Ok(())
}
