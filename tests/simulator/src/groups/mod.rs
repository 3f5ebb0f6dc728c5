//! Groups: all of them, and every change told to the members' devices.

mod fan_out;
mod group;
mod nodes;
mod requests;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use wacore_binary::Node;

pub(crate) use fan_out::{fan_out, refusal, stale_phash};
pub use group::GroupOptions;
pub(crate) use group::{Change, Group};
pub(crate) use requests::handle;

use crate::account::Account;
use crate::error::StanzaError;
use crate::profile;
use crate::stanza::{element, unix_now};
use crate::world::World;

const NOT_FOUND: StanzaError = StanzaError::Refused { code: 404, text: "item-not-found" };
const FORBIDDEN: StanzaError = StanzaError::Refused { code: 403, text: "forbidden" };
const NOT_ACCEPTABLE: StanzaError = StanzaError::Refused { code: 406, text: "not-acceptable" };

/// All groups by id.
#[derive(Default)]
pub(crate) struct Groups(RwLock<HashMap<String, Arc<Group>>>);

impl Groups {
    /// A group by the user part of its JID.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Group>> {
        let groups = self.0.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(id).cloned()
    }

    /// The group that a link to join leads to.
    pub(crate) fn by_invite(&self, code: &str) -> Option<Arc<Group>> {
        let groups = self.0.read().unwrap_or_else(PoisonError::into_inner);
        groups.values().find(|g| g.invite == code).cloned()
    }

    /// The groups that a number is in.
    pub(crate) fn of(&self, number: &str) -> Vec<Arc<Group>> {
        let groups = self.0.read().unwrap_or_else(PoisonError::into_inner);
        groups.values().filter(|g| g.has(number)).cloned().collect()
    }

    fn add(&self, group: Arc<Group>) {
        let mut groups = self.0.write().unwrap_or_else(PoisonError::into_inner);
        groups.insert(group.id.clone(), group);
    }

    /// Puts a changed group in the place of the present one.
    fn update(
        &self,
        id: &str,
        change: impl FnOnce(&Group) -> Result<Group, StanzaError>,
    ) -> Result<(Arc<Group>, Arc<Group>), StanzaError> {
        let mut groups = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let former = groups.get(id).cloned().ok_or(NOT_FOUND)?;
        let changed = Arc::new(change(&former)?);
        groups.insert(id.to_string(), changed.clone());
        Ok((former, changed))
    }
}

/// A group that is to be made.
pub(crate) struct NewGroup<'a> {
    pub(crate) subject: String,
    pub(crate) others: Vec<Arc<str>>,
    pub(crate) options: GroupOptions,
    /// What it is about, with the id that its author has made.
    pub(crate) description: Option<(String, String)>,
    /// What a client recognises its own request by.
    pub(crate) key: &'a str,
}

/// Makes a group and tells its members.
pub(crate) fn create(world: &Arc<World>, creator: &Account, new: NewGroup<'_>) -> Result<Arc<Group>, StanzaError> {
    let mut members = vec![creator.number.clone()];
    for other in new.others {
        if !members.contains(&other) {
            members.push(other);
        }
    }
    if members.len() > world.config.limits.group_members {
        return Err(NOT_ACCEPTABLE);
    }
    let created = unix_now();
    let set = (creator.number.clone(), created);
    let group = Arc::new(Group {
        id: format!("1203630{:011}", world.next_number()),
        subject: new.subject,
        subject_set: set.clone(),
        description: new.description.map(|(id, text)| group::Description { id, text, set }),
        creator: creator.number.clone(),
        admins: BTreeSet::from([creator.number.clone()]),
        members,
        created,
        version: 1,
        options: new.options,
        invite: group::invite_code(),
        requests: Vec::new(),
        picture: None,
    });
    world.groups.add(group.clone());
    let news = element("create").attr("type", "new").attr("key", new.key).children([group.node(world, true)]).build();
    announce(world, creator, &group, &group.members, "w:gp2", news);
    Ok(group)
}

/// Changes a group for a member and tells those whom it concerns.
pub(crate) fn change(
    world: &Arc<World>,
    actor: &Account,
    id: &str,
    change: &Change,
) -> Result<Arc<Group>, StanzaError> {
    let limit = world.config.limits.group_members;
    let (former, group) = world.groups.update(id, |g| g.changed(&actor.number, change, limit))?;
    let asks = matches!(change, Change::Cancel | Change::Reject(_))
        || (matches!(change, Change::Join) && !group.has(&actor.number));
    let told: Vec<Arc<str>> = if asks {
        // Who wants to join is the admins' and his own affair.
        let mut told: Vec<_> = group.admins.iter().cloned().collect();
        match change {
            Change::Reject(who) => told.extend(who.iter().cloned()),
            _ => told.push(actor.number.clone()),
        }
        told
    } else {
        former.members.iter().filter(|m| !group.has(m)).chain(&group.members).cloned().collect()
    };
    if let Change::Picture(picture) = change {
        let set = profile::picture_change(&group.jid(), actor, picture.as_ref());
        announce(world, actor, &group, &told, "picture", set);
    } else if let Some(node) = group.change_node(world, &former, &actor.number, change) {
        announce(world, actor, &group, &told, "w:gp2", node);
    }
    Ok(group)
}

fn announce(world: &Arc<World>, actor: &Account, group: &Group, told: &[Arc<str>], kind: &'static str, change: Node) {
    let (participant, (key, other)) = group.address(actor, 0);
    let notice = element("notification")
        .attr("from", group.jid())
        .attr("type", kind)
        .attr("id", world.next_id())
        .attr("t", unix_now())
        .attr("participant", participant)
        .attr(key, other)
        .attr("addressing_mode", group.addressing_mode())
        .attr("notify", actor.push_name())
        .children([change])
        .build();
    for account in told.iter().filter_map(|m| world.account(m)) {
        let companions = account.state().companions();
        for companion in companions {
            world.deliver(&account, companion, notice.clone());
        }
    }
}
