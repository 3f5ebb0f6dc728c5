//! What an idle session weighs.

use crate::{
    fleet::Fleet,
    gateway::PREKEYS,
    process::Programs,
    report::{Goal, Report, Rounds},
};

const FEW: usize = 100;
const MANY: usize = 1000;

/// `idle_memory`
pub(super) async fn idle(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut marginal = Rounds::default();
    let mut totals = Vec::new();
    for _ in 0..rounds {
        let mut fleet = Fleet::start(programs, FEW).await?;
        fleet.rest().await?;
        let few = fleet.gateway().process.rss_kib()?;
        let meter = fleet.meter()?;
        fleet.grow(MANY).await?;
        fleet.rest().await?;
        let many = fleet.gateway().process.rss_kib()?;
        marginal.add((many - few) / (MANY - FEW) as f64, fleet.used(&meter)?);
        totals.push(format!("{:.0} to {:.0} MiB", few / 1024.0, many / 1024.0));
        fleet.end().await?;
    }
    let note = format!(
        "right after pairing, {PREKEYS} prekeys a session, from {FEW} to {MANY} sessions; resident: {}",
        totals.join(", ")
    );
    report.add_with_note("idle_memory", "KiB/session", Goal::AtMost(200.0), &marginal, Some(note));
    Ok(())
}
