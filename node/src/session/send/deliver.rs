//! From acceptance to WhatsApp's answer: turn, attempts, outcome.

use super::{Connection, Item, SendDesk};
use crate::{
    metrics,
    session::whatsapp::{Ack, Line, SendFailure},
    spool::FileId,
};
use rookery_protocol::{MessageId, Timestamp, api::MessageType};
use rookery_storage::{OutboxRow, SendOutcome, StoreError};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// How long WhatsApp may take to answer a message before it is sent again.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a message is tried while there is a connection, before it is given up.
const ATTEMPTS: u32 = 8;
/// The first pause after a failed attempt; doubles each time.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long a message waits for WhatsApp's media host to take its file before it is given up.
const UPLOAD_PATIENCE_SECS: i64 = 24 * 3600;

/// Why a message fails whose account is no longer linked.
const UNLINKED: &str = "the session was unlinked before the message was sent";

/// What came back for a message that was handed to a connection.
enum Answer {
    Ack(Ack),
    ConnectionLost,
    Silence,
}

impl SendDesk {
    /// Sends an accepted message when its turn comes, and keeps the outcome. Nothing when the desk closes first:
    /// the row is still in the outbox then, for the next owner.
    pub(super) async fn finish(self: &Arc<Self>, item: Item) -> Option<SendOutcome> {
        let Item { mut row, kind, typing, turn, done, mut abandoned } = item;
        let outcome = tokio::select! {
            () = self.closed.cancelled() => None,
            _ = abandoned.changed() => Some(SendOutcome::Failed(UNLINKED.into())),
            outcome = async {
                if let Some(turn) = turn {
                    // An error means that the one before was given up in its turn: no reason to wait either.
                    let _ = turn.await;
                }
                self.pretend_to_type(&row, kind, typing).await;
                Some(self.transmit(&mut row).await)
            } => outcome,
        };
        if let Some(outcome) = &outcome {
            let _ = done.send(());
            self.resolve(&row, kind, outcome).await;
        }
        self.leave(&row);
        outcome
    }

    /// Gives up the place of a message that was not accepted; not before its turn, since whoever stands behind
    /// it must not overtake those before it.
    pub(super) async fn skip(self: &Arc<Self>, item: Item) {
        if let Some(turn) = item.turn {
            tokio::select! {
                () = self.closed.cancelled() => {}
                _ = turn => {}
            }
        }
        self.leave(&item.row);
    }

    /// Shows the recipient somebody who types, or records, for this long. Nothing depends on it.
    async fn pretend_to_type(&self, row: &OutboxRow, kind: MessageType, time: Duration) {
        if time.is_zero() {
            return;
        }
        let connection = self.connected().await;
        connection.line.show_typing(&row.chat, kind == MessageType::Audio).await;
        tokio::time::sleep(time).await;
    }

    /// Sends until WhatsApp has answered or there is no hope.
    async fn transmit(&self, row: &mut OutboxRow) -> SendOutcome {
        let mut failures = 0;
        loop {
            let connection = self.connected().await;
            if let Some(file) = row.file
                && let Err(why) = self.upload(row, file, &connection.line).await
            {
                return SendOutcome::Failed(why);
            }
            if row.file.is_some() {
                // The connection went before the file was there.
                continue;
            }
            let ack = self.expect_ack(&row.message_id);
            let problem = match connection.line.send(&row.chat, &row.payload, &row.message_id).await {
                Ok(()) => match self.answer(connection.number, ack).await {
                    Answer::Ack(Ack::Accepted) => return SendOutcome::Sent(Timestamp::now()),
                    Answer::Ack(Ack::Refused(code)) => return SendOutcome::Failed(refusal(&code)),
                    Answer::ConnectionLost => continue,
                    Answer::Silence => "WhatsApp did not acknowledge the message".to_owned(),
                },
                Err(SendFailure::NotConnected) => {
                    // The library knows of the loss before the session does.
                    tokio::time::sleep(RETRY_MIN).await;
                    continue;
                }
                Err(SendFailure::Impossible(why)) => return SendOutcome::Failed(why),
                Err(SendFailure::Temporary(why) | SendFailure::Upload(why)) => why,
            };
            failures += 1;
            if failures >= ATTEMPTS {
                return SendOutcome::Failed(problem);
            }
            tracing::warn!(session_id = %self.fence.session(), message_id = %row.message_id, failures, problem, "send failed, trying again");
            tokio::time::sleep(pause(failures)).await;
        }
    }

    /// Uploads a message's file, however long WhatsApp's media host is down. The message keeps its file when the
    /// connection is lost; an error says why there is no hope.
    async fn upload(&self, row: &mut OutboxRow, file: FileId, line: &Line) -> Result<(), String> {
        let mut failures = 0;
        loop {
            let (payload, path) = match line.upload(&row.payload, &self.spool.path(&file)).await {
                Ok(uploaded) => uploaded,
                Err(SendFailure::NotConnected) => {
                    tokio::time::sleep(RETRY_MIN).await;
                    return Ok(());
                }
                Err(SendFailure::Impossible(why)) => return Err(why),
                Err(SendFailure::Temporary(why) | SendFailure::Upload(why)) => {
                    let age = Timestamp::now().as_secs() - row.accepted_at.as_secs();
                    if age > UPLOAD_PATIENCE_SECS {
                        return Err(why);
                    }
                    failures += 1;
                    tracing::warn!(session_id = %self.fence.session(), message_id = %row.message_id, failures, why, "upload failed, trying again");
                    tokio::time::sleep(pause(failures)).await;
                    continue;
                }
            };
            row.payload = payload.into();
            let stored = self.stores.outbox.uploaded(&self.fence, row.seq, row.payload.clone(), &path).await;
            if let Err(error) = stored {
                // The message can be sent all the same; after a crash the file is uploaded again.
                tracing::warn!(session_id = %self.fence.session(), seq = row.seq, %error, "an upload could not be noted");
            } else {
                self.spool.remove(&file);
            }
            row.file = None;
            return Ok(());
        }
    }

    /// A connection, as soon as there is one.
    async fn connected(&self) -> Connection {
        let mut connection = self.connection.clone();
        let found = connection.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        match found {
            Some(connection) => connection,
            // The session's actor is gone; the desk is closed with it.
            None => std::future::pending().await,
        }
    }

    /// WhatsApp's answer to what was sent over the connection with this number.
    async fn answer(&self, number: u64, ack: oneshot::Receiver<Ack>) -> Answer {
        let mut connection = self.connection.clone();
        let lost = async {
            let _ = connection.wait_for(|now| now.as_ref().is_none_or(|now| now.number != number)).await;
        };
        tokio::select! {
            ack = ack => ack.map_or(Answer::ConnectionLost, Answer::Ack),
            () = lost => Answer::ConnectionLost,
            () = tokio::time::sleep(ACK_TIMEOUT) => Answer::Silence,
        }
    }

    fn expect_ack(&self, id: &MessageId) -> oneshot::Receiver<Ack> {
        let (tell, hear) = oneshot::channel();
        self.desk().acks.insert(id.as_str().to_owned(), tell);
        hear
    }

    /// Takes in WhatsApp's answer to the message with this id.
    pub(crate) fn acknowledged(&self, id: &str, ack: Ack) {
        if let Some(waiting) = self.desk().acks.remove(id) {
            let _ = waiting.send(ack);
        }
    }

    /// Whether a write that failed so is worth another try.
    fn comes_back(&self, error: &StoreError) -> bool {
        match error {
            StoreError::Overloaded | StoreError::Frozen { .. } => true,
            StoreError::Unavailable(_) => self.stores.engine.recovers(),
            _ => false,
        }
    }

    async fn resolve(&self, row: &OutboxRow, kind: MessageType, outcome: &SendOutcome) {
        let label = if matches!(outcome, SendOutcome::Sent(_)) { "sent" } else { "failed" };
        metrics::message("outbound", kind, label);
        for attempt in 1.. {
            match self.stores.outbox.resolve(&self.fence, row.seq, outcome.clone()).await {
                Ok(()) => {
                    if let Some(file) = &row.file {
                        self.spool.remove(file);
                    }
                    return;
                }
                Err(error) if self.comes_back(&error) && !self.closed.is_cancelled() => {
                    tokio::time::sleep(pause(attempt)).await;
                }
                Err(error) => {
                    // The next owner sends it again under the same id; WhatsApp and the recipient know it.
                    tracing::error!(session_id = %self.fence.session(), seq = row.seq, %error, "outcome of a send could not be stored");
                    return;
                }
            }
        }
    }
}

/// How long to wait after so many failed attempts.
fn pause(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(2_u32.saturating_pow(failures)).min(RETRY_MAX)
}

/// WhatsApp's refusal in words.
fn refusal(code: &str) -> String {
    match code {
        "463" => {
            "WhatsApp refused the message (463): the recipient does not accept messages from this account yet".into()
        }
        "479" => "WhatsApp refused the message (479): it was not well-formed for the recipient".into(),
        other => format!("WhatsApp refused the message ({other})"),
    }
}
