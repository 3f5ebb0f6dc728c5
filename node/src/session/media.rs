//! Files of stored messages, from WhatsApp; and what becomes of spooled files that an earlier process has left.

use super::{
    SessionError,
    registry::{Handle, Sessions},
    service::unconnected,
    whatsapp::DownloadFailure,
};
use crate::spool::FileId;
use rookery_protocol::{MessageId, SessionId, UserId};
use rookery_storage::{HistoryRow, MediaFile, StoreError};
use std::{collections::HashSet, fs::File};

/// Rows read at a time when spooled files are swept.
const PAGE: usize = 500;

/// A message's file, or why there is none.
#[derive(Debug)]
pub(crate) enum Found {
    /// There is no such message.
    NoMessage,
    /// The message has no file that is at WhatsApp.
    NoFile,
    /// The message was taken back, and whatever was with it.
    Revoked,
    /// It is at WhatsApp.
    File(Box<(HistoryRow, MediaFile)>),
}

/// Why there is no file to give.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MediaError {
    /// The session or the store says no.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Neither WhatsApp nor the phone has it any more.
    #[error("the file is gone")]
    Gone,
    /// This node's disk failed.
    #[error("the file could not be kept")]
    Disk(#[from] std::io::Error),
}

impl Sessions {
    /// What there is of a file to the user's message with this id.
    pub(crate) async fn message_with_file(
        &self,
        user: UserId,
        id: SessionId,
        message: &MessageId,
    ) -> Result<Found, SessionError> {
        let rows = self.message(user, id, message).await?;
        let mut found = if rows.is_empty() { Found::NoMessage } else { Found::NoFile };
        for row in rows {
            if let Some(file) = row.file.clone().filter(|file| file.direct_path.is_some()) {
                return Ok(Found::File(Box::new((row, file))));
            }
            if row.revoked_at.is_some() {
                found = Found::Revoked;
            }
        }
        Ok(found)
    }

    /// The row that a message with a file was stored under: not always the one that it came as.
    pub(crate) async fn stored(&self, id: SessionId, came: &HistoryRow) -> Result<Option<HistoryRow>, SessionError> {
        let rows = self.env.stores.history.get(id, &came.message_id).await?;
        let same = |row: &HistoryRow| row.chat == came.chat && row.sender == came.sender && row.file.is_some();
        Ok(rows.into_iter().find(same))
    }

    /// Downloads the file of a message into `into`. One that WhatsApp no longer has is asked for from the phone.
    pub(crate) async fn download(
        &self,
        id: SessionId,
        row: &HistoryRow,
        file: &MediaFile,
        into: File,
    ) -> Result<File, MediaError> {
        let handle = self.running(id).await?;
        let line = handle.desk.line().ok_or_else(|| unconnected(&handle.view.borrow()))?;
        let again = into.try_clone()?;
        match line.download(row.kind, file, into).await {
            Ok(file) => return Ok(file),
            Err(DownloadFailure::Temporary(why)) => return Err(failed(why)),
            Err(DownloadFailure::Gone) => {}
        }
        let key = file.media_key.as_ref().ok_or(MediaError::Gone)?;
        let path = line.ask_again(row, key).await.map_err(gone_or_failed)?;
        self.relocated(&handle, row, &path).await;
        let moved = MediaFile { direct_path: Some(path), ..file.clone() };
        line.download(row.kind, &moved, again).await.map_err(gone_or_failed)
    }

    async fn relocated(&self, handle: &Handle, row: &HistoryRow, path: &str) {
        if let Err(error) = self.env.stores.history.relocate(&handle.fence, row.sort_key, path).await {
            // The next caller asks the phone again.
            tracing::warn!(session_id = %handle.fence.session(), %error, "a file's new place could not be stored");
        }
    }

    /// Removes those of the spooled files that an earlier process has left which no message refers to.
    pub(crate) async fn sweep_spool(&self, left: Vec<FileId>) -> Result<usize, StoreError> {
        let mut orphans: HashSet<FileId> = left.into_iter().collect();
        let mut after = None;
        while !orphans.is_empty() {
            let page = self.env.stores.sessions.scan(after, PAGE).await?;
            for session in page.rows {
                self.keep_referred(session.session_id, &mut orphans).await?;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        for orphan in &orphans {
            self.env.spool.remove(orphan);
        }
        Ok(orphans.len())
    }

    async fn keep_referred(&self, session: SessionId, orphans: &mut HashSet<FileId>) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let rows = self.env.stores.outbox.pending(session, after, PAGE).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some(last.seq);
            for file in rows.iter().filter_map(|row| row.file) {
                orphans.remove(&file);
            }
        }
    }
}

fn gone_or_failed(failure: DownloadFailure) -> MediaError {
    match failure {
        DownloadFailure::Gone => MediaError::Gone,
        DownloadFailure::Temporary(why) => failed(why),
    }
}

fn failed(why: String) -> MediaError {
    MediaError::Session(SessionError::Whatsapp(why))
}
