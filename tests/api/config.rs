//! What stops a start: one line that names it, and an exit code that is not 0.

use crate::{
    client::{Client, answer},
    node::{Ended, rookery, run_to_end},
    world::World,
};
use reqwest::Method;
use std::{net::TcpListener, path::Path, process::Command};
use tempfile::TempDir;

/// Settings with which a start succeeds but for what a test adds. Nothing listens at the endpoint.
const ENDPOINT: (&str, &str) = ("ROOKERY_WHATSAPP__URL", "ws://127.0.0.1:9/ws/chat");

fn command(folder: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = rookery(&[ENDPOINT, ("ROOKERY_API__LISTEN", "127.0.0.1:0"), ("ROOKERY_LOG__FILTER", "warn")]);
    command.env("ROOKERY_NODE__DATA_DIR", folder.join("data"));
    command.envs(settings.iter().copied());
    command
}

/// The start was refused with one line that holds all of `names`.
#[track_caller]
fn refused(ended: &Ended, names: &[&str]) {
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let lines: Vec<_> = ended.stderr.lines().filter(|line| !line.starts_with("rookery: sandbox build")).collect();
    assert_eq!(lines.len(), 1, "one line: {}", ended.stderr);
    for name in names {
        assert!(lines[0].contains(name), "{name} is not named: {}", lines[0]);
    }
    assert!(!ended.stdout.contains("listening on"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_are_named() {
    let folder = TempDir::new().unwrap();
    let cases: [(&str, &str, &[&str]); 30] = [
        ("ROOKERY_API__LISTENN", "127.0.0.1:0", &["listenn", "ROOKERY_API__LISTENN"]),
        ("ROOKERY_APII__LISTEN", "127.0.0.1:0", &["apii"]),
        ("ROOKERY_LISTEN", "127.0.0.1:0", &["ROOKERY_LISTEN"]),
        ("ROOKERY_API_LISTEN", "127.0.0.1:0", &["ROOKERY_API_LISTEN"]),
        ("ROOKERY_API__", "127.0.0.1:0", &["ROOKERY_API__"]),
        ("ROOKERY_API__LISTEN", "somewhere", &["api.listen", "ROOKERY_API__LISTEN"]),
        ("ROOKERY_API__LISTEN", "127.0.0.1:99999", &["api", "listen"]),
        ("ROOKERY_API__ADMIN_KEY", "too short", &["api.admin_key", "16"]),
        ("ROOKERY_API__MAX_BODY_BYTES", "0", &["api.max_body_bytes"]),
        ("ROOKERY_API__MAX_BODY_BYTES", "-1", &["max_body_bytes"]),
        ("ROOKERY_API__MAX_BODY_BYTES", "much", &["max_body_bytes"]),
        ("ROOKERY_API__MAX_CONNECTIONS", "0", &["api.max_connections"]),
        ("ROOKERY_API__MAX_REQUESTS", "0", &["api.max_requests"]),
        ("ROOKERY_API__READ_TIMEOUT_MS", "1", &["api.read_timeout_ms"]),
        ("ROOKERY_API__OPEN_TOKEN_MANAGEMENT", "perhaps", &["open_token_management"]),
        ("ROOKERY_METRICS__LISTEN", "nowhere", &["metrics.listen", "nowhere"]),
        ("ROOKERY_METRICS__ENABLED", "3", &["metrics", "enabled"]),
        ("ROOKERY_WHATSAPP__URL", "https://127.0.0.1/", &["whatsapp.url"]),
        ("ROOKERY_WHATSAPP__URL", "", &["whatsapp.url"]),
        ("ROOKERY_WHATSAPP__VERSION", "2.3000", &["whatsapp.version"]),
        ("ROOKERY_WHATSAPP__VERSION", "2.x.1", &["whatsapp.version"]),
        ("ROOKERY_WHATSAPP__PREKEYS", "4", &["whatsapp.prekeys"]),
        ("ROOKERY_WHATSAPP__PREKEYS", "813", &["whatsapp.prekeys"]),
        ("ROOKERY_SESSIONS__LOGINS_PER_SECOND", "0", &["sessions.logins_per_second"]),
        ("ROOKERY_SESSIONS__LOGIN_BURST", "0", &["sessions.login_burst"]),
        ("ROOKERY_SENDS__QUEUE_LIMIT", "0", &["sends.queue_limit"]),
        ("ROOKERY_SENDS__WAIT_MS", "60001", &["sends.wait_ms"]),
        ("ROOKERY_LOG__FORMAT", "xml", &["log", "format", "xml"]),
        ("ROOKERY_LOG__FILTER", "rookery=loud=very", &["log.filter"]),
        ("ROOKERY_NODE__ID", "a b", &["node", "id"]),
    ];
    for (name, value, names) in cases {
        refused(&run_to_end(command(folder.path(), &[(name, value)])).await, names);
    }
    assert!(!folder.path().join("data").exists(), "a start that is refused leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_are_no_text_stop_nothing_and_are_no_settings() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let folder = TempDir::new().unwrap();
    let no_text = OsStr::from_bytes(b"\xff\xfe");
    let mut other = command(folder.path(), &[("ROOKERY_API__LISTEN", "192.0.2.1:80")]);
    other.env("ANOTHER_PROGRAM", no_text).env(no_text, "x");
    refused(&run_to_end(other).await, &["api.listen"]);
    let mut setting = command(folder.path(), &[]);
    setting.env("ROOKERY_NODE__ID", no_text);
    refused(&run_to_end(setting).await, &["node", "id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_build_connects_to_this_machine_only() {
    let folder = TempDir::new().unwrap();
    for url in ["wss://web.whatsapp.com/ws/chat", "wss://10.0.0.1/ws/chat", "wss://localhost.example.org/ws"] {
        let ended = run_to_end(command(folder.path(), &[("ROOKERY_WHATSAPP__URL", url)])).await;
        refused(&ended, &["whatsapp.url", "sandbox"]);
    }
    // Which is its default, so that it does not start unless it is told where the simulator is.
    let mut unset = command(folder.path(), &[]);
    unset.env_remove("ROOKERY_WHATSAPP__URL");
    refused(&run_to_end(unset).await, &["whatsapp.url", "sandbox"]);
    let version = run_to_end({
        let mut command = rookery(&[]);
        command.arg("--version");
        command
    })
    .await;
    assert!(version.status.success() && version.stdout.contains("sandbox"), "{version:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_token_management_is_for_loopback_only() {
    let folder = TempDir::new().unwrap();
    let settings = [("ROOKERY_API__OPEN_TOKEN_MANAGEMENT", "true"), ("ROOKERY_API__LISTEN", "0.0.0.0:0")];
    refused(&run_to_end(command(folder.path(), &settings)).await, &["api.open_token_management", "loopback"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn used_ports_are_named() {
    let folder = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (setting, name) in [("ROOKERY_API__LISTEN", "api.listen"), ("ROOKERY_METRICS__LISTEN", "metrics.listen")] {
        let ended = run_to_end(command(folder.path(), &[(setting, &address)])).await;
        refused(&ended, &[name, &address]);
    }
    let foreign = run_to_end(command(folder.path(), &[("ROOKERY_API__LISTEN", "192.0.2.1:80")])).await;
    refused(&foreign, &["api.listen", "192.0.2.1:80"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_arguments_and_environment_are_laid_over_each_other() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("rookery.toml");
    let with_file = |content: &str| {
        std::fs::write(&file, content).unwrap();
        let mut command = command(folder.path(), &[]);
        command.arg("--config").arg(&file);
        command
    };
    refused(&run_to_end(with_file("[api]\nlistenn = \"x\"\n")).await, &["listenn"]);
    refused(&run_to_end(with_file("[api\n")).await, &["rookery.toml"]);
    refused(&run_to_end(with_file("[api]\nmax_body_bytes = \"many\"\n")).await, &["max_body_bytes"]);
    refused(&run_to_end(with_file("[sends]\nqueue_limit = 0\n")).await, &["sends.queue_limit"]);
    let mut missing = command(folder.path(), &[]);
    missing.args(["--config", "/nonexistent/rookery.toml"]);
    refused(&run_to_end(missing).await, &["/nonexistent/rookery.toml"]);
    // The environment is stronger than the file, an argument than both.
    let mut over = with_file("[api]\nlisten = \"192.0.2.1:1\"\n");
    over.env("ROOKERY_API__LISTEN", "192.0.2.1:2");
    refused(&run_to_end(over).await, &["192.0.2.1:2"]);
    let mut over = with_file("[api]\nlisten = \"192.0.2.1:1\"\n");
    over.env("ROOKERY_API__LISTEN", "192.0.2.1:2").args(["--listen", "192.0.2.1:3"]);
    refused(&run_to_end(over).await, &["192.0.2.1:3"]);
    let mut file_alone = with_file("[api]\nlisten = \"192.0.2.1:1\"\n");
    file_alone.env_remove("ROOKERY_API__LISTEN");
    refused(&run_to_end(file_alone).await, &["192.0.2.1:1"]);
    let mut run = command(folder.path(), &[]);
    run.args(["run", "--listen", "192.0.2.1:4"]);
    refused(&run_to_end(run).await, &["192.0.2.1:4"]);
    // An argument that would have no effect is refused.
    let mut misplaced = command(folder.path(), &[]);
    misplaced.args(["--listen", "192.0.2.1:5", "run"]);
    let ended = run_to_end(misplaced).await;
    assert!(!ended.status.success() && ended.stderr.contains("run"), "{ended:?}");
    let mut unknown = rookery(&[ENDPOINT]);
    unknown.arg("--nonsense");
    let ended = run_to_end(unknown).await;
    assert!(!ended.status.success() && ended.stderr.contains("--nonsense"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_defaults_are_printed_and_are_a_configuration() {
    let folder = TempDir::new().unwrap();
    let mut show = rookery(&[]);
    show.arg("config");
    let printed = run_to_end(show).await;
    assert!(printed.status.success());
    for section in ["[node]", "[api]", "[metrics]", "[whatsapp]", "[sessions]", "[sends]", "[log]"] {
        assert!(printed.stdout.contains(section), "{section}");
    }
    // Every key stands under a comment that explains it.
    let lines: Vec<_> = printed.stdout.lines().collect();
    for (place, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(" = ") && !line.starts_with('#')) {
        assert!(lines[place - 1].starts_with('#') || lines[place - 1].contains(" = "), "{line} has no comment");
    }
    let file = folder.path().join("rookery.toml");
    std::fs::write(&file, &printed.stdout).unwrap();
    let mut with = command(folder.path(), &[("ROOKERY_API__LISTEN", "192.0.2.1:80")]);
    with.arg("--config").arg(&file);
    refused(&run_to_end(with).await, &["192.0.2.1:80"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_digits_is_a_text_where_a_text_is_due() {
    let settings = [
        ("ROOKERY_API__ADMIN_KEY", "1234567890123456"),
        ("ROOKERY_METRICS__TOKEN", "987654321"),
        ("ROOKERY_WHATSAPP__DEVICE_NAME", "42"),
        ("ROOKERY_NODE__ID", "7"),
    ];
    let simulator = whatsapp_simulator::Simulator::start(whatsapp_simulator::Config::default()).await.unwrap();
    let node = crate::node::Node::start(&simulator, &settings).await;
    let client = Client::new(node.base(), "987654321");
    client.get("/metrics").await.expect(200);
    let admin = client.with_token("1234567890123456");
    assert_eq!(admin.get("/api/test-node-connection").await.expect(200).body["nodes"][0]["node_id"], "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_is_refused_and_harms_nothing() {
    let mut world = World::start().await;
    let mut second = command(Path::new("/nonexistent"), &[]);
    second.env("ROOKERY_NODE__DATA_DIR", world.node.data_dir());
    let folder = world.node.data_dir();
    refused(&run_to_end(second).await, &[folder.to_str().unwrap()]);
    let session = world.create().await;
    world.restart().await;
    assert_eq!(world.status(&session).await["session_id"], session.as_str());
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_used_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    let mut on_file = command(folder.path(), &[]);
    on_file.env("ROOKERY_NODE__DATA_DIR", &file);
    refused(&run_to_end(on_file).await, &[file.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "no directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_key_is_printed_at_the_first_start_only() {
    let mut world = World::start().await;
    let key = world.node.admin_key().to_owned();
    assert!(key.len() >= 64, "{key}");
    world.restart().await;
    assert_eq!(world.node.printed("admin key"), None, "shown once");
    world.token(crate::world::STRANGER).await;
    assert!(!world.node.log().contains(&key), "the key is in the log");
    let nobody = world.client.with_token("rka_0000000000000000");
    assert_eq!(nobody.get("/api/api-tokens").await.status, 401);
    answer(world.client.without_token(Method::GET, "/api/health")).await.expect(200);
    world.finish();
}
