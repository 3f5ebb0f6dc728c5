//! A phone in groups: it makes and changes them, and writes to them with a sender key.
//!
//! Invariant: a device gets the sender key before or with the first message that needs it, and a key
//! that somebody has who is no longer a member is never used again.

use std::sync::Arc;

use buffa::MessageField;
use wacore::messages::MessageUtils;
use waproto::whatsapp as wa;
use waproto::whatsapp::message as parts;

use super::Phone;
use super::outbound::{Outgoing, signal_error};
use super::signal::Endpoint;
use crate::account::Account;
use crate::error::{PhoneError, StanzaError};
use crate::groups::{self, Change, Group};
use crate::stanza::element;

impl From<StanzaError> for PhoneError {
    fn from(error: StanzaError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl Phone {
    /// Makes a group with these numbers. Returns its JID (`...@g.us`).
    pub fn create_group(&self, subject: &str, numbers: &[&str]) -> Result<String, PhoneError> {
        let members = self.numbers(numbers)?;
        let group = groups::create(&self.world, &self.account, subject.to_string(), members, "")?;
        Ok(group.jid().to_string())
    }

    /// Adds members; only an admin may.
    pub fn add_to_group(&self, group: &str, numbers: &[&str]) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Add(self.numbers(numbers)?))
    }

    /// Removes members; only an admin may, but everybody may remove himself.
    pub fn remove_from_group(&self, group: &str, numbers: &[&str]) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Remove(self.numbers(numbers)?))
    }

    /// Renames a group.
    pub fn set_group_subject(&self, group: &str, subject: &str) -> Result<(), PhoneError> {
        self.change_group(group, &Change::Subject(subject.to_string()))
    }

    fn change_group(&self, group: &str, change: &Change) -> Result<(), PhoneError> {
        let id = group.strip_suffix("@g.us").unwrap_or(group);
        groups::change(&self.world, &self.account, id, change)?;
        Ok(())
    }

    fn numbers(&self, numbers: &[&str]) -> Result<Vec<Arc<str>>, PhoneError> {
        let known = |n: &&str| self.world.account(n).ok_or_else(|| PhoneError::UnknownNumber((*n).to_string()));
        numbers.iter().map(|n| Ok(known(n)?.number.clone())).collect()
    }
}

/// The devices that a message to a group goes to.
fn targets(outgoing: &Outgoing<'_>, group: &Group) -> Vec<(Arc<Account>, u16)> {
    let mut targets = Vec::new();
    for account in group.accounts(outgoing.world) {
        let own = account.number == outgoing.account.number;
        let companions = account.state().companions();
        targets.extend((!own).then(|| (account.clone(), 0)));
        targets.extend(companions.into_iter().map(|d| (account.clone(), d)));
    }
    targets
}

fn distribution(group: &str, key: Vec<u8>) -> MessageField<parts::SenderKeyDistributionMessage> {
    MessageField::some(parts::SenderKeyDistributionMessage {
        group_id: Some(group.to_string()),
        axolotl_sender_key_distribution_message: Some(key),
    })
}

/// Sends a message to all members' devices.
pub(super) fn send(
    outgoing: &Outgoing<'_>,
    signal: &mut Endpoint,
    group: &Group,
    message: &wa::Message,
) -> Result<(), PhoneError> {
    let own = &outgoing.account.number;
    if !group.has(own) {
        return Err(PhoneError::Refused("the phone is no member".into()));
    }
    let jid = group.jid();
    let name = jid.to_string();
    let targets = targets(outgoing, group);
    let present: Vec<_> = targets.iter().map(|(a, d)| (a.number.clone(), *d)).collect();
    signal.retire_group_key(&name, own, &present);
    let key = signal.own_group_key(&name, own).map_err(signal_error)?;
    let plaintext = MessageUtils::encode_and_pad(message);
    let shared = signal.group_encrypt(&name, own, &plaintext).map_err(signal_error)?;
    let shared = element("enc").attr("v", "2").attr("type", "skmsg").bytes(shared).build();
    for (account, device) in targets {
        let mut parts = Vec::new();
        if !signal.has_group_key(&name, &account.number, device) {
            let message =
                wa::Message { sender_key_distribution_message: distribution(&name, key.clone()), ..Default::default() };
            let Some(enc) = outgoing.encrypt(signal, &account, device, &message)? else {
                continue;
            };
            parts.push(enc);
            signal.gave_group_key(&name, &account.number, device);
        }
        parts.push(shared.clone());
        outgoing.world.deliver(&account, device, outgoing.group_stanza(&jid, parts));
    }
    Ok(())
}

/// Sends a group's message again to one device, over its session, with the sender key.
pub(super) fn send_again(
    outgoing: &Outgoing<'_>,
    signal: &mut Endpoint,
    group: &Group,
    (account, device): (&Arc<Account>, u16),
    mut message: wa::Message,
) -> Result<(), PhoneError> {
    let jid = group.jid();
    let name = jid.to_string();
    let key = signal.own_group_key(&name, &outgoing.account.number).map_err(signal_error)?;
    message.sender_key_distribution_message = distribution(&name, key);
    if let Some(enc) = outgoing.encrypt(signal, account, device, &message)? {
        signal.gave_group_key(&name, &account.number, device);
        outgoing.world.deliver(account, device, outgoing.group_stanza(&jid, vec![enc]));
    }
    Ok(())
}
