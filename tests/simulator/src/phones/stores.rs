//! What a phone's Signal endpoint stores, in memory.

use std::collections::HashMap;

use async_trait::async_trait;
use wacore_libsignal::protocol::error::Result as SignalResult;
use wacore_libsignal::protocol::{
    DeviceId, Direction, IdentityChange, IdentityKey, IdentityKeyPair, IdentityKeyStore, ProtocolAddress,
    SenderKeyName, SenderKeyRecord, SenderKeyStore, SessionRecord, SessionStore, SignedPreKeyId, SignedPreKeyRecord,
    SignedPreKeyStore,
};

/// Sessions by address.
#[derive(Default)]
pub(super) struct Sessions(pub(super) HashMap<String, SessionRecord>);

/// Whom it is and whom it knows.
pub(super) struct Identities {
    pub(super) pair: IdentityKeyPair,
    pub(super) registration: u32,
    pub(super) known: HashMap<String, IdentityKey>,
}

/// The one signed prekey.
pub(super) struct SignedPreKeys(pub(super) SignedPreKeyRecord);

/// Sender keys of groups.
#[derive(Default)]
pub(super) struct SenderKeys(pub(super) HashMap<String, SenderKeyRecord>);

#[async_trait]
impl SessionStore for Sessions {
    async fn load_session(&self, address: &ProtocolAddress) -> SignalResult<Option<SessionRecord>> {
        Ok(self.0.get(address.as_str()).cloned())
    }

    async fn has_session(&self, address: &ProtocolAddress) -> SignalResult<bool> {
        Ok(self.0.contains_key(address.as_str()))
    }

    async fn store_session(&mut self, address: &ProtocolAddress, record: SessionRecord) -> SignalResult<()> {
        self.0.insert(address.as_str().to_string(), record);
        Ok(())
    }
}

#[async_trait]
impl IdentityKeyStore for Identities {
    async fn get_identity_key_pair(&self) -> SignalResult<IdentityKeyPair> {
        Ok(self.pair.clone())
    }

    async fn get_local_registration_id(&self) -> SignalResult<u32> {
        Ok(self.registration)
    }

    async fn save_identity(
        &mut self,
        address: &ProtocolAddress,
        identity: &IdentityKey,
    ) -> SignalResult<IdentityChange> {
        self.known.insert(address.as_str().to_string(), *identity);
        Ok(IdentityChange::NewOrUnchanged)
    }

    async fn is_trusted_identity(
        &self,
        _address: &ProtocolAddress,
        _identity: &IdentityKey,
        _direction: Direction,
    ) -> SignalResult<bool> {
        Ok(true)
    }

    async fn get_identity(&self, address: &ProtocolAddress) -> SignalResult<Option<IdentityKey>> {
        Ok(self.known.get(address.as_str()).copied())
    }
}

#[async_trait]
impl SignedPreKeyStore for SignedPreKeys {
    async fn get_signed_pre_key(&self, _id: SignedPreKeyId) -> SignalResult<SignedPreKeyRecord> {
        Ok(self.0.clone())
    }

    async fn save_signed_pre_key(&mut self, _id: SignedPreKeyId, _record: &SignedPreKeyRecord) -> SignalResult<()> {
        Ok(())
    }
}

/// Under what a sender key of a group is kept.
pub(super) fn sender_key_name(group: &str, peer: &str, device: u16) -> SenderKeyName {
    SenderKeyName::new(group.to_string(), address(peer, device).as_str().to_string())
}

/// The same as one text.
pub(super) fn sender_key(name: &SenderKeyName) -> String {
    format!("{}/{}", name.group_id(), name.sender_id())
}

#[async_trait]
impl SenderKeyStore for SenderKeys {
    async fn store_sender_key(&mut self, name: &SenderKeyName, record: SenderKeyRecord) -> SignalResult<()> {
        self.0.insert(sender_key(name), record);
        Ok(())
    }

    async fn load_sender_key(&self, name: &SenderKeyName) -> SignalResult<Option<SenderKeyRecord>> {
        Ok(self.0.get(&sender_key(name)).cloned())
    }
}

/// A device of an account.
pub(super) fn address(peer: &str, device: u16) -> ProtocolAddress {
    ProtocolAddress::new(peer, DeviceId::from(u32::from(device)))
}
