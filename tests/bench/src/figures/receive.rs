//! Messages from phones, until they are stored and acknowledged.

use crate::{
    fleet::Fleet,
    http::Client,
    process::{Cpu, Programs},
    report::{Goal, Report, Rounds},
    simulator,
};
use anyhow::ensure;
use std::time::{Duration, Instant};

/// Sessions that receive, each from a contact of its own.
const SESSIONS: usize = 50;
/// Messages a session in a round.
const MESSAGES: usize = 400;
/// Messages that a phone sends at a stretch before it is another's turn.
const BURST: usize = 25;
/// Phones that send at a time: more would only take the processor from the gateway.
const SENDERS: usize = 2;
/// How long a round may take.
const ROUND_TIMEOUT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

/// `receive_throughput`
pub(super) async fn throughput(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let fleet = Fleet::start(programs, SESSIONS).await?;
    // A contact's first message carries its keys.
    round(&fleet, 2, 2).await?;
    fleet.rest().await?;
    let mut per_second = Rounds::default();
    for _ in 0..rounds {
        let (value, cpu) = round(&fleet, MESSAGES, BURST).await?;
        per_second.add(value, cpu);
        fleet.rest().await?;
    }
    let note =
        format!("{} messages a round to {SESSIONS} sessions; {SENDERS} phones send at a time", MESSAGES * SESSIONS);
    report.add_with_note("receive_throughput", "messages/s", Goal::AtLeast(5000.0), &per_second, Some(note));
    fleet.end().await
}

/// Messages a second, from the first that a phone sends until the gateway has stored and acknowledged all.
async fn round(fleet: &Fleet, messages: usize, burst: usize) -> anyhow::Result<(f64, Cpu)> {
    let (mut gateway, mut admin) = (fleet.gateway().client(), fleet.simulator.client());
    let before = fleet.gateway().received(&mut gateway).await?;
    let expected = before + (messages * fleet.sessions.len()) as u64;
    let meter = fleet.meter()?;
    let start = Instant::now();
    let sending = async {
        let senders: Vec<_> = (0..SENDERS).map(|sender| send(fleet, sender, messages, burst)).collect();
        futures_util::future::try_join_all(senders).await
    };
    let receiving = received(fleet, &mut gateway, &mut admin, expected);
    let (_, end) = tokio::try_join!(sending, receiving)?;
    let value = (messages * fleet.sessions.len()) as f64 / (end - start).as_secs_f64();
    Ok((value, fleet.used(&meter)?))
}

async fn send(fleet: &Fleet, sender: usize, messages: usize, burst: usize) -> anyhow::Result<()> {
    let mut client = fleet.simulator.client();
    for _ in 0..messages / burst {
        for (number, session) in fleet.sessions.iter().enumerate().skip(sender).step_by(SENDERS) {
            simulator::burst(&mut client, &format!("1777{number:07}"), &session.phone, burst).await?;
        }
    }
    Ok(())
}

/// When the gateway has stored all, and the simulator has all acknowledgements.
async fn received(fleet: &Fleet, gateway: &mut Client, admin: &mut Client, expected: u64) -> anyhow::Result<Instant> {
    let deadline = Instant::now() + ROUND_TIMEOUT;
    loop {
        let stored = fleet.gateway().received(gateway).await?;
        if stored >= expected && fleet.simulator.queued(admin).await? == 0 {
            return Ok(Instant::now());
        }
        ensure!(
            Instant::now() < deadline,
            "{} messages are not stored or acknowledged in time",
            expected.saturating_sub(stored)
        );
        tokio::time::sleep(POLL).await;
    }
}
