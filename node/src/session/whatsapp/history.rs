//! History chunks, from the phone's blobs to parts that can be stored.
//!
//! A chunk is inflated and decoded conversation by conversation, twice: first for the people in it, since they say which
//! phone number a LID is, then for the messages. What is in memory is the compressed chunk, its largest conversation,
//! and one part. It knows nothing of where parts go.

use super::{content, peers::name};
use crate::session::sort_key::SortKeys;
use rookery_protocol::{Jid, JidServer, MessageId, Timestamp, api::Reaction};
use rookery_storage::{ChatFacts, ContactFacts, HistoryRow, Import, Mute};
use std::collections::HashMap;
use whatsapp_rust::{
    wacore::types::{
        events::LazyHistorySync,
        message::{MessageInfo, MessageSource},
    },
    waproto::whatsapp::{self as wa, web_message_info as web},
};

/// Messages of one part.
const PART_MESSAGES: usize = 250;
/// People of one part.
const PART_CONTACTS: usize = 500;

/// A chunk of a phone's history.
pub(crate) struct Chunk {
    announcement: Option<MessageId>,
    sync: Box<LazyHistorySync>,
}

impl Chunk {
    pub(super) fn new(sync: &LazyHistorySync, announcement: Option<MessageId>) -> Self {
        Self { announcement, sync: Box::new(sync.clone()) }
    }

    /// The message that has announced it.
    pub(crate) fn announcement(&self) -> Option<MessageId> {
        self.announcement.clone()
    }

    /// How large it is, compressed.
    pub(crate) fn bytes(&self) -> usize {
        self.sync.compressed_bytes().len()
    }

    /// How much the phone has sent when it has sent this one, of 100; none where it does not count.
    pub(crate) fn progress(&self) -> Option<u32> {
        let kind = self.sync.sync_type();
        let counts = [
            wa::message::HistorySyncType::INITIAL_BOOTSTRAP,
            wa::message::HistorySyncType::RECENT,
            wa::message::HistorySyncType::FULL,
        ];
        if counts.into_iter().any(|counting| counting as i32 == kind) { self.sync.progress() } else { None }
    }

    /// Decodes the chunk and hands over its parts; false from `take` ends it. Takes its time: not for a task that
    /// others wait for. The error says why it cannot be read, to the end of what could be.
    pub(crate) fn decode(&self, keys: &SortKeys, mut take: impl FnMut(Import) -> bool) -> Result<(), String> {
        let broken = |error: whatsapp_rust::wacore::history_sync::HistorySyncError| error.to_string();
        let people = {
            let mut stream = self.sync.stream();
            while stream.next_conversation_bytes().map_err(broken)?.is_some() {}
            stream.remainder().map_err(broken)?
        };
        let phones = phones(&people);
        let mut contacts = contacts(&people).peekable();
        while contacts.peek().is_some() {
            let part = contacts.by_ref().take(PART_CONTACTS).collect();
            if !take(Import { contacts: part, ..Import::default() }) {
                return Ok(());
            }
        }
        let (mut stream, mut conversation) = (self.sync.stream(), wa::Conversation::default());
        let mut part = Import::default();
        while stream.next_conversation_into(&mut conversation).map_err(broken)? {
            let Some(jid) = chat(&conversation, &phones) else { continue };
            part.contacts.extend(contact(&conversation, &jid));
            part.chats.push(facts(&conversation, &jid));
            // They come newest first, and sort keys grow.
            for message in conversation.messages.iter().rev().filter_map(|message| message.message.as_option()) {
                if let Some(mut row) = row(message, &jid, &phones) {
                    row.sort_key = keys.next(row.timestamp);
                    part.messages.push(row);
                }
                if part.messages.len() >= PART_MESSAGES && !take(std::mem::take(&mut part)) {
                    return Ok(());
                }
            }
            if part.chats.len() >= PART_CONTACTS && !take(std::mem::take(&mut part)) {
                return Ok(());
            }
        }
        if part != Import::default() {
            take(part);
        }
        Ok(())
    }
}

/// Phone numbers by LID.
type Phones = HashMap<Jid, Jid>;

fn parse(jid: Option<&str>) -> Option<Jid> {
    jid?.parse().ok()
}

fn phones(chunk: &wa::HistorySync) -> Phones {
    let pair = |m: &wa::PhoneNumberToLIDMapping| Some((parse(m.lid_jid.as_deref())?, parse(m.pn_jid.as_deref())?));
    chunk.phone_number_to_lid_mappings.iter().filter_map(pair).collect()
}

fn contacts(chunk: &wa::HistorySync) -> impl Iterator<Item = ContactFacts> {
    let pairs = chunk.phone_number_to_lid_mappings.iter().filter_map(|m| {
        let other = Some(parse(m.lid_jid.as_deref())?);
        Some(ContactFacts { other, old: true, ..ContactFacts::of(parse(m.pn_jid.as_deref())?) })
    });
    let named = chunk.pushnames.iter().filter_map(|person| {
        let push_name = name(person.pushname.as_deref()?);
        Some(ContactFacts { push_name, old: true, ..ContactFacts::of(parse(person.id.as_deref())?) })
    });
    let inline = chunk.inline_contacts.iter().filter_map(|person| {
        let (phone, lid) = (parse(person.pn_jid.as_deref()), parse(person.lid_jid.as_deref()));
        let other = if phone.is_some() { lid.clone() } else { None };
        Some(ContactFacts {
            other,
            full_name: person.full_name.as_deref().and_then(name),
            short_name: person.first_name.as_deref().and_then(name),
            old: true,
            ..ContactFacts::of(phone.or(lid)?)
        })
    });
    pairs.chain(named).chain(inline)
}

/// The chat's address: the phone number where it is known.
fn chat(conversation: &wa::Conversation, phones: &Phones) -> Option<Jid> {
    let jid = parse(Some(&conversation.id))?;
    if jid.server() != JidServer::Lid {
        return Some(jid);
    }
    let phone = parse(conversation.pn_jid.as_deref()).filter(|jid| jid.server() == JidServer::PhoneNumber);
    Some(phone.or_else(|| phones.get(&jid).cloned()).unwrap_or(jid))
}

/// What a conversation says of the person on its other side.
fn contact(conversation: &wa::Conversation, jid: &Jid) -> Option<ContactFacts> {
    if !matches!(jid.server(), JidServer::PhoneNumber | JidServer::Lid) {
        return None;
    }
    let told = [Some(conversation.id.as_str()), conversation.lid_jid.as_deref(), conversation.pn_jid.as_deref()];
    let other = told.into_iter().filter_map(parse).find(|other| other != jid && other.server() != jid.server());
    let full_name = conversation.name.as_deref().or(conversation.display_name.as_deref()).and_then(name);
    Some(ContactFacts { other, full_name, old: true, ..ContactFacts::of(jid.clone()) })
}

fn facts(conversation: &wa::Conversation, jid: &Jid) -> ChatFacts {
    let time = |secs: Option<u64>| secs.filter(|secs| *secs > 0).map(|secs| Timestamp::from_secs(secs as i64));
    let mute = conversation.mute_end_time.filter(|ends| *ends > 0).map(|ends| match i64::try_from(ends) {
        // WhatsApp's "for ever" is -1; times are in seconds, or in milliseconds.
        Ok(ms) if ms > 100_000_000_000 => Mute::Until(Timestamp::from_micros(ms.saturating_mul(1_000))),
        Ok(secs) => Mute::Until(Timestamp::from_secs(secs)),
        Err(_) => Mute::Forever,
    });
    ChatFacts {
        jid: jid.clone(),
        name: conversation.name.as_deref().or(conversation.display_name.as_deref()).and_then(name),
        active_at: time(conversation.conversation_timestamp.max(conversation.last_msg_timestamp)),
        unread: conversation.unread_count.unwrap_or(0),
        marked_unread: conversation.marked_as_unread == Some(true),
        archived: conversation.archived == Some(true),
        pinned_at: time(conversation.pinned.map(u64::from)),
        muted: mute,
    }
}

/// The row of a message of history: as of a live one, with the receipts that the phone knows of.
fn row(message: &wa::WebMessageInfo, chat: &Jid, phones: &Phones) -> Option<HistoryRow> {
    let info = info(message, chat, phones)?;
    let mut row = match message.message.as_option() {
        Some(body) => content::row(body, &info)?,
        None if message.message_stub_type == Some(web::StubType::CIPHERTEXT) => content::undecryptable(&info)?,
        // What WhatsApp itself says in a chat, such as who joined a group.
        None => return None,
    };
    if row.from_me {
        receipts(&mut row, message);
    }
    row.reactions = message.reactions.iter().filter_map(|reaction| self::reaction(reaction, chat, phones)).collect();
    Some(row)
}

fn info(message: &wa::WebMessageInfo, chat: &Jid, phones: &Phones) -> Option<MessageInfo> {
    let key = message.key.as_option()?;
    let is_from_me = key.from_me == Some(true);
    let is_group = chat.server() == JidServer::Group;
    let author = if is_group { key.participant.as_deref().or(message.participant.as_deref()) } else { None };
    let author = match author {
        Some(author) => known(author.parse().ok()?, phones),
        None => chat.clone(),
    };
    let library = |jid: &Jid| jid.as_str().parse::<whatsapp_rust::Jid>().ok();
    let source = MessageSource {
        chat: library(chat)?,
        sender: library(&author)?,
        is_from_me,
        is_group,
        ..MessageSource::default()
    };
    let secs = i64::try_from(message.message_timestamp.unwrap_or(0)).ok()?;
    let timestamp = whatsapp_rust::wacore::time::from_secs(secs)?;
    Some(MessageInfo { source, id: key.id.clone()?, timestamp, ..MessageInfo::default() })
}

fn known(jid: Jid, phones: &Phones) -> Jid {
    phones.get(&jid).cloned().unwrap_or(jid)
}

/// How far one of the account's own messages has come. Where the phone does not say when, the time of the message
/// stands in for it.
fn receipts(row: &mut HistoryRow, message: &wa::WebMessageInfo) {
    let at = row.timestamp;
    row.sender = None;
    let stage = message.status.map_or(2, |status| status as i32);
    let first = |time: fn(&wa::UserReceipt) -> Option<i64>| {
        let secs = message.user_receipt.iter().filter_map(time).filter(|secs| *secs > 0).min();
        secs.map(Timestamp::from_secs)
    };
    let reached = |rank: i32, told: Option<Timestamp>| told.or((stage >= rank).then_some(at));
    row.delivered_at = reached(3, first(|receipt| receipt.receipt_timestamp));
    row.read_at = reached(4, first(|receipt| receipt.read_timestamp));
    row.played_at = reached(5, first(|receipt| receipt.played_timestamp));
    if stage == 0 {
        row.sent_at = None;
        row.failure = Some("the phone could not send it".to_owned());
    } else if stage == 1 {
        row.sent_at = None;
    }
}

/// A reaction; none of the account's own, whose address the phone does not say.
fn reaction(reaction: &wa::Reaction, chat: &Jid, phones: &Phones) -> Option<Reaction> {
    let key = reaction.key.as_option()?;
    let emoji = reaction.text.clone().filter(|emoji| !emoji.is_empty())?;
    if key.from_me == Some(true) {
        return None;
    }
    let sender = match key.participant.as_deref() {
        Some(participant) => known(participant.parse().ok()?, phones),
        None => chat.clone(),
    };
    let ms = reaction.sender_timestamp_ms.unwrap_or(0);
    Some(Reaction { sender, emoji, timestamp: Timestamp::from_micros(ms.saturating_mul(1_000)) })
}
