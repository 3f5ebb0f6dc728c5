//! Files that were fetched from WhatsApp and are likely to be asked for again: a player asks for many ranges of one.
//!
//! A folder that begins empty with every process and holds the most recently used files up to a bound. A file is fetched
//! once, however many ask for it at a time. The cache knows nothing of messages: whoever asks has the right to.

use std::{
    collections::HashMap,
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// What names a file: whose it is, and a hash of what WhatsApp keeps.
pub(crate) type Key = Vec<u8>;

/// The folder.
pub(crate) struct Cache {
    dir: PathBuf,
    max_bytes: u64,
    kept: Mutex<Kept>,
    fetching: Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>,
}

#[derive(Default)]
struct Kept {
    files: HashMap<Key, Entry>,
    bytes: u64,
    /// Counts uses, so that the order of uses is known.
    uses: u64,
}

struct Entry {
    length: u64,
    used: u64,
}

impl Cache {
    /// Opens the folder and empties it. Blocks.
    pub(crate) fn open(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        for entry in dir.read_dir()? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(Self { dir: dir.to_owned(), max_bytes, kept: Mutex::default(), fetching: Mutex::default() })
    }

    /// The file with this key; `fetch` writes it when it is not there.
    pub(crate) async fn get<E: From<io::Error>, F: Future<Output = Result<File, E>>>(
        &self,
        key: &Key,
        fetch: impl FnOnce(File) -> F,
    ) -> Result<File, E> {
        if let Some(file) = self.find(key) {
            return Ok(file);
        }
        let turn = self.turn(key);
        let _turn = turn.lock().await;
        if let Some(file) = self.find(key) {
            return Ok(file);
        }
        let path = self.dir.join(format!("{}.part", hex::encode(rand::random::<[u8; 16]>())));
        let part = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        // Removed unless it is whole, also when whoever asks goes away.
        let part_path = Part(path);
        let file = fetch(part).await?;
        let length = file.metadata()?.len();
        if length <= self.max_bytes {
            std::fs::rename(&part_path.0, self.path(key))?;
            self.keep(key, length);
        }
        Ok(file)
    }

    /// Removes all files whose key begins with this.
    pub(crate) fn forget(&self, prefix: &[u8]) {
        let mut kept = self.kept();
        let gone: Vec<_> = kept.files.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        for key in gone {
            kept.bytes -= kept.files.remove(&key).map_or(0, |entry| entry.length);
            let _ = std::fs::remove_file(self.path(&key));
        }
    }

    fn find(&self, key: &Key) -> Option<File> {
        let mut kept = self.kept();
        kept.uses += 1;
        let uses = kept.uses;
        kept.files.get_mut(key)?.used = uses;
        File::open(self.path(key)).ok()
    }

    fn keep(&self, key: &Key, length: u64) {
        let mut kept = self.kept();
        kept.uses += 1;
        let used = kept.uses;
        if let Some(before) = kept.files.insert(key.clone(), Entry { length, used }) {
            kept.bytes -= before.length;
        }
        kept.bytes += length;
        while kept.bytes > self.max_bytes {
            let oldest = kept.files.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            if let Some(entry) = kept.files.remove(&oldest) {
                kept.bytes -= entry.length;
            }
            // Whoever reads it now has it open.
            let _ = std::fs::remove_file(self.path(&oldest));
        }
    }

    /// The lock of those who want this file.
    fn turn(&self, key: &Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = fetching.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        fetching.insert(key.clone(), Arc::downgrade(&turn));
        turn
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.dir.join(hex::encode(key))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of a file that is not whole yet.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // It has another name when it is whole.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        os::unix::fs::FileExt,
        sync::atomic::{AtomicUsize, Ordering},
    };

    fn text(file: &File) -> String {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn write(mut file: File, text: &str) -> std::future::Ready<io::Result<File>> {
        std::future::ready(file.write_all(text.as_bytes()).map(|()| file))
    }

    fn never(_: File) -> std::future::Ready<io::Result<File>> {
        panic!("it is there")
    }

    #[tokio::test]
    async fn the_least_recently_used_make_room() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("left"), "from before").unwrap();
        let cache = Cache::open(dir.path(), 10).unwrap();
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        for name in [1, 2] {
            cache.get(&vec![name], |file| write(file, "1234")).await.unwrap();
        }
        let open = cache.get(&vec![2], never).await.unwrap();
        cache.get(&vec![1], never).await.unwrap();
        cache.get(&vec![3], |file| write(file, "5678")).await.unwrap();
        assert_eq!(text(&open), "1234", "still open");
        cache.get(&vec![1], never).await.unwrap();
        let again = cache.get(&vec![2], |file| write(file, "again")).await.unwrap();
        assert_eq!(text(&again), "again");
        let huge = cache.get(&vec![4], |file| write(file, "more than all of it")).await.unwrap();
        assert_eq!(text(&huge), "more than all of it");
        assert!(dir.path().read_dir().unwrap().count() <= 2, "what does not fit is not kept");
        cache.forget(&[2]);
        cache.forget(&[9]);
        let fresh = cache.get(&vec![2], |file| write(file, "anew")).await.unwrap();
        assert_eq!(text(&fresh), "anew");
    }

    #[tokio::test]
    async fn a_file_is_fetched_once_and_a_failure_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 100).unwrap();
        let fail = |_| std::future::ready(Err::<File, _>(io::Error::other("no")));
        assert!(cache.get(&vec![1], fail).await.is_err());
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        let fetches = AtomicUsize::new(0);
        let (cache, fetches, key) = (&cache, &fetches, vec![1]);
        let fetch = || {
            cache.get(&key, |file| {
                fetches.fetch_add(1, Ordering::Relaxed);
                async {
                    tokio::task::yield_now().await;
                    write(file, "once").await
                }
            })
        };
        let files = futures_util::future::join_all((0..5).map(|_| fetch())).await;
        assert!(files.into_iter().all(|file| text(&file.unwrap()) == "once"));
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
    }
}
