//! From a login to the last stanza: who a connection belongs to, and which module answers a stanza.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use wacore_binary::Node;
use waproto::whatsapp as wa;

use crate::account::{Account, DeviceKey};
use crate::error::StanzaError;
use crate::link::Link;
use crate::queue::Class;
use crate::stanza::{attr_is, children, element, iq_result, jid_of, text_of};
use crate::world::World;
use crate::{
    app_state, calls, groups, media, messages, pairing, prekeys, presence, profile, receipts, refusals, settings, usync,
};

/// The `reason` of a `<failure>` for an unknown device: the client must pair anew.
pub(crate) const LOGGED_OUT: u16 = 401;

/// The device that a connection is logged in as.
pub(crate) struct Login {
    /// Its account.
    pub(crate) account: Arc<Account>,
    /// Its number.
    pub(crate) device: u16,
}

impl Login {
    /// Its key.
    pub(crate) fn key(&self) -> DeviceKey {
        self.account.key(self.device)
    }
}

/// A connection after its handshake.
pub(crate) struct Session {
    pub(crate) world: Arc<World>,
    pub(crate) link: Arc<Link>,
    /// The client's Noise static key.
    pub(crate) noise: [u8; 32],
    /// Never filled again: a client that has paired connects anew.
    login: OnceLock<Login>,
}

impl Session {
    /// Reads the login or registration payload and answers it.
    pub(crate) fn open(world: &Arc<World>, link: Arc<Link>, noise: [u8; 32], payload: &wa::ClientPayload) -> Self {
        let session = Self { world: world.clone(), link, noise, login: OnceLock::new() };
        match (payload.username, payload.device) {
            (Some(user), Some(device)) => session.log_in(&user.to_string(), device),
            _ => pairing::offer(&session),
        }
        session
    }

    /// The device, for stanzas that only a device may send.
    pub(crate) fn login(&self) -> Result<&Login, StanzaError> {
        self.login.get().ok_or(StanzaError::NotLoggedIn)
    }

    /// Sends a stanza to the client.
    pub(crate) fn send(&self, node: &Node) {
        self.link.send_node(node);
    }

    /// Answers an IQ.
    pub(crate) fn reply(&self, request: &Node, child: Option<Node>) {
        self.send(&iq_result(&text_of(request, "id"), child));
    }

    fn log_in(&self, user: &str, device: u32) {
        let account = self.world.account(user);
        let device = u16::try_from(device).ok();
        let key = DeviceKey { number: user.into(), device: device.unwrap_or_default() };
        if let Some(reason) = self.world.faults.refused_login(&key) {
            return self.refuse(reason);
        }
        let (Some(account), Some(number)) = (account, device) else {
            return self.refuse(LOGGED_OUT);
        };
        let mut state = account.state();
        let known = state.devices.get_mut(&number).filter(|d| d.noise == self.noise);
        let Some(device) = known else {
            drop(state);
            return self.refuse(LOGGED_OUT);
        };
        let former = device.link.replace(self.link.clone());
        device.active = false;
        device.queue.rewind();
        // Under the account's lock, so that logins are judged in the order in which they took effect.
        let link = &self.link;
        self.world.oracle.logged_in(&key, link.id, &link.claim, former.as_ref().map(|f| f.id));
        // The cell is empty: a connection logs in once.
        let _ = link.device.set(key);
        drop(state);
        if let Some(former) = former {
            replace(&self.world, &former);
        }
        self.world.stats.count("login");
        self.send(
            &element("success")
                .attr("t", self.world.faults.now())
                .attr("props", 27)
                .attr("companion_enc_static", "")
                .attr("lid", account.lid(number))
                .build(),
        );
        let login = Login { account: account.clone(), device: number };
        // The cell is empty: this runs once, in `open`.
        let _ = self.login.set(login);
    }

    fn refuse(&self, reason: u16) {
        self.world.stats.count("login refused");
        let failure = element("failure").attr("reason", reason).attr("location", "sim").build();
        self.link.say_and_close(Some(&failure), self.world.config.close_grace);
    }

    /// The connection has ended.
    pub(crate) fn close(&self) {
        pairing::abandon(self);
        let Some(login) = self.login.get() else { return };
        self.world.oracle.disconnected(self.link.id);
        let mut state = login.account.state();
        let Some(device) = state.devices.get_mut(&login.device) else {
            return;
        };
        // Another login may have taken the device over.
        if device.disconnect(&self.link) {
            drop(state);
            presence::set_available(&self.world, &login.account, false);
        }
    }
}

/// Tells a connection that another login has taken its place, and closes it.
pub(crate) fn replace(world: &World, former: &Link) {
    let conflict = element("conflict").attr("type", "replaced").build();
    let error = element("stream:error").children([conflict]).build();
    let _ = former.replaced.set(Instant::now());
    world.stats.count("replaced");
    former.say_and_close(Some(&error), world.config.close_grace);
}

/// Logs a device out: it is told so, its connection ends, and it can never log in again. False when there is none.
pub(crate) fn remove_device(world: &Arc<World>, account: &Arc<Account>, device: u16) -> bool {
    let conflict = element("conflict").attr("type", "device_removed").build();
    let error = element("stream:error").attr("code", 401).children([conflict]).build();
    world.remove_device(account, device, Some(&error))
}

/// Handles one stanza of a client. What is wrong with it is its own affair: it is told, the connection goes on.
pub(crate) fn handle(session: &Session, node: &Node) {
    let world = &session.world;
    world.stats.count_stanza(node);
    if let (Some(since), Some(login)) = (session.link.replaced_for(), session.login.get()) {
        // WhatsApp has ended this stream: nothing that still comes from it takes effect.
        world.stats.count("stanza after replaced");
        if since > world.config.replaced_grace {
            world.oracle.acts_after_replaced(&login.key(), session.link.id, node, since);
        }
        return;
    }
    let done = match node.tag.as_ref() {
        "iq" => iq(session, node),
        "message" => messages::handle(session, node),
        "receipt" => receipts::handle(session, node),
        "ack" => {
            acknowledged(session, node);
            Ok(())
        }
        "presence" => presence::handle(session, node),
        "chatstate" => presence::chat_state(session, node),
        "call" => calls::handle(session, node),
        "ib" => {
            info(session, node);
            Ok(())
        }
        "xmlstreamend" => {
            session.link.say_and_close(None, world.config.close_grace);
            Ok(())
        }
        _ => {
            refusals::unknown(session, node);
            Ok(())
        }
    };
    if let Err(error) = done {
        refusals::refuse(session, node, &error);
    }
}

/// `<ib>`: what a client tells the server, who has nothing to say to it.
fn info(session: &Session, node: &Node) {
    let known = |child: &Node| {
        matches!(child.tag.as_ref(), "unified_session" | "offline_batch" | "edge_routing" | "dirty" | "tc_token")
    };
    if !children(node).iter().all(known) {
        refusals::unknown(session, node);
    }
}

fn iq(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let child = children(node).first();
    let tag = child.map_or("", |c| c.tag.as_ref());
    if attr_is(node, "type", "result") || attr_is(node, "type", "error") {
        return match child {
            Some(signed) if tag == "pair-device-sign" => pairing::signed(session, signed),
            _ => Ok(()),
        };
    }
    let namespace = text_of(node, "xmlns");
    match (namespace.as_str(), tag) {
        ("w:p" | "urn:xmpp:ping", _) => session.reply(node, None),
        ("passive", _) => return passive(session, node, tag),
        ("encrypt", _) => return prekeys::handle(session, node),
        ("usync", "usync") => return usync::handle(session, node),
        ("md", _) => return pairing::handle(session, node),
        ("w:sync:app:state", "sync") => return app_state::handle(session, node),
        ("w:g2", _) => return groups::handle(session, node),
        ("w:m", "media_conn") => media::connection(session, node),
        ("blocklist", _) => return settings::blocklist(session, node),
        ("privacy", _) => return settings::privacy(session, node),
        ("abt", _) | ("w", "props") => session.reply(node, Some(element("props").build())),
        ("w:profile:picture", _) => return profile::picture(session, node),
        ("status", _) => return profile::about(session, node),
        ("w:biz", _) => return profile::business(session, node),
        // The client has seen what was `dirty`, reports how it is used, or sets the timer of new chats.
        ("urn:xmpp:whatsapp:dirty", "clean") | ("w:stats" | "disappearing_mode", _) => session.reply(node, None),
        _ => {
            session.world.stats.count("unknown iq");
            tracing::debug!(%namespace, tag, "no answer to this iq");
            return Err(StanzaError::Refused { code: 501, text: "feature-not-implemented" });
        }
    }
    Ok(())
}

/// `<active/>`: the device wants its stanzas from now on. `<passive/>`: it does not.
fn passive(session: &Session, node: &Node, tag: &str) -> Result<(), StanzaError> {
    session.reply(node, None);
    if tag == "active" {
        let login = session.login()?;
        messages::activate(&session.world, &login.account, login.device);
    }
    Ok(())
}

/// `<ack class=message|receipt|notification>`: the device has it. A client that pairs by code acknowledges the
/// notification of `primary_hello` before it is a device; nothing waits for it.
fn acknowledged(session: &Session, node: &Node) {
    let Some(login) = session.login.get() else {
        return;
    };
    let class = match text_of(node, "class").as_str() {
        "message" => Class::Message,
        "receipt" => Class::Receipt,
        _ => Class::Notification,
    };
    if node.attrs.get("error").is_some() {
        // The device has it and can do nothing with it.
        session.world.stats.count("refused by a client");
    }
    let mut state = login.account.state();
    if let Some(device) = state.devices.get_mut(&login.device) {
        let id = text_of(node, "id");
        device.queue.acknowledge(class, &id, session.link.id, &session.world.ledger);
    }
}

/// The account that a stanza is addressed to.
pub(crate) fn addressee(session: &Session, node: &Node) -> Result<Arc<Account>, StanzaError> {
    let jid = jid_of(node, "to").ok_or(StanzaError::Malformed("to"))?;
    session.world.resolve(&jid).ok_or(StanzaError::Refused { code: 404, text: "item-not-found" })
}
