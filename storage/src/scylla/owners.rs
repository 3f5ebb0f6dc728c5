//! Who owns which session: the only conditional statements.
//!
//! A conditional statement that was not answered may have been done. Then the row is read with serial consistency,
//! which brings what was begun to an end, and says who won.

use super::{claim, client::Failure, commit, operations::Operations};
use crate::{Fence, Owner, OwnerStore, Page, StoreError, embedded::OWNERS_AT_ONCE, fence::may_begin, metrics::record};
use async_trait::async_trait;
use rookery_protocol::{Epoch, Incarnation, NodeId, SessionId};
use scylla::value::CqlValue;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::sleep;
use uuid::Uuid;

/// How often a claim is tried whose outcome turned out to be ours, or nobody's.
const ATTEMPTS: u32 = 4;

/// A row of a scan: session, epoch, node, incarnation.
type ScannedRow = (Uuid, Option<i64>, Option<String>, Option<i64>);

#[async_trait]
impl OwnerStore for Operations {
    async fn read(&self, session: SessionId) -> Result<Option<Owner>, StoreError> {
        self.0.owner(session).await
    }

    async fn claim(
        &self,
        session: SessionId,
        seen: &Owner,
        node: &NodeId,
        incarnation: Incarnation,
    ) -> Result<Fence, StoreError> {
        let start = Instant::now();
        may_begin(&*self.0.gate)?;
        let _turn = self.0.turn(session).await?;
        let mut seen = seen.clone();
        // An owner that gave the session up has left nothing undone.
        let unclean = seen.node.is_some();
        if seen.epoch.0 == 0 && self.0.owner(session).await?.is_none() {
            return Err(StoreError::NotFound("session"));
        }
        for attempt in 1..=ATTEMPTS {
            let wanted = Owner { epoch: seen.epoch.next(), node: Some((node.clone(), incarnation)) };
            match self.try_claim(session, &seen, &wanted).await {
                Ok(true) => {
                    // From here on the fences before are refused, whatever becomes of the rest.
                    self.0.note_epoch(session, wanted.epoch);
                    let fence = Fence::new(session, wanted.epoch, Arc::clone(&self.0.gate));
                    if unclean {
                        fence.guarded(self.take_over(&fence)).await?;
                    }
                    record("owner_claim", start);
                    return Ok(fence);
                }
                Ok(false) if self.0.owner(session).await?.is_none() => return Err(StoreError::NotFound("session")),
                Ok(false) => return Err(StoreError::ClaimLost { session }),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Unknown(error)) => {
                    tracing::warn!(%session, attempt, %error, "the outcome of a claim is not known");
                    seen = match claim::settle(&seen, &wanted, self.0.owner(session).await?) {
                        claim::Settled::TryFrom(owner) => owner,
                        claim::Settled::Lost => return Err(StoreError::ClaimLost { session }),
                        claim::Settled::Gone => return Err(StoreError::NotFound("session")),
                    };
                    sleep(Duration::from_millis(rand::random_range(10..60)) * attempt).await;
                }
            }
        }
        Err(StoreError::Unavailable("the database does not decide who owns the session".to_owned()))
    }

    async fn release(&self, fence: &Fence) -> Result<(), StoreError> {
        let session = fence.session();
        let _turn = self.0.turn(session).await?;
        let values = (id(session), fence.epoch().0.cast_signed());
        match self.0.client.execute(&self.0.client.statements().owner_release, &values).await {
            Ok(_) => Ok(()),
            // Whoever comes next takes the session over as from an owner that died, which is safe.
            Err(failure) => Err(failure.into()),
        }
    }

    async fn scan(
        &self,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Page<(SessionId, Owner), SessionId>, StoreError> {
        let start = Instant::now();
        let limit = limit.clamp(1, OWNERS_AT_ONCE);
        let (client, count) = (&self.0.client, i32::try_from(limit).expect("a small number"));
        let answer = match after {
            Some(after) => client.read(&client.statements().owner_scan_on, (id(after), count)).await?,
            None => client.read(&client.statements().owner_scan, (count,)).await?,
        };
        let (mut rows, mut read, mut last) = (Vec::new(), 0, None);
        for row in answer.rows::<ScannedRow>().map_err(|error| corrupt(error.to_string()))? {
            let (session, epoch, node, incarnation) = row.map_err(|error| corrupt(error.to_string()))?;
            let session = SessionId::from_bytes(session.into_bytes());
            (read, last) = (read + 1, Some(session));
            if let Some(epoch) = epoch {
                rows.push((session, owner(epoch, node.as_deref(), incarnation)?));
            }
        }
        record("owner_scan", start);
        Ok(Page { rows, next: last.filter(|_| read == limit) })
    }
}

impl Operations {
    /// Brings to an end what an owner that gave nothing up has begun, and makes what it left this owner's.
    async fn take_over(&self, fence: &Fence) -> Result<(), StoreError> {
        commit::replay(&self.0, fence.session()).await?;
        self.0.seal(fence).await
    }

    /// Whether the row was as seen and is now as wanted.
    async fn try_claim(&self, session: SessionId, seen: &Owner, wanted: &Owner) -> Result<bool, Failure> {
        let (node, incarnation) = columns(wanted);
        let (old_node, old_incarnation) = columns(seen);
        // No claim yet means no row.
        let old_epoch = (seen.epoch.0 > 0).then(|| seen.epoch.0.cast_signed());
        let epoch = wanted.epoch.0.cast_signed();
        let values = (epoch, node, incarnation, id(session), old_epoch, old_node, old_incarnation);
        let answer = self.0.client.execute(&self.0.client.statements().owner_claim, &values).await?;
        applied(answer)
    }
}

/// Whether a conditional statement was applied: the first column of its answer, whatever stands behind it.
pub(super) fn applied(answer: Option<scylla::response::query_result::QueryRowsResult>) -> Result<bool, Failure> {
    let row = answer.and_then(|answer| answer.first_row::<scylla::value::Row>().ok());
    match row.as_ref().and_then(|row| row.columns.first()) {
        Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
        _ => Err(Failure::Unknown(StoreError::Engine("an answer without [applied]".into()))),
    }
}

/// An owner row from its columns.
pub(super) fn owner(epoch: i64, node: Option<&str>, incarnation: Option<i64>) -> Result<Owner, StoreError> {
    let node = match node.zip(incarnation) {
        Some((node, incarnation)) => {
            let node = node.parse().map_err(|_| corrupt("its node has no such name".to_owned()))?;
            Some((node, Incarnation(incarnation.cast_unsigned())))
        }
        None => None,
    };
    Ok(Owner { epoch: Epoch(epoch.cast_unsigned()), node })
}

pub(super) fn corrupt(detail: String) -> StoreError {
    StoreError::Corrupt { what: "owner row", detail }
}

/// A session's id in the server's terms.
pub(super) fn id(session: SessionId) -> Uuid {
    Uuid::from_bytes(*session.as_bytes())
}

fn columns(owner: &Owner) -> (Option<&str>, Option<i64>) {
    let node = owner.node.as_ref();
    (node.map(|(node, _)| node.as_str()), node.map(|(_, incarnation)| incarnation.0.cast_signed()))
}
