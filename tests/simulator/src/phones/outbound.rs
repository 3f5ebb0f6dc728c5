//! What a phone sends: texts, receipts, and what a new companion needs.
//!
//! A phone's Signal lock is held from the encryption to the delivery, so that a recipient gets its
//! messages in the order of their counters.

use std::sync::Arc;

use buffa::MessageField;
use wacore::messages::MessageUtils;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};
use waproto::whatsapp as wa;
use waproto::whatsapp::message as parts;

use super::inbox::SentMessage;
use super::signal::{Endpoint, PeerKeys};
use crate::account::{Account, lock};
use crate::app_state::KEY_ID;
use crate::error::PhoneError;
use crate::prekeys::issue_of;
use crate::stanza::{element, unix_now};
use crate::world::World;

/// Bytes of a text; WhatsApp takes no longer ones.
const TEXT_BYTES: usize = 65_536;

/// A fresh message id in the form of a phone's.
pub(super) fn message_id() -> String {
    format!("AC{}", hex::encode_upper(rand::random::<[u8; 15]>()))
}

fn signal_error(error: impl std::fmt::Display) -> PhoneError {
    PhoneError::Signal(error.to_string())
}

/// Sends a text to an account's devices and shows it to the own companions.
pub(super) fn send_text(
    world: &Arc<World>,
    account: &Arc<Account>,
    to: &str,
    text: &str,
) -> Result<String, PhoneError> {
    if text.len() > TEXT_BYTES {
        return Err(PhoneError::Invalid("the text is too long".into()));
    }
    let recipient = world.account(to).ok_or_else(|| PhoneError::UnknownNumber(to.to_string()))?;
    let message = wa::Message { conversation: Some(text.to_string()), ..Default::default() };
    let id = message_id();
    let sent = SentMessage { to: to.to_string(), message: message.clone() };
    lock(&account.phone.sent).add(&id, sent);
    let outgoing = Outgoing { world, account, id: &id, time: unix_now() };
    let mut signal = lock(&account.phone.signal);
    let own = recipient.number == account.number;
    let mut devices = recipient.state().companions();
    if !own {
        devices.push(0);
    }
    for device in devices {
        outgoing.send(&mut signal, &recipient, device, &message, Kind::Text)?;
    }
    if own {
        return Ok(id);
    }
    let copy = device_sent(&recipient, message);
    let companions = account.state().companions();
    for companion in companions {
        let kind = Kind::OwnText(&recipient);
        outgoing.send(&mut signal, account, companion, &copy, kind)?;
    }
    drop(signal);
    world.stats.count("phone: sent");
    Ok(id)
}

/// The form in which the own devices get what one of them sent.
fn device_sent(recipient: &Account, message: wa::Message) -> wa::Message {
    wa::Message {
        device_sent_message: MessageField::some(parts::DeviceSentMessage {
            destination_jid: Some(recipient.pn(0).to_string()),
            message: MessageField::some(message),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// How a stanza is addressed.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Text,
    /// To an own device: what was sent to somebody.
    OwnText(&'a Account),
    /// Between the account's devices.
    Peer,
}

/// A message that a phone sends to one device after the other.
struct Outgoing<'a> {
    world: &'a Arc<World>,
    account: &'a Arc<Account>,
    id: &'a str,
    time: u64,
}

impl Outgoing<'_> {
    /// Encrypts for one device and delivers. A device that has no keys is passed over.
    fn send(
        &self,
        signal: &mut Endpoint,
        recipient: &Arc<Account>,
        device: u16,
        message: &wa::Message,
        kind: Kind<'_>,
    ) -> Result<(), PhoneError> {
        let peer = &*recipient.number;
        if !signal.has_session(peer, device) {
            let Some(keys) = issue_of(self.world, recipient, device, false) else {
                return Ok(());
            };
            let keys = PeerKeys {
                registration: u32::from_be_bytes(keys.registration),
                identity: keys.identity,
                signed: keys.signed,
                one_time: keys.one_time,
            };
            signal.establish(peer, device, &keys).map_err(signal_error)?;
        }
        let plaintext = MessageUtils::encode_and_pad(message);
        let (enc, ciphertext) = signal.encrypt(peer, device, &plaintext).map_err(signal_error)?;
        let enc = element("enc").attr("v", "2").attr("type", enc).bytes(ciphertext).build();
        self.world.deliver(recipient, device, self.stanza(recipient, kind, enc));
        Ok(())
    }

    fn stanza(&self, recipient: &Account, kind: Kind<'_>, enc: Node) -> Node {
        let message = element("message")
            .attr("id", self.id)
            .attr("from", self.account.pn(0))
            .attr("type", "text")
            .attr("t", self.time)
            .attr("notify", self.account.push_name())
            .attr("sender_lid", self.account.lid(0));
        let message = match kind {
            Kind::Text => message,
            Kind::OwnText(contact) => message.attr("recipient", contact.pn(0)),
            Kind::Peer => message.attr("category", "peer").attr("recipient", recipient.pn(0)),
        };
        message.children([enc]).build()
    }
}

/// Sends a message between the account's devices to one of its companions.
pub(super) fn send_peer(
    world: &Arc<World>,
    account: &Arc<Account>,
    device: u16,
    content: parts::ProtocolMessage,
) -> Result<(), PhoneError> {
    let message = wa::Message { protocol_message: MessageField::some(content), ..Default::default() };
    let outgoing = Outgoing { world, account, id: &message_id(), time: unix_now() };
    let mut signal = lock(&account.phone.signal);
    outgoing.send(&mut signal, account, device, &message, Kind::Peer)
}

/// Gives a companion the account's app state key: when it is new, and when it asks.
pub(crate) fn welcome(world: &Arc<World>, account: &Arc<Account>, device: u16) {
    let key = parts::AppStateSyncKey {
        key_id: MessageField::some(parts::AppStateSyncKeyId { key_id: Some(KEY_ID.to_vec()) }),
        key_data: MessageField::some(parts::AppStateSyncKeyData {
            key_data: Some(account.app_state_key.to_vec()),
            fingerprint: MessageField::some(parts::AppStateSyncKeyFingerprint {
                raw_id: Some(account.raw_id),
                current_index: Some(u32::from(device)),
                device_indexes: vec![0, u32::from(device)],
            }),
            timestamp: i64::try_from(unix_now() * 1_000).ok(),
        }),
    };
    let share = parts::ProtocolMessage {
        r#type: Some(parts::protocol_message::Type::AppStateSyncKeyShare),
        app_state_sync_key_share: MessageField::some(parts::AppStateSyncKeyShare { keys: vec![key] }),
        ..Default::default()
    };
    if let Err(error) = send_peer(world, account, device, share) {
        tracing::warn!(%error, "cannot share the app state key");
    }
}

/// What an answer of a phone refers to.
pub(super) struct Reply {
    pub(super) id: String,
    /// The device that sent the message.
    pub(super) device: Jid,
    pub(super) group: Option<Jid>,
}

impl Reply {
    fn receipt(&self, account: &Account) -> NodeBuilder {
        let me = if self.device.is_lid() { account.lid(0) } else { account.pn(0) };
        let receipt = element("receipt").attr("id", self.id.as_str()).attr("t", unix_now());
        match &self.group {
            Some(group) => receipt.attr("from", group).attr("participant", me),
            None => receipt.attr("from", me),
        }
    }
}

/// Tells the sender's device that its message has arrived.
pub(super) fn delivered(world: &Arc<World>, account: &Account, sender: &Arc<Account>, reply: &Reply, peer: bool) {
    if peer || sender.number == account.number {
        return;
    }
    let receipt = reply.receipt(account).build();
    world.deliver(sender, reply.device.device, receipt);
}

/// Asks the sender's device to encrypt its message anew, and gives it keys for a new session.
pub(super) fn retry(
    world: &Arc<World>,
    account: &Account,
    sender: &Arc<Account>,
    reply: &Reply,
    time: &str,
    count: u8,
) {
    let keys = account.phone.bundle();
    let retry =
        element("retry").attr("v", "1").attr("count", count).attr("id", reply.id.as_str()).attr("t", time).build();
    let signed = element("skey").children([
        element("id").bytes(keys.signed.id).build(),
        element("value").bytes(keys.signed.key).build(),
        element("signature").bytes(keys.signed.signature).build(),
    ]);
    let mut bundle = vec![element("type").bytes([5]).build(), element("identity").bytes(keys.identity).build()];
    if let Some(key) = keys.one_time {
        let key = [element("id").bytes(key.id).build(), element("value").bytes(key.key).build()];
        bundle.push(element("key").children(key).build());
    }
    bundle.push(signed.build());
    let bundle = element("keys").children(bundle);
    let receipt = reply.receipt(account).attr("type", "retry").children([
        retry,
        element("registration").bytes(keys.registration).build(),
        bundle.build(),
    ]);
    world.deliver(sender, reply.device.device, receipt.build());
}

/// A device could not decrypt what the phone sent: it gets it again over a new session.
pub(super) fn send_again(world: &Arc<World>, account: &Arc<Account>, id: &str, recipient: &Arc<Account>, device: u16) {
    let Some(sent) = lock(&account.phone.sent).message(id) else {
        return;
    };
    let Some(contact) = world.account(&sent.to) else {
        return;
    };
    let own = recipient.number == account.number && contact.number != account.number;
    let (message, kind) =
        if own { (device_sent(&contact, sent.message), Kind::OwnText(&contact)) } else { (sent.message, Kind::Text) };
    let outgoing = Outgoing { world, account, id, time: unix_now() };
    let mut signal = lock(&account.phone.signal);
    signal.forget_session(&recipient.number, device);
    world.stats.count("phone: sent again");
    if let Err(error) = outgoing.send(&mut signal, recipient, device, &message, kind) {
        tracing::debug!(%error, "cannot send again");
    }
}

/// Sends a read receipt to all devices of a message's sender, and shows it to the own companions.
pub(super) fn mark_read(world: &Arc<World>, account: &Arc<Account>, id: &str) -> Result<(), PhoneError> {
    let unknown = || PhoneError::UnknownMessage(id.to_string());
    let received = lock(&account.phone.inbox).by_id(id).ok_or_else(unknown)?;
    let sender = world.resolve(&received.sender).ok_or_else(unknown)?;
    let reply = Reply { id: id.to_string(), device: received.sender.to_non_ad(), group: received.group };
    let receipt = reply.receipt(account).attr("type", "read");
    let mut devices = sender.state().companions();
    devices.push(0);
    let stanza = receipt.build();
    for device in devices {
        world.deliver(&sender, device, stanza.clone());
    }
    let mut own = reply.receipt(account).attr("type", "read");
    if reply.group.is_none() {
        own = own.attr("recipient", &reply.device);
    }
    let own = own.build();
    let companions = account.state().companions();
    for companion in companions {
        world.deliver(account, companion, own.clone());
    }
    Ok(())
}
