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

use super::content::{self, Content, Style};
use super::groups;
use super::inbox::SentMessage;
use super::signal::{Endpoint, PeerKeys};
use crate::account::{Account, lock};
use crate::app_state::KEY_ID;
use crate::error::PhoneError;
use crate::groups::Group;
use crate::prekeys::issue_of;
use crate::stanza::{element, unix_now};
use crate::world::World;

/// A fresh message id in the form of a phone's.
pub(super) fn message_id() -> String {
    format!("AC{}", hex::encode_upper(rand::random::<[u8; 15]>()))
}

/// What went wrong in Signal.
pub(super) fn signal_error(error: impl std::fmt::Display) -> PhoneError {
    PhoneError::Signal(error.to_string())
}

/// Where a message goes.
pub(super) enum Chat {
    User(Arc<Account>),
    Group(Arc<Group>),
}

impl Chat {
    /// Its JID.
    pub(super) fn jid(&self) -> Jid {
        match self {
            Self::User(account) => account.pn(0),
            Self::Group(group) => group.jid(),
        }
    }
}

/// Sends something to an account's devices, shown to the own companions as well, or to a group.
pub(super) fn send(
    world: &Arc<World>,
    account: &Arc<Account>,
    to: &str,
    content: &Content,
) -> Result<String, PhoneError> {
    let chat = content::chat(world, to)?;
    let (message, style) = content::build(world, account, &chat, content)?;
    let id = message_id();
    let sent = SentMessage { to: to.to_string(), message: message.clone(), style };
    lock(&account.phone.sent).add(&id, sent);
    let outgoing = Outgoing { world, account, id: &id, time: world.faults.now(), style };
    world.ledger.accepted(&account.key(0), &id, outgoing.time);
    let mut signal = lock(&account.phone.signal);
    match &chat {
        Chat::User(recipient) => to_user(&outgoing, &mut signal, recipient, message)?,
        Chat::Group(group) => groups::send(&outgoing, &mut signal, group, &message)?,
    }
    drop(signal);
    world.stats.count("phone: sent");
    Ok(id)
}

fn to_user(
    outgoing: &Outgoing<'_>,
    signal: &mut Endpoint,
    recipient: &Arc<Account>,
    message: wa::Message,
) -> Result<(), PhoneError> {
    let account = outgoing.account;
    let own = recipient.number == account.number;
    let mut devices = recipient.state().companions();
    if !own {
        devices.push(0);
    }
    for device in devices {
        outgoing.send(signal, recipient, device, &message, Kind::Text)?;
    }
    if own {
        return Ok(());
    }
    let copy = device_sent(recipient, message);
    let companions = account.state().companions();
    for companion in companions {
        outgoing.send(signal, account, companion, &copy, Kind::OwnText(recipient))?;
    }
    Ok(())
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
pub(super) struct Outgoing<'a> {
    pub(super) world: &'a Arc<World>,
    pub(super) account: &'a Arc<Account>,
    id: &'a str,
    time: u64,
    style: Style,
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
        if let Some(enc) = self.encrypt(signal, recipient, device, message)? {
            self.world.deliver(recipient, device, self.stanza(recipient, kind, enc));
        }
        Ok(())
    }

    /// The `<enc>` for one device, over a session that is begun when there is none. `None` when the
    /// device has no keys.
    pub(super) fn encrypt(
        &self,
        signal: &mut Endpoint,
        recipient: &Arc<Account>,
        device: u16,
        message: &wa::Message,
    ) -> Result<Option<Node>, PhoneError> {
        let peer = &*recipient.number;
        if !signal.has_session(peer, device) {
            let Some(keys) = issue_of(self.world, recipient, device, false) else {
                return Ok(None);
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
        let (kind, ciphertext) = signal.encrypt(peer, device, &plaintext).map_err(signal_error)?;
        Ok(Some(element("enc").attr("v", "2").attr("type", kind).bytes(ciphertext).build()))
    }

    /// The stanza of a message to a group, for one device.
    pub(super) fn group_stanza(&self, group: &Jid, encs: Vec<Node>) -> Node {
        let message = self
            .common()
            .attr("from", group)
            .attr("participant", self.account.pn(0))
            .attr("participant_lid", self.account.lid(0))
            .attr("addressing_mode", "pn");
        message.children(encs).build()
    }

    fn common(&self) -> NodeBuilder {
        let message = element("message")
            .attr("id", self.id)
            .attr("type", self.style.kind)
            .attr("t", self.time)
            .attr("notify", self.account.push_name());
        match self.style.edit {
            Some(edit) => message.attr("edit", edit),
            None => message,
        }
    }

    fn stanza(&self, recipient: &Account, kind: Kind<'_>, enc: Node) -> Node {
        let message = self.common().attr("from", self.account.pn(0)).attr("sender_lid", self.account.lid(0));
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
    let outgoing = Outgoing { world, account, id: &message_id(), time: world.faults.now(), style: Style::TEXT };
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
    let Ok(chat) = content::chat(world, &sent.to) else {
        return;
    };
    let outgoing = Outgoing { world, account, id, time: world.faults.now(), style: sent.style };
    let mut signal = lock(&account.phone.signal);
    signal.forget_session(&recipient.number, device);
    world.stats.count("phone: sent again");
    let done = match &chat {
        Chat::Group(group) => groups::send_again(&outgoing, &mut signal, group, (recipient, device), sent.message),
        Chat::User(contact) if recipient.number == account.number && contact.number != account.number => {
            let copy = device_sent(contact, sent.message);
            outgoing.send(&mut signal, recipient, device, &copy, Kind::OwnText(contact))
        }
        Chat::User(_) => outgoing.send(&mut signal, recipient, device, &sent.message, Kind::Text),
    };
    if let Err(error) = done {
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
