//! What the tasks of a node's links share, and what they tell the application.

use super::{
    Peer, Refusal,
    config::{Config, Limits, View},
    establish::LinkFailure,
    half_open::HalfOpen,
    log_limit::LogLimit,
    table::{Budget, Link, NotALink, Table},
    tls::Tls,
    transport::Cause,
};
use ractor::ActorRef;
use ractor_cluster::{NodeServerMessage, node::NodeServerSessionInformation};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant as StdInstant},
};
use tokio::{
    sync::{Semaphore, broadcast, oneshot, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// Events that a slow reader may be behind; it can read [`super::Links::peers`] then.
const EVENT_CAPACITY: usize = 1024;

/// How often one address is complained about for one reason.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);

/// What happens to links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Calls to this peer are carried.
    Up(Peer),
    /// They no longer are.
    Down {
        /// To whom.
        peer: Peer,
        /// Why.
        cause: Cause,
    },
    /// The peer's process is gone: its link was reset and its port then refused three connects in a row. Never told
    /// when [`Config::fast_death`] is off.
    Gone(Peer),
}

/// A member of the cluster as its link sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Who.
    pub peer: Peer,
    /// Where, as the membership says.
    pub address: String,
    /// The link.
    pub link: LinkState,
    /// Calls under way to it.
    pub calls: usize,
    /// Why the last attempt to link failed, when there is no link.
    pub last_failure: Option<String>,
}

/// How a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There is none.
    Down,
    /// A connection is there and not ready yet.
    Connecting,
    /// It carries calls.
    Up {
        /// Since when.
        since: Instant,
        /// The version of the envelope that is spoken.
        version: u16,
    },
}

/// What has been counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Links that came up.
    pub links_up: u64,
    /// Links that went down.
    pub links_down: u64,
    /// Connections that were refused or failed before they were links.
    pub handshakes_failed: u64,
    /// Handshakes that had to make room for newer ones.
    pub handshakes_evicted: u64,
    /// Handshakes under way now.
    pub handshakes_open: u64,
    /// Calls that were answered.
    pub calls_answered: u64,
    /// Calls that were certainly not sent.
    pub calls_not_sent: u64,
    /// Calls of unknown outcome.
    pub calls_unknown: u64,
    /// Calls of peers that were handled.
    pub calls_handled: u64,
    /// Calls of peers that were refused since too many were under way.
    pub calls_refused: u64,
}

/// The counters behind [`Counts`].
#[derive(Default)]
pub(super) struct Counters {
    pub(super) links_up: AtomicU64,
    pub(super) links_down: AtomicU64,
    pub(super) handshakes_failed: AtomicU64,
    pub(super) handshakes_evicted: AtomicU64,
    pub(super) calls_answered: AtomicU64,
    pub(super) calls_not_sent: AtomicU64,
    pub(super) calls_unknown: AtomicU64,
    pub(super) calls_handled: AtomicU64,
    pub(super) calls_refused: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Everything that the tasks share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) view: View,
    pub(super) tls: Option<Tls>,
    pub(super) node_server: ActorRef<NodeServerMessage>,
    table: Mutex<Table>,
    /// Moves with every change of the table.
    changed: watch::Sender<u64>,
    pub(super) events: broadcast::Sender<Event>,
    half_open: Mutex<HalfOpen<oneshot::Sender<()>>>,
    failures: Mutex<HashMap<Peer, String>>,
    complaints: Mutex<LogLimit<(IpAddr, String)>>,
    pub(super) probing: Mutex<HashSet<Peer>>,
    pub(super) inbound: Arc<Semaphore>,
    pub(super) counters: Counters,
    /// No new calls either way.
    pub(super) stopping: CancellationToken,
    /// No links any more.
    pub(super) closed: CancellationToken,
    /// Handlers of peers' calls.
    pub(super) handlers: TaskTracker,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks leaves half a change behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(
        config: Config,
        view: View,
        tls: Option<Tls>,
        node_server: ActorRef<NodeServerMessage>,
    ) -> Arc<Self> {
        let limits = &config.limits;
        Arc::new(Self {
            half_open: Mutex::new(HalfOpen::new(limits.half_open, limits.half_open_per_address)),
            inbound: Arc::new(Semaphore::new(limits.inbound_calls)),
            config,
            view,
            tls,
            node_server,
            table: Mutex::default(),
            changed: watch::Sender::new(0),
            events: broadcast::Sender::new(EVENT_CAPACITY),
            failures: Mutex::default(),
            complaints: Mutex::new(LogLimit::new(COMPLAINT_INTERVAL, 1024)),
            probing: Mutex::default(),
            counters: Counters::default(),
            stopping: CancellationToken::new(),
            closed: CancellationToken::new(),
            handlers: TaskTracker::new(),
        })
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// Wakes whoever waits for a change of the table.
    pub(super) fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn budget(&self) -> Budget {
        let Limits { calls_per_peer, call_bytes_per_peer, .. } = self.config.limits;
        Budget {
            calls: Arc::new(Semaphore::new(calls_per_peer)),
            bytes: Arc::new(Semaphore::new(call_bytes_per_peer)),
            inbound: Arc::new(Semaphore::new(calls_per_peer)),
        }
    }

    /// A node session has been opened.
    pub(super) fn session_opened(&self, session: &NodeServerSessionInformation) {
        if !self.table().opened(session) {
            session.actor.stop(Some("not a link".to_owned()));
            warn!(from = session.peer_addr, reason = %NotALink::Unknown, "link refused");
        }
    }

    /// A node session is ready for calls.
    pub(super) fn session_ready(&self, session: &NodeServerSessionInformation) {
        let ready = self.table().ready(session);
        match ready {
            Ok((peer, remote)) => {
                count(&self.counters.links_up);
                lock(&self.failures).remove(&peer);
                info!(node = %peer.node, incarnation = peer.incarnation.0, %remote, "link up");
                let _ = self.events.send(Event::Up(peer));
            }
            Err(reason) => {
                session.actor.stop(Some("not a link".to_owned()));
                if reason != NotALink::Ended {
                    warn!(link = session.peer_addr, %reason, "link refused");
                }
            }
        }
        self.touch();
    }

    /// A node session has ended. Answers the link that was up on it, and why it went down.
    pub(super) fn session_closed(&self, session: &NodeServerSessionInformation) -> Option<(Link, Cause)> {
        let link = self.table().closed(session);
        self.touch();
        let link = link.filter(|link| link.up_since().is_some())?;
        let cause = if link.is_ended() { Cause::Ended } else { link.notes.end().unwrap_or(Cause::Broken) };
        count(&self.counters.links_down);
        info!(node = %link.peer.node, incarnation = link.peer.incarnation.0, %cause, "link down");
        let _ = self.events.send(Event::Down { peer: link.peer.clone(), cause });
        Some((link, cause))
    }

    /// Takes a handshake in; answers its number and what resolves when it has to make room.
    pub(super) fn half_open(&self, from: SocketAddr) -> (u64, oneshot::Receiver<()>) {
        let (end, ended) = oneshot::channel();
        let (number, evicted) = lock(&self.half_open).admit(from.ip(), end);
        if evicted.is_some() {
            count(&self.counters.handshakes_evicted);
            self.complain(from.ip(), "too many handshakes at once");
        }
        (number, ended)
    }

    pub(super) fn release_half_open(&self, number: u64) {
        lock(&self.half_open).release(number);
    }

    /// Logs what is wrong with whoever connects from there, unless that was logged a moment ago.
    pub(super) fn complain(&self, from: IpAddr, reason: &str) {
        let allowed = lock(&self.complaints).allow((from, reason.to_owned()), StdInstant::now());
        if let Some(held_back) = allowed {
            warn!(%from, reason, held_back, "link refused");
        }
    }

    /// Keeps why there is no link to this member; answers whether that is news.
    pub(super) fn note_failure(&self, peer: &Peer, failure: &LinkFailure) -> bool {
        let text = failure.to_string();
        let before = lock(&self.failures).insert(peer.clone(), text.clone());
        before.is_none_or(|before| before != text)
    }

    /// Notes that a member was refused, which its own log says as well.
    pub(super) fn note_refused(&self, peer: &Peer, refusal: Refusal) {
        lock(&self.failures).insert(peer.clone(), LinkFailure::Refused(refusal).to_string());
    }

    /// Forgets failures of whoever is no member.
    pub(super) fn retain_failures(&self, members: &HashSet<Peer>) {
        lock(&self.failures).retain(|peer, _| members.contains(peer));
    }

    /// The members and their links.
    pub(super) fn peers(&self) -> Vec<PeerState> {
        let members = self.view.borrow().clone();
        let (table, failures) = (self.table(), lock(&self.failures));
        let limit = self.config.limits.calls_per_peer;
        let state = |member: &super::PeerAddress| {
            let peer = member.peer();
            let link = table.of_node(&peer.node).filter(|link| link.peer == peer);
            PeerState {
                address: member.address.clone(),
                link: match link {
                    None => LinkState::Down,
                    Some(link) => link
                        .up_since()
                        .map_or(LinkState::Connecting, |since| LinkState::Up { since, version: link.version }),
                },
                calls: link.map_or(0, |link| limit.saturating_sub(link.budget.calls.available_permits())),
                last_failure: failures.get(&peer).cloned(),
                peer,
            }
        };
        members.iter().filter(|member| member.node != self.config.node).map(state).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Counts {
            links_up: read(&counters.links_up),
            links_down: read(&counters.links_down),
            handshakes_failed: read(&counters.handshakes_failed),
            handshakes_evicted: read(&counters.handshakes_evicted),
            handshakes_open: lock(&self.half_open).len() as u64,
            calls_answered: read(&counters.calls_answered),
            calls_not_sent: read(&counters.calls_not_sent),
            calls_unknown: read(&counters.calls_unknown),
            calls_handled: read(&counters.calls_handled),
            calls_refused: read(&counters.calls_refused),
        }
    }
}
