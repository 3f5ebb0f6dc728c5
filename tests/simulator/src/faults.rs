//! Faults that a test injects.

use std::sync::{Arc, Mutex};

use wacore_binary::Node;

use crate::account::lock;
use crate::connection::Link;
use crate::messages;
use crate::world::World;

/// Acknowledgements and the connections that they belong to.
type HeldAcks = Vec<(Arc<Link>, Node)>;

/// Faults that hold for the whole simulator.
#[derive(Default)]
pub(crate) struct FaultState {
    refused_login: Mutex<Option<u16>>,
    /// Acknowledgements that are kept back; `None` when they are not.
    held: Mutex<Option<HeldAcks>>,
}

impl FaultState {
    /// The reason with which logins are refused.
    pub(crate) fn refused_login(&self) -> Option<u16> {
        *lock(&self.refused_login)
    }

    /// Sends an acknowledgement, now or when acknowledgements are released. At most `limit` are kept;
    /// further ones are lost, as if the connection had broken.
    pub(crate) fn acknowledge(&self, link: &Arc<Link>, acknowledgement: &Node, limit: usize) {
        let mut held = lock(&self.held);
        let Some(held) = held.as_mut() else {
            link.send_node(acknowledgement);
            return;
        };
        if held.len() < limit {
            held.push((link.clone(), acknowledgement.clone()));
        }
    }
}

/// Injects faults. A device is named by its account's number and its own.
#[derive(Clone)]
pub struct Faults {
    world: Arc<World>,
}

impl Faults {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    fn link(&self, phone: &str, device: u16) -> Option<Arc<Link>> {
        let account = self.world.account(phone)?;
        let state = account.state();
        state.devices.get(&device)?.link.clone()
    }

    /// Drops a device's connection without a word: its socket is closed. False when it has none.
    pub fn drop_connection(&self, phone: &str, device: u16) -> bool {
        let link = self.link(phone, device);
        if let Some(link) = &link {
            link.kill.cancel();
        }
        link.is_some()
    }

    /// Stops reading from and writing to a device's present connection, or resumes. The socket stays
    /// open; a connection that the device makes meanwhile is not frozen. False when it has none.
    pub fn freeze(&self, phone: &str, device: u16, frozen: bool) -> bool {
        let link = self.link(phone, device);
        if let Some(link) = &link {
            link.freeze(frozen);
        }
        link.is_some()
    }

    /// Refuses every login with `<failure reason=...>` until called with `None`. Pairing goes on.
    pub fn refuse_logins(&self, reason: Option<u16>) {
        *lock(&self.world.faults.refused_login) = reason;
    }

    /// Keeps back the acknowledgements of messages that clients send (the messages are delivered), or
    /// releases those that were kept back.
    pub fn hold_acks(&self, hold: bool) {
        let mut held = lock(&self.world.faults.held);
        if hold {
            held.get_or_insert_default();
            return;
        }
        for (link, acknowledgement) in held.take().unwrap_or_default() {
            link.send_node(&acknowledgement);
        }
    }

    /// Sends a device again what it has not acknowledged. Returns how many stanzas.
    pub fn redeliver(&self, phone: &str, device: u16) -> usize {
        let account = self.world.account(phone);
        account.map_or(0, |a| messages::redeliver(&a, device))
    }
}
