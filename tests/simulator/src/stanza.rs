//! Shorthands to read and build stanzas. Knows nothing of their meaning.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::jid::Server;
use wacore_binary::{Jid, Node, NodeContent};

use crate::error::StanzaError;

/// Starts an element.
pub(crate) fn element(tag: &'static str) -> NodeBuilder {
    NodeBuilder::new(tag)
}

/// The JID under which the server itself speaks: empty user, `s.whatsapp.net`.
pub(crate) fn server_jid() -> Jid {
    Jid::new("", Server::Pn)
}

/// Seconds since the epoch.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Milliseconds since the epoch.
pub(crate) fn unix_now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// An attribute as text, empty when absent.
pub(crate) fn text_of(node: &Node, key: &str) -> String {
    node.attrs.get(key).map(|v| v.as_str().into_owned()).unwrap_or_default()
}

/// Whether an attribute has this text.
pub(crate) fn attr_is(node: &Node, key: &str, value: &str) -> bool {
    node.attrs.get(key).is_some_and(|v| v.as_str() == value)
}

/// An attribute as a JID.
pub(crate) fn jid_of(node: &Node, key: &str) -> Option<Jid> {
    node.attrs.get(key).and_then(wacore_binary::NodeValue::to_jid)
}

/// An attribute as a JID that must be there.
pub(crate) fn required_jid(node: &Node, key: &'static str) -> Result<Jid, StanzaError> {
    jid_of(node, key).ok_or(StanzaError::Malformed(key))
}

/// The content as bytes, whichever way the client encoded it.
pub(crate) fn content(node: &Node) -> Option<&[u8]> {
    match &node.content {
        Some(NodeContent::Bytes(b)) => Some(b),
        Some(NodeContent::String(s)) => Some(s.as_bytes()),
        _ => None,
    }
}

/// The bytes of a child element.
pub(crate) fn child_bytes<'a>(node: &'a Node, tag: &'static str) -> Result<&'a [u8], StanzaError> {
    node.get_optional_child(tag).and_then(content).ok_or(StanzaError::Malformed(tag))
}

/// The bytes of a child element that has a fixed length.
pub(crate) fn child_array<const N: usize>(node: &Node, tag: &'static str) -> Result<[u8; N], StanzaError> {
    child_bytes(node, tag)?.try_into().map_err(|_| StanzaError::Malformed(tag))
}

/// The children of a node, none when it has other content.
pub(crate) fn children(node: &Node) -> &[Node] {
    node.children().unwrap_or_default()
}

/// A stanza on the wire before encryption. `None` when it cannot be encoded, which a stanza that was
/// built here or decoded from the wire always can.
pub(crate) fn encode(node: &Node) -> Option<Bytes> {
    match wacore_binary::marshal(node) {
        Ok(bytes) => Some(Bytes::from(bytes)),
        Err(error) => {
            tracing::error!(tag = %node.tag, %error, "cannot encode a stanza");
            None
        }
    }
}

/// The reverse of [`encode`].
pub(crate) fn decode(bytes: &Bytes) -> Option<Node> {
    // Every encoded stanza begins with the flag byte, which the decoder does not want.
    wacore_binary::OwnedNodeRef::new(bytes.slice(1..)).ok().map(|n| n.to_owned_node())
}

/// `<iq type=result>` with at most one child.
pub(crate) fn iq_result(id: &str, child: Option<Node>) -> Node {
    let iq = element("iq").attr("from", server_jid()).attr("type", "result").attr("id", id);
    match child {
        Some(child) => iq.children([child]).build(),
        None => iq.build(),
    }
}

/// `<iq type=error>` with the protocol's code and text.
pub(crate) fn iq_error(id: &str, code: u16, text: &str) -> Node {
    let error = element("error").attr("code", code).attr("text", text);
    element("iq").attr("from", server_jid()).attr("type", "error").attr("id", id).children([error.build()]).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_survives_the_wire() {
        let node = element("message")
            .attr("id", "A1")
            .attr("from", Jid::pn_device("15550001", 3))
            .children([element("enc").bytes(vec![1, 2, 3]).build()])
            .build();
        let decoded = decode(&encode(&node).unwrap()).unwrap();
        assert_eq!(text_of(&decoded, "id"), "A1");
        assert_eq!(jid_of(&decoded, "from"), Some(Jid::pn_device("15550001", 3)));
        assert_eq!(child_bytes(&decoded, "enc").unwrap(), [1, 2, 3]);
        assert!(child_array::<4>(&decoded, "enc").is_err());
    }
}
