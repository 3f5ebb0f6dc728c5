//! Where a phone writes to many at once, with a sender key: groups and the account's status.
//!
//! Invariant: a device gets the sender key before or with the first message that needs it, and a key
//! that somebody has who is no longer there is never used again.

use std::sync::Arc;

use buffa::MessageField;
use wacore::messages::MessageUtils;
use wacore_binary::{Jid, Node};
use waproto::whatsapp as wa;
use waproto::whatsapp::message as parts;

use super::outbound::{Chat, Outgoing, signal_error};
use super::signal::Endpoint;
use crate::account::{Account, lock};
use crate::error::PhoneError;
use crate::groups::Group;
use crate::stanza::element;
use crate::world::World;

/// Many who read what one writes.
pub(super) struct Room {
    jid: Jid,
    /// The group as it is now; none for the status.
    group: Option<Arc<Group>>,
    members: Vec<Arc<Account>>,
}

impl Room {
    /// The room of a chat: a group as it is now, or those who may see the status.
    pub(super) fn of(world: &Arc<World>, chat: &Chat) -> Self {
        let jid = chat.jid(false);
        match chat {
            Chat::Group(group) => {
                let group = world.groups.get(&jid.user).unwrap_or_else(|| group.clone());
                Self { members: group.accounts(world), group: Some(group), jid }
            }
            Chat::Status(audience) => Self { jid, group: None, members: audience.clone() },
            Chat::User(account) => Self { jid, group: None, members: vec![account.clone()] },
        }
    }

    /// The devices that a message goes to, the sender's companions among them.
    fn targets(&self, own: &Arc<Account>) -> Vec<(Arc<Account>, u16)> {
        let mut targets: Vec<(Arc<Account>, u16)> = Vec::new();
        let mut members = self.members.clone();
        if !members.iter().any(|m| m.number == own.number) {
            members.push(own.clone());
        }
        for account in members {
            let companions = account.state().companions();
            targets.extend((account.number != own.number).then(|| (account.clone(), 0)));
            targets.extend(companions.into_iter().map(|d| (account.clone(), d)));
        }
        targets
    }

    /// The stanza of a message for one device.
    fn stanza(&self, outgoing: &Outgoing<'_>, encs: Vec<Node>) -> Node {
        let account = outgoing.account;
        let message = outgoing.common().attr("from", &self.jid);
        let message = match &self.group {
            Some(group) => {
                let (participant, (key, other)) = group.address(account, 0);
                let message = message.attr("participant", participant).attr(key, other);
                message.attr("addressing_mode", group.addressing_mode())
            }
            None => message.attr("participant", account.pn(0)).attr("participant_lid", account.lid(0)),
        };
        message.children(encs).build()
    }
}

fn distribution(room: &str, key: Vec<u8>) -> MessageField<parts::SenderKeyDistributionMessage> {
    MessageField::some(parts::SenderKeyDistributionMessage {
        group_id: Some(room.to_string()),
        axolotl_sender_key_distribution_message: Some(key),
    })
}

/// Sends a message to the devices of all who are there.
pub(super) fn send(
    outgoing: &Outgoing<'_>,
    signal: &mut Endpoint,
    room: &Room,
    message: &wa::Message,
) -> Result<(), PhoneError> {
    let own = &outgoing.account.number;
    if room.group.as_ref().is_some_and(|group| !group.may_write(own)) {
        return Err(PhoneError::Refused("the phone is no member, or only admins may write".into()));
    }
    let name = room.jid.to_string();
    let targets = room.targets(outgoing.account);
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
        outgoing.world.deliver(&account, device, room.stanza(outgoing, parts));
    }
    Ok(())
}

/// Sends a message again to one device, over its session, with the sender key.
pub(super) fn send_again(
    outgoing: &Outgoing<'_>,
    signal: &mut Endpoint,
    room: &Room,
    (account, device): (&Arc<Account>, u16),
    mut message: wa::Message,
) -> Result<(), PhoneError> {
    let name = room.jid.to_string();
    let key = signal.own_group_key(&name, &outgoing.account.number).map_err(signal_error)?;
    message.sender_key_distribution_message = distribution(&name, key);
    if let Some(enc) = outgoing.encrypt(signal, account, device, &message)? {
        signal.gave_group_key(&name, &account.number, device);
        outgoing.world.deliver(account, device, room.stanza(outgoing, vec![enc]));
    }
    Ok(())
}

/// Those who may see an account's status: its contacts, all of them when none are named, but for blocked ones.
pub(super) fn audience(
    world: &Arc<World>,
    account: &Arc<Account>,
    numbers: &[&str],
) -> Result<Vec<Arc<Account>>, PhoneError> {
    let known = |n: &&str| world.account(n).ok_or_else(|| PhoneError::UnknownNumber((*n).to_string()));
    let named: Vec<Arc<Account>> = if numbers.is_empty() {
        let contacts = lock(&account.phone.sent).contacts();
        contacts.iter().filter_map(|n| world.account(n)).collect()
    } else {
        numbers.iter().map(known).collect::<Result<_, _>>()?
    };
    let blocked = account.state().blocked.clone();
    Ok(named.into_iter().filter(|a| a.number != account.number && !blocked.contains(&a.number)).collect())
}
