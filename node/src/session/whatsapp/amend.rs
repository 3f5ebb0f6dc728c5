//! From WhatsApp's edits, revokes and reactions to amendments.
//!
//! What names a message (`MessageKey`) is written by whoever amends it, in that person's view, and is trusted for the
//! id alone: the chat and who acts are those of the envelope, which the server and the encryption vouch for. That an
//! admin of a group takes back somebody else's message shows in the envelope's attribute `edit="8"`, which the server
//! sees and the members' clients go by; who is an admin is not looked up.

use super::content;
use rookery_protocol::{MessageId, Timestamp};
use rookery_storage::{Amendment, Change};
use whatsapp_rust::{
    proto_helpers::MessageExt,
    wacore::types::message::{EditAttribute, MessageInfo},
    waproto::whatsapp::{self as wa, message::protocol_message::Type},
};

/// How far the clock of whoever amends may be from the server's, in seconds. Beyond it the server's counts.
const CLOCK_TOLERANCE_SECS: i64 = 24 * 60 * 60;

/// What a message amends, if it is no message of its own.
pub(super) fn amendment(message: &wa::Message, info: &MessageInfo) -> Option<Amendment> {
    let base = message.get_base_message();
    if let Some(reaction) = base.reaction_message.as_option() {
        let change = Change::React { emoji: reaction.text.clone().unwrap_or_default() };
        return build(info, reaction.key.as_option()?, reaction.sender_timestamp_ms, change);
    }
    let protocol = base.protocol_message.as_option()?;
    let key = protocol.key.as_option()?;
    if let Some(edited) = protocol.edited_message.as_option() {
        let text = edited.text_content().or_else(|| edited.get_caption()).unwrap_or_default().to_owned();
        return build(info, key, protocol.timestamp_ms, Change::Edit { text });
    }
    if protocol.r#type != Some(Type::REVOKE) {
        return None;
    }
    let as_admin = info.edit == EditAttribute::AdminRevoke;
    build(info, key, None, Change::Revoke { as_admin })
}

/// Whether a message that could not be decrypted amends another one, as far as its envelope says.
pub(super) fn is_amendment(info: &MessageInfo) -> bool {
    info.r#type == "reaction" || info.edit != EditAttribute::Empty
}

fn build(info: &MessageInfo, key: &wa::MessageKey, at_ms: Option<i64>, change: Change) -> Option<Amendment> {
    let source = &info.source;
    Some(Amendment {
        chat: content::chat(source)?,
        message_id: key.id.as_deref()?.parse::<MessageId>().ok()?,
        by: content::sender(source)?,
        from_me: source.is_from_me,
        at: time(at_ms, Timestamp::from_micros(info.timestamp.timestamp_micros())),
        change,
    })
}

/// The time by the clock of whoever amends, unless it is absurd.
fn time(at_ms: Option<i64>, server: Timestamp) -> Timestamp {
    let own = at_ms.and_then(|ms| ms.checked_mul(1_000)).map(Timestamp::from_micros);
    let near = |own: &Timestamp| (own.as_secs() - server.as_secs()).abs() <= CLOCK_TOLERANCE_SECS;
    own.filter(near).unwrap_or(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_clocks_do_not_count() {
        let server = Timestamp::from_secs(1_755_000_000);
        assert_eq!(time(None, server), server);
        assert_eq!(time(Some(1_755_000_100_500), server), Timestamp::from_micros(1_755_000_100_500_000));
        for absurd in [0, i64::MAX, i64::MIN, 1_855_000_000_000] {
            assert_eq!(time(Some(absurd), server), server);
        }
    }
}
