//! The messages of a session, or the entries of a chat, newest first, from window to window.
//!
//! The list of windows names those that have rows, so whoever reads the newest window and then as many others at once
//! as a page has rows has the page: three reads, however far apart the messages are.

use super::{
    operations::Core,
    place,
    range::{FIRST_PAGE, PAGE, Row, after},
    statements::Stored,
};
use crate::{StoreError, tables::Table};
use std::{collections::VecDeque, ops::Bound, sync::Arc};
use tokio::runtime::Handle;

/// Windows that are read at once: as many as a page of the API has rows, and the one that says that there are more.
const AT_ONCE: usize = 51;

/// A range of a session's history.
pub(super) struct Windows {
    core: Arc<Core>,
    session: Vec<u8>,
    /// What the keys of the list of windows begin with, and those within a window: the tag and the chat.
    scope: Vec<u8>,
    /// The inverted sort keys that are wanted, both inclusive.
    lowest: u64,
    highest: u64,
    /// Windows that are known and not read yet, and where the list goes on.
    known: VecDeque<u32>,
    listed_to: Option<u32>,
    /// Windows that are read, newest first.
    read: VecDeque<Window>,
    begun: bool,
}

/// A window of which rows are at hand.
struct Window {
    number: u32,
    rows: VecDeque<Row>,
    /// Where to go on reading; none when these are all.
    next: Option<Vec<u8>>,
}

impl Windows {
    /// The range between two keys; none when the keys are of no session.
    pub(super) fn new(core: &Arc<Core>, table: Table, from: Bound<&[u8]>, until: Bound<&[u8]>) -> Option<Self> {
        let (Bound::Included(first) | Bound::Excluded(first)) = from else { return None };
        let length = match table {
            Table::HistoryByChat => 17 + usize::from(*first.get(16)?),
            _ => 16,
        };
        let scope = first.get(..length)?;
        let number = |key: &[u8]| key.strip_prefix(scope)?.try_into().ok().map(u64::from_be_bytes);
        let lowest = match from {
            Bound::Included(key) => number(key).unwrap_or(0),
            Bound::Excluded(key) => number(key).map_or(Some(0), |number| number.checked_add(1))?,
            Bound::Unbounded => 0,
        };
        let highest = match until {
            Bound::Included(key) => number(key).unwrap_or(u64::MAX),
            Bound::Excluded(key) => number(key).map_or(Some(u64::MAX), |number| number.checked_sub(1))?,
            Bound::Unbounded => u64::MAX,
        };
        Some(Self {
            core: Arc::clone(core),
            session: scope[..16].to_vec(),
            scope: place::windows_of(table, scope),
            lowest,
            highest,
            known: VecDeque::new(),
            listed_to: Some(place::window(lowest)),
            read: VecDeque::new(),
            begun: false,
        })
    }

    /// The next row, with the key that the stores know.
    pub(super) fn next(&mut self) -> Option<Result<Row, StoreError>> {
        loop {
            if let Some(window) = self.read.front_mut() {
                if let Some((key, value)) = window.rows.pop_front() {
                    return Some(Ok(([&self.session, &key[1..]].concat(), value)));
                }
                let Some(from) = window.next.take() else {
                    self.read.pop_front();
                    continue;
                };
                let number = window.number;
                let partition = place::window_partition(&self.session, number);
                let end = self.end();
                let page = self.core.slice(Stored::History, &partition, &from, Some(&end), PAGE);
                match Handle::current().block_on(page) {
                    Ok(rows) => self.read[0] = Window::new(number, rows, PAGE),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            }
            match Handle::current().block_on(self.read_on()) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Reads the next windows; false when there are none.
    async fn read_on(&mut self) -> Result<bool, StoreError> {
        if self.known.is_empty() {
            self.list().await?;
        }
        let count = if self.begun { AT_ONCE } else { 1 };
        self.begun = true;
        let numbers: Vec<u32> = self.known.drain(..count.min(self.known.len())).collect();
        if numbers.is_empty() {
            return Ok(false);
        }
        let (start, end) = ([&self.scope[..], &self.lowest.to_be_bytes()].concat(), self.end());
        if let [number] = numbers[..] {
            let partition = place::window_partition(&self.session, number);
            let rows = self.core.slice(Stored::History, &partition, &start, Some(&end), FIRST_PAGE).await?;
            self.read.push_back(Window::new(number, rows, FIRST_PAGE));
            return Ok(true);
        }
        let partitions = numbers.iter().map(|number| place::window_partition(&self.session, *number)).collect();
        let mut found = self.core.slices(Stored::History, partitions, &start, &end, FIRST_PAGE).await?;
        for number in numbers {
            let rows = found.remove(&place::window_partition(&self.session, number)).unwrap_or_default();
            self.read.push_back(Window::new(number, rows, FIRST_PAGE));
        }
        Ok(true)
    }

    /// Reads more of the list of windows.
    async fn list(&mut self) -> Result<(), StoreError> {
        let Some(from) = self.listed_to.take() else { return Ok(()) };
        let last = place::window(self.highest);
        let start = [&self.scope[..], &from.to_be_bytes()].concat();
        let end = after([&self.scope[..], &last.to_be_bytes()].concat());
        let limit = i32::try_from(AT_ONCE + 1).expect("a small number");
        let rows = self.core.slice(Stored::Windows, &self.session, &start, Some(&end), limit).await?;
        let full = rows.len() > AT_ONCE;
        self.known.extend(rows.iter().filter_map(|(key, _)| key.last_chunk().copied().map(u32::from_be_bytes)));
        if full {
            self.listed_to = self.known.back().and_then(|last| last.checked_add(1));
        }
        Ok(())
    }

    /// The key within a window before which the range ends.
    fn end(&self) -> Vec<u8> {
        after([&self.scope[..], &self.highest.to_be_bytes()].concat())
    }
}

impl Window {
    fn new(number: u32, rows: Vec<Row>, limit: i32) -> Self {
        let full = rows.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        let next = rows.last().filter(|_| full).map(|(key, _)| after(key.clone()));
        Self { number, rows: rows.into(), next }
    }
}
