//! Rows that expire.
//!
//! A kind whose rows live long has two sorts of keys: the rows, and an index by time, so that the library's sweep every
//! few minutes looks at what has expired and not at everything. A row that is written again may leave an entry
//! with its old time behind; the sweep knows it by the time in the row and removes the entry alone.
//!
//! A kind whose rows live for hours only and are written with every message has no index, which would cost each of them
//! a second row: its sweep looks at all of them, at a [`Pace`] that bounds what that costs.

use super::{DeviceBackend, delete, encoding::damaged, keys::tagged, library_error, put};
use crate::{KeyKind, KeyOp};
use bytes::{BufMut, Bytes, BytesMut};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use wacore::store::error::Result;

const ROW: u8 = b'r';
const ENTRY: u8 = b't';

/// Entries that one write of a sweep removes.
const SWEEP_STEP: usize = 1_000;

/// A sweep of more than one step is not repeated before so much time a row has passed; looking at one takes some
/// microseconds.
const REST_PER_ROW: Duration = Duration::from_micros(500);

/// When the next sweep without an index may begin.
#[derive(Default)]
pub(super) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    fn permits(&self, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|next| next <= now)
    }

    fn rest(&self, now: Instant, rows: u32) {
        let rows = if rows as usize > SWEEP_STEP { rows } else { 0 };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now.checked_add(REST_PER_ROW * rows);
    }
}

/// A row and the time that its expiry goes by, in seconds.
pub(super) struct Timed {
    pub(super) time: i64,
    pub(super) value: Bytes,
}

/// Writes a row and its entry.
pub(super) fn put_timed(ops: &mut Vec<KeyOp>, kind: KeyKind, key: &[u8], time: i64, value: &[u8]) {
    put_untimed(ops, kind, key, time, value);
    ops.push(put(kind, entry(time, key), Bytes::new()));
}

/// Writes a row that is in no index: one that does not expire, or of a kind that is swept without. `time` is kept with it.
pub(super) fn put_untimed(ops: &mut Vec<KeyOp>, kind: KeyKind, key: &[u8], time: i64, value: &[u8]) {
    let mut row = BytesMut::with_capacity(value.len() + 8);
    row.put_i64(time);
    row.put_slice(value);
    ops.push(put(kind, tagged(ROW, key), row.freeze()));
}

/// Removes a row that is in no index.
pub(super) fn delete_untimed(ops: &mut Vec<KeyOp>, kind: KeyKind, key: &[u8]) {
    ops.push(delete(kind, tagged(ROW, key)));
}

/// Removes a row and its entry.
pub(super) fn delete_timed(ops: &mut Vec<KeyOp>, kind: KeyKind, key: &[u8], time: i64) {
    ops.push(delete(kind, tagged(ROW, key)));
    ops.push(delete(kind, entry(time, key)));
}

/// Removes the entry of a row whose time changes.
pub(super) fn delete_entry(ops: &mut Vec<KeyOp>, kind: KeyKind, key: &[u8], time: i64) {
    ops.push(delete(kind, entry(time, key)));
}

impl DeviceBackend {
    /// A row.
    pub(super) async fn timed(&self, kind: KeyKind, key: &[u8]) -> Result<Option<Timed>> {
        self.get(kind, &tagged(ROW, key)).await?.map(|row| decode(&row)).transpose()
    }

    /// Several rows, in the order asked for.
    pub(super) async fn timed_many(&self, kind: KeyKind, keys: &[Bytes]) -> Result<Vec<Option<Timed>>> {
        let rows: Vec<_> = keys.iter().map(|key| tagged(ROW, key)).collect();
        self.get_many(kind, &rows).await?.iter().map(|row| row.as_ref().map(decode).transpose()).collect()
    }

    /// Removes the rows whose time is before `end`; answers how many. Must run alone among those who write rows
    /// of this kind.
    pub(super) async fn expire(&self, kind: KeyKind, end: i64) -> Result<u32> {
        let (from, until) = (entry(i64::MIN, &[]), entry(end, &[]));
        let mut expired = 0;
        loop {
            let session = self.fence.session();
            let entries = self.keys.range(session, kind, &from, &until, SWEEP_STEP).await.map_err(library_error)?;
            if entries.is_empty() {
                return Ok(expired);
            }
            let keys: Vec<_> = entries.iter().map(|(entry, _)| entry.slice(entry.len().min(9)..)).collect();
            let rows = self.timed_many(kind, &keys).await?;
            let mut ops = Vec::with_capacity(entries.len() * 2);
            for (((listed, _), key), row) in entries.into_iter().zip(keys).zip(rows) {
                if row.is_some_and(|row| entry(row.time, &key) == listed) {
                    ops.push(delete(kind, tagged(ROW, &key)));
                    expired += 1;
                }
                ops.push(delete(kind, listed));
            }
            self.apply(ops).await?;
        }
    }
}

impl DeviceBackend {
    /// Removes the rows of a kind without an index whose time is before `end`; answers how many, and 0 without a look
    /// when the last sweep was too long and too recent. Takes turns with others who write, page by page.
    pub(super) async fn expire_unlisted(&self, kind: KeyKind, pace: &Pace, end: i64) -> Result<u32> {
        if !pace.permits(Instant::now()) {
            return Ok(0);
        }
        let (mut from, until) = (Bytes::from_static(&[ROW]), [ROW + 1]);
        let (mut seen, mut expired) = (0_u32, 0);
        loop {
            let _alone = self.order.write().await;
            let session = self.fence.session();
            let rows = self.keys.range(session, kind, &from, &until, SWEEP_STEP).await.map_err(library_error)?;
            let Some((last, _)) = rows.last() else { break };
            from = [last, &[0][..]].concat().into();
            seen = seen.saturating_add(u32::try_from(rows.len()).unwrap_or(u32::MAX));
            let mut ops = Vec::new();
            for (key, row) in rows {
                if decode(&row)?.time < end {
                    ops.push(delete(kind, key));
                }
            }
            expired += u32::try_from(ops.len()).unwrap_or(u32::MAX);
            self.apply(ops).await?;
        }
        pace.rest(Instant::now(), seen);
        Ok(expired)
    }
}

fn decode(row: &Bytes) -> Result<Timed> {
    let (time, _) =
        row.split_first_chunk::<8>().ok_or_else(|| damaged("row with a time", "it is too short".to_owned()))?;
    Ok(Timed { time: i64::from_be_bytes(*time), value: row.slice(8..) })
}

/// The key of an index entry, in the order of times.
fn entry(time: i64, key: &[u8]) -> Bytes {
    let mut entry = BytesMut::with_capacity(key.len() + 9);
    entry.put_u8(ENTRY);
    entry.put_u64(time.cast_unsigned() ^ (1 << 63));
    entry.put_slice(key);
    entry.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_are_in_the_order_of_times(a: i64, b: i64, key: Vec<u8>) {
            prop_assert_eq!(entry(a, &key).cmp(&entry(b, &key)), a.cmp(&b));
            prop_assert_eq!(entry(a, &key) < entry(b, &[]), a < b);
        }
    }

    #[test]
    fn a_long_sweep_is_followed_by_a_long_rest() {
        let (pace, now) = (Pace::default(), Instant::now());
        assert!(pace.permits(now));
        pace.rest(now, 10_000);
        assert!(!pace.permits(now + Duration::from_secs(4)));
        assert!(pace.permits(now + Duration::from_secs(5)));
        pace.rest(now, 1_000);
        assert!(pace.permits(now), "a short one is followed by none");
    }
}
