//! The fast path of death: when a link was reset, does anybody listen at the peer's address?
//!
//! A node keeps its port open for as long as its process lives, so a host that refuses connects says that the process
//! is gone. Anything else (a connect that succeeds, hangs, or meets another error) says nothing, and the lease decides.
//! A dying process closes its connections a moment before its port, so the probes go on for a while.

use super::{Event, Peer, config::PeerAddress, shared::Shared};
use std::{
    io,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, sleep, timeout},
};
use tracing::info;

/// How many connects in a row must be refused.
const REFUSALS: u32 = 3;

/// Between connects while they are refused.
const PAUSE: Duration = Duration::from_millis(50);

/// After one that was not: a living peer is not to be bothered often.
const LONG_PAUSE: Duration = Duration::from_millis(200);

/// For how long a process may be dying.
const WINDOW: Duration = Duration::from_secs(2);

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
        let gone = nobody_listens(&member, || shared.table().of_node(&peer.node).is_some()).await;
        shared.probing.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
        if gone && !shared.closed.is_cancelled() {
            info!(node = %peer.node, incarnation = peer.incarnation.0, "peer's process is gone");
            let _ = shared.events.send(Event::Gone(peer));
        }
    });
}

/// Whether connects are refused, several in a row, before the window ends or the peer is back.
async fn nobody_listens(member: &PeerAddress, is_back: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    let mut refusals = 0;
    while start.elapsed() < WINDOW && !is_back() {
        if refused(&member.address).await {
            refusals += 1;
            if refusals == REFUSALS {
                return true;
            }
            sleep(PAUSE).await;
        } else {
            refusals = 0;
            sleep(LONG_PAUSE).await;
        }
    }
    false
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
        assert!(!nobody_listens(&member(address.clone()), || false).await, "listening, even if it accepts nothing");
        drop(listener);
        assert!(!nobody_listens(&member(address.clone()), || true).await, "a peer that is back is not gone");
        assert!(nobody_listens(&member(address), || false).await);
        assert!(!nobody_listens(&member("no.such.host.invalid:1".into()), || false).await);
    }

    #[tokio::test]
    async fn a_process_may_close_its_port_after_its_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let dying = async {
            // The first probe is still let in.
            listener.accept().await.unwrap();
            drop(listener);
        };
        let member = member(address);
        let (gone, ()) = tokio::join!(nobody_listens(&member, || false), dying);
        assert!(gone);
    }
}
