//! A group and what a change makes of it. Pure.
//!
//! Invariant: a group is immutable; a change makes a new one, so that whoever holds one sees a consistent
//! list of members. A group with members has an admin.

use std::collections::BTreeSet;
use std::sync::Arc;

use wacore_binary::Jid;
use wacore_binary::jid::Server;

use super::{FORBIDDEN, NOT_ACCEPTABLE, NOT_FOUND};
use crate::account::Account;
use crate::error::StanzaError;
use crate::profile::Picture;
use crate::stanza::unix_now;
use crate::world::World;

/// Bytes of a subject.
const SUBJECT_BYTES: usize = 1_024;
/// Bytes of a description; WhatsApp allows 2048 characters.
const DESCRIPTION_BYTES: usize = 8_192;

/// A group.
#[derive(Clone)]
pub(crate) struct Group {
    pub(super) id: String,
    pub(super) subject: String,
    /// Who set the subject and when.
    pub(super) subject_set: (Arc<str>, u64),
    pub(super) description: Option<Description>,
    pub(super) creator: Arc<str>,
    /// Numbers, in order of joining.
    pub(super) members: Vec<Arc<str>>,
    pub(super) admins: BTreeSet<Arc<str>>,
    pub(super) created: u64,
    /// Grows with every change of the members.
    pub(super) version: u64,
    pub(super) options: GroupOptions,
    /// What the link to join ends with.
    pub(super) invite: String,
    /// Who wants to join and when they asked.
    pub(super) requests: Vec<(Arc<str>, u64)>,
    pub(super) picture: Option<Picture>,
}

/// What a group is about.
#[derive(Clone)]
pub(super) struct Description {
    pub(super) id: String,
    pub(super) text: String,
    /// Who set it and when.
    pub(super) set: (Arc<str>, u64),
}

/// How a group works.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupOptions {
    /// Members are addressed by their LIDs instead of their phone numbers. Cannot be changed.
    pub by_lid: bool,
    /// Only admins change the subject, the description, the picture and the timer.
    pub locked: bool,
    /// Only admins write.
    pub announce: bool,
    /// After how many seconds messages disappear; 0 for never.
    pub ephemeral_seconds: u32,
    /// An admin must approve who wants to join.
    pub approval: bool,
    /// Every member may add others, not admins alone.
    pub members_add: bool,
}

/// What a member does to a group.
pub(crate) enum Change {
    Add(Vec<Arc<str>>),
    Remove(Vec<Arc<str>>),
    Promote(Vec<Arc<str>>),
    Demote(Vec<Arc<str>>),
    Subject(String),
    /// The id of the description that the client has made, and the text.
    Description(String, Option<String>),
    Locked(bool),
    Announce(bool),
    Ephemeral(u32),
    Approval(bool),
    MembersAdd(bool),
    Picture(Option<Picture>),
    /// Another link to join.
    Invite,
    /// The actor joins by the link, or asks to.
    Join,
    /// The actor wants to join no longer.
    Cancel,
    Approve(Vec<Arc<str>>),
    Reject(Vec<Arc<str>>),
}

impl Change {
    /// Who may do this.
    fn is_allowed(&self, group: &Group, actor: &Arc<str>) -> bool {
        let (member, admin) = (group.has(actor), group.admins.contains(actor));
        match self {
            Self::Add(_) => admin || (member && group.options.members_add),
            Self::Remove(who) => admin || (member && who.len() == 1 && who[0] == *actor),
            Self::Subject(_) | Self::Description(..) | Self::Picture(_) | Self::Ephemeral(_) => {
                admin || (member && !group.options.locked)
            }
            Self::Join => !member,
            Self::Cancel => group.requests.iter().any(|(number, _)| number == actor),
            _ => admin,
        }
    }
}

/// A fresh end of a link to join.
pub(super) fn invite_code() -> String {
    hex::encode(rand::random::<[u8; 11]>())
}

impl Group {
    /// Whether a number is a member.
    pub(crate) fn has(&self, number: &str) -> bool {
        self.members.iter().any(|m| **m == *number)
    }

    /// Numbers of its members, in order of joining.
    pub(crate) fn members(&self) -> &[Arc<str>] {
        &self.members
    }

    /// What the link to join ends with.
    pub(crate) fn invite(&self) -> &str {
        &self.invite
    }

    /// Whether a number is an admin.
    pub(crate) fn is_admin(&self, number: &Arc<str>) -> bool {
        self.admins.contains(number)
    }

    /// Whether a member may write.
    pub(crate) fn may_write(&self, number: &Arc<str>) -> bool {
        self.has(number) && (!self.options.announce || self.admins.contains(number))
    }

    /// Its JID.
    pub(crate) fn jid(&self) -> Jid {
        Jid::new(self.id.as_str(), Server::Group)
    }

    /// Its picture.
    pub(crate) fn picture(&self) -> Option<&Picture> {
        self.picture.as_ref()
    }

    /// `lid` or `pn`.
    pub(crate) fn addressing_mode(&self) -> &'static str {
        if self.options.by_lid { "lid" } else { "pn" }
    }

    /// A device of a member as it is addressed in the group, and the other of its two JIDs with the name of the
    /// attribute that says so.
    pub(crate) fn address(&self, account: &Account, device: u16) -> (Jid, (&'static str, Jid)) {
        if self.options.by_lid {
            (account.lid(device), ("participant_pn", account.pn(0)))
        } else {
            (account.pn(device), ("participant_lid", account.lid(0)))
        }
    }

    /// How it works.
    pub(crate) fn options(&self) -> &GroupOptions {
        &self.options
    }

    /// The members' accounts.
    pub(crate) fn accounts(&self, world: &World) -> Vec<Arc<Account>> {
        self.members.iter().filter_map(|m| world.account(m)).collect()
    }

    /// The group after a change that `actor` may make.
    pub(super) fn changed(&self, actor: &Arc<str>, change: &Change, limit: usize) -> Result<Self, StanzaError> {
        if !change.is_allowed(self, actor) {
            return Err(if matches!(change, Change::Cancel) { NOT_FOUND } else { FORBIDDEN });
        }
        let mut group = self.clone();
        let former = self.members.len();
        match change {
            Change::Add(who) | Change::Approve(who) => group.add(who),
            Change::Remove(who) => group.remove(who),
            Change::Promote(who) => group.admins.extend(who.iter().filter(|w| self.has(w)).cloned()),
            Change::Demote(who) => group.admins.retain(|a| *a == self.creator || !who.contains(a)),
            Change::Subject(subject) if subject.len() > SUBJECT_BYTES => return Err(NOT_ACCEPTABLE),
            Change::Subject(subject) => {
                group.subject.clone_from(subject);
                group.subject_set = (actor.clone(), unix_now());
            }
            Change::Description(_, Some(text)) if text.len() > DESCRIPTION_BYTES => return Err(NOT_ACCEPTABLE),
            Change::Description(id, text) => {
                let set = (actor.clone(), unix_now());
                group.description = text.clone().map(|text| Description { id: id.clone(), text, set });
            }
            Change::Locked(on) => group.options.locked = *on,
            Change::Announce(on) => group.options.announce = *on,
            Change::Ephemeral(seconds) => group.options.ephemeral_seconds = *seconds,
            Change::Approval(on) => group.options.approval = *on,
            Change::MembersAdd(on) => group.options.members_add = *on,
            Change::Picture(picture) => group.picture.clone_from(picture),
            Change::Invite => group.invite = invite_code(),
            Change::Join if self.options.approval => {
                group.forget_requests(std::slice::from_ref(actor));
                group.requests.push((actor.clone(), unix_now()));
            }
            Change::Join => group.add(std::slice::from_ref(actor)),
            Change::Cancel => group.forget_requests(std::slice::from_ref(actor)),
            Change::Reject(who) => group.forget_requests(who),
        }
        if group.members.len().max(group.requests.len()) > limit {
            return Err(NOT_ACCEPTABLE);
        }
        let ranks = matches!(change, Change::Promote(_) | Change::Demote(_));
        group.version += u64::from(ranks || group.members.len() != former);
        Ok(group)
    }

    fn add(&mut self, who: &[Arc<str>]) {
        for number in who {
            if !self.has(number) {
                self.members.push(number.clone());
            }
        }
        self.forget_requests(who);
    }

    fn remove(&mut self, who: &[Arc<str>]) {
        self.members.retain(|m| !who.contains(m));
        self.admins.retain(|a| !who.contains(a));
        if self.admins.is_empty() {
            self.admins.extend(self.members.first().cloned());
        }
    }

    fn forget_requests(&mut self, who: &[Arc<str>]) {
        self.requests.retain(|(number, _)| !who.contains(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: &str) -> Arc<str> {
        number.into()
    }

    fn group() -> Group {
        let creator = number("1");
        Group {
            id: "g".into(),
            subject: "s".into(),
            subject_set: (creator.clone(), 0),
            description: None,
            members: vec![creator.clone(), "2".into()],
            admins: BTreeSet::from([creator.clone()]),
            creator,
            created: 0,
            version: 1,
            options: GroupOptions::default(),
            invite: invite_code(),
            requests: Vec::new(),
            picture: None,
        }
    }

    #[test]
    fn only_admins_change_members_but_everybody_may_leave() {
        let group = group();
        let (one, two, three) = (number("1"), number("2"), number("3"));
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
        let without = group.changed(&one, &Change::Remove(vec![one.clone()]), 9).unwrap();
        assert!(without.admins.contains(&two), "somebody must be admin");
    }

    #[test]
    fn settings_say_who_may_do_what() {
        let (one, two, three) = (number("1"), number("2"), number("3"));
        let locked = group().changed(&one, &Change::Locked(true), 9).unwrap();
        assert!(locked.changed(&two, &Change::Subject("new".into()), 9).is_err());
        assert!(group().changed(&two, &Change::Locked(false), 9).is_err());
        let quiet = group().changed(&one, &Change::Announce(true), 9).unwrap();
        assert!(quiet.may_write(&one) && !quiet.may_write(&two) && !quiet.may_write(&three));
        let open = group().changed(&one, &Change::MembersAdd(true), 9).unwrap();
        assert!(open.changed(&two, &Change::Add(vec![three]), 9).unwrap().has("3"));
    }

    #[test]
    fn who_joins_may_have_to_be_approved() {
        let (one, three) = (number("1"), number("3"));
        assert!(group().changed(&three, &Change::Join, 9).unwrap().has("3"));
        let closed = group().changed(&one, &Change::Approval(true), 9).unwrap();
        let asked = closed.changed(&three, &Change::Join, 9).unwrap();
        assert!(!asked.has("3") && asked.requests.len() == 1);
        assert!(asked.changed(&three, &Change::Cancel, 9).unwrap().requests.is_empty());
        assert!(asked.changed(&three, &Change::Approve(vec![three.clone()]), 9).is_err());
        let approved = asked.changed(&one, &Change::Approve(vec![three.clone()]), 9).unwrap();
        assert!(approved.has("3") && approved.requests.is_empty());
        assert!(closed.changed(&three, &Change::Cancel, 9).is_err());
    }
}
