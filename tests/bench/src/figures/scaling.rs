//! Whether a session costs the same among many as among few.
//!
//! At each size the gateway is started anew, so that it is in the same state at all of them: what it holds then
//! are linked, idle sessions, over 50 of which texts are sent.

use super::sends;
use crate::{
    fleet::Fleet,
    process::Programs,
    report::{Goal, Report, Rounds},
};

const SIZES: [usize; 3] = [100, 1000, 5000];
/// Sessions before the first size, so that it does not pay for what a process needs once.
const SEED: usize = 10;
/// How much more something may cost at the larger sizes than at the smallest.
const TOLERANCE: f64 = 1.1;

/// The costs at one size.
#[derive(Default)]
struct Costs {
    memory: Rounds,
    latency: Rounds,
    throughput: Rounds,
    reconnect: Rounds,
}

/// `scaling`
pub(super) async fn all(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut fleet = Fleet::start(programs, SEED).await?;
    fleet.stop_gateway().await?;
    fleet.start_gateway().await?;
    fleet.rest().await?;
    let mut before = (SEED, fleet.gateway().process.rss_kib()?);
    let mut base = None;
    for size in SIZES {
        let (resident, costs) = at(&mut fleet, size, rounds, before).await?;
        let base = base.get_or_insert_with(|| {
            let [memory, latency, throughput, reconnect] = costs.medians();
            [memory * TOLERANCE, latency * TOLERANCE, throughput / TOLERANCE, reconnect * TOLERANCE]
        });
        costs.report(size, base, report);
        before = (size, resident);
    }
    fleet.end().await
}

/// Measures at one size. `before`: the size before and the resident memory there, in KiB. Answers that memory
/// here, too.
async fn at(fleet: &mut Fleet, size: usize, rounds: usize, before: (usize, f64)) -> anyhow::Result<(f64, Costs)> {
    fleet.grow(size).await?;
    let mut resident = Rounds::default();
    let mut costs = Costs::default();
    for _ in 0..rounds {
        fleet.rest().await?;
        fleet.stop_gateway().await?;
        let (took, cpu) = fleet.start_gateway().await?;
        costs.reconnect.add(took.as_secs_f64() * 1000.0 / size as f64, cpu);
        fleet.rest().await?;
        let rss = fleet.gateway().process.rss_kib()?;
        resident.add(rss, cpu);
        costs.memory.add((rss - before.1) / (size - before.0) as f64, cpu);
        let latency = sends::one_caller(fleet).await?;
        costs.latency.add(latency.p50_ms, latency.cpu);
        let throughput = sends::many_callers(fleet).await?;
        costs.throughput.add(throughput.per_second, throughput.cpu);
    }
    Ok((resident.median(), costs))
}

impl Costs {
    fn medians(&self) -> [f64; 4] {
        [&self.memory, &self.latency, &self.throughput, &self.reconnect].map(Rounds::median)
    }

    fn report(&self, size: usize, base: &[f64; 4], report: &mut Report) {
        let [memory, latency, throughput, reconnect] = *base;
        let name = |figure: &str| format!("scaling_{figure}_{size}");
        let note = |value: f64, limit: f64, grows: bool| {
            let base = if grows { limit / TOLERANCE } else { limit * TOLERANCE };
            Some(format!("{:.2} times the value at {} sessions", value / base, SIZES[0]))
        };
        let mut add = |figure: &str, unit, rounds: &Rounds, limit: f64, grows: bool| {
            let goal = if grows { Goal::AtMost(limit) } else { Goal::AtLeast(limit) };
            report.add_with_note(name(figure), unit, goal, rounds, note(rounds.median(), limit, grows));
        };
        add("memory", "KiB/session", &self.memory, memory, true);
        add("send_latency_p50", "ms", &self.latency, latency, true);
        add("send_throughput", "texts/s", &self.throughput, throughput, false);
        add("reconnect", "ms/session", &self.reconnect, reconnect, true);
    }
}
