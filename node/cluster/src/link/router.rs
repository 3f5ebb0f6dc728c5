//! The one actor that peers can reach: takes their calls and gives each to the application in a task of its own.
//!
//! It never waits, and whatever comes is answered: by the handler's reply, or by why there is none.

use super::{
    Peer,
    preface::Token,
    shared::{Shared, count},
    table::Sender,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use ractor_cluster::RactorClusterMessage;
use rookery_protocol::cluster::{
    Call, EnvelopeError, Failure, FailureKind, MAX_REQUEST_ID_BYTES, OLDEST_PROTOCOL, Reply, Request, Versions,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tracing::error;

/// The process group in which peers find the router.
pub(super) const GROUP: &str = "rookery-router";

/// When to ask again whoever is overloaded.
const RETRY_AFTER_MS: u32 = 500;

/// Runs the requests of peers.
#[async_trait::async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Runs one. Called as often at once as the limits allow; ends by the deadline, after which nobody waits for the
    /// reply. It is not cancelled when the caller goes.
    async fn handle(&self, inbound: Inbound) -> Reply;
}

/// A peer's request.
#[derive(Debug)]
pub struct Inbound {
    /// Whose it is, as its certificate and the membership say.
    pub from: Peer,
    /// The id under which the caller logs it.
    pub request_id: String,
    /// Until when the caller waits.
    pub deadline: Instant,
    /// What is asked.
    pub request: Request,
}

/// What peers send: a token and an envelope.
#[derive(RactorClusterMessage)]
pub(super) enum RouterMessage {
    /// Answered by the envelope of a reply. The variant's name is on the wire.
    #[rpc]
    Call(Vec<u8>, RpcReplyPort<Vec<u8>>),
}

/// The actor.
pub(super) struct Router {
    pub(super) shared: Arc<Shared>,
    pub(super) handler: Arc<dyn Handler>,
}

impl Actor for Router {
    type Msg = RouterMessage;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<RouterMessage>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<RouterMessage>,
        RouterMessage::Call(frame, port): RouterMessage,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        self.dispatch(&frame, port);
        Ok(())
    }
}

impl Router {
    fn dispatch(&self, frame: &[u8], port: RpcReplyPort<Vec<u8>>) {
        let shared = &self.shared;
        let mut answer =
            Answer { port: Some(port), version: OLDEST_PROTOCOL, limit: shared.config.limits.envelope_bytes };
        let Some((sender, envelope)) = sender(shared, frame) else {
            return answer.send(&failed(FailureKind::Stranger, "not over this link"));
        };
        answer.version = sender.version;
        let (version, call) = match open(envelope, shared.config.versions) {
            Ok(opened) => opened,
            Err(reply) => return answer.send(&reply),
        };
        answer.version = version;
        if shared.stopping.is_cancelled() {
            return answer.send(&failed(FailureKind::Stopping, "node is stopping"));
        }
        if call.deadline_ms == 0 {
            return answer.send(&failed(FailureKind::DeadlinePassed, "came too late"));
        }
        let permits = (sender.inbound.try_acquire_owned(), shared.inbound.clone().try_acquire_owned());
        let (Ok(of_peer), Ok(of_node)) = permits else {
            count(&shared.counters.calls_refused);
            return answer.send(&Reply::Busy { retry_after_ms: RETRY_AFTER_MS });
        };
        let inbound = Inbound {
            from: sender.peer,
            request_id: call.request_id,
            deadline: Instant::now() + Duration::from_millis(call.deadline_ms.into()),
            request: call.request,
        };
        count(&shared.counters.calls_handled);
        let handler = self.handler.clone();
        shared.handlers.spawn(async move {
            let reply = handler.handle(inbound).await;
            // Before the reply: with it the peer may send its next call at once.
            drop((of_peer, of_node));
            answer.send(&reply);
        });
    }
}

/// Whose frame it is, by the token in front, and its envelope.
fn sender<'a>(shared: &Shared, frame: &'a [u8]) -> Option<(Sender, &'a [u8])> {
    let (token, envelope) = frame.split_first_chunk::<{ Token::BYTES }>()?;
    Some((shared.table().sender(Token(*token))?, envelope))
}

/// Opens a call, or says what is to be answered instead.
fn open(envelope: &[u8], understood: Versions) -> Result<(u16, Call), Reply> {
    match Call::open(envelope, understood) {
        Ok((_, call)) if call.request_id.len() > MAX_REQUEST_ID_BYTES => {
            Err(failed(FailureKind::Malformed, "request id is too long"))
        }
        Ok(opened) => Ok(opened),
        Err(EnvelopeError::Version(_)) => {
            Err(Reply::Unsupported { oldest: understood.oldest, newest: understood.newest })
        }
        Err(error) => Err(failed(FailureKind::Malformed, &error.to_string())),
    }
}

fn failed(kind: FailureKind, detail: &str) -> Reply {
    Reply::Failed(Failure { kind, detail: detail.to_owned() })
}

/// Answers exactly once, whatever becomes of the handler.
struct Answer {
    port: Option<RpcReplyPort<Vec<u8>>>,
    version: u16,
    limit: usize,
}

impl Answer {
    fn send(mut self, reply: &Reply) {
        self.send_once(reply);
    }

    fn send_once(&mut self, reply: &Reply) {
        let Some(port) = self.port.take() else { return };
        let envelope = if reply.since() > self.version {
            failed(FailureKind::Internal, "the reply is of a later version").seal(self.version)
        } else {
            reply.seal(self.version)
        };
        let envelope = if envelope.len() > self.limit {
            failed(FailureKind::ReplyTooLarge, "reply is too large for a link").seal(self.version)
        } else {
            envelope
        };
        // Nobody waits any more: the link is down or the deadline has passed.
        let _ = port.send(envelope);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.port.is_some() {
            error!("handler of a peer's call ended without a reply");
            self.send_once(&failed(FailureKind::Internal, "handler ended without a reply"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call { request_id: "r".into(), deadline_ms: 1, request: Request::Ping }
    }

    #[test]
    fn an_envelope_of_the_future_is_answered_with_what_is_understood() {
        let future = call().seal(2);
        assert_eq!(open(&future, Versions::OURS), Err(Reply::Unsupported { oldest: 1, newest: 1 }));
        assert_eq!(open(&future, Versions { oldest: 1, newest: 2 }), Ok((2, call())));
    }

    #[test]
    fn what_cannot_be_read_is_answered_too() {
        let kind = |envelope: &[u8]| match open(envelope, Versions::OURS) {
            Err(Reply::Failed(failure)) => failure.kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(&[]), FailureKind::Malformed);
        assert_eq!(kind(&[0, 1, 0xff]), FailureKind::Malformed);
        let long = Call { request_id: "r".repeat(MAX_REQUEST_ID_BYTES + 1), ..call() };
        assert_eq!(kind(&long.seal(1)), FailureKind::Malformed);
    }

    #[tokio::test]
    async fn whoever_drops_an_answer_has_answered() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        drop(Answer { port: Some(sender.into()), version: 1, limit: 100 });
        let reply = Reply::open(&receiver.await.unwrap(), Versions::OURS).unwrap();
        assert!(matches!(reply, Reply::Failed(Failure { kind: FailureKind::Internal, .. })));
    }

    #[tokio::test]
    async fn a_reply_that_is_too_large_is_said_to_be() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let answer = Answer { port: Some(sender.into()), version: 1, limit: 100 };
        answer.send(&failed(FailureKind::Internal, &"x".repeat(200)));
        let reply = Reply::open(&receiver.await.unwrap(), Versions::OURS).unwrap();
        assert!(matches!(reply, Reply::Failed(Failure { kind: FailureKind::ReplyTooLarge, .. })));
    }
}
