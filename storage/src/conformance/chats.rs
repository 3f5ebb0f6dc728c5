//! What [`crate::ChatStore`] promises, and what the other stores promise about chats.

use super::sample;
use crate::{ChatChange, ChatRow, Fence, Mute, SendOutcome, Stores};
use anyhow::{Context, Result};
use rookery_protocol::Jid;

pub(super) async fn run(stores: &Stores) -> Result<()> {
    counting(stores).await?;
    reading(stores).await?;
    changes(stores).await?;
    pages(stores).await
}

async fn chat(stores: &Stores, fence: &Fence, jid: &Jid) -> Result<ChatRow> {
    let rows = stores.chats.list(fence.session(), None, 100).await?.rows;
    rows.into_iter().find(|row| row.jid == *jid).context("no such chat")
}

/// Messages raise what is unread once each; whoever writes has read.
async fn counting(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let jid = sample::chat(1);
    let rows = vec![sample::inbound(1, &jid, 1), sample::inbound(2, &jid, 2)];
    for _ in 0..2 {
        stores.history.insert(&fence, rows.clone()).await?;
        let row = chat(stores, &fence, &jid).await?;
        assert_eq!((row.unread, row.active), (2, rows[1].sort_key), "a message that comes again counts once");
        assert_eq!(row.last.context("a last message")?.message_id, rows[1].message_id);
    }
    stores.outbox.accept(&fence, sample::accepted(3, &jid, 3, None)).await?;
    let row = chat(stores, &fence, &jid).await?;
    assert_eq!(row.unread, 0);
    assert!(row.last.is_some_and(|last| last.from_me));
    stores.outbox.resolve(&fence, 3, SendOutcome::Failed("no".to_owned())).await?;
    // One that comes late was there when the answer was written.
    stores.history.insert(&fence, vec![sample::inbound(4, &jid, 1), sample::inbound(5, &jid, 9)]).await?;
    let row = chat(stores, &fence, &jid).await?;
    assert_eq!((row.unread, row.active), (1, sample::sort_key(9, 5)));
    let nobody: Jid = "status@broadcast".parse()?;
    stores.history.insert(&fence, vec![sample::inbound(6, &nobody, 10)]).await?;
    assert_eq!(stores.chats.list(fence.session(), None, 9).await?.rows.len(), 1, "a status is no chat");
    Ok(())
}

/// Reading up to a place leaves what is behind it.
async fn reading(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let jid = sample::chat(1);
    let rows: Vec<_> = (1..6).map(|n| sample::inbound(n, &jid, n.cast_signed())).collect();
    stores.history.insert(&fence, rows.clone()).await?;
    let read = async |until| {
        stores.chats.change(&fence, vec![(jid.clone(), ChatChange::Read(until))]).await?;
        anyhow::Ok(chat(stores, &fence, &jid).await?.unread)
    };
    assert_eq!(read(rows[1].sort_key).await?, 3);
    assert_eq!(read(rows[0].sort_key).await?, 3, "what is read stays read");
    assert_eq!(read(rows[3].sort_key).await?, 1);
    assert_eq!(read(u64::MAX >> 1).await?, 0);
    stores.history.insert(&fence, vec![sample::inbound(9, &jid, 9)]).await?;
    assert_eq!(chat(stores, &fence, &jid).await?.unread, 0, "it was read before it came");
    Ok(())
}

async fn changes(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let jid = sample::chat(1);
    let change = async |change| stores.chats.change(&fence, vec![(jid.clone(), change)]).await;
    let get = async |jid: &Jid| stores.chats.get(fence.session(), jid).await;
    assert_eq!(get(&jid).await?, None);
    change(ChatChange::KnownAs(String::new())).await?;
    change(ChatChange::KnownAs("asked for".to_owned())).await?;
    change(ChatChange::KnownAs("asked for again".to_owned())).await?;
    assert_eq!(get(&jid).await?.context("a row")?.name.as_deref(), Some("asked for"));
    change(ChatChange::Archived(true)).await?;
    assert_eq!(stores.chats.list(fence.session(), None, 9).await?.rows, [], "nothing has happened in it");
    stores.history.insert(&fence, vec![sample::inbound(1, &jid, 1)]).await?;
    change(ChatChange::Pinned(Some(sample::at(5)))).await?;
    change(ChatChange::Muted(Some(Mute::Forever))).await?;
    change(ChatChange::MarkedUnread).await?;
    change(ChatChange::Named("a name".to_owned())).await?;
    change(ChatChange::KnownAs("late".to_owned())).await?;
    let row = chat(stores, &fence, &jid).await?;
    assert_eq!(get(&jid).await?.as_ref(), Some(&row));
    assert!(row.archived && row.marked_unread);
    assert_eq!(
        (row.pinned_at, row.muted, row.name.as_deref()),
        (Some(sample::at(5)), Some(Mute::Forever), Some("a name"))
    );
    change(ChatChange::Cleared).await?;
    let row = chat(stores, &fence, &jid).await?;
    assert_eq!((row.last, row.unread, row.marked_unread), (None, 0, false));
    change(ChatChange::Deleted).await?;
    assert_eq!(stores.chats.list(fence.session(), None, 9).await?.rows, []);
    stores.history.insert(&fence, vec![sample::inbound(2, &jid, 2)]).await?;
    assert_eq!(chat(stores, &fence, &jid).await?.unread, 1, "it is back with the next message");

    let newer = sample::claim(stores, fence.session()).await?;
    assert!(change(ChatChange::Deleted).await.is_err(), "an old fence writes nothing");
    assert_eq!(chat(stores, &newer, &jid).await?.unread, 1);
    Ok(())
}

async fn pages(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let rows = (0..9_u64).map(|n| sample::inbound(n, &sample::chat(n as usize), (n % 4).cast_signed()));
    stores.history.insert(&fence, rows.collect()).await?;
    let all = stores.chats.list(fence.session(), None, 100).await?;
    assert_eq!((all.rows.len(), all.next), (9, None));
    assert!(all.rows.is_sorted_by(|a, b| (a.active, &a.jid) > (b.active, &b.jid)), "the latest first");
    let (mut found, mut after) = (vec![], None);
    loop {
        let page = stores.chats.list(fence.session(), after.as_ref(), 2).await?;
        assert!(page.rows.len() <= 2);
        found.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
        // A cursor stays where it is while chats come.
        stores.history.insert(&fence, vec![sample::inbound(50 + found.len() as u64, &sample::chat(99), 90)]).await?;
    }
    assert_eq!(found, all.rows);
    Ok(())
}
