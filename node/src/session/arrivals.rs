//! Tells of messages with files as soon as they are stored, to whoever wants to have the files early.
//!
//! Nothing depends on it: what is told faster than it is heard is lost.

use rookery_protocol::SessionId;
use rookery_storage::HistoryRow;
use tokio::sync::mpsc;

/// Messages that may wait to be heard of.
const ARRIVALS: usize = 1024;

/// A message with a file that has come.
pub(crate) type Arrival = (SessionId, HistoryRow);

/// Tells of messages with files up to a size. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Arrivals {
    queue: mpsc::Sender<Arrival>,
    max_bytes: u64,
}

impl Arrivals {
    /// Somebody to tell, and where it is heard.
    pub(crate) fn new(max_bytes: u64) -> (Self, mpsc::Receiver<Arrival>) {
        let (queue, heard) = mpsc::channel(ARRIVALS);
        (Self { queue, max_bytes }, heard)
    }

    /// Those of the messages that are worth telling of once they are stored.
    pub(super) fn among(&self, rows: &[HistoryRow]) -> Vec<HistoryRow> {
        let wanted = |row: &&HistoryRow| {
            row.file.as_ref().is_some_and(|file| file.direct_path.is_some() && file.length <= self.max_bytes)
        };
        rows.iter().filter(wanted).cloned().collect()
    }

    /// Tells of messages that are stored now.
    pub(super) fn tell(&self, session: SessionId, rows: Vec<HistoryRow>) {
        for row in rows {
            let _ = self.queue.try_send((session, row));
        }
    }
}
