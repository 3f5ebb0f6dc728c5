//! Files in: what phones send, as the gateway gives it to its user.

use crate::{
    client::{Answer, answer},
    hosts::{film, picture, voice},
    world::{FRIEND, OWNER, World},
};
use image::ImageFormat;
use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};
use whatsapp_simulator::{Content, MediaFault, MediumKind};

/// A medium that the friend sends to the account; its message id.
pub(crate) fn receive(world: &World, kind: MediumKind, mimetype: &str, data: &[u8]) -> String {
    let content = Content::Medium {
        kind,
        data: data.to_vec().into(),
        mimetype: mimetype.into(),
        caption: Some("Grüße".into()),
        view_once: false,
    };
    world.phone(FRIEND).send(OWNER, &content).unwrap()
}

/// Where the file of a message can be had, once the message is there.
pub(crate) async fn url_of(world: &World, session: &str, id: &str) -> String {
    let message = world.message_where(session, id, |_| true).await;
    message["media"]["url"].as_str().unwrap_or_else(|| panic!("no url: {message}")).to_owned()
}

async fn get(world: &World, url: &str, headers: &[(&str, &str)]) -> Answer {
    let request = world.client.request(Method::GET, url);
    answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_medium_can_be_fetched_byte_for_byte() {
    let (mut world, session) = World::linked(&[]).await;
    let mut received = vec![];
    for (kind, name, mimetype, data) in [
        (MediumKind::Image, "image", "image/jpeg", picture(ImageFormat::Jpeg, 400, 300)),
        (MediumKind::Video, "video", "video/mp4", film()),
        (MediumKind::Audio, "audio", "audio/ogg; codecs=opus", voice(2)),
        (MediumKind::Document, "document", "application/pdf", b"%PDF-1.7".to_vec()),
        (MediumKind::Sticker, "sticker", "image/webp", picture(ImageFormat::WebP, 64, 64)),
        (MediumKind::Document, "document", "text/html", b"<script>alert(1)</script>".to_vec()),
    ] {
        let id = receive(&world, kind, mimetype, &data);
        let message = world.message_where(&session, &id, |_| true).await;
        assert_eq!(message["type"], name);
        let url = format!("/api/whatsapp/sessions/{session}/messages/{id}/media");
        let hash = hex::encode(Sha256::digest(&data));
        let expected = json!({
            "mime_type": mimetype,
            "size": data.len(),
            "file_name": message["media"]["file_name"],
            "sha256": hash,
            "url": url,
            "width": null,
            "height": null,
            "seconds": (kind == MediumKind::Audio).then_some(1),
        });
        assert_eq!(message["media"], expected, "and no key of it");
        let listed = world.client.history(&session).await;
        assert_eq!(listed[0]["media"], expected);
        let whole = get(&world, &url, &[]).await.expect(200);
        assert_eq!(whole.bytes, data, "{name}");
        assert_eq!(whole.header("content-type"), mimetype);
        assert_eq!(whole.header("content-length"), data.len().to_string());
        assert_eq!(whole.header("etag"), format!("\"{hash}\""));
        assert_eq!(whole.header("accept-ranges"), "bytes");
        assert_eq!(whole.header("x-content-type-options"), "nosniff");
        assert!(whole.header("content-disposition").starts_with("attachment; filename=\""), "never a page of ours");
        assert!(whole.header("content-security-policy").contains("sandbox"));
        received.push((url, data));
    }
    // What decrypts them is durable.
    world.node.kill();
    world.start_again().await;
    world.status_is(&session, "WORKING").await;
    for (url, data) in received {
        assert_eq!(get(&world, &url, &[]).await.expect(200).bytes, data);
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_conditions_are_honoured() {
    let (world, session) = World::linked(&[]).await;
    let data = picture(ImageFormat::Png, 400, 400);
    let length = data.len();
    let id = receive(&world, MediumKind::Image, "image/png", &data);
    let url = url_of(&world, &session, &id).await;
    let etag = get(&world, &url, &[]).await.expect(200).header("etag").to_owned();
    for (range, start, end) in [
        ("bytes=0-0".to_owned(), 0, 1),
        ("bytes=100-299999".to_owned(), 100, 300_000),
        (format!("bytes={}-", length - 5), length - 5, length),
        ("bytes=-7".to_owned(), length - 7, length),
        (format!("bytes=0-{}", length * 2), 0, length),
    ] {
        let part = get(&world, &url, &[("range", &range)]).await.expect(206);
        assert_eq!(part.bytes, data[start..end], "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {start}-{}/{length}", end - 1));
        assert_eq!(part.header("content-length"), (end - start).to_string());
    }
    for range in [format!("bytes={length}-"), "bytes=-0".to_owned()] {
        let refused = get(&world, &url, &[("range", &range)]).await;
        assert_eq!(refused.header("content-range"), format!("bytes */{length}"));
        refused.error(416, "range_not_satisfiable");
    }
    for range in ["bytes=9-3", "bytes=0-1,5-6", "bytes=x", "lines=1-2", ""] {
        assert_eq!(get(&world, &url, &[("range", range)]).await.expect(200).bytes.len(), length, "{range:?}");
    }
    let current = get(&world, &url, &[("range", "bytes=0-3"), ("if-range", &etag)]).await.expect(206);
    assert_eq!(current.bytes, data[..4]);
    let stale = get(&world, &url, &[("range", "bytes=0-3"), ("if-range", "\"other\"")]).await.expect(200);
    assert_eq!(stale.bytes.len(), length);
    for known in [etag.as_str(), "*", &format!("\"other\", {etag}"), &format!("W/{etag}")] {
        let unchanged = get(&world, &url, &[("if-none-match", known)]).await.expect(304);
        assert!(unchanged.bytes.is_empty() && unchanged.header("etag") == etag);
    }
    get(&world, &url, &[("if-none-match", "\"other\"")]).await.expect(200);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_given_to_its_user_alone() {
    let (world, session) = World::linked(&[]).await;
    let id = receive(&world, MediumKind::Image, "image/png", &picture(ImageFormat::Png, 8, 8));
    let url = url_of(&world, &session, &id).await;
    answer(world.client.without_token(Method::GET, &url)).await.expect(401);
    world.stranger().await.get(&url).await.error(404, "session_not_found");
    world.client.post(&url, &json!({})).await.error(405, "method_not_allowed");
    let text = world.phone(FRIEND).send_text(OWNER, "no file").unwrap();
    world.message_where(&session, &text, |_| true).await;
    let of = |id: &str| format!("/api/whatsapp/sessions/{session}/messages/{id}/media");
    world.client.get(&of(&text)).await.error(404, "media_not_found");
    world.client.get(&of("3EB0000000000000000000")).await.error(404, "message_not_found");
    world.client.get(&of("%ff")).await.error(404, "message_not_found");
    world.client.get(&format!("/api/whatsapp/sessions/x/messages/{id}/media")).await.error(404, "session_not_found");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_media_host_that_is_down_or_lies_is_503_and_what_was_fetched_stays() {
    let (world, session) = World::linked(&[]).await;
    let data = picture(ImageFormat::Png, 100, 100);
    let id = receive(&world, MediumKind::Image, "image/png", &data);
    let url = url_of(&world, &session, &id).await;
    for fault in [MediaFault::Down, MediaFault::Lying] {
        world.simulator.faults().media(Some(fault));
        let failed = get(&world, &url, &[]).await.error(503, "whatsapp_unavailable");
        failed.says_when_to_retry();
    }
    world.simulator.faults().media(None);
    assert_eq!(get(&world, &url, &[]).await.expect(200).bytes, data);
    world.simulator.faults().media(Some(MediaFault::Down));
    assert_eq!(get(&world, &url, &[]).await.expect(200).bytes, data, "kept for the next time");
    world.simulator.faults().media(None);

    let other = receive(&world, MediumKind::Image, "image/png", &picture(ImageFormat::Png, 9, 9));
    let other = url_of(&world, &session, &other).await;
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/disconnect")).await.expect(200);
    get(&world, &other, &[]).await.error(409, "session_state");
    assert_eq!(get(&world, &url, &[]).await.expect(200).bytes, data, "needs no connection");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_large_here_is_413() {
    let (world, session) = World::linked(&[("ROOKERY_MEDIA__MAX_BYTES", "5000")]).await;
    let id = receive(&world, MediumKind::Document, "application/octet-stream", &[7; 5001]);
    let url = url_of(&world, &session, &id).await;
    get(&world, &url, &[]).await.error(413, "payload_too_large");
    let id = receive(&world, MediumKind::Document, "application/octet-stream", &[7; 5000]);
    let url = url_of(&world, &session, &id).await;
    assert_eq!(get(&world, &url, &[]).await.expect(200).bytes, [7; 5000]);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_all_get_the_file() {
    let (world, session) = World::linked(&[]).await;
    let data = picture(ImageFormat::Png, 300, 300);
    let id = receive(&world, MediumKind::Image, "image/png", &data);
    let url = url_of(&world, &session, &id).await;
    let asked = (0..20).map(|_| get(&world, &url, &[]));
    for got in futures_util::future::join_all(asked).await {
        assert!(got.expect(200).bytes == data);
    }
    let kept = world.node.data_dir().join("media/cache").read_dir().unwrap().count();
    assert_eq!(kept, 1);
    world.finish();
}
