//! Calls to peers: bounded, with a deadline, and with an answer to "may it have been executed?".

use super::{
    router::RouterMessage,
    shared::{Shared, count},
    table::Route,
};
use ractor::{MessagingErr, rpc::CallResult};
use rookery_protocol::{
    NodeId,
    cluster::{Call, MAX_REQUEST_ID_BYTES, Reply, Request},
};
use std::{pin::Pin, time::Duration};
use tokio::{
    runtime::Handle,
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

/// How much longer than its deadline a call keeps its place: what was not written or answered by then never will be,
/// since the watchdog has ended the link.
const LINGER: Duration = Duration::from_secs(30);

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request has certainly not been executed.
    #[error("not sent: {0}")]
    NotSent(NotSent),
    /// It may have been executed.
    #[error("outcome unknown: {0}")]
    Unknown(Unknown),
}

/// Why a call was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// There is no link to the node.
    #[error("no link to the node")]
    NoLink,
    /// As many calls, or as many bytes, as are allowed are under way to the node.
    #[error("too many calls under way to the node")]
    Busy,
    /// The request is larger than a link carries.
    #[error("request is too large for a link")]
    TooLarge,
    /// The deadline has passed.
    #[error("deadline has passed")]
    DeadlinePassed,
    /// The peer is of a release that does not know this request.
    #[error("the peer speaks version {version} and does not know this request")]
    Unsupported {
        /// The version that is spoken with it.
        version: u16,
    },
    /// This node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

/// Why a call's outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// There was no reply in time.
    #[error("no reply in time")]
    Deadline,
    /// The link went down in the middle.
    #[error("link went down")]
    LinkLost,
    /// There was a reply that cannot be read.
    #[error("reply cannot be read")]
    Unreadable,
}

/// Calls a peer.
pub(super) async fn call(
    shared: &Shared,
    node: &NodeId,
    request_id: &str,
    request: Request,
    deadline: Instant,
) -> Result<Reply, CallError> {
    let result = match prepare(shared, node, request_id, request, deadline) {
        Ok(pending) => await_reply(shared, pending, deadline).await,
        Err(reason) => Err(CallError::NotSent(reason)),
    };
    let counters = &shared.counters;
    count(match result {
        Ok(_) => &counters.calls_answered,
        Err(CallError::NotSent(_)) => &counters.calls_not_sent,
        Err(CallError::Unknown(_)) => &counters.calls_unknown,
    });
    result
}

type ReplyFuture = dyn Future<Output = Result<CallResult<Vec<u8>>, MessagingErr<RouterMessage>>> + Send;

/// A call under way. It keeps its place among those that are allowed until it is answered or its link is gone, even
/// when its caller has given up: what it costs the peer and the link's queue is still there.
struct Pending {
    reply: Option<Pin<Box<ReplyFuture>>>,
    permits: Option<[OwnedSemaphorePermit; 2]>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        let (Some(reply), Ok(runtime)) = (self.reply.take(), Handle::try_current()) else { return };
        let permits = self.permits.take();
        runtime.spawn(async move {
            let _ = reply.await;
            drop(permits);
        });
    }
}

fn prepare(
    shared: &Shared,
    node: &NodeId,
    request_id: &str,
    request: Request,
    deadline: Instant,
) -> Result<Pending, NotSent> {
    if shared.stopping.is_cancelled() {
        return Err(NotSent::Stopping);
    }
    let remaining = deadline.saturating_duration_since(Instant::now());
    let deadline_ms = u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX);
    if deadline_ms == 0 {
        return Err(NotSent::DeadlinePassed);
    }
    let Route { router, version, peer_token, budget } = shared.table().route(node).ok_or(NotSent::NoLink)?;
    if request.since() > version {
        return Err(NotSent::Unsupported { version });
    }
    let of_calls = budget.calls.try_acquire_owned().map_err(|_| NotSent::Busy)?;
    let call = Call { request_id: cut(request_id).to_owned(), deadline_ms, request };
    let frame = call.seal_after(peer_token.0.to_vec(), version);
    if frame.len() > shared.config.limits.envelope_bytes {
        return Err(NotSent::TooLarge);
    }
    let size = u32::try_from(frame.len()).map_err(|_| NotSent::TooLarge)?;
    let of_bytes = budget.bytes.try_acquire_many_owned(size).map_err(|_| NotSent::Busy)?;
    let patience = remaining + LINGER;
    let reply = async move { router.call(|port| RouterMessage::Call(frame, port), Some(patience)).await };
    Ok(Pending { reply: Some(Box::pin(reply)), permits: Some([of_calls, of_bytes]) })
}

async fn await_reply(shared: &Shared, mut pending: Pending, deadline: Instant) -> Result<Reply, CallError> {
    let Some(reply) = &mut pending.reply else { return Err(CallError::NotSent(NotSent::NoLink)) };
    let Ok(answered) = timeout_at(deadline, reply).await else {
        return Err(CallError::Unknown(Unknown::Deadline));
    };
    pending.reply = None;
    match answered {
        Ok(CallResult::Success(envelope)) => {
            Reply::open(&envelope, shared.config.versions).map_err(|_| CallError::Unknown(Unknown::Unreadable))
        }
        Ok(CallResult::SenderError) => Err(CallError::Unknown(Unknown::LinkLost)),
        Ok(CallResult::Timeout) => Err(CallError::Unknown(Unknown::Deadline)),
        // The router's mailbox was closed already.
        Err(_) => Err(CallError::NotSent(NotSent::NoLink)),
    }
}

/// No more of a request id than peers take.
fn cut(request_id: &str) -> &str {
    &request_id[..request_id.floor_char_boundary(MAX_REQUEST_ID_BYTES)]
}
