//! Who owns which session: one row a session, changed by comparing what is there.

use super::Embedded;
use crate::{
    Fence, Owner, OwnerStore, StoreError,
    tables::{self, Table},
};
use async_trait::async_trait;
use rookery_protocol::{Incarnation, NodeId, SessionId};

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
        let (seen, node) = (seen.clone(), node.clone());
        self.0
            .write("owner_claim", move |transaction| {
                let key = tables::owner(session);
                let owner: Owner = transaction.row(Table::Control, &key)?.ok_or(StoreError::NotFound("session"))?;
                if owner != seen {
                    return Err(StoreError::ClaimLost { session });
                }
                let epoch = owner.epoch.next();
                transaction.put_row(Table::Control, key, &Owner { epoch, node: Some((node, incarnation)) })?;
                Ok(Fence::new(session, epoch))
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
}
