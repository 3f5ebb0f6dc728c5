//! Request and response bodies of the REST contract, a file a resource.

mod list;
mod message;
mod service;
mod session;
mod token;

pub use list::List;
pub use message::{
    Direction, Media, MediaKind, Message, MessageStatus, MessageType, Reaction, Receipts, SendMedia, SendText, Sent,
    SentStatus,
};
pub use service::{Health, NodeReachability, Probe, StorageReachability};
pub use session::{
    ActiveSession, CreateSession, PairingCode, PairingCodeRequest, QrCode, Session, SessionStatus, StatusChange,
};
pub use token::{CreateToken, CreatedToken, DeleteToken, Success, TokenInfo, TokenQuery};
