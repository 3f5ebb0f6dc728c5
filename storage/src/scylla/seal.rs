//! What a new owner makes its own before it acts, when the one before gave nothing up.
//!
//! What the new owner loads must stay what it is: by a late write of the old owner it could change, and by one of its that
//! had failed and reached one replica, when that replica comes back. So the small things that acts follow from are written
//! again as the new owner's, and what is older is removed: key material, sends on their way and the journal, and the
//! session's row. What is kept without bound (messages, contacts, chats, words) is not: there a late write of the old
//! owner may still appear, whole, in rows that nobody has written since; it changes no row that a later owner wrote, and
//! no act follows from it.

use super::{
    operations::{Core, blob},
    rows::session_place,
    stamp::Stamp,
    statements::Stored,
};
use crate::{Fence, StoreError};
use scylla::value::CqlValue;

/// Bytes in one batch, about.
const BATCH_BYTES: usize = 1024 * 1024;
/// Rows that are read at a time.
const PAGE: i32 = 1_000;

/// Whether a value has to stay.
type Stays = fn(&[u8]) -> bool;

/// The tables whose partition of a session is sealed, and which of its values have to stay.
const SEALED: [(Stored, Stays); 3] = [
    (Stored::Keys, |_| true),
    // A place in the ring that holds its number alone is free.
    (Stored::Outbox, |value| value.len() > size_of::<u64>()),
    // It has been replayed.
    (Stored::Journal, |_| false),
];

/// The names of all tables in which nothing changes that a new owner has loaded.
#[cfg(feature = "conformance")]
pub(super) fn sealed() -> impl Iterator<Item = Stored> {
    SEALED.into_iter().map(|(stored, _)| stored).chain([Stored::Sessions])
}

impl Core {
    /// Seals all that is sealed, after the journal has been replayed.
    pub(super) async fn seal(&self, fence: &Fence) -> Result<(), StoreError> {
        for (stored, stays) in SEALED {
            self.seal_partition(fence, stored, stays).await?;
        }
        let place = session_place(fence.session());
        if let Some(row) = self.get(&place).await? {
            let put = &self.client.statements().of(place.stored).put;
            let stamp = Stamp::next(fence)?.value();
            self.client.write(put, (&place.partition, &place.key, row, stamp)).await?;
        }
        Ok(())
    }

    async fn seal_partition(&self, fence: &Fence, stored: Stored, stays: Stays) -> Result<(), StoreError> {
        let session = fence.session();
        let (partition, of) = (session.as_bytes().as_slice(), self.client.statements().of(stored));
        let mut from = Vec::new();
        loop {
            let rows = self.slice(stored, partition, &from, None, PAGE).await?;
            let last_page = rows.len() < usize::try_from(PAGE).expect("a small number");
            if let Some((last, _)) = rows.last() {
                from = [last.as_slice(), &[0]].concat();
            }
            let stamp = Stamp::next(fence)?.value();
            let (mut batch, mut bytes) = (Vec::new(), 0);
            for (key, value) in rows.into_iter().filter(|(_, value)| stays(value)) {
                bytes += key.len() + value.len();
                let values = vec![blob(partition), CqlValue::Blob(key), CqlValue::Blob(value), CqlValue::BigInt(stamp)];
                batch.push((&of.put, values));
                if bytes > BATCH_BYTES {
                    self.client.batch("seal", std::mem::take(&mut batch)).await?;
                    bytes = 0;
                }
            }
            if last_page {
                // Last of all: whoever is interrupted before has taken nothing away.
                batch.push((&of.erase, vec![CqlValue::BigInt(Stamp::first(fence).value()), blob(partition)]));
            }
            if !batch.is_empty() {
                self.client.batch("seal", batch).await?;
            }
            if last_page {
                return Ok(());
            }
        }
    }
}
