//! From the library's events to ours.

use super::{
    Ack, Inbound, Observer, SendFailure, amend, content,
    history::Chunk,
    peers::{self, Note},
    sync_worker,
};
use crate::session::state::ClientEvent;
use async_trait::async_trait;
use rookery_protocol::{DeviceId, JidServer, MessageId, Timestamp};
use rookery_storage::{MessageReceipt, ReceiptKind};
use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};
use whatsapp_rust::{
    Client, InboundDurabilityHook, SendError,
    types::durability_hook::InboundMessage,
    wacore::types::{
        events::{Event, EventHandler, EventInterest, EventKind},
        presence::ReceiptType,
    },
    waproto::whatsapp as wa,
};

/// Longer bans are looked at again after this time.
const LONGEST_BAN: Duration = Duration::from_secs(30 * 24 * 3600);

/// What the adapter listens to: every kind costs a dispatch, so only what is used.
const KINDS: [EventKind; 30] = [
    EventKind::Connected,
    EventKind::Disconnected,
    EventKind::PairSuccess,
    EventKind::PairError,
    EventKind::LoggedOut,
    EventKind::PairingQrCode,
    EventKind::PairingQrCodesExhausted,
    EventKind::PairPasskeyRequest,
    EventKind::ClientOutdated,
    EventKind::Messages,
    EventKind::Receipt,
    EventKind::ServerAck,
    EventKind::UndecryptableMessage,
    EventKind::SelfPushNameUpdated,
    EventKind::StreamReplaced,
    EventKind::TemporaryBan,
    EventKind::ConnectFailure,
    EventKind::QrScannedWithoutMultidevice,
    EventKind::PairPasskeyError,
    EventKind::HistorySync,
    EventKind::ContactUpdate,
    EventKind::PushNameUpdate,
    EventKind::BusinessStatusUpdate,
    EventKind::ArchiveUpdate,
    EventKind::PinUpdate,
    EventKind::MuteUpdate,
    EventKind::MarkChatAsReadUpdate,
    EventKind::DeleteChatUpdate,
    EventKind::ClearChatUpdate,
    EventKind::GroupUpdate,
];

/// Stands between one client and its observer.
pub(super) struct Adapter {
    observer: Arc<dyn Observer>,
    /// The client, which holds this.
    client: OnceLock<Weak<Client>>,
}

impl Adapter {
    pub(super) fn new(observer: Arc<dyn Observer>) -> Self {
        Self { observer, client: OnceLock::new() }
    }

    /// Says whose events these are.
    pub(super) fn attach(&self, client: &Arc<Client>) {
        let _ = self.client.set(Arc::downgrade(client));
    }

    /// Makes the announcement of a history chunk durable.
    pub(super) async fn announced(&self, id: MessageId) -> anyhow::Result<()> {
        self.observer.take(Inbound { announced: vec![id], ..Inbound::default() }).await
    }

    /// The client ended without having been told to.
    pub(super) fn ended(&self) {
        self.observer.event(ClientEvent::Ended);
    }

    /// No connection could be made.
    pub(super) fn unreachable(&self, error: &anyhow::Error) {
        self.observer.event(ClientEvent::Unreachable(format!("WhatsApp cannot be reached: {error:#}")));
    }

    pub(super) fn handler(self: Arc<Self>) -> Handler {
        Handler(self)
    }

    pub(super) fn hook(self: Arc<Self>) -> Hook {
        Hook(self)
    }

    fn on_event(&self, event: &Event) {
        match event {
            Event::Messages(batch) if !batch.hook_committed => {
                let inbound = inbound(batch.iter());
                if !inbound.is_empty() {
                    self.observer.stray(inbound);
                }
            }
            Event::UndecryptableMessage(lost) => {
                if let Some(row) = content::undecryptable(&lost.info) {
                    self.observer.stray(Inbound { messages: vec![row], ..Inbound::default() });
                }
            }
            Event::Receipt(receipt) => self.on_receipt(receipt),
            Event::ServerAck(ack) if ack.class.as_deref() == Some("message") => {
                let outcome = ack.error.clone().map_or(Ack::Accepted, Ack::Refused);
                self.observer.ack(&ack.id, outcome);
            }
            Event::HistorySync(chunk) => self.observer.history(Chunk::new(chunk, sync_worker::announcement())),
            other => {
                if let Some(note) = peers::note(other) {
                    self.observer.note(note);
                } else if let Some(event) = client_event(other) {
                    self.observer.event(event);
                }
            }
        }
    }

    fn is_own(&self, sender: &whatsapp_rust::Jid) -> bool {
        let client = self.client.get().and_then(Weak::upgrade);
        let own = client.iter().flat_map(|client| [client.pn(), client.lid()]).flatten();
        own.into_iter().any(|own| own.user == sender.user && own.server == sender.server)
    }

    fn on_receipt(&self, receipt: &whatsapp_rust::wacore::types::events::Receipt) {
        let kind = match receipt.r#type {
            ReceiptType::Delivered | ReceiptType::Inactive => ReceiptKind::Delivered,
            ReceiptType::Read | ReceiptType::ReadSelf => ReceiptKind::Read,
            ReceiptType::Played => ReceiptKind::Played,
            _ => return,
        };
        if receipt.source.is_from_me {
            return;
        }
        if kind != ReceiptKind::Delivered && self.is_own(&receipt.source.sender) {
            if kind == ReceiptKind::Read {
                self.observer.note(Note::Seen(receipt.message_ids.iter().filter_map(|id| id.parse().ok()).collect()));
            }
            return;
        }
        let Some(chat) = content::jid(&receipt.source.chat) else { return };
        // The library fills in `is_group` for messages alone.
        let in_group = chat.server() == JidServer::Group;
        let participant = if in_group { content::sender(&receipt.source) } else { None };
        let ids: Vec<_> = receipt.message_ids.iter().filter_map(|id| id.parse().ok()).collect();
        let at = Timestamp::from_micros(receipt.timestamp.timestamp_micros());
        self.observer.receipt(MessageReceipt { chat, participant, ids, kind, at });
    }
}

/// The announcement of a history chunk. The library has taken the chunk out of it already.
fn announcement(message: &InboundMessage) -> Option<MessageId> {
    let kind = message.message.protocol_message.as_option()?.r#type?;
    let announces = kind == wa::message::protocol_message::Type::HISTORY_SYNC_NOTIFICATION;
    if announces && message.info.source.is_from_me { message.info.id.parse().ok() } else { None }
}

/// What a batch brings for the history.
fn inbound<'a>(batch: impl IntoIterator<Item = &'a InboundMessage>) -> Inbound {
    let mut inbound = Inbound::default();
    for InboundMessage { message, info, .. } in batch {
        match amend::amendment(message, info) {
            Some(amendment) => inbound.amendments.push(amendment),
            None => inbound.messages.extend(content::row(message, info)),
        }
    }
    inbound
}

fn client_event(event: &Event) -> Option<ClientEvent> {
    Some(match event {
        Event::Connected(_) => ClientEvent::Connected { push_name: None },
        Event::Disconnected(lost) => ClientEvent::Disconnected(format!("connection lost: {}", lost.reason)),
        Event::PairSuccess(pair) => {
            let phone = pair.id.user_base();
            match DeviceId::new(phone, pair.id.device) {
                Ok(device) => ClientEvent::Paired { device, lid: content::jid(&pair.lid) },
                Err(error) => ClientEvent::PairFailed(format!("unexpected device id: {error}")),
            }
        }
        Event::PairError(pair) => ClientEvent::PairFailed(pair.error.clone()),
        Event::QrScannedWithoutMultidevice(_) => {
            ClientEvent::PairFailed("the phone's WhatsApp is too old to link devices".into())
        }
        Event::PairingQrCode(qr) => ClientEvent::Qr { code: qr.code.clone(), valid_for: qr.timeout },
        Event::PairingQrCodesExhausted(_) => ClientEvent::QrExhausted,
        Event::PairPasskeyRequest(_) => ClientEvent::PasskeyRequired,
        Event::PairPasskeyError(_) => ClientEvent::PairFailed("the account asks for a passkey".into()),
        Event::LoggedOut(out) => ClientEvent::LoggedOut(format!("logged out by WhatsApp ({:?})", out.reason)),
        Event::StreamReplaced(_) => ClientEvent::Replaced,
        Event::SelfPushNameUpdated(name) => ClientEvent::PushName(name.new_name.clone()),
        Event::ClientOutdated(_) => {
            ClientEvent::Refused("WhatsApp refuses this client version; set whatsapp.version or upgrade".into())
        }
        Event::TemporaryBan(ban) => {
            let lasts = ban.expire.to_std().unwrap_or_default().min(LONGEST_BAN);
            let why = format!("WhatsApp has banned the account for {} s: {}", lasts.as_secs(), ban.code);
            ClientEvent::Banned { lasts, why }
        }
        Event::ConnectFailure(failure) if failure.reason.should_reconnect() => {
            ClientEvent::Disconnected(format!("WhatsApp is unavailable ({:?})", failure.reason))
        }
        Event::ConnectFailure(failure) => {
            ClientEvent::Refused(format!("WhatsApp refused the connection ({:?})", failure.reason))
        }
        _ => return None,
    })
}

/// What a failed send means for the message.
pub(super) fn send_failure(error: &SendError) -> SendFailure {
    match error {
        SendError::NotLoggedIn => SendFailure::NotConnected,
        SendError::Client(inner) if inner.is_transport_unavailable() => SendFailure::NotConnected,
        SendError::InvalidRequest(why) => SendFailure::Impossible(why.clone()),
        other => SendFailure::Temporary(other.to_string()),
    }
}

/// The adapter as the library's event handler.
pub(super) struct Handler(Arc<Adapter>);

impl EventHandler for Handler {
    fn handle_event(&self, event: Arc<Event>) {
        self.0.on_event(&event);
    }

    fn interest(&self) -> EventInterest {
        EventInterest::of(&KINDS)
    }
}

/// The adapter as the library's durability hook.
pub(super) struct Hook(Arc<Adapter>);

#[async_trait]
impl InboundDurabilityHook for Hook {
    async fn on_messages(&self, _client: Arc<Client>, batch: &[InboundMessage]) -> anyhow::Result<()> {
        let announced: Vec<_> = batch.iter().filter_map(announcement).collect();
        let inbound = inbound(batch);
        if inbound.is_empty() && announced.is_empty() {
            return Ok(());
        }
        // What comes after a connection was lost is taken in one after the other: all would wait.
        let patient = batch.iter().all(|message| !message.info.is_offline);
        let inbound = Inbound { authors: peers::authors(batch), announced, patient, ..inbound };
        self.0.observer.take(inbound).await
    }
}
