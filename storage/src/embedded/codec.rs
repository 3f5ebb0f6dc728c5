//! How values are stored: one byte that is the version of the row's format, then the row in postcard.
//!
//! Postcard has no field names, so a row that gains a field gains a version, and the code that reads the old
//! one stays. The tests pin the bytes of every row, so that no format changes by accident.

use crate::{HistoryRow, OutboxRow, Owner, SendRecord, SessionRow, StoreError, TokenRow};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version of every format so far, and of values that are opaque or empty.
pub(super) const VERSION: u8 = 1;

/// A row that is stored.
pub(super) trait Row: Serialize + DeserializeOwned {
    /// Its name in errors.
    const NAME: &'static str;
}

macro_rules! rows {
    ($($row:ty => $name:literal),* $(,)?) => {
        $(impl Row for $row {
            const NAME: &'static str = $name;
        })*
    };
}

rows! {
    Format => "format",
    TokenRow => "token",
    SessionRow => "session",
    Owner => "owner",
    OutboxRow => "outbox row",
    SendRecord => "idempotency record",
    HistoryRow => "message",
    Place => "message index",
}

/// The format of the whole database, as a row of its own: it proves that the journal was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Format(pub(super) u32);

/// Where in its session's history a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place(pub(super) u64);

/// The stored form of a row.
pub(super) fn encode<R: Row>(row: &R) -> Vec<u8> {
    postcard::to_extend(row, vec![VERSION]).expect("rows have lengths that are known beforehand")
}

/// A row from its stored form.
pub(super) fn decode<R: Row>(stored: &[u8]) -> Result<R, StoreError> {
    let (row, rest) = postcard::take_from_bytes(strip(stored, R::NAME)?)
        .map_err(|error| StoreError::Corrupt { what: R::NAME, detail: error.to_string() })?;
    if rest.is_empty() {
        Ok(row)
    } else {
        Err(StoreError::Corrupt { what: R::NAME, detail: format!("{} bytes too long", rest.len()) })
    }
}

/// The stored form of bytes that mean nothing here.
pub(super) fn wrap(bytes: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(bytes.len() + 1);
    stored.push(VERSION);
    stored.extend_from_slice(bytes);
    stored
}

/// What [`wrap`] was given.
pub(super) fn strip<'a>(stored: &'a [u8], what: &'static str) -> Result<&'a [u8], StoreError> {
    match stored.split_first() {
        Some((&VERSION, bytes)) => Ok(bytes),
        Some((version, _)) => Err(StoreError::Corrupt { what, detail: format!("format {version} is not known") }),
        None => Err(StoreError::Corrupt { what, detail: "it is empty".to_owned() }),
    }
}
