//! `rookery demo`: once, for scripts, and until Ctrl-C.

use crate::{
    client::Client,
    node::{Reaped, eventually, rookery, run_to_end},
};
use rustix::process::Signal;
use serde_json::Value;
use std::{net::TcpListener, process::Stdio};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn once_shows_every_step_and_exits_with_0() {
    let mut demo = rookery(&[]);
    demo.args(["demo", "--once"]);
    let ended = run_to_end(demo).await;
    assert!(ended.status.success(), "{ended:?}");
    for step in 1..=6 {
        assert!(ended.stdout.contains(&format!("\n{step}. ")), "step {step}: {}", ended.stdout);
    }
    assert_eq!(ended.stdout.matches("   $ curl ").count(), 6, "{}", ended.stdout);
    assert_eq!(ended.stdout.matches("   ok: ").count(), 6, "{}", ended.stdout);
    assert_eq!(ended.stdout.matches(" ms)").count(), 6, "{}", ended.stdout);
    assert!(ended.stdout.contains("█") && ended.stdout.contains("All steps held."), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_cannot_go_on_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut demo = rookery(&[]);
    demo.args(["demo", "--once", "--listen", &address]);
    let ended = run_to_end(demo).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stays_up_with_an_echo_phone_until_it_is_interrupted() {
    for signal in [Signal::INT, Signal::TERM] {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("demo.json");
        let mut demo = rookery(&[]);
        demo.arg("demo").arg("--json").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let mut demo = Reaped(demo.spawn().unwrap());
        let written = eventually("the file", async || {
            assert!(demo.status().is_err(), "the demo ended");
            std::fs::read(&file).map_err(|error| error.to_string())
        })
        .await;
        let written: Value = serde_json::from_slice(&written).expect("whole, since it appears at once");
        let text = |field: &str| written[field].as_str().unwrap_or_else(|| panic!("{field}: {written}")).to_owned();
        let client = Client::new(&text("base_url"), &text("token"));
        let session = text("session_id");
        assert!(text("simulator_admin").starts_with("http://127.0.0.1:") && !text("user_id").is_empty());
        let phones = written["phones"].as_array().unwrap();
        assert!(phones.len() >= 3, "{written}");
        let admin = client.with_token(&text("admin_key"));
        admin.get(&format!("/api/api-tokens?user_id={}", text("user_id"))).await.expect(200);

        let echo = phones[2].as_str().unwrap();
        client.send(&session, echo, "anybody there?").await.expect(200);
        eventually("the echo", async || {
            let rows = client.history(&session).await;
            let answered = rows.iter().any(|row| row["text"] == "echo: anybody there?" && row["from_me"] == false);
            if answered { Ok(()) } else { Err(format!("{rows:?}")) }
        })
        .await;
        demo.signal(signal);
        let status = eventually("the end", async || demo.status()).await;
        assert!(status.success(), "{signal:?} ends it with {status}");
    }
}
