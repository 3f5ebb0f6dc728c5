//! What the API asks of sessions. Every call names the user: another user's session does not exist.

use super::{
    SendError, SendReceipt, SendRequest, View,
    actor::Message,
    people::numbers,
    registry::{Handle, Sessions},
    state::Event,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use rookery_protocol::{
    DeviceId, Epoch, Jid, MessageId, SessionId, Timestamp, UserId,
    api::{Session, SessionStatus},
};
use rookery_storage::{ContactRow, HistoryQuery, HistoryRow, Page, ParticipantRow, SessionRow, StoreError, search};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// How long a linked session that must be logged out may take to connect first.
const CONNECT_TO_LOG_OUT: Duration = Duration::from_secs(8);
/// How long a session may take to reach the state in which a pairing code can be had.
const PAIRING_START: Duration = Duration::from_secs(15);

/// How many owners are read side by side for a list.
const READS: usize = 16;
/// How many ids are tried until one belongs to this node: far more than a cluster has nodes.
const IDS: usize = 20_000;

/// How long a request for a pairing code may wait for those before it.
const PAIRING_TURN: Duration = Duration::from_secs(30);

/// Why something could not be done for a session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// There is no such session of this user.
    #[error("no such session")]
    NotFound,
    /// It runs on another node, or is to; nothing was done.
    #[error("session {0} is on another node")]
    Elsewhere(SessionId),
    /// The node is stopping.
    #[error("the node is stopping")]
    Closing,
    /// The user has as many sessions as a user may have.
    #[error("the user has too many sessions")]
    TooMany,
    /// The session's state does not allow it.
    #[error("{0}")]
    State(&'static str),
    /// The session has to be connected for it.
    #[error("the session is not connected")]
    NotConnected,
    /// WhatsApp did not do what was asked.
    #[error("WhatsApp did not answer as expected: {0}")]
    Whatsapp(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A pairing code that WhatsApp gave.
pub(super) struct PairingCode {
    phone: String,
    text: String,
    made: Instant,
}

/// How a caller may name a session besides by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeviceKey {
    /// By its id.
    Session(SessionId),
    /// By its linked device.
    Device(DeviceId),
    /// By its account's phone number.
    Phone(String),
    /// By its account's LID.
    Lid(Jid),
}

impl Sessions {
    /// Creates a session and starts to pair it.
    pub(crate) async fn create_session(&self, user: UserId, name: String) -> Result<Session, SessionError> {
        let handle = self.create(self.new_row(user, name)?).await?;
        Ok(self.describe(&handle))
    }

    /// A session as the API shows it.
    pub(crate) async fn session(&self, user: UserId, id: SessionId) -> Result<Session, SessionError> {
        Ok(self.describe(&self.of_user(user, id).await?))
    }

    /// What is known of a session.
    pub(crate) async fn view(&self, user: UserId, id: SessionId) -> Result<Arc<View>, SessionError> {
        Ok(self.of_user(user, id).await?.view.borrow().clone())
    }

    /// A page of the user's sessions in order of creation.
    pub(crate) async fn list(
        &self,
        user: UserId,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Page<Session, SessionId>, SessionError> {
        let page = self.env.stores.sessions.list(user, after, limit).await?;
        let rows = stream::iter(page.rows).map(|row| self.describe_any(row)).buffered(READS).try_collect().await?;
        Ok(Page { rows, next: page.next })
    }

    /// The user's session with this device, account or id. Of several with one account, a connected one.
    pub(crate) async fn by_device(&self, user: UserId, key: &DeviceKey) -> Result<Session, SessionError> {
        let (phone, device) = match key {
            DeviceKey::Session(id) => return self.session(user, *id).await,
            DeviceKey::Device(device) => (device.phone(), Some(device)),
            DeviceKey::Phone(phone) => (phone.as_str(), None),
            DeviceKey::Lid(lid) => {
                let row = self.by_lid(user, lid).await?.ok_or(SessionError::NotFound)?;
                return self.describe_any(row).await;
            }
        };
        let rows = self.env.stores.sessions.find_by_phone(user, phone).await?;
        let mut best: Option<Session> = None;
        for row in rows {
            if device.is_some_and(|device| row.device.as_ref() != Some(device)) {
                continue;
            }
            let session = self.describe_any(row).await?;
            if session.status == SessionStatus::Working {
                return Ok(session);
            }
            best = Some(session);
        }
        best.ok_or(SessionError::NotFound)
    }

    /// Connects a session, or starts a new pairing.
    pub(crate) async fn connect(&self, user: UserId, id: SessionId) -> Result<Session, SessionError> {
        self.order(user, id, Event::ConnectRequested).await
    }

    /// Closes the connection and keeps the link.
    pub(crate) async fn disconnect(&self, user: UserId, id: SessionId) -> Result<Session, SessionError> {
        self.order(user, id, Event::DisconnectRequested).await
    }

    /// Logs out, forgets the device and keeps the session and its history.
    pub(crate) async fn remove_device(&self, user: UserId, id: SessionId) -> Result<Session, SessionError> {
        let handle = self.of_user(user, id).await?;
        handle.desk.abandon();
        connect_to_log_out(&handle).await;
        self.order(user, id, Event::DeviceRemovalRequested).await
    }

    /// Logs out and removes the session with all its data.
    pub(crate) async fn delete(&self, user: UserId, id: SessionId) -> Result<(), SessionError> {
        let handle = self.of_user(user, id).await?;
        handle.desk.abandon();
        connect_to_log_out(&handle).await;
        self.erase(id).await
    }

    async fn order(&self, user: UserId, id: SessionId, event: Event) -> Result<Session, SessionError> {
        let handle = self.of_user(user, id).await?;
        if matches!(event, Event::ConnectRequested) {
            // Its effects may have to wait for the node's login budget.
            let mut view = handle.view.clone();
            view.mark_unchanged();
            handle.tell(event);
            let _ = view.changed().await;
        } else {
            handle.ask(event).await?;
        }
        Ok(self.describe(&handle))
    }

    /// A code that links the session's device when it is typed on the phone with this number.
    pub(crate) async fn pairing_code(&self, user: UserId, id: SessionId, phone: &str) -> Result<String, SessionError> {
        let handle = self.of_user(user, id).await?;
        if handle.view.borrow().row.device.is_some() {
            return Err(SessionError::State("the session is linked already"));
        }
        // One after the other: a new code makes the one before invalid. Who asked meanwhile gets the same.
        let asked = Instant::now();
        let turn = tokio::time::timeout(PAIRING_TURN, handle.pairing.lock()).await;
        let mut latest = turn.map_err(|_| SessionError::Whatsapp("other pairing codes are being made".into()))?;
        if let Some(code) = latest.as_ref().filter(|code| code.phone == phone && code.made >= asked) {
            return Ok(code.text.clone());
        }
        let mut view = handle.view.clone();
        handle.tell(Event::ConnectRequested);
        let ready = view.wait_for(|view| view.status() == SessionStatus::ScanQrCode);
        if !matches!(tokio::time::timeout(PAIRING_START, ready).await, Ok(Ok(_))) {
            return Err(SessionError::Whatsapp("no connection in time".into()));
        }
        let (reply, answer) = oneshot::channel();
        let ask = Message::PairingCode(phone.to_owned(), reply);
        handle.actor.cast(ask).map_err(|_| SessionError::Elsewhere(id))?;
        let code = answer.await.map_err(|_| SessionError::Elsewhere(id))?;
        let text = code.map_err(|error| SessionError::Whatsapp(format!("{error:#}")))?;
        *latest = Some(PairingCode { phone: phone.to_owned(), text: text.clone(), made: Instant::now() });
        Ok(text)
    }

    /// Accepts a message. A session that never was linked, or is no longer, accepts none.
    pub(crate) async fn send(
        &self,
        user: UserId,
        id: SessionId,
        mut request: SendRequest,
    ) -> Result<Result<SendReceipt, SendError>, SessionError> {
        let handle = self.of_user(user, id).await?;
        let mut known = numbers(&self.env.stores, id, std::iter::once(&request.chat)).await?;
        if let Some(number) = known.remove(&request.chat) {
            request.chat = number;
        }
        {
            let view = handle.view.borrow();
            linked(&view)?;
            request.sender = view.row.device.as_ref().and_then(|device| Jid::from_phone(device.phone()).ok());
            if !view.row.wanted {
                // Nobody is going to connect it; the message is kept for when somebody does.
                request.wait = Duration::ZERO;
            }
        }
        Ok(handle.desk.submit(request).await)
    }

    /// Refuses what [`Sessions::send`] would refuse now, before any work is done for it.
    pub(crate) async fn may_send(&self, user: UserId, id: SessionId) -> Result<(), SessionError> {
        let handle = self.of_user(user, id).await?;
        linked(&handle.view.borrow())
    }

    /// The answer to a request whose idempotency key stands for a message already.
    pub(crate) async fn repeated(
        &self,
        user: UserId,
        id: SessionId,
        key: [u8; 32],
        hash: [u8; 32],
        wait: Duration,
    ) -> Result<Result<Option<SendReceipt>, SendError>, SessionError> {
        let handle = self.of_user(user, id).await?;
        Ok(handle.desk.repeated(key, hash, wait).await)
    }

    /// A page of a session's history, newest first.
    pub(crate) async fn history(
        &self,
        user: UserId,
        id: SessionId,
        query: &HistoryQuery,
    ) -> Result<Page<HistoryRow, u64>, SessionError> {
        self.readable(user, id).await?;
        Ok(self.env.stores.history.list(id, query).await?)
    }

    /// A page of what a search finds in a session's history, newest first.
    pub(crate) async fn search(
        &self,
        user: UserId,
        id: SessionId,
        words: &search::Query,
        query: &HistoryQuery,
    ) -> Result<Page<HistoryRow, u64>, SessionError> {
        self.readable(user, id).await?;
        let found = search::search(&self.env.stores, id, words, query).await?;
        if found.behind
            && let Some(handle) = self.find(id)
        {
            // Messages may wait for the index since before the node was started.
            self.indexer.reminder(&handle.fence).remind();
        }
        Ok(found.page)
    }

    /// A page of the receipts of a group's members for a message, each with what is known of the member.
    pub(crate) async fn participants(
        &self,
        session: SessionId,
        row: &HistoryRow,
        after: Option<&Jid>,
        limit: usize,
    ) -> Result<Page<(ParticipantRow, Option<ContactRow>), Jid>, SessionError> {
        let page = self.env.stores.history.participants(session, row.sort_key, after, limit).await?;
        let members: Vec<Jid> = page.rows.iter().map(|row| row.participant.clone()).collect();
        let contacts = self.env.stores.contacts.get(session, &members).await?;
        Ok(Page { rows: page.rows.into_iter().zip(contacts).collect(), next: page.next })
    }

    /// The messages of a session with this id, newest first.
    pub(crate) async fn message(
        &self,
        user: UserId,
        id: SessionId,
        message: &MessageId,
    ) -> Result<Vec<HistoryRow>, SessionError> {
        self.readable(user, id).await?;
        Ok(self.env.stores.history.get(id, message).await?)
    }

    /// Makes a session's actor panic.
    #[cfg(feature = "sandbox")]
    pub(crate) async fn panic(&self, user: UserId, id: SessionId) -> Result<(), SessionError> {
        let handle = self.of_user(user, id).await?;
        handle.actor.cast(Message::Panic).map_err(|_| SessionError::Elsewhere(id))
    }

    pub(super) async fn of_user(&self, user: UserId, id: SessionId) -> Result<Handle, SessionError> {
        let handle = self.running(id).await?;
        if handle.user_id == user { Ok(handle) } else { Err(SessionError::NotFound) }
    }

    /// Refuses a session that is not this user's. What is stored of it can be read wherever it runs.
    pub(super) async fn readable(&self, user: UserId, id: SessionId) -> Result<(), SessionError> {
        let owner = match self.find(id) {
            Some(handle) => Some(handle.user_id),
            None => self.env.stores.sessions.get(id).await?.map(|row| row.user_id),
        };
        if owner == Some(user) { Ok(()) } else { Err(SessionError::NotFound) }
    }

    /// A row with an id under which the session may run here.
    fn new_row(&self, user: UserId, name: String) -> Result<SessionRow, SessionError> {
        let row = SessionRow::new(user, name, Timestamp::now());
        let here = |id: &SessionId| self.env.placement.belongs_here(*id);
        let ids = std::iter::once(row.session_id).chain(std::iter::repeat_with(SessionId::generate)).take(IDS);
        let session_id = { ids }.find(here).ok_or(SessionError::Closing)?;
        Ok(SessionRow { session_id, ..row })
    }

    /// A session as the API shows it, wherever it runs.
    async fn describe_any(&self, row: SessionRow) -> Result<Session, SessionError> {
        if let Some(handle) = self.find(row.session_id) {
            return Ok(self.describe(&handle));
        }
        let owner = self.env.stores.owners.read(row.session_id).await?;
        let mut session = Self::describe_row(row);
        if let Some(owner) = owner {
            session.node = owner.node.map(|(node, _)| node);
            session.epoch = owner.epoch;
        }
        Ok(session)
    }

    fn describe(&self, handle: &Handle) -> Session {
        let view = handle.view.borrow().clone();
        let mut session = Self::describe_row(view.row.clone());
        session.node = Some(self.env.node.clone());
        session.epoch = view.epoch;
        session.history_sync = handle.history.progress();
        if let (SessionStatus::ScanQrCode, Some(qr)) = (session.status, &view.qr) {
            session.qr = Some(qr.code.clone());
            session.qr_expires_at = Some(qr.expires_at);
        }
        session
    }

    fn describe_row(row: SessionRow) -> Session {
        let status = row.status();
        Session {
            session_id: row.session_id,
            session_name: row.name,
            status,
            phone: row.device.as_ref().map(|device| device.phone().to_owned()),
            device_id: row.device,
            lid: row.lid,
            push_name: row.push_name,
            created_at: row.created_at,
            connected_at: row.connected_at,
            last_error: row.last_error,
            history: row.statuses,
            node: None,
            epoch: Epoch::default(),
            history_sync: None,
            qr: None,
            qr_expires_at: None,
        }
    }
}

/// A session that never was linked, or is no longer, sends nothing.
fn linked(view: &View) -> Result<(), SessionError> {
    match view.row.device {
        Some(_) => Ok(()),
        None => Err(SessionError::State("the session is not linked to a phone")),
    }
}

/// Why WhatsApp cannot be asked through a session without a connection: there is to be none, or it is on its way.
pub(super) fn unconnected(view: &View) -> SessionError {
    if let Err(error) = linked(view) {
        return error;
    }
    match view.status() {
        _ if view.row.wanted => SessionError::NotConnected,
        SessionStatus::Failed => SessionError::State("the session has failed; it has to be connected again first"),
        _ => SessionError::State("the session is stopped; it has to be connected first"),
    }
}

/// Connects a linked session that is not connected, so that WhatsApp can be told of the end of its link. When
/// that fails the phone still shows the device, and its owner can remove it there.
async fn connect_to_log_out(handle: &Handle) {
    let linked = handle.view.borrow().row.device.is_some();
    if !linked || handle.view.borrow().status() == SessionStatus::Working {
        return;
    }
    let mut view = handle.view.clone();
    handle.tell(Event::ConnectRequested);
    let connected = view.wait_for(|view| view.status() == SessionStatus::Working);
    let _ = tokio::time::timeout(CONNECT_TO_LOG_OUT, connected).await;
}

impl DeviceKey {
    /// Reads what a caller wrote: a session id, a device id, a JID or a phone number.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(id) = text.parse() {
            return Some(Self::Session(id));
        }
        if let Some((user, server)) = text.split_once('@') {
            return match server {
                "s.whatsapp.net" | "c.us" => Self::parse(user),
                "lid" => text.parse().ok().map(Self::Lid),
                _ => None,
            };
        }
        if let Ok(device) = text.parse() {
            return Some(Self::Device(device));
        }
        let jid = Jid::from_recipient(text).ok()?;
        jid.phone().map(|phone| Self::Phone(phone.to_owned()))
    }
}
