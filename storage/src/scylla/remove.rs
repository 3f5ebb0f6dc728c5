//! The removal of a session and all its data, partition by partition.
//!
//! What says that there is a session goes last, so that a removal cut short can be repeated; an id is never used again.

use super::{
    operations::{Core, Operations},
    owners,
    place::{self, ID_PARTS},
    rows::session_place,
    stamp::Stamp,
    statements::Stored,
};
use crate::{Fence, StoreError, embedded::codec, rows::SessionRow, tables};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeSet;

/// Partitions that are removed side by side.
const SIDE_BY_SIDE: usize = 16;
/// Windows that are listed at a time.
const PAGE: i32 = 1_000;

impl Operations {
    /// Removes a session; nothing happens when it is gone.
    pub(crate) async fn remove(&self, fence: &Fence) -> Result<(), StoreError> {
        let core = &self.0;
        let _turn = core.turn(fence.session()).await?;
        match core.check(fence).await {
            Err(StoreError::NotFound(_)) => return Ok(()),
            checked => checked?,
        }
        fence.guarded(self.remove_all(fence)).await
    }

    async fn remove_all(&self, fence: &Fence) -> Result<(), StoreError> {
        let core = &self.0;
        let id = fence.session();
        // Asked for, since this takes away what nobody can bring back.
        if core.owner(id).await?.is_some_and(|owner| owner.epoch != fence.epoch()) {
            return Err(StoreError::Fenced { session: id, epoch: fence.epoch() });
        }
        let session = id.as_bytes().as_slice();
        let windows = core.windows_of(session).await?;
        let of_history = windows.into_iter().map(|window| (Stored::History, place::window_partition(session, window)));
        let of_ids = (0..ID_PARTS).map(|part| (Stored::HistoryById, [session, &[part]].concat()));
        let others =
            [Stored::Keys, Stored::Outbox, Stored::Journal, Stored::Idempotency].map(|of| (of, session.to_vec()));
        let further = place::further().map(|kind| (Stored::SessionRows, [session, &[kind]].concat()));
        let stamp = Stamp::next(fence)?;
        let erase = |(stored, partition): (Stored, Vec<u8>)| async move { core.erase(stored, &partition, stamp).await };
        let partitions: Vec<_> = of_history.chain(of_ids).chain(others).chain(further).collect();
        stream::iter(partitions).map(erase).buffer_unordered(SIDE_BY_SIDE).try_collect::<()>().await?;
        core.erase(Stored::Windows, session, stamp).await?;
        self.remove_row(fence, stamp).await
    }

    /// Removes what says that the session exists: the lists, the owner row, the session's row.
    async fn remove_row(&self, fence: &Fence, stamp: Stamp) -> Result<(), StoreError> {
        let (core, id) = (&self.0, fence.session());
        let row = session_place(id);
        if let Some(stored) = core.get(&row).await? {
            let session: SessionRow = codec::decode_at(&row.key, &stored)?;
            let phone = session
                .device
                .as_ref()
                .and_then(|device| tables::session_of_phone(session.user_id, device.phone(), id));
            for entry in [Some(tables::session_of(session.user_id, id)), phone].into_iter().flatten() {
                if let Some(place) = place::place(tables::Table::Control, &entry) {
                    core.remove_one(&place, stamp).await?;
                }
            }
        }
        let values = (owners::id(id), fence.epoch().0.cast_signed());
        let removed = owners::applied(core.client.execute(&core.client.statements().owner_remove, &values).await?)?;
        if !removed && core.owner(id).await?.is_some_and(|owner| owner.epoch != fence.epoch() && owner.epoch.0 > 0) {
            return Err(StoreError::Fenced { session: id, epoch: fence.epoch() });
        }
        core.remove_one(&row, stamp).await?;
        core.forget(id);
        Ok(())
    }
}

impl Core {
    async fn remove_one(&self, place: &place::Place, stamp: Stamp) -> Result<(), StoreError> {
        let statement = &self.client.statements().of(place.stored).delete;
        Ok(self.client.write(statement, (stamp.value(), &place.partition, &place.key)).await?)
    }

    /// The windows that a session's history has, of whatever chat.
    async fn windows_of(&self, session: &[u8]) -> Result<BTreeSet<u32>, StoreError> {
        let (mut found, mut from) = (BTreeSet::new(), Vec::new());
        loop {
            let rows = self.slice(Stored::Windows, session, &from, None, PAGE).await?;
            found.extend(rows.iter().filter_map(|(key, _)| key.last_chunk().copied().map(u32::from_be_bytes)));
            match rows.last() {
                Some((last, _)) if rows.len() as i32 == PAGE => from = [last.as_slice(), &[0]].concat(),
                _ => return Ok(found),
            }
        }
    }
}
