//! The examples in the README are run as they stand there.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::client::{assert_clean, simulator};

const README: &str = include_str!("../../README.md");
/// How long an example may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// The code of the one block in this language that is an example of a client.
fn example(language: &str) -> &'static str {
    let start = format!("```{language}\n");
    let mut blocks = README.split(start.as_str()).skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.find(|block| block.contains("ADMIN")).unwrap_or_else(|| panic!("no example in {language}"));
    assert!(blocks.all(|block| !block.contains("ADMIN")), "two examples in {language}");
    block
}

/// Runs an example; says so, or fails in CI, when there is no interpreter.
async fn run(language: &str, program: &str, arguments: &[&str]) {
    let simulator = simulator().await;
    let mut command = Command::new(program);
    command.args(arguments).env("ADMIN", simulator.admin_url()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{program} cannot be run: {error}");
            eprintln!("NOT TESTED: the example in {language}, because {program} cannot be run: {error}");
            return;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(example(language).as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("it ends").unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{error}", output.status);
    assert!(out.contains("15550002: hello from"), "{out}\n{error}");
    assert_eq!(simulator.phone("15550001").inbox().len(), 1);
    assert_eq!(simulator.undelivered(), []);
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_for_the_shell_runs() {
    run("bash", "bash", &["-euo", "pipefail"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_python_runs() {
    run("python", "python3", &["-"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_javascript_runs() {
    run("javascript", "node", &["--input-type=module", "-"]).await;
}
