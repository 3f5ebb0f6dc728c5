//! What a phone and its companions say to each other: the app state key, announcements of history, answers to
//! what a companion asks of its phone.

use std::sync::Arc;

use buffa::{Message as _, MessageField};
use waproto::whatsapp as wa;
use waproto::whatsapp::message as parts;
use waproto::whatsapp::message::PeerDataOperationRequestType as Request;
use waproto::whatsapp::message::peer_data_operation_request_response_message as answers;

use super::content::Style;
use super::history;
use super::outbound::{Kind, Outgoing, message_id};
use crate::account::{Account, lock};
use crate::app_state::KEY_ID;
use crate::error::PhoneError;
use crate::stanza::unix_now;
use crate::world::World;

/// Messages of one request for messages.
const RESENDS: usize = 64;

/// Sends a message between the account's devices to one of its companions. Returns its id.
pub(super) fn send(
    world: &Arc<World>,
    account: &Arc<Account>,
    device: u16,
    content: parts::ProtocolMessage,
) -> Result<String, PhoneError> {
    let message = wa::Message { protocol_message: MessageField::some(content), ..Default::default() };
    let id = message_id();
    let outgoing = Outgoing { world, account, id: &id, time: world.faults.now(), style: Style::TEXT };
    let mut signal = lock(&account.phone.signal);
    outgoing.send(&mut signal, account, device, &message, Kind::Peer)?;
    Ok(id)
}

/// A companion has uploaded its keys: it gets the account's app state key and the history.
pub(crate) fn welcome(world: &Arc<World>, account: &Arc<Account>, device: u16) {
    share_key(world, account, device);
    history::give(world, account, device);
}

/// Gives a companion the account's app state key: when it is new, and when it asks.
fn share_key(world: &Arc<World>, account: &Arc<Account>, device: u16) {
    let key = parts::AppStateSyncKey {
        key_id: MessageField::some(parts::AppStateSyncKeyId { key_id: Some(KEY_ID.to_vec()) }),
        key_data: MessageField::some(parts::AppStateSyncKeyData {
            key_data: Some(account.app_state_key.to_vec()),
            fingerprint: MessageField::some(parts::AppStateSyncKeyFingerprint {
                raw_id: Some(account.raw_id),
                current_index: Some(u32::from(device)),
                device_indexes: vec![0, u32::from(device)],
            }),
            timestamp: i64::try_from(unix_now() * 1_000).ok(),
        }),
    };
    let share = parts::ProtocolMessage {
        r#type: Some(parts::protocol_message::Type::AppStateSyncKeyShare),
        app_state_sync_key_share: MessageField::some(parts::AppStateSyncKeyShare { keys: vec![key] }),
        ..Default::default()
    };
    if let Err(error) = send(world, account, device, share) {
        tracing::warn!(%error, "cannot share the app state key");
    }
}

/// Answers what a companion asks of its phone. False when the message asks nothing.
pub(super) fn answer(world: &Arc<World>, account: &Arc<Account>, device: u16, id: &str, message: &wa::Message) -> bool {
    let Some(protocol) = message.protocol_message.as_option() else {
        return false;
    };
    if protocol.app_state_sync_key_request.is_set() {
        share_key(world, account, device);
        return true;
    }
    let Some(request) = protocol.peer_data_operation_request_message.as_option() else {
        return false;
    };
    world.stats.count("phone: asked by a companion");
    let done = match request.peer_data_operation_request_type {
        Some(Request::HISTORY_SYNC_ON_DEMAND) => match request.history_sync_on_demand_request.as_option() {
            Some(asked) => history::on_demand(world, account, device, id, asked),
            None => Ok(()),
        },
        Some(Request::FULL_HISTORY_SYNC_ON_DEMAND) => {
            history::give(world, account, device);
            Ok(())
        }
        Some(Request::HISTORY_SYNC_CHUNK_RETRY) => match request.history_sync_chunk_retry_request.as_option() {
            Some(asked) => history::again(world, account, device, asked),
            None => Ok(()),
        },
        Some(Request::PLACEHOLDER_MESSAGE_RESEND) => resend(world, account, device, id, request),
        _ => {
            world.stats.count("phone: unknown request of a companion");
            Ok(())
        }
    };
    if let Err(error) = done {
        tracing::debug!(%error, "cannot answer a companion");
    }
    true
}

/// A companion could not read messages that its phone has.
fn resend(
    world: &Arc<World>,
    account: &Arc<Account>,
    device: u16,
    id: &str,
    request: &parts::PeerDataOperationRequestMessage,
) -> Result<(), PhoneError> {
    let keys = request.placeholder_message_resend_request.iter().take(RESENDS);
    let found = keys.filter_map(|asked| {
        let id = asked.message_key.as_option()?.id.as_deref()?;
        let known = lock(&account.phone.known).get(id)?;
        Some(answers::PeerDataOperationResult {
            placeholder_message_resend_response: MessageField::some(
                answers::peer_data_operation_result::PlaceholderMessageResendResponse {
                    web_message_info_bytes: Some(known.web_message_info().encode_to_vec()),
                },
            ),
            ..Default::default()
        })
    });
    let response = parts::PeerDataOperationRequestResponseMessage {
        peer_data_operation_request_type: Some(Request::PLACEHOLDER_MESSAGE_RESEND),
        stanza_id: Some(id.to_string()),
        peer_data_operation_result: found.collect(),
    };
    let answer = parts::ProtocolMessage {
        r#type: Some(parts::protocol_message::Type::PEER_DATA_OPERATION_REQUEST_RESPONSE_MESSAGE),
        peer_data_operation_request_response_message: MessageField::some(response),
        ..Default::default()
    };
    send(world, account, device, answer).map(drop)
}
