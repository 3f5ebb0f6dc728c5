//! The library's own structures as values: `MessagePack` with the names of the fields.
//!
//! A newer version of the library reads what an older one wrote: its new fields have serde defaults, which need
//! a form that names the fields. Keys are binary in it, which JSON would treble.

use crate::StoreError;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use wacore::store::error::{Result, StoreError as LibraryError};

/// A structure as a value.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Bytes> {
    rmp_serde::to_vec_named(value).map(Bytes::from).map_err(|error| LibraryError::Serialization(Box::new(error)))
}

/// A structure from a value; `what` names it in errors.
pub(super) fn decode<T: DeserializeOwned>(what: &'static str, value: &[u8]) -> Result<T> {
    rmp_serde::from_slice(value).map_err(|error| damaged(what, error.to_string()))
}

/// Bytes of a fixed length.
pub(super) fn array<const N: usize>(what: &'static str, value: &[u8]) -> Result<[u8; N]> {
    value.try_into().map_err(|_| damaged(what, format!("it has {} bytes, not {N}", value.len())))
}

/// Text.
pub(super) fn text(what: &'static str, value: &[u8]) -> Result<String> {
    String::from_utf8(value.to_vec()).map_err(|_| damaged(what, "it is no text".to_owned()))
}

/// The error about a value that makes no sense.
pub(super) fn damaged(what: &'static str, detail: String) -> LibraryError {
    LibraryError::Serialization(Box::new(StoreError::Corrupt { what, detail }))
}
