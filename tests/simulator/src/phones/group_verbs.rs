//! What a person does with groups on a phone.

use std::sync::Arc;

use super::Phone;
use crate::error::{PhoneError, StanzaError};
use crate::groups::{self, Change, GroupOptions, NewGroup};
use crate::profile;

impl From<StanzaError> for PhoneError {
    fn from(error: StanzaError) -> Self {
        Self::Refused(error.to_string())
    }
}

fn id_of(group: &str) -> &str {
    group.strip_suffix("@g.us").unwrap_or(group)
}

impl Phone {
    /// Makes a group with these numbers. Returns its JID (`...@g.us`).
    pub fn create_group(&self, subject: &str, numbers: &[&str]) -> Result<String, PhoneError> {
        self.create_group_with(subject, numbers, GroupOptions::default())
    }

    /// The same, of another kind than the usual one.
    pub fn create_group_with(
        &self,
        subject: &str,
        numbers: &[&str],
        options: GroupOptions,
    ) -> Result<String, PhoneError> {
        let others = self.numbers(numbers)?;
        let new = NewGroup { subject: subject.to_string(), others, options, description: None, key: "" };
        Ok(groups::create(&self.world, &self.account, new)?.jid().to_string())
    }

    /// Adds members; only an admin may, unless all are allowed to.
    pub fn add_to_group(&self, group: &str, numbers: &[&str]) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Add(self.numbers(numbers)?))
    }

    /// Removes members; only an admin may, but everybody may remove himself.
    pub fn remove_from_group(&self, group: &str, numbers: &[&str]) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Remove(self.numbers(numbers)?))
    }

    /// Leaves a group.
    pub fn leave_group(&self, group: &str) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Remove(vec![self.account.number.clone()]))
    }

    /// Makes members admins.
    pub fn promote_in_group(&self, group: &str, numbers: &[&str]) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Promote(self.numbers(numbers)?))
    }

    /// Makes admins ordinary members again.
    pub fn demote_in_group(&self, group: &str, numbers: &[&str]) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Demote(self.numbers(numbers)?))
    }

    /// Renames a group.
    pub fn set_group_subject(&self, group: &str, subject: &str) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Subject(subject.to_string()))
    }

    /// Says what a group is about; an empty text takes it back.
    pub fn set_group_description(&self, group: &str, text: &str) -> Result<(), PhoneError> {
        let id = hex::encode_upper(rand::random::<[u8; 8]>());
        let text = (!text.is_empty()).then(|| text.to_string());
        self.change_group(group, &Change::Description(id, text))
    }

    /// Whether only admins change the group's subject, description, picture and timer.
    pub fn set_group_locked(&self, group: &str, on: bool) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Locked(on))
    }

    /// Whether only admins write.
    pub fn set_group_announce(&self, group: &str, on: bool) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Announce(on))
    }

    /// After how many seconds the group's messages disappear; 0 for never.
    pub fn set_group_ephemeral(&self, group: &str, seconds: u32) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Ephemeral(seconds))
    }

    /// Whether an admin must approve who wants to join.
    pub fn set_group_approval(&self, group: &str, on: bool) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Approval(on))
    }

    /// Whether every member may add others.
    pub fn set_group_members_add(&self, group: &str, on: bool) -> Result<(), PhoneError> {
        self.change_group(group, &Change::MembersAdd(on))
    }

    /// Sets a group's picture, a JPEG, or removes it.
    pub fn set_group_picture(&self, group: &str, picture: Option<&[u8]>) -> Result<(), PhoneError> {
        profile::set_group_picture(&self.world, &self.account, id_of(group), picture, None)?;
        Ok(())
    }

    /// The code at the end of the link to join a group.
    pub fn group_invite(&self, group: &str) -> Result<String, PhoneError> {
        let found = self.world.groups.get(id_of(group));
        let found = found.ok_or_else(|| PhoneError::UnknownNumber(group.to_string()))?;
        if !found.is_admin(&self.account.number) {
            return Err(PhoneError::Refused("only an admin sees the link".into()));
        }
        Ok(found.invite().to_string())
    }

    /// Makes another link; the former leads nowhere from now on.
    pub fn revoke_group_invite(&self, group: &str) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Invite)
    }

    /// Joins a group by the code of its link, or asks to. Returns the group's JID.
    pub fn join_group(&self, code: &str) -> Result<String, PhoneError> {
        let group = self.world.groups.by_invite(code);
        let group = group.ok_or_else(|| PhoneError::Refused("the link leads nowhere".into()))?.jid();
        groups::change(&self.world, &self.account, &group.user, &Change::Join)?;
        Ok(group.to_string())
    }

    /// Lets those join who have asked to, or does not.
    pub fn decide_group_requests(&self, group: &str, numbers: &[&str], approve: bool) -> Result<(), PhoneError> {
        let who = self.numbers(numbers)?;
        self.change_group(group, &if approve { Change::Approve(who) } else { Change::Reject(who) })
    }

    /// Numbers of a group's members, in the order in which they have joined.
    pub fn group_members(&self, group: &str) -> Result<Vec<String>, PhoneError> {
        let found = self.world.groups.get(id_of(group)).filter(|g| g.has(self.number()));
        let found = found.ok_or_else(|| PhoneError::UnknownNumber(group.to_string()))?;
        Ok(found.members().iter().map(ToString::to_string).collect())
    }

    fn change_group(&self, group: &str, change: &Change) -> Result<(), PhoneError> {
        groups::change(&self.world, &self.account, id_of(group), change)?;
        Ok(())
    }

    fn numbers(&self, numbers: &[&str]) -> Result<Vec<Arc<str>>, PhoneError> {
        let known = |n: &&str| self.world.account(n).ok_or_else(|| PhoneError::UnknownNumber((*n).to_string()));
        numbers.iter().map(|n| Ok(known(n)?.number.clone())).collect()
    }
}
