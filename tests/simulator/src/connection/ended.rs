//! Why a connection ended: how it is counted, and what the client is told.

use tokio_websockets::{CloseCode, Error as WsError};

use crate::decode::DecodeError;
use crate::frames::FrameError;
use crate::handshake::HandshakeError;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The client has closed it.
    #[error("closed by the client")]
    Closed,
    /// The client was told to go and has not closed in time.
    #[error("closed after its grace")]
    Dismissed,
    /// A fault has broken it.
    #[error("broken by a fault")]
    Broken,
    /// Not a websocket, or no longer.
    #[error("websocket: {0}")]
    WebSocket(#[from] WsError),
    /// No frames of WhatsApp.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// No Noise handshake.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The handshake took too long.
    #[error("no handshake in time")]
    Deadline,
    /// A frame was not encrypted by the client that shook hands, or came twice, or out of order.
    #[error("cannot decrypt a frame")]
    Decrypt,
    /// A frame holds no stanza.
    #[error(transparent)]
    Stanza(#[from] DecodeError),
    /// A stanza of the server cannot be framed.
    #[error("cannot write: {0}")]
    Write(String),
}

impl Ended {
    /// How it is counted when the client is to blame.
    pub(super) fn kind(&self) -> Option<&'static str> {
        Some(match self {
            Self::Closed | Self::Dismissed | Self::Broken | Self::Write(_) => return None,
            Self::WebSocket(WsError::PayloadTooLong { .. }) | Self::Frame(FrameError::TooLong(_)) => "closed: too long",
            Self::WebSocket(WsError::Upgrade(_)) => "closed: no websocket",
            Self::WebSocket(WsError::Protocol(_)) => "closed: bad websocket",
            Self::WebSocket(_) => return None,
            Self::Frame(FrameError::Header) => "closed: bad header",
            Self::Handshake(HandshakeError::Replayed) => "closed: replayed handshake",
            Self::Handshake(_) => "closed: bad handshake",
            Self::Deadline => "closed: too slow",
            Self::Decrypt => "closed: bad cipher",
            Self::Stanza(_) => "closed: bad stanza",
        })
    }

    /// What the websocket's close frame says.
    pub(super) fn close(&self) -> Option<(CloseCode, &'static str)> {
        Some(match self {
            Self::Closed | Self::Broken => return None,
            Self::Dismissed => (CloseCode::NORMAL_CLOSURE, ""),
            Self::WebSocket(WsError::PayloadTooLong { .. }) | Self::Frame(FrameError::TooLong(_)) => {
                (CloseCode::MESSAGE_TOO_BIG, "frame too long")
            }
            Self::WebSocket(_) => return None,
            Self::Frame(FrameError::Header) => (CloseCode::PROTOCOL_ERROR, "unknown header"),
            Self::Handshake(_) => (CloseCode::PROTOCOL_ERROR, "bad handshake"),
            Self::Deadline => (CloseCode::POLICY_VIOLATION, "no handshake in time"),
            Self::Decrypt => (CloseCode::PROTOCOL_ERROR, "bad cipher"),
            Self::Stanza(_) => (CloseCode::PROTOCOL_ERROR, "bad stanza"),
            Self::Write(_) => (CloseCode::INTERNAL_SERVER_ERROR, ""),
        })
    }
}
