//! The size and the duration of an MP4 or MOV film, and the duration of a sound in that form.
//!
//! ISO/IEC 14496-12: boxes in boxes, each with a length and a name of four letters. Only the heads of the film and of
//! its tracks are read, some hundred bytes wherever they are in the file; the number of boxes that are looked at is
//! bounded, so that a file made to confuse costs no more than one that is well.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

/// Boxes that are looked at, all levels together.
const MAX_BOXES: u32 = 512;
/// What is read of a box: the longest head of a track has 96 bytes.
const HEAD_BYTES: usize = 96;
/// Nobody sends a film with a longer side, in pixels.
const MAX_SIDE: u32 = 16_384;
/// Nobody sends a film of more than a day.
const MAX_SECONDS: u64 = 86_400;

/// What is known of a film or a sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Film {
    /// Width and height as it is shown, in pixels.
    pub dimensions: Option<(u32, u32)>,
    /// How long it plays, rounded up.
    pub seconds: Option<u32>,
}

/// What the file says of itself, as far as it can be understood.
pub(super) fn look(file: &mut (impl Read + Seek)) -> io::Result<Film> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut reader = Reader { file, boxes_left: MAX_BOXES, film: Film::default() };
    match reader.boxes(0, end, Level::File) {
        // Cut off, or lengths that lie: what was found until there is as good as anything.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(reader.film),
    }
}

/// Which boxes are of interest.
#[derive(Clone, Copy)]
enum Level {
    File,
    Movie,
    Track,
}

struct Reader<'a, F> {
    file: &'a mut F,
    boxes_left: u32,
    film: Film,
}

impl<F: Read + Seek> Reader<'_, F> {
    /// Looks at the boxes from `at` to `end`.
    fn boxes(&mut self, mut at: u64, end: u64, level: Level) -> io::Result<()> {
        while at + 8 <= end && self.boxes_left > 0 {
            self.boxes_left -= 1;
            let (name, body, next) = self.head(at, end)?;
            match (level, &name) {
                (Level::File, b"moov") => return self.boxes(body, next, Level::Movie),
                (Level::Movie, b"mvhd") => self.film.seconds = seconds(&self.start(body, next)?),
                (Level::Movie, b"trak") => self.boxes(body, next, Level::Track)?,
                (Level::Track, b"tkhd") => {
                    let shown = dimensions(&self.start(body, next)?);
                    self.film.dimensions = self.film.dimensions.or(shown);
                }
                _ => {}
            }
            at = next;
        }
        Ok(())
    }

    /// The name of the box at `at`, where its content begins and where it ends.
    fn head(&mut self, at: u64, end: u64) -> io::Result<([u8; 4], u64, u64)> {
        self.file.seek(SeekFrom::Start(at))?;
        let mut head = [0; 8];
        self.file.read_exact(&mut head)?;
        let [a, b, c, d, name @ ..] = head;
        let (length, head_bytes) = match u32::from_be_bytes([a, b, c, d]) {
            // To the end of what it is in.
            0 => (end - at, 8),
            1 => {
                let mut long = [0; 8];
                self.file.read_exact(&mut long)?;
                (u64::from_be_bytes(long), 16)
            }
            length => (length.into(), 8),
        };
        let next = at.checked_add(length).filter(|next| length >= head_bytes && *next <= end);
        next.map(|next| (name, at + head_bytes, next)).ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    /// The first bytes of a box.
    fn start(&mut self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        self.file.seek(SeekFrom::Start(from))?;
        self.file.take((to - from).min(HEAD_BYTES as u64)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// From a movie's head: its time scale and duration, which are longer in version 1.
fn seconds(head: &[u8]) -> Option<u32> {
    let (scale, duration) = match head.first()? {
        0 => (u32_at(head, 12)?, Some(u32_at(head, 16)?).filter(|duration| *duration != u32::MAX)?.into()),
        1 => (u32_at(head, 20)?, u64::from(u32_at(head, 24)?) << 32 | u64::from(u32_at(head, 28)?)),
        _ => return None,
    };
    let seconds = duration.checked_div(scale.into())? + u64::from(duration % u64::from(scale) > 0);
    u32::try_from(seconds).ok().filter(|seconds| (1..=MAX_SECONDS).contains(&u64::from(*seconds)))
}

/// From a track's head: width and height, turned as its matrix says. Tracks of sound have none.
fn dimensions(head: &[u8]) -> Option<(u32, u32)> {
    let matrix = match head.first()? {
        0 => 40,
        1 => 52,
        _ => return None,
    };
    let side = |at| Some(u32_at(head, at)? >> 16).filter(|side| (1..=MAX_SIDE).contains(side));
    let (width, height) = (side(matrix + 36)?, side(matrix + 40)?);
    let (a, b) = (u32_at(head, matrix)?, u32_at(head, matrix + 4)?);
    Some(if a == 0 && b != 0 { (height, width) } else { (width, height) })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn a_box(name: &[u8], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 8).to_be_bytes(), name, body].concat()
    }

    fn mvhd(version: u8, scale: u32, duration: u64) -> Vec<u8> {
        let mut body = vec![version, 0, 0, 0];
        body.extend(vec![0; if version == 0 { 8 } else { 16 }]);
        body.extend(scale.to_be_bytes());
        if version == 0 {
            body.extend((duration as u32).to_be_bytes());
        } else {
            body.extend(duration.to_be_bytes());
        }
        body.extend([0; 80]);
        a_box(b"mvhd", &body)
    }

    fn trak(version: u8, turned: bool, width: u32, height: u32) -> Vec<u8> {
        let mut body = vec![version, 0, 0, 7];
        body.extend(vec![0; if version == 0 { 36 } else { 48 }]);
        let one = 0x1_0000_u32;
        let matrix = if turned {
            [0, one, 0, 0u32.wrapping_sub(one), 0, 0, 0, 0, one << 14]
        } else {
            [one, 0, 0, 0, one, 0, 0, 0, one << 14]
        };
        body.extend(matrix.iter().flat_map(|number| number.to_be_bytes()));
        body.extend((width << 16).to_be_bytes());
        body.extend((height << 16).to_be_bytes());
        a_box(b"trak", &[a_box(b"edts", &[]), a_box(b"tkhd", &body)].concat())
    }

    fn film(parts: &[Vec<u8>]) -> Film {
        look(&mut Cursor::new(parts.concat())).unwrap()
    }

    fn moov(parts: &[Vec<u8>]) -> Vec<u8> {
        a_box(b"moov", &parts.concat())
    }

    #[test]
    fn heads_of_films_and_sounds_are_understood() {
        let (kind, data) = (a_box(b"ftyp", b"isom0000"), a_box(b"mdat", &[7; 5000]));
        let sound = trak(0, false, 0, 0);
        let usual = moov(&[mvhd(0, 1000, 12_001), sound.clone(), trak(0, false, 640, 360)]);
        let expected = Film { dimensions: Some((640, 360)), seconds: Some(13) };
        assert_eq!(film(&[kind.clone(), usual.clone(), data.clone()]), expected);
        assert_eq!(film(&[kind.clone(), data.clone(), usual]), expected, "its head at the end");
        let turned = moov(&[mvhd(1, 90_000, 90_000 * 3), trak(1, true, 1920, 1080)]);
        assert_eq!(film(&[kind.clone(), turned]), Film { dimensions: Some((1080, 1920)), seconds: Some(3) });
        let audio = moov(&[mvhd(0, 44_100, 44_100 * 2), sound]);
        assert_eq!(film(&[kind.clone(), audio]), Film { dimensions: None, seconds: Some(2) });
        // A length of 64 bits, and one to the end of the file.
        let inner = mvhd(0, 1, 5);
        let long = [&1_u32.to_be_bytes()[..], b"mdat", &20_u64.to_be_bytes(), &[0; 4]].concat();
        let last = [&0_u32.to_be_bytes()[..], b"moov", &inner].concat();
        assert_eq!(film(&[kind, long, last]), Film { dimensions: None, seconds: Some(5) });
    }

    #[test]
    fn what_lies_says_nothing() {
        let nothing = Film::default();
        for (name, moov) in [
            ("no scale", moov(&[mvhd(0, 0, 5)])),
            ("no duration", moov(&[mvhd(0, 1, 0)])),
            ("not known", moov(&[mvhd(0, 1, u32::MAX.into())])),
            ("a hundred years", moov(&[mvhd(1, 1, 3_153_600_000)])),
            ("another version", moov(&[mvhd(9, 1, 5)])),
            ("enormous", moov(&[trak(0, false, 60_000, 60_000)])),
            ("flat", moov(&[trak(0, false, 10, 0)])),
            ("cut", moov(&[mvhd(0, 1, 5)])[..20].to_vec()),
            ("shorter than its head", [4_u32.to_be_bytes(), *b"moov"].concat()),
            ("endless", [&1_u32.to_be_bytes()[..], b"moov", &u64::MAX.to_be_bytes()].concat()),
            ("empty", vec![]),
        ] {
            assert_eq!(film(&[moov]), nothing, "{name}");
        }
        // More boxes than anybody looks at, before the one that matters.
        let many = a_box(b"free", &[]).repeat(MAX_BOXES as usize);
        assert_eq!(film(&[many, moov(&[mvhd(0, 1, 5)])]), nothing);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let _ = look(&mut Cursor::new(bytes.clone()));
            let mut damaged = moov(&[mvhd(1, 1000, 5000), trak(1, true, 20, 10), a_box(b"free", &bytes)]);
            let at = at.index(damaged.len());
            damaged[at] = byte;
            let _ = look(&mut Cursor::new(damaged));
        }
    }
}
