//! App state: the patches of each collection, in order of their versions.
//!
//! Invariant: patch `n` of a collection has version `n + 1`, and none is at version 0: a client would
//! take the next change for a full synchronisation and make no event of it. The server cannot read what
//! clients put in; the first patch is the phone's own and carries the push name.

use std::collections::HashMap;

use buffa::{Message as _, MessageField};
use wacore::appstate as syncd;
use wacore_binary::Node;
use waproto::whatsapp as wa;

use crate::account::Account;
use crate::error::StanzaError;
use crate::router::Session;
use crate::stanza::{attr_is, children, content, element, text_of, unix_now};
use crate::world::server_notification;

/// The id of the one app state key of an account.
pub(crate) const KEY_ID: [u8; 6] = [0, 0, 0, 0, 0, 1];
/// The collection in which the push name is kept.
const PUSH_NAME_COLLECTION: &str = "critical_block";
const COLLECTIONS: [&str; 5] = ["critical_block", "critical_unblock_low", "regular_high", "regular_low", "regular"];
/// Patches of one answer; the client asks for the rest.
const PATCHES_AT_ONCE: usize = 200;
const PATCH_BYTES: usize = 1 << 20;

/// The collections of an account; empty until a client asks.
#[derive(Default)]
pub(crate) struct Collections(HashMap<&'static str, Vec<Box<[u8]>>>);

impl Collections {
    /// The patches of a collection, if WhatsApp has a collection of this name.
    fn get(&mut self, account: &Account, name: &str) -> Option<&mut Vec<Box<[u8]>>> {
        let name = *COLLECTIONS.iter().find(|c| **c == name)?;
        let patches = self.0.entry(name);
        Some(patches.or_insert_with(|| vec![first_patch(account, name).into()]))
    }
}

/// What became of one collection of a request.
enum Outcome {
    Unchanged(Node),
    Changed(Node, &'static str, usize),
}

/// Answers `xmlns=w:sync:app:state`: fetches and changes of collections.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    let sync = children(node).first().ok_or(StanzaError::Malformed("sync"))?;
    let mut answers = Vec::new();
    let mut changes = Vec::new();
    for request in sync.get_children_by_tag("collection").take(COLLECTIONS.len()) {
        match collection(session, &login.account, request)? {
            Outcome::Unchanged(answer) => answers.push(answer),
            Outcome::Changed(answer, name, version) => {
                answers.push(answer);
                changes.push((name, version));
            }
        }
    }
    session.reply(node, Some(element("sync").children(answers).build()));
    let world = &session.world;
    let others = login.account.state().companions();
    for (name, version) in changes {
        for other in others.iter().filter(|o| **o != login.device) {
            let collection = element("collection").attr("name", name).attr("version", version).build();
            let notice = server_notification(world.next_id(), "server_sync", collection);
            world.deliver(&login.account, *other, notice);
        }
    }
    Ok(())
}

fn collection(session: &Session, account: &Account, request: &Node) -> Result<Outcome, StanzaError> {
    let name = text_of(request, "name");
    let known: usize = text_of(request, "version").parse().unwrap_or(0);
    let mut state = account.state();
    let patches = state.collections.get(account, &name).ok_or(StanzaError::Malformed("collection"))?;
    let name = COLLECTIONS.into_iter().find(|c| **c == *name).ok_or(StanzaError::Malformed("collection"))?;
    let Some(patch) = request.get_optional_child("patch") else {
        let known = if attr_is(request, "return_snapshot", "true") { 0 } else { known };
        return Ok(Outcome::Unchanged(fetched(name, patches, known, None)));
    };
    let patch = content(patch).ok_or(StanzaError::Malformed("patch"))?;
    if patch.len() > PATCH_BYTES || patches.len() >= session.world.config.limits.app_state_patches {
        return Err(StanzaError::Malformed("patch"));
    }
    if known != patches.len() {
        // Somebody was faster: the client merges what it lacks and tries again.
        let conflict = element("error").attr("code", 409).attr("text", "conflict").build();
        return Ok(Outcome::Unchanged(fetched(name, patches, known, Some(conflict))));
    }
    let version = patches.len() + 1;
    let mut patch = wa::SyncdPatch::decode_from_slice(patch).map_err(|_| StanzaError::Malformed("patch"))?;
    patch.version = version_field(version as u64);
    patches.push(patch.encode_to_vec().into());
    let answer = element("collection").attr("name", name).attr("version", version).attr("type", "result");
    Ok(Outcome::Changed(answer.build(), name, version))
}

/// The patches after version `known`, as many as one answer may hold.
fn fetched(name: &'static str, patches: &[Box<[u8]>], known: usize, error: Option<Node>) -> Node {
    let missing = patches.get(known..).unwrap_or_default();
    let sent = missing.len().min(PATCHES_AT_ONCE);
    let kind = if error.is_some() { "error" } else { "result" };
    let mut collection = element("collection").attr("name", name).attr("version", patches.len()).attr("type", kind);
    if sent < missing.len() {
        collection = collection.attr("has_more_patches", "true");
    }
    let mut parts: Vec<Node> = error.into_iter().collect();
    if sent > 0 {
        let list = missing[..sent].iter().map(|p| element("patch").bytes(p.to_vec()).build());
        parts.push(element("patches").children(list).build());
    }
    if parts.is_empty() { collection.build() } else { collection.children(parts).build() }
}

fn version_field(version: u64) -> MessageField<wa::SyncdVersion> {
    MessageField::some(wa::SyncdVersion { version: Some(version) })
}

/// The phone's first patch. Without the push name whatsmeow cannot send presence.
fn first_patch(account: &Account, name: &str) -> Vec<u8> {
    let keys = syncd::expand_app_state_keys(&account.app_state_key);
    let mut mutations = Vec::new();
    if name == PUSH_NAME_COLLECTION {
        let setting = wa::sync_action_value::PushNameSetting { name: Some(account.push_name()) };
        let value = wa::SyncActionValue {
            push_name_setting: MessageField::some(setting),
            timestamp: i64::try_from(unix_now() * 1_000).ok(),
            ..Default::default()
        };
        let (mutation, _) = syncd::encode_record(
            wa::syncd_mutation::SyncdOperation::SET,
            br#"["setting_pushName"]"#,
            &value,
            &keys,
            &KEY_ID,
            &rand::random(),
            1,
        );
        mutations.push(mutation);
    }
    let records: Vec<wa::SyncdRecord> = mutations.iter().filter_map(|m| m.record.clone().into_option()).collect();
    let mut hash = syncd::hash::HashState { version: 1, ..Default::default() };
    hash.update_hash_from_records(&records);
    let mut patch = wa::SyncdPatch {
        version: version_field(1),
        mutations,
        key_id: MessageField::some(wa::KeyId { id: Some(KEY_ID.to_vec()) }),
        snapshot_mac: Some(hash.generate_snapshot_mac(name, &keys.snapshot_mac)),
        ..Default::default()
    };
    patch.patch_mac = Some(syncd::hash::generate_patch_mac(&patch, name, &keys.patch_mac, 1));
    patch.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_gives_what_is_missing_in_pages() {
        let patches: Vec<Box<[u8]>> = (0..PATCHES_AT_ONCE + 5).map(|_| [1u8].into()).collect();
        let all = fetched("regular", &patches, 0, None);
        assert!(attr_is(&all, "has_more_patches", "true"));
        let sent = all.get_optional_child("patches").unwrap();
        assert_eq!(children(sent).len(), PATCHES_AT_ONCE);
        let rest = fetched("regular", &patches, PATCHES_AT_ONCE, None);
        assert_eq!(children(rest.get_optional_child("patches").unwrap()).len(), 5);
        let none = fetched("regular", &patches, patches.len() + 7, None);
        assert!(none.get_optional_child("patches").is_none());
    }

    #[test]
    fn every_collection_begins_at_version_one() {
        let account = Account::new("15550001");
        let mut collections = Collections::default();
        for name in COLLECTIONS {
            assert_eq!(collections.get(&account, name).unwrap().len(), 1);
        }
        assert!(collections.get(&account, "other").is_none());
    }
}
