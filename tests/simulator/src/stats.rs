//! What has happened, counted: never what it said.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use wacore_binary::Node;

use crate::account::lock;
use crate::stanza::{children, text_of};
use crate::world::World;

/// Kinds that are counted apart; clients choose the names, so that they are bounded.
const KINDS: usize = 512;

/// Running counters.
#[derive(Default)]
pub(crate) struct Counters {
    counts: Mutex<HashMap<Box<str>, u64>>,
    connections: AtomicUsize,
}

impl Counters {
    /// Counts one of a kind.
    pub(crate) fn count(&self, kind: &str) {
        self.add(kind, 1);
    }

    /// Counts several of a kind.
    pub(crate) fn add(&self, kind: &str, n: u64) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(kind) {
            *count += n;
            return;
        }
        let kind = if counts.len() < KINDS { kind } else { "other" };
        *counts.entry(kind.into()).or_default() += n;
    }

    /// Counts a stanza of a client by its kind.
    pub(crate) fn count_stanza(&self, node: &Node) {
        if node.tag != "iq" {
            return self.count(&node.tag);
        }
        let child = children(node).first().map_or("", |c| c.tag.as_ref());
        let (kind, namespace) = (text_of(node, "type"), text_of(node, "xmlns"));
        self.count(&format!("iq {kind} {namespace} <{child}>"));
    }

    /// A connection was accepted. False when there are `limit` already.
    pub(crate) fn connected(&self, limit: usize) -> bool {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        if before >= limit {
            self.disconnected();
        }
        before < limit
    }

    /// A connection has ended.
    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A snapshot of the counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Accounts.
    pub accounts: usize,
    /// Companion devices.
    pub devices: usize,
    /// Open connections.
    pub connections: usize,
    /// Stanzas that wait for a device or for its acknowledgement.
    pub queued: usize,
    /// Violations so far.
    pub violations: usize,
    /// Stanzas of clients and happenings by kind: `message`, `iq get usync <usync>`, `login`, ...
    pub counts: BTreeMap<String, u64>,
}

impl Stats {
    /// The counters of a world at this moment.
    pub(crate) fn of(world: &World) -> Self {
        let accounts = world.accounts();
        let (mut devices, mut queued) = (0, 0);
        for account in &accounts {
            let state = account.state();
            devices += state.devices.len();
            queued += state.devices.values().map(|d| d.queue.len()).sum::<usize>();
        }
        let mut counts: BTreeMap<String, u64> =
            lock(&world.stats.counts).iter().map(|(kind, count)| (kind.to_string(), *count)).collect();
        counts.extend(world.oracle.notice_counts().into_iter().map(|(kind, n)| (kind.counter().to_string(), n)));
        Self {
            accounts: accounts.len(),
            devices,
            connections: world.stats.connections.load(Ordering::Relaxed),
            queued,
            violations: world.oracle.count(),
            counts,
        }
    }

    /// The count of one kind, 0 when there was none.
    pub fn count(&self, kind: &str) -> u64 {
        self.counts.get(kind).copied().unwrap_or(0)
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "accounts {}", self.accounts)?;
        writeln!(f, "devices {}", self.devices)?;
        writeln!(f, "connections {}", self.connections)?;
        writeln!(f, "queued {}", self.queued)?;
        writeln!(f, "violations {}", self.violations)?;
        for (kind, count) in &self.counts {
            writeln!(f, "{count:8} {kind}")?;
        }
        Ok(())
    }
}
