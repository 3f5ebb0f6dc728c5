//! The specification: checked in, served as it is checked in, and true.

use crate::{
    client::answer,
    node::{rookery, run_to_end},
    world::World,
};
use reqwest::Method;
use serde_json::Value;

/// The document that is checked in.
fn checked_in() -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/openapi.json");
    std::fs::read_to_string(file).expect("ops/openapi.json; `rookery openapi > ops/openapi.json` makes it")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checked_in_specification_is_the_one_of_this_binary() {
    let mut command = rookery(&[]);
    command.arg("openapi");
    let ended = run_to_end(command).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stdout == checked_in(), "run `rookery openapi > ops/openapi.json`, and look at what has changed");
    let world = World::start().await;
    let served = answer(world.client.without_token(Method::GET, "/openapi.json")).await.expect(200);
    assert_eq!(served.header("content-type"), "application/json");
    assert!(served.bytes == checked_in().into_bytes(), "served as it is checked in");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_needs_nothing_from_elsewhere() {
    let world = World::start().await;
    let page = answer(world.client.without_token(Method::GET, "/docs")).await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    let text = String::from_utf8(page.bytes).unwrap();
    assert!(text.contains("openapi.json") && !text.contains("://"), "no address of another host");
    world.finish();
}

/// Operations of the document: method, path and what is said of them.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let path = path.clone();
        let item = item.as_object().unwrap().clone();
        item.into_iter().map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
    };
    paths.iter().flat_map(of_path).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_exists_and_answers_what_it_may() {
    let world = World::start().await;
    let document: Value = serde_json::from_str(&checked_in()).unwrap();
    let operations = operations(&document);
    assert!(operations.len() >= 27, "{}", operations.len());
    for (method, path, operation) in &operations {
        let real = path.replace("{session_id}", "01900000-0000-7000-8000-000000000000").replace("{message_id}", "A");
        let real = real.replace("{device_id}", "15559999999").replace("{jid}", "15559999999");
        let method: Method = method.parse().unwrap();
        for client in
            [world.client.clone(), world.client.with_token(""), world.client.with_token("wrong"), world.admin()]
        {
            let answered = answer(client.request(method.clone(), &real)).await;
            let known = operation["responses"].get(answered.status.to_string());
            let code = &answered.body["code"];
            assert!(known.is_some(), "{method} {path} answers {} {code}, which is not written down", answered.status);
            assert!(code != "not_found" && code != "method_not_allowed", "{method} {path} does not exist");
            let secured = operation
                .get("security")
                .is_some_and(|security| !security.as_array().unwrap().contains(&serde_json::json!({})));
            if secured && client.token() == "wrong" {
                assert_eq!(answered.status, 401, "{method} {path}");
            }
        }
        assert!(operation["summary"].is_string() && operation["operationId"].is_string(), "{method} {path}");
        for status in ["400", "500", "503", "504"] {
            assert!(operation["responses"].get(status).is_some(), "{method} {path} may answer {status}");
        }
    }
    world.finish();
}
