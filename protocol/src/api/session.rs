//! Bodies of `/api/whatsapp/sessions`.

use crate::{DeviceId, Epoch, Jid, NodeId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SessionStatus {
    /// Not connected, by the user's wish or because the service is stopping.
    Stopped,
    /// About to connect.
    Starting,
    /// Not linked yet: a QR code or a pairing code waits for the phone.
    ScanQrCode,
    /// The account asks for a passkey, which a gateway cannot give.
    PasskeyRequired,
    /// Linked and connected.
    Working,
    /// Linked, the connection is lost and will be made again.
    Reconnecting,
    /// On its way from one node to another.
    Moving,
    /// The phone or WhatsApp has removed the link.
    LoggedOut,
    /// It cannot go on by itself; `last_error` says why.
    Failed,
}

impl SessionStatus {
    /// All of them, in the order of the contract.
    pub const ALL: [Self; 9] = [
        Self::Stopped,
        Self::Starting,
        Self::ScanQrCode,
        Self::PasskeyRequired,
        Self::Working,
        Self::Reconnecting,
        Self::Moving,
        Self::LoggedOut,
        Self::Failed,
    ];

    /// As the contract writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "STOPPED",
            Self::Starting => "STARTING",
            Self::ScanQrCode => "SCAN_QR_CODE",
            Self::PasskeyRequired => "PASSKEY_REQUIRED",
            Self::Working => "WORKING",
            Self::Reconnecting => "RECONNECTING",
            Self::Moving => "MOVING",
            Self::LoggedOut => "LOGGED_OUT",
            Self::Failed => "FAILED",
        }
    }
}

impl SessionStatus {
    /// The status with this name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

impl fmt::Display for SessionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A status that a session took on, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusChange {
    /// The status.
    pub status: SessionStatus,
    /// Since when.
    pub at: Timestamp,
}

/// `POST /whatsapp/sessions`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateSession {
    /// 1 to 255 characters; need not be unique.
    #[schema(min_length = 1, max_length = 255)]
    pub session_name: String,
}

/// A session as every route shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Its id.
    pub session_id: SessionId,
    /// The name its user gave it.
    pub session_name: String,
    /// Where it stands.
    pub status: SessionStatus,
    /// The linked device, `number:device`.
    pub device_id: Option<DeviceId>,
    /// The linked account's phone number, digits alone.
    pub phone: Option<String>,
    /// The linked account's LID.
    pub lid: Option<Jid>,
    /// The linked account's name.
    pub push_name: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last connected.
    pub connected_at: Option<Timestamp>,
    /// Why it is not connected, where that is known.
    pub last_error: Option<String>,
    /// The last three statuses, newest first.
    pub history: Vec<StatusChange>,
    /// The node that runs it.
    pub node: Option<NodeId>,
    /// The epoch of its owner.
    pub epoch: Epoch,
    /// How far the history that the phone sends has come; `null` before it has sent any.
    pub history_sync: Option<HistorySync>,
    /// While `SCAN_QR_CODE`: the QR code as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qr: Option<String>,
    /// While `SCAN_QR_CODE`: until when `qr` can be scanned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qr_expires_at: Option<Timestamp>,
}

/// How far the history that the phone sends has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistorySync {
    /// How much of it is here, of 100.
    #[schema(maximum = 100)]
    pub progress: u32,
    /// Messages that came with it and were not here already.
    pub messages: u64,
    /// All that the phone gives a new companion is stored.
    pub done: bool,
}

/// `GET /whatsapp/sessions/{deviceId}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActiveSession {
    /// Whether it is connected.
    pub active: bool,
    /// The session.
    #[serde(flatten)]
    pub session: Session,
}

/// The answer of a route that changes a session: the session as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangedSession {
    /// Always true.
    pub success: bool,
    /// The session.
    #[serde(flatten)]
    pub session: Session,
}

/// `GET /whatsapp/sessions/{id}/qr` as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QrCode {
    /// The text to show as a QR code.
    pub qr: String,
    /// Until when it can be scanned.
    pub qr_expires_at: Timestamp,
}

/// `POST /whatsapp/sessions/{id}/pairing-code`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PairingCodeRequest {
    /// The phone number of the account to link.
    #[schema(example = "+1 555 000 1001")]
    pub phone: String,
}

/// The code to type on the phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PairingCode {
    /// Eight characters with a dash in the middle: `ABCD-EFGH`.
    pub code: String,
}
