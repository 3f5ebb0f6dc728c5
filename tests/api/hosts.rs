//! A little web server on this machine, well-behaved or not, for what the gateway fetches; and files to fetch.

use image::{DynamicImage, ImageFormat, RgbImage};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::HashMap,
    io::Cursor,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// What the host does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A file of this type.
    File(&'static str, Vec<u8>),
    /// On to another URL.
    Redirect(String),
    /// A status without a body.
    Status(u16),
    /// These bytes and nothing else, then the end.
    Raw(Vec<u8>),
    /// Nothing, for ever.
    Hang,
    /// The beginning of a file, then nothing, for ever.
    HangInside,
    /// A body without end.
    Endless,
}

/// The host; it stops when dropped.
pub(crate) struct Host {
    port: u16,
    scheme: &'static str,
    replies: Arc<Mutex<HashMap<String, Reply>>>,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Host {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// One that speaks https.
    pub(crate) async fn start_tls(tls: TlsAcceptor) -> Self {
        Self::start_with(Some(tls)).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (replies, asked) = (Arc::<Mutex<HashMap<_, _>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (known, log) = (Arc::clone(&replies), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (known, log, tls) = (Arc::clone(&known), Arc::clone(&log), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, known, log).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                answer(stream, known, log).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, scheme, replies, asked, task }
    }

    /// `127.0.0.1:PORT`, as it stands in the configuration.
    pub(crate) fn name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Sets what a path is answered with; answers its URL.
    pub(crate) fn put(&self, path: &str, reply: Reply) -> String {
        self.replies.lock().unwrap().insert(path.to_owned(), reply);
        format!("{}://{}{path}", self.scheme, self.name())
    }

    /// Sets a file; answers its URL.
    pub(crate) fn file(&self, path: &str, bytes: &[u8]) -> String {
        // Its type is a lie: content decides.
        self.put(path, Reply::File("text/html", bytes.to_vec()))
    }

    /// How often a path was asked for.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == path).count()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    replies: Arc<Mutex<HashMap<String, Reply>>>,
    log: Arc<Mutex<Vec<String>>>,
) {
    let mut head = vec![];
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => head.extend_from_slice(&buffer[..read]),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    log.lock().unwrap().push(path.clone());
    let reply = replies.lock().unwrap().get(&path).cloned().unwrap_or(Reply::Status(404));
    let _ = write(&mut stream, reply).await;
    let _ = stream.shutdown().await;
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), reply: Reply) -> std::io::Result<()> {
    match reply {
        Reply::File(kind, bytes) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", bytes.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&bytes).await
        }
        Reply::Redirect(location) => {
            let head = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await
        }
        Reply::Status(status) => {
            stream.write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes()).await
        }
        Reply::Raw(bytes) => stream.write_all(&bytes).await,
        Reply::Hang => std::future::pending().await,
        Reply::HangInside => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegins").await?;
            std::future::pending().await
        }
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 16 << 10]).await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// A picture that compresses badly, of about three bytes a pixel.
pub(crate) fn picture(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(u64::from(width));
    let image = RgbImage::from_fn(width, height, |_, _| image::Rgb(random.random()));
    let mut bytes = Cursor::new(vec![]);
    DynamicImage::ImageRgb8(image).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A PNG whose head promises this many pixels.
pub(crate) fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut png = picture(ImageFormat::Png, 8, 8);
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// An Ogg Opus file that plays this many seconds.
pub(crate) fn voice(seconds: u64) -> Vec<u8> {
    let page = |granule: u64, packet: &[u8]| {
        let mut page = b"OggS\0\0".to_vec();
        page.extend(granule.to_le_bytes());
        page.extend([9, 0, 0, 0]);
        page.extend([0; 8]);
        page.extend([1, packet.len() as u8]);
        page.extend(packet);
        page
    };
    let head = b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0";
    [page(0, head), page(48_000, &[1; 200]), page(seconds * 48_000 + 312, &[2; 200])].concat()
}

/// What begins like an MP4.
pub(crate) fn film() -> Vec<u8> {
    [&b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"[..], &[7; 5000]].concat()
}

fn mp4_box(name: &[u8], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes(), name, body].concat()
}

/// An MP4 with one track of this size, which has to be turned to be shown or not. Zeros say nothing.
pub(crate) fn film_of(width: u32, height: u32, turned: bool, seconds: u32) -> Vec<u8> {
    mp4(b"mp42", width, height, turned, seconds)
}

/// An MP4 with sound alone.
pub(crate) fn sound_of(seconds: u32) -> Vec<u8> {
    mp4(b"M4A ", 0, 0, false, seconds)
}

/// A WAV: mono, 8 kHz, 8 bits.
pub(crate) fn wav_of(seconds: u32) -> Vec<u8> {
    let rate = 8_000_u32.to_le_bytes();
    let chunk = |name: &[u8], body: &[u8]| [name, &(body.len() as u32).to_le_bytes(), body].concat();
    let format = chunk(b"fmt ", &[&[1, 0, 1, 0], &rate[..], &rate, &[1, 0, 8, 0]].concat());
    let samples = chunk(b"data", &vec![128; (8_000 * seconds) as usize]);
    chunk(b"RIFF", &[&b"WAVE"[..], &format, &samples].concat())
}

fn mp4(brand: &[u8], width: u32, height: u32, turned: bool, seconds: u32) -> Vec<u8> {
    let one = 1_u32 << 16;
    let matrix = if turned { [0, one, 0, one, 0, 0, 0, 0, one] } else { [one, 0, 0, 0, one, 0, 0, 0, one] };
    let mut track = vec![0; 40];
    track.extend(matrix.iter().chain(&[width << 16, height << 16]).flat_map(|number| number.to_be_bytes()));
    let mut movie = vec![0; 12];
    movie.extend([600_u32.to_be_bytes(), (seconds * 600).to_be_bytes()].concat());
    movie.extend([0; 80]);
    let movie = [mp4_box(b"mvhd", &movie), mp4_box(b"trak", &mp4_box(b"tkhd", &track))].concat();
    let kind = mp4_box(b"ftyp", &[brand, &[0; 4][..], b"isom"].concat());
    [kind, mp4_box(b"mdat", &[7; 5000]), mp4_box(b"moov", &movie)].concat()
}

/// A JPEG whose EXIF data say how it is to be turned.
pub(crate) fn turned(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}
