//! Contacts: a row an address, in the order of addresses.

use super::{Embedded, chats, codec::decode, engines::View, transaction::Transaction};
use crate::{
    ContactFacts, ContactQuery, ContactRow, ContactStore, Fence, Page, StoreError, contacts,
    search::folded,
    tables::{self, Table},
};
use async_trait::async_trait;
use rookery_protocol::{Jid, JidServer, SessionId};
use std::ops::Bound;

/// Most rows that a page looks at.
const LOOK_LIMIT: usize = 2_000;

#[async_trait]
impl ContactStore for Embedded {
    async fn learn(&self, fence: &Fence, facts: Vec<ContactFacts>) -> Result<(), StoreError> {
        let fence = fence.clone();
        self.0
            .write("contacts_learn", move |transaction| {
                transaction.check(&fence)?;
                facts.iter().try_for_each(|facts| learn(transaction, fence.session(), facts))
            })
            .await
    }

    async fn list(&self, session: SessionId, query: &ContactQuery) -> Result<Page<ContactRow, Jid>, StoreError> {
        let query = query.clone();
        self.0.read("contacts_list", move |database| page(&database.view(), session, &query)).await
    }

    async fn get(&self, session: SessionId, jids: &[Jid]) -> Result<Vec<Option<ContactRow>>, StoreError> {
        let jids = jids.to_vec();
        self.0
            .read("contacts_get", move |database| {
                let view = database.view();
                jids.iter().map(|jid| contact(&view, session, jid)).collect()
            })
            .await
    }
}

/// Takes in what was learned.
pub(super) fn learn(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    facts: &ContactFacts,
) -> Result<(), StoreError> {
    let learned = contacts::learn(facts, |jid| transaction.row(Table::Peers, &tables::contact(session, jid)))?;
    for row in &learned.rows {
        transaction.put_row(Table::Peers, tables::contact(session, &row.jid), row)?;
    }
    match learned.merged {
        Some((lid, phone)) => chats::merge(transaction, session, &lid, phone),
        None => Ok(()),
    }
}

/// The address under which a person or a group is kept: the phone number of a LID, where it is known.
pub(super) fn resolve(transaction: &Transaction<'_>, session: SessionId, jid: &Jid) -> Result<Option<Jid>, StoreError> {
    if jid.server() != JidServer::Lid {
        return Ok(None);
    }
    let row: Option<ContactRow> = transaction.row(Table::Peers, &tables::contact(session, jid))?;
    Ok(row.and_then(|row| row.other))
}

/// The same outside of a transaction.
pub(super) fn number(view: &View<'_>, session: SessionId, jid: &Jid) -> Result<Option<Jid>, StoreError> {
    if jid.server() != JidServer::Lid {
        return Ok(None);
    }
    let row: Option<ContactRow> = view.row(Table::Peers, &tables::contact(session, jid))?;
    Ok(row.and_then(|row| row.other))
}

fn contact(view: &View<'_>, session: SessionId, jid: &Jid) -> Result<Option<ContactRow>, StoreError> {
    let row: Option<ContactRow> = view.row(Table::Peers, &tables::contact(session, jid))?;
    match &row {
        Some(ContactRow { other: Some(phone), .. }) if jid.server() == JidServer::Lid => {
            view.row(Table::Peers, &tables::contact(session, phone))
        }
        _ => Ok(row),
    }
}

fn page(view: &View<'_>, session: SessionId, query: &ContactQuery) -> Result<Page<ContactRow, Jid>, StoreError> {
    let text = query.text.as_deref().map(folded);
    let mut page = Page { rows: Vec::new(), next: None };
    let mut last = None;
    let all = tables::contacts(session);
    let after = query.after.as_ref().map(|jid| tables::contact(session, jid));
    let end = tables::end_of(&all);
    let from = after.as_deref().map_or(Bound::Included(&*all), Bound::Excluded);
    let until = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    for (looked_at, entry) in view.range(Table::Peers, from, until).enumerate() {
        let row: ContactRow = decode(&entry?.1)?;
        let wanted = !row.is_pointer() && text.as_ref().is_none_or(|text| row.matches(text));
        if looked_at == LOOK_LIMIT || (wanted && page.rows.len() == query.limit.max(1)) {
            page.next = last;
            return Ok(page);
        }
        last = Some(row.jid.clone());
        page.rows.extend(Some(row).filter(|_| wanted));
    }
    Ok(page)
}
