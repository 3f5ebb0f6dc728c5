//! What a file is, by its content alone.
//!
//! Knows nothing of where a file comes from or goes to. Whatever it is given was made by a stranger: an image is decoded
//! within limits, and one that cannot be is refused.

use super::{mp4, ogg, sound};
use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, codecs::jpeg::JpegEncoder, metadata::Orientation,
};
use rookery_protocol::api::MessageType;
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
};

/// How much of a file's beginning tells its type.
pub(super) const HEAD_BYTES: usize = 8 << 10;
/// The most pixels of an image: a decompression bomb has more.
const MAX_PIXELS: u64 = 50_000_000;
/// The longest side of an image, in pixels.
const MAX_SIDE: u32 = 20_000;
/// The longest side of a thumbnail, in pixels.
const THUMBNAIL_SIDE: u32 = 96;
/// The JPEG quality of a thumbnail.
const THUMBNAIL_QUALITY: u8 = 60;
/// The MIME type of a voice note, as WhatsApp writes it.
const VOICE: &str = "audio/ogg; codecs=opus";

/// What an image looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    /// Its width in pixels, as it is shown.
    pub width: u32,
    /// Its height in pixels, as it is shown.
    pub height: u32,
    /// A small JPEG of it, upright.
    pub thumbnail: Vec<u8>,
}

/// The MIME type of a file that begins like this; none when nothing is known of it.
pub(super) fn mime_type(head: &[u8]) -> Option<&'static str> {
    match head {
        // What the library does not know, or calls by another name than WhatsApp.
        [0xff, 0xf2 | 0xf3 | 0xfa, ..] => return Some("audio/mpeg"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'3', b'g', ..] => return Some("video/3gpp"),
        _ => {}
    }
    Some(match infer::get(head)?.mime_type() {
        "audio/opus" => VOICE,
        "audio/m4a" => "audio/mp4",
        "audio/x-wav" => "audio/wav",
        "audio/x-flac" => "audio/flac",
        other => other,
    })
}

/// The MIME type under which a file is sent as this kind of message, or why it cannot be.
pub(super) fn fit(kind: MessageType, head: &[u8]) -> Result<&'static str, String> {
    let found = mime_type(head);
    let family = found.and_then(|mime| mime.split('/').next()).unwrap_or_default();
    let fits = match kind {
        MessageType::Image => found.is_some_and(|mime| format_of(mime).is_some()),
        MessageType::Audio => family == "audio",
        MessageType::Video => family == "video",
        _ => return Ok(found.unwrap_or_else(|| text_or_bytes(head))),
    };
    match found {
        Some(mime) if fits => Ok(mime),
        Some(mime) => Err(format!("does not fit the content, which is {mime}")),
        None => Err("does not fit the content, whose type is not known".into()),
    }
}

/// The type of what has no signature.
fn text_or_bytes(head: &[u8]) -> &'static str {
    let text = match std::str::from_utf8(head) {
        Ok(_) => true,
        // Cut within a character.
        Err(error) => error.error_len().is_none() && head.len() == HEAD_BYTES,
    };
    if text && !head.contains(&0) { "text/plain" } else { "application/octet-stream" }
}

/// Whether this is a voice note, and not some other sound.
pub(super) fn is_voice(mime: &str) -> bool {
    mime == VOICE
}

/// How large a film is and how long it or a sound plays, for the kinds of file where that is easily known.
pub(super) fn film(file: &mut File, head: &[u8], mime: &str) -> io::Result<mp4::Film> {
    if is_voice(mime) {
        return Ok(mp4::Film { dimensions: None, seconds: ogg::opus_seconds(file)? });
    }
    if head.get(4..8) == Some(b"ftyp") {
        return mp4::look(file);
    }
    Ok(mp4::Film { dimensions: None, seconds: sound::seconds(file, mime)? })
}

/// The beginning of a file.
pub(super) fn head(file: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.rewind()?;
    file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// An image whose size is known and allowed, before any memory is spent on it.
pub(super) struct Undecoded {
    format: ImageFormat,
    width: u32,
    height: u32,
    bytes: u64,
}

impl Undecoded {
    /// Reads an image's head.
    pub(super) fn open(file: &mut File, mime: &str) -> Result<Self, String> {
        let format = format_of(mime).ok_or("is no image")?;
        let decoder = reader(file, format)?.into_decoder().map_err(|_| "is a damaged image")?;
        let (width, height) = decoder.dimensions();
        let too_large = u64::from(width) * u64::from(height) > MAX_PIXELS || width.max(height) > MAX_SIDE;
        if too_large || width == 0 || height == 0 {
            return Err(format!("is an image of {width} x {height} pixels, which is too large"));
        }
        Ok(Self { format, width, height, bytes: decoder.total_bytes() })
    }

    /// How much memory the decoded image takes, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Decodes the image, as far as it takes to make its thumbnail. Blocks, for as long as the image is large.
    pub(super) fn decode(self, file: &mut File) -> Result<Picture, String> {
        let damaged = |_| "is a damaged image".to_owned();
        let mut decoder = reader(file, self.format)?.into_decoder().map_err(damaged)?;
        decoder.set_limits(limits()).map_err(damaged)?;
        // Cameras do not turn what they take, they say how it is to be turned.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
        let mut small = image.thumbnail(THUMBNAIL_SIDE, THUMBNAIL_SIDE);
        drop(image);
        small.apply_orientation(orientation);
        let mut thumbnail = Vec::new();
        let flat = DynamicImage::ImageRgb8(small.to_rgb8());
        flat.write_with_encoder(JpegEncoder::new_with_quality(&mut thumbnail, THUMBNAIL_QUALITY)).map_err(damaged)?;
        let (width, height) = match orientation {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => (self.height, self.width),
            _ => (self.width, self.height),
        };
        Ok(Picture { width, height, thumbnail })
    }
}

fn reader(file: &mut File, format: ImageFormat) -> Result<ImageReader<BufReader<&File>>, String> {
    file.rewind().map_err(|_| "could not be read")?;
    let mut reader = ImageReader::with_format(BufReader::new(&*file), format);
    reader.limits(limits());
    Ok(reader)
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    // Eight bytes a pixel at most, and what a decoder needs besides.
    limits.max_alloc = Some(MAX_PIXELS * 10);
    limits
}

/// The formats that are sent as images.
fn format_of(mime: &str) -> Option<ImageFormat> {
    match mime {
        "image/jpeg" => Some(ImageFormat::Jpeg),
        "image/png" => Some(ImageFormat::Png),
        "image/webp" => Some(ImageFormat::WebP),
        "image/gif" => Some(ImageFormat::Gif),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::RgbImage;
    use proptest::prelude::*;
    use std::io::{Cursor, Write};

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let image = RgbImage::from_fn(200, 100, |x, y| image::Rgb([x as u8, y as u8, 0]));
        let mut bytes = Cursor::new(vec![]);
        DynamicImage::ImageRgb8(image).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn picture(bytes: &[u8]) -> Result<Picture, String> {
        let mut file = file(bytes);
        let mime = fit(MessageType::Image, &head(&mut file).unwrap())?;
        Undecoded::open(&mut file, mime)?.decode(&mut file)
    }

    #[test]
    fn content_decides_and_not_its_name() {
        let ogg = [&b"OggS\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x13OpusHead"[..], &[0; 20]].concat();
        let cases: [(&[u8], MessageType, Result<&str, ()>); 12] = [
            (&encoded(ImageFormat::Png), MessageType::Image, Ok("image/png")),
            (&encoded(ImageFormat::Png), MessageType::Document, Ok("image/png")),
            (&encoded(ImageFormat::Png), MessageType::Video, Err(())),
            (b"\0\0\0\x18ftypmp42\0\0\0\0", MessageType::Video, Ok("video/mp4")),
            (b"\0\0\0\x18ftyp3gp4\0\0\0\0", MessageType::Video, Ok("video/3gpp")),
            (b"\0\0\0\x18ftypM4A \0\0\0\0", MessageType::Audio, Ok("audio/mp4")),
            (&ogg, MessageType::Audio, Ok(VOICE)),
            (b"\xff\xf3\x84\0\0\0", MessageType::Audio, Ok("audio/mpeg")),
            (b"%PDF-1.7", MessageType::Image, Err(())),
            (b"%PDF-1.7", MessageType::Document, Ok("application/pdf")),
            ("Grüße".as_bytes(), MessageType::Document, Ok("text/plain")),
            (b"\xfe\0\x01", MessageType::Document, Ok("application/octet-stream")),
        ];
        for (bytes, kind, expected) in cases {
            assert_eq!(fit(kind, bytes).map_err(drop), expected, "{kind:?} {:?}", bytes.get(..8));
        }
    }

    #[test]
    fn images_of_every_format_get_a_thumbnail() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
            let picture = picture(&encoded(format)).unwrap();
            assert_eq!((picture.width, picture.height), (200, 100), "{format:?}");
            let small = image::load_from_memory_with_format(&picture.thumbnail, ImageFormat::Jpeg).unwrap();
            assert_eq!((small.width(), small.height()), (96, 48));
        }
    }

    /// The JPEG with an EXIF segment that says how it is to be turned.
    fn turned(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        let length = (exif.len() as u16 + 2).to_be_bytes();
        [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
    }

    #[test]
    fn an_image_is_shown_upright() {
        // Red on the left, blue on the right.
        let image = RgbImage::from_fn(200, 100, |x, _| image::Rgb(if x < 100 { [255, 0, 0] } else { [0, 0, 255] }));
        let mut jpeg = Cursor::new(vec![]);
        DynamicImage::ImageRgb8(image).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
        let jpeg = jpeg.into_inner();
        // By the value of the tag: size, and whether the first pixels of the thumbnail are red.
        let expected = [
            (1, (200, 100), true),
            (3, (200, 100), false),
            (6, (100, 200), true),
            (8, (100, 200), false),
            (0, (200, 100), true),
            (99, (200, 100), true),
        ];
        for (orientation, size, red) in expected {
            let picture = picture(&turned(&jpeg, orientation)).unwrap();
            assert_eq!((picture.width, picture.height), size, "{orientation}");
            let small = image::load_from_memory(&picture.thumbnail).unwrap().to_rgb8();
            assert_eq!(
                (small.width() > small.height(), small[(2, 2)][0] > 128),
                (size.0 > size.1, red),
                "{orientation}"
            );
        }
        let mut broken = turned(&jpeg, 6);
        broken[18] = 0xff;
        assert!(picture(&broken).is_ok(), "what cannot be understood is passed over");
    }

    #[test]
    fn damaged_and_enormous_images_are_refused() {
        let (png, jpeg) = (encoded(ImageFormat::Png), encoded(ImageFormat::Jpeg));
        for length in [3, 12, 40, png.len() / 2] {
            assert!(picture(&png[..length]).is_err(), "PNG cut to {length}");
        }
        // What is there of a JPEG is shown, as browsers do; without its tables there is nothing.
        for length in [3, 12, 40] {
            assert!(picture(&jpeg[..length]).is_err(), "JPEG cut to {length}");
        }
        // A header that promises 65,000 x 65,000 pixels costs no memory.
        let mut bomb = encoded(ImageFormat::Png);
        bomb[16..20].copy_from_slice(&65_000_u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&65_000_u32.to_be_bytes());
        assert!(picture(&bomb).is_err());
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(at: prop::sample::Index, byte: u8, png: bool) {
            let mut bytes = encoded(if png { ImageFormat::Png } else { ImageFormat::Jpeg });
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = picture(&bytes);
        }
    }
}
