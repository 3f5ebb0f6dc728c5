//! The registry: accounts by number and LID, and the way of a stanza to a device or phone.
//!
//! Must not know what a stanza means beyond its tag.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wacore_binary::{Jid, Node};

use crate::account::Account;
use crate::calls::Calls;
use crate::config::Config;
use crate::faults::FaultState;
use crate::groups::Groups;
use crate::handshake::Identity;
use crate::ledger::{Ledger, Lost, Ticket};
use crate::media::MediaStore;
use crate::oracle::Oracle;
use crate::pairing::Pairings;
use crate::phash;
use crate::phones;
use crate::queue::Class;
use crate::stanza::{attr_is, element, encode, jid_of, server_jid, text_of, unix_now};
use crate::stats::Counters;

#[derive(Default)]
struct Registry {
    by_number: HashMap<Arc<str>, Arc<Account>>,
    by_lid: HashMap<Arc<str>, Arc<Account>>,
}

/// Everything that one simulator keeps.
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    pub(crate) pairings: Mutex<Pairings>,
    pub(crate) groups: Groups,
    pub(crate) calls: Mutex<Calls>,
    pub(crate) media: Mutex<MediaStore>,
    /// `host:port` that clients are told to use for media.
    pub(crate) media_host: OnceLock<String>,
    pub(crate) faults: FaultState,
    pub(crate) oracle: Oracle,
    pub(crate) ledger: Ledger,
    pub(crate) stats: Counters,
    /// Where tasks are spawned from methods that are not async.
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    registry: RwLock<Registry>,
    ids: AtomicU64,
}

impl World {
    /// An empty world on the present runtime.
    pub(crate) fn new(config: Config, identity: Identity) -> Arc<Self> {
        Arc::new(Self {
            media: Mutex::new(MediaStore::new(config.limits.media_total_bytes, config.media_ttl)),
            config,
            identity,
            pairings: Mutex::default(),
            groups: Groups::default(),
            calls: Mutex::default(),
            media_host: OnceLock::new(),
            faults: FaultState::default(),
            oracle: Oracle::default(),
            ledger: Ledger::default(),
            stats: Counters::default(),
            runtime: tokio::runtime::Handle::current(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            registry: RwLock::default(),
            ids: AtomicU64::new(1),
        })
    }

    /// A number that this world never used.
    pub(crate) fn next_number(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// An id for a stanza of the server.
    pub(crate) fn next_id(&self) -> String {
        format!("{}", 1_000_000 + self.next_number())
    }

    /// The account of a number; made when there is none.
    pub(crate) fn ensure_account(&self, number: &str) -> Arc<Account> {
        if let Some(account) = self.account(number) {
            return account;
        }
        let account = Arc::new(Account::new(number));
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(raced) = registry.by_number.get(number) {
            return raced.clone();
        }
        registry.by_lid.insert(account.lid.clone(), account.clone());
        registry.by_number.insert(account.number.clone(), account.clone());
        account
    }

    /// The account of a number.
    pub(crate) fn account(&self, number: &str) -> Option<Arc<Account>> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        registry.by_number.get(number).cloned()
    }

    /// The account that a user JID means, by number or LID.
    pub(crate) fn resolve(&self, jid: &Jid) -> Option<Arc<Account>> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        if jid.is_lid() {
            registry.by_lid.get(jid.user.as_str()).cloned()
        } else if jid.is_pn() {
            registry.by_number.get(jid.user.as_str()).cloned()
        } else {
            None
        }
    }

    /// All accounts.
    pub(crate) fn accounts(&self) -> Vec<Arc<Account>> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        registry.by_number.values().cloned().collect()
    }

    /// Brings a message, receipt or notification to a device: now, or when it next logs in. Device 0 is
    /// the phone. Nothing happens when the device does not exist.
    pub(crate) fn deliver(self: &Arc<Self>, account: &Arc<Account>, device: u16, node: Node) {
        let class = match node.tag.as_ref() {
            "message" => Class::Message,
            "receipt" => Class::Receipt,
            _ => Class::Notification,
        };
        let ticket = self.traced(class, account, device, &node);
        if device == 0 {
            if let Some(ticket) = ticket {
                self.ledger.delivered(ticket, 0, ticket.cause);
            }
            if class != Class::Notification {
                phones::receive(self, account, node);
            }
            return;
        }
        let node = if class == Class::Receipt { self.faults.hold_receipt(account, device, node) } else { Some(node) };
        let Some((node, stanza)) = node.and_then(|n| encode(&n).map(|s| (n, s))) else {
            return;
        };
        let id = text_of(&node, "id");
        let copies = if self.faults.duplicates(&account.key(device)) { 2 } else { 1 };
        let limits = (self.config.limits.queued_stanzas, self.config.limits.queued_bytes);
        let mut state = account.state();
        let Some(device) = state.devices.get_mut(&device) else {
            return;
        };
        for copy in 0..copies {
            let ticket = ticket.map(|t| if copy == 0 { t } else { t.duplicated() });
            if !device.queue.push(class, &id, stanza.clone(), ticket, limits) {
                self.stats.count("overflow device queue");
                if let Some(ticket) = ticket {
                    self.ledger.lost(ticket, Lost::QueueFull);
                }
            }
        }
        device.pump(&self.ledger);
    }

    /// Notes what goes to a device in the ledger: messages, and that it wants one again.
    fn traced(&self, class: Class, account: &Account, device: u16, node: &Node) -> Option<Ticket> {
        let from = || self.resolve(&jid_of(node, "participant").or_else(|| jid_of(node, "from"))?);
        match class {
            Class::Message => self.ledger.queued(&from()?.number, &text_of(node, "id"), account.key(device)),
            Class::Receipt if attr_is(node, "type", "retry") => {
                let jid = jid_of(node, "participant").or_else(|| jid_of(node, "from"))?;
                let asking = self.resolve(&jid)?.key(jid.device);
                self.ledger.asked_again(&account.number, &text_of(node, "id"), &asking);
                None
            }
            _ => None,
        }
    }

    /// Tells everybody who knows the account's devices that one came or went.
    pub(crate) fn announce_device(self: &Arc<Self>, account: &Arc<Account>, device: u16, added: bool) {
        let (companions, watchers) = {
            let mut state = account.state();
            state.devices_changed();
            (state.companions(), state.device_watchers.clone())
        };
        let mut devices = vec![0];
        devices.extend(&companions);
        let notice = DeviceNotice {
            account,
            device,
            added,
            hash: phash::hash(devices.iter().map(|d| account.pn(*d))),
            lid_hash: phash::hash(devices.iter().map(|d| account.lid(*d))),
            key_index_list: account.key_index_list_node(),
        };
        for (watcher, by_lid) in watchers {
            let own = watcher.number == account.number;
            // The account's own devices learn of their numbers by `account_sync` below.
            if own && (!by_lid || watcher.device == device) {
                continue;
            }
            if let Some(other) = self.account(&watcher.number) {
                self.deliver(&other, watcher.device, notice.for_contact(&self.next_id(), by_lid));
            }
        }
        for companion in companions.iter().filter(|c| **c != device) {
            self.deliver(account, *companion, notice.for_self(&self.next_id(), &devices));
        }
    }

    /// Takes a device away from its account. True when it was there.
    pub(crate) fn remove_device(self: &Arc<Self>, account: &Arc<Account>, device: u16, told: Option<&Node>) -> bool {
        let removed = account.state().devices.remove(&device);
        let Some(removed) = removed else { return false };
        removed.queue.abandon(&self.ledger);
        if let Some(link) = &removed.link {
            link.say_and_close(told, self.config.close_grace);
        }
        if removed.bundle.is_some() {
            self.announce_device(account, device, false);
        }
        true
    }
}

/// A change of an account's devices, told in three ways.
struct DeviceNotice<'a> {
    account: &'a Account,
    device: u16,
    added: bool,
    hash: String,
    lid_hash: String,
    key_index_list: Node,
}

impl DeviceNotice<'_> {
    /// To a contact. A list that was cached under the LID changes only by a notification from the LID.
    fn for_contact(&self, id: &str, by_lid: bool) -> Node {
        let (pn, lid) = (self.account.pn(self.device), self.account.lid(self.device));
        let (from, device, hash) = if by_lid {
            (self.account.lid(0), element("device").attr("jid", lid), &self.lid_hash)
        } else {
            let device = element("device").attr("jid", pn).attr("lid", lid);
            (self.account.pn(0), device, &self.hash)
        };
        let change = element(if self.added { "add" } else { "remove" })
            .attr("device_hash", hash)
            .attr("device_lid_hash", &self.lid_hash)
            .children([device.attr("key-index", self.device).build(), self.key_index_list.clone()]);
        let mut notification =
            element("notification").attr("from", from).attr("type", "devices").attr("id", id).attr("t", unix_now());
        if !by_lid {
            notification = notification.attr("lid", self.account.lid(0));
        }
        notification.children([change.build()]).build()
    }

    /// To the account's own devices.
    fn for_self(&self, id: &str, devices: &[u16]) -> Node {
        let mut list: Vec<Node> =
            devices.iter().map(|d| element("device").attr("jid", self.account.pn(*d)).build()).collect();
        list.push(self.key_index_list.clone());
        element("notification")
            .attr("from", self.account.pn(0))
            .attr("type", "account_sync")
            .attr("id", id)
            .attr("t", unix_now())
            .children([element("devices").attr("dhash", self.hash.as_str()).children(list).build()])
            .build()
    }
}

/// `<notification>` from the server itself.
pub(crate) fn server_notification(id: String, kind: &'static str, child: Node) -> Node {
    element("notification")
        .attr("from", server_jid())
        .attr("type", kind)
        .attr("id", id)
        .attr("t", unix_now())
        .children([child])
        .build()
}
