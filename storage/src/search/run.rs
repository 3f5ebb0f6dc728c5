//! A page of a search: candidates from what is not indexed yet, from the index and from the list of late messages, newest
//! first, each compared with what is sought.
//!
//! The invariant: a page has looked at everything between its beginning and its `next`. It looks at a bounded number of
//! rows, so it may be short or empty and still have a next one.

use super::{
    IndexState, Posting, Query,
    build::{SEGMENT_MIN, chat_word, kind_word},
};
use crate::{HistoryQuery, HistoryRow, Page, StoreError, Stores};
use rookery_protocol::{SessionId, api::MessageType};
use std::collections::VecDeque;

/// Most messages that one page compares.
const LOOK_LIMIT: usize = 4_000;
/// Messages that are read at a time where each may match.
const SCAN_STEP: usize = 500;
/// An index that leaves so many messages to look through is behind.
const BEHIND: usize = 2 * SEGMENT_MIN + SCAN_STEP;
/// Candidates that are read at a time.
const CANDIDATES: usize = 64;
/// Postings of a word that are read at a time.
const POSTINGS: usize = 32;
/// Most sort keys that one page compares with each other.
const STEP_LIMIT: usize = 500_000;
/// Longer words with one beginning that are followed one by one.
const FOLLOWED: usize = 32;
/// Most postings of words with one beginning that are read at once. A beginning of more is no help: it is left to the
/// comparison, and what begins so many words is found soon.
const GATHERED: usize = 2_048;

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The messages.
    pub page: Page<HistoryRow, u64>,
    /// The index is far behind.
    pub behind: bool,
}

/// The newest messages of a session that have the words of `query` and pass `filter`.
pub async fn search(
    stores: &Stores,
    session: SessionId,
    query: &Query,
    filter: &HistoryQuery,
) -> Result<Found, StoreError> {
    let mut page = Page { rows: Vec::new(), next: None };
    let Some((oldest, newest)) = filter.span() else { return Ok(Found { page, behind: false }) };
    // First of all: what the index takes in from now on is looked through as it is.
    let state = stores.words.state(session).await?;
    let mut search = Search { stores, session, query, filter, oldest, looked: 0, steps: 0 };
    let below = newest.min(state.through).saturating_add(1);
    let mut more = true;
    if newest > state.through {
        let above = HistoryQuery { after: filter.after.max(Some(state.through)), ..filter.clone() };
        more = search.scan(above, &mut page).await?;
    }
    let behind = search.looked > BEHIND;
    if more {
        if let Some(sources) = search.sources(&state, below).await? {
            search.follow(sources, below, &mut page).await?;
        } else {
            search.scan(HistoryQuery { before: Some(below), ..filter.clone() }, &mut page).await?;
        }
    }
    Ok(Found { page, behind })
}

struct Search<'a> {
    stores: &'a Stores,
    session: SessionId,
    query: &'a Query,
    filter: &'a HistoryQuery,
    oldest: u64,
    looked: usize,
    /// Sort keys that were compared with each other.
    steps: usize,
}

impl Search<'_> {
    /// Looks at every message that `ask` lets through; false when the page ends before.
    async fn scan(&mut self, mut ask: HistoryQuery, page: &mut Page<HistoryRow, u64>) -> Result<bool, StoreError> {
        ask.limit = SCAN_STEP;
        loop {
            let found = self.stores.history.list(self.session, &ask).await?;
            self.looked += SCAN_STEP;
            for row in found.rows {
                let place = row.sort_key;
                if self.query.matches(&row) {
                    page.rows.push(row);
                    if page.rows.len() >= self.filter.limit.max(1) {
                        page.next = Some(place);
                        return Ok(false);
                    }
                }
            }
            ask.before = found.next;
            if found.next.is_none() {
                return Ok(true);
            }
            if self.looked >= LOOK_LIMIT {
                page.next = found.next;
                return Ok(false);
            }
        }
    }

    /// Where candidates come from; none when the index is no help.
    async fn sources(&mut self, state: &IndexState, below: u64) -> Result<Option<Sources>, StoreError> {
        let mut words: Vec<Vec<Follower>> = Vec::new();
        for word in self.query.exact() {
            words.push(vec![Follower::new(word.to_owned())]);
        }
        if let Some(chat) = &self.filter.chat {
            words.push(vec![Follower::new(chat_word(chat))]);
        }
        if let Some(kind) = self.filter.kind.filter(|kind| *kind != MessageType::Text) {
            words.push(vec![Follower::new(kind_word(kind))]);
        }
        let mut helpful = !self.query.exact().is_empty();
        for beginning in self.query.beginnings() {
            if let Some(followers) = self.begun(beginning, below).await? {
                words.push(followers);
                helpful = true;
            }
        }
        if !helpful && state.through > 0 {
            return Ok(None);
        }
        let late = (state.first_late..=state.late).map(Late::new).collect();
        Ok(Some(Sources { words, late }))
    }

    /// The words of the index with this beginning; none when there are too many.
    async fn begun(&mut self, beginning: &str, below: u64) -> Result<Option<Vec<Follower>>, StoreError> {
        let words = self.stores.words.words(self.session, beginning, FOLLOWED + 1).await?;
        if words.len() <= FOLLOWED {
            return Ok(Some(words.into_iter().map(Follower::new).collect()));
        }
        let postings = self.stores.words.postings_of_prefix(self.session, beginning, GATHERED + 1).await?;
        if postings.len() > GATHERED {
            return Ok(None);
        }
        let mut keys = Vec::new();
        for posting in &postings {
            posting.read(below, &mut keys)?;
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(Some(vec![Follower { open: keys, ended: true, ..Follower::new(String::new()) }]))
    }

    /// Looks at the candidates below `below`, newest first.
    async fn follow(
        &mut self,
        mut sources: Sources,
        mut below: u64,
        page: &mut Page<HistoryRow, u64>,
    ) -> Result<(), StoreError> {
        loop {
            let mut keys = Vec::with_capacity(CANDIDATES);
            while keys.len() < CANDIDATES && self.steps < STEP_LIMIT {
                match sources.next(self, &mut below).await? {
                    Some(key) if key >= self.oldest => keys.push(key),
                    _ => break,
                }
            }
            let more = keys.len() == CANDIDATES;
            self.looked += keys.len();
            for row in self.stores.history.at(self.session, keys).await? {
                if self.filter.matches(&row) && self.query.matches(&row) {
                    let place = row.sort_key;
                    page.rows.push(row);
                    if page.rows.len() >= self.filter.limit.max(1) {
                        page.next = Some(place);
                        return Ok(());
                    }
                }
            }
            if self.steps >= STEP_LIMIT || more && self.looked >= LOOK_LIMIT {
                page.next = Some(below).filter(|below| *below > self.oldest);
                return Ok(());
            }
            if !more {
                return Ok(());
            }
        }
    }
}

/// Where candidates come from.
struct Sources {
    /// A candidate of the index has one word of each group.
    words: Vec<Vec<Follower>>,
    late: Vec<Late>,
}

impl Sources {
    /// The newest candidate below `below`, which is moved to it. Where reading has come to its limit, `below` says how
    /// far it has come.
    async fn next(&mut self, search: &mut Search<'_>, below: &mut u64) -> Result<Option<u64>, StoreError> {
        let mut late = None;
        for generation in &mut self.late {
            late = late.max(generation.newest(search, *below).await?);
        }
        let mut limit = *below;
        let indexed = self.common(search, &mut limit).await?;
        let found = if search.steps < STEP_LIMIT { late.max(indexed) } else { late.filter(|late| *late >= limit) };
        *below = found.unwrap_or(limit);
        Ok(found)
    }

    /// The newest sort key below `limit` that every group has. Where the comparing has come to its limit, that says how
    /// far it has come.
    async fn common(&mut self, search: &mut Search<'_>, limit: &mut u64) -> Result<Option<u64>, StoreError> {
        'again: loop {
            search.steps += 1;
            if search.steps >= STEP_LIMIT {
                return Ok(None);
            }
            let mut candidate = None;
            for group in &mut self.words {
                let mut newest = None;
                for word in group.iter_mut() {
                    newest = newest.max(word.newest(search, *limit).await?);
                }
                let Some(newest) = newest else { return Ok(None) };
                match candidate {
                    Some(before) if before == newest => {}
                    None => {
                        candidate = Some(newest);
                        *limit = newest + 1;
                    }
                    Some(_) => {
                        *limit = newest + 1;
                        continue 'again;
                    }
                }
            }
            return Ok(candidate);
        }
    }
}

/// The sort keys of one word, newest first. They are asked for with limits that only fall.
struct Follower {
    word: String,
    /// Postings that were read from the store and not opened yet.
    read: VecDeque<Posting>,
    after: Option<(u64, u32)>,
    ended: bool,
    /// Sort keys, the newest last.
    open: Vec<u64>,
}

impl Follower {
    fn new(word: String) -> Self {
        Self { word, read: VecDeque::new(), after: None, ended: false, open: Vec::new() }
    }

    /// The newest sort key below `below`.
    async fn newest(&mut self, search: &Search<'_>, below: u64) -> Result<Option<u64>, StoreError> {
        self.open.truncate(self.open.partition_point(|key| *key < below));
        loop {
            let newest = self.open.last().copied();
            if self.read.is_empty() && !self.ended {
                let words = &search.stores.words;
                let postings = words.postings(search.session, &self.word, self.after, POSTINGS).await?;
                self.ended = postings.len() < POSTINGS;
                self.after = postings.last().map(Posting::place);
                self.read = postings.into();
            }
            // Segments overlap where messages came late, so that what is open may not have the newest.
            match self.read.front() {
                Some(posting) if newest.is_none_or(|newest| posting.newest > newest) => {
                    let before = self.open.len();
                    let mut keys = Vec::new();
                    posting.read(below, &mut keys)?;
                    self.open.extend(keys.into_iter().rev());
                    if before > 0 {
                        self.open.sort_unstable();
                        self.open.dedup();
                    }
                    self.read.pop_front();
                }
                _ => return Ok(newest),
            }
        }
    }
}

/// A generation of late messages.
struct Late {
    generation: u32,
    /// Sort keys, the newest last.
    open: Vec<u64>,
    ended: bool,
}

impl Late {
    fn new(generation: u32) -> Self {
        Self { generation, open: Vec::new(), ended: false }
    }

    async fn newest(&mut self, search: &Search<'_>, below: u64) -> Result<Option<u64>, StoreError> {
        self.open.truncate(self.open.partition_point(|key| *key < below));
        if self.open.is_empty() && !self.ended {
            let words = &search.stores.words;
            self.open = words.late(search.session, self.generation, below, SCAN_STEP).await?;
            self.ended = self.open.len() < SCAN_STEP;
            self.open.reverse();
        }
        Ok(self.open.last().copied())
    }
}
