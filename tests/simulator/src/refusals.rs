//! What a client is told whose stanza cannot be handled. Never silence.
//!
//! An IQ gets `<error>` with the code and text of XMPP; any other stanza an acknowledgement with one of the
//! codes with which WhatsApp and its clients refuse each other's stanzas (`NackReason` in `wacore`): 479 for a
//! message that lacks something, 487 for another stanza that does, 488 for one of an unknown name, 489 of an
//! unknown class, 490 of an unknown type.

use wacore_binary::Node;

use crate::error::StanzaError;
use crate::router::Session;
use crate::stanza::{element, iq_error, jid_of, server_jid, text_of};

/// A message that lacks something that the protocol demands.
const MALFORMED_MESSAGE: u16 = 479;
/// Another stanza that does.
const MALFORMED: u16 = 487;
/// A stanza of a name that nobody knows.
pub(crate) const UNKNOWN_STANZA: u16 = 488;
/// A stanza of a type that nobody knows.
const UNKNOWN_TYPE: u16 = 490;

/// Tells the client why, and counts it.
pub(crate) fn refuse(session: &Session, node: &Node, error: &StanzaError) {
    tracing::debug!(tag = %node.tag, %error, "stanza not handled");
    let stats = &session.world.stats;
    stats.count(match error {
        StanzaError::UnknownType => "unknown type",
        StanzaError::Refused { .. } => "refused stanza",
        StanzaError::Malformed(_) | StanzaError::NotLoggedIn => "bad stanza",
    });
    let id = text_of(node, "id");
    if node.tag == "iq" {
        let (code, text) = match error {
            StanzaError::Malformed(_) | StanzaError::UnknownType => (400, "bad-request"),
            StanzaError::NotLoggedIn => (401, "not-authorized"),
            StanzaError::Refused { code, text } => (*code, *text),
        };
        session.send(&iq_error(&id, code, text));
        return;
    }
    let code = match error {
        StanzaError::Malformed(_) if node.tag == "message" => MALFORMED_MESSAGE,
        StanzaError::Malformed(_) => MALFORMED,
        StanzaError::UnknownType => UNKNOWN_TYPE,
        StanzaError::NotLoggedIn => 401,
        StanzaError::Refused { code, .. } => *code,
    };
    session.send(&nack(node, code));
}

/// The stanza is of a name that nobody knows.
pub(crate) fn unknown(session: &Session, node: &Node) {
    session.world.stats.count("unknown stanza");
    session.send(&nack(node, UNKNOWN_STANZA));
}

fn nack(node: &Node, code: u16) -> Node {
    let from = jid_of(node, "to").unwrap_or_else(server_jid);
    let nack = element("ack").attr("class", node.tag.as_ref()).attr("id", text_of(node, "id")).attr("from", from);
    let kind = text_of(node, "type");
    let nack = if kind.is_empty() { nack } else { nack.attr("type", kind) };
    nack.attr("error", code).build()
}
