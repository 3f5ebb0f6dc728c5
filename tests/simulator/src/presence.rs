//! Presence and chat state: passed on at once, never queued.

use std::sync::Arc;

use wacore_binary::jid::Server;
use wacore_binary::{Jid, Node};

use crate::account::{Account, DeviceKey};
use crate::error::{PhoneError, StanzaError};
use crate::phones::{Activity, PhoneEvent};
use crate::profile;
use crate::router::{Session, addressee};
use crate::settings;
use crate::stanza::{attr_is, children, element, required_jid, text_of, unix_now};
use crate::world::World;

/// Contacts that may watch one account.
const WATCHERS: usize = 10_000;

/// Handles a `<presence>`.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    // Some clients send their name while they pair.
    let Ok(login) = session.login() else {
        return Ok(());
    };
    match text_of(node, "type").as_str() {
        "subscribe" => {
            let contact = addressee(session, node)?;
            watch(&contact, login.key());
            session.send(&presence(&contact, &login.account));
        }
        "unsubscribe" => {
            let contact = addressee(session, node)?;
            contact.state().presence_watchers.remove(&login.key());
        }
        "unavailable" => set_available(&session.world, &login.account, false),
        "available" | "" => set_available(&session.world, &login.account, true),
        _ => return Err(StanzaError::UnknownType),
    }
    Ok(())
}

/// A device watches an account come and go from now on.
pub(crate) fn watch(contact: &Account, watcher: DeviceKey) {
    let mut state = contact.state();
    if state.presence_watchers.len() < WATCHERS {
        state.presence_watchers.insert(watcher);
    }
}

/// The account's presence as another sees it.
fn presence(account: &Account, asking: &Account) -> Node {
    let shown = profile::may_see(account, "last", asking) && !settings::is_blocked(asking, account);
    let state = account.state();
    let presence = element("presence").attr("from", account.pn(0));
    if state.online && shown {
        return presence.build();
    }
    let presence = presence.attr("type", "unavailable");
    if shown { presence.attr("last", state.last_seen).build() } else { presence.attr("last", "deny").build() }
}

/// The account comes or goes; those who watch it are told.
pub(crate) fn set_available(world: &Arc<World>, account: &Arc<Account>, available: bool) {
    let watchers = {
        let mut state = account.state();
        if state.online == available {
            return;
        }
        state.online = available;
        state.last_seen = unix_now();
        state.presence_watchers.clone()
    };
    for watcher in watchers {
        let Some(other) = world.account(&watcher.number) else { continue };
        if watcher.device == 0 {
            let from = account.number.to_string();
            other.phone.events.note(PhoneEvent::Presence { from, available });
        } else {
            other.send_volatile(watcher.device, &presence(account, &other));
        }
    }
}

/// Handles a `<chatstate>`: the contact's or the group's devices see that somebody types.
pub(crate) fn chat_state(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    let to = required_jid(node, "to")?;
    let activity = children(node).first().ok_or(StanzaError::Malformed("chatstate"))?;
    let shown = Shown { world: &session.world, by: &login.account, activity };
    if to.server == Server::Group {
        return shown.to_group(&to, login.device);
    }
    let contact = addressee(session, node)?;
    shown.to_contact(&contact, to.is_lid());
    Ok(())
}

/// Somebody types.
struct Shown<'a> {
    world: &'a Arc<World>,
    by: &'a Arc<Account>,
    /// `<composing>` or `<paused>`.
    activity: &'a Node,
}

impl Shown<'_> {
    fn to_contact(&self, contact: &Arc<Account>, by_lid: bool) {
        if settings::is_blocked(self.by, contact) {
            return;
        }
        let from = if by_lid { self.by.lid(0) } else { self.by.pn(0) };
        let state = element("chatstate").attr("from", from).children([self.activity.clone()]).build();
        self.show(contact, &self.by.number, &state, None);
    }

    fn to_group(&self, jid: &Jid, device: u16) -> Result<(), StanzaError> {
        let group = self.world.groups.get(&jid.user).filter(|g| g.has(&self.by.number));
        let group = group.ok_or(StanzaError::Refused { code: 404, text: "item-not-found" })?;
        let (participant, _) = group.address(self.by, 0);
        let state = element("chatstate")
            .attr("from", jid)
            .attr("participant", participant)
            .children([self.activity.clone()])
            .build();
        for member in group.accounts(self.world) {
            let own = member.number == self.by.number;
            self.show(&member, &jid.to_string(), &state, own.then_some(device));
        }
        Ok(())
    }

    fn show(&self, to: &Account, chat: &str, state: &Node, except: Option<u16>) {
        if to.number != self.by.number {
            let (from, chat) = (self.by.number.to_string(), chat.to_string());
            to.phone.events.note(PhoneEvent::Activity { from, chat, activity: activity(self.activity) });
        }
        let companions = to.state().companions();
        for companion in companions.into_iter().filter(|c| Some(*c) != except) {
            to.send_volatile(companion, state);
        }
    }
}

fn activity(node: &Node) -> Activity {
    match node.tag.as_ref() {
        "composing" if attr_is(node, "media", "audio") => Activity::Recording,
        "composing" => Activity::Typing,
        _ => Activity::Paused,
    }
}

/// A phone shows a contact or a group what it does.
pub(crate) fn show_activity(
    world: &Arc<World>,
    account: &Arc<Account>,
    chat: &str,
    what: Activity,
) -> Result<(), PhoneError> {
    let activity = match what {
        Activity::Typing => element("composing").build(),
        Activity::Recording => element("composing").attr("media", "audio").build(),
        Activity::Paused => element("paused").build(),
    };
    let shown = Shown { world, by: account, activity: &activity };
    if let Some(id) = chat.strip_suffix("@g.us") {
        shown.to_group(&Jid::new(id, Server::Group), 0)?;
        return Ok(());
    }
    let contact = world.account(chat).ok_or_else(|| PhoneError::UnknownNumber(chat.to_string()))?;
    shown.to_contact(&contact, false);
    Ok(())
}
