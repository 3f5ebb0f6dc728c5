//! `/metrics`: what is counted, under which names, for whom and where.

use crate::{
    client::{Client, answer},
    world::{FRIEND, OWNER, World},
};
use reqwest::Method;
use std::net::TcpListener;

async fn page(world: &World) -> String {
    let page = answer(world.client.without_token(Method::GET, "/metrics")).await.expect(200);
    assert!(page.header("content-type").starts_with("text/plain"));
    String::from_utf8(page.bytes).unwrap()
}

/// The value of a sample, whose labels stand in any order.
fn value(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let lines = page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let mut matching = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    matching.next().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_is_there_and_none_grows_with_sessions() {
    let (world, session) = World::linked(&[]).await;
    let id = world.send(&session, FRIEND, "counted").await;
    let inbound = world.phone(FRIEND).send_text(OWNER, "counted too").unwrap();
    world.message_where(&session, &inbound, |_| true).await;
    world.client.get("/api/nowhere/at/all").await.expect(404);
    let page = page(&world).await;
    let at_least_one = [
        ("rookery_http_requests_total", vec!["route=\"messages_text\"", "method=\"POST\"", "status=\"200\""]),
        ("rookery_http_requests_total", vec!["route=\"other\"", "status=\"404\""]),
        ("rookery_http_request_seconds_count", vec!["route=\"messages_text\""]),
        ("rookery_http_request_seconds_bucket", vec!["route=\"messages_text\"", "le=\"+Inf\""]),
        ("rookery_http_connections", vec![]),
        ("rookery_sessions", vec!["status=\"WORKING\""]),
        ("rookery_messages_total", vec!["direction=\"outbound\"", "kind=\"text\"", "outcome=\"sent\""]),
        ("rookery_messages_total", vec!["direction=\"inbound\"", "kind=\"text\"", "outcome=\"stored\""]),
        ("rookery_build_info", vec!["sandbox=\"true\"", "version="]),
        ("process_resident_memory_bytes", vec![]),
        ("process_open_fds", vec![]),
        ("process_threads", vec![]),
    ];
    for (name, labels) in at_least_one {
        assert!(value(&page, name, &labels).is_some_and(|value| value >= 1.0), "{name} {labels:?}\n{page}");
    }
    for name in ["rookery_outbox_messages", "rookery_outbox_oldest_seconds", "rookery_session_failures_total"] {
        assert_eq!(value(&page, name, &[]), Some(0.0), "{name}\n{page}");
    }
    assert!(value(&page, "rookery_reconnects_total", &[]).is_some(), "{page}");
    assert!(value(&page, "process_cpu_seconds_total", &[]).is_some_and(|value| value > 0.0), "{page}");
    assert!(page.lines().any(|line| line.starts_with("rookery_storage") && line.contains("_seconds_bucket")), "{page}");
    for secret in [session.as_str(), &id, &inbound, OWNER, FRIEND, world.client.token(), "counted"] {
        assert!(!page.contains(secret), "{secret} is in a label\n{page}");
    }
    let described = |name: &str| page.contains(&format!("# HELP {name} ")) && page.contains(&format!("# TYPE {name} "));
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(described(family) || described(name), "{name} has no help");
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_messages_and_lost_connections_are_counted() {
    let (world, session) = World::linked(&[]).await;
    world.client.delete(&format!("/api/whatsapp/sessions/{session}/disconnect")).await.expect(200);
    world.client.send(&session, FRIEND, "waits").await.expect(202);
    let stopped = page(&world).await;
    assert_eq!(value(&stopped, "rookery_outbox_messages", &[]), Some(1.0));
    assert!(value(&stopped, "rookery_outbox_oldest_seconds", &[]).is_some_and(|age| age > 0.0));
    assert_eq!(value(&stopped, "rookery_sessions", &["status=\"STOPPED\""]), Some(1.0));
    assert_eq!(value(&stopped, "rookery_sessions", &["status=\"WORKING\""]), Some(0.0));
    world.client.post(&format!("/api/whatsapp/sessions/{session}/connect"), &serde_json::json!({})).await.expect(200);
    world.history_where(&session, "sent", |rows| rows[0]["status"] != "pending").await;
    let before = value(&page(&world).await, "rookery_reconnects_total", &[]).unwrap();
    assert!(world.simulator.faults().drop_connection(OWNER, 1));
    world
        .session_where(&session, "connected once more", |now| {
            now["status"] == "WORKING" && now["history"][1]["status"] == "RECONNECTING"
        })
        .await;
    let connected = page(&world).await;
    assert_eq!(value(&connected, "rookery_outbox_messages", &[]), Some(0.0));
    assert_eq!(value(&connected, "rookery_outbox_oldest_seconds", &[]), Some(0.0));
    assert!(value(&connected, "rookery_reconnects_total", &[]).unwrap() > before, "{connected}");
    // Deleted sessions are no longer counted.
    world.client.delete(&format!("/api/whatsapp/sessions/{session}")).await.expect(200);
    let none = page(&world).await;
    let total: f64 = none
        .lines()
        .filter_map(|line| line.strip_prefix("rookery_sessions{")?.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(total.abs() < f64::EPSILON, "{none}");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_can_have_a_token_and_an_address_of_their_own() {
    // The port is free again when the gateway takes it; nothing else on this machine asks for it by number.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let settings = [("ROOKERY_METRICS__TOKEN", "metrics secret"), ("ROOKERY_METRICS__LISTEN", free.as_str())];
    let world = World::with(&settings).await;
    world.client.get("/metrics").await.error(404, "not_found");
    let metrics = Client::new(&format!("http://{free}"), "metrics secret");
    let page = metrics.get("/metrics").await.expect(200);
    assert!(String::from_utf8(page.bytes).unwrap().contains("rookery_http_requests_total"));
    metrics.get("/api/health").await.error(404, "not_found");
    for refused in
        [answer(metrics.without_token(Method::GET, "/metrics")).await, metrics.with_token("x").get("/metrics").await]
    {
        assert_eq!(refused.status, 401);
    }
    world.finish();

    let world = World::with(&[("ROOKERY_METRICS__TOKEN", "metrics secret")]).await;
    assert_eq!(answer(world.client.without_token(Method::GET, "/metrics")).await.status, 401);
    world.client.with_token("metrics secret").get("/metrics").await.expect(200);
    let world = World::with(&[("ROOKERY_METRICS__ENABLED", "false")]).await;
    world.client.get("/metrics").await.error(404, "not_found");
    world.finish();
}
