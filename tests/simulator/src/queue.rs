//! What waits for one device: stanzas that it has not acknowledged, in order.
//!
//! Invariant: the first `in_flight` entries were written to the present connection, the others not. A
//! message, receipt or notification leaves only when the device acknowledges it or the queue overflows,
//! so that a connection that breaks loses nothing. Pure; the account's lock guards it.

use std::collections::VecDeque;

use bytes::Bytes;
use wacore_binary::CompactString;

use crate::ledger::{Cause, Ledger, Lost, Ticket};

/// Receipts and notifications that may stay unacknowledged: some clients acknowledge not all of them.
const UNACKNOWLEDGED_OTHERS: usize = 1_000;

/// What kind of stanza an entry is: the `class` of its acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// `<message>`
    Message,
    /// `<receipt>`
    Receipt,
    /// `<notification>`
    Notification,
}

#[derive(Debug)]
struct Entry {
    class: Class,
    id: CompactString,
    stanza: Bytes,
    /// For a message that is traced.
    ticket: Option<Ticket>,
    /// The connection that it was written to last.
    written_to: Option<u64>,
}

/// A device's queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    in_flight: usize,
    others_in_flight: usize,
    bytes: usize,
}

impl Queue {
    /// Adds a stanza. False when the queue is full: the stanza is lost.
    pub(crate) fn push(
        &mut self,
        class: Class,
        id: &str,
        stanza: Bytes,
        ticket: Option<Ticket>,
        limits: (usize, usize),
    ) -> bool {
        if self.entries.len() >= limits.0 || self.bytes + stanza.len() > limits.1 {
            return false;
        }
        self.bytes += stanza.len();
        self.entries.push_back(Entry { class, id: id.into(), stanza, ticket, written_to: None });
        true
    }

    /// The next stanza to write to a connection; it is in flight from now on.
    pub(crate) fn next(&mut self, connection: u64, ledger: &Ledger) -> Option<Bytes> {
        let entry = self.entries.get_mut(self.in_flight)?;
        let stanza = entry.stanza.clone();
        let former = entry.written_to.replace(connection);
        if let Some(ticket) = entry.ticket {
            let cause = match former {
                None => ticket.cause,
                Some(former) if former == connection => Cause::Redelivered,
                Some(_) => Cause::Reconnected,
            };
            ledger.delivered(ticket, connection, cause);
        }
        let other = entry.class != Class::Message;
        self.in_flight += 1;
        if other {
            self.others_in_flight += 1;
            if self.others_in_flight > UNACKNOWLEDGED_OTHERS {
                self.forget_oldest_other();
            }
        }
        Some(stanza)
    }

    /// Removes a stanza that was acknowledged over a connection. False when none with this id is in flight.
    pub(crate) fn acknowledge(&mut self, class: Class, id: &str, connection: u64, ledger: &Ledger) -> bool {
        let position = self.entries.iter().take(self.in_flight).position(|e| e.class == class && e.id == id);
        let Some(position) = position else {
            return false;
        };
        if let Some(ticket) = self.entries[position].ticket {
            ledger.acknowledged_over(ticket, connection);
        }
        self.remove(position);
        true
    }

    /// The device is gone: nothing of this will ever be delivered.
    pub(crate) fn abandon(&self, ledger: &Ledger) {
        for ticket in self.entries.iter().filter_map(|e| e.ticket) {
            ledger.lost(ticket, Lost::DeviceRemoved);
        }
    }

    /// The connection is gone, or everything is to be sent again: nothing is in flight.
    pub(crate) fn rewind(&mut self) {
        self.in_flight = 0;
        self.others_in_flight = 0;
    }

    /// Stanzas that wait or are in flight.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many of each class wait: messages, receipts, notifications.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let of = |class| self.entries.iter().filter(|e| e.class == class).count();
        (of(Class::Message), of(Class::Receipt), of(Class::Notification))
    }

    fn forget_oldest_other(&mut self) {
        let oldest = self.entries.iter().position(|e| e.class != Class::Message);
        if let Some(position) = oldest {
            self.remove(position);
        }
    }

    fn remove(&mut self, position: usize) {
        let Some(entry) = self.entries.remove(position) else {
            return;
        };
        self.bytes -= entry.stanza.len();
        if position < self.in_flight {
            self.in_flight -= 1;
            if entry.class != Class::Message {
                self.others_in_flight -= 1;
            }
        }
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: (usize, usize) = (3, 100);

    fn stanza(byte: u8) -> Bytes {
        Bytes::from(vec![byte; 10])
    }

    #[test]
    fn unacknowledged_stanzas_come_again_in_order() {
        let (mut queue, ledger) = (Queue::default(), Ledger::default());
        for (i, id) in ["a", "b", "c"].into_iter().enumerate() {
            assert!(queue.push(Class::Message, id, stanza(i as u8), None, LIMITS));
        }
        assert!(!queue.push(Class::Message, "d", stanza(9), None, LIMITS), "full");
        assert_eq!(queue.next(1, &ledger), Some(stanza(0)));
        assert_eq!(queue.next(1, &ledger), Some(stanza(1)));
        assert!(!queue.acknowledge(Class::Message, "c", 1, &ledger), "not in flight");
        assert!(!queue.acknowledge(Class::Receipt, "a", 1, &ledger), "another class");
        assert!(queue.acknowledge(Class::Message, "b", 1, &ledger));
        assert_eq!(queue.next(1, &ledger), Some(stanza(2)));
        assert_eq!(queue.next(1, &ledger), None);
        queue.rewind();
        assert_eq!(queue.next(1, &ledger), Some(stanza(0)));
        assert_eq!(queue.next(1, &ledger), Some(stanza(2)));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn receipts_that_nobody_acknowledges_are_forgotten() {
        let (mut queue, ledger) = (Queue::default(), Ledger::default());
        let limits = (10_000, 1 << 20);
        queue.push(Class::Message, "m", stanza(0), None, limits);
        for i in 0..UNACKNOWLEDGED_OTHERS + 10 {
            queue.push(Class::Receipt, &i.to_string(), stanza(1), None, limits);
        }
        while queue.next(1, &ledger).is_some() {}
        assert_eq!(queue.counts(), (1, UNACKNOWLEDGED_OTHERS, 0));
        assert!(queue.acknowledge(Class::Message, "m", 1, &ledger), "messages stay");
    }

    #[test]
    fn each_delivery_has_its_cause() {
        let (mut queue, ledger) = (Queue::default(), Ledger::default());
        let device = |number: &str| crate::account::DeviceKey { number: number.into(), device: 1 };
        ledger.accepted(&device("1"), "m", 0);
        let ticket = ledger.queued("1", "m", device("2"));
        queue.push(Class::Message, "m", stanza(0), ticket, LIMITS);
        for connection in [7, 7, 8] {
            assert!(queue.next(connection, &ledger).is_some());
            queue.rewind();
        }
        assert!(queue.next(8, &ledger).is_some());
        assert!(queue.acknowledge(Class::Message, "m", 8, &ledger));
        let trace = ledger.trace("m").unwrap();
        let to = &trace.devices["2:1"];
        let causes: Vec<_> = to.deliveries.iter().map(|d| (d.connection, d.cause)).collect();
        let expected = [(7, Cause::First), (7, Cause::Redelivered), (8, Cause::Reconnected), (8, Cause::Redelivered)];
        assert_eq!((causes.as_slice(), to.acknowledged_over), (&expected[..], Some(8)));
    }

    #[test]
    fn what_waits_for_a_removed_device_is_lost() {
        let (mut queue, ledger) = (Queue::default(), Ledger::default());
        let device = |number: &str| crate::account::DeviceKey { number: number.into(), device: 1 };
        ledger.accepted(&device("1"), "m", 0);
        queue.push(Class::Message, "m", stanza(0), ledger.queued("1", "m", device("2")), LIMITS);
        queue.abandon(&ledger);
        assert_eq!(ledger.trace("m").unwrap().devices["2:1"].lost, Some(Lost::DeviceRemoved));
    }
}
