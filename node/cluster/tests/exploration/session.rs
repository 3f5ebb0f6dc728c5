//! A session in a process: claim, load, seal, connect, send, hand over. The decisions are the product's.

use crate::{
    database::{Op, Owner, Ratchet, Reply, WRITES},
    oracle::Actor,
    process::{CONDITIONAL, PLAIN, Process, index_of},
    world::{Ask, Env, Input, MILLI, SECOND, SessionAsk, SessionInput},
};
use rookery_cluster::{
    claim::{Decision, Me, OwnerRow, Replaced, Retries, Setback, Wait, decide, replaced},
    handover::{Handover, HandoverEffect, HandoverEvent, HandoverLimits},
    rebalance::Move,
};
use rookery_protocol::{Epoch, Incarnation};
use std::rc::Rc;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    Deciding,
    Claiming,
    Loading,
    Sealing,
    /// Loaded, and without a connection.
    Ready,
    Connecting,
    Up,
    /// Closed for a move: nothing is opened or written any more under this epoch.
    Shut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Seal,
    Send,
    /// A frame that is on the wire already, as a faulty design has it.
    Afterwards,
}

#[derive(Debug, Default)]
pub(crate) struct Session {
    stage: Stage,
    token: u32,
    epoch: u64,
    /// How often this owner has written.
    writes: u64,
    /// How far the ratchet is, as this owner knows.
    counter: u64,
    unclean: bool,
    pub conn: Option<u64>,
    writing: Option<(Ratchet, Purpose)>,
    wiring: bool,
    sends: bool,
    handover: Option<Handover>,
    retries: Retries,
}

impl Session {
    /// The epoch under which it runs here.
    pub(crate) fn running(&self) -> Option<Epoch> {
        let runs = !matches!(self.stage, Stage::Idle | Stage::Deciding | Stage::Claiming);
        runs.then_some(Epoch(self.epoch))
    }

    pub(crate) fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    pub(crate) fn summary(&self) -> String {
        format!("{:?}/{}/{:?}", self.stage, self.epoch, self.handover.as_ref().map(Handover::deadline))
    }

    /// Forgets what ran; old answers are void from now on.
    fn stop(&mut self) {
        *self = Self { token: self.token + 1, ..Self::default() };
    }
}

impl Process {
    fn actor(&self, session: usize) -> Actor {
        Actor { by: (self.name, self.who.incarnation), epoch: self.sessions[session].epoch }
    }

    fn me(&mut self, env: &Env) -> Me {
        let open = self.is_open(env);
        let draining = self.core().is_some_and(|core| core.draining);
        let (node, incarnation) = (env.names[self.name].clone(), Incarnation(self.who.incarnation));
        Me { node, incarnation, open, draining }
    }

    fn row(row: Owner, env: &Env) -> OwnerRow {
        let holder = row.holder.map(|(node, incarnation)| (env.names[node].clone(), Incarnation(incarnation)));
        OwnerRow { epoch: Epoch(row.epoch), holder }
    }

    fn session_ask(&mut self, session: usize, ask: SessionAsk, op: Op, env: &mut Env) {
        let token = self.sessions[session].token;
        let plain = matches!(ask, SessionAsk::Load | SessionAsk::Write | SessionAsk::OwnerBeforeWire { .. });
        self.ask(Ask::Session(session, token, ask), op, if plain { PLAIN } else { CONDITIONAL }, env);
    }

    fn session_later(&self, session: usize, after: u64, input: SessionInput, env: &mut Env) {
        env.later(self.who, after, Input::Session(session, self.sessions[session].token, input));
    }

    /// The session is looked at: because of a request, or because the ring says that it belongs here.
    pub(crate) fn wanted(&mut self, session: usize, requested: bool, env: &mut Env) {
        if self.sessions[session].stage != Stage::Idle {
            return;
        }
        let me = self.name;
        let Some(core) = self.core() else { return };
        let best = core.ring.candidates(&env.sessions[session]).next();
        if requested || best == Some(&env.names[me]) {
            self.sessions[session].retries = Retries::default();
            self.look(session, env);
        }
    }

    fn look(&mut self, session: usize, env: &mut Env) {
        self.sessions[session].stage = Stage::Deciding;
        self.session_ask(session, SessionAsk::Owner, Op::ReadOwner(session), env);
    }

    fn decided(&mut self, session: usize, seen: Owner, env: &mut Env) {
        let (me, row, fate) = (self.me(env), Self::row(seen, env), self.fate(seen.holder, env));
        let Some(core) = self.core() else { return };
        let ring = Rc::clone(&core.ring);
        let place = ring.place(&env.sessions[session], |_| false);
        let decision = decide(&me, &row, None, fate, place);
        env.log(|| format!("{:?} decides {decision:?} for {session} from {seen:?}, {fate:?}", self.who));
        self.sessions[session].stage = Stage::Idle;
        match decision {
            Decision::Claim => self.claim(session, seen, 1, env),
            Decision::Forward(node) => {
                let to = index_of(&node, env);
                env.tell(self.who.process, to, Input::Activate(session));
            }
            Decision::Wait(Wait::Unjudged) => self.poll(env),
            Decision::Wait(_) | Decision::Serve(_) | Decision::Stop => {}
        }
    }

    fn claim(&mut self, session: usize, seen: Owner, tries: u8, env: &mut Env) {
        self.sessions[session].stage = Stage::Claiming;
        let holder_only = env.policy.faults.claim_without_epoch;
        let op = Op::Claim { session, seen, by: (self.name, self.who.incarnation), holder_only };
        self.session_ask(session, SessionAsk::Claim { seen, tries }, op, env);
    }

    fn lost(&mut self, session: usize, env: &mut Env) {
        self.sessions[session].stage = Stage::Idle;
        if self.sessions[session].retries.again(Setback::ClaimLost) {
            self.look(session, env);
        }
    }

    pub(crate) fn session_answer(
        &mut self,
        session: usize,
        token: u32,
        ask: SessionAsk,
        reply: Option<Reply>,
        env: &mut Env,
    ) {
        if self.sessions[session].token != token || self.core().is_none() {
            return;
        }
        match (ask, reply) {
            (SessionAsk::Owner, Some(Reply::Owner(row))) => self.decided(session, row, env),
            (SessionAsk::Owner, _) => self.sessions[session].stage = Stage::Idle,
            (SessionAsk::Claim { seen, .. }, Some(Reply::Applied)) => self.won(session, seen, env),
            (SessionAsk::Claim { .. }, Some(_)) => self.lost(session, env),
            (SessionAsk::Claim { seen, tries }, None) => {
                self.session_ask(session, SessionAsk::ClaimRead { seen, tries }, Op::ReadOwner(session), env);
            }
            (SessionAsk::ClaimRead { seen, tries }, Some(Reply::Owner(row))) => {
                // A claim that turned out to be ours is made once more, as the store does it.
                let ours = Owner { epoch: seen.epoch + 1, holder: Some((self.name, self.who.incarnation)) };
                if tries < 4 && (row == seen || row == ours) {
                    self.claim(session, row, tries + 1, env);
                } else {
                    self.lost(session, env);
                }
            }
            (SessionAsk::ClaimRead { .. }, _) => self.sessions[session].stage = Stage::Idle,
            (SessionAsk::Load, Some(Reply::Ratchet(counter))) => self.loaded(session, counter, env),
            (SessionAsk::Load, _) => self.load(session, env),
            (SessionAsk::Write, Some(_)) => self.written(session, env),
            (SessionAsk::Write, None) => self.write_again(session, env),
            (SessionAsk::OwnerBeforeWire { counter }, reply) => self.checked(session, counter, reply, env),
            (SessionAsk::Replaced, Some(Reply::Owner(row))) => self.replaced(session, row, env),
            (SessionAsk::Replaced, _) => {
                self.session_ask(session, SessionAsk::Replaced, Op::ReadOwner(session), env);
            }
            (SessionAsk::Release, Some(_)) => self.hand_over(session, HandoverEvent::Released, env),
            (SessionAsk::Release, None) => self.hand_over(session, HandoverEvent::ReleaseUnknown, env),
        }
    }

    fn won(&mut self, session: usize, seen: Owner, env: &mut Env) {
        let state = &mut self.sessions[session];
        state.epoch = seen.epoch + 1;
        state.writes = 0;
        state.unclean = seen.holder.is_some();
        self.load(session, env);
    }

    fn load(&mut self, session: usize, env: &mut Env) {
        self.sessions[session].stage = Stage::Loading;
        self.session_ask(session, SessionAsk::Load, Op::Load(session), env);
    }

    fn loaded(&mut self, session: usize, counter: u64, env: &mut Env) {
        self.sessions[session].counter = counter;
        if self.sessions[session].unclean && !env.policy.faults.no_seal {
            self.sessions[session].stage = Stage::Sealing;
            return self.seal(session, env);
        }
        self.sessions[session].stage = Stage::Ready;
        self.connect(session, env);
    }

    fn seal(&mut self, session: usize, env: &mut Env) {
        if !self.is_open(env) {
            return self.session_later(session, 200 * MILLI, SessionInput::Retry, env);
        }
        let counter = self.sessions[session].counter;
        self.write(session, counter, Purpose::Seal, env);
    }

    /// The gate of writes: the lease is open, or nothing is written.
    fn write(&mut self, session: usize, counter: u64, purpose: Purpose, env: &mut Env) {
        let state = &mut self.sessions[session];
        state.writes += 1;
        let ratchet = Ratchet { counter, timestamp: state.epoch * WRITES + state.writes };
        state.writing = Some((ratchet, purpose));
        let op = Op::Write { session, by: (self.name, self.who.incarnation), ratchet };
        self.session_ask(session, SessionAsk::Write, op, env);
    }

    /// A write of unknown outcome is repeated as it was, until it is known.
    fn write_again(&mut self, session: usize, env: &mut Env) {
        let Some((ratchet, _)) = self.sessions[session].writing else { return };
        if !self.is_open(env) {
            return self.session_later(session, 200 * MILLI, SessionInput::WriteAgain, env);
        }
        let op = Op::Write { session, by: (self.name, self.who.incarnation), ratchet };
        self.session_ask(session, SessionAsk::Write, op, env);
    }

    fn written(&mut self, session: usize, env: &mut Env) {
        let Some((ratchet, purpose)) = self.sessions[session].writing.take() else { return };
        let open = self.is_open(env) || env.policy.faults.no_check_after_write;
        match purpose {
            // What came late may have been overwritten; nothing follows from it. It is sealed again.
            Purpose::Seal if !open => self.session_later(session, 200 * MILLI, SessionInput::Retry, env),
            Purpose::Seal => {
                self.sessions[session].stage = Stage::Ready;
                self.connect(session, env);
            }
            Purpose::Send => {
                self.sessions[session].counter = ratchet.counter;
                if !open {
                    return self.sent(session, env);
                }
                if env.policy.owner_read_before_wire {
                    self.sessions[session].wiring = true;
                    let ask = SessionAsk::OwnerBeforeWire { counter: ratchet.counter };
                    return self.session_ask(session, ask, Op::ReadOwner(session), env);
                }
                self.hand_to_wire(session, ratchet.counter, env);
            }
            Purpose::Afterwards => {
                self.sessions[session].counter = ratchet.counter;
                self.sent(session, env);
            }
        }
    }

    fn checked(&mut self, session: usize, counter: u64, reply: Option<Reply>, env: &mut Env) {
        self.sessions[session].wiring = false;
        let epoch = self.sessions[session].epoch;
        match reply {
            Some(Reply::Owner(row)) if row.epoch == epoch && self.is_open(env) => {
                self.hand_to_wire(session, counter, env);
            }
            _ => self.sent(session, env),
        }
    }

    /// The ratchet is durable; the frame goes out a step later, and the process may stop in between.
    fn hand_to_wire(&mut self, session: usize, counter: u64, env: &mut Env) {
        if let Some(conn) = self.sessions[session].conn {
            self.sessions[session].wiring = true;
            let after = env.random.range(0, 2 * MILLI);
            self.session_later(session, after, SessionInput::Wire { conn, counter }, env);
        } else {
            self.sent(session, env);
        }
    }

    fn sent(&mut self, session: usize, env: &mut Env) {
        let state = &self.sessions[session];
        if state.handover.is_some() && state.writing.is_none() && state.stage != Stage::Connecting {
            self.hand_over(session, HandoverEvent::Sending(0), env);
        }
    }

    /// The gate of sockets, before one is opened.
    fn connect(&mut self, session: usize, env: &mut Env) {
        if !self.is_open(env) {
            return self.session_later(session, 200 * MILLI, SessionInput::Retry, env);
        }
        let token = self.sessions[session].token;
        self.sessions[session].stage = Stage::Connecting;
        self.sessions[session].conn = Some(env.dial(self.who, session, token));
    }

    pub(crate) fn session_input(&mut self, session: usize, token: u32, input: SessionInput, env: &mut Env) {
        if self.sessions[session].token != token {
            return;
        }
        let stage = self.sessions[session].stage;
        match input {
            SessionInput::WriteAgain => self.write_again(session, env),
            SessionInput::Retry if stage == Stage::Sealing => self.seal(session, env),
            SessionInput::Retry if stage == Stage::Ready => self.connect(session, env),
            SessionInput::Retry => {}
            SessionInput::Greeted { conn } if self.sessions[session].conn == Some(conn) => {
                // The transport's own look, at every frame of a handshake.
                if !self.is_open(env) && !env.policy.faults.no_check_at_login {
                    self.sessions[session].conn = None;
                    self.sessions[session].stage = Stage::Ready;
                    return self.session_later(session, 200 * MILLI, SessionInput::Retry, env);
                }
                let actor = self.actor(session);
                if !env.policy.faults.no_check_at_login {
                    env.oracle.act(session, actor, env.now, "a login");
                }
                env.login(self.who, session, token, conn, actor);
            }
            SessionInput::Connected { conn } if self.sessions[session].conn == Some(conn) => {
                self.sessions[session].stage = Stage::Up;
                if !std::mem::replace(&mut self.sessions[session].sends, true) {
                    self.session_later(session, 50 * MILLI, SessionInput::Send, env);
                }
                self.sent(session, env);
            }
            SessionInput::Closed { conn, replaced } if self.sessions[session].conn == Some(conn) => {
                self.sessions[session].conn = None;
                if !matches!(stage, Stage::Connecting | Stage::Up) {
                    return;
                }
                self.sessions[session].stage = Stage::Ready;
                if replaced {
                    return self.session_ask(session, SessionAsk::Replaced, Op::ReadOwner(session), env);
                }
                let after = env.random.range(100 * MILLI, SECOND);
                self.session_later(session, after, SessionInput::Retry, env);
            }
            SessionInput::Greeted { .. } | SessionInput::Connected { .. } | SessionInput::Closed { .. } => {}
            SessionInput::Send => self.send(session, env),
            SessionInput::Wire { conn, counter } => {
                self.sessions[session].wiring = false;
                if self.sessions[session].conn == Some(conn) {
                    self.put_on_wire(session, conn, counter, env);
                }
                self.sent(session, env);
            }
            SessionInput::HandoverTick => self.hand_over(session, HandoverEvent::Tick, env),
        }
    }

    fn put_on_wire(&mut self, session: usize, conn: u64, counter: u64, env: &mut Env) {
        let actor = self.actor(session);
        env.oracle.wire(session, actor, counter);
        env.frame(session, conn);
    }

    /// The gate of sends.
    fn send(&mut self, session: usize, env: &mut Env) {
        let after = env.random.range(200 * MILLI, 1_500 * MILLI);
        self.session_later(session, after, SessionInput::Send, env);
        let open = self.is_open(env);
        let state = &self.sessions[session];
        let idle = state.stage == Stage::Up && state.handover.is_none() && state.writing.is_none() && !state.wiring;
        if !idle || !open {
            return;
        }
        let (counter, conn) = (state.counter + 1, state.conn);
        if env.policy.faults.flush_after_wire {
            if let Some(conn) = conn {
                self.put_on_wire(session, conn, counter, env);
            }
            return self.write(session, counter, Purpose::Afterwards, env);
        }
        self.write(session, counter, Purpose::Send, env);
    }

    fn replaced(&mut self, session: usize, row: Owner, env: &mut Env) {
        let (me, row, epoch) = (self.me(env), Self::row(row, env), Epoch(self.sessions[session].epoch));
        match replaced(&me, &row, epoch) {
            Replaced::Superseded => {
                self.sessions[session].stop();
                self.forget_move(session, env);
            }
            Replaced::Foreign => self.session_later(session, 60 * SECOND, SessionInput::Retry, env),
        }
    }

    fn forget_move(&mut self, session: usize, env: &Env) {
        let id = env.sessions[session];
        if let Some(core) = self.core() {
            core.rebalancer.forget(&id);
        }
    }

    pub(crate) fn begin_moves(&mut self, env: &mut Env) {
        let now = self.now(env);
        let Some(core) = self.core() else { return };
        let ring = Rc::clone(&core.ring);
        for Move { session, to } in core.rebalancer.next(&ring, now, |_| false) {
            let index = env.sessions.iter().position(|id| *id == session).expect("a session of the schedule");
            let state = &mut self.sessions[index];
            if !matches!(state.stage, Stage::Up | Stage::Ready) || state.handover.is_some() {
                if let Some(core) = self.core() {
                    core.rebalancer.ended(&session, false, now);
                }
                continue;
            }
            let sending = usize::from(state.writing.is_some() || state.wiring);
            let (handover, effects) = Handover::begin(to, HandoverLimits::default(), sending, now);
            state.handover = Some(handover);
            self.carry_out(index, effects, env);
            self.session_later(index, 500 * MILLI, SessionInput::HandoverTick, env);
        }
    }

    fn hand_over(&mut self, session: usize, event: HandoverEvent, env: &mut Env) {
        let now = self.now(env);
        let frozen = event == HandoverEvent::Tick && !self.is_open(env);
        let Some(handover) = &mut self.sessions[session].handover else { return };
        let mut effects = handover.apply(event, now);
        if frozen {
            effects.extend(handover.apply(HandoverEvent::Frozen, now));
        }
        if event == HandoverEvent::Tick {
            self.session_later(session, 500 * MILLI, SessionInput::HandoverTick, env);
        }
        self.carry_out(session, effects, env);
    }

    fn carry_out(&mut self, session: usize, effects: Vec<HandoverEffect>, env: &mut Env) {
        for effect in effects {
            env.log(|| format!("{:?} hands {session} over: {effect:?}", self.who));
            match effect {
                // Nothing is sent while a move is on; a request would be answered so.
                HandoverEffect::AnswerMoved(_) => {}
                HandoverEffect::Flush => {
                    // Every write is waited for where it is made; one that still runs here is in doubt.
                    let all = self.sessions[session].writing.is_none();
                    self.hand_over(session, HandoverEvent::Flushed(all), env);
                }
                HandoverEffect::Close => {
                    let state = &mut self.sessions[session];
                    let settled = state.writing.is_none() && state.stage != Stage::Connecting;
                    state.stage = Stage::Shut;
                    state.wiring = false;
                    if let Some(conn) = state.conn.take() {
                        env.hang_up(session, conn);
                    }
                    self.hand_over(session, HandoverEvent::Closed { settled }, env);
                }
                HandoverEffect::Release => {
                    let op = Op::Release { session, epoch: self.sessions[session].epoch };
                    self.session_ask(session, SessionAsk::Release, op, env);
                }
                HandoverEffect::Tell(node) => {
                    env.oracle.counts.handovers += 1;
                    self.sessions[session].stop();
                    self.end_move(session, true, env);
                    let to = index_of(&node, env);
                    env.tell(self.who.process, to, Input::Activate(session));
                }
                HandoverEffect::Resume => {
                    self.sessions[session].handover = None;
                    self.end_move(session, false, env);
                }
                HandoverEffect::Reclaim if env.policy.faults.epoch_kept_after_release => {
                    self.sessions[session].handover = None;
                    self.end_move(session, false, env);
                    self.sessions[session].stage = Stage::Ready;
                    self.connect(session, env);
                }
                HandoverEffect::Reclaim => {
                    self.sessions[session].stop();
                    self.end_move(session, false, env);
                    self.look(session, env);
                }
            }
        }
    }

    fn end_move(&mut self, session: usize, moved: bool, env: &Env) {
        let (id, now) = (env.sessions[session], self.now(env));
        if let Some(core) = self.core() {
            core.rebalancer.ended(&id, moved, now);
        }
    }
}
