//! The latest messages that a phone has sent or received, whole: what it answers about when a companion or a
//! contact asks, and what it needs to vote in a poll. Bounded; guarded by the phone's lock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use buffa::MessageField;
use waproto::whatsapp as wa;

/// Messages that are kept.
const MESSAGES: usize = 512;

/// A message.
pub(super) struct Known {
    pub(super) id: String,
    /// The chat's JID.
    pub(super) chat: String,
    /// The author's number.
    pub(super) author: Arc<str>,
    /// The author's JID in a group.
    pub(super) participant: Option<String>,
    pub(super) from_me: bool,
    /// Seconds since the epoch.
    pub(super) time: u64,
    pub(super) message: wa::Message,
}

/// A poll that can be voted in.
pub(super) struct Poll {
    /// What votes are encrypted with.
    pub(super) secret: Vec<u8>,
    pub(super) options: Vec<String>,
}

impl Known {
    /// How others name it.
    pub(super) fn key(&self) -> wa::MessageKey {
        wa::MessageKey {
            remote_jid: Some(self.chat.clone()),
            from_me: Some(self.from_me),
            id: Some(self.id.clone()),
            participant: self.participant.clone(),
        }
    }

    /// As history carries it.
    pub(super) fn web_message_info(&self) -> wa::WebMessageInfo {
        wa::WebMessageInfo {
            key: MessageField::some(self.key()),
            message: MessageField::some(self.message.clone()),
            message_timestamp: Some(self.time),
            participant: self.participant.clone(),
            ..Default::default()
        }
    }

    /// The poll that it is.
    pub(super) fn poll(&self) -> Option<Poll> {
        let message = super::kind::inner(&self.message);
        let poll =
            [&message.poll_creation_message_v3, &message.poll_creation_message_v2, &message.poll_creation_message];
        let poll = poll.into_iter().find_map(|p| p.as_option())?;
        let secret = |m: &wa::Message| m.message_context_info.as_option()?.message_secret.clone();
        let secret = secret(message).or_else(|| secret(&self.message))?;
        let options = poll.options.iter().filter_map(|o| o.option_name.clone()).collect();
        Some(Poll { secret, options })
    }
}

/// Messages by id.
#[derive(Default)]
pub(super) struct KnownMessages {
    messages: HashMap<String, Arc<Known>>,
    order: VecDeque<String>,
}

impl KnownMessages {
    /// Keeps a message; one with the same id stays.
    pub(super) fn add(&mut self, known: Known) {
        if self.messages.contains_key(&known.id) {
            return;
        }
        self.order.push_back(known.id.clone());
        self.messages.insert(known.id.clone(), Arc::new(known));
        if self.order.len() > MESSAGES
            && let Some(oldest) = self.order.pop_front()
        {
            self.messages.remove(&oldest);
        }
    }

    /// A message that is not too old.
    pub(super) fn get(&self, id: &str) -> Option<Arc<Known>> {
        self.messages.get(id).cloned()
    }

    /// The messages of a chat before one of them, the latest first.
    pub(super) fn before(&self, chat: &str, id: &str, count: usize) -> Vec<Arc<Known>> {
        let end = self.order.iter().position(|i| i == id).unwrap_or(self.order.len());
        let earlier = self.order.iter().take(end).rev().filter_map(|i| self.messages.get(i));
        earlier.filter(|m| m.chat == chat).take(count).cloned().collect()
    }

    /// All of them by chat, each chat oldest first.
    pub(super) fn by_chat(&self) -> Vec<(String, Vec<Arc<Known>>)> {
        let mut chats: Vec<(String, Vec<Arc<Known>>)> = Vec::new();
        for known in self.order.iter().filter_map(|i| self.messages.get(i)) {
            match chats.iter_mut().find(|(chat, _)| *chat == known.chat) {
                Some((_, messages)) => messages.push(known.clone()),
                None => chats.push((known.chat.clone(), vec![known.clone()])),
            }
        }
        chats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(id: usize, chat: &str) -> Known {
        Known {
            id: id.to_string(),
            chat: chat.into(),
            author: "1".into(),
            participant: None,
            from_me: false,
            time: id as u64,
            message: wa::Message::default(),
        }
    }

    #[test]
    fn the_oldest_are_forgotten_and_a_chat_is_found_backwards() {
        let mut messages = KnownMessages::default();
        for id in 0..MESSAGES + 10 {
            messages.add(known(id, if id.is_multiple_of(2) { "even" } else { "odd" }));
        }
        assert!(messages.get("9").is_none() && messages.get("10").is_some());
        let before: Vec<u64> = messages.before("even", "16", 2).iter().map(|m| m.time).collect();
        assert_eq!(before, [14, 12]);
        assert_eq!(messages.by_chat().iter().map(|(_, m)| m.len()).sum::<usize>(), MESSAGES);
    }
}
