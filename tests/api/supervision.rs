//! A defect in one session is that session's affair.

use crate::{
    client::answer,
    world::{FRIEND, OWNER, World},
};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_one_session_touches_no_other() {
    let (world, broken) = World::linked(&[]).await;
    let healthy = world.link("15550003003").await;
    let before = world.status(&healthy).await;
    let epoch = world.status(&broken).await["epoch"].as_u64().unwrap();
    for round in 0..2 {
        let path = format!("/api/sandbox/sessions/{broken}/panic");
        answer(world.client.request(Method::POST, &path)).await.expect(202);
        // The other one goes on as if nothing had happened.
        let id = world.send(&healthy, FRIEND, &format!("unmoved {round}")).await;
        world.arrived(FRIEND, &id).await;
        assert_eq!(world.status(&healthy).await, before);
        // The broken one is taken over anew and comes back by itself.
        world
            .session_where(&broken, "back", |now| {
                now["status"] == "WORKING" && now["epoch"].as_u64().unwrap() > epoch + round
            })
            .await;
        let id = world.send(&broken, FRIEND, &format!("back {round}")).await;
        assert_eq!(world.arrived(FRIEND, &id).await.from, OWNER);
        let inbound = world.phone(FRIEND).send_text(OWNER, "and hears").unwrap();
        world.message_where(&broken, &inbound, |_| true).await;
    }
    let metrics = answer(world.client.without_token(Method::GET, "/metrics")).await.expect(200);
    let metrics = String::from_utf8(metrics.bytes).unwrap();
    assert!(metrics.contains("rookery_session_failures_total 2"), "{metrics}");
    assert!(metrics.contains("rookery_sessions{status=\"WORKING\"} 2"), "{metrics}");
    world.finish_after_panics();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_before_a_panic_is_sent_after_it() {
    let (world, session) = World::linked(&[]).await;
    world.send(&session, FRIEND, "first").await;
    world.simulator.faults().hold_acks(true);
    let id = world.client.send_waiting(&session, FRIEND, "accepted", Some(0)).await.expect(202).text("message_id");
    world.arrived(FRIEND, &id).await;
    let path = format!("/api/sandbox/sessions/{session}/panic");
    answer(world.client.request(Method::POST, &path)).await.expect(202);
    world.simulator.faults().hold_acks(false);
    world.message_where(&session, &id, |message| message["status"] == "delivered").await;
    assert_eq!(world.phone(FRIEND).inbox().len(), 2);
    // Only its owner may break it.
    let stranger = world.stranger().await;
    stranger.post(&path, &json!({})).await.error(404, "session_not_found");
    world.finish_after_panics();
}
