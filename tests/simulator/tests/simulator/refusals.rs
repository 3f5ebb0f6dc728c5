//! What cannot be handled is refused, never passed over in silence.

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};

use crate::client::{TestClient, jid, simulator};
use crate::raw::{RawConnection, text};

/// Sends a stanza and gives the class and error of its acknowledgement.
async fn refused(raw: &mut RawConnection, stanza: Node) -> (String, String) {
    let id = text(&stanza, "id");
    raw.send(&stanza).await;
    let ack = raw.wait("a refusal", |n| n.tag == "ack" && text(n, "id") == id).await;
    (text(&ack, "class"), text(&ack, "error"))
}

fn pair(class: &str, error: &str) -> (String, String) {
    (class.to_string(), error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn stanzas_that_nobody_knows_are_refused_and_counted() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15566001").await;
    simulator.phone("15566002");
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    let to = || jid("15566002");
    let unknown = NodeBuilder::new("unheard-of").attr("id", "1").attr("to", to()).build();
    assert_eq!(refused(&mut raw, unknown).await, pair("unheard-of", "488"));
    let kind = NodeBuilder::new("receipt").attr("id", "2").attr("to", to()).attr("type", "smelled").build();
    assert_eq!(refused(&mut raw, kind).await, pair("receipt", "490"));
    let nowhere = NodeBuilder::new("receipt").attr("id", "3").build();
    assert_eq!(refused(&mut raw, nowhere).await, pair("receipt", "487"));
    let nowhere = NodeBuilder::new("message").attr("id", "4").build();
    assert_eq!(refused(&mut raw, nowhere).await, pair("message", "479"));
    let odd = NodeBuilder::new("presence").attr("id", "5").attr("type", "invisible").build();
    assert_eq!(refused(&mut raw, odd).await, pair("presence", "490"));
    let nobody = NodeBuilder::new("chatstate").attr("id", "6").attr("to", jid("19999999999"));
    let nobody = nobody.children([NodeBuilder::new("composing").build()]).build();
    assert_eq!(refused(&mut raw, nobody).await, pair("chatstate", "404"));
    let info = NodeBuilder::new("ib").attr("id", "7").children([NodeBuilder::new("gossip").build()]).build();
    assert_eq!(refused(&mut raw, info).await, pair("ib", "488"));
    let group = |id: &'static str, to: &str| {
        NodeBuilder::new("message").attr("id", id).attr("to", to.parse::<Jid>().unwrap()).attr("type", "text")
    };
    assert_eq!(refused(&mut raw, group("8", "1@g.us").build()).await, pair("message", "404"));
    let others = simulator.phone("15566002").create_group("without her", &[]).unwrap();
    assert_eq!(refused(&mut raw, group("9", &others).build()).await, pair("message", "403"));
    let by_lid = simulator.phone("15566002").create_group("with her", &["15566001"]).unwrap();
    let stale = group("10", &by_lid).attr("addressing_mode", "lid").build();
    assert_eq!(refused(&mut raw, stale).await, pair("message", "421"));
    let iq = raw.iq("11", "get", "gossip", NodeBuilder::new("news").build()).await;
    assert_eq!(text(iq.get_optional_child("error").unwrap(), "code"), "501");
    let stats = simulator.stats();
    assert_eq!((stats.count("unknown stanza"), stats.count("unknown type"), stats.count("unknown iq")), (2, 2, 1));
    assert_eq!((stats.count("message refused"), stats.count("bad stanza")), (3, 2));
    assert_eq!(stats.count("refused stanza"), 2);
    // The connection has survived all of it.
    let answer = raw.iq("12", "get", "w:p", NodeBuilder::new("ping").build()).await;
    assert_eq!(text(&answer, "type"), "result");
    assert_eq!(simulator.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_says_so() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15566003").await;
    let device = alice.device(&simulator);
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    assert!(simulator.faults().end_stream("15566003", device));
    raw.wait("the end", |n| n.tag == "xmlstreamend").await;
    let mut raw = RawConnection::log_in_as(&simulator, &alice).await;
    raw.send(&NodeBuilder::new("xmlstreamend").build()).await;
    assert!(raw.closed(crate::client::DEADLINE).await, "what the client ends is closed");
    assert_eq!(simulator.violations(), []);
}
