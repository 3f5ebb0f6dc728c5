//! Brings sessions to where they belong: takes over those that nobody runs, and hands over those whose place is
//! another node, at a bounded pace.
//!
//! Every pass begins with what is true now, so it does not matter how far the one before has come, or what has changed
//! since: passes are cut short by a change of the view and begin again.

use super::{heart::Heart, links::Links};
use crate::{
    config::ClusterConfig,
    session::{SessionError, Sessions},
};
use futures_util::{StreamExt, stream};
use rookery_cluster::claim::Decision;
use rookery_protocol::{
    NodeId, SessionId,
    cluster::{ActivateReason, Call, Request},
};
use rookery_storage::{StoreError, Stores};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How many sessions are taken over side by side.
const TAKEOVERS: usize = 64;
/// Owner rows read at a time.
const PAGE: usize = 2000;
/// Between two passes when nothing has changed: for what a pass has missed.
const PERIOD: Duration = Duration::from_secs(10);
/// How long a node may take to say what runs on it.
const STATS: Duration = Duration::from_secs(1);
/// How long the next owner may take to start a session.
const START: Duration = Duration::from_secs(5);

/// The sessions on their way from and to this node.
pub(crate) struct Moves {
    sessions: Arc<Sessions>,
    stores: Stores,
    heart: Arc<Heart>,
    links: Links,
    under_way: usize,
    per_second: f64,
    /// How many sessions this node takes at most.
    capacity: Option<u32>,
    /// Which sessions are on their way to which node.
    leaving: Mutex<BTreeMap<SessionId, NodeId>>,
}

impl Moves {
    pub(super) fn new(
        sessions: Arc<Sessions>,
        stores: Stores,
        heart: Arc<Heart>,
        links: Links,
        settings: &ClusterConfig,
    ) -> Self {
        let (under_way, per_second, capacity) =
            (settings.moves_under_way, settings.moves_per_second, settings.capacity());
        Self { sessions, stores, heart, links, under_way, per_second, capacity, leaving: Mutex::default() }
    }

    /// Which sessions are on their way to which node.
    pub(crate) fn leaving(&self) -> BTreeMap<SessionId, NodeId> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes pass after pass, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut standing = self.heart.standing();
        loop {
            standing.mark_unchanged();
            let pass = async {
                self.heart.note_full(self.full().await);
                if let Err(error) = self.adopt().await {
                    tracing::warn!(%error, "sessions without an owner could not be sought");
                }
                self.hand_out().await;
            };
            tokio::select! {
                () = pass => {}
                _ = standing.changed() => continue,
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                _ = standing.changed() => {}
            }
        }
    }

    /// The nodes that have as many sessions as they take. One that does not answer is asked by the next pass.
    async fn full(&self) -> HashSet<NodeId> {
        let standing = self.heart.now();
        let mut full = standing.full().clone();
        let capacity = self.capacity.map_or(u64::MAX, u64::from);
        let own = self.sessions.count() as u64 >= capacity;
        if own {
            full.insert(standing.me().clone())
        } else {
            full.remove(standing.me())
        };
        for node in standing.living().map(|row| &row.node).filter(|node| *node != standing.me()) {
            if let Some(stats) = self.links.stats(node, STATS).await {
                let count: u64 = stats.sessions.iter().map(|(_, count)| u64::from(*count)).sum();
                let is_full = stats.capacity.is_some_and(|most| count >= most.into());
                if is_full {
                    full.insert(node.clone())
                } else {
                    full.remove(node)
                };
            }
        }
        full
    }

    /// Takes over the sessions that belong here and that nobody runs.
    async fn adopt(&self) -> Result<(), StoreError> {
        let running: HashSet<SessionId> = self.sessions.ids().into_iter().collect();
        let mut after = None;
        loop {
            let page = self.stores.owners.scan(after, PAGE).await?;
            let mut ours = vec![];
            for (session, owner) in page.rows.into_iter().filter(|(session, _)| !running.contains(session)) {
                if self.heart.decide(session, &owner).await? == Decision::Claim {
                    ours.push(session);
                }
            }
            // Each in a task of its own: a pass that is cut short must not leave a half-started session behind.
            stream::iter(ours)
                .for_each_concurrent(TAKEOVERS, |session| async move {
                    let sessions = Arc::clone(&self.sessions);
                    let taken = tokio::spawn(async move { sessions.take_over(session).await });
                    match taken.await {
                        Ok(Ok(_)) => metrics::counter!(crate::metrics::TAKEOVERS).increment(1),
                        Ok(Err(SessionError::Elsewhere(_) | SessionError::NotFound)) | Err(_) => {}
                        Ok(Err(error)) => {
                            tracing::warn!(session_id = %session, %error, "session could not be taken over");
                        }
                    }
                })
                .await;
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Hands over the sessions whose place is another node.
    async fn hand_out(self: &Arc<Self>) {
        let standing = self.heart.now();
        let active = standing.active().max(1);
        // The pace is the cluster's; whoever leaves is not held up by it.
        let pause = if standing.is_draining() {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(active as f64 / self.per_second)
        };
        let mut next = Instant::now();
        let leaving = self.sessions.ids().into_iter().filter_map(|session| Some((session, self.target(session)?)));
        let leaving: Vec<_> = leaving.collect();
        stream::iter(leaving)
            .then(|(session, target)| {
                let turn = next;
                next = turn.max(Instant::now()) + pause;
                async move {
                    tokio::time::sleep_until(turn).await;
                    (session, target)
                }
            })
            // Each in a task of its own: a move that was begun comes to its end, also when the pass is cut short.
            .for_each_concurrent(self.under_way, |(session, target)| {
                let this = Arc::clone(self);
                let moving = tokio::spawn(async move { this.hand_over(session, target).await });
                async move { drop(moving.await) }
            })
            .await;
    }

    /// The other node that a session of ours belongs to, if that is one that lives.
    fn target(&self, session: SessionId) -> Option<NodeId> {
        let standing = self.heart.now();
        standing.place(session).filter(|node| *node != standing.me()).cloned()
    }

    async fn hand_over(&self, session: SessionId, target: NodeId) {
        self.note(session, Some(&target));
        if let Err(error) = self.sessions.hand_over(session).await {
            tracing::warn!(session_id = %session, %error, "a session that was closed could not be released");
        }
        let request = Request::Activate { session, reason: ActivateReason::Move };
        let call = Call { request_id: String::new(), deadline_ms: START.as_millis() as u32, request };
        // If this fails the next pass of the other node finds it, or the next request for it.
        let answer = self.links.call(&target, call).await;
        tracing::debug!(session_id = %session, %target, ?answer, "session handed over");
        metrics::counter!(crate::metrics::MOVES).increment(1);
        self.note(session, None);
    }

    fn note(&self, session: SessionId, target: Option<&NodeId>) {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        match target {
            Some(node) => leaving.insert(session, node.clone()),
            None => leaving.remove(&session),
        };
    }
}
