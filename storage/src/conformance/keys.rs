//! What [`crate::KeyStore`] promises.

use super::sample;
use crate::{KeyKind, KeyOp, StoreError, Stores};
use anyhow::Result;
use bytes::Bytes;

fn put(kind: KeyKind, key: &[u8], value: &[u8]) -> KeyOp {
    KeyOp::Put { kind, key: Bytes::copy_from_slice(key), value: Bytes::copy_from_slice(value) }
}

fn delete(kind: KeyKind, key: &[u8]) -> KeyOp {
    KeyOp::Delete { kind, key: Bytes::copy_from_slice(key) }
}

fn keys(rows: &[(Bytes, Bytes)]) -> Vec<&[u8]> {
    rows.iter().map(|(key, _)| key.as_ref()).collect()
}

pub(super) async fn run(stores: &Stores) -> Result<()> {
    let (fence, other) = (sample::claimed(stores).await?, sample::claimed(stores).await?);
    let (session, store) = (fence.session(), &stores.keys);
    let (kind, next_kind) = (KeyKind::Identity, KeyKind::Session);
    let written = [&b"a"[..], b"ab", b"ab\0", b"ab\xff", b"ac", b"\xff", b"\xff\xff"];
    store.write(&fence, written.iter().map(|key| put(kind, key, key)).collect()).await?;
    store.write(&fence, vec![put(next_kind, b"a", b""), put(next_kind, b"b", b"other kind")]).await?;
    store.write(&other, vec![put(kind, b"a", b"other session")]).await?;

    assert_eq!(store.get(session, kind, b"ab").await?.as_deref(), Some(&b"ab"[..]));
    assert_eq!(store.get(session, kind, b"abc").await?, None);
    assert_eq!(store.get(session, next_kind, b"a").await?.as_deref(), Some(&b""[..]), "an empty value is a value");
    let asked: Vec<Bytes> = ["ac", "nothing", "a", "ac"].map(Bytes::from).to_vec();
    let found = store.get_many(session, kind, &asked).await?;
    assert_eq!(found, [Some("ac".into()), None, Some("a".into()), Some("ac".into())], "in the order asked for");
    let many: Vec<Bytes> = (0..100).map(|_| Bytes::from("a")).collect();
    assert!(store.get_many(session, kind, &many).await?.iter().all(Option::is_some));
    assert_eq!(store.get_many(session, kind, &[]).await?, []);

    assert_eq!(keys(&store.scan(session, kind, b"").await?), written, "all of one kind, in order");
    assert_eq!(keys(&store.scan(session, kind, b"ab").await?), written[1..4]);
    assert_eq!(keys(&store.scan(session, kind, b"\xff").await?), written[5..], "the last prefix has no end");
    assert_eq!(keys(&store.range(session, kind, b"ab", b"ac", 10).await?), written[1..4]);
    assert_eq!(keys(&store.range(session, kind, b"", b"\xff\xff\xff", 3).await?), written[..3]);
    assert_eq!(store.range(session, kind, b"b", b"a", 10).await?, []);
    assert_eq!(store.range(session, kind, b"a", b"a", 10).await?, []);

    // The last change of a key counts, in one list as over several.
    store.write(&fence, vec![put(kind, b"a", b"1"), delete(kind, b"a"), put(kind, b"a", b"2")]).await?;
    assert_eq!(store.get(session, kind, b"a").await?.as_deref(), Some(&b"2"[..]));
    store.write(&fence, vec![put(kind, b"n", b"1"), delete(kind, b"n"), delete(kind, b"never")]).await?;
    assert_eq!(store.get(session, kind, b"n").await?, None);
    store.write(&fence, Vec::new()).await?;

    // All or nothing, and one that fails does no harm to others.
    let too_long = vec![b'x'; 100_000];
    let (bad, good) = tokio::join!(
        store.write(&fence, vec![put(kind, b"half", b"1"), delete(kind, b"a"), put(kind, &too_long, b"1")]),
        store.write(&fence, vec![put(kind, b"whole", b"1")]),
    );
    assert!(matches!(bad, Err(StoreError::Refused(_))), "{bad:?}");
    good?;
    assert_eq!(store.get(session, kind, b"half").await?, None);
    assert!(store.get(session, kind, b"a").await?.is_some());
    assert!(store.get(session, kind, b"whole").await?.is_some());

    store.clear(&fence).await?;
    assert_eq!(store.scan(session, kind, b"").await?, []);
    assert_eq!(store.scan(session, next_kind, b"").await?, []);
    assert_eq!(store.get(other.session(), kind, b"a").await?.as_deref(), Some(&b"other session"[..]));
    store.write(&fence, vec![put(kind, b"a", b"again")]).await?;
    assert_eq!(keys(&store.scan(session, kind, b"").await?), [b"a"]);
    Ok(())
}
