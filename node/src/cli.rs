//! The command line.

use crate::{
    app::{App, Failed},
    config::{Config, DEFAULTS, Overrides},
    metrics, storage, telemetry,
};
use anyhow::Context;
use clap::{Parser, Subcommand};
use rookery_cluster::certs;
use rookery_protocol::{NodeId, cluster::ClusterName};
use std::{net::SocketAddr, path::PathBuf};
use tokio::signal::unix::{SignalKind, signal};

/// A self-hosted WhatsApp gateway that scales by adding nodes.
#[derive(Parser)]
#[command(name = "rookery", version = VERSION, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: RunOptions,
}

#[cfg(not(feature = "sandbox"))]
const VERSION: &str = env!("CARGO_PKG_VERSION");
#[cfg(feature = "sandbox")]
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (sandbox: connects to a simulator only)");

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (the default).
    Run(RunOptions),
    /// Make the tables of the configured CQL server, or bring them to the form that this version needs.
    MigrateSchema(RunOptions),
    /// Make the certificates with which the nodes of a cluster know each other.
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Print the default configuration with its documentation.
    Config,
    /// Print the specification of the API (OpenAPI, JSON).
    Openapi,
    /// Start a simulated WhatsApp and a gateway, and show a session from pairing to history.
    #[cfg(feature = "sandbox")]
    Demo(crate::demo::Options),
}

#[derive(Subcommand)]
enum CertsCommand {
    /// Make the cluster's authority, `ca.crt` and `ca.key`. Nodes need the first alone; keep the second safe.
    Init {
        /// The cluster's name; every node is configured with it.
        #[arg(long, value_name = "NAME")]
        cluster: ClusterName,
        /// The folder to make them in.
        #[arg(long, value_name = "DIRECTORY", default_value = "certs")]
        dir: PathBuf,
        /// For how many years they are good.
        #[arg(long, default_value_t = 10)]
        years: u32,
    },
    /// Make a node's certificate, `<node>.crt` and `<node>.key`, by the authority in the same folder.
    Node {
        /// The node's name (`node.id`).
        #[arg(value_name = "NODE")]
        node: NodeId,
        /// An IP address or DNS name that the certificate has as well; links do not need any.
        #[arg(long = "address", value_name = "ADDRESS")]
        addresses: Vec<String>,
        /// The folder of the authority, and of what is made.
        #[arg(long, value_name = "DIRECTORY", default_value = "certs")]
        dir: PathBuf,
        /// For how many years it is good.
        #[arg(long, default_value_t = 2)]
        years: u32,
    },
}

#[derive(clap::Args, Clone, Default)]
struct RunOptions {
    /// A configuration file over the defaults; see `rookery config`.
    #[arg(long, env = "ROOKERY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the API listens (`api.listen`).
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where the embedded database is kept (`node.data_dir`).
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
}

/// Does what the command line asks for.
pub(crate) fn run() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // Another provider is compiled in by a dependency; one of them has to be named for the process. Fails only when it
    // is named already.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    match cli.command {
        None => serve(&cli.options),
        Some(Command::Run(options)) => serve(&options),
        Some(Command::MigrateSchema(options)) => {
            let config = load(&options)?;
            telemetry::install(&config.log)?;
            runtime()?.block_on(storage::migrate(&config))
        }
        Some(Command::Certs(command)) => make_certificates(command),
        Some(Command::Config) => {
            print!("{DEFAULTS}");
            Ok(())
        }
        Some(Command::Openapi) => {
            print!("{}", crate::api::openapi_document());
            Ok(())
        }
        #[cfg(feature = "sandbox")]
        Some(Command::Demo(options)) => runtime()?.block_on(crate::demo::run(options)),
    }
}

fn make_certificates(command: CertsCommand) -> anyhow::Result<()> {
    let made = match command {
        CertsCommand::Init { cluster, dir, years } => certs::init(&dir, &cluster, years)?,
        CertsCommand::Node { node, addresses, dir, years } => certs::node(&dir, &node, &addresses, years)?,
    };
    println!("{}\n{}", made.certificate.display(), made.key.display());
    Ok(())
}

fn serve(options: &RunOptions) -> anyhow::Result<()> {
    let config = load(options)?;
    telemetry::install(&config.log)?;
    runtime()?.block_on(run_node(config))
}

/// The configuration under these arguments.
fn load(options: &RunOptions) -> anyhow::Result<Config> {
    let mut overrides = Overrides { file: options.config.clone(), values: vec![] };
    if let Some(listen) = options.listen {
        overrides.values.push(("api.listen", listen.to_string()));
    }
    if let Some(dir) = &options.data_dir {
        overrides.values.push(("node.data_dir", dir.display().to_string()));
    }
    Ok(Config::load(&overrides)?)
}

async fn run_node(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if cfg!(feature = "sandbox") {
        eprintln!("rookery: sandbox build, connects to a simulator only: {}", config.whatsapp.url);
    }
    let mut app = App::start(config, metrics::install()?).await?;
    if let Some(key) = app.take_new_admin_key() {
        println!("admin key (shown this once): {key}");
    }
    println!("listening on http://{}", app.address());
    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failed = app.failed() => Some(failed),
    };
    if failed == Some(Failed::DeclaredDead) {
        eprintln!("rookery: the other nodes have declared this one dead; a new start joins again");
        end_at_once();
    }
    app.shut_down().await?;
    anyhow::ensure!(failed.is_none(), "the storage has failed; the log says why");
    Ok(())
}

/// Ends a process that may neither write nor send any more, as a crash would: nothing is to be brought to an end.
#[expect(clippy::disallowed_methods, reason = "no destructor is to act for sessions that are others' by now")]
fn end_at_once() -> ! {
    std::process::exit(1)
}

/// The runtime of the whole process.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    allow_many_files();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("runtime")
}

/// A session is a socket, and the system's default of open files is for programs with few: take what it allows.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "limit of open files could not be raised");
    }
}
