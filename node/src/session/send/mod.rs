//! A session's outgoing messages, from acceptance to WhatsApp's acknowledgement.
//!
//! A send is accepted when its outbox row is durable, and from then on it is sent under one message id until
//! WhatsApp has answered, however often the connection or the process breaks. Within a chat the next message
//! waits for the answer to the one before it, so order survives every retry; chats do not wait for each other.
//! The desk knows nothing of HTTP and of how the session comes to be connected.

mod deliver;

use super::{
    admission::Bucket,
    sort_key::SortKeys,
    whatsapp::{Ack, Line, payload_kind, text_payload},
};
use crate::{
    metrics,
    spool::{Spool, Spooled},
};
use hmac::{Hmac, KeyInit, Mac};
use rookery_protocol::{
    Jid, MessageId, SessionId, Timestamp,
    api::{Media, MediaShape, MessageType},
};
use rookery_storage::{Accepted, Fence, HistoryRow, MediaFile, OutboxRow, SendOutcome, SendRecord, StoreError, Stores};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// What a message says, for WhatsApp and for the history.
#[derive(Debug)]
pub(crate) struct Content {
    /// What it is.
    pub kind: MessageType,
    /// Its text.
    pub text: Option<String>,
    /// The text with its file.
    pub caption: Option<String>,
    /// Its file, as the history shows it and as WhatsApp keeps it.
    pub media: Option<(Media, MediaFile)>,
    /// How its file looks and plays.
    pub shape: Option<MediaShape>,
    /// The encoded message.
    pub payload: Vec<u8>,
    /// Its file on this node, which has to be uploaded first.
    pub file: Option<Spooled>,
}

impl Content {
    /// A text.
    pub(crate) fn text(text: String) -> Self {
        let payload = text_payload(&text);
        Self { kind: MessageType::Text, text: Some(text), caption: None, media: None, shape: None, payload, file: None }
    }
}

/// A message that a caller wants sent.
#[derive(Debug)]
pub(crate) struct SendRequest {
    /// The recipient as the caller named it.
    pub to: String,
    /// The recipient's address.
    pub chat: Jid,
    /// The account that sends it; the sessions know it.
    pub sender: Option<Jid>,
    /// What it says.
    pub content: Content,
    /// Hash of the caller's idempotency key, and of the request it stands for.
    pub idempotency: Option<([u8; 32], [u8; 32])>,
    /// How long the caller waits for WhatsApp's answer.
    pub wait: Duration,
    /// How long the recipient sees somebody typing or recording before it is sent; only while the process lives.
    pub typing: Duration,
}

/// An accepted send, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Its id.
    pub message_id: MessageId,
    /// The recipient as the first caller named it.
    pub to: String,
    /// The recipient's address.
    pub chat: Jid,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// How it ended, if it did within the wait.
    pub outcome: Option<SendOutcome>,
}

/// Why a send was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// Too many sends of this session wait.
    #[error("too many messages of this session are waiting to be sent")]
    QueueFull,
    /// The session sends faster than it may; there is room after this time.
    #[error("the session sends too fast")]
    TooFast(Duration),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyConflict,
    /// The session is being stopped or moved on this node.
    #[error("the session is stopping")]
    Closed,
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A connection of the session's client; every login has a number of its own.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Which login.
    pub number: u64,
    /// The way to WhatsApp.
    pub line: Line,
}

/// What all callers with one idempotency key wait for: acceptance first, then the outcome.
type Twin = watch::Receiver<Option<Result<Receipt, Refusal>>>;

/// Why the first caller's send was not accepted, as far as the others share it.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    QueueFull,
    TooFast(Duration),
    IdempotencyConflict,
    Other,
}

impl From<&SendError> for Refusal {
    fn from(error: &SendError) -> Self {
        match error {
            SendError::QueueFull => Self::QueueFull,
            SendError::TooFast(wait) => Self::TooFast(*wait),
            SendError::IdempotencyConflict => Self::IdempotencyConflict,
            SendError::Closed | SendError::Store(_) => Self::Other,
        }
    }
}

impl From<Refusal> for SendError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::QueueFull => Self::QueueFull,
            Refusal::TooFast(wait) => Self::TooFast(wait),
            Refusal::IdempotencyConflict => Self::IdempotencyConflict,
            Refusal::Other => Self::Closed,
        }
    }
}

/// How much a session may send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendLimits {
    /// Accepted messages that may wait.
    pub queue: usize,
    /// Messages a second that are accepted, in the long run.
    pub per_second: f64,
    /// Messages that are accepted at once after a pause.
    pub burst: u32,
}

struct Desk {
    next_seq: u64,
    /// How fast messages are accepted.
    pace: Bucket,
    /// The last send of each chat that has one under way: the next waits for it.
    lanes: HashMap<Jid, (u64, oneshot::Receiver<()>)>,
    /// When each send under way was accepted.
    under_way: BTreeMap<u64, Timestamp>,
    acks: HashMap<String, oneshot::Sender<Ack>>,
    twins: HashMap<[u8; 32], ([u8; 32], Twin)>,
}

/// The outgoing side of a session that this node owns.
pub(crate) struct SendDesk {
    fence: Fence,
    stores: Stores,
    keys: Arc<SortKeys>,
    spool: Spool,
    limits: SendLimits,
    started: Instant,
    connection: watch::Receiver<Option<Connection>>,
    closed: CancellationToken,
    /// Changes when what waits must not be sent any more.
    abandoned: watch::Sender<()>,
    desk: Mutex<Desk>,
}

/// A send on its way.
struct Item {
    row: OutboxRow,
    kind: MessageType,
    typing: Duration,
    turn: Option<oneshot::Receiver<()>>,
    done: oneshot::Sender<()>,
    abandoned: watch::Receiver<()>,
}

impl SendDesk {
    /// The desk of a session. Nothing is sent before `connection` holds one; everything ends with `closed`.
    pub(crate) fn new(
        fence: Fence,
        stores: Stores,
        keys: Arc<SortKeys>,
        spool: Spool,
        limits: SendLimits,
        connection: watch::Receiver<Option<Connection>>,
        closed: CancellationToken,
    ) -> Self {
        let abandoned = watch::Sender::new(());
        let desk = Mutex::new(Desk {
            next_seq: 0,
            pace: Bucket::new(limits.per_second, f64::from(limits.burst)),
            lanes: HashMap::new(),
            under_way: BTreeMap::new(),
            acks: HashMap::new(),
            twins: HashMap::new(),
        });
        let started = Instant::now();
        Self { fence, stores, keys, spool, limits, started, connection, closed, abandoned, desk }
    }

    /// Takes up what an earlier owner has accepted and not finished. Of a session that is not `linked` any more
    /// nothing is sent: the account that accepted it is gone.
    pub(crate) async fn recover(self: &Arc<Self>, linked: bool) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let rows = self.stores.outbox.pending(self.fence.session(), after, 500).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some(last.seq);
            for row in rows {
                let kind = payload_kind(&row.payload);
                let item = self.enter(row, kind, Duration::ZERO);
                let desk = Arc::clone(self);
                tokio::spawn(async move { desk.finish(item).await });
            }
            if !linked {
                self.abandon();
            }
        }
    }

    /// The link is gone: what waits fails. A message must never leave from another account than the one that
    /// was linked when it was accepted.
    pub(crate) fn abandon(&self) {
        self.abandoned.send_replace(());
    }

    /// Accepts a message and waits up to `request.wait` for WhatsApp's answer. The message stays accepted when
    /// the caller goes away.
    pub(crate) async fn submit(self: &Arc<Self>, request: SendRequest) -> Result<Receipt, SendError> {
        let wait = request.wait;
        let Some((key, hash)) = request.idempotency else {
            let (mut receipt, outcome) = self.accept(request).await?;
            receipt.outcome = tokio::time::timeout(wait, outcome).await.ok().and_then(Result::ok);
            return Ok(receipt);
        };
        follow(self.twin(key, hash, request)?, wait).await
    }

    /// What becomes of the request with this idempotency key. The first caller's request is taken in a task of its
    /// own: a caller that goes away must not leave the others without an answer.
    fn twin(self: &Arc<Self>, key: [u8; 32], hash: [u8; 32], request: SendRequest) -> Result<Twin, SendError> {
        let (publish, twin) = watch::channel(None);
        {
            let mut desk = self.desk();
            match desk.twins.get(&key) {
                Some((other, _)) if *other != hash => return Err(SendError::IdempotencyConflict),
                Some((_, twin)) => return Ok(twin.clone()),
                None => desk.twins.insert(key, (hash, twin.clone())),
            };
        }
        let entry = TwinEntry { desk: Arc::clone(self), key };
        tokio::spawn(async move {
            let desk = &entry.desk;
            let accepted = match desk.recorded(&key, &hash).await {
                Ok(Some(receipt)) => Ok((receipt, None)),
                Ok(None) => desk.accept(request).await.map(|(receipt, outcome)| (receipt, Some(outcome))),
                Err(error) => Err(error),
            };
            match accepted {
                Ok((mut receipt, outcome)) => {
                    publish.send_replace(Some(Ok(receipt.clone())));
                    if let Some(outcome) = outcome
                        && let Ok(outcome) = outcome.await
                    {
                        receipt.outcome = Some(outcome);
                        publish.send_replace(Some(Ok(receipt)));
                    }
                }
                Err(error) => drop(publish.send_replace(Some(Err(Refusal::from(&error))))),
            }
        });
        Ok(twin)
    }

    /// The answer that was given for this idempotency key before, with what has become of the message since.
    async fn recorded(&self, key: &[u8; 32], hash: &[u8; 32]) -> Result<Option<Receipt>, SendError> {
        let session = self.fence.session();
        let Some(record) = self.stores.outbox.recorded(session, key, Timestamp::now()).await? else {
            return Ok(None);
        };
        if record.request_hash != *hash {
            return Err(SendError::IdempotencyConflict);
        }
        let rows = self.stores.history.get(session, &record.message_id).await?;
        let outcome = rows.iter().find(|row| row.from_me).and_then(|row| match (&row.failure, row.sent_at) {
            (Some(why), _) => Some(SendOutcome::Failed(why.clone())),
            (None, Some(at)) => Some(SendOutcome::Sent(at)),
            (None, None) => None,
        });
        let SendRecord { message_id, to, chat, accepted_at, .. } = record;
        Ok(Some(Receipt { message_id, to, chat, accepted_at, outcome }))
    }

    /// Makes a message durable and sets it on its way; answers where its outcome will be.
    async fn accept(
        self: &Arc<Self>,
        mut request: SendRequest,
    ) -> Result<(Receipt, oneshot::Receiver<SendOutcome>), SendError> {
        if self.closed.is_cancelled() {
            return Err(SendError::Closed);
        }
        {
            let mut desk = self.desk();
            if desk.under_way.len() >= self.limits.queue {
                return Err(SendError::QueueFull);
            }
            desk.pace.try_take(self.started.elapsed()).map_err(SendError::TooFast)?;
        }
        let session = self.fence.session();
        let message_id = message_id(session, request.idempotency.map(|(key, _)| key));
        let Content { kind, payload, file, .. } = &mut request.content;
        let (kind, payload, file) = (*kind, std::mem::take(payload), file.take());
        // Its place in the outbox, its time and its place in the history are given to it at once, as it enters.
        let outbox = OutboxRow {
            seq: 0,
            message_id: message_id.clone(),
            chat: request.chat.clone(),
            payload: payload.into(),
            accepted_at: Timestamp::from_secs(0),
            sort_key: 0,
            file: file.as_ref().map(Spooled::id),
        };
        let item = self.enter(outbox, kind, request.typing);
        let (now, sort_key) = (item.row.accepted_at, item.row.sort_key);
        let record = request.idempotency.map(|(key, request_hash)| {
            let (to, chat) = (request.to.clone(), request.chat.clone());
            (key, SendRecord { request_hash, message_id: message_id.clone(), to, chat, accepted_at: now, sort_key })
        });
        let (to, chat) = (request.to, request.chat.clone());
        let place = HistoryRow { sort_key, ..HistoryRow::new(message_id.clone(), request.chat, kind, now) };
        let history = history_row(request.content, request.sender, place);
        let accepted = Accepted { outbox: item.row.clone(), history, idempotency: record };
        let (report_accepted, is_accepted) = oneshot::channel();
        let (report_outcome, outcome) = oneshot::channel();
        let desk = Arc::clone(self);
        tokio::spawn(async move {
            match desk.stores.outbox.accept(&desk.fence, accepted).await {
                Ok(()) => {
                    if let Some(file) = file {
                        file.stay();
                    }
                    let _ = report_accepted.send(Ok(()));
                    if let Some(outcome) = desk.finish(item).await {
                        let _ = report_outcome.send(outcome);
                    }
                }
                Err(error) => {
                    if let (Some(file), StoreError::Engine(_) | StoreError::Frozen { written: true }) = (file, &error) {
                        // Whether it was accepted is not known; the next start finds out.
                        file.stay();
                    }
                    let _ = report_accepted.send(Err(error));
                    desk.skip(item).await;
                }
            }
        });
        is_accepted.await.map_err(|_| SendError::Closed)??;
        Ok((Receipt { message_id, to, chat, accepted_at: now, outcome: None }, outcome))
    }

    /// Gives a send its place in the session's outbox and in its chat's lane; a new one its time and its place in the
    /// history as well, so that messages of a chat are shown in the order in which they leave.
    fn enter(&self, mut row: OutboxRow, kind: MessageType, typing: Duration) -> Item {
        let (done, next) = oneshot::channel();
        let mut desk = self.desk();
        if row.seq == 0 {
            desk.next_seq += 1;
            row.seq = desk.next_seq;
            row.accepted_at = Timestamp::now();
            row.sort_key = self.keys.next(row.accepted_at);
        } else {
            desk.next_seq = desk.next_seq.max(row.seq);
        }
        desk.under_way.insert(row.seq, row.accepted_at);
        let turn = desk.lanes.insert(row.chat.clone(), (row.seq, next)).map(|(_, turn)| turn);
        drop(desk);
        ::metrics::gauge!(metrics::OUTBOX_DEPTH).increment(1);
        Item { row, kind, typing, turn, done, abandoned: self.abandoned.subscribe() }
    }

    fn leave(&self, row: &OutboxRow) {
        let mut desk = self.desk();
        if desk.under_way.remove(&row.seq).is_none() {
            return;
        }
        desk.acks.remove(row.message_id.as_str());
        if desk.lanes.get(&row.chat).is_some_and(|(seq, _)| *seq == row.seq) {
            desk.lanes.remove(&row.chat);
        }
        drop(desk);
        ::metrics::gauge!(metrics::OUTBOX_DEPTH).decrement(1);
    }

    /// The way to WhatsApp, while there is one.
    pub(crate) fn line(&self) -> Option<Line> {
        self.connection.borrow().as_ref().map(|connection| connection.line.clone())
    }

    /// The answer to a request that repeats an earlier one, if its idempotency key stands for a message already.
    pub(crate) async fn repeated(
        &self,
        key: [u8; 32],
        hash: [u8; 32],
        wait: Duration,
    ) -> Result<Option<Receipt>, SendError> {
        let twin = self.desk().twins.get(&key).cloned();
        match twin {
            Some((other, _)) if other != hash => Err(SendError::IdempotencyConflict),
            Some((_, twin)) => follow(twin, wait).await.map(Some),
            None => self.recorded(&key, &hash).await,
        }
    }

    /// How many sends are under way, and when the oldest of them was accepted.
    pub(crate) fn backlog(&self) -> (usize, Option<Timestamp>) {
        let desk = self.desk();
        (desk.under_way.len(), desk.under_way.first_key_value().map(|(_, at)| *at))
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SendDesk {
    fn drop(&mut self) {
        let left = self.desk().under_way.len();
        ::metrics::gauge!(metrics::OUTBOX_DEPTH).decrement(left as f64);
    }
}

/// What becomes of the request that the callers with one idempotency key share, within `wait` of its acceptance.
async fn follow(mut twin: Twin, wait: Duration) -> Result<Receipt, SendError> {
    let accepted = twin.wait_for(Option::is_some).await.map_err(|_| SendError::Closed)?.clone();
    accepted.expect("waited for").map_err(SendError::from)?;
    let ended = |answer: &Option<Result<Receipt, Refusal>>| matches!(answer, Some(Ok(r)) if r.outcome.is_some());
    let _ = tokio::time::timeout(wait, twin.wait_for(ended)).await;
    let answer = twin.borrow().clone();
    answer.expect("waited for").map_err(SendError::from)
}

/// The place of the first caller with an idempotency key, given up however its task ends.
struct TwinEntry {
    desk: Arc<SendDesk>,
    key: [u8; 32],
}

impl Drop for TwinEntry {
    fn drop(&mut self) {
        self.desk.desk().twins.remove(&self.key);
    }
}

/// The id of a message on the wire. Derived from the idempotency key where there is one, so that whoever sends
/// it again, sends it under the same id; in the form of WhatsApp Web (`3EB0` and 18 hex digits).
fn message_id(session: SessionId, key: Option<[u8; 32]>) -> MessageId {
    let key = key.unwrap_or_else(rand::random);
    let mut mac = Hmac::<Sha256>::new_from_slice(session.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(&key);
    let digest = hex::encode_upper(&mac.finalize().into_bytes()[..9]);
    format!("3EB0{digest}").parse().expect("hex is printable")
}

/// The hash under which an idempotency key, or a request, is kept.
pub(crate) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The row of a new message at this place.
fn history_row(content: Content, sender: Option<Jid>, place: HistoryRow) -> HistoryRow {
    let (media, file) = content.media.unzip();
    HistoryRow {
        from_me: true,
        sender,
        text: content.text,
        caption: content.caption,
        media,
        file,
        shape: content.shape,
        ..place
    }
}
