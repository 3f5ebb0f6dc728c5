//! Files of messages: sealed for WhatsApp, uploaded, fetched back and asked for again.
//!
//! A file is encrypted once, before its message is accepted, so that every attempt uploads the same bytes and the
//! message that refers to them is the same message. Nothing here reads a file's content.

use super::{Line, SendFailure};
use rookery_protocol::{Jid, MessageId, Timestamp, api::MessageType};
use rookery_storage::{HistoryRow, MediaFile};
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};
use whatsapp_rust::{
    ErrorChainExt,
    buffa::MessageField,
    download::{Downloadable, MediaType},
    features::{MediaRetryResult, MediaReuploadRequest},
    wacore::upload::{EncryptedMediaInfo, UploadSource, encrypt_media_streaming, encrypted_len},
    waproto::{codec, whatsapp as wa},
};

/// How long an upload or a download may take. The HTTP client has limits of its own for each step.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(600);

/// What a message with a file says besides the file.
#[derive(Clone, Debug)]
pub(crate) struct FileMessage {
    /// Image, audio, video or document.
    pub kind: MessageType,
    /// The file's type.
    pub mime_type: String,
    /// The file's name, for documents.
    pub file_name: Option<String>,
    /// The text with it.
    pub caption: Option<String>,
    /// Width and height in pixels, where known.
    pub dimensions: Option<(u32, u32)>,
    /// A small JPEG.
    pub thumbnail: Option<Vec<u8>>,
    /// How long it plays.
    pub seconds: Option<u32>,
    /// Whether it is a voice note.
    pub voice: bool,
}

/// A file as WhatsApp will keep it: what decrypts and proves it.
pub(crate) struct Sealed(EncryptedMediaInfo);

/// How long a file of this length is once it is sealed, in bytes.
pub(crate) fn sealed_length(plain: u64) -> u64 {
    encrypted_len(usize::try_from(plain).unwrap_or(usize::MAX - 32)) as u64
}

/// Encrypts a file with a fresh key. Blocks.
pub(crate) fn seal(kind: MessageType, plain: impl Read, into: &mut dyn Write) -> io::Result<Sealed> {
    encrypt_media_streaming(plain, into, media_type(kind)).map(Sealed).map_err(io::Error::other)
}

/// The encoded message for a sealed file that is not uploaded yet, and how the history refers to the file.
pub(crate) fn file_payload(message: FileMessage, sealed: Sealed, now: Timestamp) -> (Vec<u8>, MediaFile) {
    let file = MediaFile {
        direct_path: None,
        media_key: Some(sealed.0.media_key.to_vec().into()),
        sha256: sealed.0.file_sha256.to_vec().into(),
        encrypted_sha256: Some(sealed.0.file_enc_sha256.to_vec().into()),
        length: sealed.0.file_length,
    };
    (codec::message_to_vec(&encode(message, sealed.0, now.as_secs())), file)
}

macro_rules! with_file {
    ($kind:ident, $sealed:ident, $now:ident, $($field:ident: $value:expr),* $(,)?) => {
        MessageField::some(wa::message::$kind {
            media_key: Some($sealed.media_key.to_vec()),
            file_sha256: Some($sealed.file_sha256.to_vec()),
            file_enc_sha256: Some($sealed.file_enc_sha256.to_vec()),
            file_length: Some($sealed.file_length),
            media_key_timestamp: Some($now),
            $($field: $value,)*
            ..Default::default()
        })
    };
}

fn encode(what: FileMessage, sealed: EncryptedMediaInfo, now: i64) -> wa::Message {
    let mut message = wa::Message::default();
    let FileMessage { kind, mime_type, file_name, caption, dimensions, thumbnail, seconds, voice } = what;
    let mimetype = Some(mime_type);
    let (width, height) = dimensions.unzip();
    match kind {
        MessageType::Image => {
            message.image_message = with_file!(ImageMessage, sealed, now,
                mimetype: mimetype, caption: caption, width: width, height: height, jpeg_thumbnail: thumbnail);
        }
        MessageType::Audio => {
            message.audio_message = with_file!(AudioMessage, sealed, now,
                mimetype: mimetype, seconds: seconds, ptt: Some(voice), streaming_sidecar: sealed.streaming_sidecar);
        }
        MessageType::Video => {
            message.video_message = with_file!(VideoMessage, sealed, now,
                mimetype: mimetype, caption: caption, width: width, height: height, seconds: seconds,
                jpeg_thumbnail: thumbnail, streaming_sidecar: sealed.streaming_sidecar);
        }
        _ => {
            message.document_message = with_file!(DocumentMessage, sealed, now,
                mimetype: mimetype, caption: caption, title: file_name.clone(), file_name: file_name,
                jpeg_thumbnail: thumbnail);
        }
    }
    message
}

/// The fields of a message's file.
macro_rules! file_fields {
    ($message:expr) => {
        Some(Fields {
            url: &mut $message.url,
            direct_path: &mut $message.direct_path,
            media_key: &$message.media_key,
            sha256: &$message.file_sha256,
            encrypted_sha256: &$message.file_enc_sha256,
            length: $message.file_length,
        })
    };
}

struct Fields<'a> {
    url: &'a mut Option<String>,
    direct_path: &'a mut Option<String>,
    media_key: &'a Option<Vec<u8>>,
    sha256: &'a Option<Vec<u8>>,
    encrypted_sha256: &'a Option<Vec<u8>>,
    length: Option<u64>,
}

fn fields(message: &mut wa::Message) -> Option<(MediaType, Fields<'_>)> {
    if let Some(image) = message.image_message.as_option_mut() {
        return file_fields!(image).map(|fields| (MediaType::Image, fields));
    }
    if let Some(audio) = message.audio_message.as_option_mut() {
        return file_fields!(audio).map(|fields| (MediaType::Audio, fields));
    }
    if let Some(video) = message.video_message.as_option_mut() {
        return file_fields!(video).map(|fields| (MediaType::Video, fields));
    }
    let document = message.document_message.as_option_mut()?;
    file_fields!(document).map(|fields| (MediaType::Document, fields))
}

impl Fields<'_> {
    fn info(&self) -> Option<EncryptedMediaInfo> {
        let hash = |bytes: &Option<Vec<u8>>| bytes.as_deref()?.try_into().ok();
        Some(EncryptedMediaInfo {
            media_key: hash(self.media_key)?,
            file_sha256: hash(self.sha256)?,
            file_enc_sha256: hash(self.encrypted_sha256)?,
            file_length: self.length?,
            streaming_sidecar: None,
        })
    }
}

fn media_type(kind: MessageType) -> MediaType {
    match kind {
        MessageType::Image => MediaType::Image,
        MessageType::Audio => MediaType::Audio,
        MessageType::Video => MediaType::Video,
        MessageType::Sticker => MediaType::Sticker,
        _ => MediaType::Document,
    }
}

/// A file on this node, for an upload that may begin in its middle.
struct OnDisk {
    path: PathBuf,
    length: u64,
}

impl UploadSource for OnDisk {
    fn len(&self) -> u64 {
        self.length
    }

    fn reader_from(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = File::open(&self.path)?;
        file.seek(io::SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }
}

/// A kept reference as the library wants it.
struct Reference<'a> {
    file: &'a MediaFile,
    kind: MessageType,
}

impl Downloadable for Reference<'_> {
    fn direct_path(&self) -> Option<&str> {
        self.file.direct_path.as_deref()
    }

    fn media_key(&self) -> Option<&[u8]> {
        self.file.media_key.as_deref()
    }

    fn file_enc_sha256(&self) -> Option<&[u8]> {
        self.file.encrypted_sha256.as_deref()
    }

    fn file_sha256(&self) -> Option<&[u8]> {
        Some(&self.file.sha256)
    }

    fn file_length(&self) -> Option<u64> {
        Some(self.file.length)
    }

    fn app_info(&self) -> MediaType {
        media_type(self.kind)
    }
}

/// Why a file could not be had from WhatsApp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DownloadFailure {
    /// It is not there any more.
    Gone,
    /// It may work when tried again.
    Temporary(String),
}

impl Line {
    /// Uploads the sealed file of a message; answers the message as it can be sent now, and the path of the file.
    pub(crate) async fn upload(&self, payload: &[u8], file: &Path) -> Result<(Vec<u8>, String), SendFailure> {
        let impossible = |why: &str| SendFailure::Impossible(why.to_owned());
        let mut message =
            codec::message_decode(payload).map_err(|_| impossible("the stored message cannot be read"))?;
        let (kind, fields) = fields(&mut message).ok_or_else(|| impossible("the stored message has no file"))?;
        let info = fields.info().ok_or_else(|| impossible("the stored message does not describe its file"))?;
        let length = match std::fs::metadata(file) {
            Ok(file) => file.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(impossible("the file of the message is no longer on this node"));
            }
            Err(error) => return Err(SendFailure::Temporary(format!("the file cannot be read: {error}"))),
        };
        if !self.0.client.is_logged_in() {
            return Err(SendFailure::NotConnected);
        }
        self.may_act()?;
        let _permit = self.0.transfers.acquire().await;
        let source = OnDisk { path: file.to_owned(), length };
        let uploading = self.0.client.upload_stream(source, info, kind);
        let failed = |why: String| SendFailure::Upload(format!("WhatsApp did not take the file: {why}"));
        let uploaded = match tokio::time::timeout(TRANSFER_TIMEOUT, uploading).await {
            Ok(Ok(uploaded)) => uploaded,
            Ok(Err(_)) if !self.0.client.is_logged_in() => return Err(SendFailure::NotConnected),
            Ok(Err(error)) => return Err(failed(reason(&error))),
            Err(_) => return Err(failed("it took too long".into())),
        };
        *fields.url = Some(uploaded.url);
        *fields.direct_path = Some(uploaded.direct_path.clone());
        Ok((codec::message_to_vec(&message), uploaded.direct_path))
    }

    /// Downloads and decrypts a file; what arrives in `into` is whole and what its sender sent.
    pub(crate) async fn download(
        &self,
        kind: MessageType,
        file: &MediaFile,
        into: File,
    ) -> Result<File, DownloadFailure> {
        let _permit = self.0.transfers.acquire().await;
        let reference = Reference { file, kind };
        let downloading = self.0.client.download_to_writer(&reference, into);
        match tokio::time::timeout(TRANSFER_TIMEOUT, downloading).await {
            Ok(Ok(file)) => Ok(file),
            Ok(Err(error)) if matches!(error.http_status(), Some(403 | 404 | 410)) => Err(DownloadFailure::Gone),
            Ok(Err(error)) => Err(DownloadFailure::Temporary(reason(&error))),
            Err(_) => Err(DownloadFailure::Temporary("it took too long".into())),
        }
    }

    /// Asks the phone to upload the file of a message again; answers its new path.
    pub(crate) async fn ask_again(&self, row: &HistoryRow, key: &[u8]) -> Result<String, DownloadFailure> {
        let address = |jid: &Jid| jid.as_str().parse::<whatsapp_rust::Jid>().map_err(|_| DownloadFailure::Gone);
        let chat = address(&row.chat)?;
        let in_group = row.chat.as_str().ends_with("@g.us");
        let participant = row.sender.as_ref().filter(|_| in_group).map(address).transpose()?;
        let request = MediaReuploadRequest {
            msg_id: MessageId::as_str(&row.message_id),
            chat_jid: &chat,
            media_key: key,
            is_from_me: row.from_me,
            participant: participant.as_ref(),
        };
        let asked = tokio::time::timeout(self.0.phone_timeout, self.0.client.media_reupload().request(&request)).await;
        match asked {
            Ok(Ok(MediaRetryResult::Success { direct_path })) => Ok(direct_path),
            // The phone does not have it either, or does not answer: there is nobody else to ask.
            Ok(Ok(_)) | Err(_) => Err(DownloadFailure::Gone),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a file could not be asked for again");
                if self.0.client.is_logged_in() {
                    Err(DownloadFailure::Gone)
                } else {
                    Err(DownloadFailure::Temporary("the session is not connected".into()))
                }
            }
        }
    }
}

/// What went wrong, without the addresses and keys that the library's words may hold.
fn reason(error: &anyhow::Error) -> String {
    match error.http_status() {
        Some(status) => format!("its media host answered {status}"),
        None => "its media host could not be reached, or broke off".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whatsapp_rust::wacore::download::DownloadUtils;

    fn what(kind: MessageType) -> FileMessage {
        FileMessage {
            kind,
            mime_type: "a/b".into(),
            file_name: Some("name".into()),
            caption: Some("caption".into()),
            dimensions: Some((3, 4)),
            thumbnail: Some(vec![1]),
            seconds: Some(5),
            voice: true,
        }
    }

    #[test]
    fn a_sealed_file_is_described_by_its_message() {
        for kind in [MessageType::Image, MessageType::Audio, MessageType::Video, MessageType::Document] {
            let plain = vec![7; 100_000];
            let mut encrypted = vec![];
            let sealed = seal(kind, plain.as_slice(), &mut encrypted).unwrap();
            assert_eq!(encrypted.len() as u64, sealed_length(plain.len() as u64));
            let (payload, file) = file_payload(what(kind), sealed, Timestamp::from_secs(9));
            assert_eq!((file.direct_path.as_deref(), file.length), (None, plain.len() as u64));
            let mut message = codec::message_decode(&payload).unwrap();
            let (found, fields) = fields(&mut message).unwrap();
            let info = fields.info().unwrap();
            assert_eq!((found, &info.file_sha256[..]), (media_type(kind), &file.sha256[..]));
            assert!(fields.url.is_none() && fields.direct_path.is_none(), "not uploaded yet");
            let opened = DownloadUtils::decrypt_stream(encrypted.as_slice(), &info.media_key, found).unwrap();
            assert_eq!(opened, plain);
        }
    }

    #[test]
    fn a_text_has_no_file() {
        let payload = super::super::text_payload("text");
        assert!(fields(&mut codec::message_decode(&payload).unwrap()).is_none());
    }
}
