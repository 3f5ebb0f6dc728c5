//! Keeps this node's row alive and watches the others': from rows of nodes to a stream of standings.
//!
//! Everything is decided by [`rookery_cluster`]'s `lease`, `membership` and `claim`, which know no database; here their
//! decisions are carried out, and what came of them is told. No lock is held while the database is asked.

use super::{
    join::Joined,
    standing::{Run, Standing, member},
};
use rookery_cluster::{
    claim::{Decision, Me, OwnerRow, Wait, decide},
    clock::Moment,
    lease::{Keeper, Lease, OwnRow, RenewalOutcome, Standing as Right},
    membership::{Death, DeathOutcome, Fate, Member, Membership},
    timings::Timings,
};
use rookery_protocol::{NodeId, SessionId};
use rookery_storage::{NodeRow, NodeStatus, Owner, Renewal, StoreError, Stores};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How often this node's own status is tried to be changed while renewals are faster.
const TRIES: usize = 20;

/// The heart of a node: its row and its view of the others'.
pub(super) struct Heart {
    stores: Stores,
    me: Run,
    timings: Timings,
    lease: Lease,
    state: Mutex<State>,
    /// One read of all rows at a time.
    reading: tokio::sync::Mutex<()>,
    standing: watch::Sender<Arc<Standing>>,
    look: Notify,
    /// Cancelled when this run has been declared dead.
    pub(super) ended: CancellationToken,
}

struct State {
    keeper: Keeper,
    membership: Membership,
    versions: BTreeMap<NodeId, String>,
    full: HashSet<NodeId>,
}

impl Heart {
    /// The heart of a node that has joined.
    pub(super) fn new(stores: Stores, joined: Joined, timings: Timings, lease: Lease) -> Arc<Self> {
        let me = (joined.row.node.clone(), joined.row.incarnation);
        let keeper = Keeper::joined(me.1, joined.row.seq, joined.sent, timings, lease.clone());
        let versions = BTreeMap::from([(me.0.clone(), joined.row.version.clone())]);
        let membership = Membership::new(member(joined.row), joined.ended, timings, lease.now());
        let full = HashSet::new();
        let standing = Standing::new(me.clone(), membership.view(), versions.clone(), full.clone());
        Arc::new(Self {
            stores,
            me,
            timings,
            lease,
            state: Mutex::new(State { keeper, membership, versions, full }),
            reading: tokio::sync::Mutex::default(),
            standing: watch::Sender::new(Arc::new(standing)),
            look: Notify::new(),
            ended: CancellationToken::new(),
        })
    }

    /// The standing, and its changes.
    pub(super) fn standing(&self) -> watch::Receiver<Arc<Standing>> {
        self.standing.subscribe()
    }

    /// The standing now.
    pub(super) fn now(&self) -> Arc<Standing> {
        self.standing.borrow().clone()
    }

    /// Whether this node may act now.
    pub(super) fn may_act(&self) -> bool {
        self.lease.is_open()
    }

    /// Renews the lease again and again, until this run is dead.
    pub(super) async fn renew(self: Arc<Self>) {
        let mut right = Right::Open;
        while right != Right::Dead {
            let due = self.state().keeper.due();
            tokio::time::sleep(due.unwrap_or_default().since(self.lease.now())).await;
            let Some(renewal) = self.state().keeper.renew(self.lease.now()) else { break };
            let renewing = self.stores.nodes.renew(&self.me.0, renewal.incarnation, renewal.expected);
            let outcome = match timeout(self.timings.renew_timeout, renewing).await {
                Ok(Ok(Renewal::Renewed)) => RenewalOutcome::Applied,
                Ok(Ok(Renewal::Refused(row))) => RenewalOutcome::Refused(row.map(|row| own_row(&member(row)))),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the lease could not be renewed");
                    RenewalOutcome::Unknown
                }
                Err(_) => RenewalOutcome::Unknown,
            };
            let now = self.lease.now();
            Self::judged(&mut right, self.state().keeper.renewed(renewal, outcome, now));
        }
        self.ended.cancel();
    }

    fn judged(before: &mut Right, now: Right) {
        metrics::gauge!(crate::metrics::LEASE).set(if now == Right::Open { 1.0 } else { 0.0 });
        match (*before, now) {
            (Right::Open, Right::Frozen) => {
                metrics::counter!(crate::metrics::FREEZES).increment(1);
                tracing::error!("the lease has run out: the node does not act until it is renewed");
            }
            (Right::Frozen, Right::Open) => tracing::warn!("the lease is renewed: the node acts again"),
            (_, Right::Dead) => tracing::error!("this run of the node was declared dead by the others: it ends"),
            _ => {}
        }
        *before = now;
    }

    /// Looks at the rows of all nodes again and again, and declares deaths that are due.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            if let Err(error) = self.look_around().await {
                tracing::warn!(%error, "the rows of the nodes could not be read");
            }
            self.declare().await;
            let now = self.lease.now();
            let due = self.state().membership.next_due().map(|due| due.since(now));
            let pause = due.unwrap_or(self.timings.poll).clamp(Duration::from_millis(20), self.timings.poll);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.look.notified() => {}
            }
        }
    }

    /// Reads the rows of all nodes.
    pub(super) async fn look_around(&self) -> Result<(), StoreError> {
        let _turn = self.reading.lock().await;
        let from = self.lease.now();
        let rows = self.stores.nodes.list().await?;
        let own = rows.iter().find(|row| row.node == self.me.0).cloned().map(|row| own_row(&member(row)));
        let versions = rows.iter().map(|row| (row.node.clone(), row.version.clone())).collect();
        let (now, open) = (self.lease.now(), self.lease.is_open());
        let changes = {
            let mut state = self.state();
            state.versions = versions;
            if own.is_some_and(|own| state.keeper.seen(own, now) == Right::Dead) {
                self.ended.cancel();
            }
            state.membership.rows(rows.into_iter().map(member).collect(), from, now, open)
        };
        for change in &changes {
            tracing::info!(?change, "the cluster has changed");
        }
        if !changes.is_empty() {
            self.publish();
        }
        Ok(())
    }

    async fn declare(&self) {
        let due = self.state().membership.due(self.lease.now());
        for death in due {
            let outcome = self.carry_out(&death).await;
            if outcome == DeathOutcome::Applied {
                tracing::warn!(node = %death.node, run = death.incarnation.0, "a node is declared dead");
                metrics::counter!(crate::metrics::DEATHS).increment(1);
            }
            let now = self.lease.now();
            if !self.state().membership.declared(&death, outcome, now).is_empty() {
                self.publish();
            }
        }
    }

    async fn carry_out(&self, death: &Death) -> DeathOutcome {
        let marked = self.stores.nodes.mark(&death.node, death.incarnation, death.seq, NodeStatus::Dead).await;
        match marked {
            Ok(true) => DeathOutcome::Applied,
            Ok(false) => match self.stores.nodes.read(&death.node).await {
                Ok(row) => DeathOutcome::Refused(row.map(member)),
                Err(_) => DeathOutcome::Unknown,
            },
            Err(error) => {
                tracing::warn!(node = %death.node, %error, "whether a node is declared dead is not known");
                DeathOutcome::Unknown
            }
        }
    }

    /// The host of a node says that this run of it is gone: its link was reset and its port refuses connections.
    pub(super) fn is_gone(&self, (node, incarnation): &Run) {
        let now = self.lease.now();
        {
            let mut state = self.state();
            state.membership.link_reset(node, *incarnation);
            for _ in 0..self.timings.refusals {
                state.membership.connect_refused(node, *incarnation, now);
            }
        }
        self.look.notify_one();
    }

    /// Takes in which nodes have as many sessions as they take.
    pub(super) fn note_full(&self, full: HashSet<NodeId>) {
        let changed = {
            let mut state = self.state();
            let changed = state.full != full;
            state.full = full;
            changed
        };
        if changed {
            self.publish();
        }
    }

    fn publish(&self) {
        let state = self.state();
        let standing =
            Standing::new(self.me.clone(), state.membership.view(), state.versions.clone(), state.full.clone());
        metrics::gauge!(crate::metrics::NODES).set(standing.living().count() as f64);
        self.standing.send_replace(Arc::new(standing));
    }

    /// What to do with a session that does not run here and whose owner's row was just read. What has become of its
    /// owner is found out when it has to be.
    pub(super) async fn decide(&self, session: SessionId, owner: &Owner) -> Result<Decision, StoreError> {
        let named_at = self.lease.now();
        let first = self.decide_now(session, owner, named_at);
        if first != Decision::Wait(Wait::Unjudged) {
            return Ok(first);
        }
        self.look_around().await?;
        Ok(self.decide_now(session, owner, named_at))
    }

    fn decide_now(&self, session: SessionId, owner: &Owner, named_at: Moment) -> Decision {
        let standing = self.now();
        let fate = match &owner.node {
            Some((node, incarnation)) => self.state().membership.fate(node, *incarnation, named_at),
            None => Fate::Dead,
        };
        let me = Me {
            node: self.me.0.clone(),
            incarnation: self.me.1,
            open: self.may_act(),
            draining: standing.is_draining(),
        };
        let row = OwnerRow { epoch: owner.epoch, holder: owner.node.clone() };
        decide(&me, &row, None, fate, standing.place(session))
    }

    /// The same for a session whose owner's row is to be read; none when there is no such session.
    pub(super) async fn find(&self, session: SessionId) -> Result<Option<Decision>, StoreError> {
        match self.stores.owners.read(session).await? {
            Some(owner) => self.decide(session, &owner).await.map(Some),
            None => Ok(None),
        }
    }

    /// Gives this node's row another status: it drains, or it is dead.
    pub(super) async fn mark(&self, status: NodeStatus) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let row: Option<NodeRow> = self.stores.nodes.read(&self.me.0).await?;
            let Some(row) = row.filter(|row| row.incarnation == self.me.1) else { return Ok(false) };
            if self.stores.nodes.mark(&self.me.0, self.me.1, row.seq, status).await? {
                if status == NodeStatus::Dead {
                    self.state().keeper.die();
                }
                self.look_around().await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn own_row(row: &Member) -> OwnRow {
    OwnRow { incarnation: row.incarnation, seq: row.seq, status: row.status }
}
