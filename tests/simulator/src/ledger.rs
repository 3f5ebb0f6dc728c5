//! The way of every message: from its acceptance by the server to its acknowledgement by each device.
//!
//! Invariant: bounded; of many messages the oldest are forgotten. Knows ids and devices, never what a
//! message says.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::account::{DeviceKey, lock};

/// Messages that are remembered.
const MESSAGES: usize = 200_000;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// The device that sent it, `number:device`; 0 is the phone.
    pub from: String,
    /// When the server accepted it, seconds since the epoch.
    pub accepted_at: u64,
    /// The devices that it was queued for, `number:device`, in order of their names; and for each whether
    /// it has acknowledged the message. A phone has acknowledged what it has decrypted.
    pub devices: BTreeMap<String, bool>,
}

impl Trace {
    /// Every device that it was queued for has acknowledged it.
    pub fn is_acknowledged(&self) -> bool {
        self.devices.values().all(|acknowledged| *acknowledged)
    }
}

struct Entry {
    from: DeviceKey,
    accepted_at: u64,
    devices: Vec<(DeviceKey, bool)>,
}

#[derive(Default)]
struct Entries {
    entries: HashMap<Arc<str>, Entry>,
    order: VecDeque<Arc<str>>,
}

/// All messages of one simulator.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Entries>);

impl Ledger {
    /// The server has accepted a message. One that is sent again keeps its entry, and so does one whose
    /// id another account has used before.
    pub(crate) fn accepted(&self, from: &DeviceKey, id: &str, at: u64) {
        let mut ledger = lock(&self.0);
        if ledger.entries.contains_key(id) {
            return;
        }
        if ledger.order.len() >= MESSAGES
            && let Some(oldest) = ledger.order.pop_front()
        {
            ledger.entries.remove(&oldest);
        }
        let id: Arc<str> = id.into();
        ledger.order.push_back(id.clone());
        ledger.entries.insert(id, Entry { from: from.clone(), accepted_at: at, devices: Vec::new() });
    }

    /// It waits for a device.
    pub(crate) fn queued(&self, id: &str, device: DeviceKey) {
        let mut ledger = lock(&self.0);
        if let Some(entry) = ledger.entries.get_mut(id)
            && !entry.devices.iter().any(|(d, _)| *d == device)
        {
            entry.devices.push((device, false));
        }
    }

    /// A device has it.
    pub(crate) fn acknowledged(&self, id: &str, device: &DeviceKey) {
        let mut ledger = lock(&self.0);
        let entry = ledger.entries.get_mut(id);
        if let Some((_, done)) = entry.and_then(|e| e.devices.iter_mut().find(|(d, _)| d == device)) {
            *done = true;
        }
    }

    /// What became of a message.
    pub(crate) fn trace(&self, id: &str) -> Option<Trace> {
        let ledger = lock(&self.0);
        let entry = ledger.entries.get(id)?;
        let name = |device: &DeviceKey| format!("{}:{}", device.number, device.device);
        let devices = entry.devices.iter().map(|(device, done)| (name(device), *done)).collect();
        Some(Trace { from: name(&entry.from), accepted_at: entry.accepted_at, devices })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_acknowledged_when_every_device_has_it() {
        let ledger = Ledger::default();
        let key = |number: &str, device| DeviceKey { number: number.into(), device };
        let (sender, other) = (key("1", 2), key("3", 0));
        ledger.queued("A", other.clone());
        assert_eq!(ledger.trace("A"), None, "never accepted");
        ledger.accepted(&sender, "A", 7);
        ledger.accepted(&sender, "A", 9);
        for device in [other.clone(), other.clone(), key("3", 1)] {
            ledger.queued("A", device);
        }
        ledger.acknowledged("A", &other);
        let trace = ledger.trace("A").unwrap();
        assert_eq!((trace.from.as_str(), trace.accepted_at, trace.devices.len()), ("1:2", 7, 2));
        assert!(trace.devices["3:0"] && !trace.is_acknowledged());
        ledger.acknowledged("A", &key("3", 1));
        assert!(ledger.trace("A").unwrap().is_acknowledged());
        assert_eq!(ledger.trace("B"), None);
    }
}
