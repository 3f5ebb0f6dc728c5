//! What [`crate::ContactStore`] promises.

use super::sample;
use crate::{ChatChange, ContactFacts, ContactQuery, ContactRow, Stores};
use anyhow::Result;
use rookery_protocol::{Jid, SessionId};

/// Rows that a page may look at.
const LOOK_LIMIT: usize = 2_000;

pub(super) async fn run(stores: &Stores) -> Result<()> {
    one_person(stores).await?;
    one_chat(stores).await?;
    pages(stores).await?;
    long_way(stores).await
}

fn lid(number: usize) -> Jid {
    format!("9000{number:04}@lid").parse().expect("it is a LID")
}

fn named(jid: Jid, name: &str) -> ContactFacts {
    ContactFacts { full_name: Some(name.to_owned()), ..ContactFacts::of(jid) }
}

async fn all(stores: &Stores, session: SessionId) -> Result<Vec<ContactRow>> {
    let query = ContactQuery { limit: 1_000, ..ContactQuery::default() };
    let page = stores.contacts.list(session, &query).await?;
    assert_eq!(page.next, None);
    Ok(page.rows)
}

/// Under whichever address somebody was learned first.
async fn one_person(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let session = fence.session();
    let phones = [sample::chat(1), sample::chat(2)];
    stores.contacts.learn(&fence, vec![named(lid(1), "one"), named(phones[1].clone(), "two")]).await?;
    let pair = |n: usize| ContactFacts { other: Some(lid(n + 1)), ..ContactFacts::of(phones[n].clone()) };
    stores.contacts.learn(&fence, vec![pair(0), pair(1), ContactFacts::of("120363@g.us".parse()?)]).await?;
    let push = ContactFacts { push_name: Some("later".to_owned()), ..ContactFacts::of(lid(1)) };
    stores.contacts.learn(&fence, vec![push]).await?;
    let rows = all(stores, session).await?;
    assert_eq!(rows.iter().map(|row| &row.jid).collect::<Vec<_>>(), phones.iter().collect::<Vec<_>>());
    assert_eq!(rows[0].full_name.as_deref(), Some("one"));
    assert_eq!((rows[0].push_name.as_deref(), rows[0].other.as_ref()), (Some("later"), Some(&lid(1))));
    assert_eq!((rows[1].full_name.as_deref(), rows[1].other.as_ref()), (Some("two"), Some(&lid(2))));
    let asked = [lid(2), sample::chat(7), phones[0].clone(), lid(1)];
    let found = stores.contacts.get(session, &asked).await?;
    assert_eq!(found, [Some(rows[1].clone()), None, Some(rows[0].clone()), Some(rows[0].clone())]);
    assert_eq!(stores.contacts.get(session, &[]).await?, []);
    Ok(())
}

/// The chats of one person become one as well, and stay it.
async fn one_chat(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let session = fence.session();
    let (phone, lid) = (sample::chat(1), lid(1));
    stores.history.insert(&fence, vec![sample::inbound(1, &lid, 1), sample::inbound(2, &phone, 2)]).await?;
    assert_eq!(stores.chats.list(session, None, 9).await?.rows.len(), 2);
    stores.chats.change(&fence, vec![(lid.clone(), ChatChange::Archived(true))]).await?;
    stores
        .contacts
        .learn(&fence, vec![ContactFacts { other: Some(phone.clone()), ..ContactFacts::of(lid.clone()) }])
        .await?;
    stores.history.insert(&fence, vec![sample::inbound(3, &lid, 3)]).await?;
    let chats = stores.chats.list(session, None, 9).await?.rows;
    assert_eq!(chats.len(), 1);
    assert_eq!((&chats[0].jid, chats[0].unread, chats[0].archived), (&phone, 3, true));
    assert_eq!(chats[0].last.as_ref().map(|last| last.sort_key), Some(sample::sort_key(3, 3)));
    for jid in [&lid, &phone] {
        assert_eq!(stores.chats.get(session, jid).await?.as_ref(), Some(&chats[0]));
    }
    stores.chats.change(&fence, vec![(lid, ChatChange::Archived(false))]).await?;
    assert!(!stores.chats.list(session, None, 9).await?.rows[0].archived);
    Ok(())
}

async fn pages(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let session = fence.session();
    let people = (0..9).map(|n| named(sample::chat(n), if n % 2 == 0 { "Ünwin Even" } else { "Odd" }));
    stores.contacts.learn(&fence, people.collect()).await?;
    let everybody = all(stores, session).await?;
    let (mut found, mut after) = (vec![], None);
    loop {
        let query = ContactQuery { after, limit: 2, text: None };
        let page = stores.contacts.list(session, &query).await?;
        assert!(page.rows.len() <= 2);
        found.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
        // A cursor stays where it is while contacts come.
        stores.contacts.learn(&fence, vec![named("10000@s.whatsapp.net".parse()?, "first")]).await?;
    }
    assert_eq!(found, everybody, "each once, in the order of addresses");
    for (text, count) in [
        ("ünwin", 5),
        ("UNWIN e", 5),
        ("ÓDD", 4),
        ("ODD", 4),
        ("even", 5),
        ("5550000003", 1),
        ("+1555000", 9),
        ("nobody", 0),
    ] {
        let query = ContactQuery { text: Some(text.to_owned()), limit: 100, after: None };
        assert_eq!(stores.contacts.list(session, &query).await?.rows.len(), count, "{text}");
    }
    Ok(())
}

/// A query that fits little looks at a bounded number of rows and goes on from there.
async fn long_way(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let common = (0..LOOK_LIMIT + 5).map(|n| named(sample::chat(n), "common"));
    let rare = named("99999@s.whatsapp.net".parse()?, "rare");
    stores.contacts.learn(&fence, common.chain([rare]).collect()).await?;
    let mut query = ContactQuery { text: Some("rare".to_owned()), limit: 9, after: None };
    let first = stores.contacts.list(fence.session(), &query).await?;
    assert_eq!(first.rows, [], "it looks at {LOOK_LIMIT} rows at most");
    query.after = first.next;
    assert!(query.after.is_some());
    let second = stores.contacts.list(fence.session(), &query).await?;
    assert_eq!((second.rows.len(), second.next), (1, None));
    Ok(())
}
