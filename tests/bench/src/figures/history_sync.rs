//! A phone with a long history: how long it takes until all of it is stored, and what that weighs.
//!
//! The phone makes its history up chunk by chunk, as the gateway takes it in, so that neither side holds all of it.

use crate::{
    fleet::Fleet,
    http,
    process::Programs,
    report::{Goal, Report, Rounds},
};
use anyhow::{Context, ensure};
use std::time::{Duration, Instant};

/// Messages of the history, unless the environment says otherwise.
const MESSAGES: u64 = 1_000_000;
/// The environment's word for it, to try the figure with less.
const MESSAGES_VARIABLE: &str = "BENCH_HISTORY_MESSAGES";
/// Chats that they are spread over.
const CHATS: u64 = 1_000;
/// The phone that the first session of a fleet is linked to.
const PHONE: &str = "15550000000";
/// How long a sync may take before it counts as failed.
const SYNC_TIMEOUT: Duration = Duration::from_secs(900);
/// How often it is looked how far it is.
const POLL: Duration = Duration::from_millis(100);

/// `history_sync`
pub(super) async fn sync(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let messages = match std::env::var(MESSAGES_VARIABLE) {
        Ok(text) => text.parse().with_context(|| format!("{MESSAGES_VARIABLE}={text}"))?,
        Err(_) => MESSAGES,
    };
    let (mut seconds, mut memory, mut disk) = (Rounds::default(), Rounds::default(), vec![]);
    for _ in 0..rounds {
        let mut fleet = Fleet::start(programs, 0).await?;
        let path = format!("/history-size?phone={PHONE}&chats={}&messages={messages}", CHATS.min(messages));
        fleet.simulator.client().send(&http::request("POST", &path, None, "")).await?.text(200)?;
        fleet.rest().await?;
        let before = fleet.gateway().process.rss_kib()?;
        let meter = fleet.meter()?;
        let start = Instant::now();
        fleet.grow(1).await?;
        let peak = until_done(&fleet, messages).await?;
        let cpu = fleet.used(&meter)?;
        seconds.add(start.elapsed().as_secs_f64(), cpu);
        memory.add((peak - before) / 1024.0, cpu);
        disk.push(format!("{:.0} to {:.0} MiB", before / 1024.0, peak / 1024.0));
        fleet.end().await?;
    }
    let note = format!("{messages} messages in {CHATS} chats, from the scan of the QR code to the last message");
    report.add_with_note("history_sync", "s", Goal::AtMost(120.0), &seconds, Some(note));
    let note = format!("the most while it went on, over that before; resident: {}", disk.join(", "));
    report.add_with_note("history_sync_memory", "MiB", Goal::AtMost(200.0), &memory, Some(note));
    Ok(())
}

/// Waits until the whole history is stored; the most resident memory meanwhile, in KiB.
async fn until_done(fleet: &Fleet, messages: u64) -> anyhow::Result<f64> {
    let session = &fleet.sessions[0].id;
    let path = format!("/api/whatsapp/sessions/{session}/status");
    let status = http::request("GET", &path, Some(&fleet.token), "");
    let mut client = fleet.gateway().client();
    let (deadline, mut peak) = (Instant::now() + SYNC_TIMEOUT, 0.0_f64);
    loop {
        peak = peak.max(fleet.gateway().process.rss_kib()?);
        let sync = client.send(&status).await?.json(200)?["history_sync"].clone();
        if sync["done"] == true && sync["messages"] == messages {
            return Ok(peak);
        }
        ensure!(Instant::now() < deadline, "the history is not complete: {sync}");
        tokio::time::sleep(POLL).await;
    }
}
