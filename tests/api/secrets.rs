//! What must never stand in a log.

use crate::world::{FRIEND, OWNER, World};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_log_holds_no_secret_and_no_text_of_a_message() {
    let (mut world, session) = World::linked(&[("ROOKERY_LOG__FILTER", "debug")]).await;
    let (out, inbound, faulty) = ("outbound-marker-93471", "inbound-marker-58216", "refused-marker-77120");
    let id = world.client.send_keyed(&session, FRIEND, out, "key-marker-4410").await.expect(200).text("message_id");
    world.arrived(FRIEND, &id).await;
    let received = world.phone(FRIEND).send_text(OWNER, inbound).unwrap();
    world.message_where(&session, &received, |_| true).await;
    // Errors, too, say nothing of what they refuse.
    world.client.send(&session, faulty, faulty).await.names("to");
    world
        .client
        .post("/api/whatsapp/messages/text", &json!({"session_id": faulty, "message": [faulty]}))
        .await
        .expect(422);
    world.client.with_token(faulty).get("/api/whatsapp/sessions").await.expect(401);
    world.client.get(&format!("/api/whatsapp/sessions/{session}/messages?cursor={faulty}&limit=1")).await.expect(422);
    // Messages that come again are where the WhatsApp library says most.
    for _ in 0..20 {
        world.phone(FRIEND).send_text(OWNER, inbound).unwrap();
    }
    world.simulator.faults().redeliver(OWNER, 1);
    world.simulator.faults().drop_connection(OWNER, 1);
    world.send(&session, FRIEND, out).await;
    let qr = {
        let waiting = world.create().await;
        world.status_is(&waiting, "SCAN_QR_CODE").await["qr"].as_str().unwrap().to_owned()
    };
    world.restart().await;
    world.status_is(&session, "WORKING").await;
    let log = world.node.log();
    assert!(log.contains("\"level\":\"INFO\"") && log.lines().count() > 20, "there is a log to look at");
    let secrets =
        [out, inbound, faulty, "key-marker-4410", world.client.token(), world.node.admin_key(), &qr, OWNER, FRIEND];
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
    // One JSON object a line, since it is no terminal.
    let lines = log.lines().filter(|line| !line.starts_with("rookery: sandbox build"));
    for line in lines {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line.is_object()), "{line}");
    }
    world.finish();
}
