//! The simulator alone: how many devices it holds, how fast it pairs them, and what a message costs it.
//!
//! Without TLS, since the figures are of the simulator and not of a TLS library. The load is a process of its own.

use crate::{
    process::{Cpu, Process, Programs},
    report::{Goal, Report, Rounds},
    simulator::{Simulator, burst},
};
use anyhow::{Context, ensure};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Devices that pair in one go.
const PAIRINGS: usize = 1_000;
/// Devices that are held.
const DEVICES: usize = 10_000;
/// Devices that get texts from as many phones.
const RECEIVERS: usize = 50;
/// Texts of a round.
const TEXTS: usize = 100_000;
/// Texts that a phone sends at a stretch.
const BURST: usize = 200;
/// Phones that send at a time.
const SENDERS: usize = 4;
/// Messages of a relay.
const RELAYED: usize = 100_000;
/// Stanzas on the wire for each message from device to device: message, acknowledgement, message, receipt,
/// acknowledgement, receipt, acknowledgement.
const STANZAS: usize = 7;
/// How long a round may take.
const ROUND_TIMEOUT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(10);

/// A simulator and its load.
struct Load {
    simulator: Simulator,
    devices: Process,
    _dir: TempDir,
}

impl Load {
    async fn start(programs: &Programs) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("rookery-bench-").tempdir()?;
        let simulator = Simulator::start_plain(programs, dir.path()).await?;
        let devices = Process::start(&programs.load, dir.path().join("load.log"), |command| {
            command.stdin(std::process::Stdio::piped());
            command.args(["--url", &simulator.url, "--admin", &simulator.admin.to_string()]);
        })?;
        Ok(Self { simulator, devices, _dir: dir })
    }

    /// Tells the load to do something; the seconds that it took.
    async fn tell(&mut self, command: &str, answer: &str, count: usize) -> anyhow::Result<f64> {
        self.devices.tell(&format!("{command} {count}\n")).await?;
        let line = self.devices.line(&format!("{answer} {count} ")).await?;
        line.trim().parse().with_context(|| line.clone())
    }

    fn cpu(&self) -> anyhow::Result<(f64, f64, Instant)> {
        Ok((self.simulator.process.cpu_secs()?, self.devices.cpu_secs()?, Instant::now()))
    }

    /// CPU seconds since `before`; the load's count as the load generator's.
    fn used(&self, before: &(f64, f64, Instant)) -> anyhow::Result<Cpu> {
        let now = self.cpu()?;
        let wall = before.2.elapsed().as_secs_f64();
        Ok(Cpu { gateway: 0.0, simulator: now.0 - before.0, bench: now.1 - before.1, wall })
    }

    async fn end(self) -> anyhow::Result<()> {
        self.simulator.check().await?;
        drop(self.devices);
        self.simulator.process.stop().await.context("simulator")
    }
}

/// `simulator_pairings`
pub(super) async fn pairings(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut seconds = Rounds::default();
    for _ in 0..rounds {
        let mut load = Load::start(programs).await?;
        let before = load.cpu()?;
        let took = load.tell("pair", "paired", PAIRINGS).await?;
        seconds.add(took, load.used(&before)?);
        load.end().await?;
    }
    let note = format!("{PAIRINGS} devices from the first byte to the queue's end, 50 prekeys each, without TLS");
    report.add_with_note("simulator_pairings", "s", Goal::AtMost(5.0), &seconds, Some(note));
    Ok(())
}

/// `simulator_devices`
pub(super) async fn devices(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut mib = Rounds::default();
    for _ in 0..rounds {
        let mut load = Load::start(programs).await?;
        let before = load.cpu()?;
        // In steps, so that each is within the time that a program may take to answer.
        for count in (PAIRINGS..=DEVICES).step_by(PAIRINGS) {
            load.tell("pair", "paired", count).await?;
        }
        mib.add(load.simulator.process.rss_kib()? / 1024.0, load.used(&before)?);
        load.end().await?;
    }
    let note = format!("{DEVICES} connected devices of as many accounts, 50 prekeys each, without TLS");
    report.add_with_note("simulator_devices", "MiB", Goal::AtMost(400.0), &mib, Some(note));
    Ok(())
}

/// `simulator_texts`
pub(super) async fn texts(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut load = Load::start(programs).await?;
    load.tell("pair", "paired", RECEIVERS).await?;
    // A phone's first message carries its keys.
    text_round(&load, RECEIVERS, 1).await?;
    let mut per_second = Rounds::default();
    for _ in 0..rounds {
        let before = load.cpu()?;
        let took = text_round(&load, TEXTS, BURST).await?;
        per_second.add(TEXTS as f64 / took, load.used(&before)?);
    }
    let note = format!(
        "{TEXTS} texts from {RECEIVERS} phones to as many devices, encrypted by the simulator, until each is \
         acknowledged; without TLS"
    );
    report.add_with_note("simulator_texts", "texts/s", Goal::AtLeast(20_000.0), &per_second, Some(note));
    load.end().await
}

/// Seconds from the first text until nothing waits.
async fn text_round(load: &Load, texts: usize, stretch: usize) -> anyhow::Result<f64> {
    let start = Instant::now();
    let senders = (0..SENDERS).map(|sender| async move {
        let mut client = load.simulator.client();
        for turn in 0..texts / stretch / RECEIVERS {
            for number in (sender..RECEIVERS).step_by(SENDERS) {
                let (from, to) = (format!("1777{number:07}"), format!("1666{number:07}"));
                burst(&mut client, &from, &to, stretch).await.with_context(|| format!("turn {turn}"))?;
            }
        }
        anyhow::Ok(())
    });
    futures_util::future::try_join_all(senders).await?;
    let mut client = load.simulator.client();
    while load.simulator.queued(&mut client).await? > 0 {
        ensure!(start.elapsed() < ROUND_TIMEOUT, "texts are not acknowledged in time");
        tokio::time::sleep(POLL).await;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// `simulator_stanza`
pub(super) async fn stanza(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut load = Load::start(programs).await?;
    load.tell("pair", "paired", RECEIVERS).await?;
    load.tell("relay", "relayed", RECEIVERS * 100).await?;
    let mut micros = Rounds::default();
    for _ in 0..rounds {
        let before = load.cpu()?;
        load.tell("relay", "relayed", RELAYED).await?;
        let used = load.used(&before)?;
        micros.add(used.simulator * 1e6 / (RELAYED * STANZAS) as f64, used);
    }
    let note = format!(
        "CPU of the simulator for each of the {STANZAS} stanzas of a message from device to device, system calls and \
         transport encryption included; {RELAYED} messages, {RECEIVERS} devices, without TLS"
    );
    report.add_with_note("simulator_stanza", "us", Goal::AtMost(20.0), &micros, Some(note));
    load.end().await
}
