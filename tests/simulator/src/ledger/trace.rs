//! The way of a message as a test sees it.

use std::collections::BTreeMap;

use serde::Serialize;

/// What became of a message. Times are milliseconds since the epoch by this machine's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// The message's id.
    pub id: String,
    /// The device that sent it, `number:device`; 0 is the phone.
    pub from: String,
    /// When the server accepted it first, seconds since the epoch by the server's own clock.
    pub accepted_at: u64,
    /// The same by this machine's clock.
    pub accepted_ms: u64,
    /// How often its sender sent it.
    pub accepted: u32,
    /// The connection that it came over last; 0 for a phone.
    pub connection: u64,
    /// The devices that it was queued for by `number:device`, in order of their names.
    pub devices: BTreeMap<String, DeviceTrace>,
}

impl Trace {
    /// Every device that it was queued for has acknowledged it.
    pub fn is_acknowledged(&self) -> bool {
        self.devices.values().all(DeviceTrace::is_acknowledged)
    }

    /// A device, by `number:device`, has acknowledged it.
    pub fn is_acknowledged_by(&self, device: &str) -> bool {
        self.devices.get(device).is_some_and(DeviceTrace::is_acknowledged)
    }
}

/// The way of a message to one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceTrace {
    /// When it was queued first.
    pub queued_ms: u64,
    /// When and why it was written to the device: the first 16 times. A phone gets it at once.
    pub deliveries: Vec<Delivery>,
    /// When the device acknowledged it. A phone acknowledges what it has decrypted.
    pub acknowledged_ms: Option<u64>,
    /// The connection over which the device acknowledged it; 0 for a phone.
    pub acknowledged_over: Option<u64>,
    /// Why the device will never get it.
    pub lost: Option<Lost>,
}

impl DeviceTrace {
    /// The device has acknowledged it.
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged_ms.is_some()
    }
}

/// A message was written to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// When.
    pub at_ms: u64,
    /// Over which connection; 0 for a phone.
    pub connection: u64,
    /// Why.
    pub cause: Cause,
}

/// Why a message was written to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// For the first time.
    First,
    /// The device had not acknowledged it over its former connection.
    Reconnected,
    /// It was sent again over the same connection: by a fault, or because the device asked for its stanzas anew.
    Redelivered,
    /// By the fault that delivers everything twice.
    Duplicated,
    /// The device could not decrypt it and has asked for it again.
    Retried,
    /// Its sender sent it again and may have to: it has no clean acknowledgement, or has connected anew.
    SentAgain,
    /// Its sender sent it again over the same connection, although it was acknowledged and nobody had asked.
    Unasked,
}

/// Why a device will never get a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lost {
    /// The device was removed.
    DeviceRemoved,
    /// The device's queue was full.
    QueueFull,
}

/// A message that a device has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Acknowledged {
    /// The message's id.
    pub id: String,
    /// The device that sent it, `number:device`.
    pub from: String,
    /// When it was acknowledged, milliseconds since the epoch.
    pub at_ms: u64,
    /// The connection over which it was; 0 for a phone.
    pub connection: u64,
}
