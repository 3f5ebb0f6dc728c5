//! The people and chats of the model's sessions, kept in the plainest way.

use super::sample;
use crate::{ChatChange, ChatRow, ContactFacts, ContactRow, HistoryRow};
use rookery_protocol::{Jid, MessageId};
use std::collections::BTreeMap;

/// A chat of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chat {
    unread: u32,
    archived: bool,
    active: u64,
    last: Option<(u64, MessageId)>,
    read_until: u64,
    deleted_until: u64,
}

/// What is known of one person: a name under each address, and whether both addresses are known to be theirs.
#[derive(Clone, Debug, Default)]
#[expect(clippy::option_option, reason = "an address that is known may have a name or none")]
struct Person {
    phone: Option<Option<String>>,
    lid: Option<Option<String>>,
    one: bool,
}

/// The people and chats of a session of the model.
#[derive(Clone, Default)]
pub(super) struct Peers {
    chats: BTreeMap<Jid, Chat>,
    people: BTreeMap<usize, Person>,
    /// Messages that came with a history sync.
    pub(super) imported: u64,
}

fn lid(person: usize) -> Jid {
    format!("9000{person:04}@lid").parse().expect("it is a LID")
}

/// What is learned of a person: by the number, by the LID, or by both.
pub(super) fn facts(person: usize, by: u8, name: Option<u8>) -> ContactFacts {
    let (phone, lid) = (sample::chat(person), lid(person));
    let (jid, other) = match by {
        0 => (phone, None),
        1 => (lid, None),
        2 => (phone, Some(lid)),
        _ => (lid, Some(phone)),
    };
    ContactFacts { other, full_name: name.map(|name| format!("name {name}")), ..ContactFacts::of(jid) }
}

/// What is decided about a chat.
pub(super) fn change(kind: u8, secs: i64) -> ChatChange {
    match kind {
        0 => ChatChange::Archived(secs % 2 == 0),
        1 => ChatChange::Deleted,
        2 => ChatChange::Cleared,
        _ => ChatChange::Read(sample::sort_key(secs, 0)),
    }
}

impl Peers {
    /// A message is stored that was not there, live or from a history.
    pub(super) fn receive(&mut self, row: &HistoryRow, live: bool) {
        let chat = self.chats.entry(row.chat.clone()).or_default();
        chat.active = chat.active.max(row.sort_key);
        if chat.last.as_ref().is_none_or(|(last, _)| *last <= row.sort_key) {
            chat.last = Some((row.sort_key, row.message_id.clone()));
        }
        if live && row.from_me && row.sort_key >= chat.read_until {
            (chat.read_until, chat.unread) = (row.sort_key, 0);
        } else if live && !row.from_me && row.sort_key > chat.read_until {
            chat.unread += 1;
        }
        self.imported += u64::from(!live);
    }

    /// Something is decided about a chat that has these messages.
    pub(super) fn decide<'a>(
        &mut self,
        jid: &Jid,
        change: &ChatChange,
        messages: impl Iterator<Item = &'a HistoryRow>,
    ) {
        let chat = self.chats.entry(jid.clone()).or_default();
        let read_all = |chat: &mut Chat| {
            chat.last = None;
            if chat.active >= chat.read_until {
                (chat.read_until, chat.unread) = (chat.active, 0);
            }
        };
        match change {
            ChatChange::Archived(archived) => chat.archived = *archived,
            ChatChange::Deleted => {
                chat.deleted_until = chat.active;
                read_all(chat);
            }
            ChatChange::Cleared => read_all(chat),
            ChatChange::Read(until) if *until >= chat.read_until => {
                chat.read_until = *until;
                let ends = chat.last.as_ref().is_none_or(|(last, _)| last <= until);
                let behind = messages.filter(|row| row.chat == *jid && !row.from_me && row.sort_key > *until).count();
                chat.unread = if ends { 0 } else { chat.unread.min(u32::try_from(behind).expect("few")) };
            }
            _ => {}
        }
    }

    /// Something is learned of a person; see [`facts`].
    pub(super) fn learn(&mut self, person: usize, by: u8, name: Option<u8>) {
        let name = name.map(|name| format!("name {name}"));
        let known = self.people.entry(person).or_default();
        if by >= 2 && !known.one {
            known.one = true;
            let under_lid = known.lid.take().flatten();
            known.phone = Some(known.phone.take().flatten().or(under_lid));
        }
        let place = if by == 1 && !known.one { &mut known.lid } else { &mut known.phone };
        let before = place.take().flatten();
        *place = Some(name.or(before));
    }

    /// The chats as the list has them.
    pub(super) fn chats(&self) -> Vec<(Jid, Chat)> {
        let shown = self.chats.iter().filter(|(_, chat)| chat.active > chat.deleted_until);
        let mut chats: Vec<_> = shown.map(|(jid, chat)| (jid.clone(), chat.clone())).collect();
        chats.sort_by(|(a, one), (b, other)| (other.active, b).cmp(&(one.active, a)));
        chats
    }

    /// The contacts as the list has them.
    pub(super) fn contacts(&self) -> Vec<ContactRow> {
        let mut rows: Vec<ContactRow> = Vec::new();
        for (person, known) in &self.people {
            let row = |jid, other, name: &Option<String>| ContactRow {
                other,
                full_name: name.clone(),
                ..ContactRow::new(jid)
            };
            let other = known.one.then(|| lid(*person));
            rows.extend(known.phone.as_ref().map(|name| row(sample::chat(*person), other, name)));
            rows.extend(known.lid.as_ref().map(|name| row(lid(*person), None, name)));
        }
        rows.sort_by(|a, b| a.jid.as_str().cmp(b.jid.as_str()));
        rows
    }
}

/// What the model keeps of a stored chat.
pub(super) fn kept(row: ChatRow) -> (Jid, Chat) {
    let ChatRow { jid, last, active, unread, archived, read_until, deleted_until, .. } = row;
    let last = last.map(|last| (last.sort_key, last.message_id));
    (jid, Chat { unread, archived, active, last, read_until, deleted_until })
}
