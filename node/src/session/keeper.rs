//! Keeps a session's client: carries out, one after the other, what takes time.
//!
//! One task a session. It holds the one client that the session may have, so a new one is never started before
//! the old one has closed its socket. It ends, and closes the client, when its actor is gone in whichever way.

use super::{
    actor::{Tap, View},
    admission::Admission,
    whatsapp::{Client, Connector, Observer},
};
use crate::session::state::ClientEvent;
use rookery_storage::{DeviceBackend, Fence, SessionRow, StoreError, Stores};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How long a login counts against the limit of logins under way.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// What the keeper is told.
pub(crate) enum Order {
    /// Start a client for this generation; stop the one that runs.
    Start { generation: u64, observer: Tap },
    /// Stop the client.
    Stop,
    /// Tell WhatsApp that the link ends, then stop the client.
    LogOut,
    /// Forget all key material.
    ClearKeys,
    /// Write the session's row, if it has changed.
    Persist,
    /// All orders before this one are done.
    Report(Box<dyn FnOnce() + Send>),
}

/// What a keeper works with.
pub(crate) struct Keeper {
    pub fence: Fence,
    pub stores: Stores,
    pub connector: Arc<Connector>,
    pub logins: Admission,
    pub pairings: Admission,
    pub view: watch::Receiver<Arc<View>>,
    pub persisted: SessionRow,
    /// Cancelled when the keeper has ended and the client's socket is closed.
    pub ended: CancellationToken,
}

impl Keeper {
    /// Starts the keeper's task. `superseded` holds the newest generation: a start of an older one is cut short.
    pub(crate) fn start(self, superseded: watch::Receiver<u64>) -> mpsc::UnboundedSender<Order> {
        // Without a bound, since the actor must not wait; it gives a few orders an event, and events are rare.
        let (give, take) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let ended = self.ended.clone().drop_guard();
            self.run(take, superseded).await;
            drop(ended);
        });
        give
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>, mut newest: watch::Receiver<u64>) {
        let mut client: Option<Client> = None;
        while let Some(order) = orders.recv().await {
            match order {
                Order::Start { generation, observer } => {
                    stop(&mut client).await;
                    client = tokio::select! {
                        started = self.start_client(&observer) => started,
                        _ = newest.wait_for(|newest| *newest != generation) => None,
                    };
                }
                Order::Stop => stop(&mut client).await,
                Order::LogOut => {
                    if let Some(client) = client.take() {
                        client.log_out().await;
                    }
                }
                Order::ClearKeys => {
                    if let Err(error) = self.stores.keys.clear(&self.fence).await {
                        tracing::error!(session_id = %self.fence.session(), %error, "key material could not be cleared");
                    }
                }
                Order::Persist => self.persist().await,
                Order::Report(report) => report(),
            }
        }
        stop(&mut client).await;
    }

    async fn start_client(&self, observer: &Tap) -> Option<Client> {
        let linked = self.view.borrow().row.device.is_some();
        let permit = if linked { self.logins.enter().await } else { self.pairings.enter().await };
        let backend = DeviceBackend::new(Arc::clone(&self.stores.keys), self.fence.clone());
        match self.connector.prepare(backend, self.fence.epoch(), Arc::new(observer.clone())).await {
            Ok(prepared) => {
                observer.line(prepared.line());
                let client = prepared.start();
                self.hold_until_logged_in(permit);
                Some(client)
            }
            Err(error) => {
                tracing::error!(session_id = %self.fence.session(), error = format!("{error:#}"), "client could not be started");
                observer.event(ClientEvent::Ended);
                None
            }
        }
    }

    /// Keeps the permit until the login has led anywhere, or for so long that it does not seem to.
    fn hold_until_logged_in(&self, permit: tokio::sync::OwnedSemaphorePermit) {
        let mut view = self.view.clone();
        view.mark_unchanged();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(LOGIN_TIMEOUT, view.changed()).await;
            drop(permit);
        });
    }

    async fn persist(&mut self) {
        let row = self.view.borrow().row.clone();
        if row == self.persisted {
            return;
        }
        match self.stores.sessions.update(&self.fence, &row).await {
            Ok(()) => self.persisted = row,
            Err(StoreError::Fenced { .. }) => {
                tracing::warn!(session_id = %row.session_id, epoch = %self.fence.epoch(), "session has a newer owner");
            }
            // The next change, or the next owner, writes it.
            Err(error) => tracing::error!(session_id = %row.session_id, %error, "session could not be stored"),
        }
    }
}

async fn stop(client: &mut Option<Client>) {
    if let Some(client) = client.take() {
        client.shutdown().await;
    }
}
