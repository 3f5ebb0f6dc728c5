//! Faults that a test injects.

mod state;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wacore_binary::Node;

pub(crate) use state::FaultState;
pub use state::MediaFault;

use crate::account::lock;
use crate::link::Link;
use crate::media;
use crate::messages;
use crate::stanza::{element, server_jid};
use crate::world::World;

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
        for (link, acknowledgement) in self.world.faults.hold_acks(hold) {
            link.send_node(&acknowledgement);
        }
    }

    /// Sends a device again what it has not acknowledged. Returns how many stanzas.
    pub fn redeliver(&self, phone: &str, device: u16) -> usize {
        let account = self.world.account(phone);
        account.map_or(0, |a| messages::redeliver(&a, device))
    }
    /// Delivers everything twice from now on, or no longer.
    pub fn duplicate(&self, on: bool) {
        self.world.faults.duplicates.store(on, Ordering::Relaxed);
    }

    /// Keeps receipts for devices back, or releases those that were kept back, in an order that the seed
    /// decides.
    pub fn hold_receipts(&self, hold: bool, seed: u64) {
        for (account, device, receipt) in self.world.faults.hold_receipts(hold, seed) {
            self.world.deliver(&account, device, receipt);
        }
    }

    /// Refuses messages of one account's devices, or of all, with an error in the acknowledgement (463: no
    /// trusted contact token; 479: a stanza that WhatsApp does not like) and delivers them to nobody.
    /// Without a code: no longer.
    pub fn reject_messages(&self, phone: Option<&str>, code: Option<u16>) {
        self.world.faults.reject(phone, code);
    }

    /// Delays what is written to any connection by `least` and up to `jitter` more. Order stays. Zero
    /// for both ends it.
    pub fn delay(&self, least: Duration, jitter: Duration, seed: u64) {
        self.world.faults.set_delay(least, jitter, seed);
    }

    /// Breaks a device's connection in the middle of a frame. False when it has none.
    pub fn cut_frame(&self, phone: &str, device: u16) -> bool {
        self.on_link(phone, device, |link| link.cut(&element("ib").attr("from", server_jid()).build()))
    }

    /// Ends a device's stream with `<stream:error code=...>`; the client is to connect anew. False when it
    /// has no connection.
    pub fn stream_error(&self, phone: &str, device: u16, code: u16) -> bool {
        let error = element("stream:error").attr("code", code).build();
        self.on_link(phone, device, |link| link.say_and_close(Some(&error), self.world.config.close_grace))
    }

    /// Sends a device a stanza that no client knows. False when it has no connection.
    pub fn unknown_stanza(&self, phone: &str, device: u16) -> bool {
        let stanza: Node = element("unheard-of").attr("from", server_jid()).attr("id", self.world.next_id()).build();
        self.on_link(phone, device, |link| link.send_node(&stanza))
    }

    /// Takes a device's one-time prekeys away without telling it. Returns how many it had.
    pub fn exhaust_prekeys(&self, phone: &str, device: u16) -> usize {
        let Some(account) = self.world.account(phone) else {
            return 0;
        };
        let mut state = account.state();
        let bundle = state.devices.get_mut(&device).and_then(|d| d.bundle.as_deref_mut());
        bundle.map_or(0, crate::prekeys::Bundle::exhaust)
    }

    /// Puts the server's clock ahead of the machine's, or behind by a negative number. Clients learn of it
    /// when they log in; messages carry the server's time.
    pub fn clock_ahead(&self, seconds: i64) {
        self.world.faults.clock_ahead.store(seconds, Ordering::Relaxed);
    }

    /// Makes the media host fail, or no longer.
    pub fn media(&self, fault: Option<MediaFault>) {
        *lock(&self.world.faults.media) = fault;
    }

    /// Lets a medium expire, named by its `direct_path`, or all media: downloads are answered 410. Returns how
    /// many there were.
    pub fn expire_media(&self, direct_path: Option<&str>) -> usize {
        let name = direct_path.map(|path| media::name(path).unwrap_or(path));
        lock(&self.world.media).expire(name)
    }

    /// Ends a device's stream as a server does that goes away: `<xmlstreamend/>`, then the close. False when it
    /// has no connection.
    pub fn end_stream(&self, phone: &str, device: u16) -> bool {
        let end = element("xmlstreamend").build();
        self.on_link(phone, device, |link| link.say_and_close(Some(&end), self.world.config.close_grace))
    }

    fn on_link(&self, phone: &str, device: u16, act: impl FnOnce(&Link)) -> bool {
        let link = self.link(phone, device);
        if let Some(link) = &link {
            act(link);
        }
        link.is_some()
    }
}
