//! What other nodes ask of this one.

use super::{heart::Heart, relay::passed_on};
use crate::{
    api::{Inbound, Relayed},
    session::{SessionError, Sessions},
};
use rookery_cluster::link::Inbound as Call;
use rookery_protocol::{
    SessionId, Timestamp,
    cluster::{Failure, FailureKind, Forwarded, HttpReply, NodeStats, Pong, Principal, Reply, Request},
};
use rookery_storage::{NodeStatus, Stores};
use std::sync::Arc;
use tokio::time::Instant;
use tracing::Instrument;
use warp::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

/// When a node that may not act is worth another try.
const SOON_MS: u32 = 500;

/// Answers the requests of other nodes.
pub(crate) struct Inbox {
    pub(super) inbound: Inbound,
    pub(super) sessions: Arc<Sessions>,
    pub(super) stores: Stores,
    pub(super) heart: Arc<Heart>,
    /// How many sessions this node takes at most.
    pub(super) capacity: Option<u32>,
    /// Its part of the sessions in proportion to others'.
    pub(super) weight: u16,
}

impl Inbox {
    /// The reply to a call of this node.
    pub(super) async fn answer(&self, call: Call) -> Reply {
        let span = tracing::info_span!("relayed", request_id = %call.request_id, from = %call.from.node);
        self.reply(call).instrument(span).await
    }

    async fn reply(&self, call: Call) -> Reply {
        match call.request {
            Request::Ping => {
                let unix_ms = u64::try_from(Timestamp::now().as_micros() / 1000).unwrap_or(0);
                Reply::Pong(Pong { version: env!("CARGO_PKG_VERSION").into(), unix_ms })
            }
            Request::Stats => Reply::Stats(self.stats()),
            Request::Drain => self.drain().await,
            _ if !self.heart.may_act() => Reply::Frozen,
            Request::Activate { session, .. } => self.activate(session).await,
            Request::Http(forwarded) => self.run(forwarded, &call.request_id, call.deadline).await,
        }
    }

    async fn drain(&self) -> Reply {
        match self.heart.mark(NodeStatus::Draining).await {
            Ok(true) => Reply::Draining { sessions: u32::try_from(self.sessions.count()).unwrap_or(u32::MAX) },
            marked => {
                tracing::warn!(?marked, "the node could not be marked as draining");
                Reply::Busy { retry_after_ms: SOON_MS }
            }
        }
    }

    async fn activate(&self, session: SessionId) -> Reply {
        match self.sessions.take_over(session).await {
            Ok(epoch) => Reply::Activated { epoch },
            Err(SessionError::Elsewhere(_) | SessionError::NotFound) => self.not_owner(session).await,
            Err(error) => {
                tracing::warn!(%session, %error, "a session could not be taken over");
                Reply::Busy { retry_after_ms: SOON_MS }
            }
        }
    }

    async fn run(&self, forwarded: Forwarded, request_id: &str, deadline: Instant) -> Reply {
        let Some((session, request)) = relayed(forwarded, deadline) else {
            let detail = "a forwarded request cannot be read".to_owned();
            return Reply::Failed(Failure { kind: FailureKind::Malformed, detail });
        };
        let Some((status, headers, body)) = self.inbound.answer(request, request_id).await else {
            return self.not_owner(session).await;
        };
        Reply::Http(HttpReply { status, headers: passed_on(&headers), body })
    }

    async fn not_owner(&self, session: SessionId) -> Reply {
        match self.stores.owners.read(session).await {
            Ok(Some(owner)) => Reply::NotOwner { epoch: owner.epoch, owner: owner.node },
            Ok(None) => Reply::NotOwner { epoch: rookery_protocol::Epoch::default(), owner: None },
            Err(_) => Reply::Busy { retry_after_ms: SOON_MS },
        }
    }

    pub(super) fn stats(&self) -> NodeStats {
        let sessions = self.sessions.by_status();
        NodeStats {
            version: env!("CARGO_PKG_VERSION").into(),
            frozen: !self.heart.may_act(),
            draining: self.heart.now().is_draining(),
            weight_percent: self.weight.into(),
            capacity: self.capacity,
            sessions: sessions.iter().map(|(status, count)| (status.to_string(), *count as u32)).collect(),
        }
    }
}

/// The request as the API takes it.
fn relayed(forwarded: Forwarded, deadline: Instant) -> Option<(SessionId, Relayed)> {
    let session = forwarded.session?;
    let Principal::User(user) = forwarded.principal else { return None };
    let method = Method::from_bytes(forwarded.method.as_bytes()).ok()?;
    let uri = forwarded.path.parse::<Uri>().ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in forwarded.headers {
        headers.append(HeaderName::try_from(name).ok()?, HeaderValue::from_maybe_shared(value).ok()?);
    }
    Some((session, Relayed { session, user, method, uri, headers, body: forwarded.body, deadline }))
}
