//! Rows to store.

use crate::{
    Accepted, Fence, HistoryRow, MediaFile, MessageReceipt, OutboxRow, ReceiptKind, SendRecord, SessionRow, StoreError,
    Stores, TokenRow,
};
use anyhow::{Context, Result};
use rookery_protocol::{Incarnation, Jid, MessageId, SessionId, Timestamp, TokenId, UserId, api::MessageType};

/// The chats of the samples, by number.
pub(super) fn chat(number: usize) -> Jid {
    Jid::from_phone(&format!("1555000{number:04}")).expect("it is a phone number")
}

/// A point in time that many seconds after the samples' beginning.
pub(super) fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_755_000_000 + secs)
}

/// The same, plus microseconds.
pub(super) fn at_micros(secs: i64, micros: i64) -> Timestamp {
    Timestamp::from_micros(at(secs).as_micros() + micros)
}

/// The sort key of the message that arrived as number `arrival` that many seconds after the beginning.
pub(super) fn sort_key(secs: i64, arrival: u64) -> u64 {
    at(secs).as_secs().cast_unsigned() << 20 | arrival
}

pub(super) fn token(user: UserId, number: i64) -> TokenRow {
    let id = TokenId::generate();
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(id.as_bytes());
    TokenRow { id, user_id: user, name: format!("token {number}"), hash, created_at: at(number) }
}

pub(super) fn session(user: UserId) -> SessionRow {
    SessionRow::new(user, "a session", at(0))
}

/// A new session and the right to write it.
pub(super) async fn claimed(stores: &Stores) -> Result<Fence> {
    let row = session(UserId::generate());
    stores.sessions.create(&row).await?;
    claim(stores, row.session_id).await
}

/// The right to write a session, whoever had it before.
pub(super) async fn claim(stores: &Stores, session: SessionId) -> Result<Fence> {
    let seen = stores.owners.read(session).await?.context("the session has no owner row")?;
    Ok(stores.owners.claim(session, &seen, &"node-1".parse()?, Incarnation::generate()).await?)
}

/// A text message that arrived that many seconds after the beginning.
pub(super) fn inbound(number: u64, chat: &Jid, secs: i64) -> HistoryRow {
    let id = format!("IN{number}").parse().expect("it is an id");
    HistoryRow {
        sort_key: sort_key(secs, number),
        sender: Some(chat.clone()),
        text: Some(format!("message {number}")),
        ..HistoryRow::new(id, chat.clone(), MessageType::Text, at(secs))
    }
}

/// A file that WhatsApp keeps under this path.
pub(super) fn file(direct_path: Option<&str>) -> MediaFile {
    MediaFile {
        direct_path: direct_path.map(str::to_owned),
        media_key: Some(vec![1; 32].into()),
        sha256: vec![2; 32].into(),
        encrypted_sha256: Some(vec![3; 32].into()),
        length: 1 << 20,
    }
}

/// A text message of our own.
pub(super) fn outbound(number: u64, chat: &Jid, secs: i64) -> HistoryRow {
    HistoryRow {
        message_id: format!("OUT{number}").parse().expect("it is an id"),
        sender: None,
        from_me: true,
        ..inbound(number, chat, secs)
    }
}

/// An accepted send; with an idempotency key when there is one.
pub(super) fn accepted(seq: u64, chat: &Jid, secs: i64, key: Option<[u8; 32]>) -> Accepted {
    let history = outbound(seq, chat, secs);
    let record = SendRecord {
        request_hash: [7; 32],
        message_id: history.message_id.clone(),
        to: chat.user().to_owned(),
        chat: chat.clone(),
        accepted_at: at(secs),
        sort_key: history.sort_key,
    };
    let outbox = OutboxRow {
        seq,
        message_id: history.message_id.clone(),
        chat: chat.clone(),
        payload: vec![1, 2, 3].into(),
        accepted_at: at(secs),
        sort_key: history.sort_key,
        file: None,
    };
    Accepted { outbox, history, idempotency: key.map(|key| (key, record)) }
}

/// Stores one receipt.
pub(super) async fn receipt(
    stores: &Stores,
    fence: &Fence,
    chat: &Jid,
    ids: &[MessageId],
    kind: ReceiptKind,
    at: Timestamp,
) -> Result<(), StoreError> {
    let receipt = MessageReceipt { chat: chat.clone(), participant: None, ids: ids.to_vec(), kind, at };
    let mut answers = stores.history.receipts(vec![(fence.clone(), receipt)]).await?;
    answers.pop().unwrap_or(Err(StoreError::Refused("a receipt has no answer")))
}
