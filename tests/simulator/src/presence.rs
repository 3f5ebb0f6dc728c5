//! Presence and chat state: passed on at once, never queued.

use std::sync::Arc;

use wacore_binary::Node;
use wacore_binary::jid::Server;

use crate::account::Account;
use crate::error::StanzaError;
use crate::router::{Session, addressee};
use crate::stanza::{element, required_jid, text_of, unix_now};
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
            {
                let mut state = contact.state();
                if state.presence_watchers.len() < WATCHERS {
                    state.presence_watchers.insert(login.key());
                }
            }
            session.send(&presence(&contact));
        }
        "unavailable" => set_available(&session.world, &login.account, false),
        "available" | "" => set_available(&session.world, &login.account, true),
        _ => {}
    }
    Ok(())
}

fn presence(account: &Account) -> Node {
    let state = account.state();
    let presence = element("presence").attr("from", account.pn(0));
    if state.online {
        presence.build()
    } else {
        presence.attr("type", "unavailable").attr("last", state.last_seen).build()
    }
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
    let presence = presence(account);
    for watcher in watchers {
        if let Some(other) = world.account(&watcher.number) {
            other.send_volatile(watcher.device, &presence);
        }
    }
}

/// Handles a `<chatstate>`: the contact's devices see that somebody types.
pub(crate) fn chat_state(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    let to = required_jid(node, "to")?;
    if to.server == Server::Group {
        return Ok(());
    }
    let contact = addressee(session, node)?;
    let from = if to.is_lid() { login.account.lid(0) } else { login.account.pn(0) };
    let state = element("chatstate").attr("from", from).apply_content(node.content.clone()).build();
    let companions = contact.state().companions();
    for companion in companions {
        contact.send_volatile(companion, &state);
    }
    Ok(())
}
