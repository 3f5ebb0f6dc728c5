//! What waits for one device: stanzas that it has not acknowledged, in order.
//!
//! Invariant: the first `in_flight` entries were written to the present connection, the others not. A
//! message, receipt or notification leaves only when the device acknowledges it or the queue overflows,
//! so that a connection that breaks loses nothing. Pure; the account's lock guards it.

use std::collections::VecDeque;

use bytes::Bytes;
use wacore_binary::CompactString;

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
    pub(crate) fn push(&mut self, class: Class, id: &str, stanza: Bytes, limits: (usize, usize)) -> bool {
        if self.entries.len() >= limits.0 || self.bytes + stanza.len() > limits.1 {
            return false;
        }
        self.bytes += stanza.len();
        self.entries.push_back(Entry { class, id: id.into(), stanza });
        true
    }

    /// The next stanza to write; it is in flight from now on.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let entry = self.entries.get(self.in_flight)?;
        let stanza = entry.stanza.clone();
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

    /// Removes an acknowledged stanza. False when none with this id is in flight.
    pub(crate) fn acknowledge(&mut self, class: Class, id: &str) -> bool {
        let position = self.entries.iter().take(self.in_flight).position(|e| e.class == class && e.id == id);
        match position {
            Some(position) => {
                self.remove(position);
                true
            }
            None => false,
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
        let mut queue = Queue::default();
        for (i, id) in ["a", "b", "c"].into_iter().enumerate() {
            assert!(queue.push(Class::Message, id, stanza(i as u8), LIMITS));
        }
        assert!(!queue.push(Class::Message, "d", stanza(9), LIMITS), "full");
        assert_eq!(queue.next(), Some(stanza(0)));
        assert_eq!(queue.next(), Some(stanza(1)));
        assert!(!queue.acknowledge(Class::Message, "c"), "not in flight");
        assert!(!queue.acknowledge(Class::Receipt, "a"), "another class");
        assert!(queue.acknowledge(Class::Message, "b"));
        assert_eq!(queue.next(), Some(stanza(2)));
        assert_eq!(queue.next(), None);
        queue.rewind();
        assert_eq!(queue.next(), Some(stanza(0)));
        assert_eq!(queue.next(), Some(stanza(2)));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn receipts_that_nobody_acknowledges_are_forgotten() {
        let mut queue = Queue::default();
        let limits = (10_000, 1 << 20);
        queue.push(Class::Message, "m", stanza(0), limits);
        for i in 0..UNACKNOWLEDGED_OTHERS + 10 {
            queue.push(Class::Receipt, &i.to_string(), stanza(1), limits);
        }
        while queue.next().is_some() {}
        assert_eq!(queue.counts(), (1, UNACKNOWLEDGED_OTHERS, 0));
        assert!(queue.acknowledge(Class::Message, "m"), "messages stay");
    }
}
