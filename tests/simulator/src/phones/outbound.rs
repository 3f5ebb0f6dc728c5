//! What a phone sends to people: one message, encrypted for each device that it goes to.
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

use super::content::{self, Content, SendOptions, Style};
use super::inbox::SentMessage;
use super::known::Known;
use super::rooms::{self, Room};
use super::signal::{Endpoint, PeerKeys};
use crate::account::{Account, lock};
use crate::error::PhoneError;
use crate::groups::Group;
use crate::prekeys::issue_of;
use crate::settings;
use crate::stanza::element;
use crate::world::World;

/// Messages that a phone holds back at a time.
const HELD: usize = 512;

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
    /// To an account.
    User(Arc<Account>),
    /// To a group.
    Group(Arc<Group>),
    /// To those who may see the account's status.
    Status(Vec<Arc<Account>>),
}

impl Chat {
    /// Its JID.
    pub(super) fn jid(&self, by_lid: bool) -> Jid {
        match self {
            Self::User(account) if by_lid => account.lid(0),
            Self::User(account) => account.pn(0),
            Self::Group(group) => group.jid(),
            Self::Status(_) => Jid::status_broadcast(),
        }
    }

    /// Whether people are addressed by LID in it, although the sender would not.
    pub(super) fn by_lid(&self, asked: bool) -> bool {
        match self {
            Self::User(_) => asked,
            Self::Group(group) => group.options().by_lid,
            Self::Status(_) => false,
        }
    }
}

/// A [`Chat`] by names, which keeps no account alive.
#[derive(Clone)]
pub(super) enum Destination {
    User(Arc<str>),
    Group(String),
    Status(Vec<Arc<str>>),
}

impl Destination {
    fn of(chat: &Chat) -> Self {
        match chat {
            Chat::User(account) => Self::User(account.number.clone()),
            Chat::Group(group) => Self::Group(group.jid().user.to_string()),
            Chat::Status(audience) => Self::Status(audience.iter().map(|a| a.number.clone()).collect()),
        }
    }

    fn find(&self, world: &World) -> Option<Chat> {
        match self {
            Self::User(number) => world.account(number).map(Chat::User),
            Self::Group(id) => world.groups.get(id).map(Chat::Group),
            Self::Status(numbers) => Some(Chat::Status(numbers.iter().filter_map(|n| world.account(n)).collect())),
        }
    }
}

/// Sends something to an account's devices, shown to the own companions as well, to a group, or to those who
/// see the account's status.
pub(super) fn send(
    world: &Arc<World>,
    account: &Arc<Account>,
    chat: &Chat,
    content: &Content,
    options: &SendOptions,
) -> Result<String, PhoneError> {
    let (message, style) = content::build(world, account, chat, content, options)?;
    let id = message_id();
    remember(world, account, chat, &id, &message, style);
    let outgoing = Outgoing { world, account, id: &id, time: world.faults.now(), style };
    if options.held {
        let held = Held { to: Destination::of(chat), message, style, time: outgoing.time };
        let mut waiting = lock(&account.phone.held);
        if waiting.len() >= HELD {
            return Err(PhoneError::Invalid(format!("more than {HELD} messages are held back")));
        }
        waiting.insert(id.clone(), held);
        return Ok(id);
    }
    transmit(&outgoing, chat, message)?;
    Ok(id)
}

/// A message that a phone holds back.
pub(super) struct Held {
    to: Destination,
    message: wa::Message,
    style: Style,
    /// When it was written.
    time: u64,
}

/// Sends a message that was held back, with the time at which it was written.
pub(super) fn release(world: &Arc<World>, account: &Arc<Account>, id: &str) -> Result<(), PhoneError> {
    let held = lock(&account.phone.held).remove(id);
    let unknown = || PhoneError::UnknownMessage(id.to_string());
    let Held { to, message, style, time } = held.ok_or_else(unknown)?;
    let chat = to.find(world).ok_or_else(unknown)?;
    transmit(&Outgoing { world, account, id, time, style }, &chat, message)
}

fn transmit(outgoing: &Outgoing<'_>, chat: &Chat, message: wa::Message) -> Result<(), PhoneError> {
    let Outgoing { world, account, id, time, .. } = *outgoing;
    world.ledger.accepted(&account.key(0), id, time);
    let mut signal = lock(&account.phone.signal);
    match chat {
        Chat::User(recipient) => to_user(outgoing, &mut signal, recipient, message)?,
        Chat::Group(_) | Chat::Status(_) => rooms::send(outgoing, &mut signal, &Room::of(world, chat), &message)?,
    }
    drop(signal);
    world.stats.count("phone: sent");
    Ok(())
}

/// Keeps what was sent: devices may ask for it again, and contacts may refer to it.
fn remember(world: &World, account: &Account, chat: &Chat, id: &str, message: &wa::Message, style: Style) {
    let sent = SentMessage { to: Destination::of(chat), message: message.clone(), style };
    lock(&account.phone.sent).add(id, sent);
    let by_lid = chat.by_lid(style.by_lid);
    let author = if by_lid { account.lid(0) } else { account.pn(0) };
    lock(&account.phone.known).add(Known {
        id: id.to_string(),
        chat: chat.jid(by_lid).to_string(),
        author: account.number.clone(),
        participant: (!matches!(chat, Chat::User(_))).then(|| author.to_string()),
        from_me: true,
        time: world.faults.now(),
        message: message.clone(),
    });
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
    if !settings::is_blocked(account, recipient) {
        for device in devices {
            outgoing.send(signal, recipient, device, &message, Kind::Text)?;
        }
    }
    if own {
        return Ok(());
    }
    let copy = device_sent(&outgoing.user(recipient, 0), message);
    let companions = account.state().companions();
    for companion in companions {
        outgoing.send(signal, account, companion, &copy, Kind::OwnText(recipient))?;
    }
    Ok(())
}

/// The form in which the own devices get what one of them sent.
fn device_sent(recipient: &Jid, message: wa::Message) -> wa::Message {
    wa::Message {
        device_sent_message: MessageField::some(parts::DeviceSentMessage {
            destination_jid: Some(recipient.to_string()),
            message: MessageField::some(message),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// How a stanza is addressed.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
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
    pub(super) id: &'a str,
    pub(super) time: u64,
    pub(super) style: Style,
}

impl Outgoing<'_> {
    /// A device as this message names it.
    fn user(&self, account: &Account, device: u16) -> Jid {
        if self.style.by_lid { account.lid(device) } else { account.pn(device) }
    }

    /// Encrypts for one device and delivers. A device that has no keys is passed over.
    pub(super) fn send(
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
        let enc = element("enc").attr("v", "2").attr("type", kind);
        let enc = if let Some(kind) = self.style.medium { enc.attr("mediatype", kind) } else { enc };
        Ok(Some(enc.bytes(ciphertext).build()))
    }

    /// What every stanza of this message says.
    pub(super) fn common(&self) -> NodeBuilder {
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
        let message = self.common().attr("from", self.user(self.account, 0));
        let message = if self.style.by_lid {
            message.attr("addressing_mode", "lid").attr("sender_pn", self.account.pn(0))
        } else {
            message.attr("sender_lid", self.account.lid(0))
        };
        let message = match kind {
            Kind::Text => message,
            Kind::OwnText(contact) => {
                let message = message.attr("recipient", self.user(contact, 0));
                if self.style.by_lid { message.attr("peer_recipient_pn", contact.pn(0)) } else { message }
            }
            Kind::Peer => message.attr("category", "peer").attr("recipient", recipient.pn(0)),
        };
        message.children([enc]).build()
    }
}

/// A device could not decrypt what the phone sent: it gets it again over a new session.
pub(super) fn send_again(world: &Arc<World>, account: &Arc<Account>, id: &str, recipient: &Arc<Account>, device: u16) {
    let Some(sent) = lock(&account.phone.sent).message(id) else {
        return;
    };
    let Some(chat) = sent.to.find(world) else { return };
    let outgoing = Outgoing { world, account, id, time: world.faults.now(), style: sent.style };
    let mut signal = lock(&account.phone.signal);
    signal.forget_session(&recipient.number, device);
    world.stats.count("phone: sent again");
    let done = match &chat {
        Chat::Group(_) | Chat::Status(_) => {
            let room = Room::of(world, &chat);
            rooms::send_again(&outgoing, &mut signal, &room, (recipient, device), sent.message)
        }
        Chat::User(contact) if recipient.number == account.number && contact.number != account.number => {
            let copy = device_sent(&outgoing.user(contact, 0), sent.message);
            outgoing.send(&mut signal, recipient, device, &copy, Kind::OwnText(contact))
        }
        Chat::User(_) => outgoing.send(&mut signal, recipient, device, &sent.message, Kind::Text),
    };
    if let Err(error) = done {
        tracing::debug!(%error, "cannot send again");
    }
}

/// Finds where a message goes: a number, or a group's JID as it is now.
pub(super) fn chat(world: &Arc<World>, to: &str) -> Result<Chat, PhoneError> {
    let unknown = || PhoneError::UnknownNumber(to.to_string());
    match to.strip_suffix("@g.us") {
        Some(id) => world.groups.get(id).map(Chat::Group).ok_or_else(unknown),
        None => world.account(to).map(Chat::User).ok_or_else(unknown),
    }
}
