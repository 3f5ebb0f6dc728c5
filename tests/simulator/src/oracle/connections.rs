//! Who was connected when, and in whose name.
//!
//! A gateway that runs on several nodes states in the connection's URL which node connects (`owner`) and under
//! which claim (`epoch`, which grows with every change of owner). From that follows what may take the place of
//! what. Invariant: bounded; of many connections the oldest are forgotten. Pure; the oracle's lock guards it.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::account::DeviceKey;

/// Connections that are remembered.
const CONNECTIONS: usize = 100_000;
/// Characters of an owner's name that are kept.
const OWNER_CHARS: usize = 64;

/// In whose name a client connects, as its URL's query says: `?owner=NODE&epoch=NUMBER`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) owner: Option<String>,
    pub(crate) epoch: Option<u64>,
}

impl Claim {
    /// Reads a URL's query.
    pub(crate) fn of(query: &str) -> Self {
        let mut claim = Self::default();
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "owner" if !value.is_empty() => claim.owner = Some(value.chars().take(OWNER_CHARS).collect()),
                "epoch" => claim.epoch = value.parse().ok(),
                _ => {}
            }
        }
        claim
    }
}

/// A connection of a device, from its login to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// Its number; later connections have greater ones.
    pub id: u64,
    /// The device, `number:device`.
    pub device: String,
    /// The node that said it owns the session, if the client states one.
    pub owner: Option<String>,
    /// The epoch of that node's claim.
    pub epoch: Option<u64>,
    /// When it logged in, milliseconds since the epoch.
    pub since_ms: u64,
    /// When it ended; none while it is open.
    pub until_ms: Option<u64>,
    /// The connection whose login took its place.
    pub replaced_by: Option<u64>,
    /// When it was told so.
    pub replaced_ms: Option<u64>,
}

/// What a login breaks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// It takes the place of a connection of a later claim.
    KicksNewer(String),
    /// It comes after a login of a later claim.
    AfterNewer(String),
}

/// The connections of all devices.
#[derive(Default)]
pub(super) struct Connections {
    by_id: BTreeMap<u64, Connection>,
    /// The login of the latest claim of each device.
    newest: HashMap<DeviceKey, (u64, Option<String>)>,
}

impl Connections {
    /// A device has logged in over connection `id`, in the place of `former`.
    pub(super) fn login(
        &mut self,
        device: &DeviceKey,
        id: u64,
        claim: &Claim,
        former: Option<u64>,
        now: u64,
    ) -> Option<Breach> {
        let mut breach = None;
        if let Some(former) = former.and_then(|f| self.by_id.get_mut(&f)) {
            former.replaced_by = Some(id);
            former.replaced_ms = Some(now);
            if is_older(claim, former.epoch, former.owner.as_ref()) {
                breach = Some(Breach::KicksNewer(format!(
                    "{device}: connection {id} ({}) took the place of connection {} ({}), which was open since {}",
                    name(claim.owner.as_ref(), claim.epoch),
                    former.id,
                    name(former.owner.as_ref(), former.epoch),
                    former.since_ms,
                )));
            }
        }
        let newest = self.newest.get(device);
        if breach.is_none()
            && let Some((epoch, owner)) = newest
            && is_older(claim, Some(*epoch), owner.as_ref())
        {
            breach = Some(Breach::AfterNewer(format!(
                "{device}: connection {id} ({}) logged in after {} had",
                name(claim.owner.as_ref(), claim.epoch),
                name(owner.as_ref(), Some(*epoch)),
            )));
        }
        if let Some(epoch) = claim.epoch
            && newest.is_none_or(|(former, _)| *former < epoch)
        {
            if self.newest.len() >= CONNECTIONS {
                self.newest.clear();
            }
            self.newest.insert(device.clone(), (epoch, claim.owner.clone()));
        }
        if self.by_id.len() >= CONNECTIONS {
            self.by_id.pop_first();
        }
        let connection = Connection {
            id,
            device: device.to_string(),
            owner: claim.owner.clone(),
            epoch: claim.epoch,
            since_ms: now,
            until_ms: None,
            replaced_by: None,
            replaced_ms: None,
        };
        self.by_id.insert(id, connection);
        breach
    }

    /// A connection has ended.
    pub(super) fn closed(&mut self, id: u64, now: u64) {
        if let Some(connection) = self.by_id.get_mut(&id) {
            connection.until_ms.get_or_insert(now);
        }
    }

    /// Those of a device, or all; oldest first.
    pub(super) fn list(&self, device: Option<&DeviceKey>) -> Vec<Connection> {
        let name = device.map(ToString::to_string);
        let wanted = |c: &&Connection| name.as_ref().is_none_or(|n| c.device == *n);
        self.by_id.values().filter(wanted).cloned().collect()
    }

    /// A connection in evidence.
    pub(super) fn describe(&self, id: u64) -> String {
        let connection = self.by_id.get(&id);
        connection.map_or_else(
            || format!("connection {id}"),
            |c| format!("connection {id} ({})", name(c.owner.as_ref(), c.epoch)),
        )
    }
}

/// Whether a claim is older than another, or of the same epoch but another owner's. One owner may connect again as
/// often as it likes.
fn is_older(claim: &Claim, epoch: Option<u64>, owner: Option<&String>) -> bool {
    let (Some(claimed), Some(epoch)) = (claim.epoch, epoch) else {
        return false;
    };
    claimed < epoch || (claimed == epoch && claim.owner.as_ref() != owner)
}

fn name(owner: Option<&String>, epoch: Option<u64>) -> String {
    match (owner, epoch) {
        (Some(owner), Some(epoch)) => format!("owner {owner}, epoch {epoch}"),
        (None, Some(epoch)) => format!("epoch {epoch}"),
        (Some(owner), None) => format!("owner {owner}"),
        (None, None) => "no claim".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(owner: &str, epoch: u64) -> Claim {
        Claim::of(&format!("owner={owner}&epoch={epoch}"))
    }

    #[test]
    fn a_claim_is_read_from_the_query() {
        assert_eq!(Claim::of("owner=a-1&epoch=7"), Claim { owner: Some("a-1".into()), epoch: Some(7) });
        for query in ["", "epoch=x", "owner=", "epoch", "&&=&"] {
            assert_eq!(Claim::of(query), Claim::default(), "{query}");
        }
        let long = Claim::of(&format!("owner={}", "a".repeat(1_000)));
        assert_eq!(long.owner.map(|o| o.len()), Some(OWNER_CHARS));
    }

    #[test]
    fn only_a_later_claim_may_take_the_place_of_another_owners() {
        let device = DeviceKey { number: "1".into(), device: 2 };
        let mut connections = Connections::default();
        assert_eq!(connections.login(&device, 1, &claim("a", 1), None, 10), None);
        assert_eq!(connections.login(&device, 2, &claim("a", 1), Some(1), 20), None, "the same owner again");
        assert_eq!(connections.login(&device, 3, &claim("b", 2), Some(2), 30), None);
        let kick = connections.login(&device, 4, &claim("a", 1), Some(3), 40);
        let Some(Breach::KicksNewer(evidence)) = kick else { panic!("{kick:?}") };
        assert!(evidence.contains("4 (owner a, epoch 1)") && evidence.contains("3 (owner b, epoch 2)"), "{evidence}");
        connections.closed(4, 50);
        let late = connections.login(&device, 5, &claim("a", 1), None, 60);
        assert!(matches!(late, Some(Breach::AfterNewer(_))), "{late:?}");
        let two = connections.login(&device, 6, &claim("c", 2), None, 70);
        assert!(matches!(two, Some(Breach::AfterNewer(_))), "two owners of one epoch: {two:?}");
        assert_eq!(connections.login(&device, 7, &Claim::default(), Some(6), 80), None, "nothing is stated");
        let list = connections.list(Some(&device));
        assert_eq!(list.len(), 7);
        assert_eq!((list[3].since_ms, list[3].until_ms, list[2].replaced_by), (40, Some(50), Some(4)));
        assert_eq!(connections.list(Some(&DeviceKey { number: "1".into(), device: 3 })), []);
    }

    #[test]
    fn the_oldest_connections_are_forgotten() {
        let device = DeviceKey { number: "1".into(), device: 2 };
        let mut connections = Connections::default();
        for id in 0..CONNECTIONS as u64 + 5 {
            connections.login(&device, id, &claim("a", 1), None, id);
        }
        assert_eq!((connections.by_id.len(), connections.list(None)[0].id), (CONNECTIONS, 5));
    }
}
