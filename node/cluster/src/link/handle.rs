//! The handle by which a node has links.

use super::{
    CallError, Config, ConfigError, Counts, Event, PeerState, Security, View, accept, calls, dial, node_server,
    router::{GROUP, Handler, Router},
    shared::Shared,
    tls::{Tls, TlsError},
};
use ractor::{Actor, ActorRef, SpawnErr, concurrency::JoinHandle, pg};
use ractor_cluster::NodeServerMessage;
use rookery_protocol::{
    NodeId,
    cluster::{Reply, Request},
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::broadcast,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

/// Connections that the system holds until they are accepted.
const BACKLOG: u32 = 1024;

/// For how long nothing is written when replies have left.
const QUIET: Duration = Duration::from_millis(50);

/// How long replies may take to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// A pause before a router that died is started again.
const ROUTER_PAUSE: Duration = Duration::from_millis(100);

/// Why links could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificates cannot be used.
    #[error("certificates: {0}")]
    Tls(#[from] TlsError),
    /// The port cannot be listened on.
    #[error("links cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// An actor could not be started.
    #[error("links: {0}")]
    Start(#[from] SpawnErr),
}

/// A node's links. Cheap to clone; one set a process, since `ractor_cluster`'s groups and registry are process-wide.
#[derive(Clone)]
pub struct Links(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Open as long as the process wants links, whatever becomes of the task that accepts: a port that refuses says
    /// to the peers that this process is gone.
    _listener: Arc<TcpListener>,
    tasks: TaskTracker,
    failed: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
        self.shared.closed.cancel();
        self.shared.node_server.stop(None);
    }
}

impl Links {
    /// Starts listening, and dialling the members that `view` names. Calls of peers go to `handler`.
    pub async fn start(config: Config, view: View, handler: Arc<dyn Handler>) -> Result<Self, LinkError> {
        config.check()?;
        let (tls, reload_interval) = match &config.security {
            Security::InsecureLoopback => {
                warn!("links are without certificates: for tests and development only");
                (None, None)
            }
            Security::MutualTls { files, reload_interval } => {
                let tls = Tls::load(files.clone(), config.cluster.clone(), config.node.clone())?;
                (Some(tls), *reload_interval)
            }
        };
        let listener = listen(config.listen).map_err(|error| LinkError::Listen { address: config.listen, error })?;
        let address = listener.local_addr().map_err(|error| LinkError::Listen { address: config.listen, error })?;
        let listener = Arc::new(listener);
        let (node_server, server_task) = node_server::spawn(&config, tls.as_ref()).await?;
        let shared = Shared::new(config, view, tls, node_server.clone());
        subscribe(&node_server, &shared);
        let router = spawn_router(&shared, &handler).await?;

        let (tasks, failed) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(keep_router(shared.clone(), handler, router));
        tasks.spawn(watch_server(shared.clone(), server_task, failed.clone()));
        tasks.spawn(accept::run(shared.clone(), listener.clone()));
        tasks.spawn(dial::follow(shared.clone()));
        if let Some(period) = reload_interval {
            tasks.spawn(watch_files(shared.clone(), period));
        }
        info!(%address, "links listening");
        Ok(Self(Arc::new(Inner { shared, address, _listener: listener, tasks, failed })))
    }

    /// Where links are accepted.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Asks a node. The deadline goes along. A reply is not always a success: see [`Reply::certainly_not_done`].
    pub async fn call(
        &self,
        node: &NodeId,
        request_id: &str,
        request: Request,
        deadline: Instant,
    ) -> Result<Reply, CallError> {
        calls::call(&self.0.shared, node, request_id, request, deadline).await
    }

    /// The members of the view but this node, and how their links stand.
    pub fn peers(&self) -> Vec<PeerState> {
        self.0.shared.peers()
    }

    /// What happens to links from now on. A reader that is too slow misses some and is told so.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.shared.events.subscribe()
    }

    /// What has been counted.
    pub fn counts(&self) -> Counts {
        self.0.shared.counts()
    }

    /// Reads the certificates again. Links stay as they are, new handshakes use what was read; on an error they use
    /// what they used before.
    pub fn reload(&self) -> Result<(), TlsError> {
        let Some(tls) = &self.0.shared.tls else { return Ok(()) };
        tls.reload()?;
        info!("certificates of links read again");
        Ok(())
    }

    /// Resolves when links cannot work any more, which only a defect brings about: the node should stop.
    pub async fn failed(&self) {
        self.0.failed.cancelled().await;
    }

    /// Takes no more calls, lets those of peers end within `grace`, and ends the links. The port stays open until the
    /// last handle is dropped, so that nobody takes this process for gone before it is.
    pub async fn shutdown(&self, grace: Duration) {
        let shared = &self.0.shared;
        shared.stopping.cancel();
        shared.handlers.close();
        if timeout(grace, shared.handlers.wait()).await.is_err() {
            warn!(left = shared.handlers.len(), "calls of peers did not end in time");
        }
        let _ = timeout(FLUSH_TIMEOUT, quiet(shared)).await;
        shared.closed.cancel();
        self.0.tasks.close();
        let _ = shared.node_server.stop_and_wait(Some("shutdown".to_owned()), Some(FLUSH_TIMEOUT)).await;
        if timeout(FLUSH_TIMEOUT, self.0.tasks.wait()).await.is_err() {
            warn!("links did not end in time");
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn subscribe(node_server: &ActorRef<NodeServerMessage>, shared: &Arc<Shared>) {
    let subscription = Box::new(node_server::Subscription(shared.clone()));
    // When it has stopped already, whoever watches it says so.
    let _ = node_server.cast(NodeServerMessage::SubscribeToEvents { id: "links".to_owned(), subscription });
}

type RunningRouter = (ActorRef<super::router::RouterMessage>, JoinHandle<()>);

async fn spawn_router(shared: &Arc<Shared>, handler: &Arc<dyn Handler>) -> Result<RunningRouter, SpawnErr> {
    // Without a name: names of remotable actors are taken from the peers' registries when they die.
    let router = Router { shared: shared.clone(), handler: handler.clone() };
    let (router, task) = Actor::spawn(None, router, ()).await?;
    pg::join(GROUP.to_owned(), vec![router.get_cell()]);
    Ok((router, task))
}

/// Starts the router anew should it ever die.
async fn keep_router(shared: Arc<Shared>, handler: Arc<dyn Handler>, (mut router, mut task): RunningRouter) {
    loop {
        tokio::select! {
            () = shared.closed.cancelled() => {
                router.stop(None);
                return;
            }
            _ = &mut task => error!("router of peers' calls ended and is started anew"),
        }
        loop {
            sleep(ROUTER_PAUSE).await;
            match spawn_router(&shared, &handler).await {
                Ok(spawned) => break (router, task) = spawned,
                Err(error) => error!(%error, "router of peers' calls could not be started"),
            }
        }
    }
}

async fn watch_server(shared: Arc<Shared>, server: JoinHandle<()>, failed: CancellationToken) {
    let _ = server.await;
    if !shared.closed.is_cancelled() {
        error!("node server ended by itself");
        failed.cancel();
    }
}

async fn watch_files(shared: Arc<Shared>, period: Duration) {
    let mut ticks = interval(period.max(Duration::from_millis(100)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let shared = shared.clone();
        let looked = tokio::task::spawn_blocking(move || shared.tls.as_ref().map(Tls::reload_if_changed)).await;
        match looked {
            Ok(Some(Ok(true))) => info!("certificates of links read again"),
            Ok(Some(Err(error))) => error!(%error, "changed certificates cannot be used, the old ones stay"),
            _ => {}
        }
    }
}

/// Waits until nothing is written to any peer for a moment.
async fn quiet(shared: &Shared) {
    let writes = || shared.table().iter().map(|link| link.notes.writes()).sum::<u64>();
    let mut before = writes();
    loop {
        sleep(QUIET).await;
        let now = writes();
        if now == before {
            return;
        }
        before = now;
    }
}
