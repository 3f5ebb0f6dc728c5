//! What [`crate::SyncStore`] promises.

use super::sample;
use crate::{ChatFacts, ContactFacts, HistoryQuery, HistoryRow, HistorySyncRow, Import, Mute, Stores, WaitingChunk};
use anyhow::Result;
use rookery_protocol::Jid;

pub(super) async fn run(stores: &Stores) -> Result<()> {
    state(stores).await?;
    once(stores).await?;
    live_before(stores).await
}

async fn state(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let session = fence.session();
    assert_eq!(stores.syncs.state(session).await?, HistorySyncRow::default());
    let import = Import { messages: vec![sample::inbound(1, &sample::chat(1), 1)], ..Import::default() };
    assert_eq!(stores.syncs.import(&fence, import).await?, 1);
    let waiting = vec![WaitingChunk { id: "CHUNK".parse()?, asked: 2, owed: true }];
    let row = HistorySyncRow { progress: 40, messages: 99, done: false, waiting };
    stores.syncs.save(&fence, &row).await?;
    assert_eq!(stores.syncs.state(session).await?, HistorySyncRow { messages: 1, ..row });
    let anew = HistorySyncRow { progress: 1, ..HistorySyncRow::default() };
    stores.syncs.restart(&fence, &anew).await?;
    assert_eq!(stores.syncs.state(session).await?, anew);
    sample::claim(stores, session).await?;
    assert!(stores.syncs.save(&fence, &HistorySyncRow::default()).await.is_err());
    assert!(stores.syncs.import(&fence, Import::default()).await.is_err());
    Ok(())
}

fn facts(jid: &Jid) -> ChatFacts {
    ChatFacts {
        jid: jid.clone(),
        name: Some("a name".to_owned()),
        active_at: Some(sample::at(5)),
        unread: 3,
        marked_unread: false,
        archived: true,
        pinned_at: None,
        muted: Some(Mute::Until(sample::at(50))),
    }
}

/// A part that is stored again changes nothing, whatever has happened since.
async fn once(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let (session, phone) = (fence.session(), sample::chat(1));
    let lid: Jid = "90001@lid".parse()?;
    let pair = ContactFacts { other: Some(lid.clone()), old: true, ..ContactFacts::of(phone.clone()) };
    let mut own = sample::outbound(2, &phone, 3);
    own.read_at = Some(sample::at(4));
    let import = Import {
        messages: vec![sample::inbound(1, &lid, 2), own.clone()],
        chats: vec![facts(&phone)],
        contacts: vec![pair],
    };
    assert_eq!(stores.syncs.import(&fence, import.clone()).await?, 2);
    let chats = stores.chats.list(session, None, 9).await?.rows;
    assert_eq!(chats.len(), 1, "a LID's messages are the number's");
    assert_eq!((&chats[0].jid, chats[0].unread, chats[0].archived), (&phone, 3, true));
    assert_eq!(chats[0].muted, Some(Mute::Until(sample::at(50))));
    let query = HistoryQuery { chat: Some(phone.clone()), limit: 9, ..HistoryQuery::default() };
    let rows = stores.history.list(session, &query).await?.rows;
    let first = HistoryRow { chat: phone.clone(), sender: Some(phone.clone()), ..sample::inbound(1, &lid, 2) };
    assert_eq!(rows, [own, first]);

    stores.outbox.accept(&fence, sample::accepted(7, &phone, 7, None)).await?;
    let before = stores.chats.list(session, None, 9).await?.rows;
    assert_eq!(stores.syncs.import(&fence, import).await?, 0);
    assert_eq!(stores.chats.list(session, None, 9).await?.rows, before);
    assert_eq!(stores.history.list(session, &query).await?.rows[1..], rows);
    assert_eq!(stores.syncs.state(session).await?.messages, 2);
    Ok(())
}

/// What came live before its history keeps what is known of it, and counts as unread once.
async fn live_before(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let chat = sample::chat(1);
    let live = sample::inbound(1, &chat, 9);
    stores.history.insert(&fence, vec![live.clone()]).await?;
    let again = HistoryRow { text: Some("old".to_owned()), sort_key: sample::sort_key(9, 77), ..live.clone() };
    let older = sample::inbound(2, &chat, 4);
    let import = Import { messages: vec![again, older], chats: vec![facts(&chat)], contacts: vec![] };
    assert_eq!(stores.syncs.import(&fence, import).await?, 1);
    assert_eq!(stores.history.get(fence.session(), &live.message_id).await?, std::slice::from_ref(&live));
    let row = stores.chats.list(fence.session(), None, 9).await?.rows.remove(0);
    assert_eq!((row.unread, row.active), (4, live.sort_key));
    assert_eq!(row.last.map(|last| last.message_id), Some(live.message_id));
    Ok(())
}
