//! Sessions: a row by id, and indexes by user and by phone number.
//!
//! A session's removal may be larger than a batch should be, so it goes in steps; from the first one on nothing
//! can be added to the session.

use super::{
    Embedded, codec,
    engines::{Handle, View},
    transaction::Transaction,
};
use crate::{
    EarlyRow, Fence, Owner, Page, SendRecord, SessionRow, SessionStore, StoreError,
    tables::{self, Table},
};
use async_trait::async_trait;
use rookery_protocol::{Epoch, SessionId, UserId};

/// Most sessions that are found by a phone number.
const PHONE_LIMIT: usize = 100;

/// Most sessions on one page.
const PAGE_LIMIT: usize = 1_000;

/// Rows that one step of a removal removes.
const REMOVAL_STEP: usize = 2_000;

#[async_trait]
impl SessionStore for Embedded {
    async fn create(&self, session: &SessionRow) -> Result<(), StoreError> {
        let row = session.clone();
        self.0
            .write("session_create", move |transaction| {
                let id = row.session_id;
                if transaction.get(Table::Control, &tables::session(id))?.is_some() {
                    return Err(StoreError::Refused("there is such a session already"));
                }
                transaction.put_entry(Table::Control, tables::session_of(row.user_id, id))?;
                if let Some(entry) = phone_entry(&row) {
                    transaction.put_entry(Table::Control, entry)?;
                }
                let owner = Owner { epoch: Epoch(0), node: None };
                transaction.put_row(Table::Control, tables::owner(id), &owner)?;
                transaction.put_row(Table::Control, tables::session(id), &row)
            })
            .await
    }

    async fn get(&self, id: SessionId) -> Result<Option<SessionRow>, StoreError> {
        self.0.read_now("session_get", move |database| database.row(Table::Control, &tables::session(id))).await
    }

    async fn list(
        &self,
        user: UserId,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Page<SessionRow, SessionId>, StoreError> {
        self.0
            .read("session_list", move |database| {
                let after = after.map(|id| tables::session_of(user, id));
                page(&database.view(), &tables::sessions_of(user), after.as_deref(), limit)
            })
            .await
    }

    async fn scan(&self, after: Option<SessionId>, limit: usize) -> Result<Page<SessionRow, SessionId>, StoreError> {
        self.0
            .read("session_scan", move |database| {
                page(&database.view(), &tables::sessions(), after.map(tables::session).as_deref(), limit)
            })
            .await
    }

    async fn find_by_phone(&self, user: UserId, phone: &str) -> Result<Vec<SessionRow>, StoreError> {
        let Some(entries) = tables::sessions_of_phone(user, phone) else { return Ok(Vec::new()) };
        self.0
            .read("session_find_by_phone", move |database| {
                page(&database.view(), &entries, None, PHONE_LIMIT).map(|page| page.rows)
            })
            .await
    }

    async fn update(&self, fence: &Fence, session: &SessionRow) -> Result<(), StoreError> {
        let (fence, row) = (fence.clone(), session.clone());
        self.0
            .write("session_update", move |transaction| {
                transaction.check(&fence)?;
                let key = tables::session(fence.session());
                let old: SessionRow = transaction.row(Table::Control, &key)?.ok_or(StoreError::NotFound("session"))?;
                let same =
                    (old.session_id, old.user_id, old.created_at) == (row.session_id, row.user_id, row.created_at);
                if !same {
                    return Err(StoreError::Refused("a session's id, user and time of creation never change"));
                }
                let (old_entry, entry) = (phone_entry(&old), phone_entry(&row));
                if old_entry != entry {
                    if let Some(entry) = old_entry {
                        transaction.delete(Table::Control, entry);
                    }
                    if let Some(entry) = entry {
                        transaction.put_entry(Table::Control, entry)?;
                    }
                }
                transaction.put_row(Table::Control, key, &row)
            })
            .await
    }

    async fn delete(&self, fence: &Fence) -> Result<(), StoreError> {
        if let Handle::Cql(operations) = &self.0 {
            return operations.remove(fence).await;
        }
        let mut removal = Some(Removal { table: 0, after: None });
        while let Some(step) = removal {
            let fence = fence.clone();
            removal = self.0.write("session_delete", move |transaction| step.run(transaction, &fence)).await?;
        }
        Ok(())
    }
}

/// How far the removal of a session has come.
struct Removal {
    /// The table that is next, of those with rows of sessions.
    table: usize,
    /// The last key that was removed from it.
    after: Option<Vec<u8>>,
}

impl Removal {
    /// Removes some rows; none when all are gone.
    fn run(self, transaction: &mut Transaction<'_>, fence: &Fence) -> Result<Option<Self>, StoreError> {
        let session = fence.session();
        match transaction.check_leaving(fence) {
            // It was removed before: that is what was asked for.
            Err(StoreError::NotFound(_)) => return Ok(None),
            result => result?,
        }
        transaction.leave(session);
        let Some(&table) = Table::OF_SESSIONS.get(self.table) else {
            remove_row(transaction, session)?;
            transaction.left(session);
            return Ok(None);
        };
        let all = tables::of_session(session);
        let rows = transaction.prefix(table, &all, self.after.as_deref(), REMOVAL_STEP)?;
        let Some((last, _)) = rows.last() else {
            return Ok(Some(Self { table: self.table + 1, after: None }));
        };
        let after = Some(last.to_vec());
        for (key, stored) in rows {
            if table == Table::Idempotency {
                let record: SendRecord = codec::decode_at(&key, &stored)?;
                let entry = tables::idempotency_entry(&key, record.accepted_at);
                transaction.delete(Table::Control, entry);
            }
            if table == Table::Marks && tables::is_early(&key) {
                let waiting: EarlyRow = codec::decode_at(&key, &stored)?;
                transaction.delete(Table::Control, tables::early_entry(&key, waiting.received_at));
            }
            transaction.delete(table, key.to_vec());
        }
        Ok(Some(Self { table: self.table, after }))
    }
}

/// Removes what says that the session exists.
fn remove_row(transaction: &mut Transaction<'_>, session: SessionId) -> Result<(), StoreError> {
    let key = tables::session(session);
    if let Some(row) = transaction.row::<SessionRow>(Table::Control, &key)? {
        if let Some(entry) = phone_entry(&row) {
            transaction.delete(Table::Control, entry);
        }
        transaction.delete(Table::Control, tables::session_of(row.user_id, session));
    }
    transaction.delete(Table::Control, tables::owner(session));
    transaction.delete(Table::Control, key);
    Ok(())
}

/// The session's entry in the index by phone number, once it is linked.
fn phone_entry(row: &SessionRow) -> Option<Vec<u8>> {
    tables::session_of_phone(row.user_id, row.device.as_ref()?.phone(), row.session_id)
}

/// A page of sessions whose ids are at the end of these keys.
fn page(
    view: &View<'_>,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Page<SessionRow, SessionId>, StoreError> {
    let limit = limit.clamp(1, PAGE_LIMIT);
    let mut rows: Vec<SessionRow> = Vec::new();
    let mut entries = view.prefix(Table::Control, prefix, after).peekable();
    while rows.len() < limit {
        let mut keys = Vec::new();
        for entry in entries.by_ref().take(limit - rows.len()) {
            let (key, _) = entry?;
            let id = tables::session_of_entry(&key).ok_or_else(|| StoreError::Corrupt {
                what: "session index",
                detail: "its key is too short".to_owned(),
            })?;
            keys.push(tables::session(id));
        }
        if keys.is_empty() {
            return Ok(Page { rows, next: None });
        }
        view.expect(|| keys.iter().map(|key| (Table::Control, key.clone())).collect())?;
        for key in keys {
            rows.extend(view.row(Table::Control, &key)?);
        }
    }
    let next = entries.peek().is_some().then(|| rows.last().map(|row| row.session_id)).flatten();
    Ok(Page { rows, next })
}
