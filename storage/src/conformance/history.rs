//! What [`crate::HistoryStore`] promises.

use super::sample;
use crate::{HistoryQuery, HistoryRow, ReceiptKind, Stores};
use anyhow::{Context, Result};
use rookery_protocol::{
    Jid, MessageId,
    api::{Direction, MessageType},
};

/// Rows that a page may look at.
const LOOK_LIMIT: u64 = 2_000;

pub(super) async fn run(stores: &Stores) -> Result<()> {
    pages(stores).await?;
    filters(stores).await?;
    long_way(stores).await?;
    redelivery(stores).await?;
    same_id(stores).await?;
    receipts(stores).await
}

fn keys(rows: &[HistoryRow]) -> Vec<u64> {
    rows.iter().map(|row| row.sort_key).collect()
}

async fn pages(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let session = fence.session();
    assert_eq!(stores.history.last_sort_key(session).await?, None);
    let chats = [sample::chat(1), sample::chat(2)];
    let mut rows: Vec<_> = (0..20_u64)
        .map(|number| sample::inbound(number, &chats[usize::from(number % 3 == 0)], number.cast_signed() / 4))
        .collect();
    stores.history.insert(&fence, rows.clone()).await?;
    assert_eq!(stores.history.last_sort_key(session).await?, Some(rows[19].sort_key));
    rows.reverse();

    for chat in [None, Some(chats[0].clone()), Some(chats[1].clone())] {
        let expected: Vec<_> =
            rows.iter().filter(|row| chat.as_ref().is_none_or(|chat| row.chat == *chat)).cloned().collect();
        let (mut found, mut before, mut newer) = (Vec::new(), None, 100);
        loop {
            let query = HistoryQuery { chat: chat.clone(), before, limit: 3, ..HistoryQuery::default() };
            let page = stores.history.list(session, &query).await?;
            assert!(page.rows.len() <= 3);
            found.extend(page.rows);
            before = page.next;
            if before.is_none() {
                break;
            }
            // A cursor stays where it is while messages come.
            stores.history.insert(&fence, vec![sample::inbound(newer, &sample::chat(3), 50)]).await?;
            newer += 1;
        }
        assert_eq!(found, expected, "newest first, each once");
    }
    let nobody = HistoryQuery { chat: Some(sample::chat(9)), limit: 3, ..HistoryQuery::default() };
    let page = stores.history.list(session, &nobody).await?;
    assert_eq!((page.rows, page.next), (vec![], None));
    let at_least_one = stores.history.list(session, &HistoryQuery::default()).await?;
    assert_eq!(at_least_one.rows.len(), 1);
    let clash = HistoryRow { message_id: "CLASH".parse()?, ..rows[0].clone() };
    stores.history.insert(&fence, vec![clash.clone()]).await?;
    let moved = stores.history.get(session, &clash.message_id).await?.remove(0);
    assert!(moved.sort_key > clash.sort_key, "a place that is taken is left to who has it");
    assert_eq!(HistoryRow { sort_key: clash.sort_key, ..moved }, clash);
    assert_eq!(stores.history.get(session, &rows[0].message_id).await?[0], rows[0]);
    Ok(())
}

async fn filters(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let chat = sample::chat(1);
    let mut rows = vec![
        sample::inbound(1, &chat, 10),
        sample::outbound(2, &chat, 11),
        HistoryRow { kind: MessageType::Image, ..sample::inbound(3, &chat, 11) },
        HistoryRow { timestamp: sample::at_micros(12, 500_000), ..sample::outbound(4, &chat, 12) },
        sample::inbound(5, &chat, 13),
    ];
    stores.history.insert(&fence, rows.clone()).await?;
    rows.reverse();
    let mut found = Vec::new();
    let time = |secs, micros| Some(sample::at_micros(secs, micros));
    let queries = [
        HistoryQuery { from: time(11, 0), ..HistoryQuery::default() },
        HistoryQuery { until: time(11, 0), ..HistoryQuery::default() },
        HistoryQuery { from: time(12, 500_000), ..HistoryQuery::default() },
        HistoryQuery { from: time(12, 500_001), ..HistoryQuery::default() },
        HistoryQuery { until: time(12, 500_000), ..HistoryQuery::default() },
        HistoryQuery { until: time(12, 500_001), ..HistoryQuery::default() },
        HistoryQuery { from: time(11, 0), until: time(11, 1), ..HistoryQuery::default() },
        HistoryQuery { from: time(12, 0), until: time(12, 0), ..HistoryQuery::default() },
        HistoryQuery { from: time(13, 0), until: time(11, 0), ..HistoryQuery::default() },
        HistoryQuery { direction: Some(Direction::Inbound), ..HistoryQuery::default() },
        HistoryQuery { direction: Some(Direction::Outbound), ..HistoryQuery::default() },
        HistoryQuery { kind: Some(MessageType::Image), ..HistoryQuery::default() },
        HistoryQuery { before: Some(0), ..HistoryQuery::default() },
        HistoryQuery { before: Some(u64::MAX), ..HistoryQuery::default() },
    ];
    for query in queries {
        for chat in [None, Some(chat.clone())] {
            let query = HistoryQuery { chat, limit: 10, ..query.clone() };
            let page = stores.history.list(fence.session(), &query).await?;
            let expected: Vec<_> = rows.iter().filter(|row| super::model::asked_for(&query, row)).cloned().collect();
            assert_eq!(page.rows, expected, "{query:?}");
            assert_eq!(page.next, None, "{query:?}");
            found.push(expected.len());
        }
    }
    assert_eq!(found, [4, 4, 1, 1, 2, 2, 1, 1, 3, 3, 4, 4, 2, 2, 0, 0, 0, 0, 3, 3, 2, 2, 1, 1, 0, 0, 5, 5]);
    Ok(())
}

/// A filter that fits little looks at a bounded number of rows and goes on from there.
async fn long_way(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let chat = sample::chat(1);
    let rare = HistoryRow { kind: MessageType::Poll, ..sample::inbound(0, &chat, 0) };
    let common = (1..=LOOK_LIMIT + 10).map(|number| sample::inbound(number, &chat, 1));
    stores.history.insert(&fence, std::iter::once(rare.clone()).chain(common).collect()).await?;
    for chat in [None, Some(chat)] {
        let mut query = HistoryQuery { kind: Some(MessageType::Poll), limit: 50, chat, ..HistoryQuery::default() };
        let first = stores.history.list(fence.session(), &query).await?;
        assert_eq!(first.rows, [], "it looks at {LOOK_LIMIT} rows at most");
        query.before = Some(first.next.context("there is more")?);
        let second = stores.history.list(fence.session(), &query).await?;
        assert_eq!((second.rows, second.next), (vec![rare.clone()], None));
    }
    Ok(())
}

async fn redelivery(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let (session, chat) = (fence.session(), sample::chat(1));
    let first = HistoryRow { kind: MessageType::Undecryptable, text: None, ..sample::inbound(1, &chat, 1) };
    stores.history.insert(&fence, vec![first.clone()]).await?;
    let own = sample::outbound(2, &chat, 2);
    stores.history.insert(&fence, vec![own.clone()]).await?;
    let id = std::slice::from_ref(&own.message_id);
    sample::receipt(stores, &fence, &chat, id, ReceiptKind::Read, sample::at(5)).await?;

    let again = HistoryRow { sort_key: sample::sort_key(9, 9), ..sample::inbound(1, &chat, 9) };
    let edited = HistoryRow {
        sort_key: sample::sort_key(9, 10),
        text: Some("edited".to_owned()),
        edited_at: Some(sample::at(9)),
        read_at: Some(sample::at(7)),
        delivered_at: Some(sample::at(8)),
        ..own.clone()
    };
    stores.history.insert(&fence, vec![again.clone(), edited.clone(), edited.clone()]).await?;
    let expected = [
        HistoryRow { sort_key: own.sort_key, read_at: Some(sample::at(5)), ..edited },
        HistoryRow { sort_key: first.sort_key, timestamp: first.timestamp, ..again },
    ];
    let query = HistoryQuery { limit: 10, ..HistoryQuery::default() };
    assert_eq!(stores.history.list(session, &query).await?.rows, expected, "place, time and receipts stay");
    let query = HistoryQuery { chat: Some(chat), limit: 10, ..HistoryQuery::default() };
    assert_eq!(stores.history.list(session, &query).await?.rows, expected);
    assert_eq!(stores.history.last_sort_key(session).await?, Some(own.sort_key));
    Ok(())
}

async fn same_id(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let (one, two) = (sample::chat(1), sample::chat(2));
    let id: MessageId = "SAME".parse()?;
    let group: Jid = "120363001@g.us".parse()?;
    let of = |row: HistoryRow| HistoryRow { message_id: id.clone(), ..row };
    let rows = vec![
        of(sample::inbound(1, &one, 1)),
        of(sample::outbound(2, &one, 2)),
        of(sample::inbound(3, &two, 3)),
        of(HistoryRow { chat: group.clone(), ..sample::inbound(4, &one, 4) }),
        of(HistoryRow { chat: group, ..sample::inbound(5, &two, 5) }),
        HistoryRow { message_id: "SAMESAME".parse()?, ..sample::inbound(6, &one, 6) },
    ];
    stores.history.insert(&fence, rows.clone()).await?;
    let found = stores.history.get(fence.session(), &id).await?;
    assert_eq!(keys(&found), [5, 4, 3, 2, 1].map(|n| sample::sort_key(n, n.cast_unsigned())), "newest first");
    assert_eq!(stores.history.get(fence.session(), &"SAM".parse()?).await?, []);
    Ok(())
}

async fn receipts(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let (phone, lid): (Jid, Jid) = (sample::chat(1), "1000155@lid".parse()?);
    let own = sample::outbound(1, &phone, 1);
    let elsewhere = HistoryRow { message_id: own.message_id.clone(), ..sample::outbound(2, &sample::chat(2), 1) };
    let theirs = HistoryRow { message_id: own.message_id.clone(), ..sample::inbound(3, &phone, 1) };
    let lonely = sample::outbound(4, &phone, 1);
    stores.history.insert(&fence, vec![own.clone(), elsewhere.clone(), theirs.clone(), lonely.clone()]).await?;
    let ids = vec![own.message_id.clone()];
    let id = ids.as_slice();

    sample::receipt(stores, &fence, &phone, id, ReceiptKind::Delivered, sample::at(20)).await?;
    sample::receipt(stores, &fence, &phone, id, ReceiptKind::Delivered, sample::at(30)).await?;
    sample::receipt(stores, &fence, &phone, id, ReceiptKind::Delivered, sample::at(10)).await?;
    sample::receipt(stores, &fence, &phone, id, ReceiptKind::Played, sample::at(40)).await?;
    let unknown = [lonely.message_id.clone(), "UNKNOWN".parse()?];
    sample::receipt(stores, &fence, &lid, &unknown, ReceiptKind::Read, sample::at(50)).await?;
    let found = stores.history.get(fence.session(), &own.message_id).await?;
    let seen = HistoryRow { delivered_at: Some(sample::at(10)), played_at: Some(sample::at(40)), ..own };
    assert_eq!(found, [theirs.clone(), elsewhere.clone(), seen.clone()], "the earliest counts, and only in its chat");
    let found = stores.history.get(fence.session(), &lonely.message_id).await?;
    assert_eq!(found, [HistoryRow { read_at: Some(sample::at(50)), ..lonely }], "the chat's other name will do");

    // Under a name that no chat has, all messages of ours with that id are meant, and nobody else's.
    sample::receipt(stores, &fence, &lid, id, ReceiptKind::Read, sample::at(60)).await?;
    let read = Some(sample::at(60));
    let found = stores.history.get(fence.session(), &seen.message_id).await?;
    assert_eq!(found, [theirs, HistoryRow { read_at: read, ..elsewhere }, HistoryRow { read_at: read, ..seen }]);
    Ok(())
}
