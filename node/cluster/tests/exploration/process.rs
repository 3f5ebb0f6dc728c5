//! A process: joining, renewing, watching the others. Every decision is the product's; here is only the carrying out.

use crate::{
    database::{MAX_NODES, MAX_SESSIONS, NodeRow, Op, Reply},
    session::Session,
    world::{Ask, Env, Input, MILLI, Who},
};
use rookery_cluster::{
    clock::Moment,
    join::{Join, JoinStep},
    lease::{Keeper, Lease, OwnRow, Renewal, RenewalOutcome, Standing},
    membership::{Change, Death, DeathOutcome, Fate, Member, Membership, Status},
    placement::Placement,
    rebalance::{Budget, Rebalancer},
    ring::{FULL_WEIGHT, Ring},
};
use rookery_protocol::Incarnation;
use std::{rc::Rc, time::Duration};

/// How long plain reads and writes may take.
pub(crate) const PLAIN: Duration = Duration::from_secs(2);
/// How long conditional statements and serial reads may take.
pub(crate) const CONDITIONAL: Duration = Duration::from_secs(3);

/// A process that has joined.
pub(crate) struct Core {
    pub keeper: Keeper,
    pub lease: Lease,
    pub membership: Membership,
    pub ring: Rc<Ring>,
    pub rebalancer: Rebalancer,
    pub draining: bool,
    pub leaving: bool,
    was_open: bool,
    poll: u64,
    polling: bool,
    /// When deaths are looked at next.
    deaths_at: u64,
}

enum Phase {
    Joining(Join),
    Joined(Box<Core>),
}

pub(crate) struct Process {
    pub who: Who,
    pub name: usize,
    pub alive: bool,
    pub paused: bool,
    pub stash: Vec<Input>,
    /// Where its clock stands at zero, and how fast it goes, in millionths.
    offset: u64,
    rate: u64,
    paused_at: u64,
    stood_still: u64,
    pub open: Vec<u64>,
    phase: Phase,
    pub sessions: [Session; MAX_SESSIONS],
}

impl Process {
    pub(crate) fn new(process: usize, env: &mut Env) -> Self {
        let name = env.name_of[process];
        let who = Who { process, incarnation: env.fresh_incarnation() };
        let offset = env.random.range(1_000, 1_000_000_000);
        let rate = env.random.range(950_000, 1_050_001);
        let join = Join::new(env.names[name].clone(), Incarnation(who.incarnation), env.policy.timings);
        Self {
            who,
            name,
            alive: true,
            paused: false,
            stash: vec![],
            offset,
            rate,
            paused_at: 0,
            stood_still: 0,
            open: vec![],
            phase: Phase::Joining(join),
            sessions: std::array::from_fn(|_| Session::default()),
        }
    }

    pub(crate) fn pause(&mut self, now: u64) {
        if !self.paused {
            self.paused = true;
            self.paused_at = now;
        }
    }

    /// Goes on with the state that it had; what came in the meantime comes in any order.
    pub(crate) fn resume(&mut self, env: &mut Env) {
        if !std::mem::take(&mut self.paused) {
            return;
        }
        if env.policy.faults.clock_stands_still {
            self.stood_still += env.now - self.paused_at;
        }
        for input in std::mem::take(&mut self.stash) {
            let after = env.random.range(0, 5 * MILLI);
            env.later(self.who, after, input);
        }
    }

    /// The process is gone; the sockets that it had.
    pub(crate) fn kill(&mut self) -> Vec<(usize, u64)> {
        self.alive = false;
        self.paused = false;
        self.stash.clear();
        let conn = |(session, state): (usize, &Session)| state.conn.map(|conn| (session, conn));
        self.sessions.iter().enumerate().filter_map(conn).collect()
    }

    pub(crate) fn restart(&mut self, env: &mut Env) {
        let (offset, rate) = (self.offset, self.rate);
        *self = Self { offset, rate, ..Self::new(self.who.process, env) };
        env.later(self.who, 0, Input::Start);
    }

    pub(crate) fn now(&self, env: &Env) -> Moment {
        let micros = env.now - self.stood_still;
        Moment::from_nanos((self.offset + micros * self.rate / 1_000_000) * 1_000)
    }

    /// How long it really takes until this clock shows `at`.
    pub(crate) fn until(&self, at: Moment, env: &Env) -> u64 {
        at.since(self.now(env)).as_micros() as u64 * 1_000_000 / self.rate + 1
    }

    pub(crate) fn core(&mut self) -> Option<&mut Core> {
        match &mut self.phase {
            Phase::Joined(core) => Some(core),
            Phase::Joining(_) => None,
        }
    }

    pub(crate) fn is_open(&mut self, env: &Env) -> bool {
        let now = self.now(env);
        self.core().is_some_and(|core| core.lease.is_open_at(now))
    }

    pub(crate) fn is_up(&self, session: usize, conn: u64) -> bool {
        self.alive && self.sessions[session].conn == Some(conn) && self.sessions[session].is_up()
    }

    pub(crate) fn summary(&self) -> String {
        let joined = matches!(self.phase, Phase::Joined(_));
        let sessions: Vec<_> = self.sessions.iter().map(Session::summary).collect();
        format!("{:?} alive {} joined {joined} {}", self.who, self.alive, sessions.join(" "))
    }

    pub(crate) fn ask(&mut self, ask: Ask, op: Op, timeout: Duration, env: &mut Env) {
        let ticket = env.ask(self.who, ask, op, timeout);
        self.open.push(ticket);
    }

    pub(crate) fn handle(&mut self, input: Input, env: &mut Env) {
        match input {
            Input::Start | Input::JoinRead => self.ask(Ask::JoinRead, Op::ReadNode(self.name), CONDITIONAL, env),
            Input::Database(ticket, ask, reply) => {
                // The first of the answer and its timeout counts.
                if let Some(place) = self.open.iter().position(|open| *open == ticket) {
                    self.open.swap_remove(place);
                    self.answered(ask, reply, env);
                }
            }
            _ if self.core().is_none() => {}
            Input::RenewDue => self.renew(env),
            Input::Poll(number) => {
                if self.core().is_some_and(|core| core.poll == number) {
                    self.poll(env);
                }
            }
            Input::DeathsDue => self.declare(env),
            Input::Sweep => self.sweep(env),
            Input::Session(session, token, input) => self.session_input(session, token, input, env),
            Input::Activate(session) => self.wanted(session, true, env),
            Input::LinkReset { node, incarnation } => {
                let (name, incarnation) = (env.names[node].clone(), Incarnation(incarnation));
                let change = self.core().and_then(|core| core.membership.link_reset(&name, incarnation));
                self.changed(change.as_slice(), env);
            }
            Input::LinkRefused { node, incarnation } => {
                let (name, now) = (env.names[node].clone(), self.now(env));
                if let Some(core) = self.core() {
                    core.membership.connect_refused(&name, Incarnation(incarnation), now);
                }
                self.declare(env);
            }
            Input::LinkMade { node } => {
                let name = env.names[node].clone();
                if let Some(core) = self.core() {
                    core.membership.connect_undecided(&name, true);
                }
            }
            Input::DrainRequested => self.drain(env),
        }
    }

    fn answered(&mut self, ask: Ask, reply: Option<Reply>, env: &mut Env) {
        match (ask, reply) {
            (Ask::JoinRead, Some(Reply::Node(row))) => self.joining(row, env),
            (Ask::JoinRead, _) => env.later(self.who, 200 * MILLI, Input::JoinRead),
            (Ask::JoinWrite, _) => self.ask(Ask::JoinRead, Op::ReadNode(self.name), CONDITIONAL, env),
            (Ask::Session(session, token, ask), reply) => self.session_answer(session, token, ask, reply, env),
            (Ask::Renew { expected, sent }, Some(Reply::Applied)) => {
                self.renewed(expected, sent, RenewalOutcome::Applied, env);
            }
            (Ask::Renew { expected, sent }, Some(_)) => {
                let again = Ask::RenewRead { expected, sent };
                self.ask(again, Op::ReadNode(self.name), CONDITIONAL, env);
            }
            (Ask::RenewRead { expected, sent }, Some(Reply::Node(row))) => {
                let row = row.map(|row| own_row(&row));
                self.renewed(expected, sent, RenewalOutcome::Refused(row), env);
            }
            (Ask::Renew { expected, sent } | Ask::RenewRead { expected, sent }, _) => {
                self.renewed(expected, sent, RenewalOutcome::Unknown, env);
            }
            (Ask::List { from }, reply) => self.listed(from, reply, env),
            (Ask::Death { node, incarnation, seq }, Some(Reply::Applied)) => {
                env.oracle.counts.deaths += 1;
                self.declared(node, incarnation, seq, DeathOutcome::Applied, env);
            }
            (Ask::Death { node, incarnation, seq }, Some(_)) => {
                self.ask(Ask::DeathRead { node, incarnation, seq }, Op::ReadNode(node), CONDITIONAL, env);
            }
            (Ask::DeathRead { node, incarnation, seq }, Some(Reply::Node(row))) => {
                let row = row.map(|row| member(node, &row, env));
                self.declared(node, incarnation, seq, DeathOutcome::Refused(row), env);
            }
            (Ask::Death { node, incarnation, seq } | Ask::DeathRead { node, incarnation, seq }, _) => {
                self.declared(node, incarnation, seq, DeathOutcome::Unknown, env);
            }
            // A drain that was not written down is asked for again by the sweep; so is the end.
            (Ask::Drain, _) => {}
            (Ask::Leave, Some(_)) => self.exit(env),
            (Ask::Leave, None) => {
                if let Some(core) = self.core() {
                    core.leaving = false;
                }
            }
        }
    }

    fn joining(&mut self, row: Option<NodeRow>, env: &mut Env) {
        let now = self.now(env);
        let row = row.map(|row| member(self.name, &row, env));
        let Phase::Joining(join) = &mut self.phase else { return };
        match join.row(row.as_ref(), now) {
            JoinStep::Take(seen) => {
                join.sent(now);
                let (node, incarnation) = (self.name, self.who.incarnation);
                let op = Op::Join { node, incarnation, seen: seen.map(|seen| seen.0) };
                self.ask(Ask::JoinWrite, op, CONDITIONAL, env);
            }
            JoinStep::Watch(at) => {
                let after = self.until(at, env);
                env.later(self.who, after, Input::JoinRead);
            }
            JoinStep::Declare(Death { incarnation, seq, .. }) => {
                let (node, status) = (self.name, Status::Dead);
                let op = Op::Mark { node, incarnation: incarnation.0, seq: Some(seq), status };
                self.ask(Ask::JoinWrite, op, CONDITIONAL, env);
            }
            JoinStep::Joined { seq, sent, ended } => {
                let own = row.expect("a node that has joined has a row");
                self.join(own, seq, sent, ended, env);
            }
            JoinStep::Refuse(_) => self.exit(env),
        }
    }

    fn join(&mut self, own: Member, seq: u64, sent: Moment, ended: Option<Incarnation>, env: &mut Env) {
        let (now, timings) = (self.now(env), env.policy.timings);
        let lease = Lease::new(Moment::default);
        let keeper = Keeper::joined(Incarnation(self.who.incarnation), seq, sent, timings, lease.clone());
        let budget = Budget { retry: Duration::from_secs(2), ..Budget::default() };
        let core = Core {
            keeper,
            lease,
            membership: Membership::new(own, ended, timings, now),
            ring: env.ring(1 << self.name),
            rebalancer: Rebalancer::new(env.names[self.name].clone(), budget),
            draining: false,
            leaving: false,
            was_open: true,
            poll: 0,
            polling: false,
            deaths_at: 0,
        };
        env.oracle.counts.joins += 1;
        env.joined[self.name] = Some(self.who);
        self.phase = Phase::Joined(Box::new(core));
        self.schedule_renewal(env);
        self.poll(env);
        env.later(self.who, 100 * MILLI, Input::Sweep);
    }

    fn schedule_renewal(&mut self, env: &mut Env) {
        if let Some(due) = self.core().and_then(|core| core.keeper.due()) {
            let after = self.until(due, env);
            env.later(self.who, after, Input::RenewDue);
        }
    }

    fn renew(&mut self, env: &mut Env) {
        let now = self.now(env);
        let Some(Renewal { incarnation, expected, sent }) = self.core().and_then(|core| core.keeper.renew(now)) else {
            return;
        };
        let op = Op::Renew { node: self.name, incarnation: incarnation.0, seq: expected };
        self.ask(Ask::Renew { expected, sent }, op, env.policy.timings.renew_timeout, env);
    }

    fn renewed(&mut self, expected: u64, sent: Moment, outcome: RenewalOutcome, env: &mut Env) {
        let now = self.now(env);
        let sent = if env.policy.faults.deadline_from_reply { now } else { sent };
        let renewal = Renewal { incarnation: Incarnation(self.who.incarnation), expected, sent };
        let Some(core) = self.core() else { return };
        let standing = core.keeper.renewed(renewal, outcome, now);
        env.oracle.counts.freezes += u64::from(core.was_open && standing == Standing::Frozen);
        core.was_open = standing == Standing::Open;
        if standing == Standing::Dead {
            return self.exit(env);
        }
        self.schedule_renewal(env);
    }

    /// Reads all rows, unless that is under way.
    pub(crate) fn poll(&mut self, env: &mut Env) {
        let from = self.now(env);
        let Some(core) = self.core() else { return };
        if !std::mem::replace(&mut core.polling, true) {
            core.poll += 1;
            self.ask(Ask::List { from }, Op::ListNodes, PLAIN, env);
        }
    }

    fn listed(&mut self, from: Moment, reply: Option<Reply>, env: &mut Env) {
        let now = self.now(env);
        let open = self.is_open(env);
        let mut changes = vec![];
        let rows = match reply {
            Some(Reply::Nodes(rows)) => Some(rows),
            _ => None,
        };
        let (name, who) = (self.name, self.who);
        let Some(core) = self.core() else { return };
        core.polling = false;
        let number = core.poll;
        if let Some(rows) = rows {
            let found = |node: usize| rows[node].as_ref().map(|row| member(node, row, env));
            changes = core.membership.rows((0..MAX_NODES).filter_map(found).collect(), from, now, open);
            if let Some(row) = rows[name] {
                core.keeper.seen(own_row(&row), now);
            }
        }
        let after = self.until(now + env.policy.timings.poll, env);
        env.later(who, after, Input::Poll(number));
        self.changed(&changes, env);
        self.declare(env);
    }

    fn changed(&mut self, changes: &[Change], env: &mut Env) {
        let me = env.names[self.name].clone();
        if changes.iter().any(|change| matches!(change, Change::Died { node, .. } if *node == me)) {
            return self.exit(env);
        }
        if !changes.iter().any(Change::moves_sessions) {
            return;
        }
        let Some(core) = self.core() else { return };
        let view = core.membership.view();
        let bit = |node: usize| u8::from(view.active().any(|peer| peer.member.node == env.names[node])) << node;
        core.ring = env.ring((0..MAX_NODES).map(bit).sum());
        self.plan(env);
    }

    /// Plans the moves of what runs here.
    pub(crate) fn plan(&mut self, env: &Env) {
        let running = |session: &usize| self.sessions[*session].running().is_some();
        let own: Placement = (0..env.sessions.len()).filter(running).map(|session| env.sessions[session]).collect();
        if let Some(core) = self.core() {
            let ring = Rc::clone(&core.ring);
            core.rebalancer.plan(&ring, &own, |_| true);
        }
    }

    fn declare(&mut self, env: &mut Env) {
        let now = self.now(env);
        let Some(core) = self.core() else { return };
        let deaths = core.membership.due(now);
        let next = core.membership.next_due();
        for Death { node, incarnation, seq } in deaths {
            let node = index_of(&node, env);
            let incarnation = incarnation.0;
            let expected = (!env.policy.faults.death_without_seq).then_some(seq);
            let op = Op::Mark { node, incarnation, seq: expected, status: Status::Dead };
            self.ask(Ask::Death { node, incarnation, seq }, op, CONDITIONAL, env);
        }
        if let Some(next) = next {
            let after = self.until(next, env).max(MILLI);
            self.look_at_deaths(after, env);
        }
    }

    fn look_at_deaths(&mut self, after: u64, env: &mut Env) {
        let (who, at) = (self.who, env.now + after);
        let Some(core) = self.core() else { return };
        if core.deaths_at <= env.now || at < core.deaths_at {
            core.deaths_at = at;
            env.later(who, after, Input::DeathsDue);
        }
    }

    fn declared(&mut self, node: usize, incarnation: u64, seq: u64, outcome: DeathOutcome, env: &mut Env) {
        let now = self.now(env);
        let death = Death { node: env.names[node].clone(), incarnation: Incarnation(incarnation), seq };
        let Some(core) = self.core() else { return };
        let changes = core.membership.declared(&death, outcome, now);
        self.changed(&changes, env);
        if self.alive {
            self.declare(env);
        }
    }

    /// What has become of the holder of an owner row that was answered just now.
    pub(crate) fn fate(&mut self, holder: Option<(usize, u64)>, env: &Env) -> Fate {
        let (now, faults) = (self.now(env), env.policy.faults);
        let Some((node, incarnation)) = holder else { return Fate::Unknown };
        let name = &env.names[node];
        let Some(core) = self.core() else { return Fate::Unknown };
        let named_at = if faults.mismatch_is_death { Moment::default() } else { now };
        let fate = core.membership.fate(name, Incarnation(incarnation), named_at);
        let suspected = core.membership.view().get(name).is_some_and(|peer| peer.suspected);
        if faults.steal_from_living && suspected && fate == Fate::Alive { Fate::Dead } else { fate }
    }

    fn sweep(&mut self, env: &mut Env) {
        for session in 0..env.sessions.len() {
            self.wanted(session, false, env);
        }
        self.plan(env);
        self.begin_moves(env);
        let again = env.random.range(400 * MILLI, 900 * MILLI);
        env.later(self.who, again, Input::Sweep);
        let idle = self.sessions.iter().all(|session| session.running().is_none());
        let (node, incarnation) = (self.name, self.who.incarnation);
        let Some(core) = self.core() else { return };
        if core.draining && idle && !std::mem::replace(&mut core.leaving, true) {
            let op = Op::Mark { node, incarnation, seq: None, status: Status::Dead };
            self.ask(Ask::Leave, op, CONDITIONAL, env);
        } else if core.draining && !core.leaving {
            self.mark_draining(env);
        }
    }

    fn drain(&mut self, env: &mut Env) {
        if let Some(core) = self.core() {
            core.draining = true;
            self.mark_draining(env);
        }
    }

    fn mark_draining(&mut self, env: &mut Env) {
        let (node, incarnation) = (self.name, self.who.incarnation);
        let op = Op::Mark { node, incarnation, seq: None, status: Status::Draining };
        self.ask(Ask::Drain, op, CONDITIONAL, env);
    }

    pub(crate) fn exit(&mut self, env: &mut Env) {
        if let Some(core) = self.core() {
            core.keeper.die();
        }
        for (session, conn) in self.kill() {
            env.hang_up(session, conn);
        }
    }
}

pub(crate) fn index_of(node: &rookery_protocol::NodeId, env: &Env) -> usize {
    env.names.iter().position(|name| name == node).expect("only nodes of the schedule are named")
}

fn own_row(row: &NodeRow) -> OwnRow {
    OwnRow { incarnation: Incarnation(row.incarnation), seq: row.seq, status: row.status }
}

fn member(node: usize, row: &NodeRow, env: &Env) -> Member {
    Member {
        node: env.names[node].clone(),
        incarnation: Incarnation(row.incarnation),
        seq: row.seq,
        status: row.status,
        weight: FULL_WEIGHT,
        link_address: String::new(),
        api_address: String::new(),
        protocol: 1,
    }
}
