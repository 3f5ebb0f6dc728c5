//! The actor of one session: takes events in, lets the state machine decide, hands orders to the keeper.
//!
//! Its mailbox never waits for the network or the disk: whatever takes time is an order to the session's
//! [`keeper`](super::keeper), and what comes of it returns as a message. It knows nothing of HTTP.

use super::{
    keeper::{Keeper, Order},
    receive::Intake,
    send::{Connection, SendDesk},
    state::{ClientEvent, Effect, Event, Policy, Qr, State},
    whatsapp::{Ack, Chunk, Inbound, Line, Note, Observer},
};
use crate::metrics;
use async_trait::async_trait;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use ractor_cluster::RactorMessage;
use rookery_protocol::{Epoch, Timestamp, api::SessionStatus};
use rookery_storage::{MessageReceipt, SessionRow};
use std::sync::Arc;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What is known of a session, for everybody who asks.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// What is stored of it.
    pub row: SessionRow,
    /// The QR code that waits to be scanned.
    pub qr: Option<Qr>,
    /// The epoch of its owner.
    pub epoch: Epoch,
}

impl View {
    /// Where the session stands.
    pub(crate) fn status(&self) -> SessionStatus {
        self.row.status()
    }
}

/// What a session's actor is told.
#[derive(RactorMessage)]
pub(crate) enum Message {
    /// Something happens to the session; the sender is told when its effects are done.
    Event(Event, Option<oneshot::Sender<()>>),
    /// The client of this generation reports.
    Client(u64, ClientEvent),
    /// The client of this generation is about to connect through this line.
    Line(u64, Line),
    /// A pairing code is wanted for this phone number.
    PairingCode(String, oneshot::Sender<anyhow::Result<String>>),
    /// The session ends on this node: its client is stopped (and logged out, when asked), then the actor.
    Close { log_out: bool, done: oneshot::Sender<()> },
    /// The keeper has finished the last order.
    Closed(oneshot::Sender<()>),
    /// A defect, to see that others do not suffer from it.
    #[cfg(feature = "sandbox")]
    Panic,
}

/// What an actor starts with.
pub(crate) struct Arguments {
    pub row: SessionRow,
    pub policy: Policy,
    pub keeper: Keeper,
    pub desk: Arc<SendDesk>,
    pub intake: Arc<Intake>,
    pub connection: watch::Sender<Option<Connection>>,
    pub view: watch::Sender<Arc<View>>,
    /// Ends whatever works for the session when the actor goes, in whichever way.
    pub closed: CancellationToken,
}

/// The actor's state.
pub(crate) struct Running {
    state: State,
    policy: Policy,
    orders: mpsc::UnboundedSender<Order>,
    generation: watch::Sender<u64>,
    logins: u64,
    line: Option<Line>,
    retry: Option<AbortHandle>,
    desk: Arc<SendDesk>,
    intake: Arc<Intake>,
    connection: watch::Sender<Option<Connection>>,
    view: watch::Sender<Arc<View>>,
    epoch: Epoch,
    counted: SessionStatus,
    _closed: DropGuard,
}

/// The actor of one session.
pub(crate) struct SessionActor;

impl Actor for SessionActor {
    type Msg = Message;
    type State = Running;
    type Arguments = Arguments;

    async fn pre_start(&self, _me: ActorRef<Message>, args: Arguments) -> Result<Running, ActorProcessingErr> {
        let epoch = args.view.borrow().epoch;
        let (generation, superseded) = watch::channel(0);
        let orders = args.keeper.start(superseded);
        let state = State::new(args.row);
        let counted = state.status();
        ::metrics::gauge!(metrics::SESSIONS, "status" => counted.as_str()).increment(1);
        Ok(Running {
            state,
            policy: args.policy,
            orders,
            generation,
            logins: 0,
            line: None,
            retry: None,
            desk: args.desk,
            intake: args.intake,
            connection: args.connection,
            view: args.view,
            epoch,
            counted,
            _closed: args.closed.drop_guard(),
        })
    }

    async fn handle(
        &self,
        me: ActorRef<Message>,
        message: Message,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Event(event, done) => running.apply(&me, event, done),
            Message::Client(generation, event) if generation == *running.generation.borrow() => {
                running.client_event(&me, event);
            }
            Message::Line(generation, line) if generation == *running.generation.borrow() => {
                running.line = Some(line);
            }
            // From a client that has been told to stop.
            Message::Client(..) | Message::Line(..) => {}
            Message::PairingCode(phone, reply) => running.pairing_code(phone, reply),
            Message::Close { log_out, done } => running.close(&me, log_out, done),
            Message::Closed(done) => {
                let _ = done.send(());
                me.stop(None);
            }
            #[cfg(feature = "sandbox")]
            Message::Panic => panic!("a defect was asked for"),
        }
        Ok(())
    }
}

impl Running {
    fn client_event(&mut self, me: &ActorRef<Message>, event: ClientEvent) {
        match &event {
            ClientEvent::Connected { .. } => {
                self.logins += 1;
                let number = self.logins;
                self.connection.send_replace(self.line.clone().map(|line| Connection { number, line }));
                self.intake.history().connection(self.line.clone());
            }
            // What is left from before belongs to another link.
            ClientEvent::Paired { .. } => {
                self.desk.abandon();
                self.intake.history().restart();
            }
            ClientEvent::Unreachable(reason) => {
                tracing::warn!(session_id = %self.state.row.session_id, reason, "no connection");
            }
            ClientEvent::PushName(_) => {}
            _ => {
                self.connection.send_replace(None);
                self.intake.history().connection(None);
            }
        }
        self.apply(me, Event::Client(event), None);
    }

    fn apply(&mut self, me: &ActorRef<Message>, event: Event, done: Option<oneshot::Sender<()>>) {
        let was = self.state.status();
        let effects = self.state.apply(event, &self.policy, Timestamp::now());
        let status = self.state.status();
        if status != was {
            let row = &self.state.row;
            tracing::info!(session_id = %row.session_id, epoch = %self.epoch, %was, %status, reason = row.last_error.as_deref(), "session changed");
        }
        self.publish();
        for effect in effects {
            self.carry_out(me, effect);
        }
        self.order(Order::Persist);
        if let Some(done) = done {
            self.order(Order::Report(Box::new(move || _ = done.send(()))));
        }
    }

    fn carry_out(&mut self, me: &ActorRef<Message>, effect: Effect) {
        match effect {
            Effect::StartClient => {
                let generation = self.supersede();
                let observer =
                    Tap { generation, actor: me.clone(), desk: self.desk.clone(), intake: self.intake.clone() };
                self.order(Order::Start { generation, observer });
            }
            Effect::StopClient => {
                self.supersede();
                self.order(Order::Stop);
            }
            Effect::LogOut => {
                self.supersede();
                self.order(Order::LogOut);
            }
            Effect::ClearKeys => {
                self.desk.abandon();
                self.order(Order::ClearKeys);
            }
            Effect::Retry(delay) => {
                self.cancel_retry();
                let actor = me.clone();
                let retry = tokio::spawn(async move {
                    // Spread, so that sessions that failed together do not come back together.
                    tokio::time::sleep(delay.mul_f64(rand::random_range(1.0..1.25))).await;
                    let _ = actor.cast(Message::Event(Event::RetryDue, None));
                });
                self.retry = Some(retry.abort_handle());
            }
            Effect::CancelRetry => self.cancel_retry(),
        }
    }

    /// Makes what the present client says stale, and cuts short a start that waits for its turn.
    fn supersede(&mut self) -> u64 {
        let generation = *self.generation.borrow() + 1;
        self.generation.send_replace(generation);
        self.line = None;
        self.connection.send_replace(None);
        self.intake.history().connection(None);
        generation
    }

    fn cancel_retry(&mut self) {
        if let Some(retry) = self.retry.take() {
            retry.abort();
        }
    }

    fn pairing_code(&self, phone: String, reply: oneshot::Sender<anyhow::Result<String>>) {
        let Some(line) = self.line.clone() else {
            let _ = reply.send(Err(anyhow::anyhow!("the session is not connecting")));
            return;
        };
        tokio::spawn(async move { reply.send(line.pairing_code(&phone).await) });
    }

    fn close(&mut self, me: &ActorRef<Message>, log_out: bool, done: oneshot::Sender<()>) {
        self.cancel_retry();
        self.supersede();
        self.order(if log_out { Order::LogOut } else { Order::Stop });
        let me = me.clone();
        self.order(Order::Report(Box::new(move || _ = me.cast(Message::Closed(done)))));
    }

    fn order(&self, order: Order) {
        // Fails only after the keeper has panicked; the actor notices by the reports that do not come.
        let _ = self.orders.send(order);
    }

    fn publish(&mut self) {
        let status = self.state.status();
        if status != self.counted {
            ::metrics::gauge!(metrics::SESSIONS, "status" => self.counted.as_str()).decrement(1);
            ::metrics::gauge!(metrics::SESSIONS, "status" => status.as_str()).increment(1);
            self.counted = status;
        }
        let view = View { row: self.state.row.clone(), qr: self.state.qr.clone(), epoch: self.epoch };
        self.view.send_replace(Arc::new(view));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel_retry();
        self.connection.send_replace(None);
        self.intake.history().connection(None);
        ::metrics::gauge!(metrics::SESSIONS, "status" => self.counted.as_str()).decrement(1);
    }
}

/// Listens to the client of one generation.
#[derive(Clone)]
pub(crate) struct Tap {
    generation: u64,
    actor: ActorRef<Message>,
    desk: Arc<SendDesk>,
    intake: Arc<Intake>,
}

impl Tap {
    /// The client is about to connect through this line.
    pub(crate) fn line(&self, line: Line) {
        let _ = self.actor.cast(Message::Line(self.generation, line));
    }
}

#[async_trait]
impl Observer for Tap {
    fn event(&self, event: ClientEvent) {
        let _ = self.actor.cast(Message::Client(self.generation, event));
    }

    fn ack(&self, id: &str, ack: Ack) {
        self.desk.acknowledged(id, ack);
    }

    fn receipt(&self, receipt: MessageReceipt) {
        self.intake.receipt(receipt);
    }

    fn stray(&self, inbound: Inbound) {
        let intake = Arc::clone(&self.intake);
        tokio::spawn(async move {
            if let Err(error) = intake.take(inbound).await {
                tracing::warn!(%error, "messages without an acknowledgement could not be stored");
            }
        });
    }

    fn note(&self, note: Note) {
        self.intake.note(note);
    }

    fn history(&self, chunk: Chunk) {
        self.intake.history().put(chunk);
    }

    async fn take(&self, inbound: Inbound) -> anyhow::Result<()> {
        Ok(self.intake.take(inbound).await?)
    }
}
