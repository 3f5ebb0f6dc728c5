//! The gateway on a CQL server: what is most important of all other tests, what can be wrong with the server at the
//! start, and what happens while it does not answer.
//!
//! With `ROOKERY_TEST_STORAGE=cql` the other tests run on it as well, each in a keyspace of its own.

use crate::{
    node::{eventually, rookery, run_to_end},
    storage,
    world::{FRIEND, OWNER, World},
};
use rookery_cql_server::Cluster;
use serde_json::json;
use std::process::Command;
use tempfile::TempDir;
use tokio::task::block_in_place;

/// A linked session with these settings.
async fn linked(settings: &[(String, String)]) -> (World, String) {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    World::linked(&settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_on_a_cql_server_keeps_what_it_was_told() {
    let Some(settings) = block_in_place(storage::cql) else { return };
    let (mut world, session) = linked(&settings).await;
    let first = world.send(&session, FRIEND, "hello").await;
    world.arrived(FRIEND, &first).await;
    let inbound = world.phone(FRIEND).send_text(OWNER, "good day").unwrap();
    let both = |rows: &[serde_json::Value]| rows.len() == 2;
    world.history_where(&session, "both messages", both).await;
    world.all_delivered(&session).await;
    let before = world.everything().await;

    // Killed, the next process takes the session over as from an owner that died: it seals the keys.
    world.node.kill();
    world.start_again().await;
    world.status_is(&session, "WORKING").await;
    assert_eq!(world.client.history(&session).await.len(), 2);
    let second = world.send(&session, FRIEND, "after the crash").await;
    world.arrived(FRIEND, &second).await;
    let chat = format!("/api/whatsapp/sessions/{session}/messages?chat={FRIEND}@s.whatsapp.net&limit=1");
    let page = world.client.get(&chat).await.expect(200);
    assert_eq!(page.body["data"][0]["message_id"], json!(second));
    let cursor = page.body["next_cursor"].as_str().expect("there is more").to_owned();
    let page = world.client.get(&format!("{chat}&cursor={cursor}")).await.expect(200);
    assert_eq!(page.body["data"][0]["message_id"], json!(inbound));

    // Stopped in order, it gives the session up, and nothing of it is lost.
    world.restart().await;
    world.status_is(&session, "WORKING").await;
    assert_eq!(world.client.history(&session).await.len(), 3);
    assert_eq!(world.everything().await["tokens"], before["tokens"]);
    let path = format!("/api/whatsapp/sessions/{session}");
    world.client.delete(&path).await.expect(200);
    world.client.get(&format!("{path}/status")).await.expect(404);
    world.finish();
}

/// The binary with an empty data directory, which knows a simulator that is not there.
fn alone(settings: &[(&str, &str)]) -> (Command, TempDir) {
    let (mut command, folder) = (rookery(settings), TempDir::new().unwrap());
    command.env("ROOKERY_API__LISTEN", "127.0.0.1:0").env("ROOKERY_WHATSAPP__URL", "ws://127.0.0.1:9/ws/chat");
    command.env("ROOKERY_NODE__DATA_DIR", folder.path());
    (command, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_used_stops_the_start_with_one_line() {
    let nowhere = [("ROOKERY_STORAGE__ENGINE", "cql"), ("ROOKERY_CQL__CONTACT_POINTS", "[\"127.0.0.1:9\"]")];
    let keyspace = [("ROOKERY_STORAGE__ENGINE", "cql"), ("ROOKERY_CQL__KEYSPACE", "No-Such")];
    let login = [("ROOKERY_STORAGE__ENGINE", "cql"), ("ROOKERY_CQL__USER", "somebody")];
    let folder = TempDir::new().unwrap();
    let no_pem = folder.path().join("no-pem").display().to_string();
    std::fs::write(&no_pem, "a:c2VjcmV0").unwrap();
    let engine = ("ROOKERY_STORAGE__ENGINE", "cql");
    let authority = [engine, ("ROOKERY_CQL__CA_FILE", no_pem.as_str())];
    let absent = [engine, ("ROOKERY_CQL__CA_FILE", "/no/such/file")];
    let half = [engine, ("ROOKERY_CQL__CLIENT_KEY_FILE", no_pem.as_str())];
    let keys = [("ROOKERY_STORAGE__ENCRYPTION_KEYS_FILE", no_pem.as_str())];
    for (settings, told) in [
        (&authority[..], "TLS to the CQL server: the authorities"),
        (&absent[..], "cql.ca_file: /no/such/file cannot be read"),
        (&half[..], "cql.client_certificate_file, cql.client_key_file: need each other"),
        (&keys[..], "storage.encryption_keys_file"),
        (&nowhere[..], "no CQL server answers at 127.0.0.1:9"),
        (&keyspace[..], "`No-Such` can be no keyspace"),
        (&login[..], "cql.password_file"),
    ] {
        let (command, _folder) = alone(settings);
        let ended = run_to_end(command).await;
        assert!(!ended.status.success(), "{ended:?}");
        let line = ended.stderr.lines().find(|line| line.starts_with("rookery: ") && line.contains(told));
        assert!(line.is_some(), "{ended:?}");
    }
    let Some(settings) = block_in_place(storage::cql) else { return };
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let run = |arguments: &'static [&'static str], migrate| {
        let (mut command, folder) = alone(&settings);
        command.env("ROOKERY_CQL__MIGRATE", migrate).args(arguments);
        async move { (run_to_end(command).await, folder) }
    };
    let (ended, _) = run(&[], "false").await;
    assert!(ended.stderr.contains("does not exist; run `rookery migrate-schema`"), "{ended:?}");
    let (ended, _) = run(&["migrate-schema"], "false").await;
    assert!(ended.status.success() && ended.stdout.contains("2 migrations applied"), "{ended:?}");
    let (ended, _) = run(&["migrate-schema"], "false").await;
    assert!(ended.status.success() && ended.stdout.contains(" 0 migrations applied"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_does_not_answer_requests_are_told_to_come_again() {
    let Some(server) = block_in_place(|| Cluster::start(1)).unwrap() else { return };
    let (world, session) = linked(&storage::on(server.access())).await;
    let first = world.send(&session, FRIEND, "before").await;
    world.arrived(FRIEND, &first).await;
    world.all_delivered(&session).await;
    let messages = format!("/api/whatsapp/sessions/{session}/messages");
    let before = world.client.get(&messages).await.expect(200).body;

    server.pause(0).unwrap();
    // Neither an empty list nor a session that is not there.
    for path in ["/api/whatsapp/sessions", messages.as_str()] {
        world.client.get(path).await.expect(503).says_when_to_retry();
    }
    world.client.send(&session, FRIEND, "refused").await.expect(503).says_when_to_retry();

    server.resume(0).unwrap();
    let after = eventually("the database is back", async || {
        let answer = world.client.get(&messages).await;
        if answer.status == 200 { Ok(answer.body) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert_eq!(after["data"], before["data"], "what was refused was not accepted");
    let second = world.send(&session, FRIEND, "after").await;
    world.arrived(FRIEND, &second).await;
    assert_eq!(world.client.history(&session).await.len(), 2);
    world.finish();
}
