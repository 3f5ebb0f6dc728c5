//! Texts through REST: how many a second, and how long one takes.

use crate::{
    fleet::Fleet,
    gateway::{send, text_request},
    process::{Cpu, Programs},
    report::{Goal, Report, Rounds, percentile},
    simulator,
};
use futures_util::future::try_join_all;
use std::time::{Duration, Instant};

/// Sessions that send.
pub(super) const SESSIONS: usize = 50;
/// Callers that send side by side; each writes to a contact of its own, waits for the answer and sends again.
const CALLERS: usize = 64;
/// How long callers send in a round.
const SPAN: Duration = Duration::from_secs(5);
/// How many texts one caller sends in a round of the latency.
const TEXTS: usize = 1000;
/// Texts before a round that count for nothing: keys are fetched and caches filled.
const WARM_UP: usize = 20;

/// What callers have seen.
pub(super) struct Sample {
    /// Texts that were answered as sent, a second.
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub cpu: Cpu,
}

/// `send_throughput`
pub(super) async fn throughput(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let fleet = Fleet::start(programs, SESSIONS).await?;
    let mut per_second = Rounds::default();
    let mut waits = Vec::new();
    for _ in 0..rounds {
        let sample = many_callers(&fleet).await?;
        per_second.add(sample.per_second, sample.cpu);
        waits.push(format!("{:.1}/{:.1}", sample.p50_ms, sample.p99_ms));
        fleet.rest().await?;
    }
    let note = format!("{CALLERS} callers over {SESSIONS} sessions; p50/p99 in ms a round: {}", waits.join(", "));
    report.add_with_note("send_throughput", "texts/s", Goal::AtLeast(5000.0), &per_second, Some(note));
    fleet.end().await
}

/// `send_latency`
pub(super) async fn latency(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let fleet = Fleet::start(programs, 1).await?;
    let (mut p50, mut p99) = (Rounds::default(), Rounds::default());
    for _ in 0..rounds {
        let sample = one_caller(&fleet).await?;
        p50.add(sample.p50_ms, sample.cpu);
        p99.add(sample.p99_ms, sample.cpu);
        fleet.rest().await?;
    }
    report.add("send_latency_p50", "ms", Goal::AtMost(3.0), &p50);
    report.add("send_latency_p99", "ms", Goal::AtMost(15.0), &p99);
    fleet.end().await
}

/// All callers send for a while, over the first sessions of the fleet.
pub(super) async fn many_callers(fleet: &Fleet) -> anyhow::Result<Sample> {
    callers(fleet, CALLERS, Until::Passed(SPAN)).await
}

/// One caller sends a number of texts.
pub(super) async fn one_caller(fleet: &Fleet) -> anyhow::Result<Sample> {
    callers(fleet, 1, Until::Sent(TEXTS)).await
}

#[derive(Clone, Copy)]
enum Until {
    Passed(Duration),
    Sent(usize),
}

async fn callers(fleet: &Fleet, count: usize, until: Until) -> anyhow::Result<Sample> {
    let mut callers = Vec::new();
    let mut admin = fleet.simulator.client();
    for number in 0..count {
        let contact = format!("1666{number:07}");
        simulator::make_phone(&mut admin, &contact).await?;
        let session = &fleet.sessions[number % fleet.sessions.len().min(SESSIONS)];
        callers.push((fleet.gateway().client(), text_request(&fleet.token, &session.id, &contact)));
    }
    let warm_up = callers.iter_mut().map(|(client, request)| async move {
        for _ in 0..WARM_UP {
            send(client, request).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(warm_up).await?;
    let meter = fleet.meter()?;
    let start = Instant::now();
    let sending = callers.into_iter().map(|(mut client, request)| async move {
        let mut waits_ms = Vec::new();
        while match until {
            Until::Passed(span) => start.elapsed() < span,
            Until::Sent(texts) => waits_ms.len() < texts,
        } {
            let sent = Instant::now();
            send(&mut client, &request).await?;
            waits_ms.push(sent.elapsed().as_secs_f64() * 1000.0);
        }
        anyhow::Ok(waits_ms)
    });
    // In tasks: joined futures would all be polled whenever one of them has something to do.
    let tasks: Vec<_> = sending.map(tokio::spawn).collect();
    let mut waits_ms = Vec::new();
    for task in tasks {
        waits_ms.extend(task.await??);
    }
    let took = start.elapsed();
    let cpu = fleet.used(&meter)?;
    waits_ms.sort_by(f64::total_cmp);
    Ok(Sample {
        per_second: waits_ms.len() as f64 / took.as_secs_f64(),
        p50_ms: percentile(&waits_ms, 0.5),
        p99_ms: percentile(&waits_ms, 0.99),
        cpu,
    })
}
