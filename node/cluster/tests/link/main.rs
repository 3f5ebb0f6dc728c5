//! Links between real processes: calls, failures, certificates, upgrades, and whatever strangers do to a port.
//!
//! Every node is a process of its own, this very binary started again ([`node`]), since the groups and the registry
//! of actors belong to the process.

mod calls;
mod cluster;
mod faults;
mod node;
mod pki;
mod strangers;
mod trust;
mod upgrades;
