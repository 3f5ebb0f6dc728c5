//! Calls between nodes whose links are as they should be.

use crate::{
    cluster::{Node, header, setup, start},
    node::{Answer, What},
    pki,
};

async fn call_each_other(nodes: &mut [Node]) {
    let names: Vec<String> = nodes.iter().map(|node| node.name().to_owned()).collect();
    for node in nodes {
        let me = format!("{}~{}", node.name(), node.setup.incarnation);
        for to in names.iter().filter(|name| *name != node.name()).cloned().collect::<Vec<_>>() {
            node.linked(&to).await;
            let call = node.begin_with(&to, What::Path("/echo".into()), 1000, 20_000).await;
            let answer = node.answer(call).await;
            assert_eq!(header(&answer, "from"), me);
            assert_eq!(header(&answer, "request-id"), format!("request-{call}"));
            assert!(matches!(answer, Answer::Http { status: 200, body_bytes: 1000, .. }), "{answer:?}");
            let ping = node.begin_with(&to, What::Ping, 0, 20_000).await;
            assert!(matches!(node.answer(ping).await, Answer::Other(reply) if reply.starts_with("Pong")));
        }
    }
}

#[tokio::test]
async fn two_processes_call_each_other_without_certificates() {
    let mut nodes = start([setup("a", 11, None), setup("b", 12, None)]).await;
    call_each_other(&mut nodes).await;
}

#[tokio::test]
async fn three_processes_call_each_other_over_mutual_tls() {
    let dir = pki::cluster("c", &["a", "b", "B"]);
    let dir = Some(dir.path());
    let mut nodes = start([setup("a", 1, dir), setup("b", 2, dir), setup("B", 3, dir)]).await;
    call_each_other(&mut nodes).await;
}
