//! `<receipt>`: takes messages off the device's queue and is passed on to whom it is for.

use std::sync::Arc;

use wacore_binary::jid::Server;
use wacore_binary::{Jid, Node};

use crate::account::Account;
use crate::error::StanzaError;
use crate::queue::Class;
use crate::router::{Login, Session};
use crate::stanza::{children, element, jid_of, required_jid, text_of, unix_now};
use crate::world::World;
use crate::{phones, prekeys};

/// Messages of one receipt.
const MESSAGES: usize = 4_096;

/// What a receipt is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    /// The device has a message, or wants it again: it is not sent again of itself.
    Delivery,
    /// A person has read or played it, which comes after delivery and says nothing about it.
    Reading,
    /// The same, for the account's own devices alone.
    OwnReading,
    /// What only the account's phone is to know.
    Phone,
}

fn about(kind: &str) -> Option<About> {
    match kind {
        "" | "inactive" | "sender" | "retry" | "enc_rekey_retry" | "peer_msg" | "view" => Some(About::Delivery),
        "read" | "played" => Some(About::Reading),
        "read-self" | "played-self" => Some(About::OwnReading),
        "server-error" | "hist_sync" => Some(About::Phone),
        _ => None,
    }
}

/// Answers a `<receipt>`.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    let to = required_jid(node, "to")?;
    let kind = text_of(node, "type");
    let about = about(&kind).ok_or(StanzaError::UnknownType)?;
    let participant = jid_of(node, "participant");
    let mut acknowledgement = element("ack").attr("class", "receipt").attr("id", text_of(node, "id")).attr("from", &to);
    if !kind.is_empty() {
        acknowledgement = acknowledgement.attr("type", kind.as_str());
    }
    if let Some(participant) = &participant {
        acknowledgement = acknowledgement.attr("participant", participant);
    }
    session.send(&acknowledgement.build());
    if matches!(about, About::Delivery | About::Phone) {
        acknowledge(&session.world, session.link.id, login, node)?;
    }
    if node.get_optional_child("offer").is_some() {
        // It says that a call has arrived, not a message.
        return Ok(());
    }
    let receipt = Receipt { world: &session.world, login, node, kind: &kind, to: &to };
    receipt.judge(participant.as_ref());
    session.world.oracle.prekeys_given(&login.key(), prekeys::offered(node));
    match about {
        About::Phone => receipt.tell_phone(),
        About::OwnReading => receipt.tell_own_devices(),
        About::Reading => {
            receipt.tell_own_devices();
            receipt.forward_to_author(participant);
        }
        About::Delivery if receipt.is_own() && kind == "peer_msg" => receipt.tell_phone(),
        About::Delivery => receipt.forward_to_author(participant),
    }
    Ok(())
}

/// The device has these messages: they are not sent again.
fn acknowledge(world: &World, connection: u64, login: &Login, node: &Node) -> Result<(), StanzaError> {
    if more(node).len() > MESSAGES {
        return Err(StanzaError::Malformed("list"));
    }
    let mut state = login.account.state();
    if let Some(device) = state.devices.get_mut(&login.device) {
        for id in ids(node) {
            if !device.queue.acknowledge(Class::Message, &id, connection, &world.ledger) {
                // A call is confirmed by a receipt as well.
                device.queue.acknowledge(Class::Notification, &id, connection, &world.ledger);
            }
        }
    }
    Ok(())
}

/// The further messages that a receipt is for.
fn more(node: &Node) -> &[Node] {
    node.get_optional_child("list").map_or(&[][..], children)
}

/// All messages that a receipt is for.
fn ids(node: &Node) -> impl Iterator<Item = String> {
    std::iter::once(node).chain(more(node)).map(|item| text_of(item, "id"))
}

struct Receipt<'a> {
    world: &'a Arc<World>,
    login: &'a Login,
    node: &'a Node,
    kind: &'a str,
    to: &'a Jid,
}

impl Receipt<'_> {
    fn in_a_room(&self) -> bool {
        matches!(self.to.server, Server::Group | Server::Broadcast)
    }

    fn is_own(&self) -> bool {
        self.world.resolve(self.to).is_some_and(|a| a.number == self.login.account.number)
    }

    /// Notices a receipt for a message that was never for the device. A person also reads what came before the device
    /// was linked, or stands in the history that the phone gave it. What the devices of an account send each other is
    /// not traced, and of a room's message without an author nobody knows whose it is.
    fn judge(&self, participant: Option<&Jid>) {
        let by_person = match self.kind {
            "" | "inactive" | "sender" | "retry" => false,
            "read" | "played" | "read-self" | "played-self" => true,
            _ => return,
        };
        let author = if self.in_a_room() { participant } else { Some(self.to) };
        let (Some(author), world) = (author.and_then(|a| self.world.resolve(a)), self.world) else { return };
        if author.number == self.login.account.number {
            return;
        }
        // A device that another of its account has written from gets a copy, and names the chat.
        let (device, senders) = (self.login.key(), [author.number.clone(), self.login.account.number.clone()]);
        for id in ids(self.node).take(MESSAGES) {
            let known = world.ledger.was_for(&senders, &id, &device, by_person);
            if !(known || by_person && phones::is_in_archive(&id)) {
                world.oracle.unknown_receipt(&device, self.kind, &id);
            }
        }
    }

    fn tell_phone(&self) {
        let Login { account, device } = self.login;
        self.world.deliver(account, 0, self.stanza(account.pn(*device), None));
    }

    fn forward_to_author(&self, participant: Option<Jid>) {
        match (self.in_a_room(), participant) {
            (true, Some(author)) => self.forward(&author),
            (true, None) => {}
            (false, _) => self.forward(self.to),
        }
    }

    /// Brings it to the device that it names, or to all devices of a user that it names.
    fn forward(&self, target: &Jid) {
        let Some(account) = self.world.resolve(target) else {
            return;
        };
        let Login { account: sender, device } = self.login;
        let by_lid = target.is_lid();
        let me = if by_lid { sender.lid(*device) } else { sender.pn(*device) };
        let stanza = if self.in_a_room() {
            self.stanza(self.to.clone(), Some(("participant", me)))
        } else {
            self.stanza(me, None)
        };
        if target.device == 0 {
            self.deliver_to_companions(&account, &stanza);
        }
        self.world.deliver(&account, target.device, stanza);
    }

    /// The other devices of the reader learn that the chat was read.
    fn tell_own_devices(&self) {
        let Login { account, device } = self.login;
        let (from, more) = if self.in_a_room() {
            (self.to.clone(), Some(("participant", account.pn(*device))))
        } else {
            (account.pn(*device), Some(("recipient", self.to.to_non_ad())))
        };
        let stanza = self.stanza(from, more);
        self.deliver_to_companions(account, &stanza);
    }

    fn deliver_to_companions(&self, account: &Arc<Account>, stanza: &Node) {
        let own = account.number == self.login.account.number;
        let companions = account.state().companions();
        for companion in companions {
            if !(own && companion == self.login.device) {
                self.world.deliver(account, companion, stanza.clone());
            }
        }
    }

    fn stanza(&self, from: Jid, more: Option<(&'static str, Jid)>) -> Node {
        let mut stanza =
            element("receipt").attr("id", text_of(self.node, "id")).attr("from", from).attr("t", unix_now());
        if let Some((key, jid)) = more {
            stanza = stanza.attr(key, jid);
        }
        if !self.kind.is_empty() {
            stanza = stanza.attr("type", self.kind);
        }
        stanza.apply_content(self.node.content.clone()).build()
    }
}
