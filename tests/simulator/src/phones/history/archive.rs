//! The history that a phone is made up to have: so many messages in so many chats, each made when it is asked
//! for. Pure.

use buffa::MessageField;
use waproto::whatsapp as wa;
use waproto::whatsapp::web_message_info::Status;

/// Messages of one chunk.
pub(super) const CHUNK: u64 = 2_000;
/// Messages of the first chunk, which is there before the others are.
const FIRST_CHUNK: u64 = 200;

/// How much history a phone has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistorySize {
    /// Chats.
    pub chats: u32,
    /// Messages of all chats together; spread evenly.
    pub messages: u64,
}

/// Messages of one chat, from the latest of them back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) chat: u32,
    /// Numbers of the messages; the oldest of the chat has 0.
    pub(super) messages: std::ops::Range<u64>,
    /// Nothing of the chat comes after this.
    pub(super) last: bool,
}

impl HistorySize {
    /// Messages of one chat.
    pub(super) fn of(self, chat: u32) -> u64 {
        let chats = u64::from(self.chats.max(1));
        self.messages / chats + u64::from(u64::from(chat) < self.messages % chats)
    }

    /// All of it in chunks, the first one small.
    pub(super) fn chunks(self) -> Chunks {
        Chunks { size: self, chat: 0, left: self.of(0), first: true }
    }
}

/// Chunk after chunk.
pub(super) struct Chunks {
    size: HistorySize,
    chat: u32,
    /// Messages of the present chat that are still to come.
    left: u64,
    first: bool,
}

impl Iterator for Chunks {
    type Item = Vec<Slice>;

    fn next(&mut self) -> Option<Vec<Slice>> {
        let mut room = if std::mem::replace(&mut self.first, false) { FIRST_CHUNK } else { CHUNK };
        let mut chunk = Vec::new();
        while self.chat < self.size.chats {
            // A chat without messages takes room as well.
            if room == 0 {
                break;
            }
            let taken = self.left.min(room);
            let from = self.left - taken;
            chunk.push(Slice { chat: self.chat, messages: from..self.left, last: from == 0 });
            self.left = from;
            room -= taken.max(1).min(room);
            if from == 0 {
                self.chat += 1;
                self.left = self.size.of(self.chat);
            }
        }
        (!chunk.is_empty()).then_some(chunk)
    }
}

/// What a chat is called in the phone's address book.
pub(super) fn name(chat: u32) -> String {
    format!("Chat {chat}")
}

/// The name that the person behind a chat gave themselves.
pub(super) fn push_name(chat: u32) -> String {
    format!("Person {chat}")
}

/// The LID of the person behind a chat.
pub(super) fn lid(chat: u32) -> String {
    format!("1889{chat:06}@lid")
}

/// A chat's JID.
pub(super) fn jid(chat: u32) -> String {
    format!("1888{chat:06}@s.whatsapp.net")
}

/// The chat and number of a message by its id.
pub(super) fn number_of(id: &str) -> Option<(u32, u64)> {
    let (chat, number) = id.strip_prefix('H')?.split_once('-')?;
    Some((chat.parse().ok()?, number.parse().ok()?))
}

/// Some messages of a chat, the latest first; `start` is when the oldest of all was sent.
pub(super) fn conversation(slice: &Slice, start: u64) -> wa::Conversation {
    let jid = jid(slice.chat);
    let messages = slice.messages.clone().rev().map(|n| message(&jid, slice.chat, n, start + n)).collect();
    wa::Conversation {
        messages,
        name: Some(name(slice.chat)),
        conversation_timestamp: Some(start + slice.messages.end.saturating_sub(1)),
        // Every third chat has unread messages, every fifth is archived, every seventh pinned.
        unread_count: Some(slice.chat % 3),
        archived: Some(slice.chat % 5 == 4),
        pinned: (slice.chat % 7 == 6).then_some(1_700_000_000),
        mute_end_time: (slice.chat % 11 == 10).then_some(u64::MAX),
        end_of_history_transfer: Some(slice.last),
        id: jid,
        ..Default::default()
    }
}

fn message(jid: &str, chat: u32, n: u64, time: u64) -> wa::HistorySyncMsg {
    let info = wa::WebMessageInfo {
        key: MessageField::some(wa::MessageKey {
            remote_jid: Some(jid.to_string()),
            from_me: Some(n.is_multiple_of(2)),
            id: Some(format!("H{chat}-{n}")),
            ..Default::default()
        }),
        message: MessageField::some(wa::Message {
            conversation: Some(format!("old message {n}")),
            ..Default::default()
        }),
        message_timestamp: Some(time),
        status: n.is_multiple_of(2).then_some(if n.is_multiple_of(4) { Status::READ } else { Status::DELIVERY_ACK }),
        ..Default::default()
    };
    wa::HistorySyncMsg { message: MessageField::some(info), msg_order_id: Some(n) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_once_and_no_chunk_is_large() {
        for (chats, messages) in [(1, 1), (3, 10), (7, 5_003), (2_500, 0), (1_000, 10_001), (2, 9_999)] {
            let size = HistorySize { chats, messages };
            let mut seen = std::collections::BTreeMap::<u32, u64>::new();
            for (n, chunk) in size.chunks().enumerate() {
                let many: u64 = chunk.iter().map(|s| (s.messages.end - s.messages.start).max(1)).sum();
                assert!(many <= if n == 0 { FIRST_CHUNK } else { CHUNK }, "{size:?}");
                for slice in chunk {
                    let before = seen.entry(slice.chat).or_insert(size.of(slice.chat));
                    assert_eq!(*before, slice.messages.end, "{size:?}: a gap");
                    *before = slice.messages.start;
                    assert_eq!(slice.last, slice.messages.start == 0);
                }
            }
            assert_eq!(seen.len(), chats as usize);
            assert!(seen.values().all(|left| *left == 0), "{size:?}: {seen:?}");
        }
        assert_eq!(HistorySize::default().chunks().count(), 0);
    }

    #[test]
    fn a_message_is_found_by_its_id() {
        let slice = Slice { chat: 3, messages: 7..9, last: false };
        let conversation = conversation(&slice, 100);
        let info = conversation.messages[0].message.as_option().unwrap();
        assert_eq!(info.message_timestamp, Some(108), "the latest first");
        assert_eq!(number_of(info.key.as_option().unwrap().id.as_deref().unwrap()), Some((3, 8)));
        assert_eq!(number_of("AC0011"), None);
    }
}
