//! A session's incoming messages and receipts, into the history.

use super::{
    arrivals::Arrivals,
    groups::Groups,
    history::HistoryIntake,
    notes::NoteQueue,
    people::numbers,
    sort_key::SortKeys,
    whatsapp::{Inbound, Note},
};
use crate::metrics;
use rookery_protocol::Jid;
use rookery_storage::{ContactFacts, Fence, HistoryRow, MessageReceipt, StoreError, Stores};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::mpsc;

/// How many receipts of all sessions may wait to be written.
const RECEIPT_QUEUE: usize = 65_536;
/// How many receipts are written at a time.
const RECEIPT_BATCH: usize = 256;

/// People of one session whose facts are remembered as stored.
const MAX_KNOWN: usize = 2_048;

/// Where what need not be stored at once waits, of all sessions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Queues {
    pub receipts: ReceiptQueue,
    pub notes: NoteQueue,
}

/// The incoming side of a session that this node owns.
pub(crate) struct Intake {
    fence: Fence,
    stores: Stores,
    keys: Arc<SortKeys>,
    queues: Queues,
    groups: Arc<Groups>,
    history: Arc<HistoryIntake>,
    /// People whose facts are stored: their hash by address.
    known: Mutex<HashMap<Jid, u64>>,
    arrivals: Option<Arrivals>,
}

impl Intake {
    /// The intake of a session.
    pub(crate) fn new(
        fence: Fence,
        stores: Stores,
        keys: Arc<SortKeys>,
        queues: Queues,
        groups: Arc<Groups>,
        history: Arc<HistoryIntake>,
        arrivals: Option<Arrivals>,
    ) -> Self {
        Self { fence, stores, keys, queues, groups, history, known: Mutex::default(), arrivals }
    }

    /// Makes what came durable: messages, who wrote them, and which history was announced.
    pub(crate) async fn take(&self, inbound: Inbound) -> Result<(), StoreError> {
        let Inbound { messages, amendments, mut authors, announced, patient } = inbound;
        authors.retain(|facts| !self.is_known(facts));
        let messages = async { if messages.is_empty() { Ok(()) } else { self.store(messages).await } };
        let people = async {
            if authors.is_empty() {
                return Ok(());
            }
            self.stores.contacts.learn(&self.fence, authors.clone()).await?;
            self.remember(&authors);
            Ok(())
        };
        let (messages, people) = tokio::join!(messages, people);
        messages.and(people)?;
        if !amendments.is_empty() {
            self.stores.history.amend(&self.fence, amendments).await?;
        }
        if !announced.is_empty() {
            self.history.announced(announced, patient).await?;
        }
        Ok(())
    }

    /// Takes a note in, to be written soon.
    pub(crate) fn note(&self, note: Note) {
        self.queues.notes.put(self.fence.clone(), note);
    }

    /// The history that the phone sends.
    pub(crate) fn history(&self) -> &Arc<HistoryIntake> {
        &self.history
    }

    fn is_known(&self, facts: &ContactFacts) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&facts.jid) == Some(&hash(facts))
    }

    fn remember(&self, authors: &[ContactFacts]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + authors.len() > MAX_KNOWN {
            known.clear();
        }
        known.extend(authors.iter().map(|facts| (facts.jid.clone(), hash(facts))));
    }

    /// Writes messages into the history. Writing them again changes nothing.
    async fn store(&self, mut rows: Vec<HistoryRow>) -> Result<(), StoreError> {
        let known = numbers(&self.stores, self.fence.session(), rows.iter().map(|row| &row.chat)).await?;
        for row in &mut rows {
            if let Some(number) = known.get(&row.chat) {
                if row.sender.as_ref() == Some(&row.chat) {
                    row.sender = Some(number.clone());
                }
                row.chat = number.clone();
            }
            row.sort_key = self.keys.next(row.timestamp);
        }
        let counted: Vec<_> = rows.iter().map(|row| (row.from_me, row.kind)).collect();
        let arrived = self.arrivals.as_ref().map(|arrivals| arrivals.among(&rows)).unwrap_or_default();
        let groups = self.groups.among(&rows);
        let stored = self.stores.history.insert(&self.fence, rows).await;
        if let (Ok(()), Some(arrivals)) = (&stored, &self.arrivals) {
            arrivals.tell(self.fence.session(), arrived);
        }
        // Also where it failed: the messages come again.
        self.groups.seen(groups);
        let outcome = if stored.is_ok() { "stored" } else { "failed" };
        for (from_me, kind) in counted {
            metrics::message(if from_me { "outbound" } else { "inbound" }, kind, outcome);
        }
        stored
    }

    /// Takes a receipt in, to be written soon.
    pub(crate) fn receipt(&self, receipt: MessageReceipt) {
        self.queues.receipts.put(self.fence.clone(), receipt);
    }
}

fn hash(facts: &ContactFacts) -> u64 {
    let mut hasher = DefaultHasher::new();
    let ContactFacts { jid, other, full_name, short_name, push_name, business_name, old } = facts;
    (jid, other, full_name, short_name, push_name, business_name, old).hash(&mut hasher);
    hasher.finish()
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
