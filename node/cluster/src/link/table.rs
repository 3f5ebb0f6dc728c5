//! The links of this node: one entry a connection, at most one a peer's node.
//!
//! An entry is made before `ractor_cluster` gets the connection and goes when its node session has ended, so a node
//! session that has no entry was let in by the parked listener and is sent away. Holds no lock and does no I/O; its
//! caller does ([`super::shared::Shared`]).

use super::{
    Peer,
    preface::Token,
    router::{GROUP, RouterMessage},
    transport::Notes,
};
use ractor::{ActorId, ActorRef, ActorStatus, pg};
use ractor_cluster::{NodeSessionMessage, node::NodeServerSessionInformation};
use rookery_protocol::NodeId;
use std::{collections::HashMap, net::SocketAddr, sync::Arc};
use tokio::{sync::Semaphore, time::Instant};

/// The number of a connection; the label of its node session.
pub(super) type LinkNumber = u64;

/// A connection after its preface.
pub(super) struct Link {
    pub(super) peer: Peer,
    pub(super) remote: SocketAddr,
    /// The version of the envelope that both sides speak.
    pub(super) version: u16,
    /// What the peer puts in front of its calls.
    pub(super) token: Token,
    /// What we put in front of ours.
    pub(super) peer_token: Token,
    pub(super) notes: Arc<Notes>,
    pub(super) budget: Budget,
    session: Option<ActorRef<NodeSessionMessage>>,
    up: Option<Up>,
    ended: bool,
}

/// What may be under way on a link.
#[derive(Clone)]
pub(super) struct Budget {
    pub(super) calls: Arc<Semaphore>,
    pub(super) bytes: Arc<Semaphore>,
    pub(super) inbound: Arc<Semaphore>,
}

struct Up {
    since: Instant,
    session_id: ractor_cluster::NodeId,
    router: ActorRef<RouterMessage>,
}

/// What a call needs of a link.
pub(super) struct Route {
    pub(super) router: ActorRef<RouterMessage>,
    pub(super) version: u16,
    pub(super) peer_token: Token,
    pub(super) budget: Budget,
}

/// Whose call it is that came with a token.
pub(super) struct Sender {
    pub(super) peer: Peer,
    pub(super) version: u16,
    pub(super) inbound: Arc<Semaphore>,
}

/// Why a node session does not become a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotALink {
    #[error("it did not come by the links' own port")]
    Unknown,
    #[error("it calls itself otherwise than its certificate does")]
    OtherName,
    #[error("it has no router")]
    NoRouter,
    #[error("it was ended in the meantime")]
    Ended,
}

impl Link {
    pub(super) fn new(peer: Peer, remote: SocketAddr, version: u16, tokens: (Token, Token), budget: Budget) -> Self {
        let (token, peer_token) = tokens;
        let notes = Arc::default();
        Self { peer, remote, version, token, peer_token, notes, budget, session: None, up: None, ended: false }
    }

    pub(super) fn up_since(&self) -> Option<Instant> {
        self.up.as_ref().map(|up| up.since)
    }

    /// Whether this side has ended it.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Ends it; it stays in the table until its node session is gone.
    fn end(&mut self, reason: &str) {
        self.ended = true;
        if let Some(session) = &self.session {
            session.stop(Some(reason.to_owned()));
        }
    }

    fn route(&self) -> Option<Route> {
        let up = self.up.as_ref().filter(|_| !self.ended)?;
        // The peer's router may have been started anew, under another number.
        let gone = matches!(up.router.get_status(), ActorStatus::Stopping | ActorStatus::Stopped);
        let router = if gone { router_of(up.session_id)? } else { up.router.clone() };
        Some(Route { router, version: self.version, peer_token: self.peer_token, budget: self.budget.clone() })
    }
}

/// The router at the other end of this node session.
fn router_of(session_id: ractor_cluster::NodeId) -> Option<ActorRef<RouterMessage>> {
    let of_session = |id| matches!(id, ActorId::Remote { node_id, .. } if node_id == session_id);
    pg::get_members(&GROUP.to_owned()).into_iter().find(|cell| of_session(cell.get_id())).map(Into::into)
}

/// The links.
#[derive(Default)]
pub(super) struct Table {
    next: LinkNumber,
    links: HashMap<LinkNumber, Link>,
    by_node: HashMap<NodeId, LinkNumber>,
    by_token: HashMap<Token, LinkNumber>,
}

impl Table {
    /// Takes a link in. A node has one: when there is another, that one is ended and the new one handed back, to be
    /// brought again once the other is gone. The newer one is right, since a peer connects only when it has no link.
    pub(super) fn insert(&mut self, link: Box<Link>) -> Result<LinkNumber, Box<Link>> {
        if let Some(old) = self.by_node.get(&link.peer.node).and_then(|number| self.links.get_mut(number)) {
            old.end("replaced");
            return Err(link);
        }
        let number = self.next;
        self.next += 1;
        self.by_node.insert(link.peer.node.clone(), number);
        self.by_token.insert(link.token, number);
        self.links.insert(number, *link);
        Ok(number)
    }

    pub(super) fn get(&self, number: LinkNumber) -> Option<&Link> {
        self.links.get(&number)
    }

    pub(super) fn of_node(&self, node: &NodeId) -> Option<&Link> {
        self.links.get(self.by_node.get(node)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Notes the node session of a link; `false` when it belongs to none and is to be stopped.
    pub(super) fn opened(&mut self, session: &NodeServerSessionInformation) -> bool {
        let Some(link) = number(session).and_then(|number| self.links.get_mut(&number)) else { return false };
        link.session = Some(session.actor.clone());
        if link.ended {
            session.actor.stop(Some("ended".to_owned()));
        }
        true
    }

    /// Brings a link up when its node session is ready and is what the preface said.
    pub(super) fn ready(&mut self, session: &NodeServerSessionInformation) -> Result<(Peer, SocketAddr), NotALink> {
        let link = number(session).and_then(|number| self.links.get_mut(&number)).ok_or(NotALink::Unknown)?;
        if link.ended {
            return Err(NotALink::Ended);
        }
        let name = session.peer_name.as_ref().and_then(|name| name.name.split_once('@'));
        if name.is_none_or(|(name, _)| name != link.peer.to_string()) {
            return Err(NotALink::OtherName);
        }
        let router = router_of(session.node_id).ok_or(NotALink::NoRouter)?;
        link.up = Some(Up { since: Instant::now(), session_id: session.node_id, router });
        Ok((link.peer.clone(), link.remote))
    }

    /// Takes out the link whose node session has ended.
    pub(super) fn closed(&mut self, session: &NodeServerSessionInformation) -> Option<Link> {
        self.remove(number(session)?)
    }

    /// Takes out a link.
    pub(super) fn remove(&mut self, number: LinkNumber) -> Option<Link> {
        let link = self.links.remove(&number)?;
        self.by_node.remove(&link.peer.node);
        self.by_token.remove(&link.token);
        Some(link)
    }

    /// Ends a link.
    pub(super) fn end(&mut self, number: LinkNumber, reason: &str) {
        if let Some(link) = self.links.get_mut(&number) {
            link.end(reason);
        }
    }

    /// Ends the links to whoever is not wanted.
    pub(super) fn end_where(&mut self, unwanted: impl Fn(&Peer) -> bool, reason: &str) {
        for link in self.links.values_mut().filter(|link| !link.ended && unwanted(&link.peer)) {
            link.end(reason);
        }
    }

    pub(super) fn route(&self, node: &NodeId) -> Option<Route> {
        self.of_node(node)?.route()
    }

    pub(super) fn sender(&self, token: Token) -> Option<Sender> {
        let link = self.links.get(self.by_token.get(&token)?)?;
        Some(Sender { peer: link.peer.clone(), version: link.version, inbound: link.budget.inbound.clone() })
    }
}

/// The number in the label of a node session.
fn number(session: &NodeServerSessionInformation) -> Option<LinkNumber> {
    session.peer_addr.parse().ok()
}
