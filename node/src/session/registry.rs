//! Which sessions run on this node, and how one comes to run here.
//!
//! The invariant: a session has at most one actor, and a new one is started only when the client of the one
//! before has closed its socket.

use super::{
    Admission, Connector, Place, Placement, SessionError, View,
    actor::{Arguments, Message},
    arrivals::Arrivals,
    groups::{GroupQueue, Groups},
    history::{Decoders, HistoryIntake},
    indexer::Indexer,
    keeper::Keeper,
    notes::NoteQueue,
    receive::{Intake, Queues, ReceiptQueue},
    send::{SendDesk, SendLimits},
    service::PairingCode,
    sort_key::SortKeys,
    state::{Event, Policy},
    supervisor::{Supervisor, SupervisorMessage},
};
use crate::spool::Spool;
use futures_util::StreamExt;
use ractor::{Actor, ActorRef};
use rookery_protocol::{Epoch, Incarnation, Jid, NodeId, SessionId, Timestamp, UserId, api::SessionStatus};
use rookery_storage::{Fence, SessionRow, StoreError, Stores};
use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::{Mutex, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// How many sessions are taken over side by side when the node starts.
const TAKEOVERS: usize = 64;
/// Locks that keep a session from being started twice at once.
const STRIPES: usize = 1024;
/// How long the client of a failed actor may take to close its socket.
const KEEPER_END_TIMEOUT: Duration = Duration::from_secs(20);
/// Rows read at a time when the node starts.
const SCAN_PAGE: usize = 500;

/// What every session needs.
pub(crate) struct Environment {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub stores: Stores,
    /// Which sessions may run here.
    pub placement: Arc<dyn Placement>,
    pub connector: Arc<Connector>,
    /// The pace of sessions that are linked.
    pub logins: Admission,
    /// The pace of sessions that are to be paired: they must not hold up those that work.
    pub pairings: Admission,
    pub policy: Policy,
    /// Where files wait that messages take along.
    pub spool: Spool,
    pub send_limits: SendLimits,
    pub per_user_limit: usize,
    /// Who is told of messages with files, if anybody.
    pub arrivals: Option<Arrivals>,
}

/// A session that runs on this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(super) user_id: UserId,
    pub(super) actor: ActorRef<Message>,
    pub(super) view: watch::Receiver<Arc<View>>,
    pub(super) desk: Arc<SendDesk>,
    pub(super) fence: Fence,
    pub(super) history: Arc<HistoryIntake>,
    /// The last pairing code, and the turn of those who ask for one.
    pub(super) pairing: Arc<Mutex<Option<PairingCode>>>,
    keeper_ended: CancellationToken,
}

/// The sessions of this node.
pub(crate) struct Sessions {
    pub(super) env: Environment,
    running: RwLock<HashMap<SessionId, Handle>>,
    stripes: Vec<Mutex<()>>,
    hasher: RandomState,
    supervisor: ActorRef<SupervisorMessage>,
    queues: Queues,
    groups: GroupQueue,
    decoders: Decoders,
    pub(super) indexer: Indexer,
    closing: CancellationToken,
}

impl Sessions {
    /// Starts the supervisor; no session runs yet.
    pub(crate) async fn start(env: Environment) -> Result<Arc<Self>, ractor::SpawnErr> {
        // The supervisor has to know the registry and the registry the supervisor; one comes first.
        let late = Arc::new(OnceLock::new());
        let (supervisor, _) = Actor::spawn(None, Supervisor, Arc::clone(&late)).await?;
        let notes = NoteQueue::start(env.stores.clone());
        let sessions = Arc::new(Self {
            groups: GroupQueue::start(env.stores.clone(), notes.clone()),
            queues: Queues { receipts: ReceiptQueue::start(env.stores.clone()), notes },
            decoders: Decoders::new(),
            indexer: Indexer::start(env.stores.clone()),
            env,
            running: RwLock::default(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            supervisor,
            closing: CancellationToken::new(),
        });
        late.set(Arc::downgrade(&sessions)).expect("set once");
        Ok(sessions)
    }

    /// Takes over every session of the store, a bounded number at a time. One that cannot be taken over is
    /// left for the first request that needs it.
    pub(crate) async fn take_over_all(self: &Arc<Self>) -> Result<usize, StoreError> {
        let mut after = None;
        let mut count = 0;
        loop {
            let page = self.env.stores.sessions.scan(after, SCAN_PAGE).await?;
            count += page.rows.len();
            futures_util::stream::iter(page.rows)
                .for_each_concurrent(TAKEOVERS, |row| async move {
                    let id = row.session_id;
                    if let Err(error) = self.running(id).await {
                        tracing::warn!(session_id = %id, %error, "session could not be taken over");
                    }
                })
                .await;
            match page.next {
                Some(next) if !self.closing.is_cancelled() => after = Some(next),
                _ => return Ok(count),
            }
        }
    }

    /// The session, if it runs here.
    pub(super) fn find(&self, id: SessionId) -> Option<Handle> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The session; it is taken over when it does not run yet.
    pub(super) async fn running(&self, id: SessionId) -> Result<Handle, SessionError> {
        if let Some(handle) = self.find(id) {
            return Ok(handle);
        }
        let _guard = self.stripe(id).lock().await;
        if let Some(handle) = self.find(id) {
            return Ok(handle);
        }
        let row = self.env.stores.sessions.get(id).await?.ok_or(SessionError::NotFound)?;
        self.activate(row).await
    }

    /// Keeps a new session and starts it.
    pub(super) async fn create(&self, row: SessionRow) -> Result<Handle, SessionError> {
        let _guard = self.stripe(row.session_id).lock().await;
        if self.closing.is_cancelled() {
            return Err(SessionError::Closing);
        }
        if self.of_user_count(row.user_id).await? >= self.env.per_user_limit {
            return Err(SessionError::TooMany);
        }
        self.env.stores.sessions.create(&row).await?;
        self.activate(row).await
    }

    /// Claims the session and starts its actor. The caller holds the session's stripe.
    async fn activate(&self, row: SessionRow) -> Result<Handle, SessionError> {
        let id = row.session_id;
        if self.closing.is_cancelled() {
            return Err(SessionError::Elsewhere(id));
        }
        let env = &self.env;
        let user_id = row.user_id;
        let fence = self.claim(id).await?;
        let last = env.stores.history.last_sort_key(id).await?;
        let keys = Arc::new(SortKeys::after(last, Some(self.indexer.reminder(&fence))));
        let synced = env.stores.syncs.state(id).await?;
        let closed = CancellationToken::new();
        let keeper_ended = CancellationToken::new();
        let (connection, connected) = watch::channel(None);
        let (publish, view) = watch::channel(Arc::new(View { row: row.clone(), qr: None, epoch: fence.epoch() }));
        let desk = Arc::new(SendDesk::new(
            fence.clone(),
            env.stores.clone(),
            Arc::clone(&keys),
            env.spool.clone(),
            env.send_limits,
            connected,
            closed.clone(),
        ));
        if let Err(error) = desk.recover(row.device.is_some()).await {
            // What it has taken up so far goes back to the outbox.
            closed.cancel();
            return Err(error.into());
        }
        let history = HistoryIntake::new(
            fence.clone(),
            env.stores.clone(),
            Arc::clone(&keys),
            self.decoders.clone(),
            synced,
            closed.clone(),
        );
        let groups = Groups::new(fence.clone(), self.groups.clone(), connection.subscribe());
        let intake = Arc::new(Intake::new(
            fence.clone(),
            env.stores.clone(),
            keys,
            self.queues.clone(),
            groups,
            Arc::clone(&history),
            env.arrivals.clone(),
        ));
        let keeper = Keeper {
            fence: fence.clone(),
            stores: env.stores.clone(),
            connector: Arc::clone(&env.connector),
            logins: env.logins.clone(),
            pairings: env.pairings.clone(),
            view: view.clone(),
            persisted: row.clone(),
            ended: keeper_ended.clone(),
        };
        let policy = env.policy;
        let args = Arguments { row, policy, keeper, desk: desk.clone(), intake, connection, view: publish, closed };
        let (reply, spawned) = oneshot::channel();
        let spawn = SupervisorMessage::Spawn(id, Box::new(args), reply);
        self.supervisor.cast(spawn).map_err(|_| SessionError::Elsewhere(id))?;
        let actor = spawned.await.map_err(|_| SessionError::Elsewhere(id))?;
        let pairing = Arc::default();
        let handle = Handle { user_id, actor, view, desk, fence, history, pairing, keeper_ended };
        // Nobody is to see what an earlier run has left in the row, such as a connection that is gone.
        let mut view = handle.view.clone();
        view.mark_unchanged();
        handle.tell(Event::Activated);
        let _ = view.changed().await;
        self.running.write().unwrap_or_else(PoisonError::into_inner).insert(id, handle.clone());
        Ok(handle)
    }

    /// Becomes the owner, if the session is to run here.
    async fn claim(&self, id: SessionId) -> Result<Fence, SessionError> {
        let env = &self.env;
        let seen = env.stores.owners.read(id).await?.ok_or(SessionError::NotFound)?;
        if env.placement.place(id, &seen).await? != Place::Here {
            return Err(SessionError::Elsewhere(id));
        }
        match env.stores.owners.claim(id, &seen, &env.node, env.incarnation).await {
            Err(StoreError::ClaimLost { .. }) => Err(SessionError::Elsewhere(id)),
            claimed => Ok(claimed?),
        }
    }

    /// Starts the actor of a session again that has failed.
    pub(super) async fn restart(&self, id: SessionId) {
        let failed = self.running.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(handle) = failed {
            let ended = tokio::time::timeout(KEEPER_END_TIMEOUT, handle.keeper_ended.cancelled()).await;
            if ended.is_err() {
                tracing::error!(session_id = %id, "client of a failed session did not close");
            }
        }
        match self.running(id).await {
            Ok(_) | Err(SessionError::NotFound | SessionError::Closing | SessionError::Elsewhere(_)) => {}
            Err(error) => tracing::error!(session_id = %id, %error, "failed session could not be started again"),
        }
    }

    /// Stops a session's actor and client; the session can be taken over again, here or elsewhere.
    pub(super) async fn close(&self, id: SessionId, log_out: bool) -> Option<Handle> {
        let handle = self.running.write().unwrap_or_else(PoisonError::into_inner).remove(&id)?;
        let (done, closed) = oneshot::channel();
        if handle.actor.cast(Message::Close { log_out, done }).is_ok() {
            let _ = closed.await;
        }
        let _ = tokio::time::timeout(KEEPER_END_TIMEOUT, handle.keeper_ended.cancelled()).await;
        Some(handle)
    }

    /// Removes a session and all its data.
    pub(super) async fn erase(&self, id: SessionId) -> Result<(), SessionError> {
        let _guard = self.stripe(id).lock().await;
        let fence = if let Some(handle) = self.close(id, true).await { handle.fence } else { self.claim(id).await? };
        Ok(self.env.stores.sessions.delete(&fence).await?)
    }

    /// Stops all sessions and gives them up. New ones are refused from now on.
    pub(crate) async fn shut_down(&self) {
        self.closing.cancel();
        let ids: Vec<_> = self.running.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        futures_util::stream::iter(ids)
            .for_each_concurrent(TAKEOVERS * 4, |id| async move {
                if let Some(handle) = self.close(id, false).await
                    && let Err(error) = self.env.stores.owners.release(&handle.fence).await
                {
                    tracing::warn!(session_id = %id, %error, "session could not be released");
                }
            })
            .await;
        self.supervisor.stop(None);
    }

    /// How many sessions the user has, all nodes' taken together; what is above the limit is not counted.
    async fn of_user_count(&self, user: UserId) -> Result<usize, StoreError> {
        if self.env.placement.is_alone() {
            return Ok(self.running_of(user));
        }
        let (mut count, mut after) = (0, None);
        while count < self.env.per_user_limit {
            let page = self.env.stores.sessions.list(user, after, SCAN_PAGE).await?;
            count += page.rows.len();
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(count)
    }

    fn running_of(&self, user: UserId) -> usize {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running.values().filter(|handle| handle.user_id == user).count()
    }

    /// The user's session whose account has this LID.
    pub(super) async fn by_lid(&self, user: UserId, lid: &Jid) -> Result<Option<SessionRow>, StoreError> {
        let local = {
            let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
            let rows =
                running.values().filter(|handle| handle.user_id == user).map(|handle| handle.view.borrow().row.clone());
            { rows }.find(|row| row.lid.as_ref() == Some(lid))
        };
        if local.is_some() || self.env.placement.is_alone() {
            return Ok(local);
        }
        let mut after = None;
        loop {
            let page = self.env.stores.sessions.list(user, after, SCAN_PAGE).await?;
            let found = page.rows.into_iter().find(|row| row.lid.as_ref() == Some(lid));
            after = page.next;
            if found.is_some() || after.is_none() {
                return Ok(found);
            }
        }
    }

    /// How many sessions run here.
    pub(crate) fn count(&self) -> usize {
        self.running.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Which sessions run here.
    pub(crate) fn ids(&self) -> Vec<SessionId> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Has a session run here, if that is its place.
    pub(crate) async fn take_over(&self, id: SessionId) -> Result<Epoch, SessionError> {
        Ok(self.running(id).await?.fence.epoch())
    }

    /// Gives a session up, so that another node can claim it: what is being sent is finished, the socket closed. Who
    /// asks for the session meanwhile waits until it is released.
    pub(crate) async fn hand_over(&self, id: SessionId) -> Result<(), StoreError> {
        let _guard = self.stripe(id).lock().await;
        match self.close(id, false).await {
            Some(handle) => self.env.stores.owners.release(&handle.fence).await,
            None => Ok(()),
        }
    }

    /// When the oldest message that is not sent yet was accepted, over all sessions.
    pub(crate) fn oldest_unsent(&self) -> Option<Timestamp> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running.values().filter_map(|handle| handle.desk.backlog().1).min()
    }

    /// How many sessions this node owns, by their status.
    pub(crate) fn by_status(&self) -> BTreeMap<SessionStatus, u64> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        let mut counts = BTreeMap::new();
        for handle in running.values() {
            *counts.entry(handle.view.borrow().status()).or_default() += 1;
        }
        counts
    }

    fn stripe(&self, id: SessionId) -> &Mutex<()> {
        let hash = usize::try_from(self.hasher.hash_one(id) % STRIPES as u64).expect("below the number of stripes");
        &self.stripes[hash]
    }
}

impl Handle {
    /// Tells the actor without waiting for what comes of it.
    pub(super) fn tell(&self, event: Event) {
        // Fails only when the actor is gone, and then its successor starts from the store.
        let _ = self.actor.cast(Message::Event(event, None));
    }

    /// Tells the actor and waits until all effects are done.
    pub(super) async fn ask(&self, event: Event) -> Result<(), SessionError> {
        let (done, heard) = oneshot::channel();
        let gone = || SessionError::Elsewhere(self.fence.session());
        self.actor.cast(Message::Event(event, Some(done))).map_err(|_| gone())?;
        heard.await.map_err(|_| gone())
    }
}
