//! Which faults hold, and what they decide. Everything random comes from a seed.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use wacore_binary::Node;

use crate::account::{Account, lock};
use crate::link::Link;
use crate::stanza::unix_now;

/// Receipts that are kept back.
const RECEIPTS: usize = 100_000;

/// Acknowledgements and the connections that they belong to.
type HeldAcks = Vec<(Arc<Link>, Node)>;
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

/// Every connection is slow.
struct Delay {
    least: Duration,
    jitter: Duration,
    random: StdRng,
}

/// Faults that hold for the whole simulator.
#[derive(Default)]
pub(crate) struct FaultState {
    pub(super) refused_login: Mutex<Option<u16>>,
    /// Acknowledgements that are kept back; `None` when they are not.
    held: Mutex<Option<HeldAcks>>,
    /// Receipts that are kept back; `None` when they are not.
    receipts: Mutex<Option<Vec<HeldReceipt>>>,
    /// The error with which messages are refused, and of which account; of all without one.
    rejected: Mutex<Option<(Option<String>, u16)>>,
    pub(super) duplicates: AtomicBool,
    /// Seconds by which the server's clock is ahead.
    pub(super) clock_ahead: AtomicI64,
    delay: Mutex<Option<Delay>>,
    pub(super) media: Mutex<Option<MediaFault>>,
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

    /// Keeps acknowledgements back, or gives those that were kept back.
    pub(super) fn hold_acks(&self, hold: bool) -> HeldAcks {
        let mut held = lock(&self.held);
        if hold {
            held.get_or_insert_default();
            return Vec::new();
        }
        held.take().unwrap_or_default()
    }

    /// Keeps a receipt back if receipts are; otherwise gives it back. Too many are lost.
    pub(crate) fn hold_receipt(&self, account: &Arc<Account>, device: u16, receipt: Node) -> Option<Node> {
        let mut held = lock(&self.receipts);
        let Some(held) = held.as_mut() else {
            return Some(receipt);
        };
        if held.len() < RECEIPTS {
            held.push((account.clone(), device, receipt));
        }
        None
    }

    /// Keeps receipts back, or gives those that were kept back in an order that the seed decides.
    pub(super) fn hold_receipts(&self, hold: bool, seed: u64) -> Vec<HeldReceipt> {
        let mut held = lock(&self.receipts);
        if hold {
            held.get_or_insert_default();
            return Vec::new();
        }
        let mut released = held.take().unwrap_or_default();
        released.shuffle(&mut StdRng::seed_from_u64(seed));
        released
    }

    /// The error with which a message of an account is refused.
    pub(crate) fn rejection(&self, number: &str) -> Option<u16> {
        let rejected = lock(&self.rejected);
        let (of, code) = rejected.as_ref()?;
        of.as_ref().is_none_or(|of| *of == *number).then_some(*code)
    }

    pub(super) fn reject(&self, of: Option<&str>, code: Option<u16>) {
        *lock(&self.rejected) = code.map(|code| (of.map(str::to_string), code));
    }

    /// Whether everything is delivered twice.
    pub(crate) fn duplicates(&self) -> bool {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// The server's time, seconds since the epoch.
    pub(crate) fn now(&self) -> u64 {
        unix_now().saturating_add_signed(self.clock_ahead.load(Ordering::Relaxed))
    }

    pub(super) fn set_delay(&self, least: Duration, jitter: Duration, seed: u64) {
        let random = StdRng::seed_from_u64(seed);
        *lock(&self.delay) = (!(least + jitter).is_zero()).then_some(Delay { least, jitter, random });
    }

    /// How long to wait before something is written.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let mut delay = lock(&self.delay);
        let delay = delay.as_mut()?;
        Some(delay.least + delay.jitter.mul_f64(delay.random.random::<f64>()))
    }

    /// What is wrong with the media host.
    pub(crate) fn media(&self) -> Option<MediaFault> {
        *lock(&self.media)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_every_pause() {
        let pauses = |seed| {
            let faults = FaultState::default();
            assert_eq!(faults.pause(), None);
            faults.set_delay(Duration::from_millis(5), Duration::from_millis(20), seed);
            let pauses: Vec<_> = (0..20).filter_map(|_| faults.pause()).collect();
            faults.set_delay(Duration::ZERO, Duration::ZERO, seed);
            assert_eq!(faults.pause(), None);
            pauses
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
        assert!(pauses(7).iter().all(|p| (5..=25).contains(&p.as_millis())));
    }

    #[test]
    fn messages_of_one_account_or_of_all_are_refused() {
        let faults = FaultState::default();
        faults.reject(Some("1"), Some(463));
        assert_eq!((faults.rejection("1"), faults.rejection("2")), (Some(463), None));
        faults.reject(None, Some(479));
        assert_eq!(faults.rejection("2"), Some(479));
        faults.reject(None, None);
        assert_eq!(faults.rejection("2"), None);
    }
}
