//! What crosses a boundary of Rookery: identifiers, errors and request and response bodies.
//!
//! This crate does no I/O and knows neither the database nor the WhatsApp protocol. Everything here is
//! plain data that is valid by construction: whoever holds a [`Jid`] or a [`SessionId`] need not check it.

pub mod api;
pub mod cluster;
mod error;
mod id;
mod schema;
mod time;

pub use error::{ApiError, ErrorBody, ErrorCode, FieldErrors, Unauthorized};
pub use id::{DeviceId, Epoch, IdError, Incarnation, Jid, JidServer, MessageId, NodeId, SessionId, TokenId, UserId};
pub use time::Timestamp;
