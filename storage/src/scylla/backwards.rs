//! The messages of a session, oldest first, from window to window: as the index of words reads them.

use super::{
    operations::Core,
    place,
    range::{PAGE, Row, after},
    statements::Stored,
};
use crate::{
    StoreError,
    embedded::database::Pair,
    tables::{self, Table},
};
use rookery_protocol::SessionId;
use std::{collections::VecDeque, sync::Arc};
use tokio::runtime::Handle;

/// Windows that are listed at once.
const LISTED: i32 = 64;

/// What is left of a session's messages. Each page blocks.
pub(super) struct Backwards {
    core: Arc<Core>,
    session: SessionId,
    /// What the keys of the list of windows begin with, and those of messages within a window.
    scope: Vec<u8>,
    /// The inverted sort key of the oldest message that is wanted.
    oldest: u64,
    /// Windows that are known and not read yet, oldest first, and where the list goes on.
    known: VecDeque<u32>,
    listed_to: Option<u32>,
    /// The window that is being read, and the key in it before which to go on.
    open: Option<(u32, Vec<u8>)>,
    rows: VecDeque<Row>,
}

impl Backwards {
    /// The messages after this sort key.
    pub(super) fn new(core: &Arc<Core>, session: SessionId, sort_key: u64) -> Self {
        let oldest = (!sort_key).checked_sub(1);
        Self {
            core: Arc::clone(core),
            session,
            scope: place::windows_of(Table::History, session.as_bytes()),
            oldest: oldest.unwrap_or_default(),
            known: VecDeque::new(),
            listed_to: oldest.map(place::window),
            open: None,
            rows: VecDeque::new(),
        }
    }

    /// Reads on; false when there is nothing more.
    async fn read_on(&mut self) -> Result<bool, StoreError> {
        if let Some((number, until)) = self.open.take() {
            let partition = place::window_partition(self.session.as_bytes(), number);
            let rows = self.core.slice_back(Stored::History, &partition, &self.scope, &until, PAGE).await?;
            let full = rows.len() == usize::try_from(PAGE).unwrap_or(usize::MAX);
            self.open = rows.last().filter(|_| full).map(|(key, _)| (number, key.clone()));
            self.rows = rows.into();
            return Ok(true);
        }
        if self.known.is_empty() {
            self.list().await?;
        }
        let end = after([&self.scope[..], &self.oldest.to_be_bytes()].concat());
        self.open = self.known.pop_front().map(|number| (number, end));
        Ok(self.open.is_some())
    }

    /// Reads more of the list of windows.
    async fn list(&mut self) -> Result<(), StoreError> {
        let Some(oldest) = self.listed_to.take() else { return Ok(()) };
        let end = after([&self.scope[..], &oldest.to_be_bytes()].concat());
        let rows = self.core.slice_back(Stored::Windows, self.session.as_bytes(), &self.scope, &end, LISTED).await?;
        self.known = rows.iter().filter_map(|(key, _)| key.last_chunk().copied().map(u32::from_be_bytes)).collect();
        if rows.len() == usize::try_from(LISTED).unwrap_or(usize::MAX) {
            self.listed_to = self.known.back().and_then(|newest| newest.checked_sub(1));
        }
        Ok(())
    }
}

impl Iterator for Backwards {
    type Item = Result<Pair, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.rows.pop_front() {
                let sort_key = tables::sort_key_of_entry(&key).unwrap_or_default();
                return Some(Ok((tables::history(self.session, sort_key).into(), value.into())));
            }
            match Handle::current().block_on(self.read_on()) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
