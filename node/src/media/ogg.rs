//! How long an Ogg Opus file plays.
//!
//! RFC 7845: the granule position of the last page counts samples at 48 kHz, the pre-skip of the first among them.

use std::io::{self, Read, Seek, SeekFrom};

/// Samples a second of every granule position.
const RATE: u64 = 48_000;
/// The head of a page, before its table of segments.
const PAGE_HEAD: usize = 27;
/// How far from the end the last page begins at most: a page holds less than 65,307 bytes.
const LAST_PAGE: u64 = 128 << 10;

/// The duration in whole seconds, rounded up; none when the file is not as it should be.
pub(super) fn opus_seconds(file: &mut (impl Read + Seek)) -> io::Result<Option<u32>> {
    let mut start = [0; 64];
    file.rewind()?;
    let read = read_some(file, &mut start)?;
    let Some((serial, pre_skip)) = first_page(&start[..read]) else { return Ok(None) };
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_PAGE)))?;
    let mut end = Vec::new();
    file.take(LAST_PAGE).read_to_end(&mut end)?;
    let Some(samples) = last_granule(&end, serial) else { return Ok(None) };
    let seconds = samples.saturating_sub(pre_skip).div_ceil(RATE);
    Ok(u32::try_from(seconds).ok())
}

fn read_some(file: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match file.read(&mut into[read..])? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

/// The stream's serial number and pre-skip, from a page that begins with an `OpusHead`.
fn first_page(page: &[u8]) -> Option<(u32, u64)> {
    let serial = page_serial(page)?;
    let segments = usize::from(*page.get(26)?);
    let packet = page.get(PAGE_HEAD + segments..)?.strip_prefix(b"OpusHead")?;
    let pre_skip = u16::from_le_bytes(packet.get(2..4)?.try_into().ok()?);
    Some((serial, pre_skip.into()))
}

fn page_serial(page: &[u8]) -> Option<u32> {
    page.strip_prefix(b"OggS\0")?;
    Some(u32::from_le_bytes(page.get(14..18)?.try_into().ok()?))
}

/// The granule position of the last page of this stream on which a packet ends.
fn last_granule(end: &[u8], serial: u32) -> Option<u64> {
    let positions = (0..end.len().saturating_sub(PAGE_HEAD)).rev();
    positions.filter(|at| page_serial(&end[*at..]) == Some(serial)).find_map(|at| {
        let granule = u64::from_le_bytes(end.get(at + 6..at + 14)?.try_into().ok()?);
        (granule != u64::MAX).then_some(granule)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn page(granule: u64, serial: u32, packet: &[u8]) -> Vec<u8> {
        let mut page = b"OggS\0\0".to_vec();
        page.extend(granule.to_le_bytes());
        page.extend(serial.to_le_bytes());
        page.extend([0; 8]);
        page.extend([1, packet.len() as u8]);
        page.extend(packet);
        page
    }

    fn head(pre_skip: u16) -> Vec<u8> {
        let mut head = b"OpusHead\x01\x01".to_vec();
        head.extend(pre_skip.to_le_bytes());
        head.extend([0; 7]);
        head
    }

    fn seconds(pages: &[Vec<u8>]) -> Option<u32> {
        opus_seconds(&mut Cursor::new(pages.concat())).unwrap()
    }

    #[test]
    fn the_last_page_tells_the_duration() {
        let (first, data) = (page(0, 7, &head(312)), vec![1; 200]);
        let last = page(3 * RATE + 312, 7, &data);
        assert_eq!(seconds(&[first.clone(), page(RATE, 7, &data), last.clone()]), Some(3));
        let unfinished = page(u64::MAX, 7, &data);
        assert_eq!(seconds(&[first.clone(), last.clone(), unfinished]), Some(3));
        assert_eq!(seconds(&[first.clone(), last.clone(), page(99 * RATE, 8, &data)]), Some(3), "another stream");
        assert_eq!(seconds(&[first.clone(), page(RATE + 313, 7, &data)]), Some(2), "rounded up");
        assert_eq!(seconds(&[page(0, 7, b"vorbis"), last]), None);
        assert_eq!(seconds(&[]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, pre_skip: u16) {
            let _ = opus_seconds(&mut Cursor::new(bytes.clone()));
            let _ = opus_seconds(&mut Cursor::new([page(0, 7, &head(pre_skip)), bytes].concat()));
        }
    }
}
