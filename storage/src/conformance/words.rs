//! What [`crate::WordStore`] promises, and that a search over it finds what a look at every message finds.

use super::{runner, sample};
use crate::{
    Amendment, Change, Fence, HistoryQuery, HistoryRow, Stores,
    search::{IndexState, Posting, Progress, Query, SEGMENT_MIN, index, search},
};
use anyhow::{Context, Result};
use proptest::{prelude::*, strategy::ValueTree};
use rookery_protocol::{
    SessionId, Timestamp,
    api::{Direction, MessageType},
};
use std::time::Duration;

pub(super) async fn run(stores: &Stores, seed: u64) -> Result<()> {
    rows(stores).await?;
    everything_is_found(stores, seed).await
}

async fn rows(stores: &Stores) -> Result<()> {
    let (fence, words) = (sample::claimed(stores).await?, &stores.words);
    let session = fence.session();
    assert_eq!(words.state(session).await?, IndexState::default());
    let posting = |word: &str, segment, keys: &[u64]| Posting::new(word.to_owned(), segment, keys).context("keys");
    let (low, high) = (posting("ab", 1, &[5, 9])?, posting("ab", 2, &[7, 9])?);
    let (later, longer, other) = (posting("ab", 3, &[12])?, posting("abc", 1, &[5])?, posting("b", 1, &[5])?);
    words.put(&fence, vec![low.clone(), high.clone(), later.clone(), longer.clone(), other]).await?;
    words.put(&fence, vec![longer.clone()]).await?;
    let of_ab = [later.clone(), low.clone(), high.clone()];
    assert_eq!(words.postings(session, "ab", None, 9).await?, of_ab);
    assert_eq!(words.postings(session, "ab", Some(later.place()), 1).await?, std::slice::from_ref(&low));
    assert_eq!(words.postings(session, "ab", Some(high.place()), 9).await?, []);
    assert_eq!(words.postings(session, "a", None, 9).await?, []);
    assert_eq!(words.words(session, "a", 9).await?, ["ab", "abc"]);
    assert_eq!(words.words(session, "", 2).await?, ["ab", "abc"]);
    assert_eq!(words.words(session, "c", 2).await?, Vec::<String>::new());
    assert_eq!(words.postings_of_prefix(session, "ab", 9).await?, [later, low, high, longer]);
    assert_eq!(words.postings_of_prefix(session, "ab", 1).await?.len(), 1);

    // Below the state, what is new or has other words is late, once.
    let chat = sample::chat(1);
    let old = sample::inbound(1, &chat, 1);
    stores.history.insert(&fence, vec![old.clone()]).await?;
    let state = IndexState { through: sample::sort_key(5, 0), segments: 1, first_late: 2, late: 3 };
    words.advance(&fence, state).await?;
    assert_eq!(words.state(session).await?, state);
    let late = sample::inbound(2, &chat, 4);
    stores.history.insert(&fence, vec![late.clone(), sample::inbound(3, &chat, 6), old.clone()]).await?;
    assert_eq!(words.late(session, 3, u64::MAX, 9).await?, [late.sort_key]);
    let edit = Amendment {
        chat: chat.clone(),
        message_id: old.message_id.clone(),
        by: chat,
        from_me: false,
        at: sample::at(9),
        change: Change::Edit { text: "other words".into() },
    };
    stores.history.amend(&fence, vec![edit.clone(), edit]).await?;
    assert_eq!(words.late(session, 3, u64::MAX, 9).await?, [late.sort_key, old.sort_key]);
    assert_eq!(words.late(session, 3, late.sort_key, 9).await?, [old.sort_key]);
    assert_eq!(words.late(session, 3, u64::MAX, 1).await?, [late.sort_key]);
    assert_eq!(words.late(session, 2, u64::MAX, 9).await?, Vec::<u64>::new());
    words.forget_late(&fence, 3).await?;
    assert_eq!(words.late(session, 3, u64::MAX, 9).await?, Vec::<u64>::new());
    Ok(())
}

const WORDS: [&str; 12] =
    ["alpha", "alphabet", "Beta", "béta", "gamma", "delta", "北京", "京", "rare", "x1", "x12", "x123"];

fn text() -> impl Strategy<Value = String> {
    let common = prop::sample::select(&WORDS[..6]);
    let any = prop::sample::select(&WORDS[..]);
    prop::collection::vec(prop_oneof![6 => common, 1 => any], 1..4).prop_map(|words| words.join(" "))
}

fn sought() -> impl Strategy<Value = (String, HistoryQuery)> {
    let part = prop::sample::select(vec![
        "alpha", "alph", "beta", "a", "x1", "x", "北", "京", "北京", "rare", "gamma", "nothing",
    ]);
    let filter = (
        prop::option::weighted(0.3, 0..3_usize),
        prop::option::weighted(0.2, any::<bool>()),
        prop::option::weighted(0.2, 0..4_000_i64),
        prop::option::weighted(0.2, any::<bool>()),
        1..80_usize,
    );
    (prop::collection::vec(part, 1..4), filter).prop_map(|(words, (chat, own, from, image, limit))| {
        let query = HistoryQuery {
            chat: chat.map(sample::chat),
            direction: own.map(|own| if own { Direction::Outbound } else { Direction::Inbound }),
            from: from.map(sample::at),
            kind: image.map(|image| if image { MessageType::Image } else { MessageType::Text }),
            limit,
            ..HistoryQuery::default()
        };
        (words.join(" "), query)
    })
}

/// A history with messages that come late, edits before and after the index has them, and an index that is built in
/// between.
async fn everything_is_found(stores: &Stores, seed: u64) -> Result<()> {
    let mut runner = runner(seed, 1);
    let mut draw = |count: usize| -> Result<Vec<String>> {
        let texts = prop::collection::vec(text(), count).new_tree(&mut runner);
        Ok(texts.map_err(|error| anyhow::anyhow!("{error}"))?.current())
    };
    let fence = sample::claimed(stores).await?;
    let now = sample::at(10_000);
    let mut number = 0;
    for (round, count) in [(0_i64, SEGMENT_MIN * 2), (1, SEGMENT_MIN + 200), (2, 100), (3, SEGMENT_MIN)] {
        let mut rows = Vec::new();
        for text in draw(count)? {
            number += 1;
            // Some come late: into the past of what is indexed.
            let secs = if number % 3 == 0 {
                i64::try_from(number % 900)?
            } else {
                round * 1_000 + i64::try_from(number % 1_000)?
            };
            rows.push(message(number, secs, text));
        }
        let edited: Vec<_> = rows.iter().filter(|row| row.sort_key % 11 == 0).cloned().collect();
        for part in rows.chunks(500) {
            stores.history.insert(&fence, part.to_vec()).await?;
        }
        if round == 1 {
            build(stores, &fence, now).await?;
        }
        let texts = draw(edited.len())?;
        let edits = edited.into_iter().zip(texts).map(|(row, text)| edit(row, text));
        stores.history.amend(&fence, edits.collect()).await?;
        check(stores, &fence, seed.wrapping_add(round.unsigned_abs())).await?;
        if round != 2 {
            build(stores, &fence, now).await?;
            check(stores, &fence, seed.wrapping_sub(round.unsigned_abs())).await?;
        }
    }
    let state = stores.words.state(fence.session()).await?;
    assert!(state.segments >= 3 && state.late > 0, "segments were built, and late messages folded: {state:?}");
    stores.sessions.delete(&fence).await?;
    assert_eq!(stores.words.state(fence.session()).await?, IndexState::default());
    assert_eq!(stores.words.words(fence.session(), "", 9).await?, Vec::<String>::new());
    Ok(())
}

fn message(number: usize, secs: i64, text: String) -> HistoryRow {
    let chat = sample::chat(number % 3);
    let number = number as u64;
    let row = if number.is_multiple_of(4) {
        sample::outbound(number, &chat, secs)
    } else {
        sample::inbound(number, &chat, secs)
    };
    if number.is_multiple_of(5) {
        HistoryRow { kind: MessageType::Image, text: None, caption: Some(text), ..row }
    } else {
        HistoryRow { text: Some(text), ..row }
    }
}

fn edit(row: HistoryRow, text: String) -> Amendment {
    let by = row.sender.unwrap_or_else(|| sample::chat(9));
    let change =
        if row.sort_key.is_multiple_of(3) { Change::Revoke { as_admin: false } } else { Change::Edit { text } };
    Amendment { chat: row.chat, message_id: row.message_id, by, from_me: row.from_me, at: sample::at(9_000), change }
}

async fn build(stores: &Stores, fence: &Fence, now: Timestamp) -> Result<()> {
    // Cut short, as by a crash, here and there.
    for millis in [1, 5, 20, 60] {
        let _ = tokio::time::timeout(Duration::from_millis(millis), index(stores, fence, now)).await;
    }
    for _ in 0..50 {
        if index(stores, fence, now).await? == Progress::Idle {
            return Ok(());
        }
    }
    anyhow::bail!("the index is never done")
}

async fn check(stores: &Stores, fence: &Fence, seed: u64) -> Result<()> {
    let mut runner = runner(seed, 1);
    let all = whole(stores, fence.session()).await?;
    for _ in 0..20 {
        let drawn = sought().new_tree(&mut runner).map_err(|error| anyhow::anyhow!("{error}"))?;
        let (text, mut filter) = drawn.current();
        let query = Query::parse(&text)?;
        let expected: Vec<_> = all.iter().filter(|row| filter.matches(row) && query.matches(row)).collect();
        let mut found = Vec::new();
        let asked = format!("{text:?} {filter:?}, seed {seed}");
        for pages in 0.. {
            let page = search(stores, fence.session(), &query, &filter).await?.page;
            assert!(page.rows.len() <= filter.limit && pages < 10_000, "{asked}");
            found.extend(page.rows);
            let Some(next) = page.next else { break };
            assert!(filter.before.is_none_or(|before| next < before), "{asked}: it goes on");
            filter.before = Some(next);
        }
        assert_eq!(
            found.iter().map(|row| row.sort_key).collect::<Vec<_>>(),
            expected.iter().map(|row| row.sort_key).collect::<Vec<_>>(),
            "{asked}"
        );
    }
    Ok(())
}

async fn whole(stores: &Stores, session: SessionId) -> Result<Vec<HistoryRow>> {
    let mut rows = stores.history.oldest_after(session, 0, usize::MAX).await?;
    rows.reverse();
    Ok(rows)
}
