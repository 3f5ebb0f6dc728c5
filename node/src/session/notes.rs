//! What is learned about people and chats beside messages, into the store.
//!
//! One queue for all sessions, in order; a note that does not fit is dropped and counted. Notes are of little weight
//! each and come in crowds: a new session learns its whole address book at once.

use super::whatsapp::Note;
use crate::metrics;
use rookery_protocol::{Jid, MessageId};
use rookery_storage::{ChatChange, ContactFacts, Fence, StoreError, Stores};
use tokio::sync::mpsc;

/// How many notes of all sessions may wait.
const QUEUE: usize = 65_536;
/// How many are taken at a time.
const BATCH: usize = 512;

/// Notes of all sessions on their way into the store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NoteQueue(mpsc::Sender<(Fence, Note)>);

impl NoteQueue {
    /// A queue and the task that empties it; the task ends when all clones of the queue are gone.
    pub(crate) fn start(stores: Stores) -> Self {
        let (put, mut take) = mpsc::channel::<(Fence, Note)>(QUEUE);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH);
            while take.recv_many(&mut batch, BATCH).await > 0 {
                let mut notes = batch.drain(..).peekable();
                while let Some((fence, first)) = notes.next() {
                    let mut run = vec![first];
                    while let Some((_, note)) = notes.next_if(|(next, _)| next.session() == fence.session()) {
                        run.push(note);
                    }
                    if let Err(error) = write(&stores, &fence, run).await {
                        tracing::warn!(session_id = %fence.session(), %error, "notes could not be stored");
                    }
                }
            }
        });
        Self(put)
    }

    /// Takes a note in, to be written soon.
    pub(crate) fn put(&self, fence: Fence, note: Note) {
        if self.0.try_send((fence, note)).is_err() {
            ::metrics::counter!(metrics::NOTES_DROPPED).increment(1);
        }
    }
}

async fn write(stores: &Stores, fence: &Fence, notes: Vec<Note>) -> Result<(), StoreError> {
    let (mut contacts, mut chats): (Vec<ContactFacts>, Vec<(Jid, ChatChange)>) = (vec![], vec![]);
    for note in notes {
        match note {
            Note::Contact(facts) => contacts.push(facts),
            Note::Chat(jid, change) => chats.push((jid, change)),
            Note::Seen(ids) => chats.extend(seen(stores, fence, ids).await?),
        }
    }
    if !contacts.is_empty() {
        stores.contacts.learn(fence, contacts).await?;
    }
    if !chats.is_empty() {
        stores.chats.change(fence, chats).await?;
    }
    Ok(())
}

/// Where the account has read up to: the latest of the messages of others that it has seen.
async fn seen(stores: &Stores, fence: &Fence, ids: Vec<MessageId>) -> Result<Option<(Jid, ChatChange)>, StoreError> {
    let mut latest: Option<(u64, Jid)> = None;
    for id in ids {
        let rows = stores.history.get(fence.session(), &id).await?;
        let inbound = rows.into_iter().find(|row| !row.from_me).map(|row| (row.sort_key, row.chat));
        latest = latest.max(inbound);
    }
    Ok(latest.map(|(sort_key, chat)| (chat, ChatChange::Read(sort_key))))
}
