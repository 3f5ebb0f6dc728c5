//! Keeps the indexes of words up to date, in the background: one task for all sessions of the node.
//!
//! A session is looked at when it has had many messages, or when somebody searches in it; one in which nothing happens
//! costs nothing. Segments are built one at a time with pauses between them, so that sends do not notice.

use rookery_protocol::Timestamp;
use rookery_storage::{
    Fence, StoreError, Stores,
    search::{Progress, index},
};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Sessions that may wait to be looked at. One that finds no room is reminded of again.
const QUEUE: usize = 1_024;
/// How long the pause after a segment is, in times of what it took.
const REST: u32 = 2;
/// The shortest and the longest pause after a segment.
const REST_RANGE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(2));

/// The task's handle. It ends when all clones and reminders are gone.
pub(super) struct Indexer(mpsc::Sender<Fence>);

/// Says that a session has messages that are not indexed.
pub(crate) struct Reminder {
    fence: Fence,
    queue: mpsc::WeakSender<Fence>,
}

impl Indexer {
    /// Starts the task.
    pub(super) fn start(stores: Stores) -> Self {
        let (put, mut take) = mpsc::channel::<Fence>(QUEUE);
        let again = put.downgrade();
        tokio::spawn(async move {
            while let Some(fence) = take.recv().await {
                let began = Instant::now();
                match index(&stores, &fence, Timestamp::now()).await {
                    Ok(Progress::Indexed(_)) => {
                        let (least, most) = REST_RANGE;
                        tokio::time::sleep((began.elapsed() * REST).clamp(least, most)).await;
                        // Behind the others: a long history must not keep them waiting.
                        Reminder { fence, queue: again.clone() }.remind();
                    }
                    // The session may be gone, or somebody else's.
                    Ok(Progress::Idle) | Err(StoreError::Fenced { .. } | StoreError::NotFound(_)) => {}
                    Err(error) => tracing::warn!(session_id = %fence.session(), %error, "messages were not indexed"),
                }
            }
        });
        Self(put)
    }

    /// What tells the task of a session that this node owns.
    pub(super) fn reminder(&self, fence: &Fence) -> Reminder {
        Reminder { fence: fence.clone(), queue: self.0.downgrade() }
    }
}

impl Reminder {
    /// The session may have enough messages for a segment.
    pub(super) fn remind(&self) {
        if let Some(queue) = self.queue.upgrade() {
            let _ = queue.try_send(self.fence.clone());
        }
    }
}
