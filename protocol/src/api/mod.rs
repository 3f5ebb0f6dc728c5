//! Request and response bodies of the REST contract, a file a resource.

mod chat;
mod contact;
mod list;
mod message;
mod service;
mod session;
mod token;

pub use chat::{Chat, ChatMessage};
pub use contact::{Contact, ProfilePicture};
pub use list::List;
pub use message::{
    Direction, Media, MediaKind, MediaShape, Message, MessageMedia, MessageStatus, MessageType, ParticipantReceipt,
    Reaction, Receipts, SendMedia, SendText, Sent, SentStatus, UploadMedia,
};
pub use service::{Cluster, ClusterNode, Health, NodeReachability, NodeState, Probe, SessionMove, StorageReachability};
pub use session::{
    ActiveSession, ChangedSession, CreateSession, HistorySync, PairingCode, PairingCodeRequest, QrCode, Session,
    SessionStatus, StatusChange,
};
pub use token::{CreateToken, CreatedToken, DeleteToken, Success, TokenInfo, TokenQuery};
