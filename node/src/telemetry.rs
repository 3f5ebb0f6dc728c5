//! Logs: text on a terminal, JSON otherwise.

use crate::config::{LogConfig, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// What the libraries may log. Below these levels they would log payloads and addresses.
const LIBRARIES: &str = "whatsapp_rust=error,wacore=error,wacore_libsignal=error,whatsapp_rust_tokio_transport=error,\
                         ractor=warn,hyper=warn,rustls=warn,fjall=warn,lsm_tree=warn";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("log.filter: {0}")]
pub(crate) struct BadFilter(String);

/// Sets up logging to standard error.
pub(crate) fn install(config: &LogConfig) -> Result<(), BadFilter> {
    // The configured filter comes last, so that an operator can ask for more.
    let filter = format!("{LIBRARIES},{}", config.filter);
    let filter = EnvFilter::try_new(&filter).map_err(|error| BadFilter(error.to_string()))?;
    let text = match config.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call in one process (tests of components) keeps the first subscriber.
    let _ = if text {
        builder.with_ansi(std::io::stderr.make_writer().is_terminal()).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    Ok(())
}
