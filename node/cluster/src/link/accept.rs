//! Takes connections in: each handshake in a task of its own, with one deadline for all of it, and only so many.

use super::{
    establish::{self, LinkFailure},
    shared::{Shared, count},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

/// A pause when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the links are closed.
pub(super) async fn run(shared: Arc<Shared>, listener: Arc<TcpListener>) {
    loop {
        let accepted = tokio::select! {
            () = shared.closed.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                let (number, evicted) = shared.half_open(remote);
                tokio::spawn(serve(shared.clone(), stream, remote, number, evicted));
            }
            Err(error) => {
                warn!(%error, "accepting a link failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    remote: SocketAddr,
    number: u64,
    evicted: oneshot::Receiver<()>,
) {
    let handshake = timeout(shared.config.limits.handshake, establish::accepted(&shared, stream, remote));
    let established = tokio::select! {
        // Resolves when its sender is dropped, whatever it says.
        _ = evicted => Err(LinkFailure::Evicted),
        done = handshake => done.unwrap_or(Err(LinkFailure::Timeout)),
    };
    shared.release_half_open(number);
    let brought_up = match established {
        Ok(established) => establish::bring_up(&shared, established).await,
        Err(failure) => Err(failure),
    };
    match brought_up {
        Ok(_) => {}
        // Counted and complained about where the room was needed.
        Err(LinkFailure::Evicted) => {}
        Err(failure) => {
            count(&shared.counters.handshakes_failed);
            // Whoever hangs up at once only wanted to know whether the port is open.
            if failure.is_expected() || matches!(failure, LinkFailure::Lost) {
                debug!(%remote, reason = %failure, "no link");
            } else {
                shared.complain(remote.ip(), &failure.to_string());
            }
        }
    }
}
