//! How soon linked sessions are connected after a start.

use crate::{
    fleet::Fleet,
    process::Programs,
    report::{Goal, Report, Rounds},
};

const SESSIONS: usize = 1000;

/// `reconnect`
pub(super) async fn all(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut fleet = Fleet::start(programs, SESSIONS).await?;
    let mut secs = Rounds::default();
    for _ in 0..rounds {
        fleet.rest().await?;
        fleet.stop_gateway().await?;
        let (took, cpu) = fleet.start_gateway().await?;
        secs.add(took.as_secs_f64(), cpu);
    }
    report.add("reconnect", "s", Goal::AtMost(5.0), &secs);
    fleet.end().await
}
