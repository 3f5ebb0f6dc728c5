//! Files that are kept beyond WhatsApp's time: in a folder, and in a bucket.

use crate::{
    bucket::Bucket,
    client::Answer,
    hosts::picture,
    media_received::{receive, url_of},
    node::{eventually, rookery, run_to_end},
    world::{FRIEND, World},
};
use image::ImageFormat;
use serde_json::json;
use std::path::{Path, PathBuf};
use whatsapp_simulator::{MediaFault, MediumKind};

const ON: (&str, &str) = ("ROOKERY_MEDIA_STORE__ENABLED", "true");

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return vec![] };
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.unwrap().path())).collect()
}

/// Waits until so many files are kept in this folder.
async fn kept(folder: &Path, count: usize) -> Vec<PathBuf> {
    eventually("kept files", async || {
        let files = files(folder);
        let whole = files.iter().all(|file| !file.to_string_lossy().contains('#'));
        if whole && files.len() == count { Ok(files) } else { Err(format!("{files:?}")) }
    })
    .await
}

/// Nothing can be had from WhatsApp, and nothing from an earlier request.
async fn without_whatsapp(world: &mut World, session: &str) {
    world.restart().await;
    world.status_is(session, "WORKING").await;
    world.simulator.faults().media(Some(MediaFault::Down));
}

async fn get(world: &World, url: &str) -> Answer {
    world.client.get(url).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_once_stays_and_goes_with_its_session() {
    let (mut world, session) = World::linked(&[ON]).await;
    let folder = world.node.data_dir().join("media/kept");
    let (data, large) = (picture(ImageFormat::Png, 40, 40), vec![7; 11 << 20]);
    let small = receive(&world, MediumKind::Image, "image/png", &data);
    let big = receive(&world, MediumKind::Document, "application/octet-stream", &large);
    let other = receive(&world, MediumKind::Document, "text/plain", b"nobody asks for it");
    let (small, big) = (url_of(&world, &session, &small).await, url_of(&world, &session, &big).await);
    let other = url_of(&world, &session, &other).await;
    assert!(files(&folder).is_empty(), "nobody has asked");
    assert_eq!(get(&world, &small).await.expect(200).bytes, data);
    assert!(get(&world, &big).await.expect(200).bytes == large);
    kept(&folder, 2).await;
    without_whatsapp(&mut world, &session).await;
    world.simulator.faults().forget_media(None);
    assert_eq!(get(&world, &small).await.expect(200).bytes, data);
    assert!(get(&world, &big).await.expect(200).bytes == large);
    get(&world, &other).await.error(503, "whatsapp_unavailable");

    // Another user's session has none of it, and this one's go with it.
    world.stranger().await.get(&small).await.error(404, "session_not_found");
    world.simulator.faults().media(None);
    world.client.delete(&format!("/api/whatsapp/sessions/{session}")).await.expect(200);
    kept(&folder, 0).await;
    let cached = world.node.data_dir().join("media/cache");
    assert!(files(&cached).is_empty(), "nor is anything left of what was at hand");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_failing_store_fails_nothing() {
    let (mut world, session) = World::linked(&[ON]).await;
    let folder = world.node.data_dir().join("media/kept");
    let data = picture(ImageFormat::Png, 40, 40);
    let url = url_of(&world, &session, &receive(&world, MediumKind::Image, "image/png", &data)).await;
    get(&world, &url).await.expect(200);
    let file = kept(&folder, 1).await.remove(0);
    let mut damaged = data.clone();
    damaged[99] ^= 1;
    for content in [damaged, data[..50].to_vec(), vec![]] {
        std::fs::write(&file, content).unwrap();
        world.restart().await;
        world.status_is(&session, "WORKING").await;
        assert_eq!(get(&world, &url).await.expect(200).bytes, data, "from WhatsApp");
        eventually("it is kept as it should be", async || {
            if std::fs::read(&file).is_ok_and(|kept| kept == data) { Ok(()) } else { Err("it is not".into()) }
        })
        .await;
    }
    // A store that is not there at all.
    world.node.stop().await;
    world.start_again().await;
    world.status_is(&session, "WORKING").await;
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "no folder").unwrap();
    assert_eq!(get(&world, &url).await.expect(200).bytes, data);
    let next = receive(&world, MediumKind::Image, "image/png", &picture(ImageFormat::Png, 9, 9));
    let next = url_of(&world, &session, &next).await;
    get(&world, &next).await.expect(200);
    world.send(&session, FRIEND, "all is well").await;
    world.client.delete(&format!("/api/whatsapp/sessions/{session}")).await.expect(200);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_can_be_kept_as_they_come() {
    let settings =
        [ON, ("ROOKERY_MEDIA_STORE__ON_ARRIVAL", "true"), ("ROOKERY_MEDIA_STORE__ON_ARRIVAL_MAX_BYTES", "5000")];
    let (mut world, session) = World::linked(&settings).await;
    let folder = world.node.data_dir().join("media/kept");
    let mut received = vec![];
    for number in 0..20 {
        let data = format!("file {number}").into_bytes();
        received.push((receive(&world, MediumKind::Document, "text/plain", &data), data));
    }
    let large = receive(&world, MediumKind::Document, "text/plain", &[b'x'; 5001]);
    kept(&folder, 20).await;
    let large = url_of(&world, &session, &large).await;
    without_whatsapp(&mut world, &session).await;
    for (id, data) in received {
        let url = url_of(&world, &session, &id).await;
        assert_eq!(get(&world, &url).await.expect(200).bytes, data);
    }
    get(&world, &large).await.error(503, "whatsapp_unavailable");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_when_their_time_is_over() {
    let elsewhere = tempfile::TempDir::new().unwrap();
    let url = format!("file://{}/kept", elsewhere.path().display());
    let settings = [
        ON,
        ("ROOKERY_MEDIA_STORE__URL", url.as_str()),
        ("ROOKERY_MEDIA_STORE__RETENTION_SECS", "3"),
        ("ROOKERY_MEDIA_STORE__SWEEP_SECS", "1"),
    ];
    let (world, session) = World::linked(&settings).await;
    let id = receive(&world, MediumKind::Document, "text/plain", b"for a while");
    let url = url_of(&world, &session, &id).await;
    get(&world, &url).await.expect(200);
    kept(elsewhere.path(), 1).await;
    kept(elsewhere.path(), 0).await;
    assert_eq!(get(&world, &url).await.expect(200).bytes, b"for a while", "as ever");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_files_as_well() {
    let bucket = Bucket::start("files", "id-marker-3312").await;
    let folder = tempfile::TempDir::new().unwrap();
    let (id_file, secret_file) = (folder.path().join("id"), folder.path().join("secret"));
    std::fs::write(&id_file, "id-marker-3312\n").unwrap();
    std::fs::write(&secret_file, "secret-marker-9917\n").unwrap();
    let endpoint = bucket.endpoint();
    let settings = [
        ON,
        ("ROOKERY_LOG__FILTER", "trace"),
        ("ROOKERY_MEDIA_STORE__URL", "s3://files/some/prefix"),
        ("ROOKERY_MEDIA_STORE__S3_ENDPOINT", &endpoint),
        ("ROOKERY_MEDIA_STORE__S3_ACCESS_KEY_ID_FILE", id_file.to_str().unwrap()),
        ("ROOKERY_MEDIA_STORE__S3_SECRET_ACCESS_KEY_FILE", secret_file.to_str().unwrap()),
    ];
    let (mut world, session) = World::linked(&settings).await;
    let (data, large) = (picture(ImageFormat::Png, 40, 40), vec![7; 11 << 20]);
    let small = receive(&world, MediumKind::Image, "image/png", &data);
    let big = receive(&world, MediumKind::Document, "application/octet-stream", &large);
    let (small, big) = (url_of(&world, &session, &small).await, url_of(&world, &session, &big).await);
    assert_eq!(get(&world, &small).await.expect(200).bytes, data);
    assert!(get(&world, &big).await.expect(200).bytes == large);
    let keys = eventually("two files in the bucket", async || {
        let keys = bucket.keys();
        if keys.len() == 2 { Ok(keys) } else { Err(format!("{keys:?}")) }
    })
    .await;
    assert!(keys.iter().all(|key| key.starts_with(&format!("some/prefix/{session}/"))), "{keys:?}");
    without_whatsapp(&mut world, &session).await;
    assert_eq!(get(&world, &small).await.expect(200).bytes, data);
    assert!(get(&world, &big).await.expect(200).bytes == large);

    // Without the bucket everything comes from WhatsApp.
    bucket.fail(true);
    world.restart().await;
    world.status_is(&session, "WORKING").await;
    world.simulator.faults().media(None);
    assert_eq!(get(&world, &small).await.expect(200).bytes, data);
    bucket.fail(false);
    world.client.delete(&format!("/api/whatsapp/sessions/{session}")).await.expect(200);
    eventually("an empty bucket", async || {
        let keys = bucket.keys();
        if keys.is_empty() { Ok(()) } else { Err(format!("{keys:?}")) }
    })
    .await;
    let log = world.node.log();
    for secret in ["secret-marker-9917", "id-marker-3312"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    assert_eq!(bucket.refused(), 0, "every request was signed");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_being_told_to_nothing_is_kept() {
    let (world, session) = World::linked(&[]).await;
    let id = receive(&world, MediumKind::Document, "text/plain", b"text");
    let url = url_of(&world, &session, &id).await;
    get(&world, &url).await.expect(200);
    assert!(!world.node.data_dir().join("media/kept").exists());
    let status = world.client.get("/api/health").await.expect(200).body;
    assert_eq!(status["status"], json!("OK"));
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_make_no_store_are_named() {
    let folder = tempfile::TempDir::new().unwrap();
    let missing = folder.path().join("missing");
    let missing = missing.to_str().unwrap();
    let cases: [(&str, &[(&str, &str)]); 9] = [
        ("media_store.url", &[("ROOKERY_MEDIA_STORE__URL", "ftp://host/")]),
        ("media_store.url", &[("ROOKERY_MEDIA_STORE__URL", "s3://id:sesame@bucket/")]),
        ("media_store.retention_secs", &[("ROOKERY_MEDIA_STORE__RETENTION_SECS", "0")]),
        ("media_store.sweep_secs", &[("ROOKERY_MEDIA_STORE__SWEEP_SECS", "0")]),
        ("media_store.s3_access_key_id_file", &[("ROOKERY_MEDIA_STORE__S3_SECRET_ACCESS_KEY_FILE", missing)]),
        ("media_store.s3_endpoint", &[("ROOKERY_MEDIA_STORE__S3_ENDPOINT", "host:9000")]),
        ("media.phone_timeout_ms", &[("ROOKERY_MEDIA__PHONE_TIMEOUT_MS", "30001")]),
        (
            missing,
            &[
                ON,
                ("ROOKERY_MEDIA_STORE__URL", "s3://bucket"),
                ("ROOKERY_MEDIA_STORE__S3_ACCESS_KEY_ID_FILE", missing),
                ("ROOKERY_MEDIA_STORE__S3_SECRET_ACCESS_KEY_FILE", missing),
            ],
        ),
        ("media_store", &[ON, ("ROOKERY_MEDIA_STORE__URL", "file:///proc/none/of/it")]),
    ];
    for (named, settings) in cases {
        let usual = [("ROOKERY_WHATSAPP__URL", "ws://127.0.0.1:9/ws/chat"), ("ROOKERY_API__LISTEN", "127.0.0.1:0")];
        let all: Vec<_> = usual.iter().chain(settings).copied().collect();
        let mut command = rookery(&all);
        command.env("ROOKERY_NODE__DATA_DIR", folder.path().join("data"));
        let ended = run_to_end(command).await;
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains(named) && !ended.stderr.contains("sesame"), "{named}: {ended:?}");
    }
}
