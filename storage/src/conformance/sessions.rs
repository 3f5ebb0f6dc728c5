//! What [`crate::SessionStore`] promises.

use super::sample;
use crate::{
    ContactFacts, ContactQuery, HistoryQuery, HistorySyncRow, Import, KeyKind, KeyOp, SessionRow, StoreError, Stores,
};
use anyhow::Result;
use rookery_protocol::{DeviceId, SessionId, UserId};

pub(super) async fn run(stores: &Stores) -> Result<()> {
    rows(stores).await?;
    pages(stores).await?;
    phones(stores).await?;
    removal(stores).await
}

async fn rows(stores: &Stores) -> Result<()> {
    let row = sample::session(UserId::generate());
    stores.sessions.create(&row).await?;
    assert!(matches!(stores.sessions.create(&row).await, Err(StoreError::Refused(_))), "a session is made once");
    let fence = sample::claim(stores, row.session_id).await?;
    let changed = SessionRow { name: "renamed".to_owned(), wanted: false, ..row.clone() };
    stores.sessions.update(&fence, &changed).await?;
    assert_eq!(stores.sessions.get(row.session_id).await?.as_ref(), Some(&changed));
    for wrong in [
        SessionRow { user_id: UserId::generate(), ..row.clone() },
        SessionRow { session_id: SessionId::generate(), ..row.clone() },
        SessionRow { created_at: sample::at(1), ..row.clone() },
    ] {
        assert!(matches!(stores.sessions.update(&fence, &wrong).await, Err(StoreError::Refused(_))));
    }
    assert_eq!(stores.sessions.get(row.session_id).await?.as_ref(), Some(&changed));
    assert_eq!(stores.sessions.get(SessionId::generate()).await?, None);
    Ok(())
}

async fn pages(stores: &Stores) -> Result<()> {
    let user = UserId::generate();
    let mut rows: Vec<_> = (0..5).map(|_| sample::session(user)).collect();
    rows.sort_by_key(|row| row.session_id);
    for row in rows.iter().rev() {
        stores.sessions.create(row).await?;
    }
    stores.sessions.create(&sample::session(UserId::generate())).await?;

    let first = stores.sessions.list(user, None, 2).await?;
    assert_eq!((first.rows.as_slice(), first.next), (&rows[..2], Some(rows[1].session_id)));
    // A cursor stays where it is while rows come.
    let newer = sample::session(user);
    stores.sessions.create(&newer).await?;
    rows.push(newer);
    let second = stores.sessions.list(user, first.next, 2).await?;
    assert_eq!((second.rows.as_slice(), second.next), (&rows[2..4], Some(rows[3].session_id)));
    let third = stores.sessions.list(user, second.next, 2).await?;
    assert_eq!((third.rows.as_slice(), third.next), (&rows[4..], None), "the last page says that it is the last");
    assert_eq!(stores.sessions.list(user, None, 100).await?.rows, rows);
    assert_eq!(stores.sessions.list(UserId::generate(), None, 100).await?.rows, []);

    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = stores.sessions.scan(after, 3).await?;
        all.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(all.is_sorted_by_key(|row| row.session_id), "in order of id");
    assert_eq!(all.into_iter().filter(|row| row.user_id == user).collect::<Vec<_>>(), rows);
    Ok(())
}

async fn phones(stores: &Stores) -> Result<()> {
    let user = UserId::generate();
    let phone = "15550001234";
    let linked = |device| {
        Ok::<_, anyhow::Error>(SessionRow { device: Some(DeviceId::new(phone, device)?), ..sample::session(user) })
    };
    let (first, second) = (linked(1)?, linked(2)?);
    let foreign = SessionRow { user_id: UserId::generate(), ..linked(3)? };
    let longer = SessionRow { device: Some(DeviceId::new("155500012345", 1)?), ..sample::session(user) };
    for row in [&first, &second, &foreign, &longer] {
        stores.sessions.create(row).await?;
    }
    let mut expected = vec![first.clone(), second.clone()];
    expected.sort_by_key(|row| row.session_id);
    assert_eq!(stores.sessions.find_by_phone(user, phone).await?, expected);
    assert_eq!(stores.sessions.find_by_phone(user, "1555000").await?, [], "the whole number counts");
    assert_eq!(stores.sessions.find_by_phone(user, &"1".repeat(1_000)).await?, []);

    let fence = sample::claim(stores, first.session_id).await?;
    stores.sessions.update(&fence, &SessionRow { device: None, ..first.clone() }).await?;
    assert_eq!(stores.sessions.find_by_phone(user, phone).await?, [second], "an unlinked session is not found");
    stores.sessions.update(&fence, &SessionRow { device: Some(DeviceId::new("15550009999", 1)?), ..first }).await?;
    assert_eq!(stores.sessions.find_by_phone(user, "15550009999").await?.len(), 1);
    Ok(())
}

/// Everything that a session has: rows in every table.
async fn fill(stores: &Stores, fence: &crate::Fence) -> Result<()> {
    let chat = sample::chat(1);
    let ops = (0..50_u32).map(|number| {
        let key = number.to_be_bytes().to_vec().into();
        KeyOp::Put { kind: KeyKind::PreKey, key, value: "record".into() }
    });
    stores.keys.write(fence, ops.collect()).await?;
    stores.outbox.accept(fence, sample::accepted(1, &chat, 0, Some([1; 32]))).await?;
    stores.contacts.learn(fence, vec![ContactFacts::of(chat.clone())]).await?;
    stores.syncs.import(fence, Import { messages: vec![sample::inbound(99, &chat, 1)], ..Import::default() }).await?;
    stores.history.insert(fence, (0..50).map(|number| sample::inbound(number, &chat, 1)).collect()).await?;
    Ok(())
}

async fn removal(stores: &Stores) -> Result<()> {
    let user = UserId::generate();
    let gone = SessionRow { device: Some(DeviceId::new("15550001234", 1)?), ..sample::session(user) };
    stores.sessions.create(&gone).await?;
    let (fence, kept) = (sample::claim(stores, gone.session_id).await?, sample::claimed(stores).await?);
    fill(stores, &fence).await?;
    fill(stores, &kept).await?;
    stores.sessions.delete(&fence).await?;
    stores.sessions.delete(&fence).await?;

    let (id, key) = (gone.session_id, sample::inbound(1, &sample::chat(1), 1).message_id);
    assert_eq!(stores.sessions.get(id).await?, None);
    assert_eq!(stores.owners.read(id).await?, None);
    assert_eq!(stores.sessions.list(user, None, 10).await?.rows, []);
    assert_eq!(stores.sessions.find_by_phone(user, "15550001234").await?, []);
    assert_eq!(stores.keys.scan(id, KeyKind::PreKey, &[]).await?, []);
    assert_eq!(stores.outbox.pending(id, None, 10).await?, []);
    assert_eq!(stores.outbox.recorded(id, &[1; 32], sample::at(0)).await?, None);
    assert_eq!(stores.history.last_sort_key(id).await?, None);
    assert_eq!(stores.history.get(id, &key).await?, []);
    let in_chat = HistoryQuery { chat: Some(sample::chat(1)), limit: 10, ..HistoryQuery::default() };
    assert_eq!(stores.history.list(id, &in_chat).await?.rows, []);
    assert_eq!(stores.contacts.list(id, &ContactQuery { limit: 9, ..ContactQuery::default() }).await?.rows, []);
    assert_eq!(stores.chats.list(id, None, 9).await?.rows, []);
    assert_eq!(stores.syncs.state(id).await?, HistorySyncRow::default());
    let late = stores.history.insert(&fence, vec![sample::inbound(1, &sample::chat(1), 1)]).await;
    assert!(late.is_err(), "nothing is written into a session that is gone");
    assert_eq!(stores.history.last_sort_key(id).await?, None);

    assert!(stores.sessions.get(kept.session()).await?.is_some(), "other sessions stay");
    assert_eq!(stores.keys.scan(kept.session(), KeyKind::PreKey, &[]).await?.len(), 50);
    assert_eq!(stores.history.get(kept.session(), &key).await?.len(), 1);
    assert_eq!(stores.chats.list(kept.session(), None, 9).await?.rows.len(), 1);
    assert_eq!(stores.syncs.state(kept.session()).await?.messages, 1);
    assert_eq!(stores.outbox.pending(kept.session(), None, 10).await?.len(), 1);
    assert!(stores.outbox.recorded(kept.session(), &[1; 32], sample::at(0)).await?.is_some());
    Ok(())
}
