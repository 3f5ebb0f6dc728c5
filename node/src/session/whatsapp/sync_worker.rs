//! The library's long tasks, above all the fetching of history chunks.
//!
//! It does them here rather than by itself, because it acknowledges the announcement of a chunk before it fetches it:
//! by then the announcement has to be durable on our side. And only here a chunk and its announcement are known
//! together.

use super::events::Adapter;
use rookery_protocol::MessageId;
use std::sync::{Arc, Weak};
use tokio::sync::Semaphore;
use whatsapp_rust::{Client, async_channel::Receiver, sync_task::MajorSyncTask};

/// Chunks of a session that are fetched at a time.
const CHUNKS: usize = 2;

tokio::task_local! {
    /// The announcement of the chunk that this task fetches.
    static ANNOUNCEMENT: Option<MessageId>;
}

/// The announcement of the chunk that the calling task fetches.
pub(super) fn announcement() -> Option<MessageId> {
    ANNOUNCEMENT.try_with(Clone::clone).ok().flatten()
}

/// Does tasks until the client is gone.
pub(super) fn start(client: &Arc<Client>, tasks: Receiver<MajorSyncTask>, adapter: Arc<Adapter>) {
    let client = Arc::downgrade(client);
    tokio::spawn(work(client, tasks, adapter));
}

async fn work(client: Weak<Client>, tasks: Receiver<MajorSyncTask>, adapter: Arc<Adapter>) {
    let permits = Arc::new(Semaphore::new(CHUNKS));
    while let Ok(task) = tasks.recv().await {
        let MajorSyncTask::HistorySync { message_id, .. } = &task else {
            let Some(client) = client.upgrade() else { return };
            client.process_sync_task(task).await;
            continue;
        };
        let id: Option<MessageId> = message_id.parse().ok();
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        // One that is not noted is not fetched and not acknowledged: it comes again.
        if let Some(id) = &id
            && let Err(error) = adapter.announced(id.clone()).await
        {
            tracing::warn!(%error, "an announcement of history could not be stored");
            continue;
        }
        let Some(client) = client.upgrade() else { return };
        tokio::spawn(async move {
            let _permit = permit;
            ANNOUNCEMENT.scope(id, client.process_sync_task(task)).await;
        });
    }
}
