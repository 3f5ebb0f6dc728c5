//! The life of one session, decided: `(state, event, now) -> effects`.
//!
//! Pure. Nothing here waits, writes or talks to anybody; the session's actor carries the effects out. The
//! invariant: at most one client runs at a time, so every [`Effect::StartClient`] names a fresh generation and
//! events of older generations never get here.

use rookery_protocol::{
    DeviceId, Jid, Timestamp,
    api::{SessionStatus, StatusChange},
};
use rookery_storage::SessionRow;
use std::time::Duration;

/// How many statuses a session remembers.
const STATUS_HISTORY: usize = 3;

/// Limits of the state machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// How many times a set of QR codes is asked for before pairing is given up.
    pub pairing_rounds: u32,
    /// How long to wait before taking a connection back that another client has taken.
    pub replaced_retry: Duration,
    /// How long a connection must have lasted before a second replacement counts as a new incident.
    pub replaced_window: Duration,
    /// The first delay before a client that ended unexpectedly is started again; doubles each time.
    pub restart_min: Duration,
    /// The longest such delay.
    pub restart_max: Duration,
}

/// A QR code that waits to be scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Qr {
    /// Its text.
    pub code: String,
    /// Until when it can be scanned.
    pub expires_at: Timestamp,
}

/// What the session's client reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientEvent {
    /// A QR code is due for this long.
    Qr { code: String, valid_for: Duration },
    /// All QR codes of this connection were shown and none was scanned.
    QrExhausted,
    /// The account asks for a passkey.
    PasskeyRequired,
    /// The phone has linked the device.
    Paired { device: DeviceId, lid: Option<Jid> },
    /// Pairing failed.
    PairFailed(String),
    /// Logged in and ready.
    Connected { push_name: Option<String> },
    /// The account's name changed.
    PushName(String),
    /// The connection is lost; the client makes a new one by itself.
    Disconnected(String),
    /// No connection could be made; the client tries again by itself.
    Unreachable(String),
    /// The link is gone.
    LoggedOut(String),
    /// Another client of the same device took the connection.
    Replaced,
    /// WhatsApp refuses the account for this long.
    Banned { lasts: Duration, why: String },
    /// WhatsApp refuses this client for good.
    Refused(String),
    /// The client ended without having been told to.
    Ended,
}

/// Something that happens to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The node took the session over.
    Activated,
    /// The user wants it connected.
    ConnectRequested,
    /// The user wants it disconnected.
    DisconnectRequested,
    /// The user wants the device forgotten.
    DeviceRemovalRequested,
    /// The retry that was asked for is due.
    RetryDue,
    /// The client reports.
    Client(ClientEvent),
}

/// What the actor has to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Start a client; one that runs is stopped first.
    StartClient,
    /// Stop the client.
    StopClient,
    /// Tell WhatsApp that the link ends, then stop the client.
    LogOut,
    /// Forget all key material.
    ClearKeys,
    /// Send [`Event::RetryDue`] after this time; replaces an earlier one.
    Retry(Duration),
    /// No retry is wanted any more.
    CancelRetry,
}

/// A session's state: what is stored of it and what is not.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// What is stored.
    pub row: SessionRow,
    /// The QR code that waits to be scanned.
    pub qr: Option<Qr>,
    rounds: u32,
    restarts: u32,
    replaced_at: Option<Timestamp>,
}

impl State {
    /// The state of a session that was just loaded.
    pub(crate) fn new(row: SessionRow) -> Self {
        Self { row, qr: None, rounds: 0, restarts: 0, replaced_at: None }
    }

    /// Where the session stands.
    pub(crate) fn status(&self) -> SessionStatus {
        self.row.status()
    }

    /// Takes an event in and says what is to be done.
    pub(crate) fn apply(&mut self, event: Event, policy: &Policy, now: Timestamp) -> Vec<Effect> {
        match event {
            Event::Activated if self.row.wanted => self.start(now),
            Event::Activated => vec![],
            Event::ConnectRequested => self.connect_requested(now),
            Event::DisconnectRequested => self.disconnect_requested(now),
            Event::DeviceRemovalRequested => self.device_removal_requested(now),
            Event::RetryDue if self.row.wanted => vec![Effect::StartClient],
            Event::RetryDue => vec![],
            // What a client still says after the user stopped it changes nothing but a loss of the link.
            Event::Client(ClientEvent::LoggedOut(reason)) => self.logged_out(reason, now),
            Event::Client(_) if !self.row.wanted => vec![],
            Event::Client(event) => self.client(event, policy, now),
        }
    }

    fn start(&mut self, now: Timestamp) -> Vec<Effect> {
        self.rounds = 0;
        self.qr = None;
        self.set(SessionStatus::Starting, now);
        vec![Effect::CancelRetry, Effect::StartClient]
    }

    fn connect_requested(&mut self, now: Timestamp) -> Vec<Effect> {
        if self.row.wanted && !matches!(self.status(), SessionStatus::Stopped | SessionStatus::Failed) {
            return vec![];
        }
        self.row.wanted = true;
        self.row.last_error = None;
        self.replaced_at = None;
        self.restarts = 0;
        self.start(now)
    }

    fn disconnect_requested(&mut self, now: Timestamp) -> Vec<Effect> {
        self.row.wanted = false;
        self.qr = None;
        if !matches!(self.status(), SessionStatus::LoggedOut | SessionStatus::Failed) {
            self.set(SessionStatus::Stopped, now);
        }
        vec![Effect::CancelRetry, Effect::StopClient]
    }

    fn device_removal_requested(&mut self, now: Timestamp) -> Vec<Effect> {
        self.forget_device();
        self.row.last_error = None;
        self.set(SessionStatus::LoggedOut, now);
        vec![Effect::CancelRetry, Effect::LogOut, Effect::ClearKeys]
    }

    fn logged_out(&mut self, reason: String, now: Timestamp) -> Vec<Effect> {
        if self.row.device.is_none() {
            return vec![];
        }
        self.forget_device();
        self.row.last_error = Some(reason);
        self.set(SessionStatus::LoggedOut, now);
        vec![Effect::CancelRetry, Effect::StopClient, Effect::ClearKeys]
    }

    fn forget_device(&mut self) {
        self.row.wanted = false;
        self.row.device = None;
        self.row.lid = None;
        self.row.push_name = None;
        self.qr = None;
    }

    fn client(&mut self, event: ClientEvent, policy: &Policy, now: Timestamp) -> Vec<Effect> {
        match event {
            ClientEvent::Qr { code, valid_for } => {
                let micros = i64::try_from(valid_for.as_micros()).unwrap_or(i64::MAX);
                let expires_at = Timestamp::from_micros(now.as_micros().saturating_add(micros));
                self.qr = Some(Qr { code, expires_at });
                self.row.last_error = None;
                self.set(SessionStatus::ScanQrCode, now);
                vec![]
            }
            ClientEvent::QrExhausted => {
                self.qr = None;
                self.rounds += 1;
                if self.rounds < policy.pairing_rounds {
                    return vec![Effect::StartClient];
                }
                self.fail("the QR code was not scanned in time; connect again for a new one".into(), now)
            }
            ClientEvent::PasskeyRequired => {
                self.qr = None;
                self.row.last_error = Some("the account asks for a passkey on its phone".into());
                self.set(SessionStatus::PasskeyRequired, now);
                vec![]
            }
            ClientEvent::Paired { device, lid } => {
                self.qr = None;
                self.row.device = Some(device);
                self.row.lid = lid;
                self.row.last_error = None;
                self.set(SessionStatus::Starting, now);
                vec![]
            }
            ClientEvent::PairFailed(reason) => self.fail(format!("pairing failed: {reason}"), now),
            ClientEvent::Connected { push_name } => {
                self.qr = None;
                self.restarts = 0;
                self.row.push_name = push_name.or(self.row.push_name.take());
                self.row.connected_at = Some(now);
                self.row.last_error = None;
                self.set(SessionStatus::Working, now);
                vec![]
            }
            ClientEvent::PushName(name) => {
                self.row.push_name = Some(name);
                vec![]
            }
            ClientEvent::Unreachable(reason) => {
                self.row.last_error = Some(reason);
                if self.row.device.is_some() {
                    self.set(SessionStatus::Reconnecting, now);
                }
                vec![]
            }
            ClientEvent::Disconnected(reason) => {
                if self.row.device.is_some() {
                    self.row.last_error = Some(reason);
                    self.set(SessionStatus::Reconnecting, now);
                }
                vec![]
            }
            ClientEvent::Replaced => self.replaced(policy, now),
            ClientEvent::Banned { lasts, why } => {
                self.row.last_error = Some(why);
                self.set(SessionStatus::Failed, now);
                vec![Effect::StopClient, Effect::Retry(lasts.max(policy.restart_max))]
            }
            ClientEvent::Refused(reason) => self.fail(reason, now),
            ClientEvent::Ended => {
                let delay = policy.restart_min.saturating_mul(1 << self.restarts.min(16)).min(policy.restart_max);
                self.restarts += 1;
                if self.row.device.is_some() {
                    self.set(SessionStatus::Reconnecting, now);
                }
                vec![Effect::StopClient, Effect::Retry(delay)]
            }
            ClientEvent::LoggedOut(reason) => self.logged_out(reason, now),
        }
    }

    /// Another client of this device is connected. Taking the connection back at once would start a fight that
    /// ends with a locked account: one retry, late; then a person has to look.
    fn replaced(&mut self, policy: &Policy, now: Timestamp) -> Vec<Effect> {
        let recent = self.replaced_at.is_some_and(|at| {
            now.as_micros() - at.as_micros() < i64::try_from(policy.replaced_window.as_micros()).unwrap_or(i64::MAX)
        });
        if recent {
            return self.fail("conflict: another client uses this device; stop it, then connect again".into(), now);
        }
        self.replaced_at = Some(now);
        self.row.last_error = Some("another client took the connection of this device".into());
        self.set(SessionStatus::Reconnecting, now);
        vec![Effect::StopClient, Effect::Retry(policy.replaced_retry)]
    }

    fn fail(&mut self, reason: String, now: Timestamp) -> Vec<Effect> {
        self.qr = None;
        self.row.wanted = false;
        self.row.last_error = Some(reason);
        self.set(SessionStatus::Failed, now);
        vec![Effect::CancelRetry, Effect::StopClient]
    }

    fn set(&mut self, status: SessionStatus, now: Timestamp) {
        if self.row.statuses.first().is_none_or(|change| change.status != status) {
            self.row.statuses.insert(0, StatusChange { status, at: now });
            self.row.statuses.truncate(STATUS_HISTORY);
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
