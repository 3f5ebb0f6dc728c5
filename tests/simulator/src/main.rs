//! The simulator as a program of its own.

use std::net::SocketAddr;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use whatsapp_simulator::{Config, Simulator, admin_openapi, admin_routes};

/// A WhatsApp server with phones, for tests and for development without a phone.
#[derive(Debug, Parser)]
#[command(name = "whatsapp-simulator", after_help = after_help())]
struct Arguments {
    /// Where clients connect by websocket (path `/ws/chat`).
    #[arg(long, default_value = "127.0.0.1:18080")]
    listen: SocketAddr,
    /// Where the admin routes are served over HTTP.
    #[arg(long, default_value = "127.0.0.1:18081")]
    admin: SocketAddr,
    /// Serve ws:// instead of wss:// with a self-signed certificate.
    #[arg(long)]
    plain: bool,
    /// Print the OpenAPI document of the admin routes and end.
    #[arg(long)]
    openapi: bool,
}

fn after_help() -> String {
    let routes = admin_routes();
    format!(
        "Admin routes:\n{routes}\n\nErrors are JSON {{\"message\": ...}} with a 4xx status. \
         Clients are told to use a TLS port of its own for media.\n\
         Log levels: RUST_LOG, for example RUST_LOG=whatsapp_simulator=debug."
    )
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.openapi {
        print!("{}", admin_openapi());
        return Ok(());
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let simulator = Simulator::start(Config {
        listen: arguments.listen,
        admin: arguments.admin,
        plain: arguments.plain,
        ..Config::default()
    })
    .await?;
    println!("websocket {}", simulator.websocket_url());
    println!("admin {}", simulator.admin_url());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    simulator.shutdown().await;
    Ok(())
}
