//! The benchmark: starts a gateway and a simulated WhatsApp as processes of their own, measures, prints a table.
//!
//! Everything is measured from outside: over the gateway's REST API and `/metrics`, the simulator's admin routes,
//! and `/proc`. All processes share the machine, so each figure tells how much CPU each of them used.

mod figures;
mod fleet;
mod gateway;
mod http;
mod process;
mod report;
mod simulator;

use anyhow::Context;
use clap::Parser;
use figures::Figure;
use process::Programs;
use report::Report;
use std::{path::PathBuf, process::ExitCode, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// How long one figure may take, all rounds together, before it counts as not measured.
const FIGURE_TIMEOUT: Duration = Duration::from_secs(600);

/// Measures the gateway against a simulated WhatsApp on this machine.
///
/// Builds both in release mode, runs them as processes of their own with a durable store in a temporary folder
/// (TMPDIR says where; it must be on a disk, or durable writes cost nothing) and a TLS connection a session, and
/// prints how each figure compares with its goal.
#[derive(Parser)]
#[command(name = "bench-gateway", after_help = figures::HELP)]
struct Arguments {
    /// Measure only this; can be repeated or be a list with commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<Figure>,
    /// How many times each figure is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Write the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Binaries to measure instead of building them: a folder with `rookery`, `whatsapp-simulator`,
    /// `fill-history` and `simulator-load`.
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures all that was asked for; whether all of it could be measured.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let programs = match &arguments.binaries {
        Some(folder) => Programs::in_folder(folder)?,
        None => Programs::build()?,
    };
    process::allow_many_files()?;
    // One thread: the load generator takes as little as it can from what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            measured = measure(arguments, &programs) => measured,
            // The children end with the future that holds them.
            _ = interrupt.recv() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    measured
}

async fn measure(arguments: &Arguments, programs: &Programs) -> anyhow::Result<bool> {
    let wanted = Figure::ALL.iter().filter(|figure| arguments.only.is_empty() || arguments.only.contains(figure));
    let mut report = Report::default();
    let mut complete = true;
    for figure in wanted {
        eprintln!("{figure} ...");
        let measuring = figure.measure(programs, arguments.rounds as usize, &mut report);
        let measured = tokio::time::timeout(FIGURE_TIMEOUT, measuring).await;
        if let Err(error) = measured.context("it took too long").and_then(|measured| measured) {
            eprintln!("{figure} could not be measured: {error:#}");
            complete = false;
        }
        // What has been measured is kept, whatever happens to the rest.
        if let Some(file) = &arguments.json {
            report.write(file).with_context(|| file.display().to_string())?;
        }
    }
    println!("{report}");
    Ok(complete)
}
