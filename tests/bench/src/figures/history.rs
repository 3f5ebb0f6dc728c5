//! Pages of a short and of a long history.
//!
//! The histories are written by `fill-history`, with the gateway's own storage library, while the gateway is
//! stopped: a million messages through WhatsApp would take minutes and change nothing about a page.

use crate::{
    fleet::Fleet,
    http::{self, Client},
    process::Programs,
    report::{Goal, Report, Rounds, percentile},
};
use anyhow::{Context, ensure};
use std::time::{Duration, Instant};
use tokio::process::Command;

/// The sizes that are compared, and how they are called.
const SIZES: [(u64, &str); 2] = [(10_000, "10k"), (1_000_000, "1m")];
/// Pages that are read of each history in a round.
const PAGES: usize = 2000;
/// Pages that are read before and count for nothing.
const WARM_UP: usize = 100;
/// When the newest message was written, in seconds since the epoch; the others are a second apart.
pub(super) const NEWEST: i64 = 1_790_000_000;

/// `history_page`
pub(super) async fn pages(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut fleet = Fleet::start(programs, SIZES.len()).await?;
    fleet.stop_gateway().await?;
    fill(&fleet, programs, &SIZES.map(|(messages, _)| messages), false).await?;
    fleet.start_gateway().await?;
    fleet.rest().await?;
    let mut p99 = [Rounds::default(), Rounds::default()];
    let mut p50s = [vec![], vec![]];
    let mut ratio = Rounds::default();
    for _ in 0..rounds {
        let meter = fleet.meter()?;
        let mut waits = round(&fleet).await?;
        let cpu = fleet.used(&meter)?;
        for (size, waits) in waits.iter_mut().enumerate() {
            waits.sort_by(f64::total_cmp);
            p99[size].add(percentile(waits, 0.99), cpu);
            p50s[size].push(format!("{:.2}", percentile(waits, 0.5)));
        }
        ratio.add(percentile(&waits[1], 0.99) / percentile(&waits[0], 0.99), cpu);
    }
    for (size, (_, name)) in SIZES.iter().enumerate() {
        let note =
            format!("half of the pages the newest, half at a random time; p50 a round: {}", p50s[size].join(", "));
        report.add_with_note(format!("history_page_{name}_p99"), "ms", Goal::AtMost(5.0), &p99[size], Some(note));
    }
    report.add("history_page_ratio", "1m / 10k", Goal::AtMost(1.2), &ratio);
    fleet.end().await
}

/// How long each page took in ms, for each history. The histories take turns, so that they have the same luck.
async fn round(fleet: &Fleet) -> anyhow::Result<[Vec<f64>; 2]> {
    let mut client = fleet.gateway().client();
    let mut waits = [Vec::with_capacity(PAGES), Vec::with_capacity(PAGES)];
    for page in 0..WARM_UP + PAGES {
        for (size, (messages, _)) in SIZES.iter().enumerate() {
            let path = format!("/api/whatsapp/sessions/{}/messages?limit=50", fleet.sessions[size].id);
            let path = if page % 2 == 0 { path } else { format!("{path}&until={}", some_time(page, *messages)?) };
            let request = http::request("GET", &path, Some(&fleet.token), "");
            let took = read_page(&mut client, &request).await?;
            if page >= WARM_UP {
                waits[size].push(took.as_secs_f64() * 1000.0);
            }
        }
    }
    Ok(waits)
}

async fn read_page(client: &mut Client, request: &[u8]) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let answer = client.send(request).await?;
    let took = start.elapsed();
    let rows = answer.text(200)?.matches("\"message_id\"").count();
    ensure!(rows == 50, "a page has {rows} messages and not 50");
    Ok(took)
}

/// A time within the history, spread over all of it.
fn some_time(page: usize, messages: u64) -> anyhow::Result<String> {
    // The golden ratio's multiples never come close to each other.
    let share = (page as f64 * 0.618_033_988_75).fract();
    let back = (share * (messages - 100) as f64) as i64;
    Ok(jiff::Timestamp::from_second(NEWEST - back)?.to_string())
}

/// Writes a history of each size into the store of the stopped gateway, indexed or not.
pub(super) async fn fill(fleet: &Fleet, programs: &Programs, sizes: &[u64], index: bool) -> anyhow::Result<()> {
    let start = Instant::now();
    let histories = sizes.iter().zip(&fleet.sessions).map(|(messages, session)| format!("{}={messages}", session.id));
    let mut filling = Command::new(&programs.filler);
    if index {
        filling.arg("--index");
    }
    filling.arg(fleet.data_dir()).arg(NEWEST.to_string()).args(histories).kill_on_drop(true);
    let status = filling.status().await.context("fill-history")?;
    ensure!(status.success(), "the histories could not be written: {status}");
    eprintln!("  wrote the histories in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
