//! The data directory: who may use it, and whether what is in it is ours.
//!
//! ```text
//! <data_dir>/LOCK            locked by the process that uses it
//! <data_dir>/store/FORMAT    `rookery-store <format>`
//! <data_dir>/store/CLEAN     what the journals were like when the store was closed; while it is open, or after a
//!                            crash, there is none
//! <data_dir>/store/engine/   the engine's files
//! <data_dir>/store.new/      a store that is being made; removed when its making was cut short
//! ```
//!
//! A store is made aside and renamed into place, so a directory either holds a whole one or none. Nothing is
//! ever made where data may have been: what is missing or unknown is an error.

use super::{clean, options::OpenError};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use tracing::warn;

/// The format that this version writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;

const LOCK: &str = "LOCK";
pub(super) const STORE: &str = "store";
const NEW_STORE: &str = "store.new";
const FORMAT_FILE: &str = "FORMAT";
pub(super) const CLEAN: &str = "CLEAN";
pub(super) const ENGINE: &str = "engine";
const MAGIC: &str = "rookery-store";

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    lock: File,
}

impl Drop for DataDir {
    /// Closing the file would do, but for a process that is being started just now and has it open as well
    /// until it runs its own program.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            warn!(dir = %self.path.display(), %error, "the data directory stays locked until the process ends");
        }
    }
}

impl DataDir {
    /// Locks the directory, which is made if need be. Leaves one that is not ours untouched.
    pub(super) fn lock(path: &Path) -> Result<Self, OpenError> {
        let failed = |action| io_error(path, action);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create it"))?;
        if !path.join(STORE).try_exists().map_err(failed("look into it"))? {
            refuse_foreign(path)?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(failed("open its lock file"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { dir: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed("lock it")(source)),
        }
    }

    /// Where the engine's files are, once there is a store whose journals are whole as far as can be told. `make` makes the engine's files in a new one.
    pub(super) fn store(&self, make: impl FnOnce(&Path) -> Result<(), OpenError>) -> Result<PathBuf, OpenError> {
        let store = self.path.join(STORE);
        if !store.try_exists().map_err(self.failed("look into it"))? {
            refuse_foreign(&self.path)?;
            self.make_store(&store, make)?;
        }
        self.check_format(&store)?;
        let engine = store.join(ENGINE);
        self.check_engine(&engine)?;
        self.check_journals()?;
        Ok(engine)
    }

    fn make_store(&self, store: &Path, make: impl FnOnce(&Path) -> Result<(), OpenError>) -> Result<(), OpenError> {
        let new = self.path.join(NEW_STORE);
        match fs::remove_dir_all(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.failed("remove an unfinished store")(error));
            }
            _ => {}
        }
        let failed = || self.failed("create a store");
        DirBuilder::new().mode(0o700).create(&new).map_err(failed())?;
        make(&new.join(ENGINE))?;
        let format = new.join(FORMAT_FILE);
        fs::write(&format, format!("{MAGIC} {FORMAT}\n")).map_err(failed())?;
        for path in [&format, &new] {
            sync(path).map_err(failed())?;
        }
        fs::rename(&new, store).map_err(failed())?;
        sync(&self.path).map_err(failed())
    }

    fn check_format(&self, store: &Path) -> Result<(), OpenError> {
        let text = match fs::read_to_string(store.join(FORMAT_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.corrupt(format!("`{STORE}/{FORMAT_FILE}` is missing")));
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(self.failed("read its format")(error)),
        };
        let found = text.trim_end().strip_prefix(MAGIC).and_then(|rest| rest.trim_start().parse::<u32>().ok());
        match found {
            Some(FORMAT) => Ok(()),
            Some(found) if found > FORMAT => Err(OpenError::Newer { dir: self.path.clone(), found, supported: FORMAT }),
            _ => Err(self.corrupt(format!("`{STORE}/{FORMAT_FILE}` cannot be read"))),
        }
    }

    /// The engine takes a directory without its marker for a new database and one without a journal for one
    /// that had nothing to say. Here both are damage.
    fn check_engine(&self, engine: &Path) -> Result<(), OpenError> {
        let missing = |name: &str| self.corrupt(format!("`{STORE}/{ENGINE}/{name}` is missing"));
        if !engine.join("version").is_file() {
            return Err(missing("version"));
        }
        let journals = clean::journals(engine).map_err(self.failed("list the engine's files"))?;
        if journals.is_empty() { Err(missing("*.jnl")) } else { Ok(()) }
    }

    /// Refuses journals that are not as they were left, and from then on expects them to change.
    fn check_journals(&self) -> Result<(), OpenError> {
        clean::check(self, &self.path.join(STORE))
    }

    /// To be called once the engine is closed: its journals are whole, and will be expected to be as they are.
    /// When this fails, the next start takes it for one after a crash.
    pub(super) fn seal(&self) {
        if let Err(error) = clean::seal(&self.path.join(STORE)) {
            warn!(dir = %self.path.display(), %error, "the store is closed, but damage to its journals will go unnoticed");
        }
    }

    pub(super) fn corrupt(&self, detail: impl Into<String>) -> OpenError {
        OpenError::Corrupt { dir: self.path.clone(), detail: detail.into() }
    }

    pub(super) fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> OpenError {
        io_error(&self.path, action)
    }
}

fn io_error(dir: &Path, action: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { dir: dir.to_owned(), action, source }
}

/// Waits until a file, or what names a directory has, is on disk.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// An error when the directory holds anything that we did not put there.
fn refuse_foreign(dir: &Path) -> Result<(), OpenError> {
    let failed = || io_error(dir, "list its files");
    for entry in fs::read_dir(dir).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        // A fresh file system has a `lost+found`.
        if ![LOCK, NEW_STORE, "lost+found"].iter().any(|ours| name == *ours) {
            return Err(OpenError::Foreign { dir: dir.to_owned(), found: name.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}
