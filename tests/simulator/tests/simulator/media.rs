//! The media host: ranges, uploads that break off, what has expired and what phones upload again.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wacore::types::events::Event;
use waproto::whatsapp as wa;
use whatsapp_rust::{MediaRetryResult, MediaReuploadRequest};
use whatsapp_simulator::{Content, Handle, MediumKind, MessageKind, SendOptions};

use crate::client::{DEADLINE, TestClient, assert_clean, eventually, jid, simulator};

/// A request to the media host, by hand; the status and the body of the answer.
async fn request(simulator: &Handle, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut socket = TcpStream::connect(simulator.admin_url().trim_start_matches("http://")).await.unwrap();
    let head = format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), answer[end + 4..].to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_a_medium_is_served() {
    let simulator = simulator().await;
    let data: Vec<u8> = (0..=255).collect();
    let (status, _, _) = request(&simulator, "POST /mms/image/plain-name HTTP/1.1", &data).await;
    assert_eq!(status, 200);
    let get = async |range: &str| {
        let (status, head, body) =
            request(&simulator, &format!("GET /v/sim/plain-name?ccb=11-4 HTTP/1.1\r\nrange: {range}"), &[]).await;
        let shown = head.lines().find_map(|l| l.strip_prefix("content-range: ")).unwrap_or_default().to_string();
        (status, shown, body)
    };
    assert_eq!(get("bytes=10-19").await, (206, "bytes 10-19/256".into(), data[10..20].to_vec()));
    assert_eq!(get("bytes=250-").await, (206, "bytes 250-255/256".into(), data[250..].to_vec()));
    assert_eq!(get("bytes=-6").await, (206, "bytes 250-255/256".into(), data[250..].to_vec()));
    assert_eq!(get("bytes=256-").await, (416, "bytes */256".into(), vec![]));
    assert_eq!(get("lines=1-2").await, (200, String::new(), data.clone()));
    let (status, _, body) = request(&simulator, "HEAD /v/sim/plain-name HTTP/1.1", &[]).await;
    assert_eq!((status, body.len()), (200, 0));
    simulator.faults().expire_media(None);
    assert_eq!(get("bytes=0-1").await.0, 410);
    let wrong = request(&simulator, "POST /mms/image/x?auth=old HTTP/1.1", &data).await;
    assert_eq!(wrong.0, 401);
    let name = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let lies = request(&simulator, &format!("POST /mms/image/{name} HTTP/1.1"), &data).await;
    assert_eq!(lies.0, 400, "the name is the hash of something else");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_broke_off_goes_on() {
    let simulator = simulator().await;
    let data = vec![5; 100_000];
    {
        let mut socket = TcpStream::connect(simulator.admin_url().trim_start_matches("http://")).await.unwrap();
        let head = format!("POST /mms/video/large HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", data.len());
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&data[..60_000]).await.unwrap();
        socket.flush().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    eventually("broken off", || simulator.stats().count("upload broken off") == 1).await;
    let progress = async || {
        let (_, _, body) = request(&simulator, "POST /mms/video/large?resume=1 HTTP/1.1", &[]).await;
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()
    };
    let got: usize = progress().await["resume"].as_str().unwrap().parse().unwrap();
    assert!(got > 0 && got <= 60_000, "{got}");
    assert_eq!(request(&simulator, "GET /v/sim/large HTTP/1.1", &[]).await.0, 404, "not yet");
    let rest = format!("POST /mms/video/large?file_offset={got} HTTP/1.1");
    assert_eq!(request(&simulator, &rest, &data[got..]).await.0, 200);
    assert_eq!(request(&simulator, "GET /v/sim/large HTTP/1.1", &[]).await.2, data);
    assert_eq!(progress().await["resume"], "complete");
}

/// Waits for a message from which something can be taken, with its id.
async fn receive<T>(client: &TestClient, what: &str, take: impl Fn(&wa::Message) -> Option<T>) -> (String, T) {
    client
        .wait(what, |e| match e {
            Event::Messages(batch) => batch.iter().find_map(|m| Some((m.info.id.clone(), take(&m.message)?))),
            _ => None,
        })
        .await
}

fn medium(kind: MediumKind, data: &Bytes, mimetype: &str) -> Content {
    let (data, mimetype) = (data.clone(), mimetype.to_string());
    Content::Medium { kind, data, mimetype, caption: None, view_once: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_medium_arrives() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15564001").await;
    let bob = simulator.phone("15564002");
    let data = Bytes::from(vec![3; 70_000]);
    let options = SendOptions { thumbnail: Some(Bytes::from_static(b"small")), ..Default::default() };
    bob.send_with("15564001", &medium(MediumKind::Video, &data, "video/mp4"), &options).unwrap();
    let (_, video) = receive(&alice, "a film", |m| m.video_message.as_option().cloned()).await;
    assert_eq!((video.jpeg_thumbnail.as_deref(), video.gif_playback), (Some(&b"small"[..]), Some(false)));
    assert_eq!(alice.client.download(&video).await.unwrap(), data);
    bob.send("15564001", &medium(MediumKind::Gif, &data, "video/mp4")).unwrap();
    let (_, gif) = receive(&alice, "a gif", |m| m.video_message.as_option().cloned()).await;
    assert_eq!(gif.gif_playback, Some(true));
    bob.send("15564001", &medium(MediumKind::Voice, &data, "audio/ogg; codecs=opus")).unwrap();
    let (id, voice) = receive(&alice, "a voice note", |m| m.audio_message.as_option().cloned()).await;
    assert_eq!((voice.ptt, alice.client.download(&voice).await.unwrap()), (Some(true), data.to_vec()));
    let phone = simulator.phone("15564001");
    phone.wait_for(DEADLINE, |m| m.id == id).await.unwrap();
    phone.mark_played(&id).unwrap();
    eventually("played", || bob.receipts(&id).iter().any(|r| r.kind == whatsapp_simulator::ReceiptKind::Played)).await;
    bob.send("15564001", &medium(MediumKind::Sticker, &data, "image/webp")).unwrap();
    let (_, sticker) = receive(&alice, "a sticker", |m| m.sticker_message.as_option().cloned()).await;
    assert_eq!(alice.client.download(&sticker).await.unwrap(), data);
    let place = Content::Location { latitude_micro: 52_520_000, longitude_micro: -1_500_000, name: "here".into() };
    bob.send("15564001", &place).unwrap();
    let (_, place) = receive(&alice, "a place", |m| m.location_message.as_option().cloned()).await;
    assert_eq!((place.degrees_latitude, place.degrees_longitude), (Some(52.52), Some(-1.5)));
    bob.send("15564001", &Content::Contact { name: "Eve".into(), number: "15564003".into() }).unwrap();
    let (_, card) = receive(&alice, "a card", |m| m.contact_message.as_option().cloned()).await;
    assert!(card.vcard.unwrap().contains("waid=15564003"));
    for kind in [MessageKind::Video, MessageKind::Location, MessageKind::Contact, MessageKind::Sticker] {
        phone.wait_for(DEADLINE, |m| m.kind == kind).await.unwrap();
    }
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_uploads_again_what_has_expired() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15564004").await;
    let (phone, bob) = (simulator.phone("15564004"), simulator.phone("15564005"));
    let data = Bytes::from(vec![8; 20_000]);
    bob.send("15564004", &medium(MediumKind::Image, &data, "image/jpeg")).unwrap();
    let (id, mut image) = receive(&alice, "an image", |m| m.image_message.as_option().cloned()).await;
    phone.wait_for(DEADLINE, |m| m.id == id).await.unwrap();
    assert_eq!(simulator.faults().expire_media(image.direct_path.as_deref()), 1);
    assert!(alice.client.download(&image).await.is_err(), "410");
    let key = image.media_key.clone().unwrap();
    let ask = async |msg_id: &str, media_key: &[u8]| {
        let chat = jid("15564005");
        let request = MediaReuploadRequest { msg_id, chat_jid: &chat, media_key, is_from_me: false, participant: None };
        alice.client.media_reupload().request(&request).await.unwrap()
    };
    let MediaRetryResult::Success { direct_path } = ask(&id, &key).await else { panic!("not uploaded again") };
    (image.direct_path, image.url) = (Some(direct_path), None);
    assert_eq!(alice.client.download(&image).await.unwrap(), data);
    assert!(matches!(ask("UNKNOWN", &key).await, MediaRetryResult::NotFound));
    assert_clean(&simulator);
}
