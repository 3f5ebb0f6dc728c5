//! The fast path of death: when a link was reset, does anybody listen at the peer's address?
//!
//! A node keeps its port open for as long as its process lives, so a host that refuses connects says that the process
//! is gone. Anything else (a connect that succeeds, hangs, or meets another error) says nothing, and the lease decides.

use super::{Event, Peer, config::PeerAddress, shared::Shared};
use std::{
    io,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{sleep, timeout},
};
use tracing::info;

/// How many connects in a row must be refused.
const REFUSALS: u32 = 3;

const PAUSE: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Probes the peer of a link that was reset, unless that is switched off or under way.
pub(super) fn start(shared: &Arc<Shared>, peer: Peer) {
    if !shared.config.fast_death || shared.closed.is_cancelled() {
        return;
    }
    let member = shared.view.borrow().iter().find(|member| member.peer() == peer).cloned();
    let Some(member) = member else { return };
    if !shared.probing.lock().unwrap_or_else(PoisonError::into_inner).insert(peer.clone()) {
        return;
    }
    let shared = shared.clone();
    tokio::spawn(async move {
        let gone = nobody_listens(&member).await;
        shared.probing.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
        if gone && !shared.closed.is_cancelled() {
            info!(node = %peer.node, incarnation = peer.incarnation.0, "peer's process is gone");
            let _ = shared.events.send(Event::Gone(peer));
        }
    });
}

async fn nobody_listens(member: &PeerAddress) -> bool {
    for attempt in 0..REFUSALS {
        if attempt > 0 {
            sleep(PAUSE).await;
        }
        if !refused(&member.address).await {
            return false;
        }
    }
    true
}

/// Whether every address behind the name refuses.
async fn refused(address: &str) -> bool {
    let Ok(Ok(addresses)) = timeout(CONNECT_TIMEOUT, lookup_host(address)).await else { return false };
    let mut any = false;
    for address in addresses {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => any = true,
            _ => return false,
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn member(address: String) -> PeerAddress {
        PeerAddress { node: "n".parse().unwrap(), incarnation: rookery_protocol::Incarnation(1), address }
    }

    #[tokio::test]
    async fn only_a_refusal_says_that_nobody_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert!(!nobody_listens(&member(address.clone())).await, "listening, even if it accepts nothing");
        drop(listener);
        assert!(nobody_listens(&member(address)).await);
        assert!(!nobody_listens(&member("no.such.host.invalid:1".into())).await);
    }
}
