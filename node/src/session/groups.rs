//! The names of groups that nobody has told: asked for when a message of such a group comes.
//!
//! One queue for all sessions, and few questions at a time, away from the messages. Nothing depends on it: what finds no
//! room, or no answer, is asked for again with a later message. Names that are told meanwhile stay.

use super::{notes::NoteQueue, send::Connection, whatsapp::Note};
use futures_util::StreamExt;
use rookery_protocol::{Jid, JidServer};
use rookery_storage::{ChatChange, Fence, HistoryRow, Stores};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

/// Groups of all sessions that may wait.
const QUEUE: usize = 1_024;
/// Groups that are asked for at a time.
const AT_ONCE: usize = 4;
/// How long a group is not looked at again.
const REST: Duration = Duration::from_secs(3_600);
/// Groups of one session that are remembered as looked at.
const MAX_LOOKED_AT: usize = 2_048;

/// How long a group waits for its session to be connected: messages may come a moment earlier.
const CONNECTING: Duration = Duration::from_secs(5);

/// A group of a session that may have no name.
type Nameless = (Arc<Groups>, Jid);

/// Groups of all sessions that may have no name. Cheap to clone.
#[derive(Clone)]
pub(super) struct GroupQueue(mpsc::Sender<Nameless>);

impl GroupQueue {
    /// A queue and the task that empties it; the task ends when all clones of the queue are gone.
    pub(super) fn start(stores: Stores, notes: NoteQueue) -> Self {
        let (put, mut take) = mpsc::channel::<Nameless>(QUEUE);
        tokio::spawn(async move {
            let waiting = futures_util::stream::poll_fn(|context| take.poll_recv(context));
            let ask = |(groups, group): Nameless| {
                let (stores, notes) = (&stores, &notes);
                async move { groups.name(stores, notes, group).await }
            };
            waiting.for_each_concurrent(AT_ONCE, ask).await;
        });
        Self(put)
    }
}

/// Sees the groups of a session that this node owns.
pub(super) struct Groups {
    fence: Fence,
    queue: GroupQueue,
    connection: watch::Receiver<Option<Connection>>,
    /// When groups were last looked at.
    looked_at: Mutex<HashMap<Jid, Instant>>,
}

impl Groups {
    /// Those of a session whose connection this is.
    pub(super) fn new(fence: Fence, queue: GroupQueue, connection: watch::Receiver<Option<Connection>>) -> Arc<Self> {
        Arc::new(Self { fence, queue, connection, looked_at: Mutex::default() })
    }

    /// The groups that these messages are of, and that were not looked at lately.
    pub(super) fn among(&self, rows: &[HistoryRow]) -> Vec<Jid> {
        let mut found = Vec::new();
        for group in rows.iter().map(|row| &row.chat).filter(|chat| chat.server() == JidServer::Group) {
            let mut looked_at = self.looked_at();
            if looked_at.get(group).is_some_and(|at| at.elapsed() < REST) {
                continue;
            }
            if looked_at.len() >= MAX_LOOKED_AT {
                looked_at.clear();
            }
            looked_at.insert(group.clone(), Instant::now());
            found.push(group.clone());
        }
        found
    }

    /// Messages of these groups are stored now.
    pub(super) fn seen(self: &Arc<Self>, groups: Vec<Jid>) {
        for group in groups {
            if self.queue.0.try_send((Arc::clone(self), group.clone())).is_err() {
                self.looked_at().remove(&group);
            }
        }
    }

    /// Asks for the name of a group, if it has none.
    async fn name(&self, stores: &Stores, notes: &NoteQueue, group: Jid) {
        let session_id = self.fence.session();
        match stores.chats.get(session_id, &group).await {
            Ok(Some(chat)) if chat.name.is_none() => {}
            Ok(_) => return,
            Err(error) => return tracing::debug!(%session_id, %error, "a chat could not be read"),
        }
        let mut connection = self.connection.clone();
        let connected = connection.wait_for(Option::is_some);
        let line = match timeout(CONNECTING, connected).await {
            Ok(Ok(connection)) => connection.as_ref().map(|connection| connection.line.clone()),
            _ => None,
        };
        let Some(line) = line else {
            self.looked_at().remove(&group);
            return;
        };
        match line.subject(&group).await {
            Ok(Some(subject)) => notes.put(self.fence.clone(), Note::Chat(group, ChatChange::KnownAs(subject))),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%session_id, error = format!("{error:#}"), "a group's name was not told");
            }
        }
    }

    fn looked_at(&self) -> MutexGuard<'_, HashMap<Jid, Instant>> {
        self.looked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
