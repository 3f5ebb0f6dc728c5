//! Everything outside of the processes: time, the network, the database's and WhatsApp's ends of it, and faults.

mod faults;

use crate::{
    database::{Database, MAX_NODES, MAX_SESSIONS, Op, Reply},
    oracle::{Actor, Oracle},
    policy::Policy,
    process::Process,
    random::Random,
};
use rookery_cluster::{
    clock::Moment,
    ring::{FULL_WEIGHT, Ring},
};
use rookery_protocol::{NodeId, SessionId};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    rc::Rc,
    time::Duration,
};

pub(crate) const MILLI: u64 = 1_000;
pub(crate) const SECOND: u64 = 1_000_000;

/// One run of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub process: usize,
    pub incarnation: u64,
}

/// What a process asked the database for, and on whose behalf.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    JoinRead,
    JoinWrite,
    List {
        from: Moment,
    },
    Renew {
        expected: u64,
        sent: Moment,
    },
    RenewRead {
        expected: u64,
        sent: Moment,
    },
    Death {
        node: usize,
        incarnation: u64,
        seq: u64,
    },
    DeathRead {
        node: usize,
        incarnation: u64,
        seq: u64,
    },
    Drain,
    Leave,
    /// Of a session: its number, and the count of its starts in this process, which makes old answers void.
    Session(usize, u32, SessionAsk),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum SessionAsk {
    Owner,
    Claim { seen: crate::database::Owner, tries: u8 },
    ClaimRead { seen: crate::database::Owner, tries: u8 },
    Load,
    Write,
    OwnerBeforeWire { counter: u64 },
    Replaced,
    Release,
}

/// What reaches a process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input {
    Start,
    JoinRead,
    RenewDue,
    Poll(u64),
    DeathsDue,
    Sweep,
    Session(usize, u32, SessionInput),
    /// An answer of the database, or none in time.
    Database(u64, Ask, Option<Reply>),
    /// A peer or a client wants the session served here.
    Activate(usize),
    LinkReset {
        node: usize,
        incarnation: u64,
    },
    LinkRefused {
        node: usize,
        incarnation: u64,
    },
    LinkMade {
        node: usize,
    },
    DrainRequested,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum SessionInput {
    Retry,
    WriteAgain,
    Send,
    Wire {
        conn: u64,
        counter: u64,
    },
    HandoverTick,
    /// The server's part of the handshake has come: the login can go out.
    Greeted {
        conn: u64,
    },
    Connected {
        conn: u64,
    },
    /// The connection is gone; `replaced` by another one of the same device.
    Closed {
        conn: u64,
        replaced: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Process(Who, Input),
    Database { who: Who, ticket: u64, ask: Ask, op: Op, answer_after: Option<u64> },
    Login { session: usize, conn: u64, who: Who, token: u32, actor: Actor },
    Frame { session: usize, conn: u64 },
    Hangup { session: usize, conn: u64 },
    Resume(usize),
    Restart(usize),
    Fault,
    Heal(Heal),
    Request,
}

#[derive(Clone, Copy, Debug)]
enum Heal {
    DatabaseCut(usize),
    PeerCut(usize),
    Down,
    Slow,
}

struct Queued(u64, u64, Event);

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    conn: u64,
    who: Who,
    token: u32,
    actor: Actor,
}

thread_local! {
    static RINGS: std::cell::RefCell<HashMap<u8, Rc<Ring>>> = std::cell::RefCell::default();
}

/// What processes see of the world.
pub(crate) struct Env {
    pub now: u64,
    pub policy: Policy,
    pub random: Random,
    pub oracle: Oracle,
    pub names: [NodeId; MAX_NODES],
    pub sessions: Vec<SessionId>,
    pub trace: Option<Vec<String>>,
    database: Database,
    queue: BinaryHeap<Reverse<Queued>>,
    order: u64,
    tickets: u64,
    connections: [Option<Connection>; MAX_SESSIONS],
    database_cut: [bool; MAX_NODES],
    peer_cut: [bool; MAX_NODES],
    down: bool,
    /// Of a thousand requests, how many are slow or lost.
    slow: u64,
    faults_until: u64,
    /// For how long the process that is at work stops after this step: it has decided on a request and not sent it.
    stops: Option<u64>,
    /// The process of each name that has joined last.
    pub joined: [Option<Who>; MAX_NODES],
    pub name_of: [usize; MAX_NODES],
    incarnations: u64,
}

impl Env {
    pub(crate) fn log(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>10.4} {}", self.now as f64 / SECOND as f64, text()));
        }
    }

    fn push(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Queued(at, self.order, event)));
    }

    pub(crate) fn later(&mut self, who: Who, after: u64, input: Input) {
        self.push(self.now + after, Event::Process(who, input));
    }

    pub(crate) fn ring(&self, active: u8) -> Rc<Ring> {
        RINGS.with_borrow_mut(|rings| {
            let nodes = || (0..MAX_NODES).filter(|node| active >> node & 1 == 1);
            let ring = || Rc::new(Ring::new(nodes().map(|node| (self.names[node].clone(), FULL_WEIGHT))));
            rings.entry(active).or_insert_with(ring).clone()
        })
    }

    /// Sends an operation; its answer, or the lack of one, comes back as [`Input::Database`].
    pub(crate) fn ask(&mut self, who: Who, ask: Ask, op: Op, timeout: Duration) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        let timeout = timeout.as_micros() as u64;
        let (mut there, mut back) = (self.random.range(300, 3_000), self.random.range(300, 3_000));
        let stopped = self.stop_before(op);
        let mut lost = self.down || self.database_cut[who.process];
        let mut answered = true;
        if self.random.chance(self.slow) {
            match self.random.index(5) {
                0 => lost = true,
                1 => answered = false,
                2 => there = self.random.range(0, 12 * SECOND),
                3 => there = self.random.range(0, 2 * SECOND),
                _ => back = self.random.range(0, 4 * SECOND),
            }
        }
        // A request that was lost on its way to a paused server may still come, long after its sender gave up.
        if lost && self.random.chance(200) {
            (lost, answered) = (false, false);
            there = self.random.range(0, 15 * SECOND);
        }
        if !lost {
            let answer_after = answered.then_some(back);
            self.push(self.now + stopped + there, Event::Database { who, ticket, ask, op, answer_after });
        }
        if lost || !answered || there + back > timeout {
            self.oracle.counts.unknown += 1;
            self.push(self.now + stopped + timeout, Event::Process(who, Input::Database(ticket, ask, None)));
        }
        ticket
    }

    /// Whether the process stops between deciding and sending, and for how long: then it sends what it had decided.
    fn stop_before(&mut self, op: Op) -> u64 {
        let delicate = matches!(op, Op::Claim { .. } | Op::Mark { .. } | Op::Release { .. } | Op::Join { .. });
        let odds = if delicate { 15 } else { 1 };
        if !self.in_faults() || self.now < SECOND || !self.random.chance(odds) {
            return self.stops.unwrap_or(0);
        }
        let lasts = self.pause_length();
        *self.stops.get_or_insert(lasts)
    }

    /// Half of all stops are short; none goes on after the faults.
    fn pause_length(&mut self) -> u64 {
        let longest = if self.random.chance(500) { 4 * SECOND } else { 30 * SECOND };
        self.random.range(MILLI, longest).min(self.faults_until.saturating_sub(self.now).max(1))
    }

    /// Tells the process that has this name now.
    pub(crate) fn tell(&mut self, from: usize, name: usize, input: Input) {
        let Some(to) = self.joined[name] else { return };
        if to.process == from || self.peer_cut[from] || self.peer_cut[to.process] {
            return;
        }
        if self.random.chance(30 + self.slow / 2) {
            return;
        }
        let after =
            if self.random.chance(50) { self.random.range(0, 3 * SECOND) } else { self.random.range(100, 2_000) };
        self.later(to, after, input);
    }

    /// Opens a connection: nothing of it is seen by the server's device table until the login.
    pub(crate) fn dial(&mut self, who: Who, session: usize, token: u32) -> u64 {
        self.tickets += 1;
        let conn = self.tickets;
        let after = self.random.range(5 * MILLI, 80 * MILLI);
        self.later(who, after, Input::Session(session, token, SessionInput::Greeted { conn }));
        conn
    }

    pub(crate) fn login(&mut self, who: Who, session: usize, token: u32, conn: u64, actor: Actor) {
        let after = self.random.range(2 * MILLI, 60 * MILLI);
        self.push(self.now + after, Event::Login { session, conn, who, token, actor });
    }

    pub(crate) fn frame(&mut self, session: usize, conn: u64) {
        let after = self.random.range(2 * MILLI, 60 * MILLI);
        self.push(self.now + after, Event::Frame { session, conn });
    }

    pub(crate) fn hang_up(&mut self, session: usize, conn: u64) {
        let after = self.random.range(2 * MILLI, 60 * MILLI);
        self.push(self.now + after, Event::Hangup { session, conn });
    }

    pub(crate) fn fresh_incarnation(&mut self) -> u64 {
        // In no order, like the real ones.
        self.incarnations += 1;
        (self.random.range(1, 1 << 20) << 8) | self.incarnations
    }

    fn in_faults(&self) -> bool {
        self.now < self.faults_until
    }
}

pub(crate) struct World {
    pub env: Env,
    pub processes: Vec<Process>,
}

impl World {
    pub(crate) fn new(seed: u64, policy: Policy, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let mut policy = policy;
        policy.timings.fast_death = policy.fast_death.unwrap_or_else(|| random.chance(500));
        let processes = random.range(2, MAX_NODES as u64 + 1) as usize;
        let sessions = random.range(1, MAX_SESSIONS as u64 + 1) as usize;
        let mut name_of = [0, 1, 2, 3];
        if processes > 2 && random.chance(30) {
            // Two processes of one name.
            name_of[processes - 1] = 0;
        }
        let faults_until = random.range(4 * SECOND, 26 * SECOND);
        let session = |random: &mut Random| {
            let (high, low) = (u128::from(random.next()), u128::from(random.next()));
            SessionId::from_bytes((high << 64 | low).to_be_bytes())
        };
        let mut env = Env {
            now: 0,
            policy,
            oracle: Oracle::default(),
            names: std::array::from_fn(|node| format!("n{node}").parse().expect("a legal name")),
            sessions: (0..sessions).map(|_| session(&mut random)).collect(),
            trace: traced.then(Vec::new),
            database: Database::default(),
            queue: BinaryHeap::new(),
            order: 0,
            tickets: 0,
            connections: [None; MAX_SESSIONS],
            database_cut: [false; MAX_NODES],
            peer_cut: [false; MAX_NODES],
            down: false,
            slow: 0,
            faults_until,
            stops: None,
            joined: [None; MAX_NODES],
            name_of,
            incarnations: 0,
            random,
        };
        if policy.forged_resets && policy.timings.fast_death {
            // Until its next renewal is refused, a node does not know that it was declared dead; and when no renewal is
            // answered either, not before its lease ends, on the slowest of clocks.
            env.oracle.overlap_allowed = policy.timings.lease.as_micros() as u64 * 106 / 100;
        }
        let list: Vec<_> = (0..processes).map(|process| Process::new(process, &mut env)).collect();
        for (index, process) in list.iter().enumerate() {
            // One of them may join late.
            let late = index == processes - 1 && env.random.chance(300);
            let after = if late { env.random.range(SECOND, 12 * SECOND) } else { env.random.range(0, 50 * MILLI) };
            env.later(process.who, after, Input::Start);
        }
        for _ in 0..env.random.range(0, 7) {
            let at = env.random.range(1_500 * MILLI, faults_until);
            env.push(at, Event::Fault);
        }
        env.push(500 * MILLI, Event::Request);
        Self { env, processes: list }
    }

    /// Runs the schedule to its end: all sessions are connected again, or the time for that is over.
    pub(crate) fn run(&mut self, takeover: u64) {
        let quiet = self.env.faults_until;
        while let Some(Reverse(Queued(at, _, event))) = self.env.queue.pop() {
            self.env.now = at;
            self.env.oracle.counts.events += 1;
            self.handle(event);
            if self.env.oracle.violation.is_some() {
                return;
            }
            if at > quiet + 4 * SECOND && matches!(event, Event::Request) && self.all_served() {
                return;
            }
            if at > quiet + takeover {
                let states: Vec<_> = self.processes.iter().map(Process::summary).collect();
                let owners = self.env.database.owners;
                let what = format!(
                    "not every session is connected {} s after the faults: {owners:?}, {states:?}",
                    takeover / SECOND
                );
                self.env.oracle.violate("I8", what);
                return;
            }
        }
    }

    fn all_served(&self) -> bool {
        (0..self.env.sessions.len()).all(|session| {
            self.env.connections[session].is_some_and(|connection| {
                let process = &self.processes[connection.who.process];
                process.is_up(session, connection.conn) && process.who == connection.who
            })
        })
    }

    fn handle(&mut self, event: Event) {
        let env = &mut self.env;
        match event {
            Event::Process(who, input) => self.deliver(who, input),
            Event::Database { who, ticket, ask, op, answer_after } => {
                let (reply, effect) = env.database.apply(op, answer_after.is_none(), env.now);
                env.log(|| format!("database: {op:?} of {who:?} -> {reply:?}"));
                env.oracle.database(effect, env.now);
                if let Some(after) = answer_after {
                    env.later(who, after, Input::Database(ticket, ask, Some(reply)));
                }
            }
            Event::Login { session, conn, who, token, actor } => {
                env.log(|| format!("whatsapp: login for {session} by {actor:?} on connection {conn}"));
                let connection = Connection { conn, who, token, actor };
                let (to, after) = (Input::Session(session, token, SessionInput::Connected { conn }), 2 * MILLI);
                if let Some(old) = env.connections[session].replace(connection) {
                    env.oracle.kick(session, old.actor, actor);
                    let closed = SessionInput::Closed { conn: old.conn, replaced: true };
                    env.later(old.who, after, Input::Session(session, old.token, closed));
                }
                env.later(who, after, to);
            }
            Event::Frame { session, conn } => {
                let current = env.connections[session].is_some_and(|connection| connection.conn == conn);
                env.log(|| format!("whatsapp: frame for {session} on connection {conn}, accepted: {current}"));
            }
            Event::Hangup { session, conn } => {
                if env.connections[session].is_some_and(|connection| connection.conn == conn) {
                    env.connections[session] = None;
                }
            }
            Event::Resume(process) => {
                env.log(|| format!("process {process} goes on"));
                self.processes[process].resume(env);
            }
            Event::Restart(process) => {
                let process = &mut self.processes[process];
                if !process.alive {
                    process.restart(env);
                }
            }
            Event::Request => {
                let process = env.random.index(self.processes.len());
                let session = env.random.index(env.sessions.len());
                let who = self.processes[process].who;
                env.later(who, 0, Input::Activate(session));
                let next = env.now + env.random.range(200 * MILLI, 900 * MILLI);
                env.push(next, Event::Request);
            }
            Event::Fault => self.fault(),
            Event::Heal(heal) => match heal {
                Heal::DatabaseCut(process) => env.database_cut[process] = false,
                Heal::PeerCut(process) => env.peer_cut[process] = false,
                Heal::Down => env.down = false,
                Heal::Slow => env.slow = 0,
            },
        }
    }

    fn deliver(&mut self, who: Who, input: Input) {
        let env = &mut self.env;
        let process = &mut self.processes[who.process];
        if process.who != who || !process.alive {
            return;
        }
        if process.paused {
            process.stash.push(input);
            return;
        }
        let input = match input {
            // A port that somebody listens on again refuses nobody.
            Input::LinkRefused { node, incarnation }
                if !env.policy.forged_resets && env.joined[node].is_some_and(|new| new.incarnation != incarnation) =>
            {
                Input::LinkMade { node }
            }
            other => other,
        };
        env.log(|| format!("{who:?} <- {input:?}"));
        process.handle(input, env);
        let stops = env.stops.take();
        if !process.alive {
            self.ended(who.process);
            return;
        }
        if let Some(lasts) = stops {
            return self.pause(who.process, lasts);
        }
        // The process may stop after any step, and more often where it has much to lose.
        let delicate = matches!(
            input,
            Input::Session(..) | Input::Database(_, Ask::Session(..) | Ask::Renew { .. } | Ask::List { .. }, _)
        );
        let odds = if delicate { 4 } else { 1 };
        if env.in_faults() && env.now > SECOND && env.random.chance(odds) && env.random.chance(400) {
            let lasts = self.env.pause_length();
            self.pause(who.process, lasts);
        }
    }
}

/// Runs one schedule.
pub(crate) fn explore(seed: u64, policy: Policy, traced: bool) -> Env {
    let mut world = World::new(seed, policy, traced);
    // Nine seconds of watching on the slowest clock, a start that watches first, and the way to a connection. An owner
    // that was kicked by a node which did not know yet that it was declared dead waits for a minute before it returns.
    let kicked = if policy.forged_resets { 60 * SECOND } else { 0 };
    world.run(40 * SECOND + kicked);
    world.env
}
