//! The WhatsApp client of a session. No module outside this folder names the library.
//!
//! A [`Connector`] (one a process) prepares a [`Client`] (one a session); what the client sees goes to an
//! [`Observer`]. It knows nothing of actors, HTTP or the session's life.

mod amend;
mod content;
mod events;
mod history;
mod http_client;
mod media;
mod peers;
mod requests;
mod sync_worker;
mod transport;

pub(crate) use content::{payload_kind, text_payload};
pub(crate) use history::Chunk;
pub(crate) use media::{DownloadFailure, FileMessage, file_payload, seal, sealed_length};
pub(crate) use peers::Note;
pub(crate) use transport::check_endpoint;

use self::{events::Adapter, transport::GatedTransport};
use super::{admission::Admission, state::ClientEvent};
use async_trait::async_trait;
use rookery_protocol::{Epoch, Jid, JidServer, MessageId, NodeId};
use rookery_storage::{Amendment, ContactFacts, DeviceBackend, Gate, HistoryRow, MessageReceipt};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;
use whatsapp_rust::{
    CacheConfig, CacheEntryConfig, SendOptions, TokioRuntime,
    async_channel::Receiver,
    http::UreqHttpClient,
    pair_code::PairCodeOptions,
    store::{commands::DeviceCommand, persistence_manager::PersistenceManager},
    sync_task::MajorSyncTask,
    waproto::{codec, whatsapp::device_props::PlatformType},
};

/// How long the library may take to hand a stanza to the socket.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a pairing code may take, the wait for the socket included.
const PAIRING_CODE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a client writes down what changed of its device and is not urgent.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a client may take to flush and close before it is aborted.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);
/// How long WhatsApp may take to confirm that a link ends.
const LOGOUT_TIMEOUT: Duration = Duration::from_secs(8);
/// Recipients of one client that are remembered as being on WhatsApp.
const MAX_REACHABLE: usize = 4096;
/// Files that go to and come from WhatsApp at a time, over all sessions. Each takes a thread.
const TRANSFERS: usize = 32;

/// Sent messages that the library keeps in memory for a recipient who cannot decrypt them, beside their rows.
const RECENT_MESSAGES: u64 = 16;
/// How long it keeps them.
const RECENT_MESSAGES_FOR: Duration = Duration::from_secs(60);

/// What the server said of a sent message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    /// Accepted.
    Accepted,
    /// Refused, with the server's code.
    Refused(String),
}

/// Who hears what a client sees. All but [`Observer::take`] must return at once.
#[async_trait]
pub(crate) trait Observer: Send + Sync + 'static {
    /// Something happened to the connection or the link.
    fn event(&self, event: ClientEvent);
    /// The server answered a sent message.
    fn ack(&self, id: &str, ack: Ack);
    /// A receipt for messages of ours came.
    fn receipt(&self, receipt: MessageReceipt);
    /// Messages came that wait for no acknowledgement of ours.
    fn stray(&self, inbound: Inbound);
    /// Something was learned about a person or a chat.
    fn note(&self, note: Note);
    /// A chunk of history is here.
    fn history(&self, chunk: Chunk);
    /// Makes durable what came. Only when it succeeds is it acknowledged; otherwise it comes again.
    async fn take(&self, inbound: Inbound) -> anyhow::Result<()>;
}

/// What came and waits to be acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    /// Messages.
    pub messages: Vec<HistoryRow>,
    /// What changes messages, these or others.
    pub amendments: Vec<Amendment>,
    /// Who wrote them.
    pub authors: Vec<ContactFacts>,
    /// Announcements of history: the chunks themselves come by [`Observer::history`], sooner or later.
    pub announced: Vec<MessageId>,
    /// Nobody else waits for the acknowledgement.
    pub patient: bool,
}

impl Inbound {
    /// Whether there is nothing for the history.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.amendments.is_empty()
    }
}

/// Why a message could not be handed to WhatsApp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SendFailure {
    /// There is no connection; nothing was sent.
    NotConnected,
    /// It can never be sent.
    Impossible(String),
    /// It may work when tried again.
    Temporary(String),
    /// WhatsApp's media host did not take its file; it will, sooner or later.
    Upload(String),
}

/// Settings that all clients of a process share.
#[derive(Clone, Debug)]
pub(crate) struct ClientSettings {
    /// This node's name.
    pub node: NodeId,
    /// The address of the WebSocket endpoint.
    pub url: String,
    /// The version of WhatsApp Web to claim; without it the client asks WhatsApp for the current one.
    pub version: Option<(u32, u32, u32)>,
    /// The name shown on the phone under linked devices.
    pub device_name: String,
    /// How many one-time prekeys a device uploads at a time.
    pub prekeys: usize,
    /// The largest file that is downloaded.
    pub max_file_bytes: u64,
    /// How long the phone may take to send a file again.
    pub phone_timeout: Duration,
}

/// Starts clients.
pub(crate) struct Connector {
    settings: ClientSettings,
    transport: Arc<GatedTransport>,
    http: UreqHttpClient,
    transfers: Arc<Semaphore>,
    gate: Arc<dyn Gate>,
}

impl Connector {
    /// A connector whose clients open their connections only as `admission` allows. While `gate` is shut no socket is
    /// opened and nothing is handed to a client to be sent.
    pub(crate) fn new(settings: ClientSettings, admission: Admission, gate: Arc<dyn Gate>) -> Self {
        let transport = Arc::new(GatedTransport::new(&settings.url, admission, Arc::clone(&gate)));
        let http = http_client::new(settings.max_file_bytes);
        Self { settings, transport, http, transfers: Arc::new(Semaphore::new(TRANSFERS)), gate }
    }

    /// Prepares a client on the key material of `backend`. Once started it connects, keeps connected, and pairs
    /// when the device is not linked yet. The node acts under the claim of this epoch.
    pub(crate) async fn prepare(
        &self,
        backend: DeviceBackend,
        epoch: Epoch,
        observer: Arc<dyn Observer>,
    ) -> anyhow::Result<Prepared> {
        let adapter = Arc::new(Adapter::new(observer));
        let props = whatsapp_rust::wacore::store::DevicePropsOverride::new()
            .with_os(self.settings.device_name.clone())
            .with_platform_type(PlatformType::CHROME);
        let device = Arc::new(PersistenceManager::new(Arc::new(backend)).await?);
        device.process_command(DeviceCommand::SetDeviceProps(props)).await;
        let transport = Arc::clone(&self.transport).factory(Arc::clone(&adapter), &self.settings.node, epoch);
        let mut builder = whatsapp_rust::Client::builder()
            .with_runtime(TokioRuntime)
            .with_persistence_manager(device)
            .with_transport_factory(transport)
            .with_http_client(self.http.clone())
            .with_cache_config(caches())
            .with_background_saver_interval(SAVE_INTERVAL)
            .with_wanted_pre_key_count(self.settings.prekeys)
            .with_inbound_durability_hook(Arc::clone(&adapter).hook());
        if let Some(version) = self.settings.version {
            builder = builder.with_version_override(version);
        }
        let (client, tasks) = builder.build().await?.into_parts();
        client.subscribe_handler(Arc::new(Arc::clone(&adapter).handler())).detach();
        adapter.attach(&client);
        // Without it senders see one grey tick for as long as the session does not show itself online, and
        // online it would silence the phone's notifications.
        client.set_force_active_delivery_receipts(true);
        Ok(Prepared {
            client,
            tasks,
            adapter,
            transfers: Arc::clone(&self.transfers),
            phone_timeout: self.settings.phone_timeout,
            gate: Arc::clone(&self.gate),
        })
    }
}

/// The library's caches. With room for a few sent messages in memory it writes their rows beside the ratchet and not
/// before it: one wait for the disk less in every send. Only a recipient who cannot decrypt asks for such a row, and
/// the store is given it before WhatsApp is given the message.
fn caches() -> CacheConfig {
    let recent_messages = CacheEntryConfig::new(Some(RECENT_MESSAGES_FOR), RECENT_MESSAGES);
    CacheConfig { recent_messages, ..CacheConfig::default() }
}

/// A client that is not connected yet.
pub(crate) struct Prepared {
    client: Arc<whatsapp_rust::Client>,
    tasks: Receiver<MajorSyncTask>,
    adapter: Arc<Adapter>,
    transfers: Arc<Semaphore>,
    phone_timeout: Duration,
    gate: Arc<dyn Gate>,
}

impl Prepared {
    /// The way to WhatsApp through the client once it is connected.
    pub(crate) fn line(&self) -> Line {
        let transfers = Arc::clone(&self.transfers);
        let phone_timeout = self.phone_timeout;
        Line(Arc::new(Inner {
            client: Arc::clone(&self.client),
            reachable: Mutex::default(),
            transfers,
            phone_timeout,
            gate: Arc::clone(&self.gate),
        }))
    }

    /// Connects.
    pub(crate) fn start(self) -> Client {
        let Self { client, tasks, adapter, .. } = self;
        sync_worker::start(&client, tasks, Arc::clone(&adapter));
        let (stop, mut stopped) = watch::channel(false);
        let (done, ended) = oneshot::channel();
        let inner = Arc::clone(&client);
        tokio::spawn(async move {
            let runner = Arc::clone(&client);
            let mut running = AbortOnDropHandle::new(tokio::spawn(async move { runner.run().await }));
            let told = tokio::select! {
                _ = &mut running => false,
                _ = stopped.wait_for(|stop| *stop) => true,
            };
            let close = async {
                client.disconnect().await;
                let _ = running.await;
            };
            if !told {
                adapter.ended();
            } else if tokio::time::timeout(SHUTDOWN_TIMEOUT, close).await.is_err() {
                tracing::warn!("a client did not close in time and was aborted");
            }
            let _ = done.send(());
        });
        Client { inner, stop, ended }
    }
}

/// A running client. Dropping it closes it, too, but nobody knows when.
pub(crate) struct Client {
    inner: Arc<whatsapp_rust::Client>,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

impl Client {
    /// Flushes, closes the socket and waits until both are done.
    pub(crate) async fn shutdown(self) {
        let _ = self.stop.send(true);
        let _ = self.ended.await;
    }

    /// Tells WhatsApp that the link ends, then shuts down.
    pub(crate) async fn log_out(self) {
        if tokio::time::timeout(LOGOUT_TIMEOUT, self.inner.logout()).await.is_err() {
            tracing::warn!("WhatsApp did not confirm the end of a link in time");
        }
        self.shutdown().await;
    }
}

/// The way to WhatsApp through a running client. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Line(Arc<Inner>);

struct Inner {
    client: Arc<whatsapp_rust::Client>,
    /// Recipients that are known to be on WhatsApp.
    reachable: Mutex<HashSet<Jid>>,
    /// Bounds the files on their way; shared by all clients.
    transfers: Arc<Semaphore>,
    /// How long the phone may take to send a file again.
    phone_timeout: Duration,
    gate: Arc<dyn Gate>,
}

impl Line {
    /// Whether this node may act. The owner of a lease that has run out sends nothing.
    fn may_act(&self) -> Result<(), SendFailure> {
        if self.0.gate.open() { Ok(()) } else { Err(SendFailure::NotConnected) }
    }

    /// Refuses a user who is not on WhatsApp. Without this the library sends a message to no device at all, and
    /// the server acknowledges it.
    async fn check_recipient(&self, chat: &Jid, to: &whatsapp_rust::Jid) -> Result<(), SendFailure> {
        let known = || self.0.reachable.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(chat.server(), JidServer::PhoneNumber | JidServer::Lid) || known().contains(chat) {
            return Ok(());
        }
        if !self.0.client.is_logged_in() {
            return Err(SendFailure::NotConnected);
        }
        let asked = self.0.client.contacts().is_on_whatsapp(std::slice::from_ref(to)).await;
        let answers =
            asked.map_err(|error| SendFailure::Temporary(format!("recipient could not be looked up: {error}")))?;
        if !answers.iter().any(|answer| answer.is_registered) {
            return Err(SendFailure::Impossible("the recipient is not on WhatsApp".into()));
        }
        let mut known = known();
        if known.len() >= MAX_REACHABLE {
            known.clear();
        }
        known.insert(chat.clone());
        Ok(())
    }

    /// Encrypts an encoded message and hands it to the socket under the given id. The server's answer comes
    /// through [`Observer::ack`].
    pub(crate) async fn send(&self, chat: &Jid, payload: &[u8], id: &MessageId) -> Result<(), SendFailure> {
        let to = chat.as_str().parse::<whatsapp_rust::Jid>();
        let to = to.map_err(|error| SendFailure::Impossible(format!("bad recipient: {error}")))?;
        let message = codec::message_decode(payload)
            .map_err(|error| SendFailure::Impossible(format!("stored message cannot be read: {error}")))?;
        let options = SendOptions::default().with_message_id(id.as_str());
        let sending = async {
            self.check_recipient(chat, &to).await?;
            self.may_act()?;
            let sent = self.0.client.send_message_with_options(to, message, options).await;
            sent.map(|_| ()).map_err(|error| events::send_failure(&error))
        };
        let in_time = tokio::time::timeout(SEND_TIMEOUT, sending).await;
        in_time.unwrap_or_else(|_| Err(SendFailure::Temporary("no answer in time".into())))
    }

    /// Shows that somebody is typing, or recording, in a chat. WhatsApp ends it when the message comes.
    pub(crate) async fn show_typing(&self, chat: &Jid, recording: bool) {
        let Ok(to) = chat.as_str().parse::<whatsapp_rust::Jid>() else { return };
        let chatstate = self.0.client.chatstate();
        let shown = if recording { chatstate.send_recording(&to).await } else { chatstate.send_composing(&to).await };
        if let Err(error) = shown {
            tracing::debug!(%error, "typing could not be shown");
        }
    }

    /// Asks for a code that links this device when it is typed on the phone: `ABCD-EFGH`.
    pub(crate) async fn pairing_code(&self, phone: &str) -> anyhow::Result<String> {
        let options = PairCodeOptions { phone_number: phone.to_owned(), ..PairCodeOptions::default() };
        let code = tokio::time::timeout(PAIRING_CODE_TIMEOUT, async {
            self.0.client.wait_for_socket(PAIRING_CODE_TIMEOUT).await?;
            self.0.client.cancel_pair_code().await;
            anyhow::Ok(self.0.client.pair_with_code(options).await?)
        })
        .await??;
        let plain: String = code.chars().filter(char::is_ascii_alphanumeric).collect();
        let (left, right) = plain.split_at_checked(4).unwrap_or((&plain, ""));
        Ok(format!("{left}-{right}"))
    }
}
