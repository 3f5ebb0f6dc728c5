//! Pairing by QR code: the server offers references, the client shows them, the phone scans one.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use wacore::pair::PairUtils;

use super::{Approval, PendingReference, approve};
use crate::account::{Account, lock};
use crate::error::PhoneError;
use crate::router::Session;
use crate::stanza::{element, server_jid};
use crate::world::World;

/// A client shows one after the other.
const REFERENCES: usize = 6;
/// A QR code cannot hold more.
const QR_BYTES: usize = 4_296;

/// Offers references to a client that has no device yet.
pub(crate) fn offer(session: &Session) {
    let world = &session.world;
    let expires = Instant::now() + world.config.pairing_refs_ttl;
    let mut pairings = lock(&world.pairings);
    let references: Vec<_> = (0..REFERENCES)
        .map(|_| {
            let reference = format!("2@{}", BASE64_STANDARD.encode(rand::random::<[u8; 24]>()));
            let pending = PendingReference { link: session.link.clone(), noise: session.noise, expires };
            pairings.references.insert(reference.clone(), pending);
            element("ref").bytes(reference.into_bytes()).build()
        })
        .collect();
    drop(pairings);
    session.send(
        &element("iq")
            .attr("from", server_jid())
            .attr("type", "set")
            .attr("id", world.next_id())
            .attr("xmlns", "md")
            .children([element("pair-device").children(references).build()])
            .build(),
    );
}

/// The phone scans a code, in the plain form or as a link (`https://wa.me/settings/linked_devices#`).
/// Returns the number of the new device.
pub(crate) fn scan(world: &World, account: &Arc<Account>, qr: &str) -> Result<u16, PhoneError> {
    let qr = qr.trim();
    if qr.len() > QR_BYTES {
        return Err(PhoneError::InvalidQr("too long".into()));
    }
    let (reference, noise, companion) =
        PairUtils::parse_qr_code(qr).map_err(|e| PhoneError::InvalidQr(e.to_string()))?;
    // The parser has checked that there are four fields at least.
    let adv_secret = qr.split(',').nth(3).unwrap_or_default();
    let adv_secret = BASE64_STANDARD.decode(adv_secret).map_err(|e| PhoneError::InvalidQr(e.to_string()))?;
    let pending = {
        let mut pairings = lock(&world.pairings);
        let pending = pairings.references.get(&reference);
        let valid = pending.is_some_and(|p| p.expires > Instant::now() && p.noise == noise);
        if !valid {
            return Err(PhoneError::UnknownReference);
        }
        let Some(pending) = pairings.references.remove(&reference) else {
            return Err(PhoneError::UnknownReference);
        };
        pairings.forget(pending.link.id);
        pending
    };
    approve(world, account, &Approval { link: &pending.link, noise: pending.noise, companion, adv_secret: &adv_secret })
}
