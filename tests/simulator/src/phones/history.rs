//! History that a phone gives its companions: an encrypted medium, announced by a message.

use std::io::Write;
use std::sync::Arc;

use buffa::{Message as _, MessageField};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use waproto::whatsapp as wa;
use waproto::whatsapp::message as parts;

use super::outbound;
use crate::account::Account;
use crate::error::PhoneError;
use crate::media;
use crate::stanza::unix_now;
use crate::world::World;

/// Messages of one chunk, all chats together.
const MESSAGES: usize = 200_000;

/// Sends one chunk to every companion.
pub(super) fn send(
    world: &Arc<World>,
    account: &Arc<Account>,
    chats: usize,
    messages: usize,
) -> Result<(), PhoneError> {
    if chats.saturating_mul(messages.max(1)) > MESSAGES {
        return Err(PhoneError::Invalid(format!("more than {MESSAGES} messages")));
    }
    let invalid = |e: &dyn std::fmt::Display| PhoneError::Invalid(e.to_string());
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&chunk(chats, messages).encode_to_vec()).map_err(|e| invalid(&e))?;
    let compressed = encoder.finish().map_err(|e| invalid(&e))?;
    let encrypted =
        wacore::upload::encrypt_media(&compressed, wacore::download::MediaType::History).map_err(|e| invalid(&e))?;
    let name = format!("history-{}", world.next_number());
    let notice = parts::HistorySyncNotification {
        file_sha256: Some(encrypted.file_sha256.to_vec()),
        file_length: Some(compressed.len() as u64),
        media_key: Some(encrypted.media_key.to_vec()),
        file_enc_sha256: Some(encrypted.file_enc_sha256.to_vec()),
        direct_path: Some(media::direct_path(&name)),
        sync_type: Some(parts::HistorySyncType::RECENT),
        chunk_order: Some(1),
        progress: Some(100),
        ..Default::default()
    };
    if !media::store(world, &name, Bytes::from(encrypted.data_to_upload)) {
        return Err(PhoneError::Invalid("the history is too large".into()));
    }
    let companions = account.state().companions();
    for companion in companions {
        let message = parts::ProtocolMessage {
            r#type: Some(parts::protocol_message::Type::HistorySyncNotification),
            history_sync_notification: MessageField::some(notice.clone()),
            ..Default::default()
        };
        outbound::send_peer(world, account, companion, message)?;
    }
    Ok(())
}

fn chunk(chats: usize, messages: usize) -> wa::HistorySync {
    let start = unix_now().saturating_sub(86_400);
    let conversations = (0..chats)
        .map(|chat| {
            let jid = format!("1888{chat:06}@s.whatsapp.net");
            let messages = (0..messages).map(|n| history_message(&jid, chat, n, start + n as u64)).collect();
            wa::Conversation { id: jid, messages, name: Some(format!("Chat {chat}")), ..Default::default() }
        })
        .collect();
    wa::HistorySync {
        sync_type: wa::history_sync::HistorySyncType::RECENT,
        conversations,
        chunk_order: Some(1),
        progress: Some(100),
        ..Default::default()
    }
}

fn history_message(jid: &str, chat: usize, n: usize, time: u64) -> wa::HistorySyncMsg {
    let info = wa::WebMessageInfo {
        key: MessageField::some(wa::MessageKey {
            remote_jid: Some(jid.to_string()),
            from_me: Some(n.is_multiple_of(2)),
            id: Some(format!("H{chat}-{n}")),
            ..Default::default()
        }),
        message: MessageField::some(wa::Message {
            conversation: Some(format!("old message {n}")),
            ..Default::default()
        }),
        message_timestamp: Some(time),
        ..Default::default()
    };
    wa::HistorySyncMsg { message: MessageField::some(info), ..Default::default() }
}
