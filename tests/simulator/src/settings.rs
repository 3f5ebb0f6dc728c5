//! What an account has set: blocked contacts and privacy.

use sha2::Digest;
use wacore_binary::{Jid, Node};

use crate::error::StanzaError;
use crate::router::Session;
use crate::stanza::{attr_is, children, element, jid_of};

/// Contacts that an account may block.
const BLOCKED: usize = 10_000;
const PRIVACY_CATEGORIES: [&str; 7] = ["last", "online", "profile", "status", "groupadd", "readreceipts", "calladd"];

/// Answers `xmlns=blocklist`: a change is answered with the list as it is then.
pub(crate) fn blocklist(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    let mut state = login.account.state();
    let item = children(node).first().filter(|c| c.tag == "item");
    if let Some((item, jid)) = item.and_then(|i| Some((i, jid_of(i, "jid")?))) {
        state.blocked.retain(|b| *b != jid);
        if attr_is(item, "action", "block") && state.blocked.len() < BLOCKED {
            state.blocked.push(jid);
        }
    }
    let list = blocked_node(&state.blocked);
    drop(state);
    session.reply(node, Some(list));
    Ok(())
}

fn blocked_node(blocked: &[Jid]) -> Node {
    let mut names: Vec<String> = blocked.iter().map(ToString::to_string).collect();
    names.sort();
    let hash = sha2::Sha256::digest(names.concat().as_bytes());
    let items = blocked.iter().map(|j| element("item").attr("jid", j).build());
    element("list").attr("dhash", hex::encode(&hash[..6])).children(items).build()
}

/// Answers `xmlns=privacy`: everything is visible to all.
pub(crate) fn privacy(session: &Session, node: &Node) {
    let categories = PRIVACY_CATEGORIES.map(|name| element("category").attr("name", name).attr("value", "all").build());
    session.reply(node, Some(element("privacy").children(categories).build()));
}
