//! Each client with the gateway: the one end is driven by lines of JSON, the other by REST.

use crate::{
    node::eventually,
    peer::{self, Peer},
    tools::Kind,
    world::{OWNER, World},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use image::{ImageFormat, RgbImage};
use serde_json::json;
use std::io::Cursor;

const NUMBER: &str = "15550301001";

async fn converses_with_the_gateway(kind: Kind) {
    let Some(tool) = kind.ready().await else { return };
    let (mut world, session) = World::linked(&[]).await;
    let mut peer = Peer::linked(&tool, &world.simulator, NUMBER).await;

    let sent = world.send(&session, NUMBER, "from the gateway").await;
    assert_eq!(peer.has_text(OWNER, OWNER, "from the gateway").await, sent);
    world.message_where(&session, &sent, |m| m["status"] == "delivered").await;
    peer.read(&sent).await;
    world.message_where(&session, &sent, |m| m["status"] == "read").await;

    let received = peer.send_text(OWNER, "to the gateway").await;
    let message = world.message_where(&session, &received, |m| m["text"] == "to the gateway").await;
    assert_eq!((&message["from_me"], &message["type"]), (&json!(false), &json!("text")), "{message}");
    assert!(message["sender"].to_string().contains(NUMBER), "{message}");
    peer.has_receipt(&received, OWNER, "delivered").await;
    everything_acknowledged(&world).await;

    // What the client sends while the gateway is down waits for it, and the other way round.
    world.node.stop().await;
    let waiting = peer.send_text(OWNER, "while it was down").await;
    world.start_again().await;
    world.message_where(&session, &waiting, |m| m["text"] == "while it was down").await;
    everything_acknowledged(&world).await;
    peer.quit().await;
    let waiting = world.send(&session, NUMBER, "while the client was away").await;
    peer.log_in_again().await;
    assert_eq!(peer.has_text(OWNER, OWNER, "while the client was away").await, waiting);
    peer.finish();
    peer::finish(&world.simulator);
    world.finish();
}

async fn meets_the_gateway_in_a_group(kind: Kind) {
    let Some(tool) = kind.ready().await else { return };
    let (world, session) = World::linked(&[]).await;
    let mut peer = Peer::linked(&tool, &world.simulator, NUMBER).await;
    let group = peer.create_group("with a gateway", &[OWNER]).await;
    for round in 0..2 {
        let text = format!("from the client {round}");
        let received = peer.send_text(&group, &text).await;
        let message = world.message_where(&session, &received, |m| m["text"] == text.as_str()).await;
        assert_eq!((&message["chat"], &message["from_me"]), (&json!(group), &json!(false)), "{message}");
        assert!(message["sender"].to_string().contains(NUMBER), "{message}");
        peer.has_receipt(&received, OWNER, "delivered").await;
        everything_acknowledged(&world).await;

        let text = format!("from the gateway {round}");
        let sent = world.send(&session, &group, &text).await;
        assert_eq!(peer.has_text(&group, OWNER, &text).await, sent);
        peer.nothing_waits().await;
    }
    peer.finish();
    peer::finish(&world.simulator);
    world.finish();
}

/// An image each way, and a reaction to the gateway's.
async fn shows_the_gateway_images(kind: Kind) {
    let Some(tool) = kind.ready().await else { return };
    let (world, session) = World::linked(&[]).await;
    let mut peer = Peer::linked(&tool, &world.simulator, NUMBER).await;
    let mut image = Cursor::new(vec![]);
    RgbImage::from_fn(90, 60, |x, y| image::Rgb([x as u8, y as u8, 7])).write_to(&mut image, ImageFormat::Png).unwrap();
    let image = image.into_inner();

    let url = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&image));
    let body =
        json!({"session_id": session, "to": NUMBER, "type": "image", "media_url": url, "caption": "from the gateway"});
    let answer = world.client.post("/api/whatsapp/messages/media", &body).await;
    let sent = answer.expect(200).text("message_id");
    peer.has_image(&sent, &image, "from the gateway").await;
    world.message_where(&session, &sent, |m| m["status"] == "delivered").await;
    peer.react(OWNER, &sent, "❤").await;
    world.message_where(&session, &sent, |m| m["reactions"][0]["emoji"] == "❤").await;

    let received = peer.send_image(OWNER, &image, "to the gateway").await;
    let message = world.message_where(&session, &received, |m| m["caption"] == "to the gateway").await;
    assert_eq!((&message["type"], &message["media"]["size"]), (&json!("image"), &json!(image.len())), "{message}");
    let url = message["media"]["url"].as_str().expect("a file has a path");
    let file = world.client.get(url).await.expect(200);
    assert!(file.bytes == image, "{} bytes came", file.bytes.len());
    peer.has_receipt(&received, OWNER, "delivered").await;
    everything_acknowledged(&world).await;
    peer.finish();
    peer::finish(&world.simulator);
    world.finish();
}

/// Waits until the gateway's device has told WhatsApp that it has everything.
async fn everything_acknowledged(world: &World) {
    eventually("an empty queue of the gateway", async || {
        let devices = world.phone(OWNER).devices();
        let done = devices.iter().all(|device| device.queued == 0);
        done.then_some(()).ok_or_else(|| format!("{devices:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn baileys_converses_with_the_gateway() {
    converses_with_the_gateway(Kind::Baileys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatsmeow_converses_with_the_gateway() {
    converses_with_the_gateway(Kind::Whatsmeow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn baileys_meets_the_gateway_in_a_group() {
    meets_the_gateway_in_a_group(Kind::Baileys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatsmeow_meets_the_gateway_in_a_group() {
    meets_the_gateway_in_a_group(Kind::Whatsmeow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn baileys_and_the_gateway_show_each_other_images() {
    shows_the_gateway_images(Kind::Baileys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatsmeow_and_the_gateway_show_each_other_images() {
    shows_the_gateway_images(Kind::Whatsmeow).await;
}
