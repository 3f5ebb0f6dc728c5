//! Faults that a test injects, on a connection, an account's connections or all.

mod scope;
mod state;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wacore_binary::Node;

use scope::Scope;
pub use state::MediaFault;
pub(crate) use state::{Break, FaultState};

use crate::account::{Account, DeviceKey, lock};
use crate::link::Link;
use crate::media;
use crate::messages;
use crate::prekeys::Bundle;
use crate::router;
use crate::stanza::{element, server_jid};
use crate::world::World;

/// Injects faults: on everybody, unless it was narrowed by [`Faults::of_account`] or [`Faults::of_device`].
///
/// A fault that holds until it is taken back can be set for all, for an account and for a device at once; the
/// narrowest counts. Taking it back for all takes back the narrower ones as well.
#[derive(Clone)]
pub struct Faults {
    world: Arc<World>,
    scope: Scope,
}

/// A device, its account and its connection.
type Target = (Arc<Account>, u16, Option<Arc<Link>>);

impl Faults {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world, scope: Scope::All }
    }

    /// Faults on the devices of the account with this number.
    pub fn of_account(&self, phone: &str) -> Self {
        Self { world: self.world.clone(), scope: Scope::Account(phone.into()) }
    }

    /// Faults on one device.
    pub fn of_device(&self, phone: &str, device: u16) -> Self {
        let key = DeviceKey { number: phone.into(), device };
        Self { world: self.world.clone(), scope: Scope::Device(key) }
    }

    fn targets(&self) -> Vec<Target> {
        let accounts = match &self.scope {
            Scope::All => self.world.accounts(),
            Scope::Account(number) => self.world.account(number).into_iter().collect(),
            Scope::Device(key) => self.world.account(&key.number).into_iter().collect(),
        };
        let mut targets = Vec::new();
        for account in accounts {
            let state = account.state();
            let met = state.devices.iter().filter(|(device, _)| self.scope.has(&account.key(**device)));
            targets.extend(met.map(|(device, d)| (account.clone(), *device, d.link.clone())));
        }
        targets
    }

    /// Does something to every connection. Returns to how many.
    fn on_links(&self, act: impl Fn(&Link)) -> usize {
        self.targets().into_iter().filter_map(|(_, _, link)| link).map(|link| act(&link)).count()
    }

    /// Drops connections without a word: their sockets are closed. Returns how many.
    pub fn drop_connections(&self) -> usize {
        self.on_links(|link| link.kill.cancel())
    }

    /// Drops a device's connection. False when it has none.
    pub fn drop_connection(&self, phone: &str, device: u16) -> bool {
        self.of_device(phone, device).drop_connections() > 0
    }

    /// Stops reading from and writing to the present connections, or resumes. The sockets stay open; a connection
    /// that a device makes meanwhile is not frozen. Returns how many.
    pub fn freeze_connections(&self, frozen: bool) -> usize {
        self.on_links(|link| link.freeze(frozen))
    }

    /// Freezes a device's connection, or resumes. False when it has none.
    pub fn freeze(&self, phone: &str, device: u16, frozen: bool) -> bool {
        self.of_device(phone, device).freeze_connections(frozen) > 0
    }

    /// Breaks connections in the middle of a frame. Returns how many.
    pub fn cut_frames(&self) -> usize {
        self.on_links(|link| link.cut(&element("ib").attr("from", server_jid()).build()))
    }

    /// Breaks a device's connection in the middle of a frame. False when it has none.
    pub fn cut_frame(&self, phone: &str, device: u16) -> bool {
        self.of_device(phone, device).cut_frames() > 0
    }

    /// Ends streams with `<stream:error code=...>`; the clients are to connect anew. Returns how many.
    pub fn stream_errors(&self, code: u16) -> usize {
        let error = element("stream:error").attr("code", code).build();
        self.on_links(|link| link.say_and_close(Some(&error), self.world.config.close_grace))
    }

    /// Ends a device's stream with `<stream:error code=...>`. False when it has no connection.
    pub fn stream_error(&self, phone: &str, device: u16, code: u16) -> bool {
        self.of_device(phone, device).stream_errors(code) > 0
    }

    /// Logs in as devices that have a connection, as if their clients had been started twice: the present
    /// connections are told `replaced`. Returns how many.
    pub fn second_logins(&self) -> usize {
        let mut hit = 0;
        for (account, device, link) in self.targets() {
            let Some(link) = link else { continue };
            router::replace(&self.world, &link);
            // Nobody is behind the other login: the device is away until its client connects anew.
            if let Some(device) = account.state().devices.get_mut(&device) {
                device.disconnect(&link);
            }
            hit += 1;
        }
        hit
    }

    /// Sends connections a stanza that no client knows. Returns to how many.
    pub fn unknown_stanzas(&self) -> usize {
        let stanza: Node = element("unheard-of").attr("from", server_jid()).attr("id", self.world.next_id()).build();
        self.on_links(|link| link.send_node(&stanza))
    }

    /// Sends a device a stanza that no client knows. False when it has no connection.
    pub fn unknown_stanza(&self, phone: &str, device: u16) -> bool {
        self.of_device(phone, device).unknown_stanzas() > 0
    }

    /// Breaks connections at random: before each write with this probability, half of the time in the middle of a
    /// frame. Zero ends it.
    pub fn break_at_random(&self, probability: f64, seed: u64) {
        self.world.faults.set_breaking(&self.scope, probability, seed);
    }

    /// Delays what is written to connections by `least` and up to `jitter` more. Order stays. Zero for both ends it.
    pub fn delay(&self, least: Duration, jitter: Duration, seed: u64) {
        self.world.faults.set_delay(&self.scope, least, jitter, seed);
    }

    /// Refuses every login with `<failure reason=...>` until called with `None`. Pairing goes on.
    pub fn refuse_logins(&self, reason: Option<u16>) {
        self.world.faults.refuse_logins(&self.scope, reason);
    }

    /// Keeps back the acknowledgements of messages that clients send (the messages are delivered), or releases
    /// those that were kept back.
    pub fn hold_acks(&self, hold: bool) {
        for (_, link, acknowledgement) in self.world.faults.hold_acks(&self.scope, hold) {
            link.send_node(&acknowledgement);
        }
    }

    /// Sends devices again what they have not acknowledged. Returns how many stanzas.
    pub fn redeliver_all(&self) -> usize {
        let targets = self.targets();
        targets.iter().map(|(account, device, _)| messages::redeliver(&self.world, account, *device)).sum()
    }

    /// Sends a device again what it has not acknowledged. Returns how many stanzas.
    pub fn redeliver(&self, phone: &str, device: u16) -> usize {
        self.of_device(phone, device).redeliver_all()
    }

    /// Delivers everything twice from now on, or no longer.
    pub fn duplicate(&self, on: bool) {
        self.world.faults.duplicate(&self.scope, on);
    }

    /// Keeps receipts for devices back, or releases those that were kept back, in an order that the seed decides.
    pub fn hold_receipts(&self, hold: bool, seed: u64) {
        for (account, device, receipt) in self.world.faults.hold_receipts(&self.scope, hold, seed) {
            self.world.deliver(&account, device, receipt);
        }
    }

    /// Refuses messages with an error in the acknowledgement (463: no trusted contact token; 479: a stanza that
    /// WhatsApp does not like) and delivers them to nobody. Without a code: no longer.
    pub fn reject(&self, code: Option<u16>) {
        self.world.faults.reject(&self.scope, code);
    }

    /// Refuses messages of one account's devices, or of all.
    pub fn reject_messages(&self, phone: Option<&str>, code: Option<u16>) {
        phone.map_or_else(|| self.clone(), |p| self.of_account(p)).reject(code);
    }

    /// Takes devices' one-time prekeys away without telling them. Returns how many they had.
    pub fn exhaust_all_prekeys(&self) -> usize {
        let exhaust = |(account, device, _): Target| {
            let mut state = account.state();
            let bundle = state.devices.get_mut(&device).and_then(|d| d.bundle.as_deref_mut());
            bundle.map_or(0, Bundle::exhaust)
        };
        self.targets().into_iter().map(exhaust).sum()
    }

    /// Takes a device's one-time prekeys away without telling it. Returns how many it had.
    pub fn exhaust_prekeys(&self, phone: &str, device: u16) -> usize {
        self.of_device(phone, device).exhaust_all_prekeys()
    }

    /// Removes devices from their accounts, as their phones could: they are told so, their connections end, and they
    /// can never log in again. Returns how many.
    pub fn remove_devices(&self) -> usize {
        let remove = |(account, device, _): &Target| router::remove_device(&self.world, account, *device);
        self.targets().iter().filter(|target| remove(target)).count()
    }

    /// Puts the server's clock ahead of the machine's, or behind by a negative number. Clients learn of it when they
    /// log in; messages carry the server's time. For everybody, whatever the scope.
    pub fn clock_ahead(&self, seconds: i64) {
        self.world.faults.clock_ahead.store(seconds, Ordering::Relaxed);
    }

    /// Makes the media host fail, or no longer. For everybody, whatever the scope.
    pub fn media(&self, fault: Option<MediaFault>) {
        *lock(&self.world.faults.media) = fault;
    }

    /// Lets a medium expire, named by its `direct_path`, or all media: downloads are answered 410. Returns how
    /// many there were.
    pub fn expire_media(&self, direct_path: Option<&str>) -> usize {
        let name = direct_path.map(|path| media::name(path).unwrap_or(path));
        lock(&self.world.media).expire(name)
    }

    /// Lets the media host and all phones forget a medium, named by its `direct_path`, or all media: downloads are
    /// answered 404, and phones that are asked for it have it no longer. Returns how many there were.
    pub fn forget_media(&self, direct_path: Option<&str>) -> usize {
        let name = direct_path.map(|path| media::name(path).unwrap_or(path));
        lock(&self.world.media).forget(name)
    }

    /// Phones leave it unanswered when they are asked for a medium again, as phones do that are off, or no longer.
    /// For everybody, whatever the scope.
    pub fn silent_about_media(&self, silent: bool) {
        self.world.faults.silent_about_media.store(silent, Ordering::Relaxed);
    }

    /// Ends streams as a server does that goes away: `<xmlstreamend/>`, then the close. Returns how many.
    pub fn end_streams(&self) -> usize {
        let end = element("xmlstreamend").build();
        self.on_links(|link| link.say_and_close(Some(&end), self.world.config.close_grace))
    }

    /// Ends a device's stream as a server does that goes away. False when it has no connection.
    pub fn end_stream(&self, phone: &str, device: u16) -> bool {
        self.of_device(phone, device).end_streams() > 0
    }
}
