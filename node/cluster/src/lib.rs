//! The cluster: which node may act, which session belongs where, and the links between nodes.
//!
//! Decisions are pure functions of state, event and `now`, and know neither a socket nor a database; the links carry
//! bytes between routers and decide nothing. Knows nothing of WhatsApp.

pub mod certs;
pub mod claim;
pub mod clock;
pub mod handover;
pub mod join;
pub mod lease;
pub mod link;
pub mod membership;
pub mod placement;
pub mod rebalance;
pub mod ring;
pub mod timings;
mod view;
