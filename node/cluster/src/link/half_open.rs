//! Which handshakes may be under way: a bounded table in which the oldest makes room for the newest.
//!
//! A peer's handshake takes milliseconds and a hostile one all the time it is given, so the oldest is hardly ever a
//! peer's. Pure; knows no socket.

use std::{collections::VecDeque, net::IpAddr};

/// The handshakes under way, oldest first, each with what ends it.
pub(super) struct HalfOpen<T> {
    total: usize,
    per_source: usize,
    next: u64,
    entries: VecDeque<(u64, Source, T)>,
}

impl<T> HalfOpen<T> {
    pub(super) fn new(total: usize, per_source: usize) -> Self {
        Self { total, per_source, next: 0, entries: VecDeque::new() }
    }

    /// Takes one in; answers its number and whoever has to make room.
    pub(super) fn admit(&mut self, address: IpAddr, end: T) -> (u64, Option<T>) {
        let source = Source::of(address);
        let of_source = |entry: &&(u64, Source, T)| entry.1 == source;
        let leaves = if self.entries.iter().filter(of_source).count() >= self.per_source {
            self.entries.iter().position(|entry| entry.1 == source)
        } else if self.entries.len() >= self.total {
            Some(0)
        } else {
            None
        };
        let left = leaves.and_then(|at| self.entries.remove(at)).map(|(_, _, end)| end);
        let number = self.next;
        self.next += 1;
        self.entries.push_back((number, source, end));
        (number, left)
    }

    /// Forgets one that has ended by itself.
    pub(super) fn release(&mut self, number: u64) {
        // Numbers only grow, so the entries are in their order.
        if let Ok(at) = self.entries.binary_search_by_key(&number, |entry| entry.0) {
            self.entries.remove(at);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// What counts as one source: an IPv4 address, or the IPv6 network that one host is given.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.into()),
            IpAddr::V6(v6) => Self(std::net::Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_oldest_of_an_address_makes_room_and_others_stay() {
        let mut table = HalfOpen::new(10, 2);
        assert_eq!(table.admit(ip("10.0.0.1"), 'a').1, None);
        assert_eq!(table.admit(ip("10.0.0.2"), 'b').1, None);
        assert_eq!(table.admit(ip("10.0.0.1"), 'c').1, None);
        assert_eq!(table.admit(ip("10.0.0.1"), 'd').1, Some('a'));
        assert_eq!(table.admit(ip("::ffff:10.0.0.1"), 'e').1, Some('c'));
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn the_oldest_of_all_makes_room_when_there_are_many_addresses() {
        let mut table = HalfOpen::new(3, 2);
        for (address, end) in [("10.0.0.1", 'a'), ("10.0.0.2", 'b'), ("10.0.0.3", 'c')] {
            assert_eq!(table.admit(ip(address), end).1, None);
        }
        assert_eq!(table.admit(ip("10.0.0.4"), 'd').1, Some('a'));
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let mut table = HalfOpen::new(10, 1);
        table.admit(ip("2001:db8::1"), 'a');
        assert_eq!(table.admit(ip("2001:db8::ffff:2"), 'b').1, Some('a'));
        assert_eq!(table.admit(ip("2001:db8:0:1::1"), 'c').1, None);
    }

    #[test]
    fn what_ended_leaves_room() {
        let mut table = HalfOpen::new(10, 1);
        let (number, _) = table.admit(ip("10.0.0.1"), 'a');
        table.release(number);
        table.release(number);
        assert_eq!(table.admit(ip("10.0.0.1"), 'b').1, None);
        assert_eq!(table.len(), 1);
    }
}
