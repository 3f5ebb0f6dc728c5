//! What an account has set: blocked contacts, privacy, and the tokens of trusted contacts.
//!
//! Invariant: what a blocked contact sends is acknowledged and reaches nobody.

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::Digest;
use wacore_binary::Node;

use crate::account::Account;
use crate::error::StanzaError;
use crate::router::Session;
use crate::stanza::{attr_is, children, element, jid_of, text_of, unix_now};
use crate::world::World;

/// Contacts that an account may block.
const BLOCKED: usize = 10_000;
/// Tokens of one request.
const TOKENS: usize = 1_024;
/// What can be kept private, and the values that it may have.
const PRIVACY: [(&str, &[&str]); 9] = [
    ("last", &["all", "contacts", "contact_blacklist", "none"]),
    ("online", &["all", "match_last_seen"]),
    ("profile", &["all", "contacts", "contact_blacklist", "none"]),
    ("status", &["all", "contacts", "contact_blacklist", "none"]),
    ("groupadd", &["all", "contacts", "contact_blacklist", "none"]),
    ("readreceipts", &["all", "none"]),
    ("calladd", &["all", "known"]),
    ("messages", &["all", "contacts"]),
    ("defense", &["off", "on_standard"]),
];

/// Answers `xmlns=blocklist`: a change is answered with the list as it is then.
pub(crate) fn blocklist(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let (login, world) = (session.login()?, &session.world);
    if let Some(item) = children(node).first().filter(|c| c.tag == "item") {
        let jid = jid_of(item, "jid").ok_or(StanzaError::Malformed("jid"))?;
        let contact = world.resolve(&jid).ok_or(StanzaError::Refused { code: 404, text: "item-not-found" })?;
        let block = attr_is(item, "action", "block");
        session.reply(node, Some(set_blocked(world, &login.account, &contact, block, Some(login.device))));
        return Ok(());
    }
    let blocked = login.account.state().blocked.clone();
    session.reply(node, Some(blocked_node(world, &blocked)));
    Ok(())
}

/// Blocks a contact or no longer, and tells the account's other devices. Returns the list.
pub(crate) fn set_blocked(
    world: &Arc<World>,
    account: &Arc<Account>,
    contact: &Account,
    block: bool,
    by: Option<u16>,
) -> Node {
    let (former, blocked) = {
        let mut state = account.state();
        let former = state.blocked.clone();
        if !block {
            state.blocked.remove(&contact.number);
        } else if state.blocked.len() < BLOCKED {
            state.blocked.insert(contact.number.clone());
        }
        (former, state.blocked.clone())
    };
    let action = if block { "block" } else { "unblock" };
    let change = element("blocklist")
        .attr("action", "modify")
        .attr("prev_dhash", hash(&former))
        .attr("dhash", hash(&blocked))
        .children([element("item").attr("jid", contact.pn(0)).attr("action", action).build()]);
    account_sync(world, account, by, &change.build());
    blocked_node(world, &blocked)
}

/// Whether what `from` sends is to reach `to`.
pub(crate) fn is_blocked(from: &Account, to: &Account) -> bool {
    from.number != to.number && to.state().blocked.contains(&from.number)
}

/// Whether an account lets nobody write first whom it does not trust, and `from` is such a one.
pub(crate) fn is_stranger(to: &Account, from: &Account) -> bool {
    if from.number == to.number || !to.profile().hides("messages") {
        return false;
    }
    !to.state().trusted.contains(&from.number)
}

fn hash(blocked: &BTreeSet<Arc<str>>) -> String {
    let names: Vec<&str> = blocked.iter().map(|b| &**b).collect();
    hex::encode(&sha2::Sha256::digest(names.concat().as_bytes())[..6])
}

fn blocked_node(world: &World, blocked: &BTreeSet<Arc<str>>) -> Node {
    let accounts = blocked.iter().filter_map(|number| world.account(number));
    let items: Vec<Node> = accounts.map(|a| element("item").attr("jid", a.pn(0)).build()).collect();
    element("list").attr("dhash", hash(blocked)).children(items).build()
}

/// Tells the account's devices, but for one, of a change of its settings.
fn account_sync(world: &Arc<World>, account: &Arc<Account>, except: Option<u16>, change: &Node) {
    let companions = account.state().companions();
    for companion in companions.into_iter().filter(|c| Some(*c) != except) {
        let notice = element("notification")
            .attr("from", account.pn(0))
            .attr("type", "account_sync")
            .attr("id", world.next_id())
            .attr("t", unix_now())
            .children([change.clone()]);
        world.deliver(account, companion, notice.build());
    }
}

/// Answers `xmlns=privacy`: what is set, a change, or tokens for trusted contacts.
pub(crate) fn privacy(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let (login, world) = (session.login()?, &session.world);
    if let Some(tokens) = node.get_optional_child("tokens") {
        trust(world, &login.account, tokens)?;
        session.reply(node, None);
        return Ok(());
    }
    if attr_is(node, "type", "set") {
        let asked = node.get_optional_child("privacy").ok_or(StanzaError::Malformed("privacy"))?;
        let mut changed = Vec::new();
        for category in asked.get_children_by_tag("category").take(PRIVACY.len()) {
            let (name, value) = (text_of(category, "name"), text_of(category, "value"));
            set_privacy(world, &login.account, &name, &value, Some(login.device))?;
            changed.push(category_node(&name, &value));
        }
        session.reply(node, Some(element("privacy").children(changed).build()));
        return Ok(());
    }
    let set = login.account.profile().privacy.clone();
    let categories = PRIVACY.iter().map(|(name, values)| {
        let value = set.get(*name).map_or(values[0], String::as_str);
        category_node(name, value)
    });
    session.reply(node, Some(element("privacy").children(categories).build()));
    Ok(())
}

fn category_node(name: &str, value: &str) -> Node {
    element("category").attr("name", name).attr("value", value).build()
}

/// Sets one category of privacy, and tells the account's other devices.
pub(crate) fn set_privacy(
    world: &Arc<World>,
    account: &Arc<Account>,
    name: &str,
    value: &str,
    by: Option<u16>,
) -> Result<(), StanzaError> {
    let known = PRIVACY.iter().any(|(n, values)| *n == name && values.contains(&value));
    if !known {
        return Err(StanzaError::Refused { code: 400, text: "bad-request" });
    }
    account.profile().privacy.insert(name.to_string(), value.to_string());
    let change = element("privacy").children([category_node(name, value)]).build();
    account_sync(world, account, by, &change);
    Ok(())
}

/// `<tokens>`: the account trusts these contacts, who get a token of it.
fn trust(world: &Arc<World>, account: &Arc<Account>, tokens: &Node) -> Result<(), StanzaError> {
    for token in tokens.get_children_by_tag("token").take(TOKENS) {
        let jid = jid_of(token, "jid").ok_or(StanzaError::Malformed("jid"))?;
        if let Some(contact) = world.resolve(&jid) {
            give_token(world, account, &contact, &text_of(token, "t"));
        }
    }
    Ok(())
}

/// A contact is trusted from now on, and its devices learn of the token that says so.
pub(crate) fn give_token(world: &Arc<World>, account: &Arc<Account>, contact: &Arc<Account>, time: &str) {
    account.state().trusted.insert(contact.number.clone());
    let token = element("token").attr("type", "trusted_contact").attr("t", time);
    let token = token.bytes(rand::random::<[u8; 16]>().to_vec()).build();
    let companions = contact.state().companions();
    for companion in companions {
        let notice = element("notification")
            .attr("from", account.pn(0))
            .attr("sender_lid", account.lid(0))
            .attr("type", "privacy_token")
            .attr("id", world.next_id())
            .attr("t", unix_now())
            .children([element("tokens").children([token.clone()]).build()]);
        world.deliver(contact, companion, notice.build());
    }
}
