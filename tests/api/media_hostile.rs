//! Files that are not what they should be, and hosts that mean no good.

use crate::{
    client::{answer, raw},
    hosts::{Host, Reply, bomb, film, picture, voice},
    media::{MEDIA, body, form, linked_with},
    node::eventually,
    world::{FRIEND, World, sent},
};
use image::ImageFormat;
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

static LARGE: [u8; 100_001] = [7; 100_001];
static HUGE: [u8; 1_000_000] = [7; 1_000_000];

/// Nothing was accepted, and the gateway is well.
async fn unharmed(world: &World, session: &str) {
    assert!(world.client.history(session).await.is_empty(), "nothing was accepted");
    let id = world.send(session, FRIEND, "still here").await;
    world.arrived(FRIEND, &id).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_wrong_is_named() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[]).await;
    let url = host.file("/a.png", &picture(ImageFormat::Png, 8, 8));
    let good = body(&session, "image", &url);
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    for field in ["session_id", "to", "type", "media_url"] {
        for value in [json!(null), json!(""), json!(7), json!(["x"]), json!("\u{0}")] {
            world.client.post(MEDIA, &with(field, value)).await.names(field);
        }
        let mut missing = good.clone();
        missing.as_object_mut().unwrap().remove(field);
        world.client.post(MEDIA, &missing).await.names(field);
    }
    for kind in ["Image", "sticker", "text", "image ", "gif"] {
        world.client.post(MEDIA, &with("type", json!(kind))).await.names("type");
    }
    for to in ["nobody", "12", "1@example.org", "+"] {
        world.client.post(MEDIA, &with("to", json!(to))).await.names("to");
    }
    world.client.post(MEDIA, &with("caption", json!("ü".repeat(1025)))).await.names("caption");
    world.client.post(MEDIA, &with("caption", json!(5))).await.names("caption");
    world.client.post(MEDIA, &with("file_name", json!("x".repeat(256)))).await.names("file_name");
    let mut sound = body(&session, "audio", &host.file("/a.ogg", &voice(1)));
    sound["caption"] = json!("not with a sound");
    world.client.post(MEDIA, &sound).await.names("caption");
    let none = "01900000-0000-7000-8000-000000000000";
    world.client.post(MEDIA, &with("session_id", json!(none))).await.error(404, "session_not_found");
    world.stranger().await.post(MEDIA, &good).await.error(404, "session_not_found");
    answer(world.client.without_token(Method::POST, MEDIA).json(&good)).await.expect(401);
    answer(world.client.request(Method::POST, MEDIA).body("{")).await.error(415, "unsupported_media_type");
    let json = |text: &'static str| {
        world.client.request(Method::POST, MEDIA).header("content-type", "application/json").body(text)
    };
    answer(json("{")).await.error(400, "malformed_request");
    answer(json("[]")).await.error(400, "malformed_request");
    world.client.post(&format!("{MEDIA}?wait_ms=x"), &good).await.names("wait_ms");
    world.client.get(MEDIA).await.error(405, "method_not_allowed");
    assert_eq!(
        (host.asked("/a.png"), host.asked("/a.ogg")),
        (0, 0),
        "nothing was fetched for a request with a mistake"
    );
    // The longest caption passes.
    sent(world.client.post(MEDIA, &with("caption", json!("ü".repeat(1024)))).await);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_url_leads_into_the_operators_network() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[]).await;
    // The gateway itself is on this machine as well.
    let port = world.node.address().rsplit(':').next().unwrap().to_owned();
    let mut urls: Vec<String> = [
        "127.0.0.1",
        "127.1",
        "localhost",
        "LOCALHOST.",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "127.0.0.1.",
        "\u{2460}\u{2461}\u{2466}.0.0.1",
    ]
    .iter()
    .map(|name| format!("http://{name}:{port}/api/health"))
    .collect();
    urls.extend(
        [
            "http://169.254.169.254/latest/meta-data/",
            "http://10.0.0.1/",
            "http://172.16.0.1/",
            "http://192.168.0.1/",
            "http://100.64.0.1/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://[fe80::1]/",
            "http://[fd00::1]/",
            "http://[ff02::1]/",
            "https://127.0.0.1/",
            "file:///etc/passwd",
            "ftp://example.org/x",
            "gopher://127.0.0.1/",
            "http://",
            "//127.0.0.1/",
            "/etc/passwd",
            "example.org",
            "http://user:secret@8.8.8.8/",
            "javascript:1",
            "http://exa mple.org/",
            "http://[::1",
            "http://127.0.0.1:99999/",
        ]
        .map(str::to_owned),
    );
    urls.push(format!("http://127.0.0.1:{}/", host.port() ^ 1));
    urls.push(format!("http://user@{}/a", host.name()));
    urls.push(format!("http://{}/{}", host.name(), "x".repeat(4096)));
    for url in &urls {
        world.client.post(MEDIA, &body(&session, "document", url)).await.names("media_url");
    }
    // The same behind a redirect of a host that is allowed.
    for (number, url) in urls.iter().filter(|url| url.len() < 200).enumerate() {
        let first = host.put(&format!("/r{number}"), Reply::Redirect(url.clone()));
        // A URL without a scheme is one of the host itself, which has none there.
        let answer = world.client.post(MEDIA, &body(&session, "document", &first)).await;
        assert_eq!(answer.status, 422, "{url}: {}", answer.body);
        answer.names("media_url");
    }
    unharmed(&world, &session).await;
}

/// Names that resolve to addresses of this machine or its network; `localhost` is one wherever there is no other.
fn names_of_this_machine() -> Vec<String> {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let private = lines.filter(|line| {
        let address = line.split_whitespace().next().unwrap_or_default();
        ["127.", "10.", "192.168.", "172.17.", "172.18.", "::1"].iter().any(|start| address.starts_with(start))
    });
    let names = private.flat_map(|line| line.split_whitespace().skip(1)).chain(["localhost"]);
    names.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_resolve_into_the_operators_network_are_refused() {
    let names = names_of_this_machine();
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[]).await;
    let port = world.node.address().rsplit(':').next().unwrap().to_owned();
    for (number, name) in names.iter().enumerate() {
        let url = format!("http://{name}:{port}/api/health");
        let refused = world.client.post(MEDIA, &body(&session, "document", &url)).await.names("media_url");
        let why = refused.body["errors"]["media_url"][0].as_str().unwrap();
        assert!(why.contains("private"), "{name}: {why}");
        let around = host.put(&format!("/{number}"), Reply::Redirect(url));
        world.client.post(MEDIA, &body(&session, "document", &around)).await.names("media_url");
    }
    unharmed(&world, &session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_redirects_are_followed_and_no_more() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[]).await;
    host.file("/end", b"here");
    host.put("/r1", Reply::Redirect("/end".into()));
    host.put("/r2", Reply::Redirect(format!("http://{}/r1", host.name())));
    let three = host.put("/r3", Reply::Redirect("//".to_owned() + &host.name() + "/r2"));
    sent(world.client.post(MEDIA, &body(&session, "document", &three)).await);
    let four = host.put("/r4", Reply::Redirect("/r3".into()));
    world.client.post(MEDIA, &body(&session, "document", &four)).await.names("media_url");
    let circle = host.put("/circle", Reply::Redirect("/circle".into()));
    world.client.post(MEDIA, &body(&session, "document", &circle)).await.names("media_url");
    let nowhere = host.put("/nowhere", Reply::Raw(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_vec()));
    world.client.post(MEDIA, &body(&session, "document", &nowhere)).await.names("media_url");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_fail_are_told_from_urls_that_are_wrong() {
    let host = Host::start().await;
    let settings = [("ROOKERY_MEDIA__TRANSFER_TIMEOUT_MS", "1500"), ("ROOKERY_MEDIA__MAX_BYTES", "100000")];
    let (world, session) = linked_with(&host, &settings).await;
    let raw = |text: &str| Reply::Raw(text.as_bytes().to_vec());
    let failing = [
        ("500", Reply::Status(500)),
        ("503", Reply::Status(503)),
        ("429", Reply::Status(429)),
        ("hang", Reply::Hang),
        ("hang-inside", Reply::HangInside),
        ("short", raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort")),
        ("half-a-chunk", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf")),
        ("garbage", raw("\x00\x01\x02 this is no HTTP")),
        ("nothing", raw("")),
        ("head-without-end", raw(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000)))),
        ("many-headers", raw(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(1000)))),
        ("two-lengths", raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx")),
    ];
    for (name, reply) in failing {
        let url = host.put(&format!("/{name}"), reply);
        let started = Instant::now();
        let answer = world.client.post(MEDIA, &body(&session, "document", &url)).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (502, &json!("media_fetch_failed")),
            "{name}: {}",
            answer.body
        );
        assert!(started.elapsed() < Duration::from_secs(10), "{name} took {:?}", started.elapsed());
    }
    let wrong = [
        ("404", Reply::Status(404)),
        ("401", Reply::Status(401)),
        ("204", Reply::Status(204)),
        ("206", Reply::Status(206)),
        ("304", Reply::Status(304)),
        ("endless", Reply::Endless),
        ("too-long", raw("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx")),
        ("empty", Reply::File("text/plain", vec![])),
        ("compressed", raw("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nxyz")),
    ];
    for (name, reply) in wrong {
        let url = host.put(&format!("/{name}"), reply);
        let answer = world.client.post(MEDIA, &body(&session, "document", &url)).await;
        assert_eq!(answer.status, 422, "{name}: {}", answer.body);
        answer.names("media_url");
    }
    unharmed(&world, &session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_there_is_502() {
    let gone = Host::start().await;
    let (world, session) = linked_with(&gone, &[]).await;
    let url = gone.file("/a", b"x");
    let address = gone.name();
    drop(gone);
    // Until the port is free.
    while tokio::net::TcpStream::connect(&address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    world.client.post(MEDIA, &body(&session, "document", &url)).await.error(502, "media_fetch_failed");
    let unknown = "http://no-such-host.invalid/x";
    world.client.post(MEDIA, &body(&session, "document", unknown)).await.error(502, "media_fetch_failed");
    unharmed(&world, &session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_does_not_fit_or_is_damaged_is_refused() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[]).await;
    let png = picture(ImageFormat::Png, 64, 64);
    let pdf = b"%PDF-1.7 a document".to_vec();
    for (kind, file) in [
        ("image", pdf.clone()),
        ("image", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec()),
        ("image", b"just text".to_vec()),
        ("image", film()),
        ("video", png.clone()),
        ("video", voice(1)),
        ("audio", film()),
        ("audio", pdf),
        ("audio", b"\0".to_vec()),
    ] {
        // Neither the name nor the type that the host gives makes a difference.
        let url = host.put("/file.png", Reply::File("image/png", file));
        world.client.post(MEDIA, &body(&session, kind, &url)).await.names("type");
    }
    let mut damaged = png.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 40].fill(0);
    for (name, file) in [
        ("cut PNG", png[..png.len() / 2].to_vec()),
        ("cut head", png[..20].to_vec()),
        ("damaged PNG", damaged),
        ("cut JPEG", picture(ImageFormat::Jpeg, 64, 64)[..30].to_vec()),
        ("JPEG of nothing", [&[0xff, 0xd8, 0xff, 0xe0][..], &[0; 100]].concat()),
        ("bomb", bomb(60_000, 60_000)),
        ("wide bomb", bomb(2_000_000_000, 1)),
        ("large bomb", bomb(19_000, 19_000)),
        ("no pixels", bomb(0, 0)),
    ] {
        let url = host.file("/broken", &file);
        let answer = world.client.post(MEDIA, &body(&session, "image", &url)).await;
        assert_eq!(answer.status, 422, "{name}: {}", answer.body);
        answer.names("media_url");
    }
    for url in ["data:", "data:image/png;base64,", "data:image/png;base64,%%%", "data:image/png;base64,AAA", "data:x"] {
        world.client.post(MEDIA, &body(&session, "document", url)).await.names("media_url");
    }
    unharmed(&world, &session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_and_oversized_uploads_are_refused() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[("ROOKERY_MEDIA__MAX_BYTES", "100000")]).await;
    let post = |kind: &str, body: Vec<u8>| {
        answer(world.client.request(Method::POST, MEDIA).header("content-type", kind).body(body))
    };
    let fields: [(&str, Option<&str>, &[u8]); 3] =
        [("session_id", None, session.as_bytes()), ("to", None, FRIEND.as_bytes()), ("type", None, b"document")];
    let with = |more: &[(&'static str, Option<&'static str>, &'static [u8])]| {
        let mut parts: Vec<(&str, Option<&str>, &[u8])> = fields.to_vec();
        parts.extend(more);
        form(&parts)
    };
    for large in [&LARGE[..], &HUGE] {
        let (kind, body) = with(&[("file", Some("a"), large)]);
        post(&kind, body).await.error(413, "payload_too_large").naming("file");
    }
    let (kind, body) = with(&[("caption", None, &HUGE[..20_000]), ("file", Some("a"), b"x")]);
    post(&kind, body).await.error(413, "payload_too_large").naming("caption");
    let (kind, body) = with(&[("media_url", None, b"https://example.org/"), ("file", Some("a"), b"x")]);
    post(&kind, body).await.names("media_url");
    let (kind, body) = with(&[("media_url", None, b"https://example.org/"), ("caption", None, b"\xff")]);
    post(&kind, body).await.names("media_url").names("file").names("caption");
    let (kind, body) = with(&[]);
    post(&kind, body).await.names("file");
    let (kind, body) = with(&[("file", Some("a"), b"")]);
    post(&kind, body).await.names("file");
    let (kind, body) = with(&[("file", Some("a"), b"x"), ("file", Some("b"), b"y")]);
    post(&kind, body).await.names("file");
    let (kind, body) = with(&[("to", None, b"1555"), ("file", Some("a"), b"x")]);
    post(&kind, body).await.names("to");
    let (kind, body) = with(&[("caption", None, b"\xff\xfe"), ("file", Some("a"), b"x")]);
    post(&kind, body).await.names("caption");
    let (kind, body) = form(&[("to", None, b"\xff"), ("file", Some("a"), b"x")]);
    let refused = post(&kind, body).await.names("to").names("session_id").names("type");
    assert_eq!(refused.body["errors"]["to"], json!(["must be UTF-8"]));
    let (kind, body) = with(&[("x", None, b"".as_slice()); 20]);
    post(&kind, body).await.error(400, "malformed_request");
    let (kind, body) = with(&[("file", Some("a"), b"whole")]);
    post("multipart/form-data", body.clone()).await.error(400, "malformed_request");
    post("multipart/mixed; boundary=cut", body.clone()).await.error(415, "unsupported_media_type");
    post("multipart/form-data; boundary=other", body.clone()).await.error(400, "malformed_request");
    post(&kind, body[..body.len() - 12].to_vec()).await.error(400, "malformed_request");
    post(&kind, b"no multipart at all".to_vec()).await.error(400, "malformed_request");
    post(&kind, vec![]).await.error(400, "malformed_request");

    // A stranger's upload is not even read.
    let head = format!(
        "POST {MEDIA} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: 90000\r\n\r\n"
    );
    raw(world.node.address(), head.as_bytes()).await.expect(401);
    unharmed(&world, &session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stops_is_408() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[("ROOKERY_MEDIA__TRANSFER_TIMEOUT_MS", "500")]).await;
    let head = format!(
        "POST {MEDIA} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Content-Type: multipart/form-data; boundary=cut\r\nContent-Length: 90000\r\n\r\n\
         --cut\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nbegins",
        world.client.token()
    );
    raw(world.node.address(), head.as_bytes()).await.error(408, "request_timeout");
    let left = world.node.data_dir().join("media/spool").read_dir().unwrap().count();
    assert_eq!(left, 0, "nothing is left of it");
    unharmed(&world, &session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_files_of_one_user_wait_or_are_refused_and_others_go_on() {
    let host = Host::start().await;
    let (world, session) = linked_with(&host, &[("ROOKERY_MEDIA__CONCURRENT", "4")]).await;
    let stranger = world.stranger().await;
    let theirs =
        stranger.post("/api/whatsapp/sessions", &json!({"session_name": "x"})).await.expect(201).text("session_id");
    let waiting = async || {
        let now = stranger.get(&format!("/api/whatsapp/sessions/{theirs}/status")).await.expect(200).body;
        now["qr"].as_str().map(str::to_owned).ok_or(now.to_string())
    };
    let qr = eventually("a QR code", waiting).await;
    world.phone("15550003003").scan(&qr).unwrap();
    eventually("a linked session", async || {
        let now = stranger.get(&format!("/api/whatsapp/sessions/{theirs}/status")).await.expect(200).body;
        if now["status"] == "WORKING" { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    let hang = host.put("/hang", Reply::HangInside);
    let request = body(&session, "document", &hang);
    // Twice as many as may be taken in of one user.
    let hanging = futures_util::future::join_all((0..4).map(|_| world.client.post(MEDIA, &request)));
    let others = async {
        eventually("two are asked for", async || match host.asked("/hang") {
            2.. => Ok(()),
            fewer => Err(fewer.to_string()),
        })
        .await;
        let url = host.file("/a", b"x");
        let began = Instant::now();
        sent(stranger.post(MEDIA, &body(&theirs, "document", &url)).await);
        assert!(began.elapsed() < Duration::from_secs(5), "another user waited {:?}", began.elapsed());
        let (kind, upload) = form(&[("file", Some("a"), b"x")]);
        let upload = world.client.request(Method::POST, MEDIA).header("content-type", kind).body(upload);
        let fetch = body(&session, "document", &url);
        let (fetched, uploaded) = tokio::join!(world.client.post(MEDIA, &fetch), answer(upload));
        for refused in [fetched, uploaded] {
            refused.error(429, "too_many_requests").says_when_to_retry();
        }
        assert_eq!((host.asked("/hang"), host.asked("/a")), (2, 1));
        // Texts need no turn.
        world.send(&session, FRIEND, "past them").await;
    };
    let (hung, ()) = futures_util::future::join(hanging, others).await;
    let mut codes: Vec<_> = hung.into_iter().map(|answer| answer.text("code")).collect();
    codes.sort();
    assert_eq!(codes, ["media_fetch_failed", "media_fetch_failed", "too_many_requests", "too_many_requests"]);
    let url = host.file("/a", b"x");
    sent(world.client.post(MEDIA, &body(&session, "document", &url)).await);
    world.finish();
}
