//! Errors that a caller of the library sees, and the one that a stanza handler returns.

use std::net::SocketAddr;

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The self-signed certificate could not be made.
    #[error("cannot make the TLS certificate: {0}")]
    Certificate(String),
    /// The Noise certificate chain could not be signed.
    #[error("cannot sign the certificate chain: {0}")]
    Chain(String),
}

/// Why a phone could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum PhoneError {
    /// The text is not a QR code of a linked device.
    #[error("not a pairing QR code: {0}")]
    InvalidQr(String),
    /// The QR code's reference is unknown, used or expired.
    #[error("unknown or expired pairing reference")]
    UnknownReference,
    /// No client asked for a pairing code for this number.
    #[error("no client waits for a pairing code of this number")]
    NoPendingCode,
    /// The pairing code cannot belong to the pending pairing.
    #[error("wrong pairing code: {0}")]
    WrongCode(String),
    /// The account has as many companion devices as it may have.
    #[error("the account already has {0} linked devices")]
    TooManyDevices(usize),
    /// The number belongs to no account.
    #[error("no account has the number {0}")]
    UnknownNumber(String),
    /// The account has no such companion device.
    #[error("the account has no device {0}")]
    UnknownDevice(u16),
    /// The phone never got a message with this id.
    #[error("the phone has no message {0}")]
    UnknownMessage(String),
    /// The server does not allow it.
    #[error("{0}")]
    Refused(String),
    /// A Signal operation failed.
    #[error("signal: {0}")]
    Signal(String),
    /// Nothing that matches arrived in time.
    #[error("no matching message within {0:?}")]
    Timeout(std::time::Duration),
    /// A request is out of bounds.
    #[error("{0}")]
    Invalid(String),
}

/// Why a client's stanza could not be handled. The client is told ([`refusals`](crate::refusals)); the
/// connection goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StanzaError {
    /// A part that the protocol demands is missing or malformed.
    #[error("missing or malformed {0}")]
    Malformed(&'static str),
    /// A type that the protocol does not have.
    #[error("unknown type")]
    UnknownType,
    /// A stanza that only a logged-in device may send.
    #[error("not logged in")]
    NotLoggedIn,
    /// The server refuses it with a code of its own.
    #[error("refused: {code} {text}")]
    Refused {
        /// The protocol's error code.
        code: u16,
        /// The protocol's error text.
        text: &'static str,
    },
}
