//! A data directory that cannot be used is refused with a clear error, and left as it is.

use super::support;
use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rookery_protocol::{SessionId, Timestamp, UserId};
use rookery_storage::{SessionRow, StoreError, embedded::OpenError};
use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

fn session() -> SessionRow {
    SessionRow::new(UserId::generate(), "x".repeat(1_000), Timestamp::now())
}

/// A directory with a store that has one session.
async fn filled(dir: &Path) -> Result<(PathBuf, SessionId)> {
    let data = dir.join("data");
    let stores = support::open(&data).await?;
    let row = session();
    stores.sessions.create(&row).await?;
    stores.engine.close().await?;
    Ok((data, row.session_id))
}

/// The error of an opening that must fail.
async fn refused(dir: &Path) -> Result<OpenError> {
    let error = support::open(dir).await.err().context("it must not open")?;
    assert!(error.to_string().contains(&*dir.to_string_lossy()), "it names the directory: {error}");
    if let Some(source) = error.source() {
        assert!(!error.to_string().contains(&source.to_string()), "its cause is printed once: {error}: {source}");
    }
    Ok(error)
}

/// Every file below, with its size.
fn files(dir: &Path) -> Result<BTreeMap<PathBuf, u64>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.append(&mut files(&entry.path())?);
        }
        found.insert(entry.path(), entry.metadata()?.len());
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_directory_is_private() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (data, _) = filled(&dir.path().join("deeper")).await?;
    assert_eq!(fs::metadata(&data)?.permissions().mode() & 0o777, 0o700);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let stores = support::open(&data).await?;
    assert!(matches!(refused(&data).await?, OpenError::Locked { .. }));
    stores.sessions.create(&session()).await?;
    stores.engine.close().await?;
    support::open(&data).await?.engine.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_no_directory_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    fs::write(&file, "not ours")?;
    for place in [file.clone(), file.join("below")] {
        assert!(matches!(refused(&place).await?, OpenError::Io { .. }));
    }
    // Nothing can be made there, by nobody.
    assert!(matches!(refused(Path::new("/proc/rookery-data")).await?, OpenError::Io { .. }));
    assert_eq!(fs::read_to_string(&file)?, "not ours");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_peoples_files_are_left_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("letters.txt"), "dear")?;
    let before = files(dir.path())?;
    assert!(matches!(refused(dir.path()).await?, OpenError::Foreign { found, .. } if found == "letters.txt"));
    assert_eq!(files(dir.path())?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_making_was_cut_short_is_made_anew() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::create_dir_all(dir.path().join("store.new/engine"))?;
    fs::write(dir.path().join("store.new/engine/version"), "half")?;
    support::open(dir.path()).await?.engine.close().await?;
    assert!(!dir.path().join("store.new").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (data, id) = filled(dir.path()).await?;
    let format = data.join("store/FORMAT");
    let current = fs::read_to_string(&format)?;
    fs::write(&format, "rookery-store 2\n")?;
    let before = files(&data)?;
    assert!(matches!(refused(&data).await?, OpenError::Newer { found: 2, supported: 1, .. }));
    assert_eq!(files(&data)?, before);
    fs::write(&format, current)?;
    let stores = support::open(&data).await?;
    assert!(stores.sessions.get(id).await?.is_some(), "it is as it was");
    stores.engine.close().await?;
    Ok(())
}

/// What is missing or unreadable is damage, and never taken for a new store.
#[tokio::test(flavor = "multi_thread")]
async fn damage_is_reported_and_no_store_is_made() -> Result<()> {
    let missing = ["store/FORMAT", "store/engine", "store/engine/version", "store/engine/0.jnl"];
    let overwritten = ["store/FORMAT", "store/engine/version", "store/engine/0.jnl"];
    let tables = (0..11).map(|table| format!("store/engine/keyspaces/{table}"));
    let damages = missing.into_iter().map(|name| (name.to_owned(), false));
    let damages = damages.chain(overwritten.into_iter().map(|name| (name.to_owned(), true)));
    for (name, overwrite) in damages.chain(tables.map(|name| (name, false))) {
        let dir = tempfile::tempdir()?;
        let (data, _) = filled(dir.path()).await?;
        let path = data.join(&name);
        if overwrite {
            fs::write(&path, [0xAB; 4_096])?;
        } else if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path).with_context(|| name.clone())?;
        }
        let error = refused(&data).await.with_context(|| format!("{name}, overwritten: {overwrite}"))?;
        assert!(matches!(error, OpenError::Corrupt { .. }), "{name}: {error}");
        assert!(matches!(refused(&data).await?, OpenError::Corrupt { .. }), "{name}: and again");
    }
    Ok(())
}

/// Inverts some bytes of a file; once more and it is as it was.
fn flip(path: &Path, place: u64, count: usize) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let count = count.min((file.metadata()?.len() - place) as usize);
    let mut bytes = vec![0; count];
    file.read_exact_at(&mut bytes, place)?;
    for byte in &mut bytes {
        *byte = !*byte;
    }
    file.write_all_at(&bytes, place)
}

/// The store must not open because of this file, and be left as it is.
async fn refused_for(data: &Path, name: &str) -> Result<()> {
    let before = files(data)?;
    let error = refused(data).await?;
    assert!(matches!(&error, OpenError::Corrupt { detail, .. } if detail.contains(name)), "{error}");
    assert_eq!(files(data)?, before, "nothing is changed");
    Ok(())
}

/// Opens the store, in which these must be, and closes it after one more.
async fn holds(data: &Path, sessions: &mut Vec<SessionId>) -> Result<()> {
    let stores = support::open(data).await?;
    for id in &*sessions {
        assert!(stores.sessions.get(*id).await?.is_some(), "{id} was acknowledged");
    }
    let row = session();
    stores.sessions.create(&row).await?;
    sessions.push(row.session_id);
    stores.engine.close().await?;
    Ok(())
}

/// Wherever a journal is damaged after a clean stop, the store is refused as long as it is, and whole afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_never_a_shorter_one() -> Result<()> {
    let mut random = StdRng::seed_from_u64(support::seed());
    let dir = tempfile::tempdir()?;
    let (data, first) = filled(dir.path()).await?;
    let journal = data.join("store/engine/0.jnl");
    let mut sessions = vec![first];
    // The first journal has room at its end; one that was opened again has none.
    for _ in 0..3 {
        let length = fs::metadata(&journal)?.len();
        for round in 0..40 {
            let place = match round {
                0 => 0,
                1 => length - 1,
                // Where a new journal has its data.
                2..20 => random.random_range(0..length.min(2_000)),
                _ => random.random_range(0..length),
            };
            let count = random.random_range(1..=50);
            flip(&journal, place, count)?;
            refused_for(&data, "`store/engine/0.jnl`").await.with_context(|| format!("{count} bytes at {place}"))?;
            flip(&journal, place, count)?;
        }
        for _ in 0..20 {
            holds(&data, &mut sessions).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn journals_are_expected_to_be_the_ones_that_were_left() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (data, first) = filled(dir.path()).await?;
    let mut sessions = vec![first];
    holds(&data, &mut sessions).await?;
    let engine = data.join("store/engine");

    fs::write(engine.join("1.jnl"), "")?;
    refused_for(&data, "`store/engine/1.jnl`").await?;
    fs::rename(engine.join("0.jnl"), dir.path().join("0.jnl"))?;
    refused_for(&data, "`store/engine/0.jnl`").await?;
    fs::remove_file(engine.join("1.jnl"))?;

    let whole = fs::read(dir.path().join("0.jnl"))?;
    for length in [whole.len() - 1, whole.len() / 2, 0] {
        fs::write(engine.join("0.jnl"), &whole[..length])?;
        refused_for(&data, "`store/engine/0.jnl`").await?;
    }
    fs::write(engine.join("0.jnl"), &whole)?;

    let clean = data.join("store/CLEAN");
    flip(&clean, 3, 1)?;
    refused_for(&data, "`store/CLEAN`").await?;
    flip(&clean, 3, 1)?;
    holds(&data, &mut sessions).await
}

/// An open store may be killed at any moment, so nothing is expected of its journals then.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_a_crash_cut_short_is_dropped() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (data, first) = filled(dir.path()).await?;
    let mut sessions = vec![first];
    holds(&data, &mut sessions).await?;
    let (journal, clean) = (data.join("store/engine/0.jnl"), data.join("store/CLEAN"));

    assert!(clean.exists());
    let stores = support::open(&data).await?;
    assert!(!clean.exists(), "it is gone before the first write");
    stores.engine.close().await?;
    fs::remove_file(&clean)?;

    // The beginning of a batch of one change, and of that change.
    let length = fs::metadata(&journal)?.len();
    let mut torn = vec![1, 1, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0];
    torn.extend([2, 0, 0, 1]);
    File::options().append(true).open(&journal)?.write_all(&torn)?;
    let stores = support::open(&data).await?;
    assert_eq!(fs::metadata(&journal)?.len(), length);
    stores.engine.close().await?;
    holds(&data, &mut sessions).await
}

/// The child's directory in [`a_full_disk_loses_nothing`]; its presence makes a process the child.
const CHILD_DIR: &str = "ROOKERY_FULL_DISK_DIR";

/// The child's files may not grow beyond a limit, which is what a full disk is like. A write that fails is not
/// acknowledged, later ones are refused, and all that was acknowledged is there afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing() -> Result<()> {
    if let Ok(dir) = env::var(CHILD_DIR) {
        return write_until_full(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir()?;
    let (data, first) = filled(dir.path()).await?;
    let limited = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", limited])
        .arg(env::current_exe()?)
        .args(["--exact", "storage::directory::a_full_disk_loses_nothing", "--nocapture"])
        .env(CHILD_DIR, &data)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let acknowledged: Vec<SessionId> =
        text.lines().filter_map(|line| line.strip_prefix("created ")?.parse().ok()).collect();
    assert!(acknowledged.len() > 10, "some fitted: {text}");

    let stores = support::open(&data).await?;
    for id in acknowledged.into_iter().chain([first]) {
        assert!(stores.sessions.get(id).await?.is_some(), "{id} was acknowledged");
    }
    stores.sessions.create(&session()).await?;
    stores.engine.close().await?;
    Ok(())
}

async fn write_until_full(dir: &Path) -> Result<()> {
    let elsewhere = tempfile::tempdir()?;
    let fresh = refused(&elsewhere.path().join("data")).await?;
    assert!(matches!(fresh, OpenError::Io { .. }), "there is no room for a new store: {fresh}");

    let stores = support::open(dir).await?;
    println!();
    for _ in 0..100_000 {
        let row = session();
        match stores.sessions.create(&row).await {
            Ok(()) => println!("created {}", row.session_id),
            Err(error) => {
                assert!(matches!(error, StoreError::Engine(_)), "its outcome is unknown: {error}");
                let later = stores.sessions.create(&session()).await;
                assert!(matches!(later, Err(StoreError::Unavailable(_))), "later ones are refused: {later:?}");
                assert!(stores.engine.probe().await.is_err());
                assert!(stores.sessions.list(row.user_id, None, 1).await.is_ok(), "reading goes on");
                stores.engine.close().await?;
                return Ok(());
            }
        }
    }
    anyhow::bail!("the disk was never full")
}
