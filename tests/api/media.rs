//! Files out: from URLs, as uploads and as `data:` URLs, through crashes and outages.

use crate::{
    client::{Answer, answer},
    hosts::{Host, Reply, film, picture, voice},
    node::eventually,
    world::{FRIEND, World, sent},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use image::ImageFormat;
use reqwest::Method;
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};
use whatsapp_simulator::{MediaFault, MessageKind};

/// Where files are sent.
pub(crate) const MEDIA: &str = "/api/whatsapp/messages/media";

/// A linked session whose gateway may fetch from the host.
pub(crate) async fn linked_with(host: &Host, settings: &[(&str, &str)]) -> (World, String) {
    let allowed = format!("[\"{}\"]", host.name());
    let all: Vec<_> = settings.iter().copied().chain([("ROOKERY_MEDIA__ALLOW_HOSTS", allowed.as_str())]).collect();
    World::linked(&all).await
}

/// The body of a request for a file by its URL.
pub(crate) fn body(session: &str, kind: &str, url: &str) -> Value {
    json!({"session_id": session, "to": FRIEND, "type": kind, "media_url": url})
}

async fn send(world: &World, body: &Value) -> Answer {
    world.client.post(MEDIA, body).await
}

async fn keyed(world: &World, body: &Value, key: &str) -> Answer {
    answer(world.client.request(Method::POST, MEDIA).json(body).header("idempotency-key", key)).await
}

/// An upload, part by part: name, file name, content.
pub(crate) fn form(parts: &[(&str, Option<&str>, &[u8])]) -> (String, Vec<u8>) {
    let mut body = vec![];
    for (name, file_name, content) in parts {
        let file_name = file_name.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
        body.extend(format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"{file_name}\r\n\r\n").bytes());
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"--cut--\r\n");
    ("multipart/form-data; boundary=cut".to_owned(), body)
}

async fn upload(world: &World, parts: &[(&str, Option<&str>, &[u8])], key: Option<&str>) -> Answer {
    let (kind, body) = form(parts);
    let mut request = world.client.request(Method::POST, MEDIA).header("content-type", kind).body(body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    answer(request).await
}

/// The sealed files that wait in a gateway's spool.
fn spooled(world: &World) -> Vec<PathBuf> {
    let folder = world.node.data_dir().join("media/spool");
    folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()
}

async fn spool_is_empty(world: &World) {
    eventually("an empty spool", async || {
        let left = spooled(world);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_file_is_fetched_sent_and_shown() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[]).await;
    let pdf = b"%PDF-1.7 not much of a document".to_vec();
    for (kind, seen, mime, file) in [
        ("image", MessageKind::Image, "image/png", picture(ImageFormat::Png, 300, 200)),
        ("image", MessageKind::Image, "image/jpeg", picture(ImageFormat::Jpeg, 300, 200)),
        ("audio", MessageKind::Audio, "audio/ogg; codecs=opus", voice(3)),
        ("video", MessageKind::Video, "video/mp4", film()),
        ("document", MessageKind::Document, "application/pdf", pdf),
    ] {
        let url = host.file("/folder/a%20file.html?query", &file);
        let caption = (kind != "audio").then_some("Grüße 🐦");
        let mut body = body(&session, kind, &url);
        body["caption"] = json!(caption);
        let answer = send(&world, &body).await.expect(200);
        let expected = json!({
            "success": true,
            "message_id": answer.body["message_id"],
            "session_id": session,
            "to": FRIEND,
            "chat": format!("{FRIEND}@s.whatsapp.net"),
            "status": "sent",
            "timestamp": answer.body["timestamp"],
        });
        assert_eq!(answer.body, expected);
        let id = sent(answer);
        let arrived = world.arrived(FRIEND, &id).await;
        assert_eq!((arrived.kind, arrived.text.as_str()), (seen, caption.unwrap_or("<audio>")), "{kind}");

        let message = world.message_where(&session, &id, |message| message["media"]["url"].is_string()).await;
        assert_eq!((&message["type"], &message["caption"]), (&json!(kind), &json!(caption)));
        let media = &message["media"];
        assert_eq!((&media["mime_type"], &media["size"]), (&json!(mime), &json!(file.len())));
        let name = (kind == "document").then_some("a file.html");
        assert_eq!(media["file_name"], json!(name));
        assert_eq!(media["sha256"].as_str().unwrap().len(), 64);
        let got = world.client.get(media["url"].as_str().unwrap()).await.expect(200);
        assert_eq!((got.bytes, got.headers["content-type"].to_str().unwrap()), (file, mime));
    }
    spool_is_empty(&world).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_and_data_urls_are_sent_as_well() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[]).await;
    let png = picture(ImageFormat::Png, 500, 500);
    assert!(png.len() > 700_000);
    // The file may come before the fields that say what it is.
    let parts: [(&str, Option<&str>, &[u8]); 5] = [
        ("file", Some("photo.png"), &png),
        ("session_id", None, session.as_bytes()),
        ("to", None, FRIEND.as_bytes()),
        ("type", None, b"image"),
        ("caption", None, "grüß".as_bytes()),
    ];
    let id = sent(upload(&world, &parts, None).await);
    assert_eq!(world.arrived(FRIEND, &id).await.text, "grüß");
    let message = world.message_where(&session, &id, |message| message["media"]["url"].is_string()).await;
    assert_eq!(world.client.get(message["media"]["url"].as_str().unwrap()).await.expect(200).bytes, png);

    let parts: [(&str, Option<&str>, &[u8]); 4] = [
        ("session_id", None, session.as_bytes()),
        ("to", None, FRIEND.as_bytes()),
        ("type", None, b"document"),
        ("file", Some("../etc/notes.txt"), b"text"),
    ];
    let id = sent(upload(&world, &parts, None).await);
    let message = world.message_where(&session, &id, |message| message["media"]["url"].is_string()).await;
    assert_eq!(message["media"]["file_name"], "notes.txt");
    assert_eq!(message["media"]["mime_type"], "text/plain");

    let small = picture(ImageFormat::Jpeg, 60, 40);
    let url = format!("data:text/plain;base64,{}", BASE64_STANDARD.encode(&small));
    let id = sent(send(&world, &body(&session, "image", &url)).await);
    let message = world.message_where(&session, &id, |message| message["media"]["url"].is_string()).await;
    assert_eq!(message["media"]["mime_type"], "image/jpeg", "by content, whatever the URL claims");
    assert_eq!(world.client.get(message["media"]["url"].as_str().unwrap()).await.expect(200).bytes, small);
    // Schemes are as good in capitals, and a `data:` URL is as long as the body may be.
    let url = format!("DATA:;Base64,{}", BASE64_STANDARD.encode(picture(ImageFormat::Jpeg, 60, 60)));
    assert!(url.len() > 4096);
    sent(send(&world, &body(&session, "image", &url)).await);
    let url = host.file("/a.jpg", &small);
    sent(send(&world, &body(&session, "image", &url.replace("http", "HTTP"))).await);
    spool_is_empty(&world).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_name_for_a_document_is_taken_in_every_script() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[]).await;
    for (disposition, name) in [
        ("attachment; filename=\"EURO.txt\"; filename*=UTF-8''%E2%82%AC%20rates.txt", "€ rates.txt"),
        ("attachment; filename*=UTF-8''..%2F..%2Fetc%2Fpass%0D%0Awd", "passwd"),
        ("attachment; filename*=UTF-8''%FF; filename=\"a;b.txt\"", "a;b.txt"),
        ("inline", "path.txt"),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Disposition: {disposition}\r\n\r\ntext");
        let url = host.put("/path.txt", Reply::Raw(head.into_bytes()));
        let id = sent(send(&world, &body(&session, "document", &url)).await);
        let message = world.message_where(&session, &id, |_| true).await;
        assert_eq!(message["media"]["file_name"], name, "{disposition}");
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_sends_a_file_once_and_fetches_it_once() {
    let host = Host::start().await;
    let (mut world, session) = linked_with(&host, &[]).await;
    let url = host.file("/once.png", &picture(ImageFormat::Png, 20, 20));
    let request = body(&session, "image", &url);
    let first = keyed(&world, &request, "k").await.expect(200);
    let again = keyed(&world, &request, "k").await.expect(200);
    assert_eq!(again.body, first.body);
    assert_eq!(host.asked("/once.png"), 1, "what was accepted is not fetched again");
    let mut other = request.clone();
    other["caption"] = json!("another");
    keyed(&world, &other, "k").await.error(409, "idempotency_conflict");
    keyed(&world, &body(&session, "document", &url), "k").await.error(409, "idempotency_conflict");
    let text = json!({"session_id": session, "to": FRIEND, "message": "x"});
    let text = world.client.request(Method::POST, "/api/whatsapp/messages/text").json(&text);
    answer(text.header("idempotency-key", "k")).await.error(409, "idempotency_conflict");

    // Also when the file is gone from where it was, and after a restart.
    host.put("/once.png", Reply::Status(404));
    world.restart().await;
    world.status_is(&session, "WORKING").await;
    assert_eq!(keyed(&world, &request, "k").await.expect(200).body, first.body);

    let parts = |content: &'static [u8]| {
        [
            ("session_id", None, session.as_bytes()),
            ("to", None, FRIEND.as_bytes()),
            ("type", None, b"document".as_slice()),
            ("file", Some("a.txt"), content),
        ]
    };
    let uploaded = upload(&world, &parts(b"one"), Some("u")).await.expect(200);
    assert_eq!(upload(&world, &parts(b"one"), Some("u")).await.expect(200).body, uploaded.body);
    upload(&world, &parts(b"two"), Some("u")).await.error(409, "idempotency_conflict");
    let mut renamed = parts(b"one");
    renamed[3].1 = Some("b.txt");
    upload(&world, &renamed, Some("u")).await.error(409, "idempotency_conflict");

    let slow = host.file("/twin.png", &picture(ImageFormat::Png, 20, 20));
    let twin = body(&session, "image", &slow);
    let twins = futures_util::future::join_all((0..8).map(|_| keyed(&world, &twin, "twin"))).await;
    let mut ids: Vec<_> = twins.into_iter().map(sent).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    world.arrived(FRIEND, &ids[0]).await;
    assert_eq!(world.phone(FRIEND).inbox().len(), 3);
    assert_eq!(world.client.history(&session).await.len(), 3);
    spool_is_empty(&world).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_whatsapps_media_host_is_down_files_wait() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[]).await;
    let url = host.file("/a.png", &picture(ImageFormat::Png, 20, 20));
    world.simulator.faults().media(Some(MediaFault::Down));
    let path = format!("{MEDIA}?wait_ms=300");
    let queued = world.client.post(&path, &body(&session, "image", &url)).await.expect(202);
    assert_eq!(queued.body["status"], "queued");
    let id = queued.text("message_id");
    let message = world.message_where(&session, &id, |_| true).await;
    assert_eq!((&message["status"], &message["media"]["url"]), (&json!("pending"), &json!(null)));
    world.client.get(&media_path(&session, &id)).await.error(404, "media_not_found");
    // Order holds within the chat, and other chats go on.
    let behind = world.client.send_waiting(&session, FRIEND, "behind it", Some(0)).await.expect(202).text("message_id");
    world.phone("15550003003");
    world.send(&session, "15550003003", "elsewhere").await;
    world.simulator.faults().media(None);
    world.message_where(&session, &behind, |message| message["status"] == "delivered").await;
    let inbox: Vec<_> = world.phone(FRIEND).inbox().into_iter().map(|message| message.id).collect();
    assert_eq!(inbox, [id, behind]);
    spool_is_empty(&world).await;
    world.finish();
}

fn media_path(session: &str, id: &str) -> String {
    format!("/api/whatsapp/sessions/{session}/messages/{id}/media")
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_with_files_on_their_way_it_sends_each_once() {
    let host = Host::start().await;
    let (mut world, session) = linked_with(&host, &[]).await;
    world.simulator.faults().media(Some(MediaFault::Down));
    let mut files = vec![];
    for number in 0..4_u32 {
        let file = picture(ImageFormat::Png, 30 + number, 30);
        let url = host.file(&format!("/{number}.png"), &file);
        let path = format!("{MEDIA}?wait_ms=0");
        let id = world.client.post(&path, &body(&session, "image", &url)).await.expect(202).text("message_id");
        files.push((id, file));
    }
    assert_eq!(spooled(&world).len(), 4);
    world.node.kill();
    // A file that no message refers to, as a crash between the two writes leaves it; and one that is not ours.
    let orphan = world.node.data_dir().join("media/spool").join(format!("{}.sealed", "ab".repeat(16)));
    std::fs::write(&orphan, "x").unwrap();
    world.start_again().await;
    world.status_is(&session, "WORKING").await;
    eventually("the orphan is swept", async || if orphan.exists() { Err("it is there".into()) } else { Ok(()) }).await;
    assert_eq!(spooled(&world).len(), 4, "what is referred to stays");

    // Once more in the middle of it: some are uploaded, some sent, some neither.
    world.simulator.faults().hold_acks(true);
    world.simulator.faults().media(None);
    eventually("the first is uploaded", async || {
        let left = spooled(&world).len();
        if left < 4 { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
    world.node.kill();
    world.simulator.faults().hold_acks(false);
    world.start_again().await;
    for (id, file) in &files {
        let message = world.message_where(&session, id, |message| message["status"] == "delivered").await;
        let got = world.client.get(message["media"]["url"].as_str().unwrap()).await.expect(200);
        assert_eq!(got.bytes, *file);
    }
    let inbox: Vec<_> = world.phone(FRIEND).inbox().into_iter().map(|message| message.id).collect();
    assert_eq!(inbox, files.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), "in order, each once");
    spool_is_empty(&world).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_message_is_given_up_goes_with_it() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[]).await;
    let url = host.file("/a.png", &picture(ImageFormat::Png, 20, 20));
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/disconnect")).await.expect(200);
    let id = send(&world, &body(&session, "image", &url)).await.expect(202).text("message_id");
    assert_eq!(spooled(&world).len(), 1);
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/device")).await.expect(200);
    let message = world.message_where(&session, &id, |message| message["status"] == "failed").await;
    assert!(message["error"].is_string(), "{message}");
    spool_is_empty(&world).await;
    send(&world, &body(&session, "image", &url)).await.error(409, "session_state");
    assert_eq!(host.asked("/a.png"), 1, "nothing is fetched for a session that cannot send");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_to_nobody_fails_and_is_removed() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[]).await;
    let url = host.file("/a.png", &picture(ImageFormat::Png, 20, 20));
    let mut request = body(&session, "image", &url);
    request["to"] = json!("15559999999");
    send(&world, &request).await.error(422, "rejected");
    spool_is_empty(&world).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_wait_have_bounded_room() {
    let host = Host::start().await;
    let settings = [("ROOKERY_MEDIA__MAX_BYTES", "20000"), ("ROOKERY_MEDIA__SPOOL_MAX_BYTES", "40000")];
    let (world, session) = linked_with(&host, &settings).await;
    let url = host.file("/a.bin", &vec![7; 19_000]);
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/disconnect")).await.expect(200);
    // A file needs room for what came in and, for a moment, for what it is sealed as.
    send(&world, &body(&session, "document", &url)).await.expect(202);
    let refused = send(&world, &body(&session, "document", &url)).await;
    refused.error(429, "too_many_requests").says_when_to_retry();
    assert_eq!(world.client.history(&session).await.len(), 1, "what was refused is nowhere");
    world.client.post(&format!("/api/whatsapp/sessions/{session}/connect"), &json!({})).await.expect(200);
    spool_is_empty(&world).await;
    sent(send(&world, &body(&session, "document", &url)).await);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_pictures_at_once_arrive_and_take_little_memory() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[]).await;
    let file = picture(ImageFormat::Png, 600, 600);
    assert!(file.len() > 1 << 20);
    let url = host.file("/large.png", &file);
    sent(send(&world, &body(&session, "image", &url)).await);
    let memory = async || {
        let page = world.client.get("/metrics").await.expect(200);
        let text = String::from_utf8(page.bytes).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        line.expect("on the page").parse::<f64>().unwrap()
    };
    let before = memory().await;
    let sends = (0..48).map(|number| {
        let (world, session, url) = (&world, &session, &url);
        async move {
            world.phone(&format!("1555000{:04}", 4000 + number % 16));
            let mut request = body(session, "image", url);
            request["to"] = json!(format!("1555000{:04}", 4000 + number % 16));
            sent(send(world, &request).await)
        }
    });
    let mut most = before;
    let watching = async {
        loop {
            most = most.max(memory().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let all = futures_util::StreamExt::collect::<Vec<_>>(futures_util::StreamExt::buffer_unordered(
        futures_util::stream::iter(sends),
        16,
    ));
    tokio::select! {
        ids = all => assert_eq!(ids.len(), 48),
        () = watching => {}
    }
    let more = (most - before) / f64::from(1 << 20);
    assert!(more < 64.0, "{more:.1} MiB more");
    world.finish();
}
