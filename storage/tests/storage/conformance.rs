//! The embedded engine is what the traits promise, with encryption and without.

use super::support;
use anyhow::{Context, Result};
use async_trait::async_trait;
use rookery_protocol::{Incarnation, Timestamp, UserId};
use rookery_storage::{
    EncryptionKeys, Gate, KeyKind, KeyOp, SessionRow, StoreError, Stores,
    conformance::{Factory, run_all},
    embedded::{self, Options},
};
use std::{path::Path, sync::Arc};
use tempfile::TempDir;

struct Embedded(TempDir, EncryptionKeys);

#[async_trait]
impl Factory for Embedded {
    async fn open_with_gate(&self, place: &str, gate: Arc<dyn Gate>) -> Result<Stores> {
        let options = Options { encryption: self.1.clone(), ..Options::new(self.0.path().join(place)) };
        Ok(embedded::open_with_gate(options, gate).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_conforms() -> Result<()> {
    run_all(&Embedded(tempfile::tempdir()?, EncryptionKeys::default()), support::seed(), 64).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_conforms_with_encryption() -> Result<()> {
    run_all(&Embedded(tempfile::tempdir()?, support::encryption_keys(&["a"])?), support::seed(), 8).await
}

/// What was stored in the clear is read after encryption was turned on, and through a rotation of keys; a row whose key
/// is gone is an error that says so.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_turned_on_rotated_and_missed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let open = async |ids: &[&str]| open(dir.path(), ids).await;
    let stores = open(&[]).await?;
    let row = SessionRow::new(UserId::generate(), "s", Timestamp::from_secs(1));
    let session = row.session_id;
    stores.sessions.create(&row).await?;
    let mut fence = None;
    for (key, ids) in [("clear", &[][..]), ("old", &["old"]), ("both", &["new", "old"])] {
        stores.engine.close().await?;
        let stores = open(ids).await?;
        let seen = stores.owners.read(session).await?.context("an owner")?;
        let claimed = stores.owners.claim(session, &seen, &"n".parse()?, Incarnation::generate()).await?;
        let put = KeyOp::Put { kind: KeyKind::Session, key: key.into(), value: format!("secret of {key}").into() };
        stores.keys.write(&claimed, vec![put]).await?;
        fence = Some(claimed);
        stores.engine.close().await?;
    }
    assert!(fence.is_some());
    let stores = open(&["new", "old"]).await?;
    let rows = stores.keys.scan(session, KeyKind::Session, b"").await?;
    let values: Vec<_> = rows.iter().map(|(_, value)| std::str::from_utf8(value).unwrap_or_default()).collect();
    assert_eq!(values, ["secret of both", "secret of clear", "secret of old"]);
    stores.engine.close().await?;

    let stores = open(&["new"]).await?;
    let get = async |key: &str| stores.keys.get(session, KeyKind::Session, key.as_bytes()).await;
    assert_eq!(get("both").await?.as_deref(), Some(&b"secret of both"[..]), "written with the first key");
    let error = get("old").await.err().context("its key is gone")?;
    assert!(
        matches!(&error, StoreError::Locked { session: of, key_id } if *of == session && key_id == "old"),
        "{error}"
    );
    let all = stores.keys.scan(session, KeyKind::Session, b"").await;
    assert!(matches!(all, Err(StoreError::Locked { .. })), "{all:?}");
    stores.engine.close().await?;
    let files = files(dir.path())?;
    for (key, in_the_clear) in [("clear", true), ("old", false), ("both", false)] {
        let needle = format!("secret of {key}").into_bytes();
        let found = files.iter().any(|bytes| bytes.windows(needle.len()).any(|part| part == needle));
        assert_eq!(found, in_the_clear, "{key}: on disk");
    }
    Ok(())
}

async fn open(dir: &Path, ids: &[&str]) -> Result<Stores> {
    let options = Options { encryption: support::encryption_keys(ids)?, ..Options::new(dir) };
    Ok(embedded::open(options).await?)
}

/// The content of all files in a folder.
fn files(dir: &Path) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(std::fs::read(path)?) }
    }
    Ok(found)
}
