//! Who owns which session: one row a session, changed by comparing what is there.

use super::{Embedded, codec};
use crate::{
    Fence, Owner, OwnerStore, Page, StoreError,
    fence::may_begin,
    tables::{self, Table},
};
use async_trait::async_trait;
use rookery_protocol::{Incarnation, NodeId, SessionId};
use std::sync::Arc;

/// Most owner rows on one page.
pub(crate) const OWNERS_AT_ONCE: usize = 10_000;

#[async_trait]
impl OwnerStore for Embedded {
    async fn read(&self, session: SessionId) -> Result<Option<Owner>, StoreError> {
        self.0.read_now("owner_read", move |database| database.row(Table::Control, &tables::owner(session))).await
    }

    async fn claim(
        &self,
        session: SessionId,
        seen: &Owner,
        node: &NodeId,
        incarnation: Incarnation,
    ) -> Result<Fence, StoreError> {
        may_begin(&**self.0.gate())?;
        let (seen, node, gate) = (seen.clone(), node.clone(), Arc::clone(self.0.gate()));
        self.0
            .write("owner_claim", move |transaction| {
                let key = tables::owner(session);
                let owner: Owner = transaction.row(Table::Control, &key)?.ok_or(StoreError::NotFound("session"))?;
                if owner != seen {
                    return Err(StoreError::ClaimLost { session });
                }
                let epoch = owner.epoch.next();
                transaction.put_row(Table::Control, key, &Owner { epoch, node: Some((node, incarnation)) })?;
                Ok(Fence::new(session, epoch, gate))
            })
            .await
    }

    async fn release(&self, fence: &Fence) -> Result<(), StoreError> {
        let (session, epoch) = (fence.session(), fence.epoch());
        self.0
            .write("owner_release", move |transaction| {
                let key = tables::owner(session);
                match transaction.row::<Owner>(Table::Control, &key)? {
                    Some(owner) if owner.epoch == epoch && owner.node.is_some() => {
                        transaction.put_row(Table::Control, key, &Owner { epoch, node: None })
                    }
                    _ => Ok(()),
                }
            })
            .await
    }

    async fn scan(
        &self,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Page<(SessionId, Owner), SessionId>, StoreError> {
        let limit = limit.clamp(1, OWNERS_AT_ONCE);
        self.0
            .read("owner_scan", move |database| {
                let mut rows = Vec::new();
                for entry in
                    database.view().prefix(Table::Control, &tables::owners(), after.map(tables::owner).as_deref())
                {
                    let (key, stored) = entry?;
                    let owner: Owner = codec::decode_at(&key, &stored)?;
                    // Nobody has claimed it yet.
                    if owner.epoch.0 == 0 {
                        continue;
                    }
                    let session = tables::session_of_owner(&key).ok_or_else(|| StoreError::Corrupt {
                        what: "owner",
                        detail: "its key is too short".to_owned(),
                    })?;
                    rows.push((session, owner));
                    if rows.len() == limit {
                        let next = rows.last().map(|(session, _)| *session);
                        return Ok(Page { rows, next });
                    }
                }
                Ok(Page { rows, next: None })
            })
            .await
    }
}
