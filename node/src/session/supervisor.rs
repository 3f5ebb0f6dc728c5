//! Supervises the actors of all sessions on this node: one that fails is started again, with back-off.
//!
//! It decides when; [`Sessions`] knows how. A failure of one session touches no other.

use super::{
    Sessions,
    actor::{Arguments, Message, SessionActor},
};
use crate::metrics;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use ractor_cluster::RactorMessage;
use rookery_protocol::SessionId;
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

/// The first pause before a failed actor is started again; doubles each time.
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
/// The longest such pause.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// An actor that lived this long starts again without a history of failures.
const STABLE: Duration = Duration::from_secs(120);

/// What the supervisor is told.
#[derive(RactorMessage)]
pub(crate) enum SupervisorMessage {
    /// Start an actor for this session; the actor is handed back, or nothing when it could not start.
    Spawn(SessionId, Box<Arguments>, tokio::sync::oneshot::Sender<ActorRef<Message>>),
}

/// What the supervisor knows.
pub(crate) struct State {
    sessions: Arc<OnceLock<Weak<Sessions>>>,
    children: HashMap<ActorId, (SessionId, Instant)>,
    failures: HashMap<SessionId, u32>,
}

/// The supervisor of all sessions on this node.
pub(crate) struct Supervisor;

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = State;
    type Arguments = Arc<OnceLock<Weak<Sessions>>>;

    async fn pre_start(
        &self,
        _me: ActorRef<SupervisorMessage>,
        sessions: Arc<OnceLock<Weak<Sessions>>>,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State { sessions, children: HashMap::new(), failures: HashMap::new() })
    }

    async fn handle(
        &self,
        me: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisorMessage::Spawn(id, args, reply) = message;
        // Starting an actor does no I/O, so the mailbox is not held up.
        match SessionActor::spawn_linked(None, SessionActor, *args, me.get_cell()).await {
            Ok((actor, _)) => {
                state.children.insert(actor.get_id(), (id, Instant::now()));
                let _ = reply.send(actor);
            }
            Err(error) => tracing::error!(session_id = %id, %error, "session actor could not be started"),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _me: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(actor, error) => state.failed(actor.get_id(), &error),
            SupervisionEvent::ActorTerminated(actor, _, _) => {
                if let Some((id, _)) = state.children.remove(&actor.get_id()) {
                    state.failures.remove(&id);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl State {
    fn failed(&mut self, actor: ActorId, error: &ActorProcessingErr) {
        let Some((id, started)) = self.children.remove(&actor) else { return };
        if started.elapsed() >= STABLE {
            self.failures.remove(&id);
        }
        let failures = self.failures.entry(id).or_default();
        let pause = back_off(*failures);
        *failures += 1;
        ::metrics::counter!(metrics::SESSION_FAILURES).increment(1);
        tracing::error!(session_id = %id, failures, ?pause, %error, "session failed, starting it again");
        let sessions = self.sessions.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            if let Some(sessions) = sessions.get().and_then(Weak::upgrade) {
                sessions.restart(id).await;
            }
        });
    }
}

fn back_off(failures: u32) -> Duration {
    BACK_OFF_MIN.saturating_mul(1 << failures.min(16)).min(BACK_OFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let pauses: Vec<_> = (0..40).map(back_off).collect();
        assert_eq!(pauses[0], BACK_OFF_MIN);
        assert!(pauses.is_sorted());
        assert_eq!(pauses[39], BACK_OFF_MAX);
    }
}
