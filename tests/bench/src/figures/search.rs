//! Text search in a long history.
//!
//! The history is written as for the pages, and indexed as the gateway would have done in the background; the last
//! thousand messages are not in the index, as is usual.

use super::history::{NEWEST, fill};
use crate::{
    fleet::Fleet,
    http::{self, Client},
    process::Programs,
    report::{Goal, Report, Rounds, percentile},
};
use std::time::{Duration, Instant};

/// Messages of the history.
const MESSAGES: u64 = 1_000_000;
/// Searches in a round.
const SEARCHES: u64 = 1000;
/// Searches before that count for nothing.
const WARM_UP: u64 = 50;

/// `search`
pub(super) async fn search(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut fleet = Fleet::start(programs, 1).await?;
    fleet.stop_gateway().await?;
    fill(&fleet, programs, &[MESSAGES], true).await?;
    fleet.start_gateway().await?;
    fleet.rest().await?;
    let mut p99 = Rounds::default();
    let mut p50s = vec![];
    for _ in 0..rounds {
        let meter = fleet.meter()?;
        let mut waits = round(&fleet).await?;
        let cpu = fleet.used(&meter)?;
        waits.sort_by(f64::total_cmp);
        p99.add(percentile(&waits, 0.99), cpu);
        p50s.push(format!("{:.2}", percentile(&waits, 0.5)));
    }
    let note = format!(
        "a page of 50; words that one, some and all messages have, beginnings, two words, in one chat, at a random \
         time; p50 a round: {}",
        p50s.join(", ")
    );
    report.add_with_note("search_1m_p99".to_owned(), "ms", Goal::AtMost(50.0), &p99, Some(note));
    fleet.end().await
}

async fn round(fleet: &Fleet) -> anyhow::Result<Vec<f64>> {
    let mut client = fleet.gateway().client();
    let mut waits = Vec::with_capacity(SEARCHES as usize);
    for number in 0..WARM_UP + SEARCHES {
        let path = format!("/api/whatsapp/sessions/{}/messages?{}", fleet.sessions[0].id, sought(number)?);
        let request = http::request("GET", &path, Some(&fleet.token), "");
        let took = read(&mut client, &request).await?;
        if number >= WARM_UP {
            waits.push(took.as_secs_f64() * 1000.0);
        }
    }
    Ok(waits)
}

async fn read(client: &mut Client, request: &[u8]) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let answer = client.send(request).await?;
    let took = start.elapsed();
    answer.text(200)?;
    Ok(took)
}

/// The query of a search. `fill-history` writes these words.
fn sought(number: u64) -> anyhow::Result<String> {
    // The golden ratio's multiples never come close to each other.
    let share = (number as f64 * 0.618_033_988_75).fract();
    let one = (share * MESSAGES as f64) as u64;
    let (rare, usual) = (one % 5_000, one % 50);
    Ok(match number % 8 {
        0 => format!("query={one}"),
        1 => format!("query=word{rare}%20people"),
        2 => format!("query=word{usual}%20word{}", (usual + 7) % 50),
        3 => "query=message".to_owned(),
        4 => format!("query=word{}", rare % 500),
        5 => format!("query=word{usual}%20people&chat=1888{:07}", one % 100),
        6 => format!("query=people%20mess&until={}", jiff::Timestamp::from_second(NEWEST - one.cast_signed())?),
        _ => format!("query=word{rare}%20word{}", (rare + 1_311) % 5_000),
    })
}
