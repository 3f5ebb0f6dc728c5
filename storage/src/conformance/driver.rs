//! All stores at random, beside a plain model of them.
//!
//! A random history of operations runs on the engine and on the model; every answer is compared, and at the end
//! and after every reopening so is everything that is stored.

use super::{
    Factory,
    model::{Session, asked_for},
    model_peers, runner, sample,
    steps::{KINDS, SESSIONS, Step, amendment, message, steps},
};
use crate::{
    Accepted, ContactQuery, Fence, HistoryQuery, Import, KeyOp, MessageReceipt, Owner, ReceiptKind, SendOutcome,
    SessionRow, StoreError, Stores, TokenRow,
};
use anyhow::{Context, Result};
use proptest::test_runner::TestCaseError;
use rookery_protocol::{DeviceId, Incarnation, SessionId, UserId, api::Direction};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};
use tokio::{runtime::Handle, task::block_in_place};

const DAY_SECS: i64 = 24 * 60 * 60;

/// What kind of error it is; none of success.
fn outcome<T>(result: &Result<T, StoreError>) -> Option<&'static str> {
    result.as_ref().err().map(|error| match error {
        StoreError::Fenced { .. } => "fenced",
        StoreError::ClaimLost { .. } => "claim lost",
        StoreError::NotFound(_) => "not found",
        StoreError::Refused(_) => "refused",
        _ => "another",
    })
}

/// The engine and the model side by side.
struct Pair<'a> {
    factory: &'a dyn Factory,
    place: String,
    stores: Stores,
    user: UserId,
    ids: Vec<SessionId>,
    sessions: Vec<Session>,
    /// All fences of each session that were ever given out, oldest first.
    fences: Vec<Vec<Fence>>,
    tokens: BTreeMap<u8, TokenRow>,
}

pub(super) fn run(factory: &dyn Factory, seed: u64, cases: u32) -> Result<()> {
    let number = AtomicU32::new(0);
    let runtime = Handle::current();
    let tried = runner(seed, cases).run(&steps(), |steps| {
        let place = format!("model-{}", number.fetch_add(1, Ordering::Relaxed));
        let case = async {
            let mut pair = Pair::open(factory, place).await?;
            for step in steps {
                pair.step(step.clone()).await.with_context(|| format!("{step:?}"))?;
            }
            pair.compare().await?;
            pair.reopen().await?;
            pair.stores.engine.close().await.context("close")
        };
        // An assertion's panic is caught by the runner as well.
        block_in_place(|| runtime.block_on(case)).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    tried.map_err(|error| anyhow::anyhow!("seed {seed}: {error}"))
}

impl<'a> Pair<'a> {
    async fn open(factory: &'a dyn Factory, place: String) -> Result<Self> {
        let stores = factory.open(&place).await?;
        let mut ids: Vec<_> = (0..SESSIONS).map(|_| SessionId::generate()).collect();
        ids.sort_unstable();
        let sessions = vec![Session::default(); SESSIONS];
        let fences = vec![Vec::new(); SESSIONS];
        Ok(Self { factory, place, stores, user: UserId::generate(), ids, sessions, fences, tokens: BTreeMap::new() })
    }

    /// The newest fence of a session, or the one before it.
    fn fence(&self, session: usize, old: bool) -> Option<Fence> {
        self.fences[session].iter().rev().nth(usize::from(old)).cloned()
    }

    async fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Create(session) => self.create(session).await,
            Step::Claim(session, stale) => self.claim(session, stale).await,
            Step::Sweep(secs) => self.sweep(secs).await,
            Step::List(session, chat, from, until, own, before, limit) => {
                let query = HistoryQuery {
                    chat: chat.map(sample::chat),
                    from: from.map(sample::at),
                    until: until.map(sample::at),
                    direction: own.map(|own| if own { Direction::Outbound } else { Direction::Inbound }),
                    before,
                    limit,
                    ..HistoryQuery::default()
                };
                self.list(session, &query).await
            }
            Step::Token(number) => self.token(number).await,
            Step::DropToken(number) => self.drop_token(number).await,
            Step::Reopen => {
                self.reopen().await?;
                self.compare().await
            }
            step => self.fenced(step).await,
        }
    }

    async fn create(&mut self, number: usize) -> Result<()> {
        if self.sessions[number].row.is_none() && !self.fences[number].is_empty() {
            // It was removed, and an id is used once.
            self.ids[number] = SessionId::generate();
        }
        let row = SessionRow { session_id: self.ids[number], ..sample::session(self.user) };
        let result = self.stores.sessions.create(&row).await;
        let session = &mut self.sessions[number];
        let expected = session.row.is_some().then_some("refused");
        if expected.is_none() {
            *session = Session { row: Some(row), ..Session::default() };
            // The fences of a session that was removed are of no use to another.
            self.fences[number].clear();
        }
        assert_eq!(outcome(&result), expected);
        Ok(())
    }

    async fn claim(&mut self, number: usize, stale: bool) -> Result<()> {
        let session = &mut self.sessions[number];
        let node = "node-1".parse()?;
        let incarnation = Incarnation::generate();
        let epoch = if stale { session.epoch.next() } else { session.epoch };
        let seen =
            Owner { epoch, node: session.node.map(|incarnation| ("node-1".parse().expect("a name"), incarnation)) };
        let result = self.stores.owners.claim(self.ids[number], &seen, &node, incarnation).await;
        let expected = match (&session.row, stale) {
            (None, _) => Some("not found"),
            (Some(_), true) => Some("claim lost"),
            (Some(_), false) => None,
        };
        assert_eq!(outcome(&result), expected);
        if let Ok(fence) = result {
            session.epoch = session.epoch.next();
            session.node = Some(incarnation);
            assert_eq!(fence.epoch(), session.epoch);
            self.fences[number].push(fence);
        }
        Ok(())
    }

    /// The steps that need a fence; nothing happens before the session's first claim.
    async fn fenced(&mut self, step: Step) -> Result<()> {
        let (number, old) = match &step {
            Step::Release(session, old)
            | Step::Update(session, old, _)
            | Step::Delete(session, old)
            | Step::Keys(session, old, _)
            | Step::Accept(session, old, ..)
            | Step::Amend(session, old, _)
            | Step::Insert(session, old, _)
            | Step::Chat(session, old, ..)
            | Step::Learn(session, old, _)
            | Step::Import(session, old, _) => (*session, *old),
            Step::Resolve(session, ..) | Step::Receipt(session, ..) | Step::Clear(session) => (*session, false),
            _ => return Ok(()),
        };
        let Some(fence) = self.fence(number, old) else { return Ok(()) };
        let (stores, session) = (self.stores.clone(), &mut self.sessions[number]);
        let (result, expected) = match step {
            Step::Release(..) => {
                if session.epoch == fence.epoch() {
                    session.node = None;
                }
                (stores.owners.release(&fence).await, Ok(()))
            }
            Step::Update(_, _, device) => {
                let device = device.map(|device| DeviceId::new("15550001", device)).transpose()?;
                let row = SessionRow { session_id: self.ids[number], device, ..sample::session(self.user) };
                let result = stores.sessions.update(&fence, &row).await;
                (
                    result,
                    session.write(&fence, |session| {
                        session.row = Some(row);
                        Ok(())
                    }),
                )
            }
            Step::Delete(..) => {
                let result = stores.sessions.delete(&fence).await;
                let expected = match session.check(&fence) {
                    Err(StoreError::NotFound(_)) => Ok(()),
                    checked => checked.map(|()| *session = Session::default()),
                };
                (result, expected)
            }
            Step::Keys(_, _, changes) => keys(&stores, session, &fence, changes).await,
            Step::Clear(_) => {
                let result = stores.keys.clear(&fence).await;
                (
                    result,
                    session.write(&fence, |session| {
                        session.keys.clear();
                        Ok(())
                    }),
                )
            }
            Step::Accept(_, _, seq, words, key) => {
                let history = message((words.0, words.1, words.2, true, words.4));
                let accepted = Accepted { history, ..sample::accepted(seq, &sample::chat(words.1), words.2, None) };
                let record = sample::accepted(seq, &sample::chat(words.1), words.2, Some([0; 32])).idempotency;
                let idempotency = key.zip(record).map(|(key, (_, record))| ([key; 32], record));
                let accepted = Accepted { idempotency, ..accepted };
                let result = stores.outbox.accept(&fence, accepted.clone()).await;
                (result, session.write(&fence, |session| session.accept(accepted)))
            }
            Step::Resolve(_, seq, sent, at) => {
                let outcome =
                    if sent { SendOutcome::Sent(sample::at(at)) } else { SendOutcome::Failed(format!("reason {at}")) };
                let result = stores.outbox.resolve(&fence, seq, outcome.clone()).await;
                (result, session.write(&fence, |session| session.resolve(seq, outcome)))
            }
            Step::Insert(_, _, rows) => {
                let rows: Vec<_> = rows.into_iter().map(message).collect();
                let result = stores.history.insert(&fence, rows.clone()).await;
                let insert = |session: &mut Session| {
                    for row in rows {
                        session.insert(row, false);
                    }
                    Ok(())
                };
                (result, session.write(&fence, insert))
            }
            Step::Amend(_, _, amendments) => {
                let amendments: Vec<_> = amendments.into_iter().map(amendment).collect();
                let result = stores.history.amend(&fence, amendments.clone()).await;
                let amend = |session: &mut Session| {
                    for amendment in amendments {
                        session.amend(amendment);
                    }
                    Ok(())
                };
                (result, session.write(&fence, amend))
            }
            Step::Chat(_, _, chat, kind, secs) => {
                let (chat, change) = (sample::chat(chat), model_peers::change(kind, secs));
                let result = stores.chats.change(&fence, vec![(chat.clone(), change.clone())]).await;
                let decide = |session: &mut Session| {
                    let Session { peers, history, .. } = session;
                    peers.decide(&chat, &change, history.values());
                    Ok(())
                };
                (result, session.write(&fence, decide))
            }
            Step::Learn(_, _, learned) => {
                let facts = learned.iter().map(|(person, by, name)| model_peers::facts(*person, *by, *name));
                let result = stores.contacts.learn(&fence, facts.collect()).await;
                let learn = |session: &mut Session| {
                    for (person, by, name) in &learned {
                        session.peers.learn(*person, *by, *name);
                    }
                    Ok(())
                };
                (result, session.write(&fence, learn))
            }
            Step::Import(_, _, rows) => {
                let messages: Vec<_> = rows.into_iter().map(message).collect();
                let import = Import { messages: messages.clone(), ..Import::default() };
                let result = stores.syncs.import(&fence, import).await;
                let expected = session.write(&fence, |session| {
                    Ok(messages.into_iter().map(|row| u64::from(session.import(row))).sum::<u64>())
                });
                if let (Ok(new), Ok(expected)) = (&result, &expected) {
                    assert_eq!(new, expected);
                }
                (result.map(drop), expected.map(drop))
            }
            Step::Receipt(_, chat, message, kind, secs) => {
                let kind = [ReceiptKind::Delivered, ReceiptKind::Read, ReceiptKind::Played][usize::from(kind)];
                let id = sample::outbound(message, &sample::chat(0), 0).message_id;
                let (chat_id, at) = (sample::chat(chat), sample::at(secs));
                let result = sample::receipt(&stores, &fence, &chat_id, std::slice::from_ref(&id), kind, at).await;
                (
                    result,
                    session.write(&fence, |session| {
                        session.receipt(MessageReceipt { chat: chat_id, participant: None, ids: vec![id], kind, at });
                        Ok(())
                    }),
                )
            }
            _ => return Ok(()),
        };
        assert_eq!(outcome(&result), outcome(&expected), "{result:?}");
        Ok(())
    }

    async fn sweep(&mut self, secs: i64) -> Result<()> {
        let now = sample::at(secs).plus_secs(DAY_SECS);
        if self.stores.engine.expires() {
            assert_eq!(self.stores.outbox.sweep(now, 1_000).await?, 0, "there is nothing to sweep");
            return Ok(());
        }
        let mut expected = 0;
        for session in &mut self.sessions {
            let before = session.records.len();
            session.records.retain(|_, record| record.accepted_at.plus_secs(DAY_SECS) > now);
            expected += before - session.records.len();
        }
        assert_eq!(self.stores.outbox.sweep(now, 1_000).await?, expected);
        Ok(())
    }

    async fn list(&self, number: usize, query: &HistoryQuery) -> Result<()> {
        let rows = self.sessions[number].history.values().rev().filter(|row| asked_for(query, row));
        let expected: Vec<_> = rows.cloned().collect();
        let (mut found, mut query) = (Vec::new(), query.clone());
        loop {
            let page = self.stores.history.list(self.ids[number], &query).await?;
            assert!(page.rows.len() <= query.limit);
            found.extend(page.rows);
            match page.next {
                Some(next) => query.before = Some(next),
                None => break,
            }
        }
        assert_eq!(found, expected, "{query:?}");
        Ok(())
    }

    async fn token(&mut self, number: u8) -> Result<()> {
        if !self.tokens.contains_key(&number) {
            let token = sample::token(self.user, i64::from(number));
            self.stores.tokens.create(&token).await?;
            self.tokens.insert(number, token);
        }
        Ok(())
    }

    async fn drop_token(&mut self, number: u8) -> Result<()> {
        if let Some(token) = self.tokens.remove(&number) {
            assert!(self.stores.tokens.delete(self.user, token.id).await?);
            assert!(!self.stores.tokens.delete(self.user, token.id).await?);
        }
        Ok(())
    }

    async fn reopen(&mut self) -> Result<()> {
        self.stores.engine.close().await?;
        self.stores = self.factory.open(&self.place).await?;
        self.compare().await
    }

    /// Compares all that is stored.
    async fn compare(&self) -> Result<()> {
        let tokens: Vec<_> = self.tokens.values().cloned().collect();
        assert_eq!(self.stores.tokens.list(self.user).await?, tokens);
        let mut rows: Vec<_> = self.sessions.iter().filter_map(|session| session.row.clone()).collect();
        rows.sort_unstable_by_key(|row| row.session_id);
        assert_eq!(self.stores.sessions.list(self.user, None, 100).await?.rows, rows);
        let linked: Vec<_> = rows.into_iter().filter(|row| row.device.is_some()).collect();
        assert_eq!(self.stores.sessions.find_by_phone(self.user, "15550001").await?, linked);
        for (id, session) in self.ids.iter().zip(&self.sessions) {
            self.compare_session(*id, session).await?;
        }
        for number in 0..SESSIONS {
            for chat in [None, Some(sample::chat(0)), Some(sample::chat(1))] {
                self.list(number, &HistoryQuery { chat, limit: 4, ..HistoryQuery::default() }).await?;
            }
        }
        Ok(())
    }

    async fn compare_session(&self, id: SessionId, session: &Session) -> Result<()> {
        let owner = session.row.is_some().then_some(session.epoch);
        let found = self.stores.owners.read(id).await?;
        assert_eq!(found.as_ref().map(|owner| owner.epoch), owner);
        assert_eq!(found.and_then(|owner| owner.node).map(|(_, incarnation)| incarnation), session.node);
        for kind in KINDS {
            let found = self.stores.keys.scan(id, kind, &[]).await?;
            let found: Vec<_> = found.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            let expected = session.keys.iter().filter(|((of, _), _)| *of == kind);
            assert_eq!(found, expected.map(|((_, key), value)| (key.clone(), value.clone())).collect::<Vec<_>>());
        }
        let outbox: Vec<_> = session.outbox.values().cloned().collect();
        assert_eq!(self.stores.outbox.pending(id, None, 100).await?, outbox);
        for key in 0..3_u8 {
            let found = self.stores.outbox.recorded(id, &[key; 32], sample::at(0)).await?;
            assert_eq!(found.as_ref(), session.records.get(&[key; 32]));
        }
        let chats = self.stores.chats.list(id, None, 100).await?.rows;
        assert_eq!(chats.into_iter().map(model_peers::kept).collect::<Vec<_>>(), session.peers.chats());
        let everybody = ContactQuery { limit: 100, ..ContactQuery::default() };
        assert_eq!(self.stores.contacts.list(id, &everybody).await?.rows, session.peers.contacts());
        assert_eq!(self.stores.syncs.state(id).await?.messages, session.peers.imported);
        let newest = session.history.last_key_value().map(|(sort_key, _)| *sort_key);
        assert_eq!(self.stores.history.last_sort_key(id).await?, newest);
        for row in session.history.values() {
            let same_id = session.history.values().rev().filter(|other| other.message_id == row.message_id);
            let found = self.stores.history.get(id, &row.message_id).await?;
            assert_eq!(found, same_id.cloned().collect::<Vec<_>>());
        }
        Ok(())
    }
}

async fn keys(
    stores: &Stores,
    session: &mut Session,
    fence: &Fence,
    changes: Vec<(usize, u8, Option<u8>)>,
) -> (Result<(), StoreError>, Result<(), StoreError>) {
    let op = |(kind, key, value): &(usize, u8, Option<u8>)| {
        let (kind, key) = (KINDS[*kind], vec![*key].into());
        match value {
            Some(value) => KeyOp::Put { kind, key, value: vec![*value].into() },
            None => KeyOp::Delete { kind, key },
        }
    };
    let result = stores.keys.write(fence, changes.iter().map(op).collect()).await;
    let expected = session.write(fence, |session| {
        for (kind, key, value) in changes {
            let key = (KINDS[kind], vec![key]);
            match value {
                Some(value) => session.keys.insert(key, vec![value]),
                None => session.keys.remove(&key),
            };
        }
        Ok(())
    });
    (result, expected)
}
