//! A session's incoming messages and receipts, into the history.

use super::sort_key::SortKeys;
use crate::metrics;
use rookery_storage::{Fence, HistoryRow, MessageReceipt, StoreError, Stores};
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
    pub(crate) fn receipt(&self, receipt: MessageReceipt) {
        self.receipts.put(self.fence.clone(), receipt);
    }
}

/// Receipts of all sessions on their way into the store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ReceiptQueue(mpsc::Sender<(Fence, MessageReceipt)>);

impl ReceiptQueue {
    /// A queue and the task that empties it; the task ends when all clones of the queue are gone.
    pub(crate) fn start(stores: Stores) -> Self {
        let (put, mut take) = mpsc::channel::<(Fence, MessageReceipt)>(RECEIPT_QUEUE);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(RECEIPT_BATCH);
            while take.recv_many(&mut batch, RECEIPT_BATCH).await > 0 {
                // In one call, since a receipt's place among others does not matter: the earliest time stays.
                let receipts = std::mem::replace(&mut batch, Vec::with_capacity(RECEIPT_BATCH));
                let sessions: Vec<_> = receipts.iter().map(|(fence, _)| fence.session()).collect();
                match stores.history.receipts(receipts).await {
                    Ok(answers) => {
                        for (session_id, answer) in sessions.iter().zip(answers) {
                            if let Err(error) = answer {
                                tracing::warn!(%session_id, %error, "a receipt could not be stored");
                            }
                        }
                    }
                    Err(error) => tracing::warn!(%error, receipts = sessions.len(), "receipts could not be stored"),
                }
            }
        });
        Self(put)
    }

    fn put(&self, fence: Fence, receipt: MessageReceipt) {
        if self.0.try_send((fence, receipt)).is_err() {
            ::metrics::counter!(metrics::RECEIPTS_DROPPED).increment(1);
        }
    }
}
