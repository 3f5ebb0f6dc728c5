//! `usync`: which users exist, their devices and LIDs.
//!
//! Whoever asks for devices caches the answer for the life of its process and is told of changes
//! ([`World::announce_device`](crate::world::World::announce_device)).

use std::sync::Arc;

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};

use crate::account::Account;
use crate::error::StanzaError;
use crate::profile;
use crate::router::Session;
use crate::stanza::{children, content, element, jid_of, text_of};

/// Users of one request.
const USERS: usize = 4_096;
/// Protocols of one request.
const PROTOCOLS: usize = 32;

/// Answers a `<usync>`.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let request = children(node).first().ok_or(StanzaError::Malformed("usync"))?;
    let list = request.get_optional_child("list").map_or(&[][..], children);
    let protocols: Vec<&str> =
        request.get_optional_child("query").map_or(&[][..], children).iter().map(|p| p.tag.as_ref()).collect();
    if list.len() > USERS || protocols.len() > PROTOCOLS {
        return Err(StanzaError::Malformed("list"));
    }
    let users: Vec<Node> = list.iter().map(|user| answer(session, user, &protocols)).collect();
    let results = protocols.iter().map(|p| NodeBuilder::new_dynamic((*p).to_string()).build());
    let answer = element("usync")
        .attr("sid", text_of(request, "sid"))
        .attr("mode", text_of(request, "mode"))
        .attr("context", text_of(request, "context"))
        .attr("last", "true")
        .attr("index", "0")
        .children([element("result").children(results).build(), element("list").children(users).build()]);
    session.reply(node, Some(answer.build()));
    Ok(())
}

/// Who is asked for: by JID, or by a phone number whose text is echoed.
struct Asked {
    jid: Jid,
    text: Option<String>,
}

fn asked(user: &Node) -> Asked {
    if let Some(jid) = jid_of(user, "jid") {
        return Asked { jid: jid.to_non_ad(), text: None };
    }
    let text = user
        .get_optional_child("contact")
        .and_then(content)
        .map(|b| String::from_utf8_lossy(b).into_owned())
        .unwrap_or_default();
    // The number may come as `+123@c.us`; only its digits may become the user part of a JID.
    let digits: String = text.split('@').next().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    Asked { jid: Jid::pn(digits), text: Some(text) }
}

fn answer(session: &Session, user: &Node, protocols: &[&str]) -> Node {
    let asked = asked(user);
    let account = session.world.resolve(&asked.jid);
    let mut parts = Vec::new();
    for protocol in protocols {
        let part = match (*protocol, &account) {
            ("contact", account) => Some(contact(&asked, account.is_some())),
            ("devices", Some(account)) => {
                watch(session, account, asked.jid.is_lid());
                Some(account.devices_node())
            }
            ("lid", Some(account)) => Some(element("lid").attr("val", account.lid(0)).build()),
            ("status", Some(account)) => Some(status(session, account)),
            ("picture", Some(account)) => Some(picture(session, account)),
            ("business", Some(account)) => account.profile().business.as_ref().map(|_| element("business").build()),
            ("disappearing_mode", Some(_)) => {
                Some(element("disappearing_mode").attr("duration", 0).attr("t", 0).build())
            }
            _ => None,
        };
        parts.extend(part);
    }
    let mut node = element("user").attr("jid", &asked.jid);
    if let (Some(account), true) = (&account, asked.jid.is_lid()) {
        node = node.attr("pn_jid", account.pn(0));
    }
    node.children(parts).build()
}

fn refused(tag: &'static str, code: u16, text: &'static str) -> Node {
    let error = element("error").attr("code", code).attr("text", text).build();
    element(tag).children([error]).build()
}

fn sees(session: &Session, account: &Account, category: &str) -> bool {
    session.login().is_ok_and(|login| profile::may_see(account, category, &login.account))
}

/// What the account says of itself.
fn status(session: &Session, account: &Account) -> Node {
    if !sees(session, account, "status") {
        return refused("status", 401, "not-authorized");
    }
    let profile = account.profile();
    element("status").attr("t", profile.about_set).bytes(profile.about.as_bytes().to_vec()).build()
}

/// The id of the account's picture.
fn picture(session: &Session, account: &Account) -> Node {
    if !sees(session, account, "profile") {
        return refused("picture", 401, "not-authorized");
    }
    match &account.profile().picture {
        Some(picture) => element("picture").attr("id", picture.id.as_str()).build(),
        None => refused("picture", 404, "item-not-found"),
    }
}

fn contact(asked: &Asked, exists: bool) -> Node {
    let contact = element("contact").attr("type", if exists { "in" } else { "out" });
    match &asked.text {
        Some(text) => contact.bytes(text.clone().into_bytes()).build(),
        None => contact.build(),
    }
}

fn watch(session: &Session, account: &Arc<Account>, by_lid: bool) {
    if let Ok(login) = session.login() {
        let watcher = (login.key(), by_lid);
        account.state().device_watchers.insert(watcher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stanza::attr_is;

    #[test]
    fn a_number_is_only_its_digits() {
        let contact = element("contact").bytes(b"+1 (555) 0001@c.us".to_vec()).build();
        let user = element("user").children([contact]).build();
        let asked = asked(&user);
        assert_eq!(asked.jid, Jid::pn("15550001"));
        assert_eq!(asked.text.as_deref(), Some("+1 (555) 0001@c.us"));
        let contact = super::contact(&asked, true);
        assert!(attr_is(&contact, "type", "in"));
        assert_eq!(content(&contact), Some(&b"+1 (555) 0001@c.us"[..]));
    }
}
