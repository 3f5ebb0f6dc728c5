//! What goes wrong: processes that stop, end or are killed, cuts, an absent or slow database, and hosts that lie.

use super::{Connection, Event, Heal, MILLI, SECOND, SessionInput, Who, World};
use crate::world::Input;

impl World {
    pub(super) fn pause(&mut self, process: usize, lasts: u64) {
        let env = &mut self.env;
        let until = env.now + lasts;
        env.oracle.counts.pauses += 1;
        env.log(|| format!("process {process} stops until {:.4}", until as f64 / SECOND as f64));
        self.processes[process].pause(env.now);
        env.push(until, Event::Resume(process));
    }

    /// A process has ended by itself or was killed: its sockets go, and somebody starts it again.
    pub(super) fn ended(&mut self, process: usize) {
        let env = &mut self.env;
        let after = env.random.range(50 * MILLI, 6 * SECOND);
        let at = (env.now + after).min(env.faults_until.max(env.now + SECOND));
        env.push(at, Event::Restart(process));
    }

    fn crash(&mut self, process: usize) {
        let who = self.processes[process].who;
        if !self.processes[process].alive {
            return;
        }
        // Without its host, nobody is told: no reset, no refusal, and the server keeps the connection.
        let with_host = self.env.random.chance(300);
        self.env.oracle.counts.crashes += 1;
        self.env.log(|| format!("process {process} is killed, with its host: {with_host}"));
        let conns = self.processes[process].kill();
        let name = self.env.name_of[process];
        if !with_host {
            for (session, conn) in conns {
                self.env.hang_up(session, conn);
            }
            if self.env.joined[name] == Some(who) {
                self.refusals(who, name);
            }
        }
        self.ended(process);
    }

    /// All others see the link reset, and connections refused, for as long as the process is not there again.
    fn refusals(&mut self, who: Who, name: usize) {
        let watchers: Vec<_> =
            self.processes.iter().filter(|other| other.who.process != who.process).map(|other| other.who).collect();
        for watcher in watchers {
            let env = &mut self.env;
            if env.peer_cut[watcher.process] || env.peer_cut[who.process] {
                continue;
            }
            let first = env.random.range(MILLI, 30 * MILLI);
            env.later(watcher, first, Input::LinkReset { node: name, incarnation: who.incarnation });
            for attempt in 1..=4 {
                let refused = Input::LinkRefused { node: name, incarnation: who.incarnation };
                env.later(watcher, first + attempt * 100 * MILLI, refused);
            }
        }
    }

    pub(super) fn fault(&mut self) {
        let process = self.env.random.index(self.processes.len());
        let env = &mut self.env;
        let lasts = env.random.range(100 * MILLI, 25 * SECOND);
        let until = (env.now + lasts).min(env.faults_until.max(env.now + 1));
        let kind = env.random.index(if env.policy.forged_resets { 11 } else { 9 });
        env.log(|| format!("fault {kind} of process {process} until {:.4}", until as f64 / SECOND as f64));
        match kind {
            0 => {
                let lasts = env.pause_length();
                self.pause(process, lasts);
            }
            1 => self.crash(process),
            2 => {
                env.database_cut[process] = true;
                env.push(until, Event::Heal(Heal::DatabaseCut(process)));
            }
            3 => {
                env.peer_cut[process] = true;
                env.push(until, Event::Heal(Heal::PeerCut(process)));
            }
            4 => {
                (env.database_cut[process], env.peer_cut[process]) = (true, true);
                env.push(until, Event::Heal(Heal::DatabaseCut(process)));
                env.push(until, Event::Heal(Heal::PeerCut(process)));
            }
            5 => {
                env.down = true;
                env.push(until, Event::Heal(Heal::Down));
            }
            6 => {
                env.slow = env.random.range(50, 700);
                env.push(until, Event::Heal(Heal::Slow));
            }
            7 => {
                let who = self.processes[process].who;
                env.later(who, 0, Input::DrainRequested);
            }
            8 => {
                // The network drops a connection.
                let session = env.random.index(env.sessions.len());
                if let Some(Connection { conn, who, token, .. }) = env.connections[session] {
                    env.hang_up(session, conn);
                    let closed = SessionInput::Closed { conn, replaced: false };
                    env.later(who, MILLI, Input::Session(session, token, closed));
                }
            }
            _ => {
                let who = self.processes[process].who;
                self.refusals(who, self.env.name_of[process]);
            }
        }
    }
}
