//! How large pictures and films are shown and how long films and sounds play: as sent, and as received.

use crate::{
    client::answer,
    hosts::{film_of, picture, sound_of, turned, voice, wav_of},
    media::{MEDIA, form},
    world::{FRIEND, World, sent},
};
use image::ImageFormat;
use reqwest::Method;
use serde_json::{Value, json};

async fn upload(world: &World, session: &str, kind: &str, file: &[u8]) -> String {
    let (content_type, body) = form(&[
        ("session_id", None, session.as_bytes()),
        ("to", None, FRIEND.as_bytes()),
        ("type", None, kind.as_bytes()),
        ("file", Some("file"), file),
    ]);
    let request = world.client.request(Method::POST, MEDIA).header("content-type", content_type).body(body);
    sent(answer(request).await)
}

/// Width, height and seconds of a message's file.
async fn shape(world: &World, session: &str, id: &str) -> [Value; 3] {
    let message = world.message_where(session, id, |_| true).await;
    ["width", "height", "seconds"].map(|field| message["media"][field].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_have_their_size_and_duration() {
    let (world, session) = World::linked(&[]).await;
    // The recipient's side sees what stands in the message itself.
    let recipient = world.link(FRIEND).await;
    let jpeg = picture(ImageFormat::Jpeg, 300, 200);
    let none = json!(null);
    for (what, kind, file, expected) in [
        ("a picture", "image", picture(ImageFormat::Png, 30, 20), [json!(30), json!(20), none.clone()]),
        ("a picture as taken", "image", turned(&jpeg, 1), [json!(300), json!(200), none.clone()]),
        ("a picture to be turned", "image", turned(&jpeg, 6), [json!(200), json!(300), none.clone()]),
        ("a film", "video", film_of(640, 360, false, 13), [json!(640), json!(360), json!(13)]),
        ("a film to be turned", "video", film_of(640, 360, true, 13), [json!(360), json!(640), json!(13)]),
        ("a film that says nothing", "video", film_of(0, 0, false, 0), [none.clone(), none.clone(), none.clone()]),
        ("a voice note", "audio", voice(7), [none.clone(), none.clone(), json!(7)]),
        ("a sound", "audio", sound_of(9), [none.clone(), none.clone(), json!(9)]),
        ("a recording", "audio", wav_of(4), [none.clone(), none.clone(), json!(4)]),
        ("a picture as a document", "document", jpeg.clone(), [none.clone(), none.clone(), none.clone()]),
    ] {
        let id = upload(&world, &session, kind, &file).await;
        assert_eq!(shape(&world, &session, &id).await, expected, "{what}, sent");
        assert_eq!(shape(&world, &recipient, &id).await, expected, "{what}, received");
    }
    world.finish();
}
