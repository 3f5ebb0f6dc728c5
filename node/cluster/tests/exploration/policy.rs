//! What the model does: the design, or a design with one fault, which the exploration must find.

use rookery_cluster::timings::Timings;

/// The faults of design that can be put in. None of them is in the product: each is what the model does around it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The lease is counted from the reply to a renewal.
    pub deadline_from_reply: bool,
    /// A claim is conditional on the holder alone and not on the epoch.
    pub claim_without_epoch: bool,
    /// A death is declared whatever the number of renewals is by then.
    pub death_without_seq: bool,
    /// A suspected node's sessions are claimed as if it were dead.
    pub steal_from_living: bool,
    /// The frame goes out before the ratchet is durable.
    pub flush_after_wire: bool,
    /// No look at the lease after a write has returned.
    pub no_check_after_write: bool,
    /// An incarnation that is not in its node's row counts as dead, whenever that row was read.
    pub mismatch_is_death: bool,
    /// After a release in doubt the session goes on under the same epoch.
    pub epoch_kept_after_release: bool,
    /// A new owner does not seal what a dead one left.
    pub no_seal: bool,
    /// The lease is looked at where a socket is opened, and not again where the login goes out.
    pub no_check_at_login: bool,
    /// The clock of the lease stands still while the process does.
    pub clock_stands_still: bool,
}

/// What a schedule is run under.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Policy {
    pub faults: Faults,
    /// Whether a firewall resets links and refuses connections to processes that run.
    pub forged_resets: bool,
    /// Whether the fast path to a death is on; by chance if not said.
    pub fast_death: Option<bool>,
    /// Whether an owner reads its owner row after it wrote a ratchet and before the frame goes out.
    pub owner_read_before_wire: bool,
    pub timings: Timings,
}

impl Policy {
    pub(crate) fn with(change: impl Fn(&mut Faults)) -> Self {
        let mut policy = Self::default();
        change(&mut policy.faults);
        policy
    }
}
