//! The index of words: postings, how far it is, and the messages that came too late for it.

use super::{
    Embedded,
    codec::{strip, wrap},
    database::Pair,
    transaction::Transaction,
};
use crate::{
    Fence, StoreError, WordStore,
    search::{IndexState, Posting},
    tables::{self, Table},
};
use async_trait::async_trait;
use bytes::Bytes;
use rookery_protocol::SessionId;
use std::ops::Bound;

/// Rows that one step of forgetting removes.
const FORGET_STEP: usize = 2_000;

/// A message was written with other words than before: if the index has passed it by, it is looked at again.
pub(super) fn note_late(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    sort_key: u64,
) -> Result<(), StoreError> {
    let Some(state) = transaction.row::<IndexState>(Table::Words, &tables::index_state(session))? else {
        return Ok(());
    };
    if sort_key > state.through {
        return Ok(());
    }
    transaction.put_entry(Table::Marks, tables::late(session, state.late, sort_key))
}

#[async_trait]
impl WordStore for Embedded {
    async fn state(&self, session: SessionId) -> Result<IndexState, StoreError> {
        let key = tables::index_state(session);
        let state = self.0.read_now("words_state", move |database| database.row(Table::Words, &key)).await?;
        Ok(state.unwrap_or_default())
    }

    async fn postings(
        &self,
        session: SessionId,
        word: &str,
        after: Option<(u64, u32)>,
        limit: usize,
    ) -> Result<Vec<Posting>, StoreError> {
        let (from, end) = (tables::postings_of(session, word), tables::postings_end(session, word));
        let after = after.map(|(newest, segment)| tables::posting(session, word, newest, segment));
        self.0
            .read("words_postings", move |database| {
                let from = after.as_deref().map_or(Bound::Included(&*from), Bound::Excluded);
                let rows = database.view().range(Table::Words, from, Bound::Excluded(&end));
                rows.take(limit).map(posting).collect()
            })
            .await
    }

    async fn words(&self, session: SessionId, prefix: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        let all = tables::words_from(session, prefix);
        self.0
            .read("words_words", move |database| {
                let (view, mut from) = (database.view(), all.clone());
                let end = tables::end_of(&all);
                let mut words: Vec<String> = Vec::new();
                while words.len() < limit {
                    let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                    let Some(row) = view.range(Table::Words, Bound::Included(&from), end).next() else { break };
                    let Posting { word, .. } = posting(row)?;
                    from = tables::postings_end(session, &word);
                    words.push(word);
                }
                Ok(words)
            })
            .await
    }

    async fn postings_of_prefix(
        &self,
        session: SessionId,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<Posting>, StoreError> {
        let all = tables::words_from(session, prefix);
        self.0
            .read("words_postings_of_prefix", move |database| {
                database.view().prefix(Table::Words, &all, None).take(limit).map(posting).collect()
            })
            .await
    }

    async fn late(
        &self,
        session: SessionId,
        generation: u32,
        below: u64,
        limit: usize,
    ) -> Result<Vec<u64>, StoreError> {
        let (all, below) = (tables::late_of(session, generation), tables::late(session, generation, below));
        self.0
            .read("words_late", move |database| {
                let rows = database.view().prefix(Table::Marks, &all, Some(&below));
                rows.take(limit).map(|row| Ok(tables::sort_key_of_entry(&row?.0).unwrap_or_default())).collect()
            })
            .await
    }

    async fn put(&self, fence: &Fence, postings: Vec<Posting>) -> Result<(), StoreError> {
        let fence = fence.clone();
        self.0
            .write("words_put", move |transaction| {
                transaction.check(&fence)?;
                for Posting { word, newest, segment, keys } in postings {
                    let key = tables::posting(fence.session(), &word, newest, segment);
                    transaction.put(Table::Words, key, wrap(&keys))?;
                }
                Ok(())
            })
            .await
    }

    async fn advance(&self, fence: &Fence, state: IndexState) -> Result<(), StoreError> {
        let fence = fence.clone();
        self.0
            .write("words_advance", move |transaction| {
                transaction.check(&fence)?;
                transaction.put_row(Table::Words, tables::index_state(fence.session()), &state)
            })
            .await
    }

    async fn forget_late(&self, fence: &Fence, generation: u32) -> Result<(), StoreError> {
        loop {
            let of = fence.clone();
            let step = move |transaction: &mut Transaction<'_>| {
                transaction.check(&of)?;
                let all = tables::late_of(of.session(), generation);
                let rows = transaction.prefix(Table::Marks, &all, None, FORGET_STEP)?;
                for (key, _) in &rows {
                    transaction.delete(Table::Marks, key.to_vec());
                }
                Ok(rows.len())
            };
            if self.0.write("words_forget_late", step).await? < FORGET_STEP {
                return Ok(());
            }
        }
    }
}

fn posting(row: Result<Pair, StoreError>) -> Result<Posting, StoreError> {
    let (key, stored) = row?;
    let (word, newest, segment) = tables::posting_of(&key)
        .ok_or_else(|| StoreError::Corrupt { what: "posting", detail: "its key has no word".to_owned() })?;
    Ok(Posting { word: word.to_owned(), newest, segment, keys: Bytes::copy_from_slice(strip(&stored, "posting")?) })
}

#[cfg(test)]
mod tests {
    use super::super::codec::{decode, encode};
    use super::*;

    #[test]
    fn the_state_of_an_index_keeps_its_format() {
        let state = IndexState { through: 300, segments: 2, first_late: 0, late: 1 };
        let stored = encode(&state);
        assert_eq!(stored, [1, 0xac, 2, 2, 0, 1]);
        assert_eq!(decode::<IndexState>(&stored).unwrap(), state);
    }
}
