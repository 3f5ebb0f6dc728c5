//! The figures, a file a group.

mod history;
mod history_sync;
mod media;
mod memory;
mod receive;
mod reconnect;
mod scaling;
mod search;
mod sends;
mod simulator;

use crate::{process::Programs, report::Report};
use clap::ValueEnum;
use std::fmt;

/// What `--help` says of them.
pub(crate) const HELP: &str = "\
Figures:
  send_latency        p50 and p99 of a text through REST, one caller
  send_throughput     texts a second through REST over 50 sessions, 64 callers, each answered `sent`
  receive_throughput  messages a second from phones to 50 sessions, stored and acknowledged
  history_page        p99 of one page of 50 from a history of 10,000 and of 1,000,000 messages
  history_sync        seconds and memory for a history of 1,000,000 messages that a phone sends
  search              p99 of a text search in a history of 1,000,000 messages
  media_send          images of 1 MiB a second through REST, until the phones have them
  media_memory        additional resident memory of the gateway while 16 images of 1 MiB are sent at once
  idle_memory         resident memory of an idle linked session, from 100 to 1,000 sessions
  reconnect           1,000 linked sessions from the start of the process to WORKING
  simulator_pairings  seconds in which the simulator pairs 1,000 devices
  simulator_devices   resident memory of the simulator with 10,000 connected devices
  simulator_texts     texts a second from simulated phones to devices, each acknowledged
  simulator_stanza    CPU of the simulator for a stanza
  scaling             memory, send latency, send throughput and reconnect at 100, 1,000 and 5,000 sessions

JSON: an array of {\"name\", \"value\", \"unit\", \"goal\", \"met\", \"rounds\": [...], \"cpu\": {\"gateway\", \"simulator\",
\"bench\", \"wall\"}, \"note\"}; value is the median of the rounds, cpu is in seconds. The exit code is 0 when all could
be measured, whether or not the goals are met.";

/// A group of figures that is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Figure {
    SendLatency,
    SendThroughput,
    ReceiveThroughput,
    HistoryPage,
    HistorySync,
    Search,
    MediaSend,
    MediaMemory,
    IdleMemory,
    Reconnect,
    SimulatorPairings,
    SimulatorDevices,
    SimulatorTexts,
    SimulatorStanza,
    Scaling,
}

impl Figure {
    /// All, in the order in which they are measured.
    pub(crate) const ALL: [Self; 15] = [
        Self::SendLatency,
        Self::SendThroughput,
        Self::ReceiveThroughput,
        Self::HistoryPage,
        Self::HistorySync,
        Self::Search,
        Self::MediaSend,
        Self::MediaMemory,
        Self::IdleMemory,
        Self::Reconnect,
        Self::SimulatorPairings,
        Self::SimulatorDevices,
        Self::SimulatorTexts,
        Self::SimulatorStanza,
        Self::Scaling,
    ];

    /// Measures it so many times.
    pub(crate) async fn measure(self, programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
        match self {
            Self::SendLatency => sends::latency(programs, rounds, report).await,
            Self::SendThroughput => sends::throughput(programs, rounds, report).await,
            Self::ReceiveThroughput => receive::throughput(programs, rounds, report).await,
            Self::HistoryPage => history::pages(programs, rounds, report).await,
            Self::HistorySync => history_sync::sync(programs, rounds, report).await,
            Self::Search => search::search(programs, rounds, report).await,
            Self::MediaSend => media::throughput(programs, rounds, report).await,
            Self::MediaMemory => media::memory(programs, rounds, report).await,
            Self::IdleMemory => memory::idle(programs, rounds, report).await,
            Self::Reconnect => reconnect::all(programs, rounds, report).await,
            Self::SimulatorPairings => simulator::pairings(programs, rounds, report).await,
            Self::SimulatorDevices => simulator::devices(programs, rounds, report).await,
            Self::SimulatorTexts => simulator::texts(programs, rounds, report).await,
            Self::SimulatorStanza => simulator::stanza(programs, rounds, report).await,
            Self::Scaling => scaling::all(programs, rounds, report).await,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no figure is skipped");
        f.write_str(value.get_name())
    }
}
