//! Files that WhatsApp has no longer: the phone sends them again, or they are gone.

use crate::{
    client::{Answer, answer},
    hosts::picture,
    media::{MEDIA, form},
    media_received::{receive, url_of},
    world::{FRIEND, OWNER, World, sent},
};
use image::ImageFormat;
use reqwest::Method;
use std::time::{Duration, Instant};
use whatsapp_simulator::{Content, MediumKind};

/// How often phones were asked for a file.
fn asked(world: &World) -> u64 {
    world.simulator.stats().count("phone: asked for a medium")
}

async fn upload(world: &World, session: &str, file: &[u8]) -> Answer {
    let (kind, body) = form(&[
        ("session_id", None, session.as_bytes()),
        ("to", None, FRIEND.as_bytes()),
        ("type", None, b"image"),
        ("file", Some("a.png"), file),
    ]);
    answer(world.client.request(Method::POST, MEDIA).header("content-type", kind).body(body)).await
}

/// The session on a gateway that has fetched nothing yet.
async fn afresh(world: &mut World, session: &str) {
    world.restart().await;
    world.status_is(session, "WORKING").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_has_expired_is_asked_for_from_the_phone() {
    let (mut world, session) = World::linked(&[]).await;
    let group = world.phone(FRIEND).create_group("group", &[OWNER]).unwrap();
    let data: Vec<_> = (20..23).map(|side| picture(ImageFormat::Png, side, 20)).collect();
    let medium = |data: &[u8]| Content::Medium {
        kind: MediumKind::Image,
        data: data.to_vec().into(),
        mimetype: "image/png".into(),
        caption: None,
        view_once: false,
    };
    let in_group = world.phone(FRIEND).send(&group, &medium(&data[1])).unwrap();
    let ids = [
        receive(&world, MediumKind::Image, "image/png", &data[0]),
        in_group,
        sent(upload(&world, &session, &data[2]).await),
    ];
    let mut urls = vec![];
    for id in &ids {
        let message = world.message_where(&session, id, |message| message["media"]["url"].is_string()).await;
        urls.push(message["media"]["url"].as_str().unwrap().to_owned());
        // The account's own phone, which is asked, has it as well.
        world.arrived(OWNER, id).await;
    }
    assert!(world.simulator.faults().expire_media(None) >= 3);
    for (number, (url, data)) in urls.iter().zip(&data).enumerate() {
        assert_eq!(world.client.get(url).await.expect(200).bytes, *data, "{url}");
        assert_eq!(asked(&world), number as u64 + 1, "the phone is asked once");
        world.client.get(url).await.expect(200);
        assert_eq!(asked(&world), number as u64 + 1, "what was fetched is at hand");
    }
    // Where it is now is remembered.
    afresh(&mut world, &session).await;
    for (url, data) in urls.iter().zip(&data) {
        assert_eq!(world.client.get(url).await.expect(200).bytes, *data);
    }
    assert_eq!(asked(&world), 3);
    // And it may expire there as well.
    world.simulator.faults().expire_media(None);
    afresh(&mut world, &session).await;
    assert_eq!(world.client.get(&urls[0]).await.expect(200).bytes, data[0]);
    assert_eq!(asked(&world), 4);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_phone_has_no_longer_is_gone() {
    let (world, session) = World::linked(&[]).await;
    let id = receive(&world, MediumKind::Document, "application/pdf", b"%PDF-1.7");
    let url = url_of(&world, &session, &id).await;
    world.arrived(OWNER, &id).await;
    assert_eq!(world.simulator.faults().forget_media(None), 1);
    for _ in 0..2 {
        world.client.get(&url).await.error(410, "media_gone");
    }
    assert_eq!(asked(&world), 2, "the phone may have it again");
    let message = world.message_where(&session, &id, |_| true).await;
    assert_eq!(message["type"], "document", "the message stays");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_does_not_answer_is_waited_for_so_long_and_not_longer() {
    let (world, session) = World::linked(&[("ROOKERY_MEDIA__PHONE_TIMEOUT_MS", "1000")]).await;
    let data = picture(ImageFormat::Png, 30, 30);
    let id = receive(&world, MediumKind::Image, "image/png", &data);
    let url = url_of(&world, &session, &id).await;
    world.arrived(OWNER, &id).await;
    world.simulator.faults().expire_media(None);
    world.simulator.faults().silent_about_media(true);
    let started = Instant::now();
    // All who ask meanwhile are told at the same time.
    for answer in futures_util::future::join_all((0..10).map(|_| world.client.get(&url))).await {
        answer.error(410, "media_gone");
    }
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    world.send(&session, FRIEND, "others do not wait for it").await;
    world.simulator.faults().silent_about_media(false);
    assert_eq!(world.client.get(&url).await.expect(200).bytes, data, "the phone is back");
    world.finish();
}
