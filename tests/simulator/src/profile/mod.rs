//! What others see of an account: its name, its picture, what it says of itself, its business.
//!
//! Whoever has asked for an account's devices or presence is a contact of it and is told of changes.

mod business;
mod picture;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wacore_binary::{Jid, Node};

pub use business::BusinessProfile;
pub(crate) use business::handle as business;
pub(crate) use picture::{Picture, change as picture_change, handle as picture, set_group_picture, set_picture};

use crate::account::Account;
use crate::error::StanzaError;
use crate::router::Session;
use crate::stanza::{content, element, unix_now};
use crate::world::World;

/// Bytes of what an account says of itself; WhatsApp allows 139 characters.
const ABOUT_BYTES: usize = 1_024;
/// What an account says of itself that has never said anything.
const ABOUT: &str = "Hey there! I am using WhatsApp.";

/// What others see of an account.
pub(crate) struct Profile {
    pub(crate) push_name: String,
    pub(crate) about: String,
    /// When it was set, seconds since the epoch.
    pub(crate) about_set: u64,
    pub(crate) picture: Option<Picture>,
    pub(crate) business: Option<BusinessProfile>,
    /// What was set of privacy, by category; `all` where nothing was.
    pub(crate) privacy: BTreeMap<String, String>,
}

impl Profile {
    /// The profile of a new account.
    pub(crate) fn new(push_name: String) -> Self {
        Self {
            push_name,
            about: ABOUT.into(),
            about_set: unix_now(),
            picture: None,
            business: None,
            privacy: BTreeMap::new(),
        }
    }

    /// Whether strangers may not see something, by its privacy category.
    pub(crate) fn hides(&self, category: &str) -> bool {
        self.privacy.get(category).is_some_and(|value| value != "all")
    }
}

/// Answers `xmlns=status`: the account says something else of itself.
pub(crate) fn about(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    let status = node.get_optional_child("status").ok_or(StanzaError::Malformed("status"))?;
    let text = content(status).unwrap_or_default();
    if text.len() > ABOUT_BYTES {
        return Err(StanzaError::Refused { code: 406, text: "not-acceptable" });
    }
    session.reply(node, None);
    let text = String::from_utf8_lossy(text).into_owned();
    set_about(&session.world, &login.account, text, Some(login.device));
    Ok(())
}

/// Sets what the account says of itself, and tells its contacts and its other devices.
pub(crate) fn set_about(world: &Arc<World>, account: &Arc<Account>, text: String, by: Option<u16>) {
    {
        let mut profile = account.profile();
        profile.about.clone_from(&text);
        profile.about_set = unix_now();
    }
    let set = element("set").bytes(text.into_bytes()).build();
    tell(world, account, "status", &set, by);
}

/// Tells contacts and the account's own devices, but for the one that did it.
fn tell(world: &Arc<World>, account: &Arc<Account>, kind: &'static str, change: &Node, by: Option<u16>) {
    let notice = |from: Jid| {
        element("notification")
            .attr("from", from)
            .attr("type", kind)
            .attr("id", world.next_id())
            .attr("t", unix_now())
            .attr("notify", account.push_name())
            .children([change.clone()])
            .build()
    };
    for contact in contacts(world, account) {
        let own = contact.number == account.number;
        let companions = contact.state().companions();
        for companion in companions.into_iter().filter(|c| !(own && Some(*c) == by)) {
            world.deliver(&contact, companion, notice(account.pn(0)));
        }
    }
}

/// The accounts that learn of changes, the account itself among them.
fn contacts(world: &World, account: &Arc<Account>) -> Vec<Arc<Account>> {
    let mut numbers: BTreeSet<Arc<str>> = {
        let state = account.state();
        let devices = state.device_watchers.iter().map(|(key, _)| key.number.clone());
        let presence = state.presence_watchers.iter().map(|key| key.number.clone());
        devices.chain(presence).filter(|number| !state.blocked.contains(number)).collect()
    };
    numbers.insert(account.number.clone());
    numbers.iter().filter_map(|number| world.account(number)).collect()
}

/// Whether an account may see what another shows to all, to its contacts alone, or to nobody.
pub(crate) fn may_see(of: &Account, category: &str, asking: &Account) -> bool {
    if of.number == asking.number {
        return true;
    }
    let shown = of.profile().privacy.get(category).cloned();
    match shown.as_deref() {
        None | Some("all") => true,
        Some("none") => false,
        Some(_) => of.state().trusted.contains(&asking.number),
    }
}
