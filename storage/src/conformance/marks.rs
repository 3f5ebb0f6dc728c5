//! What goes with messages: amendments, what comes before them, and receipts of the members of groups.

use super::sample;
use crate::{
    Amendment, Change, EARLY_KEPT_SECS, Fence, HistoryRow, MessageReceipt, ParticipantRow, ReceiptKind, StoreError,
    Stores,
};
use anyhow::{Context, Result};
use rookery_protocol::{Jid, Timestamp};

pub(super) async fn run(stores: &Stores) -> Result<()> {
    before_and_after(stores).await?;
    strangers(stores).await?;
    members(stores).await?;
    by_place(stores).await?;
    waiting_ends(stores).await
}

fn group() -> Jid {
    "120363001@g.us".parse().expect("it is a group")
}

fn amendment(row: &HistoryRow, secs: i64, change: Change) -> Amendment {
    let by = row.sender.clone().unwrap_or_else(|| sample::chat(9));
    let (chat, message_id) = (row.chat.clone(), row.message_id.clone());
    Amendment { chat, message_id, by, from_me: row.from_me, at: sample::at(secs), change }
}

async fn one(stores: &Stores, fence: &Fence, row: &HistoryRow) -> Result<HistoryRow> {
    let mut rows = stores.history.get(fence.session(), &row.message_id).await?;
    assert_eq!(rows.len(), 1);
    rows.pop().context("one row")
}

async fn before_and_after(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let chat = sample::chat(1);
    let (first, second, own) =
        (sample::inbound(1, &chat, 1), sample::inbound(2, &chat, 1), sample::outbound(3, &chat, 1));
    for (row, early) in [(&first, true), (&second, false), (&own, true)] {
        let changes = vec![
            amendment(row, 5, Change::Edit { text: "later".into() }),
            amendment(row, 4, Change::Edit { text: "sooner".into() }),
            amendment(row, 6, Change::React { emoji: "x".into() }),
            amendment(row, 7, Change::React { emoji: String::new() }),
            Amendment { by: sample::chat(7), from_me: false, ..amendment(row, 3, Change::React { emoji: "y".into() }) },
        ];
        if !early {
            stores.history.insert(&fence, vec![row.clone()]).await?;
        }
        stores.history.amend(&fence, changes.clone()).await?;
        if early {
            assert_eq!(stores.history.get(fence.session(), &row.message_id).await?, []);
            stores.history.insert(&fence, vec![row.clone()]).await?;
        }
        let mut expected = row.clone();
        for change in &changes {
            change.apply(&mut expected);
        }
        assert_eq!(expected.text.as_deref(), Some("later"));
        assert_eq!(one(stores, &fence, row).await?, expected, "early: {early}");
        // All of it again.
        stores.history.amend(&fence, changes).await?;
        stores.history.insert(&fence, vec![row.clone()]).await?;
        assert_eq!(one(stores, &fence, row).await?, expected);
        stores.history.amend(&fence, vec![amendment(row, 9, Change::Revoke { as_admin: false })]).await?;
        stores.history.insert(&fence, vec![row.clone()]).await?;
        let revoked = one(stores, &fence, row).await?;
        assert_eq!((revoked.revoked_at, &revoked.text, revoked.reactions.len()), (Some(sample::at(9)), &None, 0));
    }
    Ok(())
}

/// Only who wrote a message changes it, under whichever of two names.
async fn strangers(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let member = |number: usize| Some(sample::chat(number));
    let row = HistoryRow { chat: group(), sender: member(1), ..sample::inbound(1, &sample::chat(1), 1) };
    let foreign = Amendment { by: sample::chat(2), ..amendment(&row, 5, Change::Edit { text: "no".into() }) };
    stores.history.amend(&fence, vec![foreign.clone()]).await?;
    stores.history.insert(&fence, vec![row.clone()]).await?;
    stores.history.amend(&fence, vec![foreign]).await?;
    assert_eq!(one(stores, &fence, &row).await?, row);
    let by_admin = Amendment { by: sample::chat(2), ..amendment(&row, 6, Change::Revoke { as_admin: true }) };
    stores.history.amend(&fence, vec![by_admin]).await?;
    assert_eq!(one(stores, &fence, &row).await?.revoked_at, Some(sample::at(6)));
    Ok(())
}

fn receipt(row: &HistoryRow, member: usize, kind: ReceiptKind, secs: i64) -> MessageReceipt {
    let (chat, ids) = (row.chat.clone(), vec![row.message_id.clone()]);
    MessageReceipt { chat, participant: Some(sample::chat(member)), ids, kind, at: sample::at(secs) }
}

async fn members(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let of_group = |row: HistoryRow| HistoryRow { chat: group(), ..row };
    let (early, late) = (of_group(sample::outbound(1, &group(), 1)), of_group(sample::outbound(2, &group(), 1)));
    stores.history.insert(&fence, vec![late.clone()]).await?;
    for row in [&early, &late] {
        let receipts = [
            receipt(row, 3, ReceiptKind::Delivered, 5),
            receipt(row, 1, ReceiptKind::Delivered, 7),
            receipt(row, 1, ReceiptKind::Delivered, 6),
            receipt(row, 1, ReceiptKind::Read, 8),
            receipt(row, 2, ReceiptKind::Played, 9),
        ];
        for answer in stores.history.receipts(receipts.map(|receipt| (fence.clone(), receipt)).to_vec()).await? {
            answer?;
        }
    }
    stores.history.insert(&fence, vec![early.clone()]).await?;
    let time = |secs| Some(sample::at(secs));
    let row = |number, delivered_at, read_at, played_at| ParticipantRow {
        participant: sample::chat(number),
        delivered_at,
        read_at,
        played_at,
    };
    let expected = [row(1, time(6), time(8), None), row(2, None, None, time(9)), row(3, time(5), None, None)];
    for message in [&early, &late] {
        let stored = one(stores, &fence, message).await?;
        assert_eq!((stored.delivered_at, stored.read_at, stored.played_at), (time(5), time(8), time(9)));
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = stores.history.participants(fence.session(), stored.sort_key, after.as_ref(), 2).await?;
            assert!(page.rows.len() <= 2);
            found.extend(page.rows);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected);
    }
    let none = stores.history.participants(fence.session(), 5, None, 2).await?;
    assert_eq!((none.rows, none.next), (vec![], None));
    Ok(())
}

async fn by_place(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let rows: Vec<_> = (1..6).map(|number| sample::inbound(number, &sample::chat(1), 1)).collect();
    stores.history.insert(&fence, rows.clone()).await?;
    let keys = [rows[3].sort_key, 7, rows[0].sort_key];
    assert_eq!(stores.history.at(fence.session(), keys.to_vec()).await?, [rows[3].clone(), rows[0].clone()]);
    assert_eq!(stores.history.oldest_after(fence.session(), rows[1].sort_key, 2).await?, rows[2..4]);
    assert_eq!(stores.history.oldest_after(fence.session(), 0, 9).await?, rows);
    assert_eq!(stores.history.oldest_after(fence.session(), rows[4].sort_key, 9).await?, []);
    Ok(())
}

async fn waiting_ends(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let row = sample::inbound(1, &sample::chat(1), 1);
    let edit = amendment(&row, 5, Change::Edit { text: "x".into() });
    stores.history.amend(&fence, vec![edit.clone()]).await?;
    let mut now = Timestamp::now();
    while stores.history.sweep(now, 1_000).await? == 1_000 {}
    now = now.plus_secs(EARLY_KEPT_SECS + 5);
    // Where what has its time goes by itself, nothing is swept.
    if !stores.engine.expires() {
        assert!(stores.history.sweep(now, 1_000).await? > 0);
        assert_eq!(stores.history.sweep(now, 1_000).await?, 0);
        stores.history.insert(&fence, vec![row.clone()]).await?;
        assert_eq!(one(stores, &fence, &row).await?, row);
    }
    // A session takes along what waits for its messages.
    let lost = sample::inbound(2, &sample::chat(1), 1);
    stores.history.amend(&fence, vec![amendment(&lost, 5, Change::Edit { text: "x".into() })]).await?;
    stores.sessions.delete(&fence).await?;
    assert_eq!(stores.history.sweep(now.plus_secs(60), 1_000).await?, 0);
    assert!(matches!(stores.history.amend(&fence, vec![edit]).await, Err(StoreError::NotFound(_))));
    Ok(())
}
