//! Building the index: a step takes the messages that are not in it yet, oldest first, and makes a segment of them.
//!
//! The postings are written first and the state last, so that a step that was cut short is done again; what it has
//! written already is overwritten or does no harm. Late messages get segments of their own, once there are enough.

use super::{IndexState, Posting, query::texts, words::tokens};
use crate::{Fence, HistoryRow, StoreError, Stores};
use rookery_protocol::{Jid, Timestamp, api::MessageType};
use std::collections::HashMap;

/// Fewest messages that make a segment.
pub const SEGMENT_MIN: usize = 1_024;
/// Most messages of a segment.
const SEGMENT_MAX: usize = 4_096;
/// A segment ends when it has so many words of messages.
const SEGMENT_WORDS: usize = 200_000;
/// Fewest late messages that make a segment.
const LATE_MIN: usize = 512;
/// Messages that are read at a time.
const READ_STEP: usize = 512;
/// Postings that are written at a time: a write must not keep those of sends waiting.
const WRITE_STEP: usize = 256;
/// Younger messages are left alone, in seconds: others of the same second may still come.
const SETTLED_SECS: i64 = 5;

/// What a step of the index has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many messages are in the index that were not; there may be more.
    Indexed(usize),
    /// There is not enough to be worth it.
    Idle,
}

/// One step: builds a segment at `now` if there is enough for one. By the session's owner alone, and never two at a time.
pub async fn index(stores: &Stores, fence: &Fence, now: Timestamp) -> Result<Progress, StoreError> {
    let state = stores.words.state(fence.session()).await?;
    let waiting = waiting(stores, fence, &state).await?;
    if waiting >= LATE_MIN {
        return fold_late(stores, fence, state).await;
    }
    let settled = u64::try_from(now.as_secs() - SETTLED_SECS).unwrap_or(0) << 20;
    let mut tail = Tail { stores, fence, settled, through: state.through, ended: false };
    // Whether there are enough is seen before any work is done.
    let mut rows = tail.read().await?;
    while rows.len() < SEGMENT_MIN && !tail.ended {
        rows.extend(tail.read().await?);
    }
    if rows.len() < SEGMENT_MIN {
        return Ok(Progress::Idle);
    }
    let mut segment = Segment::default();
    loop {
        for row in &rows {
            segment.add(row);
        }
        if tail.ended || !segment.has_room() {
            break;
        }
        rows = tail.read().await?;
    }
    let through = tail.through;
    let messages = segment.messages;
    segment.write(stores, fence, state.segments).await?;
    let next = IndexState { through, segments: state.segments + 1, ..state };
    stores.words.advance(fence, next).await?;
    Ok(Progress::Indexed(messages))
}

/// Messages that are not in the index, oldest first.
struct Tail<'a> {
    stores: &'a Stores,
    fence: &'a Fence,
    /// Only those below this sort key.
    settled: u64,
    /// How far it was read.
    through: u64,
    ended: bool,
}

impl Tail<'_> {
    async fn read(&mut self) -> Result<Vec<HistoryRow>, StoreError> {
        let mut rows = self.stores.history.oldest_after(self.fence.session(), self.through, READ_STEP).await?;
        rows.retain(|row| row.sort_key < self.settled);
        self.ended = rows.len() < READ_STEP;
        self.through = rows.last().map_or(self.through, |row| row.sort_key);
        Ok(rows)
    }
}

/// How many late messages there are, as far as it matters.
async fn waiting(stores: &Stores, fence: &Fence, state: &IndexState) -> Result<usize, StoreError> {
    let mut found = 0;
    for generation in state.first_late..=state.late {
        found += stores.words.late(fence.session(), generation, u64::MAX, LATE_MIN).await?.len();
    }
    // A fold that was cut short is finished however few there are.
    Ok(if state.first_late < state.late && found > 0 { found.max(LATE_MIN) } else { found })
}

/// Makes segments of the late messages. New ones go to another generation meanwhile, and a generation that is folded
/// stays until the next fold: a search that began before may still need it.
async fn fold_late(stores: &Stores, fence: &Fence, state: IndexState) -> Result<Progress, StoreError> {
    let session = fence.session();
    if let Some(folded) = state.first_late.checked_sub(1) {
        stores.words.forget_late(fence, folded).await?;
    }
    let mut state = state;
    if state.first_late == state.late {
        state.late += 1;
        stores.words.advance(fence, state).await?;
    }
    let mut messages = 0;
    for generation in state.first_late..state.late {
        let mut below = u64::MAX;
        loop {
            let mut segment = Segment::default();
            let mut keys = Vec::new();
            while segment.has_room() {
                keys = stores.words.late(session, generation, below, READ_STEP).await?;
                below = keys.last().copied().unwrap_or(0);
                for row in stores.history.at(session, keys.clone()).await?.iter().rev() {
                    segment.add(row);
                }
                if keys.len() < READ_STEP {
                    break;
                }
            }
            messages += segment.messages;
            if segment.messages > 0 {
                segment.write(stores, fence, state.segments).await?;
                state.segments += 1;
                stores.words.advance(fence, state).await?;
            }
            if keys.len() < READ_STEP {
                break;
            }
        }
    }
    stores.words.advance(fence, IndexState { first_late: state.late, ..state }).await?;
    Ok(Progress::Indexed(messages))
}

/// Postings that are being gathered.
#[derive(Default)]
struct Segment {
    keys: HashMap<String, Vec<u64>>,
    messages: usize,
    words: usize,
}

impl Segment {
    fn has_room(&self) -> bool {
        self.messages < SEGMENT_MAX && self.words < SEGMENT_WORDS
    }

    fn add(&mut self, row: &HistoryRow) {
        self.messages += 1;
        self.note(&chat_word(&row.chat), row.sort_key);
        if row.kind != MessageType::Text {
            self.note(&kind_word(row.kind), row.sort_key);
        }
        for token in texts(row).flat_map(tokens) {
            token.index(|word| self.note(word, row.sort_key));
        }
    }

    fn note(&mut self, word: &str, key: u64) {
        self.words += 1;
        match self.keys.get_mut(word) {
            Some(keys) => {
                // A message has a word once, however often it is in it.
                if keys.last() != Some(&key) {
                    keys.push(key);
                }
            }
            None => drop(self.keys.insert(word.to_owned(), vec![key])),
        }
    }

    async fn write(self, stores: &Stores, fence: &Fence, number: u32) -> Result<(), StoreError> {
        let mut step = Vec::with_capacity(WRITE_STEP);
        for (word, mut keys) in self.keys {
            keys.sort_unstable();
            step.extend(Posting::new(word, number, &keys));
            if step.len() == WRITE_STEP {
                stores.words.put(fence, std::mem::take(&mut step)).await?;
            }
        }
        stores.words.put(fence, step).await
    }
}

/// What stands in the index for a chat. No word begins so.
pub(super) fn chat_word(chat: &Jid) -> String {
    format!("\u{1}{chat}")
}

/// What stands in the index for a kind of message.
pub(super) fn kind_word(kind: MessageType) -> String {
    format!("\u{2}{}", kind.as_str())
}
