//! What the journals were like when the store was closed, so that damage is told from a crash.
//!
//! The engine takes everything after the first unreadable byte of a journal for a write that a crash cut
//! short, and drops it. After a clean stop nothing was cut short: [`seal`] then leaves a file that describes
//! every journal, and [`check`] compares it before the engine sees them.
//!
//! Invariant: the file is there only while no engine is open on the journals, so a crash leaves none. Knows
//! nothing of what is in a journal, but that zeros at its end are room made ahead and not data: the engine
//! makes a journal of 64 MiB of them, and each of its batches ends with a byte that is not zero.
//!
//! ```text
//! <bytes without the zeros at the end> <SHA-256 of these> <name>      one line a journal
//! <SHA-256 of the lines above>
//! ```

use super::{
    directory::{CLEAN, DataDir, ENGINE, STORE, sync},
    options::OpenError,
    writer,
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
};
use tracing::{error, warn};

/// The file while it is being written.
const NEW_CLEAN: &str = "CLEAN.new";

/// No such file is longer: a line has about a hundred bytes, and there are a handful of journals.
const MAX_BYTES: u64 = 64 * 1024;

/// How much of a journal is in memory at once.
const BLOCK: usize = 64 * 1024;

/// Most that the engine may drop after a crash: one batch, with the operation that filled it and its framing.
const MAX_TORN_BYTES: u64 = 2 * writer::MAX_BYTES as u64;

/// The journals' names, and how many bytes each has without the zeros at its end.
pub(super) type Lengths = BTreeMap<String, u64>;

/// Describes the journals of a closed engine, durably. `store` is the store's directory.
pub(super) fn seal(store: &Path) -> io::Result<()> {
    let mut text = String::new();
    for (name, journal) in describe(&store.join(ENGINE))? {
        let _ = writeln!(text, "{journal} {name}");
    }
    let sum = hex(Sha256::digest(&text).as_slice());
    let _ = writeln!(text, "{sum}");
    let new = store.join(NEW_CLEAN);
    fs::write(&new, text)?;
    sync(&new)?;
    fs::rename(new, store.join(CLEAN))?;
    sync(store)
}

/// Refuses journals that are not as the last clean stop left them, and changes nothing then. Otherwise the
/// description is gone, durably, and the engine may be opened.
pub(super) fn check(dir: &DataDir, store: &Path) -> Result<(), OpenError> {
    let failed = |action| dir.failed(action);
    let path = store.join(CLEAN);
    let mut text = Vec::new();
    match File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("read what its journals were like")(error)),
    }
    let sealed = parse(&text).ok_or_else(|| dir.corrupt(format!("`{STORE}/{CLEAN}` cannot be read")))?;
    let found = describe(&store.join(ENGINE)).map_err(failed("read its journals"))?;
    if let Some((name, what)) = difference(&sealed, &found) {
        return Err(dir.corrupt(format!("`{STORE}/{ENGINE}/{name}` {what}")));
    }
    fs::remove_file(&path).and_then(|()| sync(store)).map_err(failed("begin to use its journals"))
}

/// The journals' lengths.
pub(super) fn lengths(engine: &Path) -> io::Result<Lengths> {
    journals(engine)?.into_iter().map(|name| Ok((name.clone(), used(&File::open(engine.join(name))?)?))).collect()
}

/// Says in the log what the engine has dropped, given the lengths before it was opened. It has done so when it
/// answers, and only it can tell where its last whole batch ends, so there is no refusing it.
pub(super) fn report_dropped(engine: &Path, before: &Lengths) {
    for (name, before) in before {
        // Without one, the engine has written its rows out and removed it.
        let Ok(after) = fs::metadata(engine.join(name)) else { continue };
        let dropped = before.saturating_sub(after.len());
        if dropped > MAX_TORN_BYTES {
            error!(journal = name, bytes = dropped, "a journal was damaged: acknowledged writes are lost");
        } else if dropped > 0 {
            warn!(journal = name, bytes = dropped, "a write that was cut short has been dropped");
        }
    }
}

/// The names of the journals in the engine's directory.
pub(super) fn journals(engine: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(engine)? {
        let name = entry?.file_name();
        if Path::new(&name).extension() == Some(OsStr::new("jnl")) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// The journals' names, and for each its length and sum.
type Described = BTreeMap<String, String>;

fn describe(engine: &Path) -> io::Result<Described> {
    journals(engine)?
        .into_iter()
        .map(|name| {
            let file = File::open(engine.join(&name))?;
            // A description must not survive a loss of power that what it describes does not survive.
            file.sync_all()?;
            let length = used(&file)?;
            let sum = sum(file.take(length))?;
            Ok((name, format!("{length} {sum}")))
        })
        .collect()
}

fn parse(text: &[u8]) -> Option<Described> {
    let text = str::from_utf8(text).ok()?;
    let (lines, sum) = text.split_at(text.strip_suffix('\n')?.rfind('\n')? + 1);
    if hex(Sha256::digest(lines).as_slice()) != sum.trim_end() {
        return None;
    }
    lines.lines().map(|line| line.rsplit_once(' ').map(|(journal, name)| (name.into(), journal.into()))).collect()
}

/// The first journal that is not as it was, and how.
fn difference<'a>(sealed: &'a Described, found: &'a Described) -> Option<(&'a str, &'static str)> {
    let lost = sealed.iter().find_map(|(name, journal)| match found.get(name) {
        None => Some((&**name, "is missing")),
        Some(found) if found != journal => Some((&**name, "is not as it was when the store was closed")),
        Some(_) => None,
    });
    let new = || found.keys().find(|name| !sealed.contains_key(*name));
    lost.or_else(|| new().map(|name| (&**name, "was not there when the store was closed")))
}

/// How long a file is without the zeros at its end.
fn used(file: &File) -> io::Result<u64> {
    let zeros = vec![0; BLOCK];
    let mut block = vec![0; BLOCK];
    let mut end = file.metadata()?.len();
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let part = &mut block[..usize::try_from(end - start).expect("no more than a block")];
        file.read_exact_at(part, start)?;
        if *part != zeros[..part.len()]
            && let Some(last) = part.iter().rposition(|byte| *byte != 0)
        {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn sum(mut data: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        match data.read(&mut block)? {
            0 => return Ok(hex(hash.finalize().as_slice())),
            read => hash.update(&block[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_at_the_end_do_not_count() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("0.jnl");
        for used_bytes in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            for zeros in [0, 1, BLOCK, 2 * BLOCK + 7] {
                // The zeros before the last byte do count.
                let mut data = vec![0; used_bytes + zeros];
                if used_bytes > 0 {
                    data[used_bytes - 1] = 9;
                }
                fs::write(&path, data)?;
                assert_eq!(lengths(dir.path())?[&"0.jnl".to_owned()], used_bytes as u64, "and {zeros} zeros");
            }
        }
        Ok(())
    }

    #[test]
    fn a_description_is_read_as_it_was_written_or_not_at_all() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let engine = dir.path().join(ENGINE);
        fs::create_dir(&engine)?;
        fs::write(engine.join("0.jnl"), "first")?;
        fs::write(engine.join("1.jnl"), "second")?;
        seal(dir.path())?;
        let text = fs::read(dir.path().join(CLEAN))?;
        assert_eq!(parse(&text), Some(describe(&engine)?));
        for place in 0..text.len() {
            let mut damaged = text.clone();
            damaged[place] ^= 1;
            assert_eq!(parse(&damaged), None, "byte {place}");
            assert_eq!(parse(&text[..place]), None, "only {place} bytes");
        }
        Ok(())
    }

    #[test]
    fn the_first_difference_is_named() {
        let journals = |lines: &[(&str, &str)]| -> Described {
            lines.iter().map(|(name, journal)| ((*name).to_owned(), (*journal).to_owned())).collect()
        };
        let sealed = journals(&[("0.jnl", "5 aa"), ("1.jnl", "6 bb")]);
        assert_eq!(difference(&sealed, &sealed), None);
        let name = |found: &[(&str, &str)]| difference(&sealed, &journals(found)).map(|(name, _)| name.to_owned());
        assert_eq!(name(&[("0.jnl", "5 aa")]).as_deref(), Some("1.jnl"));
        assert_eq!(name(&[("0.jnl", "5 ab"), ("1.jnl", "6 bb")]).as_deref(), Some("0.jnl"));
        assert_eq!(name(&[("0.jnl", "5 aa"), ("1.jnl", "6 bb"), ("2.jnl", "0 cc")]).as_deref(), Some("2.jnl"));
    }
}
