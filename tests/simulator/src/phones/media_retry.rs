//! A companion could not download a medium: its phone uploads it again and says where it is.
//!
//! What is said is encrypted with a key that comes from the medium's own: AES-256-GCM under HKDF-SHA256 of
//! the media key, with the message's id as associated data.

use std::sync::Arc;

use buffa::Message as _;
use wacore_binary::Node;
use wacore_libsignal::crypto::{aes_256_gcm_decrypt, aes_256_gcm_encrypt};
use waproto::whatsapp as wa;
use waproto::whatsapp::media_retry_notification::ResultType;

use super::{kind, medium};
use crate::account::{Account, lock};
use crate::media;
use crate::stanza::{child_array, child_bytes, element, text_of, unix_now};
use crate::world::World;

const KEY_INFO: &[u8] = b"WhatsApp Media Retry Notification";
/// What clients are told when the phone has no such message.
const NOT_FOUND: u16 = 2;

/// Answers `<receipt type=server-error>` of a companion.
pub(super) fn answer(world: &Arc<World>, account: &Arc<Account>, device: u16, receipt: &Node) {
    let id = text_of(receipt, "id");
    world.stats.count("phone: asked for a medium");
    if world.faults.silent_about_media() {
        return;
    }
    let known = lock(&account.phone.known).get(&id);
    let medium = known.as_ref().and_then(|k| medium::medium_of(kind::inner(&k.message)));
    let answer = match &medium {
        Some((key, path)) => sealed(key, &id, &result(world, key, &id, path, receipt)),
        None => None,
    };
    let answer = answer.unwrap_or_else(|| element("error").attr("code", NOT_FOUND).build());
    let mut parts = vec![answer];
    parts.extend(receipt.get_optional_child("rmr").cloned());
    let notice = element("notification")
        .attr("from", account.pn(0))
        .attr("type", "mediaretry")
        .attr("id", id)
        .attr("t", unix_now())
        .children(parts);
    world.deliver(account, device, notice.build());
}

/// What became of the request.
fn result(world: &World, key: &[u8], id: &str, path: &str, receipt: &Node) -> wa::MediaRetryNotification {
    let is = |result, direct_path| wa::MediaRetryNotification {
        stanza_id: Some(id.to_string()),
        direct_path,
        result: Some(result),
        ..Default::default()
    };
    if !asks(key, id, receipt) {
        return is(ResultType::DECRYPTION_ERROR, None);
    }
    let kept = media::name(path).and_then(|name| lock(&world.media).on_a_phone(name));
    let name = format!("medium-{}", world.next_number());
    if kept.is_some_and(|data| media::store(world, &name, data)) {
        is(ResultType::SUCCESS, Some(media::direct_path(&name)))
    } else {
        is(ResultType::NOT_FOUND, None)
    }
}

fn derived(key: &[u8]) -> Option<[u8; 32]> {
    let mut derived = [0; 32];
    wacore::crypto::hkdf_sha256_into(key, None, KEY_INFO, &mut derived).ok()?;
    Some(derived)
}

/// Whether the request is about this message.
fn asks(key: &[u8], id: &str, receipt: &Node) -> bool {
    let asked = || {
        let encrypted = receipt.get_optional_child("encrypt")?;
        let iv: [u8; 12] = child_array(encrypted, "enc_iv").ok()?;
        let mut plain = Vec::new();
        let sealed = child_bytes(encrypted, "enc_p").ok()?;
        aes_256_gcm_decrypt(&derived(key)?, &iv, id.as_bytes(), sealed, &mut plain).ok()?;
        wa::ServerErrorReceipt::decode_from_slice(&plain).ok()?.stanza_id
    };
    asked().as_deref() == Some(id)
}

/// `<encrypt>` with the result.
fn sealed(key: &[u8], id: &str, result: &wa::MediaRetryNotification) -> Option<Node> {
    let iv: [u8; 12] = rand::random();
    let mut sealed = Vec::new();
    aes_256_gcm_encrypt(&derived(key)?, &iv, id.as_bytes(), &result.encode_to_vec(), &mut sealed).ok()?;
    let parts = [element("enc_p").bytes(sealed).build(), element("enc_iv").bytes(iv.to_vec()).build()];
    Some(element("encrypt").children(parts).build())
}
