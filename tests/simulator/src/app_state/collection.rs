//! One collection of an account's app state: its patches, and the records that they leave.
//!
//! Invariant: a patch has the version after the one before, and the hash is that of the records. WhatsApp
//! cannot read what clients put in; the simulator has the account's key as its phone has it, and judges the
//! MACs of a client's patch by it. Pure but for random numbers; the account's lock guards it.

use std::collections::{HashMap, VecDeque};

use buffa::{Message as _, MessageField};
use wacore::appstate as syncd;
use wacore::appstate::hash::HashState;
use waproto::whatsapp as wa;
use waproto::whatsapp::syncd_mutation::SyncdOperation;

use super::KEY_ID;

/// The MAC at the end of a record's value.
const MAC_BYTES: usize = 32;

/// The keys that are derived from an account's app state key.
pub(crate) type Keys = syncd::ExpandedAppStateKeys;

/// What is wrong with a client's patch. It is taken nevertheless: WhatsApp could not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("its mutations are of no known kind")]
    Mutations,
    #[error("its snapshot MAC is not that of the records")]
    SnapshotMac,
    #[error("its patch MAC is not that of its mutations")]
    PatchMac,
}

/// A collection.
pub(crate) struct Collection {
    name: &'static str,
    version: u64,
    /// The latest patches, encoded; the last one made the present version.
    patches: VecDeque<Box<[u8]>>,
    /// The values by the MAC of their index.
    records: HashMap<Box<[u8]>, Box<[u8]>>,
    hash: [u8; 128],
    /// The latest snapshot that was given out, with its version.
    pub(super) snapshot: Option<(u64, wa::ExternalBlobReference)>,
}

impl Collection {
    /// An empty collection, at version 0.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, version: 0, patches: VecDeque::new(), records: HashMap::new(), hash: [0; 128], snapshot: None }
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Its version.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The patches after a version; `None` when the first of them is no longer kept.
    pub(super) fn since(&self, version: u64) -> Option<impl ExactSizeIterator<Item = &[u8]>> {
        let missing = usize::try_from(self.version.saturating_sub(version)).ok()?;
        let skip = self.patches.len().checked_sub(missing)?;
        Some(self.patches.iter().skip(skip).map(|p| &**p))
    }

    /// Takes what a phone has changed as the next patch. `outsource` may put its mutations elsewhere.
    pub(super) fn write(
        &mut self,
        keys: &Keys,
        mutations: Vec<wa::SyncdMutation>,
        keep: usize,
        outsource: impl FnOnce(&[wa::SyncdMutation]) -> Option<wa::ExternalBlobReference>,
    ) {
        let version = self.version + 1;
        let after = self.hash_after(&mutations).unwrap_or(self.hash);
        let mut patch = wa::SyncdPatch {
            version: version_field(version),
            mutations,
            key_id: MessageField::some(wa::KeyId { id: Some(KEY_ID.to_vec()) }),
            snapshot_mac: Some(self.snapshot_mac(keys, version, after)),
            device_index: Some(0),
            ..Default::default()
        };
        patch.patch_mac = Some(syncd::hash::generate_patch_mac(&patch, self.name, &keys.patch_mac, version));
        self.records_after(&patch.mutations);
        self.hash = after;
        if let Some(reference) = outsource(&patch.mutations) {
            patch.external_mutations = MessageField::some(reference);
            patch.mutations = Vec::new();
        }
        self.push(&patch, keep);
    }

    /// Takes a client's patch as the next one, and says what is wrong with it. `mutations` are the patch's
    /// own, or those that it refers to.
    pub(super) fn take(
        &mut self,
        keys: &Keys,
        mut patch: wa::SyncdPatch,
        mutations: &[wa::SyncdMutation],
        keep: usize,
    ) -> Option<Flaw> {
        let version = self.version + 1;
        let after = self.hash_after(mutations);
        patch.version = version_field(version);
        let flaw = self.flaw(keys, &patch, mutations, after);
        self.records_after(mutations);
        self.hash = after.unwrap_or(self.hash);
        self.push(&patch, keep);
        flaw
    }

    fn flaw(
        &self,
        keys: &Keys,
        patch: &wa::SyncdPatch,
        mutations: &[wa::SyncdMutation],
        after: Option<[u8; 128]>,
    ) -> Option<Flaw> {
        let version = self.version + 1;
        let Some(after) = after else {
            return Some(Flaw::Mutations);
        };
        if patch.snapshot_mac.as_deref() != Some(&self.snapshot_mac(keys, version, after)) {
            return Some(Flaw::SnapshotMac);
        }
        let whole = wa::SyncdPatch {
            mutations: mutations.to_vec(),
            snapshot_mac: patch.snapshot_mac.clone(),
            ..Default::default()
        };
        let mac = syncd::hash::generate_patch_mac(&whole, self.name, &keys.patch_mac, version);
        (patch.patch_mac.as_deref() != Some(&mac)).then_some(Flaw::PatchMac)
    }

    /// All records as one snapshot of the present version.
    pub(super) fn snapshot(&self, keys: &Keys) -> wa::SyncdSnapshot {
        let key_id = || MessageField::some(wa::KeyId { id: Some(KEY_ID.to_vec()) });
        let record = |(index, value): (&[u8], &[u8])| wa::SyncdRecord {
            index: MessageField::some(wa::SyncdIndex { blob: Some(index.to_vec()) }),
            value: MessageField::some(wa::SyncdValue { blob: Some(value.to_vec()) }),
            key_id: key_id(),
        };
        wa::SyncdSnapshot {
            version: version_field(self.version),
            records: self.records.iter().map(|(index, value)| record((index, value))).collect(),
            mac: Some(self.snapshot_mac(keys, self.version, self.hash)),
            key_id: key_id(),
        }
    }

    /// What was set under an index, e.g. `["mute","1@s.whatsapp.net"]`.
    pub(super) fn value(&self, keys: &Keys, index: &[u8]) -> Option<wa::SyncActionValue> {
        let index = syncd::hash::generate_index_mac(index, &keys.index);
        let value = self.records.get(&*index)?;
        let record = wa::SyncdRecord {
            index: MessageField::some(wa::SyncdIndex { blob: Some(index) }),
            value: MessageField::some(wa::SyncdValue { blob: Some(value.to_vec()) }),
            ..Default::default()
        };
        let (mutation, _) = syncd::decode_record(SyncdOperation::SET, &record, keys, &KEY_ID, true).ok()?;
        mutation.action_value
    }

    fn hash_after(&self, mutations: &[wa::SyncdMutation]) -> Option<[u8; 128]> {
        let mut state = HashState { hash: self.hash, ..Default::default() };
        let former = |index: &[u8], _| Ok(self.records.get(index).map(|value| mac_of(value).to_vec()));
        state.update_hash(mutations, former).1.ok()?;
        Some(state.hash)
    }

    fn snapshot_mac(&self, keys: &Keys, version: u64, hash: [u8; 128]) -> Vec<u8> {
        let state = HashState { version, hash, ..Default::default() };
        state.generate_snapshot_mac(self.name, &keys.snapshot_mac)
    }

    fn records_after(&mut self, mutations: &[wa::SyncdMutation]) {
        for mutation in mutations {
            let Some(record) = mutation.record.as_option() else { continue };
            let Some(index) = record.index.as_option().and_then(|i| i.blob.as_deref()) else {
                continue;
            };
            if operation(mutation) == Some(SyncdOperation::REMOVE) {
                self.records.remove(index);
            } else if let Some(value) = record.value.as_option().and_then(|v| v.blob.as_deref()) {
                self.records.insert(index.into(), value.into());
            }
        }
    }

    fn push(&mut self, patch: &wa::SyncdPatch, keep: usize) {
        self.version += 1;
        self.patches.push_back(patch.encode_to_vec().into());
        if self.patches.len() > keep {
            self.patches.pop_front();
        }
    }
}

/// What a mutation does with its record; without a word it sets it.
pub(super) fn operation(mutation: &wa::SyncdMutation) -> Option<SyncdOperation> {
    match mutation.operation {
        None => Some(SyncdOperation::SET),
        Some(operation) => operation.as_known(),
    }
}

fn mac_of(value: &[u8]) -> &[u8] {
    &value[value.len().saturating_sub(MAC_BYTES)..]
}

fn version_field(version: u64) -> MessageField<wa::SyncdVersion> {
    MessageField::some(wa::SyncdVersion { version: Some(version) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: usize = 3;

    fn keys() -> Keys {
        syncd::expand_app_state_keys(&[7; 32])
    }

    fn mutation(operation: SyncdOperation, index: &str, name: &str) -> wa::SyncdMutation {
        let setting = wa::sync_action_value::PushNameSetting { name: Some(name.into()) };
        let value = wa::SyncActionValue { push_name_setting: MessageField::some(setting), ..Default::default() };
        syncd::encode_record(operation, index.as_bytes(), &value, &keys(), &KEY_ID, &rand::random(), 1).0
    }

    fn name(collection: &Collection, index: &str) -> Option<String> {
        collection.value(&keys(), index.as_bytes())?.push_name_setting.as_option()?.name.clone()
    }

    #[test]
    fn the_hash_is_that_of_the_records_whatever_was_set_and_removed() {
        let mut collection = Collection::new("regular");
        collection.write(&keys(), vec![mutation(SyncdOperation::SET, "[\"a\"]", "1")], KEEP, |_| None);
        let two = vec![mutation(SyncdOperation::SET, "[\"a\"]", "2"), mutation(SyncdOperation::SET, "[\"b\"]", "3")];
        collection.write(&keys(), two, KEEP, |_| None);
        assert_eq!(name(&collection, "[\"a\"]").as_deref(), Some("2"));
        collection.write(&keys(), vec![mutation(SyncdOperation::REMOVE, "[\"a\"]", "2")], KEEP, |_| None);
        assert_eq!((name(&collection, "[\"a\"]"), collection.version()), (None, 3));
        let snapshot = collection.snapshot(&keys());
        let mut state = HashState { version: 3, ..Default::default() };
        state.update_hash_from_records(&snapshot.records);
        assert_eq!(snapshot.records.len(), 1);
        assert_eq!(snapshot.mac, Some(state.generate_snapshot_mac("regular", &keys().snapshot_mac)));
    }

    #[test]
    fn a_patch_with_a_wrong_mac_is_noticed() {
        let mut writer = Collection::new("regular");
        writer.write(&keys(), vec![mutation(SyncdOperation::SET, "[\"a\"]", "1")], KEEP, |_| None);
        let patch = wa::SyncdPatch::decode_from_slice(writer.since(0).unwrap().next().unwrap()).unwrap();
        let take = |patch: wa::SyncdPatch| {
            let mutations = patch.mutations.clone();
            Collection::new("regular").take(&keys(), patch, &mutations, KEEP)
        };
        assert_eq!(take(patch.clone()), None);
        assert_eq!(take(wa::SyncdPatch { patch_mac: None, ..patch.clone() }), Some(Flaw::PatchMac));
        assert_eq!(take(wa::SyncdPatch { mutations: vec![], ..patch }), Some(Flaw::SnapshotMac));
    }

    #[test]
    fn old_patches_are_forgotten() {
        let mut collection = Collection::new("regular");
        for _ in 0..5 {
            collection.write(&keys(), vec![], KEEP, |_| None);
        }
        assert!(collection.since(1).is_none(), "the first of them is gone");
        assert_eq!(collection.since(2).map(|p| p.len()), Some(3));
        assert_eq!(collection.since(5).map(|p| p.len()), Some(0));
        assert_eq!(collection.since(9).map(|p| p.len()), Some(0), "from the future");
    }
}
