//! A phone's Signal endpoint: sessions with devices, and the sender keys of groups, in memory.
//!
//! Peers are named by their account's number and the device. In-memory stores never wait, so that every
//! operation here is an ordinary call.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::FutureExt;
#[cfg(test)]
use wacore_libsignal::protocol::SessionRecord;
use wacore_libsignal::protocol::error::Result as SignalResult;
use wacore_libsignal::protocol::{
    CiphertextMessage, CiphertextMessageType, DeviceId, GenericSignedPreKey, IdentityKey, IdentityKeyPair, KeyPair,
    PreKeyBundle, PreKeySignalMessage, PublicKey, SenderKeyDistributionMessage, SignalMessage, SignalProtocolError,
    SignedPreKeyRecord, Timestamp, UsePQRatchet, create_sender_key_distribution_message, group_decrypt, group_encrypt,
    message_decrypt, message_encrypt, process_prekey_bundle, process_sender_key_distribution_message,
};

use super::prekeys::OneTimeKeys;
use super::stores::{Identities, SenderKeys, Sessions, SignedPreKeys, address, sender_key, sender_key_name};
use crate::handshake::{key_pair, public_bytes};
use crate::prekeys::{PreKey, SignedPreKey, key_id};

/// The id of a phone's one signed prekey.
const SIGNED_PREKEY_ID: u32 = 1;

/// The keys with which a session to a peer begins.
pub(crate) struct PeerKeys {
    pub(crate) registration: u32,
    pub(crate) identity: [u8; 32],
    pub(crate) signed: SignedPreKey,
    pub(crate) one_time: Option<PreKey>,
}

/// Why a ciphertext gave no plaintext.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecryptError {
    /// It was decrypted before.
    #[error("decrypted before")]
    Duplicate,
    /// Anything else: the sender must encrypt it anew.
    #[error("{0}")]
    Failed(String),
}

impl From<SignalProtocolError> for DecryptError {
    fn from(error: SignalProtocolError) -> Self {
        match error {
            SignalProtocolError::DuplicatedMessage(..) => Self::Duplicate,
            other => Self::Failed(other.to_string()),
        }
    }
}

/// A Signal endpoint.
pub(crate) struct Endpoint {
    sessions: Sessions,
    identities: Identities,
    signed_prekeys: SignedPreKeys,
    one_time: OneTimeKeys,
    sender_keys: SenderKeys,
    /// Which devices have the own sender key of a group.
    holders: HashMap<String, BTreeSet<(Arc<str>, u16)>>,
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("in-memory stores never wait")
}

fn public(bytes: &[u8; 32]) -> SignalResult<PublicKey> {
    Ok(PublicKey::from_djb_public_key_bytes(bytes)?)
}

impl Endpoint {
    /// An endpoint without sessions that takes the prekeys of `one_time`, and its signed prekey.
    pub(crate) fn new(identity: &KeyPair, one_time: OneTimeKeys) -> (Self, SignedPreKey) {
        let pair = key_pair();
        let signature: [u8; 64] = identity
            .private_key
            .calculate_signature(&pair.public_key.serialize(), &mut rand::rng())
            .expect("an identity key signs any message");
        let record =
            SignedPreKeyRecord::new(SIGNED_PREKEY_ID.into(), Timestamp::from_epoch_millis(0), &pair, &signature);
        let registration = u32::from(rand::random::<u16>() & 0x3fff).max(1);
        let endpoint = Self {
            sessions: Sessions::default(),
            identities: Identities {
                pair: IdentityKeyPair::new(IdentityKey::new(identity.public_key), identity.private_key.clone()),
                registration,
                known: HashMap::new(),
            },
            signed_prekeys: SignedPreKeys(record),
            one_time,
            sender_keys: SenderKeys::default(),
            holders: HashMap::new(),
        };
        let signed = SignedPreKey { id: [0, 0, 1], key: public_bytes(&pair), signature };
        (endpoint, signed)
    }

    /// Identifies this installation.
    pub(crate) fn registration(&self) -> u32 {
        self.identities.registration
    }

    /// Whether it can encrypt for a device.
    pub(crate) fn has_session(&self, peer: &str, device: u16) -> bool {
        self.sessions.0.contains_key(address(peer, device).as_str())
    }

    /// Forgets a session, so that the next message begins a new one.
    pub(crate) fn forget_session(&mut self, peer: &str, device: u16) {
        self.sessions.0.remove(address(peer, device).as_str());
    }

    /// Forgets all sessions: it can read nothing until they are opened anew.
    pub(crate) fn forget_sessions(&mut self) {
        self.sessions = Sessions::default();
        self.sender_keys = SenderKeys::default();
        self.holders.clear();
    }

    /// Begins a session.
    pub(crate) fn establish(&mut self, peer: &str, device: u16, keys: &PeerKeys) -> SignalResult<()> {
        let one_time = match &keys.one_time {
            Some(key) => Some((key_id(&key.id).into(), public(&key.key)?)),
            None => None,
        };
        let bundle = PreKeyBundle::new(
            keys.registration,
            DeviceId::from(u32::from(device)),
            one_time,
            key_id(&keys.signed.id).into(),
            public(&keys.signed.key)?,
            keys.signed.signature.to_vec(),
            IdentityKey::new(public(&keys.identity)?),
        )?;
        now(process_prekey_bundle(
            &address(peer, device),
            &mut self.sessions,
            &mut self.identities,
            &bundle,
            &mut rand::rng(),
            UsePQRatchet::No,
        ))?;
        Ok(())
    }

    /// Encrypts for a device with which there is a session. Returns the type of the `<enc>` as well.
    pub(crate) fn encrypt(
        &mut self,
        peer: &str,
        device: u16,
        plaintext: &[u8],
    ) -> SignalResult<(&'static str, Vec<u8>)> {
        let ciphertext =
            now(message_encrypt(plaintext, &address(peer, device), &mut self.sessions, &mut self.identities))?;
        let kind = match ciphertext.message_type() {
            CiphertextMessageType::PreKey => "pkmsg",
            _ => "msg",
        };
        Ok((kind, ciphertext.serialize().to_vec()))
    }

    /// Decrypts a device's `pkmsg` or `msg`.
    pub(crate) fn decrypt(
        &mut self,
        peer: &str,
        device: u16,
        kind: &str,
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, DecryptError> {
        let message = match kind {
            "pkmsg" => CiphertextMessage::PreKeySignalMessage(PreKeySignalMessage::try_from(ciphertext)?),
            "msg" => CiphertextMessage::SignalMessage(SignalMessage::try_from(ciphertext)?),
            other => return Err(DecryptError::Failed(format!("type {other}"))),
        };
        let decrypted = now(message_decrypt(
            &message,
            &address(peer, device),
            &mut self.sessions,
            &mut self.identities,
            &mut self.one_time,
            &self.signed_prekeys,
            &mut rand::rng(),
            UsePQRatchet::No,
        ))?;
        if let Some(id) = decrypted.consumed_prekey_id {
            self.one_time.used(id);
        }
        Ok(decrypted.plaintext)
    }

    /// Takes a device's sender key for a group.
    pub(crate) fn group_key(&mut self, group: &str, peer: &str, device: u16, distribution: &[u8]) -> SignalResult<()> {
        let name = sender_key_name(group, peer, device);
        let distribution = SenderKeyDistributionMessage::try_from(distribution)?;
        now(process_sender_key_distribution_message(&name, &distribution, &mut self.sender_keys))
    }

    /// Throws the own sender key of a group away when somebody has it who is not `present`.
    pub(crate) fn retire_group_key(&mut self, group: &str, own: &str, present: &[(Arc<str>, u16)]) {
        let Some(holders) = self.holders.get(group) else { return };
        if holders.iter().any(|h| !present.contains(h)) {
            self.holders.remove(group);
            self.sender_keys.0.remove(&sender_key(&sender_key_name(group, own, 0)));
        }
    }

    /// The own sender key of a group, made when there is none, as other devices get it: it reads what is
    /// encrypted from now on.
    pub(crate) fn own_group_key(&mut self, group: &str, own: &str) -> SignalResult<Vec<u8>> {
        let name = sender_key_name(group, own, 0);
        let key = now(create_sender_key_distribution_message(&name, &mut self.sender_keys, &mut rand::rng()))?;
        Ok(key.serialized().to_vec())
    }

    /// Whether a device has the own sender key of a group.
    pub(crate) fn has_group_key(&self, group: &str, peer: &str, device: u16) -> bool {
        self.holders.get(group).is_some_and(|h| h.iter().any(|(p, d)| **p == *peer && *d == device))
    }

    /// A device has it from now on.
    pub(crate) fn gave_group_key(&mut self, group: &str, peer: &Arc<str>, device: u16) {
        self.holders.entry(group.to_string()).or_default().insert((peer.clone(), device));
    }

    /// Encrypts for all who have the own sender key of a group.
    pub(crate) fn group_encrypt(&mut self, group: &str, own: &str, plaintext: &[u8]) -> SignalResult<Vec<u8>> {
        let name = sender_key_name(group, own, 0);
        let message = now(group_encrypt(&mut self.sender_keys, &name, plaintext, &mut rand::rng()))?;
        Ok(message.serialized().to_vec())
    }

    /// Decrypts a device's `skmsg` to a group.
    pub(crate) fn group_decrypt(
        &mut self,
        group: &str,
        peer: &str,
        device: u16,
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, DecryptError> {
        let name = sender_key_name(group, peer, device);
        Ok(now(group_decrypt(ciphertext, &mut self.sender_keys, &name))?)
    }
}

#[cfg(test)]
impl Endpoint {
    /// What a device would have stored.
    pub(crate) fn sessions(&self) -> HashMap<String, SessionRecord> {
        self.sessions.0.clone()
    }

    /// Goes back to what was stored.
    pub(crate) fn restore_sessions(&mut self, sessions: HashMap<String, SessionRecord>) {
        self.sessions.0 = sessions;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decrypted_twice_is_a_duplicate() {
        let identity = key_pair();
        let (mut alice, _) = Endpoint::new(&key_pair(), OneTimeKeys::default());
        let (mut bob, signed) = Endpoint::new(&identity, OneTimeKeys::default());
        let keys =
            PeerKeys { registration: bob.registration(), identity: public_bytes(&identity), signed, one_time: None };
        alice.establish("bob", 0, &keys).unwrap();
        assert!(alice.has_session("bob", 0));
        let (kind, ciphertext) = alice.encrypt("bob", 0, b"hello").unwrap();
        assert_eq!(bob.decrypt("alice", 0, kind, &ciphertext).unwrap(), b"hello");
        let again = bob.decrypt("alice", 0, kind, &ciphertext);
        assert!(matches!(again, Err(DecryptError::Duplicate)));
        let garbage = bob.decrypt("alice", 0, "msg", &[0x33; 40]);
        assert!(matches!(garbage, Err(DecryptError::Failed(_))));
    }
    #[test]
    fn a_one_time_prekey_opens_one_session() {
        let (identity, one_time) = (key_pair(), OneTimeKeys::default());
        let (mut bob, signed) = Endpoint::new(&identity, one_time.clone());
        let (first, second) = (one_time.issue(), one_time.issue());
        assert_ne!(first, second);
        let mut greet = |name: &str, key| {
            let (mut alice, _) = Endpoint::new(&key_pair(), OneTimeKeys::default());
            let identity = public_bytes(&identity);
            let keys = PeerKeys { registration: bob.registration(), identity, signed, one_time: Some(key) };
            alice.establish("bob", 0, &keys).unwrap();
            let (kind, ciphertext) = alice.encrypt("bob", 0, b"hello").unwrap();
            bob.decrypt(name, 0, kind, &ciphertext)
        };
        assert!(greet("alice", first).is_ok());
        assert!(matches!(greet("carol", first), Err(DecryptError::Failed(_))), "used already");
        assert!(greet("dave", second).is_ok());
    }
}
