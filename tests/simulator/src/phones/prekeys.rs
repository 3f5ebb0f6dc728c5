//! A phone's one-time prekeys: made when somebody asks, so that a phone never runs out of them unless
//! a test wants it to.
//!
//! Invariant: each is handed out once and opens one session. Bounded: of many that nobody used the
//! oldest are forgotten.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use wacore_libsignal::protocol::error::Result as SignalResult;
use wacore_libsignal::protocol::{PreKeyId, PreKeyRecord, PreKeyStore, SignalProtocolError};

use crate::account::lock;
use crate::handshake::{key_pair, public_bytes};
use crate::prekeys::PreKey;

/// Prekeys that were handed out and not used yet.
const OUTSTANDING: usize = 4_096;
/// Ids have 3 bytes.
const LAST_ID: u32 = 0x00ff_ffff;

#[derive(Default)]
struct Outstanding {
    records: BTreeMap<u32, PreKeyRecord>,
    last: u32,
}

/// The prekeys of one phone. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct OneTimeKeys(Arc<Mutex<Outstanding>>);

impl OneTimeKeys {
    /// A prekey for somebody who wants to write to the phone.
    pub(crate) fn issue(&self) -> PreKey {
        let mut outstanding = lock(&self.0);
        let id = if outstanding.last >= LAST_ID { 1 } else { outstanding.last + 1 };
        outstanding.last = id;
        let pair = key_pair();
        outstanding.records.insert(id, PreKeyRecord::new(id.into(), &pair));
        if outstanding.records.len() > OUTSTANDING {
            outstanding.records.pop_first();
        }
        let [_, bytes @ ..] = id.to_be_bytes();
        PreKey { id: bytes, key: public_bytes(&pair) }
    }

    /// A session was opened with a prekey.
    pub(super) fn used(&self, id: PreKeyId) {
        lock(&self.0).records.remove(&id.into());
    }
}

#[async_trait::async_trait]
impl PreKeyStore for OneTimeKeys {
    async fn get_pre_key(&self, id: PreKeyId) -> SignalResult<PreKeyRecord> {
        let outstanding = lock(&self.0);
        outstanding.records.get(&id.into()).cloned().ok_or(SignalProtocolError::InvalidPreKeyId)
    }

    async fn save_pre_key(&mut self, id: PreKeyId, record: &PreKeyRecord) -> SignalResult<()> {
        lock(&self.0).records.insert(id.into(), record.clone());
        Ok(())
    }

    async fn remove_pre_key(&mut self, id: PreKeyId) -> SignalResult<()> {
        self.used(id);
        Ok(())
    }
}
