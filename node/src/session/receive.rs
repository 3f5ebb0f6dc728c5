//! A session's incoming messages and receipts, into the history.

use super::sort_key::SortKeys;
use super::whatsapp;
use crate::metrics;
use rookery_storage::{Fence, HistoryRow, StoreError, Stores};
use std::sync::Arc;
use tokio::sync::mpsc;

/// How many receipts of all sessions may wait to be written.
const RECEIPT_QUEUE: usize = 65_536;
/// How many receipts are written at a time.
const RECEIPT_BATCH: usize = 256;

/// The incoming side of a session that this node owns.
pub(crate) struct Intake {
    fence: Fence,
    stores: Stores,
    keys: Arc<SortKeys>,
    receipts: ReceiptQueue,
}

impl Intake {
    /// The intake of a session.
    pub(crate) fn new(fence: Fence, stores: Stores, keys: Arc<SortKeys>, receipts: ReceiptQueue) -> Self {
        Self { fence, stores, keys, receipts }
    }

    /// Writes messages into the history. Writing them again changes nothing.
    pub(crate) async fn store(&self, mut rows: Vec<HistoryRow>) -> Result<(), StoreError> {
        for row in &mut rows {
            row.sort_key = self.keys.next(row.timestamp);
        }
        let counted: Vec<_> = rows.iter().map(|row| (row.from_me, row.kind)).collect();
        let stored = self.stores.history.insert(&self.fence, rows).await;
        let outcome = if stored.is_ok() { "stored" } else { "failed" };
        for (from_me, kind) in counted {
            metrics::message(if from_me { "outbound" } else { "inbound" }, kind, outcome);
        }
        stored
    }

    /// Takes a receipt in, to be written soon.
    pub(crate) fn receipt(&self, receipt: whatsapp::Receipt) {
        self.receipts.put(self.fence.clone(), receipt);
    }
}

/// Receipts of all sessions on their way into the store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ReceiptQueue(mpsc::Sender<(Fence, whatsapp::Receipt)>);

impl ReceiptQueue {
    /// A queue and the task that empties it; the task ends when all clones of the queue are gone.
    pub(crate) fn start(stores: Stores) -> Self {
        let (put, mut take) = mpsc::channel::<(Fence, whatsapp::Receipt)>(RECEIPT_QUEUE);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(RECEIPT_BATCH);
            while take.recv_many(&mut batch, RECEIPT_BATCH).await > 0 {
                // Side by side, so that they share the store's durable batches; each call is of one session, and
                // a receipt's place among others does not matter: the earliest time of each stage stays.
                let writes = batch.drain(..).map(|(fence, receipt)| {
                    let stores = &stores;
                    async move {
                        let whatsapp::Receipt { chat, ids, kind, at } = receipt;
                        if let Err(error) = stores.history.receipt(&fence, &chat, &ids, kind, at).await {
                            tracing::warn!(session_id = %fence.session(), %error, "a receipt could not be stored");
                        }
                    }
                });
                futures_util::future::join_all(writes).await;
            }
        });
        Self(put)
    }

    fn put(&self, fence: Fence, receipt: whatsapp::Receipt) {
        if self.0.try_send((fence, receipt)).is_err() {
            ::metrics::counter!(metrics::RECEIPTS_DROPPED).increment(1);
        }
    }
}
