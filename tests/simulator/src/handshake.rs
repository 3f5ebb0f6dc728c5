//! The server's side of the Noise handshake, patterns XX and IK, and its certificate chain.
//!
//! Pure but for randomness: bytes in, bytes out. The connection does the I/O.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use buffa::{Message as _, MessageField};
use wacore::handshake::NoiseHandshake;
use wacore::libsignal::protocol::KeyPair;
use wacore_binary::consts::{NOISE_PATTERN_IK, NOISE_PATTERN_XX};
use wacore_noise::NoiseCipher;
use waproto::whatsapp as wa;
use waproto::whatsapp::cert_chain::{NoiseCertificate, noise_certificate::Details};

use crate::account::lock;
use crate::error::StartError;
use crate::stanza::unix_now;

const CERTIFICATE_LIFETIME_SECONDS: u64 = 10 * 365 * 86_400;

/// Why a handshake failed. Said in the log only: the connection is closed without a word.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// A message or a part of it is missing or malformed.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A cryptographic step failed.
    #[error("noise: {0}")]
    Noise(String),
    /// A hello that logs in at once has been seen before: somebody has recorded it.
    #[error("replayed hello")]
    Replayed,
}

fn noise(error: impl std::fmt::Display) -> HandshakeError {
    HandshakeError::Noise(error.to_string())
}

/// Makes a key pair.
pub(crate) fn key_pair() -> KeyPair {
    KeyPair::generate(&mut rand::rng())
}

/// The 32 bytes of a public key, without the type byte.
pub(crate) fn public_bytes(pair: &KeyPair) -> [u8; 32] {
    pair.public_key.public_key_bytes().try_into().expect("a Curve25519 key has 32 bytes")
}

/// The server's static key and the chain that vouches for it.
pub(crate) struct Identity {
    server: KeyPair,
    chain: Vec<u8>,
    root: [u8; 32],
    seen: Mutex<Seen>,
}

/// Hellos that are recognised when they come again.
const HELLOS: usize = 100_000;

/// The ephemeral keys of hellos that were accepted, by their hashes; the oldest are forgotten.
#[derive(Default)]
struct Seen {
    hasher: RandomState,
    hashes: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Seen {
    /// Notes a key. False when it was seen before.
    fn note(&mut self, key: &[u8; 32]) -> bool {
        let hash = self.hasher.hash_one(key);
        if !self.hashes.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > HELLOS
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        true
    }
}

/// What a client presented, and the ciphers of the connection.
pub(crate) struct Established {
    /// Reads what the client sends.
    pub(crate) read: NoiseCipher,
    /// Writes to the client.
    pub(crate) write: NoiseCipher,
    /// The client's Noise static key.
    pub(crate) client_static: [u8; 32],
    /// Its login or registration payload.
    pub(crate) payload: wa::ClientPayload,
}

/// After the client's hello.
pub(crate) enum Accepted {
    /// IK: send this and the connection is up.
    Done(Vec<u8>, Box<Established>),
    /// XX: send this, then give the client's finish to [`Waiting::finish`].
    Continue(Vec<u8>, Box<Waiting>),
}

/// An XX handshake that waits for the client's last message.
pub(crate) struct Waiting {
    noise: NoiseHandshake,
    ephemeral: KeyPair,
}

impl Identity {
    /// A fresh root, intermediate and server key. Clients verify both signatures (over the details), the
    /// serial numbers, the validity and that the leaf's key is the Noise static.
    pub(crate) fn generate() -> Result<Self, StartError> {
        let (root, intermediate, server) = (key_pair(), key_pair(), key_pair());
        let not_before = unix_now().saturating_sub(86_400);
        let certificate = |signer: &KeyPair, serial, issuer_serial, key: [u8; 32]| {
            let details = Details {
                serial: Some(serial),
                issuer_serial: Some(issuer_serial),
                key: Some(key.to_vec()),
                not_before: Some(not_before),
                not_after: Some(not_before + CERTIFICATE_LIFETIME_SECONDS),
            }
            .encode_to_vec();
            let signature = signer
                .private_key
                .calculate_signature(&details, &mut rand::rng())
                .map_err(|e| StartError::Chain(e.to_string()))?;
            Ok(NoiseCertificate { details: Some(details), signature: Some(signature.to_vec()) })
        };
        let chain = wa::CertChain {
            leaf: MessageField::some(certificate(&intermediate, 2, 1, public_bytes(&server))?),
            intermediate: MessageField::some(certificate(&root, 1, 0, public_bytes(&intermediate))?),
        };
        Ok(Self { chain: chain.encode_to_vec(), root: public_bytes(&root), server, seen: Mutex::default() })
    }

    /// The root's public key, which a client that verifies the chain must be told.
    pub(crate) fn root(&self) -> [u8; 32] {
        self.root
    }

    /// Answers a client's hello; `prologue` is the header that the client sent.
    pub(crate) fn accept(&self, prologue: &[u8], frame: &[u8]) -> Result<Accepted, HandshakeError> {
        let hello = wa::HandshakeMessage::decode_from_slice(frame)
            .ok()
            .and_then(|m| m.client_hello.into_option())
            .ok_or(HandshakeError::Malformed("client hello"))?;
        let client_ephemeral = key_of(hello.ephemeral, "client ephemeral")?;
        match (hello.r#static, hello.payload) {
            (Some(sealed), Some(payload)) => self.ik(prologue, &client_ephemeral, &sealed, &payload),
            _ => self.xx(prologue, &client_ephemeral),
        }
    }

    fn ik(
        &self,
        prologue: &[u8],
        client_ephemeral: &[u8; 32],
        sealed_static: &[u8],
        sealed_payload: &[u8],
    ) -> Result<Accepted, HandshakeError> {
        let ephemeral = key_pair();
        let server_private = self.server.private_key.serialize();
        let ephemeral_private = ephemeral.private_key.serialize();
        let mut state = NoiseHandshake::new(NOISE_PATTERN_IK, prologue).map_err(noise)?;
        state.authenticate(&public_bytes(&self.server));
        state.authenticate(client_ephemeral);
        state.mix_shared_secret(server_private, client_ephemeral).map_err(noise)?;
        let client_static = state.decrypt(sealed_static).map_err(noise)?;
        let client_static = key_of(Some(client_static), "client static")?;
        state.mix_shared_secret(server_private, &client_static).map_err(noise)?;
        let payload = state.decrypt(sealed_payload).map_err(noise)?;
        // Unlike the other pattern, this one logs in before the client has answered anything of the server.
        if !lock(&self.seen).note(client_ephemeral) {
            return Err(HandshakeError::Replayed);
        }
        state.authenticate(&public_bytes(&ephemeral));
        state.mix_shared_secret(ephemeral_private, client_ephemeral).map_err(noise)?;
        state.mix_shared_secret(ephemeral_private, &client_static).map_err(noise)?;
        let certificate = state.encrypt(&self.chain).map_err(noise)?;
        let reply = server_hello(&ephemeral, None, certificate);
        let established = established(state, client_static, &payload)?;
        Ok(Accepted::Done(reply, Box::new(established)))
    }

    fn xx(&self, prologue: &[u8], client_ephemeral: &[u8; 32]) -> Result<Accepted, HandshakeError> {
        let ephemeral = key_pair();
        let mut state = NoiseHandshake::new(NOISE_PATTERN_XX, prologue).map_err(noise)?;
        state.authenticate(client_ephemeral);
        state.authenticate(&public_bytes(&ephemeral));
        state.mix_shared_secret(ephemeral.private_key.serialize(), client_ephemeral).map_err(noise)?;
        let sealed_static = state.encrypt(&public_bytes(&self.server)).map_err(noise)?;
        state.mix_shared_secret(self.server.private_key.serialize(), client_ephemeral).map_err(noise)?;
        let certificate = state.encrypt(&self.chain).map_err(noise)?;
        let reply = server_hello(&ephemeral, Some(sealed_static), certificate);
        let waiting = Waiting { noise: state, ephemeral };
        Ok(Accepted::Continue(reply, Box::new(waiting)))
    }
}

impl Waiting {
    /// Reads the client's finish.
    pub(crate) fn finish(mut self, frame: &[u8]) -> Result<Established, HandshakeError> {
        let finish = wa::HandshakeMessage::decode_from_slice(frame)
            .ok()
            .and_then(|m| m.client_finish.into_option())
            .ok_or(HandshakeError::Malformed("client finish"))?;
        let sealed = finish.r#static.ok_or(HandshakeError::Malformed("client static"))?;
        let client_static = key_of(Some(self.noise.decrypt(&sealed).map_err(noise)?), "client static")?;
        self.noise.mix_shared_secret(self.ephemeral.private_key.serialize(), &client_static).map_err(noise)?;
        let sealed = finish.payload.ok_or(HandshakeError::Malformed("client payload"))?;
        let payload = self.noise.decrypt(&sealed).map_err(noise)?;
        established(self.noise, client_static, &payload)
    }
}

fn key_of(bytes: Option<Vec<u8>>, what: &'static str) -> Result<[u8; 32], HandshakeError> {
    bytes.and_then(|b| b.try_into().ok()).ok_or(HandshakeError::Malformed(what))
}

fn established(state: NoiseHandshake, client_static: [u8; 32], payload: &[u8]) -> Result<Established, HandshakeError> {
    let payload =
        wa::ClientPayload::decode_from_slice(payload).map_err(|_| HandshakeError::Malformed("client payload"))?;
    // The first key of the split is the initiator's: the server reads with it.
    let (read, write) = state.finish().map_err(noise)?;
    Ok(Established { read, write, client_static, payload })
}

fn server_hello(ephemeral: &KeyPair, sealed_static: Option<Vec<u8>>, payload: Vec<u8>) -> Vec<u8> {
    wa::HandshakeMessage {
        server_hello: MessageField::some(wa::handshake_message::ServerHello {
            ephemeral: Some(public_bytes(ephemeral).to_vec()),
            r#static: sealed_static,
            payload: Some(payload),
            ..Default::default()
        }),
        ..Default::default()
    }
    .encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_are_recognised_and_the_oldest_forgotten() {
        let key = |n: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            key
        };
        let mut seen = Seen::default();
        assert!(seen.note(&key(0)) && !seen.note(&key(0)));
        for n in 1..=HELLOS as u32 {
            assert!(seen.note(&key(n)));
        }
        assert_eq!((seen.hashes.len(), seen.order.len()), (HELLOS, HELLOS));
        assert!(seen.note(&key(0)), "forgotten");
    }

    #[test]
    fn garbage_is_an_error() {
        let identity = Identity::generate().unwrap();
        assert!(identity.accept(b"WA\x06\x03", b"").is_err());
        assert!(identity.accept(b"WA\x06\x03", &[0xff; 64]).is_err());
        let hello = wa::HandshakeMessage {
            client_hello: MessageField::some(wa::handshake_message::ClientHello {
                ephemeral: Some(vec![1; 31]),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(identity.accept(b"WA\x06\x03", &hello.encode_to_vec()).is_err());
    }
}
