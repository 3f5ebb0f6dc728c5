//! What the library says of people and chats, as facts and changes.

use super::content;
use rookery_protocol::{Jid, MessageId, Timestamp};
use rookery_storage::{ChatChange, ContactFacts, Mute};
use whatsapp_rust::wacore::{
    stanza::groups::GroupNotificationAction,
    types::{
        events::{Event, InboundMessage},
        message::MessageInfo,
    },
};

/// Longest name that is kept, in characters. WhatsApp's own limits are far below.
const MAX_NAME_CHARS: usize = 255;

/// What is learned beside messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// About a person.
    Contact(ContactFacts),
    /// About a chat.
    Chat(Jid, ChatChange),
    /// The account has read these messages on one of its devices.
    Seen(Vec<MessageId>),
}

/// A name as it is kept; none when there is none.
pub(super) fn name(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.chars().take(MAX_NAME_CHARS).collect())
}

/// The people behind messages: who wrote them, under which addresses, and how they call themselves.
pub(super) fn authors(batch: &[InboundMessage]) -> Vec<ContactFacts> {
    let mut authors: Vec<ContactFacts> = batch.iter().filter_map(|message| author(&message.info)).collect();
    authors.dedup();
    authors
}

fn author(info: &MessageInfo) -> Option<ContactFacts> {
    let source = &info.source;
    if source.is_from_me {
        // The other side of the chat, where both of its addresses are told.
        let (chat, other) = (content::jid(&source.chat)?, content::jid(source.recipient_alt.as_ref()?)?);
        return Some(ContactFacts { other: Some(other), ..ContactFacts::of(chat) });
    }
    let verified = info.verified_name.as_ref().and_then(|verified| verified.name.as_deref());
    Some(ContactFacts {
        other: source.sender_alt.as_ref().and_then(content::jid),
        push_name: name(&info.push_name),
        business_name: verified.and_then(name),
        ..ContactFacts::of(content::jid(&source.sender)?)
    })
}

/// What an event says of a person or a chat.
pub(super) fn note(event: &Event) -> Option<Note> {
    let chat = |jid, change| Some(Note::Chat(content::jid(jid)?, change));
    match event {
        Event::ContactUpdate(update) => {
            let action = &update.action;
            let other = action.lid_jid.as_deref().or(action.pn_jid.as_deref()).and_then(|jid| jid.parse().ok());
            let facts = ContactFacts::of(content::jid(&update.jid)?);
            Some(Note::Contact(ContactFacts {
                other: other.filter(|other| *other != facts.jid),
                full_name: Some(action.full_name.as_deref().and_then(name).unwrap_or_default()),
                short_name: Some(action.first_name.as_deref().and_then(name).unwrap_or_default()),
                ..facts
            }))
        }
        Event::PushNameUpdate(update) => {
            let push_name = name(&update.new_push_name);
            Some(Note::Contact(ContactFacts { push_name, ..ContactFacts::of(content::jid(&update.jid)?) }))
        }
        Event::BusinessStatusUpdate(update) => {
            let business_name = Some(update.verified_name.as_deref().and_then(name)?);
            Some(Note::Contact(ContactFacts { business_name, ..ContactFacts::of(content::jid(&update.jid)?) }))
        }
        Event::ArchiveUpdate(update) => chat(&update.jid, ChatChange::Archived(update.action.archived == Some(true))),
        Event::PinUpdate(update) => {
            let at = Timestamp::from_micros(update.timestamp.timestamp_micros());
            chat(&update.jid, ChatChange::Pinned((update.action.pinned == Some(true)).then_some(at)))
        }
        Event::MuteUpdate(update) => {
            let muted = update.action.muted == Some(true);
            let until = update.action.mute_end_timestamp.filter(|ms| *ms > 0);
            let mute = until.map_or(Mute::Forever, |ms| Mute::Until(Timestamp::from_micros(ms.saturating_mul(1_000))));
            chat(&update.jid, ChatChange::Muted(muted.then_some(mute)))
        }
        Event::MarkChatAsReadUpdate(update) => {
            if update.action.read == Some(false) {
                return chat(&update.jid, ChatChange::MarkedUnread);
            }
            let range = update.action.message_range.as_option();
            let latest = range.and_then(|range| range.last_message_timestamp).filter(|secs| *secs > 0);
            chat(&update.jid, ChatChange::Read(end_of(latest.unwrap_or_else(|| update.timestamp.timestamp()))))
        }
        Event::DeleteChatUpdate(update) => chat(&update.jid, ChatChange::Deleted),
        Event::ClearChatUpdate(update) => chat(&update.jid, ChatChange::Cleared),
        Event::GroupUpdate(update) => chat(&update.group_jid, ChatChange::Named(subject(&update.action)?)),
        _ => None,
    }
}

/// The name that a change of a group gives it: a new one, or the first with which it was made.
fn subject(action: &GroupNotificationAction) -> Option<String> {
    match action {
        GroupNotificationAction::Subject { subject, .. } => name(subject),
        GroupNotificationAction::Create { raw } => {
            name(&raw.get_optional_child("group")?.attrs().optional_string("subject")?)
        }
        _ => None,
    }
}

/// The last sort key of a second.
fn end_of(secs: i64) -> u64 {
    let secs = u64::try_from(secs).unwrap_or(0);
    secs << 20 | ((1 << 20) - 1)
}
