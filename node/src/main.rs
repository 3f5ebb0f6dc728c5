//! `rookery`: a self-hosted WhatsApp gateway that scales by adding nodes.
//!
//! Arguments, configuration, start, signal, exit code; everything else is in its module.

mod api;
mod app;
mod cli;
mod cluster;
mod config;
#[cfg(feature = "sandbox")]
mod demo;
mod fetch;
mod media;
mod metrics;
mod qr;
mod session;
mod spool;
mod storage;
mod telemetry;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rookery: {error:#}");
            ExitCode::FAILURE
        }
    }
}
