//! What a phone changes in its account's app state, and what can be seen in it.

use std::sync::Arc;

use buffa::{Message as _, MessageField};
use serde::{Deserialize, Serialize};
use wacore::appstate as syncd;
use wacore::appstate::schemas;
use waproto::whatsapp as wa;
use waproto::whatsapp::sync_action_value as action;
use waproto::whatsapp::syncd_mutation::SyncdOperation;

use super::collection::{self, Collection, Keys};
use super::{INLINE_MUTATIONS, KEY_ID, blob, notify};
use crate::account::Account;
use crate::error::PhoneError;
use crate::stanza::unix_now;
use crate::world::World;

/// The action that carries the account's name.
const PUSH_NAME: &str = "setting_pushName";

/// What a person changes on a phone and all devices of the account learn of. A `chat` is a phone number or a
/// group's JID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum StateChange {
    /// Pins a chat above the others, or no longer.
    Pin {
        /// The chat.
        chat: String,
        /// Pinned or not.
        on: bool,
    },
    /// Mutes a chat, or no longer.
    Mute {
        /// The chat.
        chat: String,
        /// Muted or not.
        on: bool,
        /// Until when, in seconds since the epoch; without it for ever.
        #[serde(default)]
        until: Option<u64>,
    },
    /// Archives a chat, or brings it back.
    Archive {
        /// The chat.
        chat: String,
        /// Archived or not.
        on: bool,
    },
    /// Marks a chat as read or unread.
    Read {
        /// The chat.
        chat: String,
        /// Read or unread.
        on: bool,
    },
    /// Deletes a chat.
    DeleteChat {
        /// The chat.
        chat: String,
    },
    /// Deletes all messages of a chat.
    ClearChat {
        /// The chat.
        chat: String,
    },
    /// Stars a message, or no longer.
    Star {
        /// The message's chat.
        chat: String,
        /// Its id.
        message_id: String,
        /// The account has sent it.
        from_me: bool,
        /// Starred or not.
        on: bool,
    },
    /// Deletes a message on the account's devices alone.
    DeleteForMe {
        /// The message's chat.
        chat: String,
        /// Its id.
        message_id: String,
        /// The account has sent it.
        from_me: bool,
    },
    /// Names a contact; an empty name removes it.
    Contact {
        /// The contact's phone number.
        chat: String,
        /// First and last name.
        name: String,
    },
    /// The account's own name.
    PushName {
        /// The name.
        name: String,
    },
    /// Makes, renames or deletes a label.
    Label {
        /// Its id.
        id: String,
        /// Its name; an empty one deletes it.
        name: String,
    },
    /// Labels a chat, or no longer.
    LabelChat {
        /// The label's id.
        id: String,
        /// The chat.
        chat: String,
        /// Labelled or not.
        on: bool,
    },
}

/// What an account's devices agree on about a chat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ChatState {
    /// It is pinned.
    pub pinned: bool,
    /// It is muted.
    pub muted: bool,
    /// It is archived.
    pub archived: bool,
    /// It was marked as unread.
    pub unread: bool,
    /// The contact's name.
    pub name: Option<String>,
}

/// An action with the index that it is kept under.
struct Action {
    name: &'static str,
    index: Vec<String>,
    value: wa::SyncActionValue,
    operation: SyncdOperation,
}

/// The JID by which app state names a chat.
fn chat_jid(chat: &str) -> String {
    if chat.contains('@') { chat.to_string() } else { format!("{chat}@s.whatsapp.net") }
}

fn flag(from_me: bool) -> String {
    u8::from(from_me).to_string()
}

fn range() -> MessageField<action::SyncActionMessageRange> {
    let now = i64::try_from(unix_now()).ok();
    MessageField::some(action::SyncActionMessageRange { last_message_timestamp: now, ..Default::default() })
}

impl StateChange {
    fn action(&self) -> Action {
        let mut value = wa::SyncActionValue::default();
        let mut operation = SyncdOperation::SET;
        let some = |text: &str| (!text.is_empty()).then(|| text.to_string());
        let (name, index) = match self {
            Self::Pin { chat, on } => {
                value.pin_action = MessageField::some(action::PinAction { pinned: Some(*on) });
                ("pin_v1", vec![chat_jid(chat)])
            }
            Self::Mute { chat, on, until } => {
                let until = until.map_or(-1, |t| i64::try_from(t * 1_000).unwrap_or(i64::MAX));
                let mute = action::MuteAction {
                    muted: Some(*on),
                    mute_end_timestamp: on.then_some(until),
                    ..Default::default()
                };
                value.mute_action = MessageField::some(mute);
                ("mute", vec![chat_jid(chat)])
            }
            Self::Archive { chat, on } => {
                let archive = action::ArchiveChatAction { archived: Some(*on), message_range: range() };
                value.archive_chat_action = MessageField::some(archive);
                ("archive", vec![chat_jid(chat)])
            }
            Self::Read { chat, on } => {
                let read = action::MarkChatAsReadAction { read: Some(*on), message_range: range() };
                value.mark_chat_as_read_action = MessageField::some(read);
                ("markChatAsRead", vec![chat_jid(chat)])
            }
            Self::DeleteChat { chat } => {
                value.delete_chat_action = MessageField::some(action::DeleteChatAction { message_range: range() });
                ("deleteChat", vec![chat_jid(chat), "1".into()])
            }
            Self::ClearChat { chat } => {
                value.clear_chat_action = MessageField::some(action::ClearChatAction { message_range: range() });
                ("clearChat", vec![chat_jid(chat), "1".into(), "0".into()])
            }
            Self::Star { chat, message_id, from_me, on } => {
                value.star_action = MessageField::some(action::StarAction { starred: Some(*on) });
                ("star", vec![chat_jid(chat), message_id.clone(), flag(*from_me), "0".into()])
            }
            Self::DeleteForMe { chat, message_id, from_me } => {
                let delete = action::DeleteMessageForMeAction {
                    delete_media: Some(true),
                    message_timestamp: i64::try_from(unix_now()).ok(),
                };
                value.delete_message_for_me_action = MessageField::some(delete);
                ("deleteMessageForMe", vec![chat_jid(chat), message_id.clone(), flag(*from_me), "0".into()])
            }
            Self::Contact { chat, name } => {
                if name.is_empty() {
                    operation = SyncdOperation::REMOVE;
                }
                let first = name.split(' ').next().and_then(some);
                let contact = action::ContactAction {
                    full_name: some(name),
                    first_name: first,
                    save_on_primary_addressbook: Some(true),
                    ..Default::default()
                };
                value.contact_action = MessageField::some(contact);
                ("contact", vec![chat_jid(chat)])
            }
            Self::PushName { name } => {
                value.push_name_setting = MessageField::some(action::PushNameSetting { name: Some(name.clone()) });
                (PUSH_NAME, vec![])
            }
            Self::Label { id, name } => {
                let label = action::LabelEditAction {
                    name: Some(name.clone()),
                    color: Some(1),
                    deleted: Some(name.is_empty()),
                    ..Default::default()
                };
                value.label_edit_action = MessageField::some(label);
                ("label_edit", vec![id.clone()])
            }
            Self::LabelChat { id, chat, on } => {
                let label = action::LabelAssociationAction { labeled: Some(*on), ..Default::default() };
                value.label_association_action = MessageField::some(label);
                ("label_jid", vec![id.clone(), chat_jid(chat)])
            }
        };
        value.timestamp = i64::try_from(unix_now() * 1_000).ok();
        Action { name, index, value, operation }
    }
}

fn index_bytes(name: &str, rest: &[String]) -> Vec<u8> {
    let parts: Vec<&str> = std::iter::once(name).chain(rest.iter().map(String::as_str)).collect();
    serde_json::to_vec(&parts).expect("a list of texts is JSON")
}

impl Action {
    fn mutation(&self, keys: &Keys, version: u32) -> wa::SyncdMutation {
        let index = index_bytes(self.name, &self.index);
        let version = i32::try_from(version).unwrap_or(1);
        syncd::encode_record(self.operation, &index, &self.value, keys, &KEY_ID, &rand::random(), version).0
    }
}

/// A collection as its phone begins it. Without the push name whatsmeow cannot send presence.
pub(super) fn first(account: &Account, name: &'static str) -> Collection {
    let mut collection = Collection::new(name);
    let push_name = StateChange::PushName { name: account.push_name() }.action();
    let keys = account.app_state_keys();
    let mutations = match schema(push_name.name) {
        Ok(schema) if schema.collection.as_str() == name => vec![push_name.mutation(&keys, schema.version)],
        _ => Vec::new(),
    };
    collection.write(&keys, mutations, 1, |_| None);
    collection
}

fn schema(name: &str) -> Result<&'static schemas::Schema, PhoneError> {
    let schema = schemas::ALL.iter().find(|s| s.name == name);
    schema.ok_or_else(|| PhoneError::Invalid(format!("no app state action {name}")))
}

/// Writes a phone's changes, one patch a collection, and tells the account's companions.
pub(crate) fn write(world: &Arc<World>, account: &Arc<Account>, changes: &[StateChange]) -> Result<(), PhoneError> {
    let keys = account.app_state_keys();
    let mut by_collection: Vec<(&'static str, Vec<wa::SyncdMutation>)> = Vec::new();
    for change in changes {
        let action = change.action();
        let schema = schema(action.name)?;
        let (name, mutation) = (schema.collection.as_str(), action.mutation(&keys, schema.version));
        match by_collection.iter_mut().find(|(n, _)| *n == name) {
            Some((_, mutations)) => mutations.push(mutation),
            None => by_collection.push((name, vec![mutation])),
        }
        if let StateChange::PushName { name } = change {
            account.set_push_name(name);
        }
    }
    for (name, mutations) in by_collection {
        let version = {
            let mut state = account.state();
            let collection = state.collections.get(account, name).expect("schemas name WhatsApp's collections");
            collection.write(&keys, mutations, world.config.limits.app_state_patches, |mutations| {
                let many = mutations.len() > INLINE_MUTATIONS;
                let all = || wa::SyncdMutations { mutations: mutations.to_vec() }.encode_to_vec();
                if many { blob(world, "mutations", &all()) } else { None }
            });
            collection.version()
        };
        notify(world, account, None, name, version);
    }
    Ok(())
}

/// What the app state says about a chat.
pub(crate) fn chat_state(account: &Account, chat: &str) -> ChatState {
    let jid = vec![chat_jid(chat)];
    let keys = account.app_state_keys();
    let mut state = account.state();
    let mut value = |name: &str| {
        let collection = schema(name).ok()?.collection.as_str();
        state.collections.get(account, collection)?.value(&keys, &index_bytes(name, &jid))
    };
    let mut chat = ChatState::default();
    if let Some(value) = value("pin_v1") {
        chat.pinned = value.pin_action.as_option().and_then(|a| a.pinned) == Some(true);
    }
    if let Some(value) = value("mute") {
        chat.muted = value.mute_action.as_option().and_then(|a| a.muted) == Some(true);
    }
    if let Some(value) = value("archive") {
        chat.archived = value.archive_chat_action.as_option().and_then(|a| a.archived) == Some(true);
    }
    if let Some(value) = value("markChatAsRead") {
        chat.unread = value.mark_chat_as_read_action.as_option().and_then(|a| a.read) == Some(false);
    }
    chat.name = value("contact").and_then(|v| v.contact_action.as_option()?.full_name.clone());
    chat
}

/// The push name that mutations of a client set.
pub(super) fn push_name(keys: &Keys, mutations: &[wa::SyncdMutation]) -> Option<String> {
    mutations.iter().rev().find_map(|mutation| {
        let (operation, record) = (collection::operation(mutation)?, mutation.record.as_option()?);
        let (mutation, _) = syncd::decode_record(operation, record, keys, &KEY_ID, false).ok()?;
        let named = mutation.index.first().is_some_and(|name| name == PUSH_NAME);
        let value = mutation.action_value.filter(|_| named)?;
        value.push_name_setting.as_option()?.name.clone()
    })
}
