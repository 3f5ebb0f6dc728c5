//! Which faults hold, and what they decide. Everything random comes from a seed.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use wacore_binary::Node;

use super::scope::{Scope, Scoped};
use crate::account::{Account, DeviceKey, lock};
use crate::link::Link;
use crate::stanza::unix_now;

/// Receipts that are kept back.
const RECEIPTS: usize = 100_000;

/// An acknowledgement, the connection that it belongs to, and its device.
pub(super) type HeldAck = (DeviceKey, Arc<Link>, Node);
/// A receipt and the device that it is for.
pub(super) type HeldReceipt = (Arc<Account>, u16, Node);

/// What is wrong with the media host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaFault {
    /// It answers 503.
    Down,
    /// It answers late.
    Slow(Duration),
    /// It answers with other bytes than were uploaded.
    Lying,
}

/// Connections are slow.
struct Delay {
    least: Duration,
    jitter: Duration,
    random: StdRng,
}

/// Connections break at random.
struct Breaking {
    /// Of one write.
    probability: f64,
    random: StdRng,
}

/// How a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// Before the next frame.
    Drop,
    /// In the middle of it.
    Cut,
}

/// What is kept back, for whom, and since it was.
struct Held<T> {
    who: Scoped<()>,
    items: Vec<T>,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { who: Scoped::default(), items: Vec::new() }
    }
}

impl<T> Held<T> {
    /// Keeps back for a scope from now on, or no longer; then gives what nobody keeps back any more.
    fn hold(&mut self, scope: &Scope, hold: bool, device: impl Fn(&T) -> DeviceKey) -> Vec<T> {
        self.who.set(scope, hold.then_some(()));
        let (kept, released) =
            std::mem::take(&mut self.items).into_iter().partition(|item| self.who.get(&device(item)).is_some());
        self.items = kept;
        released
    }
}

/// Faults that hold until they are taken back.
#[derive(Default)]
pub(crate) struct FaultState {
    refused_logins: Mutex<Scoped<u16>>,
    acks: Mutex<Held<HeldAck>>,
    receipts: Mutex<Held<HeldReceipt>>,
    rejected: Mutex<Scoped<u16>>,
    duplicated: Mutex<Scoped<()>>,
    delays: Mutex<Scoped<Delay>>,
    breaking: Mutex<Scoped<Breaking>>,
    /// Whether any connection is slow or breaks: most of the time none does.
    troubled: AtomicBool,
    /// Seconds by which the server's clock is ahead.
    pub(super) clock_ahead: AtomicI64,
    pub(super) media: Mutex<Option<MediaFault>>,
    /// Whether phones leave requests for media unanswered.
    pub(super) silent_about_media: AtomicBool,
}

impl FaultState {
    /// The reason with which a device's logins are refused.
    pub(crate) fn refused_login(&self, device: &DeviceKey) -> Option<u16> {
        lock(&self.refused_logins).get(device)
    }

    pub(super) fn refuse_logins(&self, scope: &Scope, reason: Option<u16>) {
        lock(&self.refused_logins).set(scope, reason);
    }

    /// Sends a device an acknowledgement, now or when acknowledgements are released. At most `limit` are kept;
    /// further ones are lost, as if the connection had broken. Whether it was sent now.
    pub(crate) fn acknowledge(&self, device: &DeviceKey, link: &Arc<Link>, ack: &Node, limit: usize) -> bool {
        let mut acks = lock(&self.acks);
        if acks.who.get(device).is_none() {
            link.send_node(ack);
            return true;
        }
        if acks.items.len() < limit {
            acks.items.push((device.clone(), link.clone(), ack.clone()));
        }
        false
    }

    pub(super) fn hold_acks(&self, scope: &Scope, hold: bool) -> Vec<HeldAck> {
        lock(&self.acks).hold(scope, hold, |(device, _, _)| device.clone())
    }

    /// Keeps a receipt back if receipts for its device are; otherwise gives it back. Too many are lost.
    pub(crate) fn hold_receipt(&self, account: &Arc<Account>, device: u16, receipt: Node) -> Option<Node> {
        let mut receipts = lock(&self.receipts);
        if receipts.who.get(&account.key(device)).is_none() {
            return Some(receipt);
        }
        if receipts.items.len() < RECEIPTS {
            receipts.items.push((account.clone(), device, receipt));
        }
        None
    }

    /// Keeps receipts back, or gives those that were kept back in an order that the seed decides.
    pub(super) fn hold_receipts(&self, scope: &Scope, hold: bool, seed: u64) -> Vec<HeldReceipt> {
        let mut released = lock(&self.receipts).hold(scope, hold, |(account, device, _)| account.key(*device));
        released.shuffle(&mut StdRng::seed_from_u64(seed));
        released
    }

    /// The error with which a device's messages are refused.
    pub(crate) fn rejection(&self, device: &DeviceKey) -> Option<u16> {
        lock(&self.rejected).get(device)
    }

    pub(super) fn reject(&self, scope: &Scope, code: Option<u16>) {
        lock(&self.rejected).set(scope, code);
    }

    /// Whether everything for a device is delivered twice.
    pub(crate) fn duplicates(&self, device: &DeviceKey) -> bool {
        lock(&self.duplicated).get(device).is_some()
    }

    pub(super) fn duplicate(&self, scope: &Scope, on: bool) {
        lock(&self.duplicated).set(scope, on.then_some(()));
    }

    /// The server's time, seconds since the epoch.
    pub(crate) fn now(&self) -> u64 {
        unix_now().saturating_add_signed(self.clock_ahead.load(Ordering::Relaxed))
    }

    pub(super) fn set_delay(&self, scope: &Scope, least: Duration, jitter: Duration, seed: u64) {
        let random = StdRng::seed_from_u64(seed);
        let delay = (!(least + jitter).is_zero()).then_some(Delay { least, jitter, random });
        self.trouble(delay.is_some());
        lock(&self.delays).set(scope, delay);
    }

    pub(super) fn set_breaking(&self, scope: &Scope, probability: f64, seed: u64) {
        let random = StdRng::seed_from_u64(seed);
        let breaking = (probability > 0.0).then_some(Breaking { probability: probability.min(1.0), random });
        self.trouble(breaking.is_some());
        lock(&self.breaking).set(scope, breaking);
    }

    fn trouble(&self, begins: bool) {
        if begins {
            self.troubled.store(true, Ordering::Relaxed);
        }
    }

    /// How long to wait before something is written to a device's connection.
    pub(crate) fn pause(&self, device: Option<&DeviceKey>) -> Option<Duration> {
        if !self.troubled.load(Ordering::Relaxed) {
            return None;
        }
        let mut delays = lock(&self.delays);
        let delay = delays.get_mut(device)?;
        Some(delay.least + delay.jitter.mul_f64(delay.random.random::<f64>()))
    }

    /// Whether and how a device's connection breaks at this write.
    pub(crate) fn breaks(&self, device: Option<&DeviceKey>) -> Option<Break> {
        if !self.troubled.load(Ordering::Relaxed) {
            return None;
        }
        let mut breaking = lock(&self.breaking);
        let breaking = breaking.get_mut(device)?;
        if !breaking.random.random_bool(breaking.probability) {
            return None;
        }
        Some(if breaking.random.random_bool(0.5) { Break::Cut } else { Break::Drop })
    }

    /// Whether phones leave requests for media unanswered.
    pub(crate) fn silent_about_media(&self) -> bool {
        self.silent_about_media.load(Ordering::Relaxed)
    }

    /// What is wrong with the media host.
    pub(crate) fn media(&self) -> Option<MediaFault> {
        *lock(&self.media)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: &str) -> DeviceKey {
        DeviceKey { number: number.into(), device: 1 }
    }

    #[test]
    fn a_seed_decides_every_pause() {
        let pauses = |seed| {
            let faults = FaultState::default();
            assert_eq!(faults.pause(None), None);
            faults.set_delay(&Scope::All, Duration::from_millis(5), Duration::from_millis(20), seed);
            let pauses: Vec<_> = (0..20).filter_map(|_| faults.pause(Some(&device("1")))).collect();
            faults.set_delay(&Scope::All, Duration::ZERO, Duration::ZERO, seed);
            assert_eq!(faults.pause(None), None);
            pauses
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
        assert!(pauses(7).iter().all(|p| (5..=25).contains(&p.as_millis())));
    }

    #[test]
    fn a_seed_decides_what_breaks() {
        let breaks = |seed, probability| {
            let faults = FaultState::default();
            faults.set_breaking(&Scope::Account("1".into()), probability, seed);
            assert_eq!(faults.breaks(Some(&device("2"))), None, "another account");
            assert_eq!(faults.breaks(None), None, "not logged in");
            (0..200).map(|_| faults.breaks(Some(&device("1")))).collect::<Vec<_>>()
        };
        assert_eq!(breaks(7, 0.3), breaks(7, 0.3));
        assert_ne!(breaks(7, 0.3), breaks(8, 0.3));
        assert!(breaks(7, 0.0).iter().all(Option::is_none));
        for kind in [None, Some(Break::Drop), Some(Break::Cut)] {
            assert!(breaks(7, 0.3).contains(&kind), "{kind:?}");
        }
    }

    #[test]
    fn messages_of_one_account_or_of_all_are_refused() {
        let faults = FaultState::default();
        let codes = || (faults.rejection(&device("1")), faults.rejection(&device("2")));
        faults.reject(&Scope::Account("1".into()), Some(463));
        assert_eq!(codes(), (Some(463), None));
        faults.reject(&Scope::All, Some(479));
        assert_eq!(codes(), (Some(463), Some(479)));
        faults.reject(&Scope::All, None);
        assert_eq!(codes(), (None, None));
    }

    #[test]
    fn what_is_kept_back_is_released_when_nobody_keeps_it() {
        let mut held = Held::<DeviceKey>::default();
        let hold = |held: &mut Held<DeviceKey>, scope: &Scope, on| held.hold(scope, on, Clone::clone);
        let one = Scope::Account("1".into());
        hold(&mut held, &Scope::All, true);
        hold(&mut held, &one, true);
        held.items = vec![device("1"), device("2")];
        assert_eq!(hold(&mut held, &one, false), [], "all are kept back");
        assert_eq!(hold(&mut held, &Scope::All, false), [device("1"), device("2")]);
        assert_eq!(hold(&mut held, &Scope::All, false), []);
    }
}
