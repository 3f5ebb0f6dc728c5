//! The traits of the stores: one a kind of data, no engine in sight.
//!
//! Every write is durable when it returns. What belongs to a session is written through a [`Fence`], which only
//! a claim gives; reads need none. All calls have a deadline of the engine's own and answer
//! [`StoreError::Overloaded`] rather than queue without bound.

use crate::{
    Accepted, Amendment, ChatChange, ChatPlace, ChatRow, ContactFacts, ContactQuery, ContactRow, Fence, HistoryQuery,
    HistoryRow, HistorySyncRow, Import, KeyKind, KeyOp, MessageReceipt, NodeRow, NodeStatus, OutboxRow, Owner, Page,
    ParticipantRow, Renewal, SendOutcome, SendRecord, SessionRow, StoreError, TokenRow,
    search::{IndexState, Posting},
};
use async_trait::async_trait;
use bytes::Bytes;
use rookery_protocol::{Incarnation, Jid, MessageId, NodeId, SessionId, Timestamp, TokenId, UserId};
use std::{sync::Arc, time::Duration};

/// API tokens.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// Keeps a token.
    async fn create(&self, token: &TokenRow) -> Result<(), StoreError>;
    /// The tokens of a user, oldest first, at most 1,000.
    async fn list(&self, user: UserId) -> Result<Vec<TokenRow>, StoreError>;
    /// Forgets a token of this user; false when there is none.
    async fn delete(&self, user: UserId, id: TokenId) -> Result<bool, StoreError>;
    /// The token with this hash of its secret.
    async fn find(&self, hash: &[u8; 32]) -> Result<Option<TokenRow>, StoreError>;
}

/// Sessions, apart from what is in them.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Keeps a new session and an owner row at epoch 0 without an owner. An id is used once, also after a removal.
    async fn create(&self, session: &SessionRow) -> Result<(), StoreError>;
    /// A session by its id.
    async fn get(&self, id: SessionId) -> Result<Option<SessionRow>, StoreError>;
    /// Sessions of a user in order of creation, after `after`, at most `limit`.
    async fn list(
        &self,
        user: UserId,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Page<SessionRow, SessionId>, StoreError>;
    /// Sessions of all users in order of id, after `after`, at most `limit`. For the start of a node.
    async fn scan(&self, after: Option<SessionId>, limit: usize) -> Result<Page<SessionRow, SessionId>, StoreError>;
    /// The sessions of a user that are linked to this phone number, at most 100, in order of creation.
    async fn find_by_phone(&self, user: UserId, phone: &str) -> Result<Vec<SessionRow>, StoreError>;
    /// Replaces a session's row; its id, user and creation time never change.
    async fn update(&self, fence: &Fence, session: &SessionRow) -> Result<(), StoreError>;
    /// Removes the session and all its data: keys, outbox, history, contacts, chats, idempotency records and
    /// owner row. The
    /// session's row goes last, so that a removal cut short can be repeated.
    async fn delete(&self, fence: &Fence) -> Result<(), StoreError>;
}

/// Who may act for a session.
#[async_trait]
pub trait OwnerStore: Send + Sync {
    /// The owner row; none when the session does not exist.
    async fn read(&self, session: SessionId) -> Result<Option<Owner>, StoreError>;
    /// Makes this incarnation of this node the owner, under the epoch after `seen.epoch`, when the row is
    /// still as `seen`; [`StoreError::ClaimLost`] otherwise. Whether the old owner may be succeeded is the
    /// caller's to know. Fences of older epochs are refused from then on. Refused while the gate is shut.
    async fn claim(
        &self,
        session: SessionId,
        seen: &Owner,
        node: &NodeId,
        incarnation: Incarnation,
    ) -> Result<Fence, StoreError>;
    /// Gives the session up; nothing happens when the fence is no longer the newest. Needs no open gate: whoever may not
    /// act may give away.
    async fn release(&self, fence: &Fence) -> Result<(), StoreError>;
    /// The owner rows of all sessions that were ever claimed, after `after` in an order of the engine's own, at most
    /// `limit` (and 10,000). A claim that was made a moment ago may be missing; who claims compares anyway. For a node
    /// that looks for the sessions of one that died.
    async fn scan(
        &self,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Page<(SessionId, Owner), SessionId>, StoreError>;
}

/// The nodes of the cluster: a row a node, written by it alone but for the one who declares it dead. No row is ever
/// deleted and none expires.
///
/// Whether a node is alive is told by its count alone: an observer that sees it stand still for long enough on its own
/// clock declares the node dead, if it still stands. No two clocks are compared.
///
/// A write whose outcome is not known is settled by reading the row; when it turns out not to have been made the answer
/// is [`StoreError::Unavailable`], and an error of the reading says that nothing is known.
#[async_trait]
pub trait NodeStore: Send + Sync {
    /// All nodes, the dead ones too, at most 1,000.
    async fn list(&self) -> Result<Vec<NodeRow>, StoreError>;
    /// A node, after every write that was begun.
    async fn read(&self, node: &NodeId) -> Result<Option<NodeRow>, StoreError>;
    /// Takes the place of the node for a new incarnation: there must be no row or, with `seen`, that dead one. False
    /// when somebody else has it.
    async fn join(&self, row: &NodeRow, seen: Option<&NodeRow>) -> Result<bool, StoreError>;
    /// Counts `seq` up by one, if this incarnation is at `seq` and not dead.
    ///
    /// After an error the same `seq` may have counted already: what is derived from the time of a renewal goes by the
    /// first request with that `seq`. So does a refusal with the own row at `seq + 1`.
    async fn renew(&self, node: &NodeId, incarnation: Incarnation, seq: u64) -> Result<Renewal, StoreError>;
    /// Gives an incarnation that still is at `seq_seen` another status: a node drains itself, an observer declares one
    /// dead. A dead one stays dead. True when the incarnation has the status now, whoever gave it.
    async fn mark(
        &self,
        node: &NodeId,
        incarnation: Incarnation,
        seq_seen: u64,
        status: NodeStatus,
    ) -> Result<bool, StoreError>;
}

/// Key material: a small ordered table for each [`KeyKind`] of each session.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// One row.
    async fn get(&self, session: SessionId, kind: KeyKind, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// Several rows of one kind, in the order asked for.
    async fn get_many(
        &self,
        session: SessionId,
        kind: KeyKind,
        keys: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, StoreError>;
    /// All rows of one kind whose key begins with `prefix`, in the order of their keys.
    async fn scan(&self, session: SessionId, kind: KeyKind, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
    /// The first `limit` rows of one kind with `from <= key < until`, in the order of their keys.
    async fn range(
        &self,
        session: SessionId,
        kind: KeyKind,
        from: &[u8],
        until: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
    /// Applies all changes or none.
    async fn write(&self, fence: &Fence, ops: Vec<KeyOp>) -> Result<(), StoreError>;
    /// Forgets all key material of the session.
    async fn clear(&self, fence: &Fence) -> Result<(), StoreError>;
}

/// Accepted sends on their way to WhatsApp.
#[async_trait]
pub trait OutboxStore: Send + Sync {
    /// Accepts a send: outbox, history, the chat's row and idempotency record in one.
    async fn accept(&self, fence: &Fence, accepted: Accepted) -> Result<(), StoreError>;
    /// What is not resolved yet, in order of acceptance, after `after`, at most `limit`.
    async fn pending(&self, session: SessionId, after: Option<u64>, limit: usize)
    -> Result<Vec<OutboxRow>, StoreError>;
    /// The file of a send is at WhatsApp under this path: from now on `payload` is what to send, without a file to
    /// upload before, and its history row names the path.
    async fn uploaded(&self, fence: &Fence, seq: u64, payload: Bytes, direct_path: &str) -> Result<(), StoreError>;
    /// Takes a send out of the outbox and writes how it ended into its history row.
    async fn resolve(&self, fence: &Fence, seq: u64, outcome: SendOutcome) -> Result<(), StoreError>;
    /// What this idempotency key (as a hash) stands for, if it is younger than 24 hours at `now`.
    async fn recorded(
        &self,
        session: SessionId,
        key: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<SendRecord>, StoreError>;
    /// Forgets idempotency records of all sessions that are older than 24 hours at `now`, at most `limit`;
    /// answers how many: none where they go by themselves ([`Engine::expires`]).
    async fn sweep(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError>;
}

/// Messages, kept until their session is deleted.
#[async_trait]
pub trait HistoryStore: Send + Sync {
    /// Keeps messages, as a whole or not at all. One that is there already (same chat, id and author) becomes what
    /// [`HistoryRow::delivered_again`] says; a new one takes in what came before it, and with it goes the row of its
    /// chat: its latest activity, and what is unread.
    async fn insert(&self, fence: &Fence, messages: Vec<HistoryRow>) -> Result<(), StoreError>;
    /// A page, newest first. Looks at no more than 2,000 rows.
    async fn list(&self, session: SessionId, query: &HistoryQuery) -> Result<Page<HistoryRow, u64>, StoreError>;
    /// The messages with this id, newest first: ids are unique only within a chat and author.
    async fn get(&self, session: SessionId, id: &MessageId) -> Result<Vec<HistoryRow>, StoreError>;
    /// Writes the times of receipts into the messages that they are for; the earliest time of each stage stays.
    /// A message that is in no such chat is sought among all of the session's own messages with that id, since
    /// the chat may be stored under its other name; one that is not there at all is waited for. A group's receipts are
    /// kept for each member, too, in rows of their own. The receipts may be of many sessions, each under its own
    /// fence; what is refused of one does not hinder the others, and each has its answer, in the order given.
    async fn receipts(&self, receipts: Vec<(Fence, MessageReceipt)>)
    -> Result<Vec<Result<(), StoreError>>, StoreError>;
    /// Applies changes to the messages that they are about, as a whole or not at all. One whose message is not there
    /// waits for it, for [`crate::EARLY_KEPT_SECS`].
    async fn amend(&self, fence: &Fence, amendments: Vec<Amendment>) -> Result<(), StoreError>;
    /// The receipts of a group message by its sort key: those of members after `after`, in the order of their
    /// addresses, at most `limit`.
    async fn participants(
        &self,
        session: SessionId,
        sort_key: u64,
        after: Option<&Jid>,
        limit: usize,
    ) -> Result<Page<ParticipantRow, Jid>, StoreError>;
    /// The messages with these sort keys, in the order of the keys; those that are not there are left out.
    async fn at(&self, session: SessionId, sort_keys: Vec<u64>) -> Result<Vec<HistoryRow>, StoreError>;
    /// The messages after this sort key, oldest first, at most `limit`.
    async fn oldest_after(
        &self,
        session: SessionId,
        sort_key: u64,
        limit: usize,
    ) -> Result<Vec<HistoryRow>, StoreError>;
    /// Forgets what has waited too long at `now` for its message, of all sessions, at most `limit`; answers how much:
    /// nothing where it goes by itself ([`Engine::expires`]).
    async fn sweep(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError>;
    /// WhatsApp keeps the file of the message with this sort key under another path now. Nothing happens to a
    /// message without a file.
    async fn relocate(&self, fence: &Fence, sort_key: u64, direct_path: &str) -> Result<(), StoreError>;
    /// The highest sort key in use, so that new ones are above it.
    async fn last_sort_key(&self, session: SessionId) -> Result<Option<u64>, StoreError>;
}

/// The people that a session has met; see [`ContactRow`].
///
/// One partition a session, a row an address. Nobody but the session's owner writes, so rows are read, merged (by
/// the functions beside the rows, which know no engine) and written.
#[async_trait]
pub trait ContactStore: Send + Sync {
    /// Takes in what was learned, in the given order, as a whole or not at all; what is known already costs no write.
    /// When a LID turns out to be a phone number's, the chat under the LID becomes part of the number's.
    async fn learn(&self, fence: &Fence, facts: Vec<ContactFacts>) -> Result<(), StoreError>;
    /// A page in the order of addresses. Looks at no more than 2,000 rows.
    async fn list(&self, session: SessionId, query: &ContactQuery) -> Result<Page<ContactRow, Jid>, StoreError>;
    /// The contacts with these addresses, of either kind, in the order asked for.
    async fn get(&self, session: SessionId, jids: &[Jid]) -> Result<Vec<Option<ContactRow>>, StoreError>;
}

/// The chats of a session; see [`ChatRow`].
///
/// One partition a session, a row a chat under the chat's address, rewritten in place: nothing is deleted but the row
/// of a LID that turned out to be a phone number's. The list is sorted when it is read.
#[async_trait]
pub trait ChatStore: Send + Sync {
    /// The chats after `after` by their latest activity, newest first, at most `limit`.
    async fn list(
        &self,
        session: SessionId,
        after: Option<&ChatPlace>,
        limit: usize,
    ) -> Result<Page<ChatRow, ChatPlace>, StoreError>;
    /// The chat under this address; under a LID that of the phone number, where it is known. Also one that is not shown.
    async fn get(&self, session: SessionId, jid: &Jid) -> Result<Option<ChatRow>, StoreError>;
    /// Takes in what was decided about chats, in the given order, as a whole or not at all. A chat may be named by
    /// the LID or by the phone number. What is decided about a chat that has no row makes one, but is not shown
    /// before something happens in it. After [`ChatChange::Read`] as many inbound messages are unread as are stored
    /// behind that place, but no more than before; no more than 2,000 rows are looked at for that.
    async fn change(&self, fence: &Fence, changes: Vec<(Jid, ChatChange)>) -> Result<(), StoreError>;
}

/// The history that a session's phone sends.
#[async_trait]
pub trait SyncStore: Send + Sync {
    /// How far it has come; the default before anything came.
    async fn state(&self, session: SessionId) -> Result<HistorySyncRow, StoreError>;
    /// Replaces everything but [`HistorySyncRow::messages`], which [`SyncStore::import`] counts.
    async fn save(&self, fence: &Fence, state: &HistorySyncRow) -> Result<(), StoreError>;
    /// Replaces everything, the count as well: another account is linked.
    async fn restart(&self, fence: &Fence, state: &HistorySyncRow) -> Result<(), StoreError>;
    /// Stores a part of a chunk, and answers how many of its messages are new. Once is as good as often: a message
    /// that is there already stays as it is, and a chat takes in what is said of it once.
    async fn import(&self, fence: &Fence, import: Import) -> Result<u64, StoreError>;
}

/// The index of words in messages. What is in it and how it is used is the matter of [`crate::search`]; an engine keeps
/// its rows.
///
/// One thing an engine sees to by itself, in the same batch: whenever [`HistoryStore`] or [`OutboxStore`] writes a
/// message whose sort key is not above [`IndexState::through`], new or with other words than before, its sort key is
/// added to the generation [`IndexState::late`] of late messages.
#[async_trait]
pub trait WordStore: Send + Sync {
    /// How far the index is; the default for a session without one.
    async fn state(&self, session: SessionId) -> Result<IndexState, StoreError>;
    /// Postings of a word in the order of [`Posting::place`], after `after`, at most `limit`.
    async fn postings(
        &self,
        session: SessionId,
        word: &str,
        after: Option<(u64, u32)>,
        limit: usize,
    ) -> Result<Vec<Posting>, StoreError>;
    /// The words in the index that begin with `prefix`, in the order of their bytes, at most `limit`.
    async fn words(&self, session: SessionId, prefix: &str, limit: usize) -> Result<Vec<String>, StoreError>;
    /// Postings of all words that begin with `prefix`, in the order of their bytes, at most `limit`.
    async fn postings_of_prefix(
        &self,
        session: SessionId,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<Posting>, StoreError>;
    /// The sort keys of a generation of late messages, newest first, below `below`, at most `limit`.
    async fn late(&self, session: SessionId, generation: u32, below: u64, limit: usize)
    -> Result<Vec<u64>, StoreError>;
    /// Keeps postings; one of the same word and place is replaced.
    async fn put(&self, fence: &Fence, postings: Vec<Posting>) -> Result<(), StoreError>;
    /// The index is this far. What it says of must be durable before.
    async fn advance(&self, fence: &Fence, state: IndexState) -> Result<(), StoreError>;
    /// Forgets a generation of late messages.
    async fn forget_late(&self, fence: &Fence, generation: u32) -> Result<(), StoreError>;
}

/// All stores of one engine. Cheap to clone.
#[derive(Clone)]
pub struct Stores {
    /// API tokens.
    pub tokens: Arc<dyn TokenStore>,
    /// Sessions.
    pub sessions: Arc<dyn SessionStore>,
    /// Who may act for a session.
    pub owners: Arc<dyn OwnerStore>,
    /// Key material.
    pub keys: Arc<dyn KeyStore>,
    /// Accepted sends.
    pub outbox: Arc<dyn OutboxStore>,
    /// Messages.
    pub history: Arc<dyn HistoryStore>,
    /// People.
    pub contacts: Arc<dyn ContactStore>,
    /// Chats.
    pub chats: Arc<dyn ChatStore>,
    /// History syncs.
    pub syncs: Arc<dyn SyncStore>,
    /// The index of words in messages.
    pub words: Arc<dyn WordStore>,
    /// The nodes of the cluster.
    pub nodes: Arc<dyn NodeStore>,
    /// The engine itself.
    pub engine: Arc<dyn Engine>,
}

/// What is common to all stores of one engine.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Its name, for people and metrics.
    fn name(&self) -> &'static str;
    /// Whether an engine that is [`StoreError::Unavailable`] may be there again by itself; otherwise only the next
    /// start of the process helps.
    fn recovers(&self) -> bool;
    /// Whether what has its time goes by itself, so that there is nothing to sweep.
    fn expires(&self) -> bool;
    /// Writes and reads a row; how long that took.
    async fn probe(&self) -> Result<Duration, StoreError>;
    /// Finishes what was begun and closes; later calls answer [`StoreError::Unavailable`]. Idempotent.
    async fn close(&self) -> Result<(), StoreError>;
}
