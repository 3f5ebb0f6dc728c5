//! The database: conditional statements one after the other, and cells of which the highest timestamp wins.

use rookery_cluster::membership::Status;

pub(crate) const MAX_NODES: usize = 4;
pub(crate) const MAX_SESSIONS: usize = 2;

/// Of how many writes an epoch's timestamps have room.
pub(crate) const WRITES: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeRow {
    pub incarnation: u64,
    pub seq: u64,
    pub status: Status,
}

pub(crate) type NodeRows = [Option<NodeRow>; MAX_NODES];

/// A session's owner row: the epoch, and the name and incarnation of who has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub epoch: u64,
    pub holder: Option<(usize, u64)>,
}

/// A session's ratchet: how far it was written, and by which write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ratchet {
    pub counter: u64,
    pub timestamp: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    ListNodes,
    ReadNode(usize),
    Join { node: usize, incarnation: u64, seen: Option<u64> },
    Renew { node: usize, incarnation: u64, seq: u64 },
    Mark { node: usize, incarnation: u64, seq: Option<u64>, status: Status },
    ReadOwner(usize),
    Claim { session: usize, seen: Owner, by: (usize, u64), holder_only: bool },
    Release { session: usize, epoch: u64 },
    Load(usize),
    Write { session: usize, by: (usize, u64), ratchet: Ratchet },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    Nodes(NodeRows),
    Node(Option<NodeRow>),
    Owner(Owner),
    /// A conditional statement was applied.
    Applied,
    /// It was not.
    Refused,
    Ratchet(u64),
    Written,
}

/// What an operation changed that somebody watches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effect {
    None,
    Epoch { session: usize, before: u64, after: u64 },
    Counts { session: usize, by: (usize, u64), epoch: u64 },
}

/// A row that was changed by a statement whose answer was lost: a plain read may still show what was there before.
#[derive(Clone, Copy, Debug)]
struct Hidden {
    before: Option<NodeRow>,
    until: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Database {
    nodes: NodeRows,
    hidden: [Option<Hidden>; MAX_NODES],
    pub owners: [Owner; MAX_SESSIONS],
    pub ratchets: [Ratchet; MAX_SESSIONS],
}

impl Database {
    /// Does one operation at the moment `now`. `unanswered` are statements whose answer is lost.
    pub(crate) fn apply(&mut self, op: Op, unanswered: bool, now: u64) -> (Reply, Effect) {
        let quiet = |reply| (reply, Effect::None);
        match op {
            Op::ListNodes => quiet(Reply::Nodes(self.plain_read(now))),
            Op::ReadNode(node) => {
                // A serial read brings to its end what was begun.
                self.hidden[node] = None;
                quiet(Reply::Node(self.nodes[node]))
            }
            Op::Join { node, incarnation, seen } => {
                let free = match (self.nodes[node], seen) {
                    (None, None) => true,
                    (Some(row), Some(seen)) => row.incarnation == seen && row.status == Status::Dead,
                    _ => false,
                };
                let row = NodeRow { incarnation, seq: 0, status: Status::Active };
                quiet(self.change(node, free.then_some(row), unanswered, now))
            }
            Op::Renew { node, incarnation, seq } => {
                let row = self.nodes[node].filter(|row| row.incarnation == incarnation && row.seq == seq);
                let row = row.filter(|row| row.status != Status::Dead).map(|row| NodeRow { seq: seq + 1, ..row });
                quiet(self.change(node, row, unanswered, now))
            }
            Op::Mark { node, incarnation, seq, status } => {
                let row = self.nodes[node].filter(|row| row.incarnation == incarnation && row.status != Status::Dead);
                let row = row.filter(|row| seq.is_none_or(|seq| seq == row.seq));
                quiet(self.change(node, row.map(|row| NodeRow { status, ..row }), unanswered, now))
            }
            Op::ReadOwner(session) => quiet(Reply::Owner(self.owners[session])),
            Op::Claim { session, seen, by, holder_only } => {
                let row = self.owners[session];
                if row != seen && !(holder_only && row.holder == seen.holder) {
                    return quiet(Reply::Refused);
                }
                self.owners[session] = Owner { epoch: seen.epoch + 1, holder: Some(by) };
                (Reply::Applied, Effect::Epoch { session, before: row.epoch, after: seen.epoch + 1 })
            }
            Op::Release { session, epoch } => {
                if self.owners[session].epoch == epoch {
                    self.owners[session].holder = None;
                }
                quiet(Reply::Applied)
            }
            Op::Load(session) => quiet(Reply::Ratchet(self.ratchets[session].counter)),
            Op::Write { session, by, ratchet } => {
                let counts = ratchet.timestamp > self.ratchets[session].timestamp;
                if counts {
                    self.ratchets[session] = ratchet;
                }
                let epoch = ratchet.timestamp / WRITES;
                (Reply::Written, if counts { Effect::Counts { session, by, epoch } } else { Effect::None })
            }
        }
    }

    fn change(&mut self, node: usize, row: Option<NodeRow>, unanswered: bool, now: u64) -> Reply {
        if row.is_none() {
            return Reply::Refused;
        }
        self.hidden[node] = unanswered.then(|| Hidden { before: self.nodes[node], until: now + 400_000 });
        self.nodes[node] = row;
        Reply::Applied
    }

    fn plain_read(&self, now: u64) -> NodeRows {
        let mut rows = self.nodes;
        for (row, hidden) in rows.iter_mut().zip(self.hidden) {
            if let Some(hidden) = hidden.filter(|hidden| now < hidden.until) {
                *row = hidden.before;
            }
        }
        rows
    }
}
