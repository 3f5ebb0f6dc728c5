//! What a history sync waits for: chunks that were announced, and chunks that the phone is asked for again. Pure.
//!
//! A chunk leaves the list when it is stored, and in no other way but being given up: whatever was under way when a
//! client or the process ended is still on it.

use rookery_protocol::MessageId;
use rookery_storage::{HistorySyncRow, WaitingChunk};
use std::{collections::VecDeque, time::Duration};

/// Announced chunks that are remembered, and stored ones.
const MAX_REMEMBERED: usize = 1_000;
/// How long nothing has to happen before the phone is asked for what is missing; six times as long each time.
pub(super) const QUIET: Duration = Duration::from_secs(10);
/// How often it is asked for one chunk.
const ASKS: u32 = 3;

/// How far the history sync of a session has come.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: HistorySyncRow,
    /// What was stored lately: an announcement may come once more.
    stored: VecDeque<MessageId>,
}

/// What to do about chunks that have not come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overdue {
    /// Announcements to ask the phone for again.
    pub(super) ask: Vec<MessageId>,
    /// How many were asked for often enough.
    pub(super) given_up: usize,
}

impl Ledger {
    /// Goes on where an earlier owner has left `state`.
    pub(super) fn new(state: HistorySyncRow) -> Self {
        Self { state, ..Self::default() }
    }

    pub(super) fn state(&self) -> &HistorySyncRow {
        &self.state
    }

    /// Whether a chunk is missing.
    pub(super) fn waits(&self) -> bool {
        !self.state.waiting.is_empty()
    }

    /// The phone has announced a chunk; false when it was known.
    pub(super) fn announced(&mut self, id: MessageId) -> bool {
        let waiting = &mut self.state.waiting;
        if self.stored.contains(&id) || waiting.iter().any(|chunk| chunk.id == id) {
            return false;
        }
        // A chunk that was asked for is announced under another id, which does not say whose place it takes.
        if let Some(owed) = waiting.iter_mut().find(|chunk| chunk.owed) {
            *owed = WaitingChunk { id, asked: owed.asked, owed: false };
        } else if waiting.len() < MAX_REMEMBERED {
            waiting.push(WaitingChunk { id, asked: 0, owed: false });
        }
        true
    }

    /// New messages are stored.
    pub(super) fn imported(&mut self, messages: u64) {
        self.state.messages += messages;
    }

    /// The chunk of this announcement is stored, with which the phone has sent `progress` of 100.
    pub(super) fn stored(&mut self, id: MessageId, progress: Option<u32>) {
        self.state.waiting.retain(|chunk| chunk.id != id);
        if self.stored.len() == MAX_REMEMBERED {
            self.stored.pop_front();
        }
        self.stored.push_back(id);
        self.state.progress = self.state.progress.max(progress.unwrap_or(0)).min(100);
        self.finish();
    }

    /// What to ask for after so long a silence; what was asked for often enough leaves the list.
    pub(super) fn overdue(&mut self, quiet: Duration) -> Overdue {
        let is_due = |chunk: &WaitingChunk| quiet >= QUIET * 6_u32.saturating_pow(chunk.asked.min(ASKS));
        let before = self.state.waiting.len();
        self.state.waiting.retain(|chunk| chunk.asked < ASKS || !is_due(chunk));
        let given_up = before - self.state.waiting.len();
        self.finish();
        let due = self.state.waiting.iter_mut().filter(|chunk| is_due(chunk));
        let ask = due.map(|chunk| {
            (chunk.asked, chunk.owed) = (chunk.asked + 1, true);
            chunk.id.clone()
        });
        Overdue { ask: ask.collect(), given_up }
    }

    fn finish(&mut self) {
        self.state.done |= self.state.progress == 100 && self.state.waiting.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> MessageId {
        name.parse().unwrap()
    }

    fn announced(ledger: &mut Ledger, names: &[&str]) {
        for name in names {
            ledger.announced(id(name));
        }
    }

    fn waiting(ledger: &Ledger) -> Vec<&str> {
        ledger.state.waiting.iter().map(|chunk| chunk.id.as_str()).collect()
    }

    #[test]
    fn it_is_done_when_all_that_was_announced_is_stored() {
        let mut ledger = Ledger::default();
        announced(&mut ledger, &["A", "B"]);
        ledger.stored(id("B"), Some(100));
        assert_eq!((waiting(&ledger), ledger.state.done), (vec!["A"], false));
        ledger.stored(id("A"), None);
        assert_eq!((waiting(&ledger), ledger.state.done), (vec![], true));
    }

    #[test]
    fn an_announcement_counts_once_before_and_after_its_chunk() {
        let mut ledger = Ledger::default();
        assert!(ledger.announced(id("A")));
        assert!(!ledger.announced(id("A")));
        ledger.stored(id("A"), None);
        assert!(!ledger.announced(id("A")));
        assert!(!ledger.waits());
    }

    #[test]
    fn what_an_earlier_owner_left_is_asked_for_whatever_comes_meanwhile() {
        let mut ledger = Ledger::default();
        announced(&mut ledger, &["A", "B", "C"]);
        let mut ledger = Ledger::new(ledger.state);
        // The last was not acknowledged and comes again, and the phone goes on.
        announced(&mut ledger, &["C", "D"]);
        ledger.stored(id("C"), None);
        ledger.stored(id("D"), Some(100));
        assert_eq!((waiting(&ledger), ledger.state.done), (vec!["A", "B"], false));
        assert_eq!(ledger.overdue(QUIET.saturating_sub(Duration::from_secs(1))), Overdue::default());
        assert_eq!(ledger.overdue(QUIET), Overdue { ask: vec![id("A"), id("B")], given_up: 0 });
        announced(&mut ledger, &["A2"]);
        assert_eq!(waiting(&ledger), ["A2", "B"]);
        ledger.stored(id("A2"), None);
        announced(&mut ledger, &["B2", "E"]);
        ledger.stored(id("B2"), None);
        assert_eq!((waiting(&ledger), ledger.state.done), (vec!["E"], false));
        ledger.stored(id("E"), None);
        assert!(ledger.state.done);
    }

    #[test]
    fn what_the_phone_does_not_send_is_given_up_in_the_end() {
        let mut ledger = Ledger::new(HistorySyncRow { progress: 100, ..HistorySyncRow::default() });
        announced(&mut ledger, &["A"]);
        for factor in [1, 6, 36] {
            let asked = ledger.overdue(QUIET * factor).ask;
            assert_eq!(asked.len(), 1);
            assert_eq!(ledger.overdue(QUIET * factor), Overdue::default(), "not so soon");
            // Announced again, but never handed over.
            announced(&mut ledger, &[&format!("A{factor}")]);
        }
        assert_eq!(ledger.overdue(QUIET * 216), Overdue { ask: vec![], given_up: 1 });
        assert!(ledger.state.done);
    }

    #[test]
    fn of_very_many_announcements_so_many_are_remembered() {
        let mut ledger = Ledger::default();
        for n in 0..2 * MAX_REMEMBERED {
            ledger.announced(id(&format!("A{n}")));
            ledger.stored(id(&format!("B{n}")), None);
        }
        assert_eq!((ledger.state.waiting.len(), ledger.stored.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    }
}
