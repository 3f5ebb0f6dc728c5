//! The node, put together: built in order, drained in reverse. The only place that sees everything.

use crate::{
    api::{Access, Api, Inbound, MetricsAccess, ProbeCache, Server},
    cluster::{Cluster, new_lease},
    config::Config,
    fetch::{self, Fetcher},
    media::{Cache, Keep, KeepLimits, Location, Media, Place, Received, S3Settings},
    metrics,
    session::{
        Admission, Alone, Arrivals, ClientSettings, Connector, Environment, Placement, Policy, SendLimits, Sessions,
    },
    spool::{FileId, Spool},
    storage,
};
use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use rookery_cluster::lease::Lease;
use rookery_protocol::Incarnation;
use rookery_storage::{Gate, StoreError, Stores};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Why a node cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Its store refuses all writes until the next start.
    Store,
    /// The other nodes have declared it dead, and its sessions are theirs: it must not act again.
    DeclaredDead,
}

/// A running node.
pub(crate) struct App {
    api: Arc<Api>,
    sessions: Arc<Sessions>,
    stores: Stores,
    address: SocketAddr,
    shutdown_timeout: Duration,
    drain_delay: Duration,
    failed: CancellationToken,
    stop_serving: CancellationToken,
    servers: JoinSet<()>,
    background: JoinSet<()>,
    new_admin_key: Option<String>,
    cluster: Option<Cluster>,
}

impl App {
    /// Starts a node: the ports first, since they fail most often, then the store, then sessions and API.
    pub(crate) async fn start(config: Config, recorder: PrometheusHandle) -> anyhow::Result<Self> {
        let server = Server::bind("api.listen", config.api.listen).await?;
        let metrics_server = match config.metrics_listen()? {
            Some(address) if config.metrics.enabled => Some(Server::bind("metrics.listen", address).await?),
            _ => None,
        };
        let address = server.address();
        let tls = tls(&config)?;
        let incarnation = Incarnation::generate();
        let lease = config.cluster.listen().map(|_| new_lease());
        let stores = storage::open(&config, lease.as_ref()).await?;
        let cluster = match &lease {
            Some(lease) => Some(Cluster::join(&config, address, incarnation, &stores, lease.clone()).await?),
            None => None,
        };
        let (spool, cache, left) = open_folders(&config).await.context("node.data_dir")?;
        let keep = open_keep(&config, &tls).await.context("media_store")?;
        let received = Arc::new(Received::new(cache, keep.clone(), config.media.max_bytes));
        let on_arrival = keep.is_some() && config.media_store.on_arrival;
        let (arrivals, arrived) = on_arrival.then(|| Arrivals::new(config.media_store.on_arrival_max_bytes)).unzip();
        let open = config.api.open_token_management;
        let loaded = Access::load(&*stores.tokens, config.api.admin_key.get(), open).await;
        let (access, new_admin_key) = loaded.context("admin key")?;
        let placement: Arc<dyn Placement> = match &cluster {
            Some(cluster) => cluster.placement(),
            None => Arc::new(Alone),
        };
        let role = Role { incarnation, lease, placement };
        let environment = environment(&config, &stores, role, spool.clone(), arrivals)?;
        let sessions = Sessions::start(environment).await.context("supervisor")?;
        let metrics_here = config.metrics.enabled && metrics_server.is_none();
        let api = Arc::new(Api {
            sessions: Arc::clone(&sessions),
            stores: stores.clone(),
            access,
            node: config.node.id.clone(),
            recorder: recorder.clone(),
            metrics: config.metrics.enabled.then(|| MetricsAccess::new(config.metrics.token.get())),
            metrics_here,
            media: Media::new(
                spool,
                Fetcher::new(tls, config.allowed_hosts()?),
                config.media.concurrent,
                Duration::from_millis(config.media.transfer_timeout_ms),
            )?,
            received: Arc::clone(&received),
            request_timeout: Duration::from_millis(config.api.request_timeout_ms),
            ready: AtomicBool::new(true),
            send_wait: Duration::from_millis(config.sends.wait_ms),
            max_body_bytes: config.api.max_body_bytes,
            read_timeout: Duration::from_millis(config.api.read_timeout_ms),
            probe: ProbeCache::default(),
            relay: cluster.as_ref().map(Cluster::relay),
            cluster: cluster.clone(),
        });
        let stop_serving = CancellationToken::new();
        let mut servers = JoinSet::new();
        {
            let (api, limits, stop) = (Arc::clone(&api), config.api.clone(), stop_serving.clone());
            servers.spawn(async move { server.serve(api, &limits, stop).await });
        }
        if let Some(server) = metrics_server {
            servers.spawn(server.serve_metrics(Arc::clone(&api), stop_serving.clone()));
        }
        let mut background = JoinSet::new();
        background.spawn(metrics::upkeep(recorder));
        background.spawn(sweep(stores.clone()));
        match &cluster {
            Some(cluster) => cluster.start(&sessions, Inbound::new(&api), &mut background),
            None => drop(background.spawn(take_over(Arc::clone(&sessions)))),
        }
        background.spawn(sweep_spool(Arc::clone(&sessions), left));
        if let Some(keep) = keep {
            background.spawn(sweep_keep(keep, Duration::from_secs(config.media_store.sweep_secs)));
        }
        if let Some(arrived) = arrived {
            background.spawn(received.take_arrivals(Arc::clone(&sessions), arrived));
        }
        let failed = CancellationToken::new();
        background.spawn(watch_store(stores.clone(), failed.clone()));
        let shutdown_timeout = config.shutdown_timeout();
        let drain_delay = Duration::from_millis(config.node.drain_delay_ms);
        tracing::info!(%address, node = %config.node.id, version = env!("CARGO_PKG_VERSION"), "node started");
        Ok(Self {
            api,
            sessions,
            stores,
            address,
            shutdown_timeout,
            drain_delay,
            failed,
            stop_serving,
            servers,
            background,
            new_admin_key,
            cluster,
        })
    }

    /// Where the API listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The admin key, if it was made at this start. It cannot be read again.
    pub(crate) fn take_new_admin_key(&mut self) -> Option<String> {
        self.new_admin_key.take()
    }

    /// Waits until the node cannot go on; why is answered.
    pub(crate) async fn failed(&self) -> Failed {
        let ended = async {
            match &self.cluster {
                Some(cluster) => cluster.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.failed.cancelled() => Failed::Store,
            () = ended => Failed::DeclaredDead,
        }
    }

    /// Stops the node: no longer ready, requests under way finish, sockets close, the store flushes.
    pub(crate) async fn shut_down(self) -> anyhow::Result<()> {
        tracing::info!("node is stopping");
        let deadline = self.shutdown_timeout;
        tokio::time::timeout(deadline, self.drain()).await.context("the node did not stop in time")?
    }

    async fn drain(mut self) -> anyhow::Result<()> {
        self.api.ready.store(false, Ordering::Release);
        // A load balancer needs a moment to see it before connections are refused.
        tokio::time::sleep(self.drain_delay).await;
        if let Some(cluster) = &self.cluster {
            cluster.leave(&self.sessions, self.shutdown_timeout).await;
        }
        self.stop_serving.cancel();
        while self.servers.join_next().await.is_some() {}
        self.sessions.shut_down().await;
        if let Some(cluster) = &self.cluster {
            cluster.end().await;
        }
        self.background.shutdown().await;
        self.stores.engine.close().await.context("the store did not close")?;
        tracing::info!("node stopped");
        Ok(())
    }
}

/// Opens the folders for files; answers what an earlier process has left in the spool.
async fn open_folders(config: &Config) -> anyhow::Result<(Spool, Cache, Vec<FileId>)> {
    let (dir, media) = (config.node.data_dir.join("media"), config.media.clone());
    let opening = tokio::task::spawn_blocking(move || {
        let (spool, left) = Spool::open(&dir.join("spool"), media.spool_max_bytes, media.max_bytes)?;
        Ok((spool, Cache::open(&dir.join("cache"), media.cache_max_bytes)?, left))
    });
    opening.await?
}

/// TLS for what is fetched.
fn tls(config: &Config) -> anyhow::Result<TlsConnector> {
    let file = Some(config.media.extra_roots.as_path()).filter(|file| !file.as_os_str().is_empty());
    fetch::tls(file).with_context(|| format!("media.extra_roots = {}", config.media.extra_roots.display()))
}

/// Opens the store of files, if there is to be one.
async fn open_keep(config: &Config, tls: &TlsConnector) -> anyhow::Result<Option<Keep>> {
    let store = &config.media_store;
    if !store.enabled {
        return Ok(None);
    }
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    let key_files = (store.s3_access_key_id_file.clone(), store.s3_secret_access_key_file.clone());
    let place = match Location::parse(&store.url).map_err(anyhow::Error::msg)? {
        Location::Own => Place::Folder(config.node.data_dir.join("media/kept")),
        Location::Folder(folder) => Place::Folder(folder),
        Location::Bucket(bucket, prefix) => Place::S3(Box::new(S3Settings {
            bucket,
            prefix,
            endpoint: given(&store.s3_endpoint),
            region: store.s3_region.clone(),
            key_files: Some(key_files).filter(|(id, _)| !id.as_os_str().is_empty()),
            tls: tls.clone(),
        })),
    };
    let limits = KeepLimits { retention: Duration::from_secs(store.retention_secs), max_bytes: store.max_bytes };
    tokio::task::spawn_blocking(move || Keep::open(place, limits)).await?.map(Some)
}

/// What follows from the node's place among others.
struct Role {
    incarnation: Incarnation,
    lease: Option<Lease>,
    placement: Arc<dyn Placement>,
}

fn environment(
    config: &Config,
    stores: &Stores,
    role: Role,
    spool: Spool,
    arrivals: Option<Arrivals>,
) -> anyhow::Result<Environment> {
    let sessions = &config.sessions;
    let under_way = sessions.logins_under_way;
    let logins = Admission::new(sessions.logins_per_second, sessions.login_burst, under_way);
    let pairings = Admission::new(sessions.pairings_per_second, sessions.login_burst, under_way);
    let settings = ClientSettings {
        node: config.node.id.clone(),
        url: config.whatsapp.url.clone(),
        version: config.whatsapp_version()?,
        device_name: config.whatsapp.device_name.clone(),
        prekeys: config.whatsapp.prekeys,
        max_file_bytes: config.media.max_bytes,
        phone_timeout: Duration::from_millis(config.media.phone_timeout_ms),
    };
    let gate: Arc<dyn Gate> = match role.lease {
        Some(lease) => Arc::new(move || lease.is_open()),
        None => Arc::new(|| true),
    };
    Ok(Environment {
        node: config.node.id.clone(),
        incarnation: role.incarnation,
        stores: stores.clone(),
        placement: role.placement,
        connector: Arc::new(Connector::new(settings, logins.clone(), gate)),
        logins,
        pairings,
        policy: Policy {
            pairing_rounds: sessions.pairing_rounds,
            replaced_retry: Duration::from_millis(sessions.replaced_retry_ms),
            replaced_window: Duration::from_millis(sessions.replaced_window_ms),
            restart_min: Duration::from_millis(sessions.restart_min_ms),
            restart_max: Duration::from_millis(sessions.restart_max_ms),
        },
        spool,
        send_limits: SendLimits {
            queue: config.sends.queue_limit,
            per_second: config.sends.per_second,
            burst: config.sends.burst,
        },
        per_user_limit: sessions.per_user_limit,
        arrivals,
    })
}

/// Takes over what the store holds, and says so.
async fn take_over(sessions: Arc<Sessions>) {
    match sessions.take_over_all().await {
        Ok(count) => tracing::info!(count, "sessions taken over"),
        Err(error) => tracing::error!(%error, "sessions could not be read; each starts when it is asked for"),
    }
}

/// Removes the spooled files of an earlier process that no message refers to.
async fn sweep_spool(sessions: Arc<Sessions>, left: Vec<FileId>) {
    match sessions.sweep_spool(left).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "spooled files without a message removed"),
        Err(error) => tracing::warn!(%error, "spooled files could not be swept; the next start does it"),
    }
}

/// Removes kept files whose time is over, now and then.
async fn sweep_keep(keep: Keep, interval: Duration) {
    loop {
        match keep.sweep().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "kept files removed whose time is over"),
            Err(error) => tracing::warn!(%error, "kept files could not be swept"),
        }
        tokio::time::sleep(interval).await;
    }
}

/// Looks whether the store still takes writes. One that comes back by itself is waited for: requests get 503 meanwhile.
async fn watch_store(stores: Stores, failed: CancellationToken) {
    const INTERVAL: Duration = Duration::from_secs(5);
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Err(StoreError::Unavailable(reason)) = stores.engine.probe().await {
            if stores.engine.recovers() {
                tracing::warn!(reason, "the store does not answer");
                continue;
            }
            tracing::error!(reason, "the store takes no more writes, the node stops");
            return failed.cancel();
        }
    }
}

/// Forgets idempotency records, and what waits for messages that do not come, when their time is over.
async fn sweep(stores: Stores) {
    const INTERVAL: Duration = Duration::from_secs(600);
    const BATCH: usize = 1000;
    if stores.engine.expires() {
        return;
    }
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = rookery_protocol::Timestamp::now();
        let swept: Result<(), StoreError> = async {
            while stores.outbox.sweep(now, BATCH).await? == BATCH {}
            while stores.history.sweep(now, BATCH).await? == BATCH {}
            Ok(())
        }
        .await;
        if let Err(error) = swept {
            tracing::warn!(%error, "what is too old could not be removed");
        }
    }
}
