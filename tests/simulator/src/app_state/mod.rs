//! App state: what an account's devices agree on (names, chats that are muted, pinned or read, ...), as
//! collections of patches that the server keeps for them.
//!
//! Invariant: no collection is at version 0, because a client would take the next change for a full
//! synchronisation and make no event of it; the first patch is the phone's own and carries the push name.
//! A device that is far behind gets a snapshot.

mod change;
mod collection;

use std::collections::HashMap;
use std::sync::Arc;

use buffa::Message as _;
use bytes::Bytes;
use wacore::appstate as syncd;
use wacore::download::{DownloadUtils, MediaType};
use wacore_binary::Node;
use waproto::whatsapp as wa;

pub use change::{ChatState, StateChange};
pub(crate) use change::{chat_state, write};

use crate::account::Account;
use crate::error::StanzaError;
use crate::media;
use crate::router::Session;
use crate::stanza::{attr_is, children, content, element, text_of};
use crate::world::{World, server_notification};
use collection::{Collection, Keys};

/// The id of the one app state key of an account.
pub(crate) const KEY_ID: [u8; 6] = [0, 0, 0, 0, 0, 1];
const COLLECTIONS: [&str; 5] = ["critical_block", "critical_unblock_low", "regular_high", "regular_low", "regular"];
/// Patches of one answer; the client asks for the rest.
const PATCHES_AT_ONCE: usize = 200;
const PATCH_BYTES: usize = 1 << 20;
/// A device that knows nothing gets a snapshot from this version on; before it the patches are as short.
const SNAPSHOT_FROM: u64 = 20;
/// Mutations of a phone's patch that are sent within it; more become a medium of their own.
const INLINE_MUTATIONS: usize = 100;

/// The collections of an account; empty until somebody asks.
#[derive(Default)]
pub(crate) struct Collections(HashMap<&'static str, Collection>);

impl Collections {
    /// A collection, if WhatsApp has one of this name.
    fn get(&mut self, account: &Account, name: &str) -> Option<&mut Collection> {
        let name = *COLLECTIONS.iter().find(|c| **c == name)?;
        Some(self.0.entry(name).or_insert_with(|| change::first(account, name)))
    }
}

/// What became of one collection of a request.
struct Outcome {
    answer: Node,
    /// The collection's name and new version, when the client has changed it.
    changed: Option<(&'static str, u64)>,
    /// The push name that the client has set.
    push_name: Option<String>,
}

impl Outcome {
    fn unchanged(answer: Node) -> Self {
        Self { answer, changed: None, push_name: None }
    }
}

/// Answers `xmlns=w:sync:app:state`: fetches and changes of collections.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    let sync = children(node).first().ok_or(StanzaError::Malformed("sync"))?;
    let mut answers = Vec::new();
    let mut changes = Vec::new();
    for request in sync.get_children_by_tag("collection").take(COLLECTIONS.len()) {
        let outcome = collection(session, &login.account, request)?;
        answers.push(outcome.answer);
        changes.extend(outcome.changed);
        if let Some(name) = outcome.push_name {
            login.account.set_push_name(&name);
        }
    }
    session.reply(node, Some(element("sync").children(answers).build()));
    for (name, version) in changes {
        notify(&session.world, &login.account, Some(login.device), name, version);
    }
    Ok(())
}

/// Tells the account's devices, but for one, that a collection has changed.
fn notify(world: &Arc<World>, account: &Arc<Account>, except: Option<u16>, name: &'static str, version: u64) {
    let companions = account.state().companions();
    for companion in companions.into_iter().filter(|c| Some(*c) != except) {
        let collection = element("collection").attr("name", name).attr("version", version).build();
        let notice = server_notification(world.next_id(), "server_sync", collection);
        world.deliver(account, companion, notice);
    }
}

fn collection(session: &Session, account: &Account, request: &Node) -> Result<Outcome, StanzaError> {
    let world = &session.world;
    let (name, keys) = (text_of(request, "name"), account.app_state_keys());
    let known: u64 = text_of(request, "version").parse().unwrap_or(0);
    let mut state = account.state();
    let collection = state.collections.get(account, &name).ok_or(StanzaError::Malformed("collection"))?;
    let Some(patch) = request.get_optional_child("patch") else {
        let asked = attr_is(request, "return_snapshot", "true");
        let snapshot = (asked && collection.version() >= SNAPSHOT_FROM) || collection.since(known).is_none();
        if snapshot && let Some(reference) = snapshot_of(world, collection, &keys) {
            return Ok(Outcome::unchanged(snapshot_node(collection, &reference)));
        }
        return Ok(Outcome::unchanged(fetched(collection, if asked { 0 } else { known }, None)));
    };
    let patch = content(patch).filter(|p| p.len() <= PATCH_BYTES).ok_or(StanzaError::Malformed("patch"))?;
    if known != collection.version() {
        // Somebody was faster: the client merges what it lacks and tries again.
        world.stats.count("app state conflict");
        let conflict = element("error").attr("code", 409).attr("text", "conflict").build();
        return Ok(Outcome::unchanged(fetched(collection, known, Some(conflict))));
    }
    let patch = wa::SyncdPatch::decode_from_slice(patch).map_err(|_| StanzaError::Malformed("patch"))?;
    let mutations = mutations_of(world, &patch);
    let push_name = change::push_name(&keys, &mutations);
    if let Some(flaw) = collection.take(&keys, patch, &mutations, world.config.limits.app_state_patches) {
        world.stats.count("app state flaw");
        tracing::debug!(%flaw, collection = collection.name(), "a client's patch is wrong");
    }
    let (name, version) = (collection.name(), collection.version());
    let answer = element("collection").attr("name", name).attr("version", version).attr("type", "result");
    Ok(Outcome { answer: answer.build(), changed: Some((name, version)), push_name })
}

/// A patch's mutations, wherever they are.
fn mutations_of(world: &World, patch: &wa::SyncdPatch) -> Vec<wa::SyncdMutation> {
    let Some(reference) = patch.external_mutations.as_option() else {
        return patch.mutations.clone();
    };
    let mutations = opened(world, reference).and_then(|m| wa::SyncdMutations::decode_from_slice(&m).ok());
    mutations.map(|m| m.mutations).unwrap_or_default()
}

/// The content of an external blob.
fn opened(world: &World, reference: &wa::ExternalBlobReference) -> Option<Vec<u8>> {
    let sealed = media::get(world, media::name(reference.direct_path.as_deref()?)?)?;
    let key = reference.media_key.as_deref()?;
    DownloadUtils::verify_and_decrypt(&sealed, key, MediaType::AppState).ok()
}

/// Keeps something as an external blob.
fn blob(world: &World, kind: &str, content: &[u8]) -> Option<wa::ExternalBlobReference> {
    let sealed = wacore::upload::encrypt_media(content, MediaType::AppState).ok()?;
    let name = format!("{kind}-{}", world.next_number());
    media::store(world, &name, Bytes::from(sealed.data_to_upload)).then(|| wa::ExternalBlobReference {
        media_key: Some(sealed.media_key.to_vec()),
        direct_path: Some(media::direct_path(&name)),
        handle: Some(name),
        file_size_bytes: Some(content.len() as u64),
        file_sha256: Some(sealed.file_sha256.to_vec()),
        file_enc_sha256: Some(sealed.file_enc_sha256.to_vec()),
    })
}

/// The present snapshot, made and kept when there is none.
fn snapshot_of(world: &World, collection: &mut Collection, keys: &Keys) -> Option<wa::ExternalBlobReference> {
    let version = collection.version();
    if let Some((at, reference)) = &collection.snapshot
        && *at == version
        && media::name(reference.direct_path.as_deref()?).is_some_and(|n| media::get(world, n).is_some())
    {
        return Some(reference.clone());
    }
    world.stats.count("app state snapshot");
    let reference = blob(world, "snapshot", &collection.snapshot(keys).encode_to_vec())?;
    collection.snapshot = Some((version, reference.clone()));
    Some(reference)
}

fn snapshot_node(collection: &Collection, reference: &wa::ExternalBlobReference) -> Node {
    element("collection")
        .attr("name", collection.name())
        .attr("version", collection.version())
        .attr("type", "result")
        .children([element("snapshot").bytes(reference.encode_to_vec()).build()])
        .build()
}

/// The patches after version `known`, as many as one answer may hold.
fn fetched(collection: &Collection, known: u64, error: Option<Node>) -> Node {
    let missing: Vec<&[u8]> = collection.since(known).map(Iterator::collect).unwrap_or_default();
    let sent = missing.len().min(PATCHES_AT_ONCE);
    let kind = if error.is_some() { "error" } else { "result" };
    let mut answer =
        element("collection").attr("name", collection.name()).attr("version", collection.version()).attr("type", kind);
    if sent < missing.len() {
        answer = answer.attr("has_more_patches", "true");
    }
    let mut parts: Vec<Node> = error.into_iter().collect();
    if sent > 0 {
        let list = missing[..sent].iter().map(|p| element("patch").bytes(p.to_vec()).build());
        parts.push(element("patches").children(list).build());
    }
    if parts.is_empty() { answer.build() } else { answer.children(parts).build() }
}

/// The keys derived from an account's app state key.
pub(crate) fn expand(key: &[u8; 32]) -> Keys {
    syncd::expand_app_state_keys(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_gives_what_is_missing_in_pages() {
        let keys = expand(&[1; 32]);
        let mut collection = Collection::new("regular");
        for _ in 0..PATCHES_AT_ONCE + 5 {
            collection.write(&keys, vec![], 10_000, |_| None);
        }
        let all = fetched(&collection, 0, None);
        assert!(attr_is(&all, "has_more_patches", "true"));
        let sent = all.get_optional_child("patches").unwrap();
        assert_eq!(children(sent).len(), PATCHES_AT_ONCE);
        let rest = fetched(&collection, PATCHES_AT_ONCE as u64, None);
        assert_eq!(children(rest.get_optional_child("patches").unwrap()).len(), 5);
        let none = fetched(&collection, 9_999, None);
        assert!(none.get_optional_child("patches").is_none());
    }

    #[test]
    fn every_collection_begins_at_version_one() {
        let account = Account::new("15550001");
        let mut collections = Collections::default();
        for name in COLLECTIONS {
            assert_eq!(collections.get(&account, name).unwrap().version(), 1);
        }
        assert!(collections.get(&account, "other").is_none());
    }
}
