//! Rows in the order of their keys, a page at a time, from one partition or from many.

use super::{
    operations::Core,
    place::{self, SESSION, SESSION_PARTS},
    statements::Stored,
    windows::Windows,
};
use crate::{StoreError, embedded::database::Pair, tables::Table};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::{Bound, RangeBounds},
    sync::Arc,
};
use tokio::runtime::Handle;

/// Rows of the first page, and of further ones. Most ranges are read to the end of a page of the API, and no further.
pub(super) const FIRST_PAGE: i32 = 64;
pub(super) const PAGE: i32 = 512;

/// A key and its value, as they are stored.
pub(super) type Row = (Vec<u8>, Vec<u8>);

/// The rows between two keys of a table. Each page blocks.
pub(super) enum Range {
    /// In one partition.
    Slice(Slice),
    /// In the parts of the table of all sessions, or of a session's index of words.
    Merge(Vec<(Option<Row>, Slice)>),
    /// In a session's windows.
    Windows(Windows),
    /// In a list that was read as a whole.
    All(VecDeque<Result<Pair, StoreError>>),
}

impl Range {
    pub(super) fn new(core: &Arc<Core>, table: Table, from: Bound<&[u8]>, until: Bound<&[u8]>) -> Self {
        let (Bound::Included(first) | Bound::Excluded(first)) = from else { return Self::All(VecDeque::new()) };
        match table {
            Table::Outbox => Self::All(ring(core, from, until)),
            Table::Control if first.first() == Some(&SESSION) => {
                let parts = (0..SESSION_PARTS).map(|part| vec![SESSION, part]);
                merge(core, Stored::Sessions, parts, &[SESSION], (from, until))
            }
            Table::Words if !within(&first[..16.min(first.len())], until) => {
                let session = &first[..16.min(first.len())];
                let parts = place::word_kinds().map(|kind| [session, &[kind]].concat());
                merge(core, Stored::SessionRows, parts, session, (from, until))
            }
            Table::History | Table::HistoryByChat => match Windows::new(core, table, from, until) {
                Some(windows) => Self::Windows(windows),
                None => Self::All(VecDeque::new()),
            },
            _ => match place::partition(table, first) {
                Some((stored, partition, length)) => {
                    let bounds = Bounds::new(&first[..length], from, until);
                    Self::Slice(Slice::new(core, stored, partition, first[..length].to_vec(), bounds))
                }
                None => Self::All(VecDeque::new()),
            },
        }
    }
}

impl Iterator for Range {
    type Item = Result<Pair, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Slice(slice) => slice.next().map(|row| row.map(pair)),
            Self::Windows(windows) => windows.next().map(|row| row.map(pair)),
            Self::All(rows) => rows.pop_front(),
            Self::Merge(parts) => {
                for (head, slice) in parts.iter_mut() {
                    if head.is_none() {
                        match slice.next() {
                            Some(Ok(row)) => *head = Some(row),
                            Some(Err(error)) => return Some(Err(error)),
                            None => {}
                        }
                    }
                }
                let least = parts.iter_mut().filter(|(head, _)| head.is_some()).min_by(|a, b| a.0.cmp(&b.0))?;
                least.0.take().map(|row| Ok(pair(row)))
            }
        }
    }
}

fn pair((key, value): Row) -> Pair {
    (key.into(), value.into())
}

/// From a key on, and up to another one, of what is stored of keys in a partition.
#[derive(Clone)]
struct Bounds {
    from: Vec<u8>,
    until: Option<Vec<u8>>,
}

impl Bounds {
    /// The bounds of whole keys that begin with `prefix`.
    fn new(prefix: &[u8], from: Bound<&[u8]>, until: Bound<&[u8]>) -> Self {
        let rest = |key: &[u8]| key.get(prefix.len()..).unwrap_or_default().to_vec();
        let from = match from {
            Bound::Included(key) => rest(key),
            Bound::Excluded(key) => after(rest(key)),
            Bound::Unbounded => Vec::new(),
        };
        let until = match until {
            Bound::Included(key) if key.starts_with(prefix) => Some(after(rest(key))),
            Bound::Excluded(key) if key.starts_with(prefix) => Some(rest(key)),
            // Past everything in the partition.
            _ => None,
        };
        Self { from, until }
    }
}

/// Whether the end of a range is among the keys that begin with `prefix`.
fn within(prefix: &[u8], until: Bound<&[u8]>) -> bool {
    matches!(until, Bound::Included(key) | Bound::Excluded(key) if key.starts_with(prefix))
}

/// The next key there can be.
pub(super) fn after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// A range in one partition.
pub(super) struct Slice {
    core: Arc<Core>,
    stored: Stored,
    partition: Vec<u8>,
    /// What keys have before what is stored of them.
    prefix: Vec<u8>,
    bounds: Bounds,
    rows: VecDeque<Row>,
    limit: i32,
    ended: bool,
}

impl Slice {
    fn new(core: &Arc<Core>, stored: Stored, partition: Vec<u8>, prefix: Vec<u8>, bounds: Bounds) -> Self {
        let core = Arc::clone(core);
        Self { core, stored, partition, prefix, bounds, rows: VecDeque::new(), limit: FIRST_PAGE, ended: false }
    }

    fn next(&mut self) -> Option<Result<Row, StoreError>> {
        if self.rows.is_empty() && !self.ended {
            let Bounds { from, until } = &self.bounds;
            let page = self.core.slice(self.stored, &self.partition, from, until.as_deref(), self.limit);
            match Handle::current().block_on(page) {
                Ok(rows) => self.take(rows),
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        self.rows.pop_front().map(|(key, value)| Ok(([self.prefix.as_slice(), &key].concat(), value)))
    }

    fn take(&mut self, rows: Vec<Row>) {
        self.ended = rows.len() < usize::try_from(self.limit).unwrap_or(usize::MAX);
        self.limit = PAGE;
        if let Some((last, _)) = rows.last() {
            self.bounds.from = after(last.clone());
        }
        self.rows.extend(rows);
    }
}

/// The rows of several partitions in the order of their keys; the first pages of all are read side by side.
fn merge(
    core: &Arc<Core>,
    stored: Stored,
    partitions: impl Iterator<Item = Vec<u8>>,
    prefix: &[u8],
    (from, until): (Bound<&[u8]>, Bound<&[u8]>),
) -> Range {
    let bounds = Bounds::new(prefix, from, until);
    let mut slices: Vec<_> =
        partitions.map(|partition| Slice::new(core, stored, partition, prefix.to_vec(), bounds.clone())).collect();
    let pages = futures_util::future::join_all(slices.iter().map(|slice| {
        core.slice(slice.stored, &slice.partition, &slice.bounds.from, slice.bounds.until.as_deref(), slice.limit)
    }));
    let pages = Handle::current().block_on(pages);
    for (slice, page) in slices.iter_mut().zip(pages) {
        // A page that failed is read again in its turn, and fails there.
        if let Ok(rows) = page {
            slice.take(rows);
        }
    }
    Range::Merge(slices.into_iter().map(|slice| (None, slice)).collect())
}

/// A session's whole outbox in the order of acceptance.
fn ring(core: &Arc<Core>, from: Bound<&[u8]>, until: Bound<&[u8]>) -> VecDeque<Result<Pair, StoreError>> {
    let (Bound::Included(first) | Bound::Excluded(first)) = from else { return VecDeque::new() };
    let Some(session) = first.get(..16) else { return VecDeque::new() };
    let all = Bounds { from: Vec::new(), until: None };
    let mut slice = Slice::new(core, Stored::Outbox, session.to_vec(), Vec::new(), all);
    slice.limit = PAGE;
    let mut rows = BTreeMap::new();
    while let Some(row) = slice.next() {
        let (_, value) = match row {
            Ok(row) => row,
            // An outbox that cannot be read must not look like an empty one.
            Err(error) => return VecDeque::from([Err(error)]),
        };
        let Some((seq, stored)) = value.split_first_chunk::<8>() else { continue };
        if !stored.is_empty() {
            rows.insert([session, seq].concat(), stored.to_vec());
        }
    }
    rows.into_iter()
        .filter(|(key, _)| RangeBounds::<[u8]>::contains(&(from, until), key.as_slice()))
        .map(|row| Ok(pair(row)))
        .collect()
}
