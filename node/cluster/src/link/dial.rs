//! Dials the members with smaller names: one attempt at a time to each, with back-off between failures.

use super::{
    PeerAddress, Refusal,
    establish::{self, LinkFailure},
    shared::{Shared, count},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The longest pause for a peer that does not know us yet: members learn of each other within a second or two.
const STRANGER_PAUSE: Duration = Duration::from_millis(500);

/// Follows the view: ends links to whoever has left it and dials whoever has come.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut view = shared.view.clone();
    let mut tasks = JoinSet::new();
    let mut diallers: HashMap<PeerAddress, AbortHandle> = HashMap::new();
    loop {
        let members: HashSet<PeerAddress> = view.borrow_and_update().iter().cloned().collect();
        let peers: HashSet<_> = members.iter().map(PeerAddress::peer).collect();
        shared.table().end_where(|peer| !peers.contains(peer), "no member");
        shared.retain_failures(&peers);
        diallers.retain(|member, dialler| {
            let stays = members.contains(member);
            if !stays {
                dialler.abort();
            }
            stays
        });
        for member in members {
            if member.node < shared.config.node && !diallers.contains_key(&member) {
                let dialler = tasks.spawn(dial(shared.clone(), member.clone()));
                diallers.insert(member, dialler);
            }
        }
        while tasks.try_join_next().is_some() {}
        tokio::select! {
            // Whoever drops the view's sender is stopping, and says so.
            Ok(()) = view.changed() => {}
            () = shared.stopping.cancelled() => return,
        }
    }
}

/// Keeps a link to one member.
async fn dial(shared: Arc<Shared>, member: PeerAddress) {
    let mut pause = FIRST_PAUSE;
    loop {
        without_link(&shared, &member).await;
        match attempt(&shared, &member).await {
            Ok(()) => pause = FIRST_PAUSE,
            Err(failure) => {
                count(&shared.counters.handshakes_failed);
                complain(&shared, &member, &failure);
                let unknown_yet = matches!(failure, LinkFailure::RefusedBy(Refusal::Stranger));
                let longest = if unknown_yet { STRANGER_PAUSE } else { LONGEST_PAUSE };
                pause = pause.min(longest);
                sleep(jittered(pause)).await;
                pause = (pause * 2).min(longest);
            }
        }
    }
}

/// Waits until there is no link to the member.
async fn without_link(shared: &Shared, member: &PeerAddress) {
    let mut changes = shared.changes();
    loop {
        changes.borrow_and_update();
        if shared.table().of_node(&member.node).is_none() {
            return;
        }
        // Its sender lives in `shared`.
        let _ = changes.changed().await;
    }
}

async fn attempt(shared: &Shared, member: &PeerAddress) -> Result<(), LinkFailure> {
    let limits = &shared.config.limits;
    let stream = connect(shared, member).await?;
    let established = timeout(limits.handshake, establish::dialled(shared, stream, member))
        .await
        .unwrap_or(Err(LinkFailure::Timeout))?;
    establish::bring_up(shared, established).await.map(|_| ())
}

async fn connect(shared: &Shared, member: &PeerAddress) -> Result<TcpStream, LinkFailure> {
    let connecting = async {
        if shared.tls.is_none() {
            for address in tokio::net::lookup_host(&member.address).await.map_err(LinkFailure::Connect)? {
                if !address.ip().is_loopback() {
                    return Err(LinkFailure::NotLoopback(address));
                }
            }
        }
        TcpStream::connect(&member.address).await.map_err(LinkFailure::Connect)
    };
    let timed_out = |_| LinkFailure::Connect(std::io::ErrorKind::TimedOut.into());
    timeout(shared.config.limits.connect, connecting).await.map_err(timed_out)?
}

/// Says once what is wrong, and again when it is something else.
fn complain(shared: &Shared, member: &PeerAddress, failure: &LinkFailure) {
    let news = shared.note_failure(&member.peer(), failure);
    if news && !failure.is_expected() {
        warn!(node = %member.node, address = member.address, reason = %failure, "no link");
    } else {
        debug!(node = %member.node, address = member.address, reason = %failure, "no link");
    }
}

/// Between half of it and all of it, so that nodes that lost each other at once do not come back at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}
