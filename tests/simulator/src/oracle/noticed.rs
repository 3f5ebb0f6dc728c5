//! What looks wrong and is no proof: it is counted and kept, and a test decides what it thinks of it.
//!
//! A violation is what no correct client ever does. What is noticed here has, once in a while, an innocent cause (a
//! recipient who offers a key anew, a client that leaves the comparison of devices to the server), or is harmless.
//! Invariant: bounded; all is counted, and the first of it is kept. Pure; the oracle's lock guards it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::Serialize;

use super::counters::hash;
use crate::account::DeviceKey;
use crate::stanza::unix_now_ms;

/// Notices that are kept.
const NOTICES: usize = 1_000;
/// Prekeys that are remembered as handed out.
const PREKEYS: usize = 200_000;

/// What a client did that looks wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A session was opened with a prekey that nobody was ever given: neither by the server nor by its owner, who
    /// may offer one with a retry receipt.
    UnknownPrekey,
    /// A one-time prekey opened a second session: it was given to somebody else, or this client kept it.
    PrekeyUsedAgain,
    /// A receipt for a message that was never for this device; for one that says that a person has read it, for this
    /// account.
    UnknownReceipt,
    /// A message to a group without the hash of the devices that its sender knows.
    MissingPhash,
}

impl NoticeKind {
    /// What it is called among the counters.
    pub(crate) fn counter(self) -> &'static str {
        match self {
            Self::UnknownPrekey => "unknown prekey",
            Self::PrekeyUsedAgain => "prekey used again",
            Self::UnknownReceipt => "unknown receipt",
            Self::MissingPhash => "missing phash",
        }
    }
}

/// Something that looks wrong, with the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// What it is.
    pub kind: NoticeKind,
    /// Who, when and what; never what a message says.
    pub evidence: String,
    /// When, milliseconds since the epoch.
    pub at_ms: u64,
}

/// All that was noticed.
#[derive(Default)]
pub(super) struct Notices {
    list: Vec<Notice>,
    counts: BTreeMap<NoticeKind, u64>,
}

impl Notices {
    pub(super) fn add(&mut self, kind: NoticeKind, evidence: String) {
        *self.counts.entry(kind).or_default() += 1;
        if self.list.len() < NOTICES {
            self.list.push(Notice { kind, evidence, at_ms: unix_now_ms() });
        }
    }

    pub(super) fn list(&self) -> Vec<Notice> {
        self.list.clone()
    }

    pub(super) fn counts(&self) -> Vec<(NoticeKind, u64)> {
        self.counts.iter().map(|(kind, count)| (*kind, *count)).collect()
    }
}

/// A prekey of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PrekeyId {
    /// One that opens one session.
    OneTime(u32),
    /// The signed one, which opens as many as are wanted.
    Signed(u32),
}

/// The prekeys that somebody was given, and what was opened with them.
#[derive(Default)]
pub(super) struct Prekeys {
    /// The session's base key by device and prekey, hashed; none while nobody has used it.
    given: HashMap<u64, Option<u64>>,
    order: VecDeque<u64>,
    /// Some were forgotten: nothing is known of those that are not here.
    forgotten: bool,
}

impl Prekeys {
    /// A prekey is given to somebody. One that is given again may open a session again.
    pub(super) fn give(&mut self, device: &DeviceKey, id: PrekeyId) {
        let key = hash(&(device, id));
        if self.given.insert(key, None).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > PREKEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.given.remove(&oldest);
            self.forgotten = true;
        }
    }

    /// A message opens a session, which is known by its base key, or still says how it was opened.
    pub(super) fn open(&mut self, device: &DeviceKey, id: PrekeyId, base: u64) -> Option<NoticeKind> {
        let Some(used) = self.given.get_mut(&hash(&(device, id))) else {
            return (!self.forgotten).then_some(NoticeKind::UnknownPrekey);
        };
        if matches!(id, PrekeyId::Signed(_)) {
            return None;
        }
        (*used.get_or_insert(base) != base).then_some(NoticeKind::PrekeyUsedAgain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: &str) -> DeviceKey {
        DeviceKey { number: number.into(), device: 1 }
    }

    #[test]
    fn a_one_time_prekey_opens_one_session_and_a_signed_one_many() {
        let (mut prekeys, bob) = (Prekeys::default(), device("1"));
        let (once, signed) = (PrekeyId::OneTime(7), PrekeyId::Signed(7));
        assert_eq!(prekeys.open(&bob, once, 1), Some(NoticeKind::UnknownPrekey));
        prekeys.give(&bob, once);
        assert_eq!(prekeys.open(&bob, signed, 1), Some(NoticeKind::UnknownPrekey), "another with the same number");
        prekeys.give(&bob, signed);
        for (id, base, noticed) in [
            (once, 1, None),
            (once, 1, None),
            (once, 2, Some(NoticeKind::PrekeyUsedAgain)),
            (signed, 1, None),
            (signed, 2, None),
        ] {
            assert_eq!(prekeys.open(&bob, id, base), noticed, "{id:?} {base}");
        }
        assert_eq!(prekeys.open(&device("2"), once, 1), Some(NoticeKind::UnknownPrekey), "another device's");
        prekeys.give(&bob, once);
        assert_eq!(prekeys.open(&bob, once, 2), None, "given again");
    }

    #[test]
    fn what_is_forgotten_is_not_held_against_anybody() {
        let (mut prekeys, bob) = (Prekeys::default(), device("1"));
        for id in 0..=u32::try_from(PREKEYS).unwrap() {
            prekeys.give(&bob, PrekeyId::OneTime(id));
        }
        assert_eq!((prekeys.given.len(), prekeys.order.len()), (PREKEYS, PREKEYS));
        assert_eq!(prekeys.open(&bob, PrekeyId::OneTime(0), 1), None);
    }

    #[test]
    fn all_is_counted_and_the_first_is_kept() {
        let mut notices = Notices::default();
        for n in 0..=NOTICES {
            notices.add(NoticeKind::MissingPhash, n.to_string());
        }
        assert_eq!((notices.list().len(), notices.list()[0].evidence.as_str()), (NOTICES, "0"));
        assert_eq!(notices.counts(), [(NoticeKind::MissingPhash, NOTICES as u64 + 1)]);
    }
}
