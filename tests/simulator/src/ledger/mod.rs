//! The way of every message: from its acceptance by the server over each delivery to its acknowledgement by
//! each device.
//!
//! Invariant: bounded; of many messages the oldest are forgotten. A message is known by its sender's account and
//! its id. Knows ids and devices, never what a message says. Its lock is taken last.

mod trace;

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

pub use trace::{Acknowledged, Cause, Delivery, DeviceTrace, Lost, Trace};

use crate::account::{DeviceKey, lock};
use crate::stanza::unix_now_ms;

/// Messages that are remembered.
const MESSAGES: usize = 200_000;
/// Devices of one message that are remembered.
const RECIPIENTS: usize = 16_384;
/// Deliveries to one device that are remembered.
const DELIVERIES: usize = 16;

/// A message on its way to one device. What a queue keeps of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The message's number; numbers only grow.
    message: u64,
    /// Which of its recipients.
    recipient: u16,
    /// Why it was queued.
    pub(crate) cause: Cause,
}

impl Ticket {
    /// Of a copy that a fault makes.
    pub(crate) fn duplicated(self) -> Self {
        Self { cause: Cause::Duplicated, ..self }
    }
}

struct Recipient {
    device: DeviceKey,
    queued_ms: u64,
    deliveries: Vec<Delivery>,
    /// When and over which connection.
    acknowledged: Option<(u64, u64)>,
    /// It asked for the message again and has not got it since.
    asked_again: bool,
    lost: Option<Lost>,
}

struct Message {
    id: Box<str>,
    key: u64,
    from: DeviceKey,
    accepted_at: u64,
    accepted_ms: u64,
    accepted: u32,
    connection: u64,
    /// The sender knows that it was accepted, as far as the server can tell.
    told: bool,
    /// What a further copy of it is for a device that has one.
    again: Cause,
    recipients: Vec<Recipient>,
}

#[derive(Default)]
struct Messages {
    list: VecDeque<Message>,
    /// The number of the first.
    first: u64,
    /// Numbers by a hash of sender and id.
    numbers: HashMap<u64, u64>,
}

impl Messages {
    fn get(&mut self, number: u64) -> Option<&mut Message> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.list.get_mut(at)
    }

    fn find(&mut self, sender: &str, id: &str) -> Option<(u64, &mut Message)> {
        let number = *self.numbers.get(&key(sender, id))?;
        self.get(number).map(|message| (number, message))
    }

    fn recipient(&mut self, ticket: Ticket) -> Option<&mut Recipient> {
        self.get(ticket.message)?.recipients.get_mut(usize::from(ticket.recipient))
    }
}

fn key(sender: &str, id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (sender, id).hash(&mut hasher);
    hasher.finish()
}

/// All messages of one simulator.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Messages>);

impl Ledger {
    /// A phone has sent a message; `at` is the server's time in seconds.
    pub(crate) fn accepted(&self, from: &DeviceKey, id: &str, at: u64) {
        self.accepted_over(from, id, at, 0, true);
    }

    /// The server has accepted a message over a connection. `told`: it has answered with an acknowledgement that
    /// leaves nothing to do. One that is sent again keeps its entry.
    pub(crate) fn accepted_over(&self, from: &DeviceKey, id: &str, at: u64, connection: u64, told: bool) {
        let mut ledger = lock(&self.0);
        if let Some((_, message)) = ledger.find(&from.number, id) {
            message.accepted += 1;
            // The answer to a device that could not read it says nothing of the message itself: its sender may not
            // know yet that it was accepted.
            if message.recipients.iter().any(|recipient| recipient.asked_again) {
                message.again = Cause::SentAgain;
                return;
            }
            let unasked = message.told && message.connection == connection && message.from == *from;
            message.again = if unasked { Cause::Unasked } else { Cause::SentAgain };
            message.connection = connection;
            message.told = told;
            return;
        }
        if ledger.list.len() >= MESSAGES
            && let Some(oldest) = ledger.list.pop_front()
        {
            ledger.first += 1;
            ledger.numbers.remove(&oldest.key);
        }
        let key = key(&from.number, id);
        let number = ledger.first + ledger.list.len() as u64;
        ledger.numbers.insert(key, number);
        ledger.list.push_back(Message {
            id: id.into(),
            key,
            from: from.clone(),
            accepted_at: at,
            accepted_ms: unix_now_ms(),
            accepted: 1,
            connection,
            told,
            again: Cause::SentAgain,
            recipients: Vec::new(),
        });
    }

    /// It waits for a device. `None` when it was never accepted: what the devices of an account send each other is
    /// not traced.
    pub(crate) fn queued(&self, sender: &str, id: &str, device: DeviceKey) -> Option<Ticket> {
        let mut ledger = lock(&self.0);
        let (number, message) = ledger.find(sender, id)?;
        let again = message.again;
        if let Some(at) = message.recipients.iter().position(|r| r.device == device) {
            let recipient = &mut message.recipients[at];
            let cause = if std::mem::take(&mut recipient.asked_again) { Cause::Retried } else { again };
            return Some(Ticket { message: number, recipient: u16::try_from(at).ok()?, cause });
        }
        if message.recipients.len() >= RECIPIENTS {
            return None;
        }
        let recipient = u16::try_from(message.recipients.len()).ok()?;
        message.recipients.push(Recipient {
            device,
            queued_ms: unix_now_ms(),
            deliveries: Vec::new(),
            acknowledged: None,
            asked_again: false,
            lost: None,
        });
        Some(Ticket { message: number, recipient, cause: Cause::First })
    }

    /// Whether a message of one of these accounts was for a device; or, for `any`, for any device of its account.
    /// True as well where it cannot be known, because messages were forgotten.
    pub(crate) fn was_for(&self, senders: &[Arc<str>], id: &str, device: &DeviceKey, any: bool) -> bool {
        let mut ledger = lock(&self.0);
        if ledger.first > 0 {
            return true;
        }
        let is = |r: &Recipient| r.device.number == device.number && (any || r.device.device == device.device);
        senders.iter().any(|sender| {
            let found = ledger.find(sender, id);
            found.is_some_and(|(_, m)| m.recipients.len() >= RECIPIENTS || m.recipients.iter().any(is))
        })
    }

    /// It was written to a connection of the device.
    pub(crate) fn delivered(&self, ticket: Ticket, connection: u64, cause: Cause) {
        let mut ledger = lock(&self.0);
        if let Some(recipient) = ledger.recipient(ticket)
            && recipient.deliveries.len() < DELIVERIES
        {
            recipient.deliveries.push(Delivery { at_ms: unix_now_ms(), connection, cause });
        }
    }

    /// A device has it.
    pub(crate) fn acknowledged_over(&self, ticket: Ticket, connection: u64) {
        if let Some(recipient) = lock(&self.0).recipient(ticket) {
            recipient.acknowledged.get_or_insert((unix_now_ms(), connection));
        }
    }

    /// A phone has it.
    pub(crate) fn acknowledged(&self, sender: &str, id: &str, phone: &DeviceKey) {
        let mut ledger = lock(&self.0);
        let recipients = ledger.find(sender, id).map(|(_, message)| &mut message.recipients);
        if let Some(recipient) = recipients.and_then(|r| r.iter_mut().find(|r| r.device == *phone)) {
            recipient.acknowledged.get_or_insert((unix_now_ms(), 0));
        }
    }

    /// Whether a device has it.
    pub(crate) fn is_acknowledged(&self, sender: &str, id: &str, device: &DeviceKey) -> bool {
        let mut ledger = lock(&self.0);
        let recipients = ledger.find(sender, id).map(|(_, message)| &message.recipients);
        recipients.is_some_and(|r| r.iter().any(|r| r.device == *device && r.acknowledged.is_some()))
    }

    /// A device cannot read it and wants it again.
    pub(crate) fn asked_again(&self, sender: &str, id: &str, device: &DeviceKey) {
        let mut ledger = lock(&self.0);
        let recipients = ledger.find(sender, id).map(|(_, message)| &mut message.recipients);
        if let Some(recipient) = recipients.and_then(|r| r.iter_mut().find(|r| r.device == *device)) {
            recipient.asked_again = true;
        }
    }

    /// The device will never get it.
    pub(crate) fn lost(&self, ticket: Ticket, why: Lost) {
        if let Some(recipient) = lock(&self.0).recipient(ticket) {
            recipient.lost.get_or_insert(why);
        }
    }

    /// What became of a message, by its id; of the first, should two accounts have chosen the same.
    pub(crate) fn trace(&self, id: &str) -> Option<Trace> {
        lock(&self.0).list.iter().find(|m| *m.id == *id).map(Message::trace)
    }

    /// What became of a message of an account.
    pub(crate) fn trace_of(&self, sender: &str, id: &str) -> Option<Trace> {
        lock(&self.0).find(sender, id).map(|(_, message)| message.trace())
    }

    /// Messages that some device still has to acknowledge, or that no device was to get; oldest first.
    pub(crate) fn undelivered(&self) -> Vec<Trace> {
        let waits = |r: &Recipient| r.acknowledged.is_none() && r.lost.is_none();
        let open = |m: &&Message| m.recipients.is_empty() || m.recipients.iter().any(waits);
        lock(&self.0).list.iter().filter(open).map(Message::trace).collect()
    }

    /// Messages that some device got more than once for no reason; oldest first.
    pub(crate) fn duplicates(&self) -> Vec<Trace> {
        let twice = |r: &Recipient| r.deliveries.iter().any(|d| d.cause == Cause::Unasked);
        lock(&self.0).list.iter().filter(|m| m.recipients.iter().any(twice)).map(Message::trace).collect()
    }

    /// What a device has acknowledged, in order of acceptance.
    pub(crate) fn acknowledged_by(&self, device: &DeviceKey) -> Vec<Acknowledged> {
        let ledger = lock(&self.0);
        let of = |message: &Message| {
            let recipient = message.recipients.iter().find(|r| r.device == *device)?;
            let (at_ms, connection) = recipient.acknowledged?;
            Some(Acknowledged { id: message.id.to_string(), from: message.from.to_string(), at_ms, connection })
        };
        ledger.list.iter().filter_map(of).collect()
    }
}

impl Message {
    fn trace(&self) -> Trace {
        let device = |r: &Recipient| DeviceTrace {
            queued_ms: r.queued_ms,
            deliveries: r.deliveries.clone(),
            acknowledged_ms: r.acknowledged.map(|(at, _)| at),
            acknowledged_over: r.acknowledged.map(|(_, connection)| connection),
            lost: r.lost,
        };
        Trace {
            id: self.id.to_string(),
            from: self.from.to_string(),
            accepted_at: self.accepted_at,
            accepted_ms: self.accepted_ms,
            accepted: self.accepted,
            connection: self.connection,
            devices: self.recipients.iter().map(|r| (r.device.to_string(), device(r))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: &str, device: u16) -> DeviceKey {
        DeviceKey { number: number.into(), device }
    }

    #[test]
    fn a_message_is_acknowledged_when_every_device_has_it() {
        let ledger = Ledger::default();
        let (sender, other) = (device("1", 2), device("3", 0));
        assert_eq!(ledger.queued("1", "A", other.clone()), None, "never accepted");
        ledger.accepted(&sender, "A", 7);
        ledger.accepted(&sender, "A", 9);
        let tickets = [other.clone(), other.clone(), device("3", 1)].map(|d| ledger.queued("1", "A", d).unwrap());
        ledger.acknowledged("1", "A", &other);
        let trace = ledger.trace("A").unwrap();
        assert_eq!((trace.from.as_str(), trace.accepted_at, trace.devices.len()), ("1:2", 7, 2));
        assert!(trace.is_acknowledged_by("3:0") && !trace.is_acknowledged());
        assert_eq!(ledger.undelivered(), [trace]);
        ledger.acknowledged_over(tickets[2], 5);
        let trace = ledger.trace_of("1", "A").unwrap();
        assert!(trace.is_acknowledged());
        assert_eq!(trace.devices["3:1"].acknowledged_over, Some(5));
        assert_eq!((ledger.trace("B"), ledger.undelivered()), (None, vec![]));
        let acknowledged = ledger.acknowledged_by(&device("3", 1));
        assert_eq!((acknowledged.len(), acknowledged[0].id.as_str()), (1, "A"));
        let was_for = |senders: &[&str], id, to: &DeviceKey, any| {
            let senders: Vec<Arc<str>> = senders.iter().map(|s| Arc::from(*s)).collect();
            ledger.was_for(&senders, id, to, any)
        };
        assert!(was_for(&["9", "1"], "A", &device("3", 1), false));
        assert!(!was_for(&["1"], "A", &device("3", 2), false) && was_for(&["1"], "A", &device("3", 2), true));
        assert!(!was_for(&["1"], "A", &device("4", 0), true), "another account");
        assert!(!was_for(&["1"], "B", &other, true) && !was_for(&["3"], "A", &other, true));
    }

    #[test]
    fn equal_ids_of_two_accounts_are_two_messages() {
        let ledger = Ledger::default();
        for number in ["1", "2"] {
            ledger.accepted(&device(number, 1), "A", 0);
            ledger.queued(number, "A", device("3", 0));
        }
        ledger.acknowledged("2", "A", &device("3", 0));
        assert!(!ledger.trace("A").unwrap().is_acknowledged(), "the first");
        assert!(ledger.trace_of("2", "A").unwrap().is_acknowledged());
    }

    #[test]
    fn a_second_delivery_has_a_cause_or_is_reported() {
        let ledger = Ledger::default();
        let (sender, to) = (device("1", 2), device("3", 1));
        let send = |connection, told| {
            ledger.accepted_over(&sender, "A", 0, connection, told);
            let ticket = ledger.queued("1", "A", to.clone()).unwrap();
            ledger.delivered(ticket, 70, ticket.cause);
            ticket.cause
        };
        assert_eq!(send(1, false), Cause::First);
        assert_eq!(send(1, true), Cause::SentAgain, "the acknowledgement was held back");
        assert_eq!(send(2, true), Cause::SentAgain, "it has connected anew");
        ledger.asked_again("1", "A", &to);
        assert_eq!(send(2, true), Cause::Retried);
        ledger.asked_again("1", "A", &to);
        assert_eq!(send(3, true), Cause::Retried, "it has connected anew, and answers first");
        assert_eq!(send(3, true), Cause::SentAgain, "and then sends what it does not know to be accepted");
        assert_eq!(ledger.duplicates(), []);
        assert_eq!(send(3, true), Cause::Unasked);
        let twice = ledger.duplicates();
        assert_eq!((twice.len(), twice[0].accepted, twice[0].devices["3:1"].deliveries.len()), (1, 7, 7));
    }

    #[test]
    fn what_is_lost_for_ever_is_no_longer_waited_for() {
        let ledger = Ledger::default();
        ledger.accepted(&device("1", 0), "A", 0);
        assert_eq!(ledger.undelivered().len(), 1, "to nobody");
        let ticket = ledger.queued("1", "A", device("3", 1)).unwrap();
        ledger.lost(ticket, Lost::DeviceRemoved);
        assert_eq!(ledger.undelivered(), []);
        assert_eq!(ledger.trace("A").unwrap().devices["3:1"].lost, Some(Lost::DeviceRemoved));
    }

    #[test]
    fn the_oldest_messages_are_forgotten() {
        let ledger = Ledger::default();
        ledger.accepted(&device("1", 0), "first", 0);
        let ticket = ledger.queued("1", "first", device("3", 1)).unwrap();
        for n in 0..MESSAGES {
            ledger.accepted(&device("1", 0), &n.to_string(), 0);
        }
        assert_eq!((ledger.trace("first"), ledger.queued("1", "first", device("3", 2))), (None, None));
        assert!(ledger.was_for(&["1".into()], "first", &device("3", 1), false), "nobody knows");
        ledger.acknowledged_over(ticket, 1);
        assert_eq!(ledger.trace("0").unwrap().devices.len(), 0, "nobody else's entry was touched");
    }
}
