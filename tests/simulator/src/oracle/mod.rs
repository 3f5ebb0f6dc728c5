//! Judges what clients do that no correct client may do.
//!
//! Invariant: memory is bounded and small ([`counters`]). Nothing of what messages say is kept.

pub(crate) mod checks;
mod connections;
mod counters;
mod noticed;

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;
use wacore::libsignal::protocol::{PreKeySignalMessage, SenderKeyMessage, SignalMessage};
use wacore_binary::Node;

use crate::account::{DeviceKey, lock};
use crate::stanza::{text_of, unix_now_ms};
pub(crate) use connections::Claim;
pub use connections::Connection;
use connections::{Breach, Connections};
use counters::{Pair, Seen, Sizes, hash};
pub(crate) use noticed::PrekeyId;
pub use noticed::{Notice, NoticeKind};
use noticed::{Notices, Prekeys};

/// Violations that are kept; there is something very wrong long before.
const VIOLATIONS: usize = 1_000;
/// Two ciphertexts of one text differ at most by padding and by what a client adds to it each time.
const SIZE_TOLERANCE: usize = 256;

/// What kind of rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    /// One device sent two different messages with one counter of one ratchet chain to the same
    /// recipient: what a client does whose stored keys are older than what it sent.
    RatchetCounterReused,
    /// One message id was delivered with two different contents.
    MessageIdReused,
    /// A connection went on sending after another login of its device had replaced it.
    TwoConnections,
    /// A companion's signature of its identity, sent at the end of a pairing, is not its own or not of
    /// what the account has signed.
    BadSignature,
    /// A login took the place of a connection that states a later epoch, or the same epoch and another owner: a
    /// node acts that is no longer the owner.
    OldOwnerKicks,
    /// A login states an earlier epoch than a login before it, or the same epoch and another owner.
    OldOwnerConnects,
    /// A message was accepted and has not come to a device that it was for.
    NotDelivered,
    /// A message came to a device again for no reason.
    DeliveredTwice,
    /// A message was acknowledged that the client has not stored.
    AcknowledgedNotStored,
}

/// A broken rule, with the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The rule.
    pub kind: ViolationKind,
    /// Who, when and what; never what a message says.
    pub evidence: String,
    /// When it was broken, milliseconds since the epoch.
    pub at_ms: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.evidence)
    }
}

/// The judge of one simulator.
#[derive(Default)]
pub(crate) struct Oracle {
    chains: Mutex<HashMap<u64, Pair>>,
    sizes: Mutex<Sizes>,
    connections: Mutex<Connections>,
    violations: Mutex<Vec<Violation>>,
    prekeys: Mutex<Prekeys>,
    notices: Mutex<Notices>,
}

impl Oracle {
    /// A Signal message on its way from one device to another. What cannot be parsed is the recipient's
    /// affair. `direct` is false for a group's, which may carry a sender key besides the text.
    pub(crate) fn ciphertext(
        &self,
        from: &DeviceKey,
        to: &DeviceKey,
        id: &str,
        kind: &str,
        ciphertext: &[u8],
        direct: bool,
    ) {
        let message = match kind {
            "pkmsg" => PreKeySignalMessage::try_from(ciphertext).map(|m| {
                self.judge_prekeys(from, to, id, &m);
                m.message().clone()
            }),
            "msg" => SignalMessage::try_from(ciphertext),
            _ => return,
        };
        let Ok(message) = message else { return };
        let seen = Seen {
            pair: hash(&(from, to)),
            chain: hash(&message.sender_ratchet_key().public_key_bytes()),
            counter: message.counter(),
            fingerprint: hash(&(id, message.serialized())),
        };
        if !self.first_use(&seen) {
            self.report(
                ViolationKind::RatchetCounterReused,
                format!(
                    "{} -> {}: counter {} of chain {:016x} again, with message {id}",
                    from, to, seen.counter, seen.chain
                ),
            );
        }
        if direct {
            self.judge_size(from, to, id, message.serialized().len());
        }
    }

    /// A sender key message on its way from a device to a group.
    pub(crate) fn group_ciphertext(&self, from: &DeviceKey, group: &str, id: &str, ciphertext: &[u8]) {
        let Ok(message) = SenderKeyMessage::try_from(ciphertext) else {
            return;
        };
        let seen = Seen {
            pair: hash(&(from, group)),
            chain: hash(&message.chain_id()),
            counter: message.iteration(),
            fingerprint: hash(&(id, ciphertext)),
        };
        if !self.first_use(&seen) {
            self.report(
                ViolationKind::RatchetCounterReused,
                format!(
                    "{} -> group {group}: iteration {} of sender key {} again, with message {id}",
                    from,
                    seen.counter,
                    message.chain_id()
                ),
            );
        }
    }

    /// Somebody is given prekeys of a device, by the server or by the device itself.
    pub(crate) fn prekeys_given(&self, device: &DeviceKey, ids: impl IntoIterator<Item = PrekeyId>) {
        let mut prekeys = lock(&self.prekeys);
        ids.into_iter().for_each(|id| prekeys.give(device, id));
    }

    /// A device has sent a receipt for a message that was never for it.
    pub(crate) fn unknown_receipt(&self, device: &DeviceKey, kind: &str, id: &str) {
        let kind = if kind.is_empty() { "delivered" } else { kind };
        self.notice(NoticeKind::UnknownReceipt, format!("{device}: `{kind}` for message {id}, which it never got"));
    }

    /// A device has sent a message to a group without saying which devices it knows.
    pub(crate) fn missing_phash(&self, device: &DeviceKey, group: &str, id: &str) {
        self.notice(NoticeKind::MissingPhash, format!("{device} -> group {group}: message {id} has no phash"));
    }

    /// What looks wrong, oldest first.
    pub(crate) fn noticed(&self) -> Vec<Notice> {
        lock(&self.notices).list()
    }

    /// How often each kind of it happened.
    pub(crate) fn notice_counts(&self) -> Vec<(NoticeKind, u64)> {
        lock(&self.notices).counts()
    }

    /// A phone decrypted a message with an id that it has had before, and it says something else.
    pub(crate) fn content_changed(&self, from: &DeviceKey, to: &str, id: &str) {
        self.report(
            ViolationKind::MessageIdReused,
            format!("{from} -> phone {to}: message {id} was delivered with two texts"),
        );
    }

    /// A companion's identity at the end of a pairing is not well signed.
    pub(crate) fn bad_signature(&self, device: &DeviceKey) {
        self.report(ViolationKind::BadSignature, format!("{device}: the signature of its identity is wrong"));
    }

    /// A connection that was replaced `since` still sends.
    pub(crate) fn acts_after_replaced(&self, device: &DeviceKey, connection: u64, node: &Node, since: Duration) {
        self.report(
            ViolationKind::TwoConnections,
            format!(
                "{device}: <{}> {} came over {} {since:?} after it was replaced",
                node.tag,
                text_of(node, "id"),
                self.describe(connection)
            ),
        );
    }

    /// A device has logged in over connection `id`, in the place of `former`.
    pub(crate) fn logged_in(&self, device: &DeviceKey, id: u64, claim: &Claim, former: Option<u64>) {
        let breach = lock(&self.connections).login(device, id, claim, former, unix_now_ms());
        match breach {
            Some(Breach::KicksNewer(evidence)) => self.report(ViolationKind::OldOwnerKicks, evidence),
            Some(Breach::AfterNewer(evidence)) => self.report(ViolationKind::OldOwnerConnects, evidence),
            None => {}
        }
    }

    /// A connection that was logged in has ended.
    pub(crate) fn disconnected(&self, id: u64) {
        lock(&self.connections).closed(id, unix_now_ms());
    }

    /// The connections of a device, or all; oldest first.
    pub(crate) fn connections(&self, device: Option<&DeviceKey>) -> Vec<Connection> {
        lock(&self.connections).list(device)
    }

    /// A connection in evidence.
    pub(crate) fn describe(&self, connection: u64) -> String {
        lock(&self.connections).describe(connection)
    }

    /// What was found so far, oldest first.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        lock(&self.violations).clone()
    }

    /// How much was found so far.
    pub(crate) fn count(&self) -> usize {
        lock(&self.violations).len()
    }

    fn report(&self, kind: ViolationKind, evidence: String) {
        tracing::warn!(?kind, evidence, "violation");
        let mut violations = lock(&self.violations);
        if violations.len() < VIOLATIONS {
            violations.push(Violation { kind, evidence, at_ms: unix_now_ms() });
        }
    }

    fn notice(&self, kind: NoticeKind, evidence: String) {
        tracing::info!(?kind, evidence, "noticed");
        lock(&self.notices).add(kind, evidence);
    }

    /// A session is opened with the prekeys that the recipient has given away, and each one-time prekey opens one.
    fn judge_prekeys(&self, from: &DeviceKey, to: &DeviceKey, id: &str, message: &PreKeySignalMessage) {
        let one_time = message.pre_key_id().map(|id| PrekeyId::OneTime(id.into()));
        let ids = [Some(PrekeyId::Signed(message.signed_pre_key_id().into())), one_time];
        let base = hash(&message.base_key().public_key_bytes());
        for prekey in ids.into_iter().flatten() {
            let noticed = lock(&self.prekeys).open(to, prekey, base);
            if let Some(kind) = noticed {
                self.notice(kind, format!("{from} -> {to}: message {id} opens a session with {prekey:?}"));
            }
        }
    }

    fn first_use(&self, seen: &Seen) -> bool {
        let mut chains = lock(&self.chains);
        chains.entry(seen.pair).or_default().first_use(seen)
    }

    /// Where only devices are involved nobody can read; but texts of quite different sizes differ.
    fn judge_size(&self, from: &DeviceKey, to: &DeviceKey, id: &str, size: usize) {
        let key = hash(&(from, to, id));
        let former = lock(&self.sizes).remember(key, size);
        if former.is_some_and(|f| f.abs_diff(size) > SIZE_TOLERANCE) {
            self.report(
                ViolationKind::MessageIdReused,
                format!(
                    "{} -> {}: message {id} has {size} bytes, and had {} before",
                    from,
                    to,
                    former.unwrap_or_default()
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::{key_pair, public_bytes};
    use crate::phones::OneTimeKeys;
    use crate::phones::signal::{Endpoint, PeerKeys};
    use crate::stanza::element;

    fn key(number: &str, device: u16) -> DeviceKey {
        DeviceKey { number: number.into(), device }
    }

    /// Two endpoints, the first with a session to the second.
    fn endpoints() -> (Endpoint, Endpoint) {
        let identity = key_pair();
        let (alice, (bob, bundle)) =
            (Endpoint::new(&key_pair(), OneTimeKeys::default()).0, Endpoint::new(&identity, OneTimeKeys::default()));
        let mut alice = alice;
        let peer = PeerKeys { registration: 1, identity: public_bytes(&identity), signed: bundle, one_time: None };
        alice.establish("bob", 0, &peer).unwrap();
        (alice, bob)
    }

    #[test]
    fn a_ratchet_counter_used_for_two_messages_is_caught() {
        let oracle = Oracle::default();
        let (from, to) = (key("1", 2), key("3", 4));
        let (mut alice, _) = endpoints();
        let before = alice.sessions();
        let (kind, first) = alice.encrypt("bob", 0, b"one").unwrap();
        oracle.ciphertext(&from, &to, "A", kind, &first, true);
        oracle.ciphertext(&from, &to, "A", kind, &first, true);
        assert_eq!(oracle.count(), 0, "sent again as it was");
        oracle.ciphertext(&from, &key("3", 5), "A", kind, &first, true);
        assert_eq!(oracle.count(), 0, "another recipient");
        let (kind, second) = alice.encrypt("bob", 0, b"two").unwrap();
        oracle.ciphertext(&from, &to, "B", kind, &second, true);
        assert_eq!(oracle.count(), 0);
        // The device comes back with what it had stored before it sent.
        alice.restore_sessions(before);
        let (kind, third) = alice.encrypt("bob", 0, b"three").unwrap();
        oracle.ciphertext(&from, &to, "C", kind, &third, true);
        let violations = oracle.violations();
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].kind, ViolationKind::RatchetCounterReused);
        assert!(violations[0].to_string().contains("1:2 -> 3:4: counter 0"), "{}", violations[0]);
    }

    #[test]
    fn an_id_with_messages_of_quite_different_sizes_is_caught() {
        let oracle = Oracle::default();
        let (from, to) = (key("1", 2), key("3", 4));
        let (mut alice, _) = endpoints();
        let (kind, first) = alice.encrypt("bob", 0, &[1; 50]).unwrap();
        let (_, again) = alice.encrypt("bob", 0, &[1; 60]).unwrap();
        let (_, other) = alice.encrypt("bob", 0, &[1; 900]).unwrap();
        oracle.ciphertext(&from, &to, "A", kind, &first, true);
        oracle.ciphertext(&from, &to, "A", kind, &again, true);
        assert_eq!(oracle.count(), 0, "encrypted anew");
        oracle.ciphertext(&from, &to, "A", kind, &other, true);
        assert_eq!(oracle.violations()[0].kind, ViolationKind::MessageIdReused);
    }

    #[test]
    fn a_changed_text_and_a_replaced_connection_that_goes_on_are_reported() {
        let oracle = Oracle::default();
        oracle.content_changed(&key("1", 2), "3", "A");
        let node = element("message").attr("id", "B").build();
        oracle.acts_after_replaced(&key("1", 2), 7, &node, Duration::from_secs(3));
        let kinds: Vec<_> = oracle.violations().iter().map(|v| v.kind).collect();
        assert_eq!(kinds, [ViolationKind::MessageIdReused, ViolationKind::TwoConnections]);
    }

    #[test]
    fn garbage_is_ignored() {
        let oracle = Oracle::default();
        for kind in ["pkmsg", "msg", "skmsg", "frskmsg", ""] {
            oracle.ciphertext(&key("1", 2), &key("3", 4), "A", kind, &[0x33, 1, 2, 3], true);
        }
        oracle.group_ciphertext(&key("1", 2), "g", "A", &[]);
        assert_eq!(oracle.count(), 0);
    }
}
