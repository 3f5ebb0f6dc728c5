//! What the rest of the simulator holds of a connection: the way to its client, and the faults on it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use wacore_binary::Node;

use crate::account::{Account, DeviceKey, lock};
use crate::oracle::Claim;
use crate::stanza::encode;

/// What is on its way to a client.
pub(crate) enum Outgoing {
    /// A stanza.
    Stanza(Bytes),
    /// The end, when the client has not closed within this time.
    Close(Duration),
    /// Half of this stanza's frame, and then nothing more.
    Cut(Bytes),
}

/// What the rest of the simulator holds of a connection.
pub(crate) struct Link {
    /// Unique among the connections of a simulator.
    pub(crate) id: u64,
    /// In whose name the client connects.
    pub(crate) claim: Claim,
    /// The device that has logged in over it.
    pub(crate) device: OnceLock<DeviceKey>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    /// What waits to be written.
    pub(crate) depth: AtomicUsize,
    pub(crate) drained: Notify,
    frozen: AtomicBool,
    thawed: Notify,
    /// Ends the connection without a word.
    pub(crate) kill: CancellationToken,
    /// When another login took its place.
    pub(crate) replaced: OnceLock<Instant>,
    closing: AtomicBool,
    /// The device that was paired over this connection, until it has signed its identity.
    pub(crate) paired: Mutex<Option<Paired>>,
}

impl Link {
    /// A link, and the end from which what it sends is taken.
    pub(crate) fn new(
        id: u64,
        claim: Claim,
        kill: CancellationToken,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Outgoing>) {
        let (outgoing, receiver) = mpsc::unbounded_channel();
        let link = Self {
            id,
            claim,
            device: OnceLock::new(),
            outgoing,
            depth: AtomicUsize::new(0),
            drained: Notify::new(),
            frozen: AtomicBool::new(false),
            thawed: Notify::new(),
            kill,
            replaced: OnceLock::new(),
            closing: AtomicBool::new(false),
            paired: Mutex::new(None),
        };
        (Arc::new(link), receiver)
    }

    /// Queues an encoded stanza. What may be queued is bounded by the device's queue for stanzas and by
    /// [`Link::backlog_cleared`] for replies. After a close nothing is sent any more.
    pub(crate) fn send(&self, stanza: Bytes) {
        if self.closing.load(Ordering::Relaxed) {
            return;
        }
        self.depth.fetch_add(1, Ordering::Relaxed);
        // The receiver is gone when the connection has ended: the stanza stays in the device's queue.
        let _ = self.outgoing.send(Outgoing::Stanza(stanza));
    }

    /// Encodes and queues a stanza.
    pub(crate) fn send_node(&self, node: &Node) {
        if let Some(stanza) = encode(node) {
            self.send(stanza);
        }
    }

    /// Says why, then closes when the client has not done so within `grace`.
    pub(crate) fn say_and_close(&self, why: Option<&Node>, grace: Duration) {
        if let Some(why) = why {
            self.send_node(why);
        }
        if !self.closing.swap(true, Ordering::Relaxed) {
            self.depth.fetch_add(1, Ordering::Relaxed);
            let _ = self.outgoing.send(Outgoing::Close(grace));
        }
    }

    /// Breaks the connection in the middle of this stanza's frame.
    pub(crate) fn cut(&self, stanza: &Node) {
        if let Some(stanza) = encode(stanza) {
            self.depth.fetch_add(1, Ordering::Relaxed);
            let _ = self.outgoing.send(Outgoing::Cut(stanza));
        }
    }

    /// Stops or resumes reading and writing.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Release);
        if !frozen {
            self.thawed.notify_waiters();
        }
    }

    /// For how long it has been `replaced`, if it was told so.
    pub(crate) fn replaced_for(&self) -> Option<Duration> {
        self.replaced.get().map(Instant::elapsed)
    }

    /// Remembers the device that was paired over it.
    pub(crate) fn remember_paired(&self, paired: Paired) {
        *lock(&self.paired) = Some(paired);
    }

    /// Waits until reading and writing go on.
    pub(crate) async fn while_frozen(&self) {
        loop {
            let thawed = self.thawed.notified();
            if !self.frozen.load(Ordering::Acquire) {
                return;
            }
            thawed.await;
        }
    }

    /// Waits until fewer than `limit` stanzas wait for the client to read.
    pub(crate) async fn backlog_cleared(&self, limit: usize) {
        loop {
            let drained = self.drained.notified();
            if self.depth.load(Ordering::Relaxed) < limit {
                return;
            }
            drained.await;
        }
    }
}

/// A device that was paired over a connection and has not signed its identity yet.
pub(crate) struct Paired {
    pub(crate) account: Arc<Account>,
    pub(crate) device: u16,
    /// The companion's identity key.
    pub(crate) companion: [u8; 32],
}
