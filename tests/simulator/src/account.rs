//! One WhatsApp account: its number and LID, its phone, its companion devices and what the server keeps
//! for it. One lock guards all that changes but the phone's own state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buffa::Message as _;
use wacore::libsignal::protocol::KeyPair;
use wacore_binary::{Jid, Node};
use waproto::whatsapp as wa;

use crate::app_state::{self, Collections};
use crate::handshake::{key_pair, public_bytes};
use crate::ledger::Ledger;
use crate::link::Link;
use crate::phones::PhoneState;
use crate::prekeys::Bundle;
use crate::profile::Profile;
use crate::queue::Queue;
use crate::stanza::{element, unix_now};

/// Prefix of what the account signs for its list of devices.
const KEY_INDEX_PREFIX: [u8; 2] = [6, 2];

/// Takes a lock. A panic of another holder cannot leave the simulator's maps half changed in a way that
/// matters to a test, so poisoning is ignored.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A companion device by account and number: a key that lives longer than the device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DeviceKey {
    /// The account's phone number.
    pub(crate) number: Arc<str>,
    /// The device's number, 0 for the phone.
    pub(crate) device: u16,
}

impl fmt::Display for DeviceKey {
    /// `number:device`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.device)
    }
}

/// A companion device.
pub(crate) struct Device {
    /// The Noise static key with which it logs in.
    pub(crate) noise: [u8; 32],
    /// Its index in the account's list of devices.
    pub(crate) key_index: u32,
    /// Its Signal keys, from its first upload on.
    pub(crate) bundle: Option<Box<Bundle>>,
    /// Its `ADVSignedDeviceIdentity`, signed by the account and by itself; empty until it has signed.
    pub(crate) identity: Box<[u8]>,
    /// Its connection.
    pub(crate) link: Option<Arc<Link>>,
    /// It asked for its stanzas (`<active/>`) on this connection.
    pub(crate) active: bool,
    /// What it has not acknowledged.
    pub(crate) queue: Queue,
}

impl Device {
    /// A device that was just paired.
    pub(crate) fn new(noise: [u8; 32], key_index: u32) -> Self {
        Self {
            noise,
            key_index,
            bundle: None,
            identity: Box::default(),
            link: None,
            active: false,
            queue: Queue::default(),
        }
    }

    /// Ends its life on a connection, unless another has taken that one's place. Whether it did.
    pub(crate) fn disconnect(&mut self, link: &Link) -> bool {
        let own = self.link.as_ref().is_some_and(|l| l.id == link.id);
        if own {
            self.link = None;
            self.active = false;
            self.queue.rewind();
        }
        own
    }

    /// Writes what waits to the connection, if the device wants it.
    pub(crate) fn pump(&mut self, ledger: &Ledger) {
        let (true, Some(link)) = (self.active, &self.link) else {
            return;
        };
        while let Some(stanza) = self.queue.next(link.id, ledger) {
            link.send(stanza);
        }
    }
}

/// What changes of an account.
pub(crate) struct State {
    /// Companion devices by number.
    pub(crate) devices: BTreeMap<u16, Device>,
    next_device: u16,
    /// App state.
    pub(crate) collections: Collections,
    /// Numbers of blocked contacts.
    pub(crate) blocked: BTreeSet<Arc<str>>,
    /// Tokens with which contacts may write first and see what is for contacts alone, by their numbers.
    pub(crate) trusted: BTreeSet<Arc<str>>,
    /// The devices that have the sender keys of its status.
    pub(crate) status_audience: BTreeSet<DeviceKey>,
    /// Whether one of its devices is available.
    pub(crate) online: bool,
    /// When it was last available, seconds since the epoch.
    pub(crate) last_seen: u64,
    /// Who subscribed to its presence.
    pub(crate) presence_watchers: BTreeSet<DeviceKey>,
    /// Who asked for its devices, and whether by LID: they cache the answer and must be told of changes.
    pub(crate) device_watchers: BTreeSet<(DeviceKey, bool)>,
    /// The signed list of devices and its time, until it changes.
    key_index_list: Option<(u64, Arc<[u8]>)>,
}

/// An account.
pub(crate) struct Account {
    /// Phone number, digits only.
    pub(crate) number: Arc<str>,
    /// The user part of its LID.
    pub(crate) lid: Arc<str>,
    /// The phone's identity key, which signs the companion devices.
    pub(crate) identity: KeyPair,
    /// Identifies this registration of the account in what the identity key signs.
    pub(crate) raw_id: u32,
    /// The one app state key, shared with every companion.
    pub(crate) app_state_key: [u8; 32],
    state: Mutex<State>,
    /// What others see of it. Its holder takes no other lock.
    profile: Mutex<Profile>,
    /// The phone.
    pub(crate) phone: PhoneState,
}

impl Account {
    /// An account with fresh keys and no companions.
    pub(crate) fn new(number: &str) -> Self {
        let identity = key_pair();
        let phone = PhoneState::new(&identity);
        Self {
            number: number.into(),
            lid: format!("1{number:0>14}").into(),
            raw_id: rand::random::<u32>() >> 1,
            app_state_key: rand::random(),
            state: Mutex::new(State {
                devices: BTreeMap::new(),
                next_device: 1,
                collections: Collections::default(),
                blocked: BTreeSet::new(),
                trusted: BTreeSet::new(),
                status_audience: BTreeSet::new(),
                online: false,
                last_seen: unix_now(),
                presence_watchers: BTreeSet::new(),
                device_watchers: BTreeSet::new(),
                key_index_list: None,
            }),
            profile: Mutex::new(Profile::new(format!("Phone {number}"))),
            identity,
            phone,
        }
    }

    /// What others see of it.
    pub(crate) fn profile(&self) -> MutexGuard<'_, Profile> {
        lock(&self.profile)
    }

    /// The keys derived from its app state key.
    pub(crate) fn app_state_keys(&self) -> wacore::appstate::ExpandedAppStateKeys {
        app_state::expand(&self.app_state_key)
    }

    /// The account's state. The holder takes no other lock but one whose holder takes none: a connection's,
    /// the profile's, the media's.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The JID of a device by phone number; 0 is the phone.
    pub(crate) fn pn(&self, device: u16) -> Jid {
        Jid::pn_device(&*self.number, device)
    }

    /// The JID of a device by LID.
    pub(crate) fn lid(&self, device: u16) -> Jid {
        Jid::lid_device(&*self.lid, device)
    }

    /// The key of one of its devices.
    pub(crate) fn key(&self, device: u16) -> DeviceKey {
        DeviceKey { number: self.number.clone(), device }
    }

    /// What contacts see as its name.
    pub(crate) fn push_name(&self) -> String {
        self.profile().push_name.clone()
    }

    /// Renames it.
    pub(crate) fn set_push_name(&self, name: &str) {
        self.profile().push_name = name.to_string();
    }

    /// Sends a device something that is worth nothing later (presence, chat state): now or never.
    pub(crate) fn send_volatile(&self, device: u16, node: &Node) {
        let state = self.state();
        if let Some(device) = state.devices.get(&device)
            && device.active
            && let Some(link) = &device.link
        {
            link.send_node(node);
        }
    }

    /// The device list with its signature, as usync and notifications carry it.
    pub(crate) fn devices_node(&self) -> Node {
        let mut state = self.state();
        let mut list = vec![element("device").attr("id", 0).build()];
        for (number, device) in state.registered() {
            list.push(element("device").attr("id", number).attr("key-index", device.key_index).build());
        }
        let (time, signed) = self.key_index_list(&mut state);
        element("devices")
            .children([element("device-list").children(list).build(), key_index_node(time, &signed)])
            .build()
    }

    /// The `<key-index-list>` of the present devices.
    pub(crate) fn key_index_list_node(&self) -> Node {
        let (time, signed) = self.key_index_list(&mut self.state());
        key_index_node(time, &signed)
    }

    fn key_index_list(&self, state: &mut State) -> (u64, Arc<[u8]>) {
        if let Some(cached) = &state.key_index_list {
            return cached.clone();
        }
        let time = unix_now();
        let mut indexes = vec![0];
        indexes.extend(state.registered().map(|(_, d)| d.key_index));
        let details = wa::ADVKeyIndexList {
            raw_id: Some(self.raw_id),
            timestamp: Some(time),
            current_index: indexes.iter().max().copied(),
            valid_indexes: indexes,
            ..Default::default()
        }
        .encode_to_vec();
        let signature = self
            .identity
            .private_key
            .calculate_signature(&[&KEY_INDEX_PREFIX[..], &details].concat(), &mut rand::rng())
            .map(|s| s.to_vec())
            .ok();
        let signed: Arc<[u8]> = wa::ADVSignedKeyIndexList {
            details: Some(details),
            account_signature: signature,
            account_signature_key: Some(public_bytes(&self.identity).to_vec()),
        }
        .encode_to_vec()
        .into();
        state.key_index_list = Some((time, signed.clone()));
        (time, signed)
    }
}

impl State {
    /// Adds a device that was just paired and returns its number. Numbers are never used again.
    pub(crate) fn add_device(&mut self, noise: [u8; 32]) -> u16 {
        let number = self.next_device;
        self.next_device = self.next_device.checked_add(1).unwrap_or(1);
        self.devices.insert(number, Device::new(noise, u32::from(number)));
        number
    }

    /// The devices that others may send to: those that have uploaded keys.
    pub(crate) fn registered(&self) -> impl Iterator<Item = (u16, &Device)> {
        self.devices.iter().filter(|(_, d)| d.bundle.is_some()).map(|(n, d)| (*n, d))
    }

    /// The numbers of [`State::registered`].
    pub(crate) fn companions(&self) -> Vec<u16> {
        self.registered().map(|(n, _)| n).collect()
    }

    /// The list of devices has changed: it must be signed anew.
    pub(crate) fn devices_changed(&mut self) {
        self.key_index_list = None;
    }
}

fn key_index_node(time: u64, signed: &[u8]) -> Node {
    element("key-index-list").attr("ts", time).bytes(signed.to_vec()).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_with_keys_are_listed() {
        let account = Account::new("15550001");
        let first = account.state().add_device([1; 32]);
        assert_eq!(account.devices_node().children().unwrap()[0].children().unwrap().len(), 1);
        account.state().devices.remove(&first);
        assert_ne!(account.state().add_device([2; 32]), first, "numbers are not used again");
    }
}
