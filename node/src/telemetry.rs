//! Logs: text on a terminal, JSON otherwise.

use crate::config::{LogConfig, LogFormat};
use rookery_cluster::link::LOG_CAP;
use std::{io::IsTerminal, iter};
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt::MakeWriter};

/// What the libraries may log. The WhatsApp library logs payloads and addresses, and keys of ratchets even as errors,
/// under targets of its own invention: whatever is unknown is silent.
const LIBRARIES: &str = "off,ractor=warn,hyper=warn,warp=warn,rustls=warn,fjall=warn,lsm_tree=warn";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("log.filter: {0}")]
pub(crate) struct BadFilter(String);

/// Sets up logging to standard error.
pub(crate) fn install(config: &LogConfig) -> Result<(), BadFilter> {
    let filter = EnvFilter::try_new(directives(&config.filter)).map_err(|error| BadFilter(error.to_string()))?;
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

/// The filter as the library reads it. A configured level alone is meant for Rookery; whoever wants to hear more
/// of a library names it, but for the one that would log what nodes tell each other.
fn directives(configured: &str) -> String {
    let ours = configured
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty() && !part.starts_with("ractor_cluster"))
        .map(|part| if part.parse::<LevelFilter>().is_ok() { format!("rookery={part}") } else { part.to_owned() });
    iter::once(LIBRARIES.to_owned()).chain(ours).chain([LOG_CAP.to_owned()]).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_leaves_libraries_quiet() {
        assert_eq!(directives("debug"), format!("{LIBRARIES},rookery=debug,{LOG_CAP}"));
        assert_eq!(directives("info, hyper=debug,"), format!("{LIBRARIES},rookery=info,hyper=debug,{LOG_CAP}"));
        assert_eq!(directives(""), format!("{LIBRARIES},{LOG_CAP}"));
        assert_eq!(directives("ractor_cluster::net=debug, ractor_cluster"), format!("{LIBRARIES},{LOG_CAP}"));
        for configured in ["trace", "rookery=debug,[request{a=1}]=trace", "off"] {
            assert!(EnvFilter::try_new(directives(configured)).is_ok(), "{configured}");
        }
    }
}
