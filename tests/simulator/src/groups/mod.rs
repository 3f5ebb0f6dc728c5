//! Groups: who is in them, and every change told to the members' devices.
//!
//! Invariant: a group is immutable; a change makes a new one with the next version, so that whoever
//! holds one sees a consistent list of members.

mod fan_out;
mod requests;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use wacore_binary::jid::Server;
use wacore_binary::{Jid, Node};

pub(crate) use fan_out::{fan_out, stale_phash};
pub(crate) use requests::handle;

use crate::account::Account;
use crate::error::StanzaError;
use crate::stanza::{element, unix_now};
use crate::world::World;

const NOT_FOUND: StanzaError = StanzaError::Refused { code: 404, text: "item-not-found" };
const FORBIDDEN: StanzaError = StanzaError::Refused { code: 403, text: "forbidden" };
const NOT_ACCEPTABLE: StanzaError = StanzaError::Refused { code: 406, text: "not-acceptable" };

/// A group.
#[derive(Clone)]
pub(crate) struct Group {
    id: String,
    subject: String,
    /// Who set the subject and when.
    subject_set: (Arc<str>, u64),
    creator: Arc<str>,
    /// Numbers, in order of joining.
    members: Vec<Arc<str>>,
    admins: BTreeSet<Arc<str>>,
    created: u64,
    /// Grows with every change of the members.
    version: u64,
}

/// What a member does to a group.
pub(crate) enum Change {
    Add(Vec<Arc<str>>),
    Remove(Vec<Arc<str>>),
    Promote(Vec<Arc<str>>),
    Demote(Vec<Arc<str>>),
    Subject(String),
}

/// All groups by id.
#[derive(Default)]
pub(crate) struct Groups(RwLock<HashMap<String, Arc<Group>>>);

impl Groups {
    /// A group by the user part of its JID.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Group>> {
        let groups = self.0.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(id).cloned()
    }

    fn of(&self, number: &str) -> Vec<Arc<Group>> {
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

impl Group {
    /// Whether a number is a member.
    pub(crate) fn has(&self, number: &str) -> bool {
        self.members.iter().any(|m| **m == *number)
    }

    /// Its JID.
    pub(crate) fn jid(&self) -> Jid {
        Jid::new(self.id.as_str(), Server::Group)
    }

    /// The members' accounts.
    pub(crate) fn accounts(&self, world: &World) -> Vec<Arc<Account>> {
        self.members.iter().filter_map(|m| world.account(m)).collect()
    }

    /// The group after a change that `actor` may make.
    fn changed(&self, actor: &Arc<str>, change: &Change, limit: usize) -> Result<Self, StanzaError> {
        let admin = self.admins.contains(actor);
        let leaves = matches!(change, Change::Remove(who) if who.len() == 1 && who[0] == *actor);
        let subject = matches!(change, Change::Subject(_));
        if !self.has(actor) || !(admin || leaves || subject) {
            return Err(FORBIDDEN);
        }
        let mut group = self.clone();
        match change {
            Change::Add(who) => {
                group.members.extend(who.iter().filter(|w| !self.has(w)).cloned());
                if group.members.len() > limit {
                    return Err(NOT_ACCEPTABLE);
                }
            }
            Change::Remove(who) => {
                group.members.retain(|m| !who.contains(m));
                group.admins.retain(|a| !who.contains(a));
            }
            Change::Promote(who) => group.admins.extend(who.iter().filter(|w| self.has(w)).cloned()),
            Change::Demote(who) => group.admins.retain(|a| *a == self.creator || !who.contains(a)),
            Change::Subject(subject) => {
                group.subject.clone_from(subject);
                group.subject_set = (actor.clone(), unix_now());
            }
        }
        group.version += u64::from(!subject);
        Ok(group)
    }

    fn participant(&self, world: &World, number: &Arc<str>) -> Node {
        let mut participant = element("participant").attr("jid", Jid::pn(&**number));
        if let Some(account) = world.account(number) {
            participant = participant.attr("lid", account.lid(0));
        }
        if *number == self.creator {
            participant = participant.attr("type", "superadmin");
        } else if self.admins.contains(number) {
            participant = participant.attr("type", "admin");
        }
        participant.build()
    }

    fn node(&self, world: &World) -> Node {
        let participants: Vec<Node> = self.members.iter().map(|m| self.participant(world, m)).collect();
        element("group")
            .attr("id", self.id.as_str())
            .attr("creator", Jid::pn(&*self.creator))
            .attr("creation", self.created)
            .attr("subject", self.subject.as_str())
            .attr("s_t", self.subject_set.1)
            .attr("s_o", Jid::pn(&*self.subject_set.0))
            .attr("p_v_id", self.version)
            .attr("addressing_mode", "pn")
            .attr("size", participants.len())
            .children(participants)
            .build()
    }

    fn change_node(&self, world: &World, former: &Group, change: &Change) -> Node {
        let (tag, who) = match change {
            Change::Add(who) => ("add", who),
            Change::Remove(who) => ("remove", who),
            Change::Promote(who) => ("promote", who),
            Change::Demote(who) => ("demote", who),
            Change::Subject(subject) => {
                let (owner, time) = &self.subject_set;
                return element("subject")
                    .attr("subject", subject.as_str())
                    .attr("s_t", *time)
                    .attr("s_o", Jid::pn(&**owner))
                    .build();
            }
        };
        element(tag)
            .attr("prev_v_id", former.version)
            .attr("v_id", self.version)
            .children(who.iter().map(|w| self.participant(world, w)))
            .build()
    }
}

/// Makes a group and tells its members. `key` is what a client recognises its own request by.
pub(crate) fn create(
    world: &Arc<World>,
    creator: &Account,
    subject: String,
    others: Vec<Arc<str>>,
    key: &str,
) -> Result<Arc<Group>, StanzaError> {
    let mut members = vec![creator.number.clone()];
    for other in others {
        if !members.contains(&other) {
            members.push(other);
        }
    }
    if members.len() > world.config.limits.group_members {
        return Err(NOT_ACCEPTABLE);
    }
    let created = unix_now();
    let group = Arc::new(Group {
        id: format!("1203630{:011}", world.next_number()),
        subject,
        subject_set: (creator.number.clone(), created),
        creator: creator.number.clone(),
        admins: BTreeSet::from([creator.number.clone()]),
        members,
        created,
        version: 1,
    });
    world.groups.add(group.clone());
    let news = element("create").attr("type", "new").attr("key", key).children([group.node(world)]).build();
    announce(world, creator, &group, &group.members, news);
    Ok(group)
}

/// Changes a group for a member and tells those who were in it and those who are.
pub(crate) fn change(
    world: &Arc<World>,
    actor: &Account,
    id: &str,
    change: &Change,
) -> Result<Arc<Group>, StanzaError> {
    let limit = world.config.limits.group_members;
    let (former, group) = world.groups.update(id, |g| g.changed(&actor.number, change, limit))?;
    let mut told = group.members.clone();
    told.extend(former.members.iter().filter(|m| !group.has(m)).cloned());
    announce(world, actor, &group, &told, group.change_node(world, &former, change));
    Ok(group)
}

fn announce(world: &Arc<World>, actor: &Account, group: &Group, told: &[Arc<str>], change: Node) {
    let notice = element("notification")
        .attr("from", group.jid())
        .attr("type", "w:gp2")
        .attr("id", world.next_id())
        .attr("t", unix_now())
        .attr("participant", actor.pn(0))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Group {
        let creator: Arc<str> = "1".into();
        Group {
            id: "g".into(),
            subject: "s".into(),
            subject_set: (creator.clone(), 0),
            members: vec![creator.clone(), "2".into()],
            admins: BTreeSet::from([creator.clone()]),
            creator,
            created: 0,
            version: 1,
        }
    }

    #[test]
    fn only_admins_change_members_but_everybody_may_leave() {
        let group = group();
        let (one, two, three): (Arc<str>, Arc<str>, Arc<str>) = ("1".into(), "2".into(), "3".into());
        let add = Change::Add(vec![three.clone()]);
        assert!(group.changed(&two, &add, 9).is_err());
        assert!(group.changed(&three, &add, 9).is_err(), "no member");
        assert!(group.changed(&one, &add, 2).is_err(), "too many");
        let larger = group.changed(&one, &add, 9).unwrap();
        assert!(larger.has("3") && larger.version == 2);
        assert!(larger.changed(&two, &Change::Remove(vec![three]), 9).is_err());
        assert!(!larger.changed(&two, &Change::Remove(vec![two.clone()]), 9).unwrap().has("2"));
        let promoted = larger.changed(&one, &Change::Promote(vec![two.clone()]), 9).unwrap();
        assert!(promoted.changed(&two, &add, 9).is_ok());
        let renamed = group.changed(&two, &Change::Subject("new".into()), 9).unwrap();
        assert_eq!((renamed.subject.as_str(), renamed.version), ("new", 1));
    }
}
