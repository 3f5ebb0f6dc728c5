//! Health, readiness, reachability, request ids: what balancers and operators ask.

use crate::{
    client::answer,
    world::{OWNER, World},
};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_token_and_tells_what_is_running() {
    let world = World::start().await;
    for path in ["/api/health", "/api/health/live", "/api/health/ready"] {
        let health = answer(world.client.without_token(Method::GET, path)).await.expect(200);
        assert_eq!(health.header("content-type"), "application/json");
        assert_eq!(health.header("cache-control"), "no-store");
        let body = &health.body;
        assert_eq!((&body["status"], &body["service"]), (&json!("OK"), &json!("Rookery WhatsApp API")), "{path}");
        let time = body["timestamp"].as_str().unwrap();
        assert!(time.len() == "2025-08-19T11:46:21.638578Z".len() && time.ends_with('Z'), "{time}");
        assert_eq!(body["sandbox"], true, "a sandbox build says so");
        assert!(body["version"].is_string());
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_test_shows_details_to_the_administrator_only() {
    let world = World::start().await;
    let path = "/api/test-node-connection";
    for caller in [world.client.clone(), world.client.with_token("nobody")] {
        let probe = caller.get(path).await.expect(200).body;
        assert_eq!(probe["success"], true);
        assert!(probe["message"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(probe.as_object().unwrap().len(), 2, "no details: {probe}");
    }
    let anonymous = answer(world.client.without_token(Method::GET, path)).await.expect(200).body;
    assert_eq!(anonymous.as_object().unwrap().len(), 2, "no details: {anonymous}");
    let probe = world.admin().get(path).await.expect(200).body;
    assert_eq!(probe["nodes"][0]["node_id"], "node-1");
    assert_eq!(probe["nodes"][0]["reachable"], true);
    assert!(probe["nodes"][0]["latency_ms"].is_u64(), "{probe}");
    assert_eq!(probe["storage"]["reachable"], true);
    assert!(probe["storage"]["latency_ms"].is_u64() && probe["storage"]["engine"].is_string(), "{probe}");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_administrator_sees_what_the_node_owns() {
    let world = World::start().await;
    world.link(OWNER).await;
    let pairing = world.create().await;
    world.status_is(&pairing, "SCAN_QR_CODE").await;
    let cluster = world.admin().get("/api/cluster").await.expect(200).body;
    let expected = json!({
        "nodes": [{
            "node_id": "node-1", "state": "active", "version": env!("CARGO_PKG_VERSION"), "ring_share": 1.0,
            "sessions": 2, "sessions_by_status": {"WORKING": 1, "SCAN_QR_CODE": 1},
        }],
        "moves": [],
    });
    assert_eq!(cluster, expected);
    assert_eq!(world.client.get("/api/cluster").await.status, 401, "not for users");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_taken_over_or_made_and_stands_in_the_log() {
    let world = World::start().await;
    let with = |id: &str| answer(world.client.without_token(Method::GET, "/api/health").header("x-request-id", id));
    for id in ["a", "trace-1_2.3:4", &"x".repeat(128)] {
        assert_eq!(with(id).await.expect(200).header("x-request-id"), id);
        assert!(world.node.log().contains(id), "{id} is logged");
    }
    let mut made = vec![];
    for id in ["", "with space", "a\tb", "\"quoted\"", "a/b", "ä", &"x".repeat(129), "{\"a\":1}"] {
        let answer = with(id).await.expect(200);
        made.push(answer.header("x-request-id").to_owned());
    }
    made.push(answer(world.client.without_token(Method::GET, "/api/health")).await.header("x-request-id").to_owned());
    assert!(made.iter().all(|id| id.len() == 36), "{made:?}");
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 9, "each its own: {made:?}");
    // An error carries it in its body as well (`error` compares both).
    let missing = world.client.request(Method::GET, "/api/nowhere").header("x-request-id", "find-me");
    let missing = answer(missing).await.error(404, "not_found");
    assert_eq!(missing.body["request_id"], "find-me");
    world.finish();
}
