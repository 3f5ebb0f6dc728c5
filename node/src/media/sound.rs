//! How long a sound plays, for the kinds of sound file that a library reads.
//!
//! Tags and pictures in the file are passed over. What the library cannot make out has no duration: it is still a file
//! that can be sent.

use lofty::{
    config::{ParseOptions, ParsingMode},
    file::{AudioFile, FileType},
    probe::Probe,
};
use std::{
    fs::File,
    io::{self, BufReader, Seek},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// How far into a file its sound may begin.
const MAX_JUNK: usize = 64 << 10;

/// The duration in whole seconds, rounded up; none where it is not known.
pub(super) fn seconds(file: &mut File, mime: &str) -> io::Result<Option<u32>> {
    let Some(kind) = kind_of(mime) else { return Ok(None) };
    file.rewind()?;
    let mut options = ParseOptions::new();
    options.read_tags(false).read_cover_art(false).parsing_mode(ParsingMode::Relaxed).max_junk_bytes(MAX_JUNK);
    let probe = Probe::with_file_type(BufReader::new(&*file), kind).options(options);
    // It was made by a stranger, and the library has more than one way to give up.
    let read = catch_unwind(AssertUnwindSafe(|| probe.read()));
    let Ok(Ok(sound)) = read else { return Ok(None) };
    let seconds = sound.properties().duration().as_millis().div_ceil(1000);
    Ok(u32::try_from(seconds).ok().filter(|seconds| *seconds > 0))
}

fn kind_of(mime: &str) -> Option<FileType> {
    match mime {
        "audio/mpeg" => Some(FileType::Mpeg),
        "audio/wav" => Some(FileType::Wav),
        "audio/flac" => Some(FileType::Flac),
        "audio/aac" => Some(FileType::Aac),
        "audio/aiff" | "audio/x-aiff" => Some(FileType::Aiff),
        "audio/ogg" => Some(FileType::Vorbis),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn seconds_of(bytes: &[u8], mime: &str) -> Option<u32> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        seconds(&mut file, mime).unwrap()
    }

    /// Mono, 8 kHz, 8 bits.
    fn wav(samples: u32) -> Vec<u8> {
        let format = [&[1, 0, 1, 0][..], &8_000_u32.to_le_bytes(), &8_000_u32.to_le_bytes(), &[1, 0, 8, 0]].concat();
        let chunk = |name: &[u8], body: &[u8]| [name, &(body.len() as u32).to_le_bytes(), body].concat();
        let body = [&b"WAVE"[..], &chunk(b"fmt ", &format), &chunk(b"data", &vec![128; samples as usize])].concat();
        chunk(b"RIFF", &body)
    }

    /// Frames of MPEG-1 layer III at 128 kbit/s and 44.1 kHz, 1,152 samples each.
    fn mp3(frames: usize) -> Vec<u8> {
        let mut frame = vec![0; 417];
        frame[..4].copy_from_slice(&[0xff, 0xfb, 0x90, 0x00]);
        frame.repeat(frames)
    }

    #[test]
    fn sounds_have_their_duration() {
        assert_eq!(seconds_of(&wav(5 * 8_000), "audio/wav"), Some(5));
        assert_eq!(seconds_of(&wav(5 * 8_000 + 80), "audio/wav"), Some(6));
        let three = seconds_of(&mp3(115), "audio/mpeg");
        assert!(matches!(three, Some(3 | 4)), "{three:?}");
        assert_eq!(seconds_of(&wav(8_000), "audio/amr"), None);
    }

    #[test]
    fn broken_ones_have_none() {
        for mime in ["audio/wav", "audio/mpeg", "audio/flac", "audio/aac", "audio/aiff", "audio/ogg"] {
            assert_eq!(seconds_of(b"", mime), None);
            assert_eq!(seconds_of(&[0xff; 4_000], mime), None, "{mime}");
        }
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(mut bytes in prop::collection::vec(any::<u8>(), 0..600), which in 0..5_usize, flip in any::<u8>()) {
            let mimes = ["audio/wav", "audio/mpeg", "audio/flac", "audio/aac", "audio/ogg"];
            seconds_of(&bytes, mimes[which]);
            let mut whole = if which == 0 { wav(100) } else { mp3(2) };
            let at = usize::from(flip) % whole.len().min(60);
            whole[at] ^= flip;
            whole.append(&mut bytes);
            seconds_of(&whole, mimes[which.min(1)]);
        }
    }
}
