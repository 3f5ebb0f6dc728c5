//! What a phone has received and what it knows of what it sent. Bounded; guarded by the phone's lock.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use wacore_binary::Jid;
use waproto::whatsapp as wa;

use super::content::Style;
use super::kind::MessageKind;
use super::outbound::Destination;

/// Messages that a phone can encrypt again when a device asks.
const SENT_MESSAGES: usize = 1_024;
/// Sent messages whose receipts are kept.
const SENT_RECEIPTS: usize = 100_000;
/// Receipts of one message.
const RECEIPTS: usize = 4_096;

/// A message that a phone has received and decrypted, or that its own account sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InboxMessage {
    /// The message id.
    pub id: String,
    /// The sender's phone number, digits only.
    pub from: String,
    /// The chat: the other party's phone number, a group's JID (`...@g.us`), or `status@broadcast`.
    pub chat: String,
    /// The text, a medium's caption, or the kind of message in angle brackets (`<image>`).
    pub text: String,
    /// What kind of message it is.
    pub kind: MessageKind,
    /// The id of the message that a reaction, edit, revocation or vote is about.
    pub target: Option<String>,
    /// One of the account's own devices sent it.
    pub from_me: bool,
    /// When the server accepted it, seconds since the epoch.
    pub timestamp: u64,
    /// It may be looked at once.
    pub view_once: bool,
    /// After how many seconds it disappears; 0 for never.
    pub ephemeral_seconds: u32,
    /// The id of the message that it answers.
    pub reply_to: Option<String>,
    /// Its sender was addressed by LID, not by phone number.
    pub by_lid: bool,
}

/// What a receipt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptKind {
    /// The device has it.
    Delivered,
    /// A person has seen it.
    Read,
    /// A person has played it.
    Played,
    /// The device could not decrypt it and asks for it again.
    Retry,
}

/// A receipt that a phone got for a message that it sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Who sent the receipt, `number:device`.
    pub from: String,
    /// What it says.
    pub kind: ReceiptKind,
    /// When it came, seconds since the epoch.
    pub at: u64,
}

/// A received message and where an answer to it goes.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) message: InboxMessage,
    /// The device that sent it.
    pub(super) sender: Jid,
    /// The group, or the status, that it was sent to.
    pub(super) room: Option<Jid>,
}

/// Messages in order of arrival, each with a number that only grows.
#[derive(Default)]
pub(super) struct Inbox {
    messages: VecDeque<Received>,
    first: u64,
    /// What each message said, by a hash of its sender and id.
    contents: HashMap<u64, u64>,
    order: VecDeque<u64>,
}

/// What a message is to an inbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    New,
    Known,
    /// Its id is known, but it said something else then.
    Changed,
}

impl Inbox {
    /// Notes a message's content and says whether its id is new.
    pub(super) fn note(&mut self, key: u64, content: u64, limit: usize) -> Arrival {
        match self.contents.insert(key, content) {
            Some(former) if former == content => Arrival::Known,
            Some(former) => {
                self.contents.insert(key, former);
                Arrival::Changed
            }
            None => {
                self.order.push_back(key);
                if self.order.len() > limit
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.contents.remove(&oldest);
                }
                Arrival::New
            }
        }
    }

    /// Keeps a message.
    pub(super) fn push(&mut self, received: Received, limit: usize) {
        if self.messages.len() >= limit {
            self.messages.pop_front();
            self.first += 1;
        }
        self.messages.push_back(received);
    }

    /// All messages, oldest first.
    pub(super) fn messages(&self) -> Vec<InboxMessage> {
        self.messages.iter().map(|r| r.message.clone()).collect()
    }

    /// The first message from number `from` on that matches, or the number to go on with.
    pub(super) fn find(&self, from: u64, matches: &mut impl FnMut(&InboxMessage) -> bool) -> Result<InboxMessage, u64> {
        let skip = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let found = self.messages.iter().skip(skip).find(|r| matches(&r.message));
        match found {
            Some(received) => Ok(received.message.clone()),
            None => Err(self.first + self.messages.len() as u64),
        }
    }

    /// The latest message with an id.
    pub(super) fn by_id(&self, id: &str) -> Option<Received> {
        let mut latest = self.messages.iter().rev();
        latest.find(|r| r.message.id == id).cloned()
    }
}

/// What a phone sent.
#[derive(Default)]
pub(super) struct Sent {
    receipts: HashMap<String, Vec<Receipt>>,
    order: VecDeque<String>,
    messages: VecDeque<(String, SentMessage)>,
}

/// A message that can be encrypted again.
#[derive(Clone)]
pub(super) struct SentMessage {
    pub(super) to: Destination,
    pub(super) message: wa::Message,
    pub(super) style: Style,
}

impl Sent {
    /// A message was sent: receipts for it are kept from now on.
    pub(super) fn add(&mut self, id: &str, message: SentMessage) {
        self.receipts.insert(id.to_string(), Vec::new());
        self.order.push_back(id.to_string());
        if self.order.len() > SENT_RECEIPTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.receipts.remove(&oldest);
        }
        self.messages.push_back((id.to_string(), message));
        if self.messages.len() > SENT_MESSAGES {
            self.messages.pop_front();
        }
    }

    /// Keeps a receipt for a message that was sent; others are ignored.
    pub(super) fn receipt(&mut self, id: &str, receipt: Receipt) {
        if let Some(receipts) = self.receipts.get_mut(id)
            && receipts.len() < RECEIPTS
        {
            receipts.push(receipt);
        }
    }

    /// The numbers that something was sent to.
    pub(super) fn contacts(&self) -> BTreeSet<Arc<str>> {
        let number = |(_, sent): &(String, SentMessage)| match &sent.to {
            Destination::User(number) => Some(number.clone()),
            _ => None,
        };
        self.messages.iter().filter_map(number).collect()
    }

    /// The receipts of a message, in order of arrival.
    pub(super) fn receipts(&self, id: &str) -> Vec<Receipt> {
        self.receipts.get(id).cloned().unwrap_or_default()
    }

    /// A message that was sent not too long ago.
    pub(super) fn message(&self, id: &str) -> Option<SentMessage> {
        let mut latest = self.messages.iter().rev();
        latest.find(|(i, _)| i == id).map(|(_, m)| m.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(id: &str) -> Received {
        Received {
            message: InboxMessage {
                id: id.into(),
                from: "1".into(),
                chat: "1".into(),
                text: id.into(),
                kind: MessageKind::Text,
                target: None,
                from_me: false,
                timestamp: 0,
                view_once: false,
                ephemeral_seconds: 0,
                reply_to: None,
                by_lid: false,
            },
            sender: Jid::pn("1"),
            room: None,
        }
    }

    #[test]
    fn an_id_that_says_something_else_is_noticed() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.note(1, 10, 2), Arrival::New);
        assert_eq!(inbox.note(1, 10, 2), Arrival::Known);
        assert_eq!(inbox.note(1, 11, 2), Arrival::Changed);
        assert_eq!(inbox.note(1, 10, 2), Arrival::Known, "the first content stays");
        inbox.note(2, 10, 2);
        inbox.note(3, 10, 2);
        assert_eq!(inbox.note(1, 10, 2), Arrival::New, "forgotten");
    }

    #[test]
    fn a_search_goes_on_where_it_stopped_although_messages_are_forgotten() {
        let mut inbox = Inbox::default();
        for id in ["a", "b", "c"] {
            inbox.push(received(id), 2);
        }
        let next = inbox.find(0, &mut |m| m.id == "a").unwrap_err();
        assert_eq!(next, 3);
        inbox.push(received("d"), 2);
        let mut seen = Vec::new();
        let end = inbox.find(next, &mut |m| {
            seen.push(m.id.clone());
            false
        });
        assert_eq!((seen, end), (vec!["d".to_string()], Err(4)));
        assert!(inbox.by_id("a").is_none() && inbox.by_id("d").is_some());
    }
}
