//! What a phone sees besides messages: who comes and goes, who types, who calls. Bounded.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Phone;
use crate::account::lock;
use crate::error::PhoneError;

/// Events that are kept; older ones are forgotten.
const EVENTS: usize = 4_096;

/// What somebody is doing in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Writing.
    Typing,
    /// Speaking a voice note.
    Recording,
    /// No longer.
    Paused,
}

/// How a call goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// It rings.
    Offered,
    /// The other side's device is about to ring.
    Ringing,
    /// It was taken.
    Accepted,
    /// It was refused.
    Rejected,
    /// It is over.
    Ended,
}

/// What a phone saw. Contacts are phone numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PhoneEvent {
    /// A contact that it watches came or went.
    Presence {
        /// The contact.
        from: String,
        /// Came or went.
        available: bool,
    },
    /// Somebody types, or no longer.
    Activity {
        /// Who.
        from: String,
        /// Where: the contact again, or a group's JID.
        chat: String,
        /// What.
        activity: Activity,
    },
    /// A call.
    Call {
        /// Its id.
        call_id: String,
        /// Who has acted: the caller or the callee.
        from: String,
        /// It is a video call.
        video: bool,
        /// What has happened.
        state: CallState,
    },
    /// A companion has taken a chunk of history.
    HistoryTaken {
        /// The companion's device number.
        device: u16,
        /// The id of the message that announced it.
        message_id: String,
    },
}

#[derive(Default)]
struct Log {
    events: VecDeque<PhoneEvent>,
    /// The number of the first event that is kept.
    first: u64,
}

/// What one phone saw.
#[derive(Default)]
pub(crate) struct Events {
    log: Mutex<Log>,
    happened: Notify,
}

impl Events {
    /// The phone sees something.
    pub(crate) fn note(&self, event: PhoneEvent) {
        {
            let mut log = lock(&self.log);
            if log.events.len() >= EVENTS {
                log.events.pop_front();
                log.first += 1;
            }
            log.events.push_back(event);
        }
        self.happened.notify_waiters();
    }

    /// The first event from number `from` on that matches, or the number to go on with.
    fn find(&self, from: u64, matches: &mut impl FnMut(&PhoneEvent) -> bool) -> Result<PhoneEvent, u64> {
        let log = lock(&self.log);
        let skip = usize::try_from(from.saturating_sub(log.first)).unwrap_or(usize::MAX);
        let found = log.events.iter().skip(skip).find(|e| matches(e));
        found.cloned().ok_or(log.first + log.events.len() as u64)
    }
}

impl Phone {
    /// What it has seen besides messages, oldest first.
    pub fn events(&self) -> Vec<PhoneEvent> {
        lock(&self.account.phone.events.log).events.iter().cloned().collect()
    }

    /// Waits for an event that matches; one that has happened already will do.
    pub async fn wait_for_event(
        &self,
        timeout: Duration,
        mut matches: impl FnMut(&PhoneEvent) -> bool,
    ) -> Result<PhoneEvent, PhoneError> {
        let events = &self.account.phone.events;
        let mut from = 0;
        let search = async {
            loop {
                let happened = events.happened.notified();
                match events.find(from, &mut matches) {
                    Ok(event) => return event,
                    Err(next) => from = next,
                }
                happened.await;
            }
        };
        tokio::time::timeout(timeout, search).await.map_err(|_| PhoneError::Timeout(timeout))
    }
}
