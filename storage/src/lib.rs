//! Rookery's stores: one trait a kind of data, the engines behind them, and the key material of a session as
//! the WhatsApp library wants it.
//!
//! Nothing here knows of sockets, actors or HTTP. An engine is chosen once, at start; everybody else holds a
//! [`Stores`] of trait objects.

mod amend;
mod chats;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contacts;
pub mod device;
pub mod embedded;
mod encryption;
mod error;
mod fence;
pub mod metrics;
mod nodes;
mod rows;
pub mod scylla;
pub mod search;
mod store;
mod sync;
mod tables;

pub use amend::{Amendment, Change, MAX_REACTIONS};
pub use chats::{ChatChange, ChatFacts, ChatPlace, ChatRow, LastMessage, Mute};
pub use contacts::{ContactFacts, ContactQuery, ContactRow};
pub use device::DeviceBackend;
pub use encryption::{ENCRYPTION_KEY_BYTES, EncryptionKeys, EncryptionKeysError};
pub use error::StoreError;
pub use fence::{Fence, Gate};
pub use nodes::{NodeRow, NodeStatus, Renewal};
pub use rows::{
    Accepted, EARLY_KEPT_SECS, Early, EarlyRow, HistoryQuery, HistoryRow, KeyKind, KeyOp, MediaFile, MessageReceipt,
    OutboxRow, Owner, Page, ParticipantRow, ReceiptKind, SendOutcome, SendRecord, SessionRow, TokenRow,
};
pub use store::{
    ChatStore, ContactStore, Engine, HistoryStore, KeyStore, NodeStore, OutboxStore, OwnerStore, SessionStore, Stores,
    SyncStore, TokenStore, WordStore,
};
pub use sync::{HistorySyncRow, Import, WaitingChunk};
