//! A caller's file on its way to a message: taken in, looked at, sealed.
//!
//! Whether it comes as a URL, as a `data:` URL or as an upload, it goes through a draft on the disk and is never whole in
//! memory. What comes out is a message's [`Content`] with a durable file, ready to be accepted.

mod cache;
mod decoders;
mod inspect;
mod keep;
mod mp4;
mod ogg;
mod received;
mod sound;
mod turns;

pub(crate) use cache::Cache;
pub(crate) use keep::{Keep, KeepLimits, Location, Place, S3Settings};
pub(crate) use received::Received;

use crate::{
    fetch::{FetchError, Fetcher, data_of},
    session::{Content, FileMessage, file_payload, seal, sealed_length},
    spool::{Draft, Plain, Spool, SpoolError},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use decoders::Decoders;
use inspect::Undecoded;
use rookery_protocol::{
    Timestamp, UserId,
    api::{Media as MediaView, MediaShape, MessageType},
};
use std::{
    io::{self, Seek},
    time::Duration,
};
use tokio::{task::spawn_blocking, time::timeout};
use turns::{Late, Turn, Turns};

/// How long a caller's file may wait for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest file name, in characters.
const MAX_NAME_CHARS: usize = 255;
/// How much of a `data:` URL is decoded at a time; a multiple of four.
const DATA_CHUNK: usize = 64 << 10;

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A field of the request has to be another one.
    #[error("{0} {1}")]
    Field(&'static str, String),
    /// The host of the file failed.
    #[error("{0}")]
    Host(String),
    /// The file is too large.
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
    /// There is no room or no turn for it now.
    #[error("{0}")]
    Busy(&'static str),
    /// This node failed.
    #[error("the file could not be kept")]
    Node(#[source] std::io::Error),
}

impl From<SpoolError> for Problem {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::TooLarge(limit) => Self::TooLarge(limit),
            SpoolError::Full => Self::Busy("Too many files are waiting to be sent."),
            SpoolError::Io(error) => Self::Node(error),
        }
    }
}

/// A file that is coming in, in its turn.
pub(crate) struct Incoming {
    draft: Draft,
    turn: Turn,
}

impl Incoming {
    /// Adds bytes at the end.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        Ok(self.draft.write(bytes).await?)
    }

    /// The whole file, which has this name.
    pub(crate) async fn finish(self, name: Option<String>) -> Result<Arrived, Problem> {
        Ok(Arrived { plain: self.draft.finish().await?, name, _turn: self.turn })
    }
}

/// A file that has come in.
pub(crate) struct Arrived {
    plain: Plain,
    name: Option<String>,
    _turn: Turn,
}

impl Arrived {
    /// Its SHA-256.
    pub(crate) fn sha256(&self) -> &[u8; 32] {
        &self.plain.sha256
    }

    /// The name that it came with.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// What a caller wants to do with a file.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Image, audio, video or document.
    pub kind: MessageType,
    /// The text with it.
    pub caption: Option<String>,
    /// The name that a document is to have.
    pub file_name: Option<String>,
    /// The field of the request that the file came in.
    pub field: &'static str,
}

/// Takes files in.
pub(crate) struct Media {
    spool: Spool,
    fetcher: Fetcher,
    turns: Turns,
    decoders: Decoders,
    transfer_timeout: Duration,
}

impl Media {
    /// Takes in so many files at a time, of one user at most half of that, each within this time. Starts threads that
    /// decode images.
    pub(crate) fn new(
        spool: Spool,
        fetcher: Fetcher,
        concurrent: usize,
        transfer_timeout: Duration,
    ) -> io::Result<Self> {
        let turns = Turns::new(concurrent);
        Ok(Self { spool, fetcher, turns, decoders: Decoders::start()?, transfer_timeout })
    }

    /// The largest file.
    pub(crate) fn max_file_bytes(&self) -> u64 {
        self.spool.max_file_bytes()
    }

    /// How long a file may take to come in.
    pub(crate) fn transfer_timeout(&self) -> Duration {
        self.transfer_timeout
    }

    /// Waits for a turn of this user to take a file in.
    pub(crate) async fn incoming(&self, user: UserId) -> Result<Incoming, Problem> {
        let turn = self.turns.take(user, TURN_TIMEOUT).await.map_err(|late| match late {
            Late::User => Problem::Busy("Too many files of the user are being taken in."),
            Late::All => Problem::Busy("Too many files are being taken in."),
        })?;
        Ok(Incoming { draft: self.spool.draft()?, turn })
    }

    /// Takes in what a URL leads to; `data:` URLs hold it themselves.
    pub(crate) async fn fetch(&self, user: UserId, url: &str) -> Result<Arrived, Problem> {
        let mut incoming = self.incoming(user).await?;
        if let Some(data) = data_of(url) {
            decode_data(data, &mut incoming).await?;
            return incoming.finish(None).await;
        }
        let fetching = async {
            let mut fetched = self.fetcher.get(url).await.map_err(from_fetch)?;
            if fetched.length.is_some_and(|length| length > self.max_file_bytes()) {
                return Err(too_large(self.max_file_bytes()));
            }
            while let Some(chunk) = fetched.chunk().await.map_err(from_fetch)? {
                match incoming.write(&chunk).await {
                    Err(Problem::TooLarge(limit)) => return Err(too_large(limit)),
                    written => written?,
                }
            }
            incoming.finish(fetched.file_name.take()).await
        };
        let late = || Problem::Host("the host did not send the file in time".into());
        timeout(self.transfer_timeout, fetching).await.map_err(|_| late())?
    }

    /// Looks at a file and seals it: the content of a message that can be accepted.
    pub(crate) async fn prepare(&self, arrived: Arrived, wish: Wish) -> Result<Content, Problem> {
        let field = wish.field;
        if arrived.plain.length == 0 {
            return Err(Problem::Field(field, "must not be empty".into()));
        }
        let kind = wish.kind;
        let (mut arrived, mut message, image) = blocking(move || look_at(arrived, &wish)).await?;
        if let Some(image) = image {
            let (file, picture) = self.decoders.decode(image, arrived.plain.file).await?;
            arrived.plain.file = file;
            let picture = picture.map_err(|why| Problem::Field(field, why))?;
            message.dimensions = Some((picture.width, picture.height));
            message.thumbnail = Some(picture.thumbnail);
        }
        let spool = self.spool.clone();
        blocking(move || seal_file(&spool, kind, arrived, message)).await
    }
}

/// The type, the size and the duration; an image's head.
fn look_at(mut arrived: Arrived, wish: &Wish) -> Result<(Arrived, FileMessage, Option<Undecoded>), Problem> {
    let file = &mut arrived.plain.file;
    let head = inspect::head(file).map_err(Problem::Node)?;
    let mime = inspect::fit(wish.kind, &head).map_err(|why| Problem::Field("type", why))?;
    let image = match wish.kind {
        MessageType::Image => Some(Undecoded::open(file, mime).map_err(|why| Problem::Field(wish.field, why))?),
        _ => None,
    };
    let voice = wish.kind == MessageType::Audio && inspect::is_voice(mime);
    let film = match wish.kind {
        MessageType::Audio | MessageType::Video => inspect::film(file, &head, mime).map_err(Problem::Node)?,
        _ => mp4::Film::default(),
    };
    let name = wish.file_name.as_deref().or(arrived.name.as_deref());
    let file_name = (wish.kind == MessageType::Document).then(|| clean_name(name.unwrap_or_default()));
    let message = FileMessage {
        kind: wish.kind,
        mime_type: mime.to_owned(),
        file_name,
        caption: wish.caption.clone(),
        dimensions: film.dimensions,
        thumbnail: None,
        seconds: film.seconds,
        voice,
    };
    Ok((arrived, message, image))
}

fn seal_file(spool: &Spool, kind: MessageType, mut arrived: Arrived, message: FileMessage) -> Result<Content, Problem> {
    let (length, file) = (arrived.plain.length, &mut arrived.plain.file);
    file.rewind().map_err(Problem::Node)?;
    let sealing = |into: &mut dyn std::io::Write| seal(kind, &mut &*file, into).map_err(Problem::Node);
    let (spooled, sealed) = spool.seal(sealed_length(length), sealing)?;
    let view = MediaView {
        mime_type: Some(message.mime_type.clone()),
        size: Some(length),
        file_name: message.file_name.clone(),
        sha256: Some(hex::encode(arrived.plain.sha256)),
        url: None,
    };
    let caption = message.caption.clone();
    let (width, height) = message.dimensions.unzip();
    let shape = MediaShape { width, height, seconds: message.seconds };
    let shape = Some(shape).filter(|shape| *shape != MediaShape::default());
    let (payload, file) = file_payload(message, sealed, Timestamp::now());
    Ok(Content { kind, text: None, caption, media: Some((view, file)), shape, payload, file: Some(spooled) })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    spawn_blocking(work).await.map_err(|error| Problem::Node(io::Error::other(error)))?
}

fn from_fetch(error: FetchError) -> Problem {
    match error {
        FetchError::Refused(why) => Problem::Field("media_url", why),
        FetchError::Failed(why) => Problem::Host(why),
    }
}

/// Too large for a field that only names the file; the request itself is not too large.
fn too_large(limit: u64) -> Problem {
    Problem::Field("media_url", format!("leads to a file of more than {limit} bytes"))
}

/// Reads what follows `data:`; the type that it claims is of no interest.
async fn decode_data(data: &str, into: &mut Incoming) -> Result<(), Problem> {
    let malformed = || Problem::Field("media_url", "is not a valid data: URL".into());
    let (head, body) = data.split_once(',').ok_or_else(malformed)?;
    if !head.split(';').next_back().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64")) {
        for chunk in percent_encoding::percent_decode_str(body).collect::<Vec<_>>().chunks(DATA_CHUNK) {
            into.write(chunk).await?;
        }
        return Ok(());
    }
    // Base64 may be escaped in a URL.
    let plain = percent_encoding::percent_decode_str(body).collect::<Vec<_>>();
    for chunk in plain.chunks(DATA_CHUNK) {
        let decoded = BASE64_STANDARD.decode(chunk).map_err(|_| malformed())?;
        into.write(&decoded).await?;
    }
    Ok(())
}

/// A file name without folders, control characters and what is not a name on some system.
fn clean_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let legal = |c: &char| !c.is_control() && !matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*');
    let name: String = last.chars().filter(legal).take(MAX_NAME_CHARS).collect();
    let name = name.trim().trim_start_matches('.');
    if name.is_empty() { "file".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::AllowList;

    fn media(dir: &std::path::Path) -> Media {
        let (spool, _) = Spool::open(&dir.join("spool"), 1 << 20, 1 << 20).unwrap();
        Media::new(
            spool,
            Fetcher::new(crate::fetch::tls(None).unwrap(), AllowList::default()),
            1,
            Duration::from_secs(5),
        )
        .unwrap()
    }

    fn user() -> UserId {
        UserId::from_bytes([1; 16])
    }

    #[test]
    fn names_lose_what_harms() {
        for (name, clean) in [
            ("a b.pdf", "a b.pdf"),
            ("../../etc/passwd", "passwd"),
            ("C:\\x\\y.txt", "y.txt"),
            ("..", "file"),
            ("", "file"),
            ("a\r\nb\"c", "abc"),
            (".bashrc", "bashrc"),
        ] {
            assert_eq!(clean_name(name), clean, "{name:?}");
        }
        assert_eq!(clean_name(&"ü".repeat(300)).chars().count(), MAX_NAME_CHARS);
    }

    #[tokio::test]
    async fn data_urls_hold_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let media = media(dir.path());
        for (url, expected) in [
            ("data:text/plain;base64,R3LDvMOfZQ==", "Grüße"),
            ("data:;base64,R3LDvMOfZQ%3D%3D", "Grüße"),
            ("data:,a%20b", "a b"),
            ("DATA:text/plain;BASE64,YQ==", "a"),
        ] {
            let arrived = media.fetch(user(), url).await.unwrap();
            assert_eq!(*arrived.sha256(), <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(expected)), "{url}");
        }
        for url in ["data:", "data:;base64", "data:;base64,!!!", "data:;base64,R3L"] {
            assert!(matches!(media.fetch(user(), url).await, Err(Problem::Field("media_url", _))), "{url}");
        }
    }

    #[tokio::test]
    async fn a_document_is_sealed_and_an_empty_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let media = media(dir.path());
        let wish = Wish { kind: MessageType::Document, caption: None, file_name: None, field: "media_url" };
        let arrived = media.fetch(user(), "data:,text").await.unwrap();
        let content = media.prepare(arrived, wish.clone()).await.unwrap();
        let (view, file) = content.media.unwrap();
        assert_eq!((view.mime_type.as_deref(), view.size, file.length), (Some("text/plain"), Some(4), 4));
        assert_eq!(view.file_name.as_deref(), Some("file"));
        let path = media.spool.path(&content.file.as_ref().unwrap().id());
        assert_eq!(path.metadata().unwrap().len(), sealed_length(4));
        drop(content.file);
        assert!(!path.exists(), "nobody took it");
        let empty = media.fetch(user(), "data:,").await.unwrap();
        assert!(matches!(media.prepare(empty, wish).await, Err(Problem::Field("media_url", _))));
    }
}
