//! What a phone can send, and the message that it becomes.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use buffa::MessageField;
use bytes::Bytes;
use wacore_binary::Jid;
use waproto::whatsapp as wa;
use waproto::whatsapp::message as parts;

use super::known::Known;
use super::medium::{self, MediumKind};
use super::outbound::Chat;
use crate::account::{Account, lock};
use crate::error::PhoneError;
use crate::stanza::unix_now;
use crate::world::World;

/// Bytes of a text; WhatsApp takes no longer ones.
const TEXT_BYTES: usize = 65_536;
/// Options of a poll.
const OPTIONS: std::ops::RangeInclusive<usize> = 2..=12;

/// What a phone sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A text.
    Text(String),
    /// A reaction to a message that the phone has sent or received; an empty one takes it back.
    Reaction {
        /// The message's id.
        message_id: String,
        /// One emoji, or nothing.
        emoji: String,
    },
    /// A new text for a message that the phone has sent.
    Edit {
        /// The message's id.
        message_id: String,
        /// The new text.
        text: String,
    },
    /// Takes back a message that the phone has sent, or, as an admin of a group, somebody else's.
    Revoke {
        /// The message's id.
        message_id: String,
    },
    /// A poll with one choice.
    Poll {
        /// What is asked.
        question: String,
        /// 2 to 12 answers.
        options: Vec<String>,
    },
    /// A vote in a poll that the phone has sent or received; without options it takes its vote back.
    Vote {
        /// The poll's id.
        message_id: String,
        /// The chosen answers, as the poll names them.
        options: Vec<String>,
    },
    /// A medium, uploaded before it is sent.
    Medium {
        /// What it is.
        kind: MediumKind,
        /// Its bytes.
        data: Bytes,
        /// Its MIME type.
        mimetype: String,
        /// A text with it; ignored for sounds and stickers.
        caption: Option<String>,
        /// It may be looked at once.
        view_once: bool,
    },
    /// A place.
    Location {
        /// Millionths of a degree, north of the equator.
        latitude_micro: i32,
        /// Millionths of a degree, east of Greenwich.
        longitude_micro: i32,
        /// What is there.
        name: String,
    },
    /// A contact's card.
    Contact {
        /// The contact's name.
        name: String,
        /// The contact's phone number.
        number: String,
    },
    /// After how many seconds messages of the chat disappear from now on; 0 for never.
    Disappearing {
        /// Seconds.
        seconds: u32,
    },
}

/// How something is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// The contact is addressed by LID, not by phone number. A group decides for itself.
    pub by_lid: bool,
    /// The id of a message that the phone has sent or received, which this one answers.
    pub reply_to: Option<String>,
    /// After how many seconds it disappears; 0 for never.
    pub ephemeral_seconds: u32,
    /// A small JPEG that is shown until a medium is there.
    pub thumbnail: Option<Bytes>,
    /// It is written, and can be referred to, but is sent only when it is released.
    pub held: bool,
}

/// What a stanza says of the message that it carries.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// The attribute `type`.
    pub(super) kind: &'static str,
    /// The attribute `edit`.
    pub(super) edit: Option<&'static str>,
    /// The attribute `mediatype` of `<enc>`.
    pub(super) medium: Option<&'static str>,
    /// People are addressed by LID.
    pub(super) by_lid: bool,
}

impl Style {
    /// A text.
    pub(super) const TEXT: Self = Self { kind: "text", edit: None, medium: None, by_lid: false };
}

/// Where and by whom a message is made.
struct Author<'a> {
    world: &'a World,
    account: &'a Account,
    chat: &'a Chat,
    by_lid: bool,
}

/// Makes the message.
pub(super) fn build(
    world: &World,
    account: &Account,
    chat: &Chat,
    content: &Content,
    options: &SendOptions,
) -> Result<(wa::Message, Style), PhoneError> {
    let by_lid = chat.by_lid(options.by_lid);
    let author = Author { world, account, chat, by_lid };
    let style = |kind| Style { kind, by_lid, ..Style::TEXT };
    let (mut message, style) = match content {
        Content::Text(text) => (text_message(text)?, style("text")),
        Content::Reaction { message_id, emoji } => (author.reaction(message_id, emoji)?, style("reaction")),
        Content::Edit { message_id, text } => {
            (author.edit(message_id, text)?, Style { edit: Some("1"), ..style("text") })
        }
        Content::Revoke { message_id } => {
            let own = author.known(message_id)?.from_me;
            (author.revoke(message_id)?, Style { edit: Some(if own { "7" } else { "8" }), ..style("text") })
        }
        Content::Poll { question, options } => (poll(question, options)?, style("poll")),
        Content::Vote { message_id, options } => (author.vote(message_id, options)?, style("poll")),
        Content::Medium { kind, data, mimetype, caption, view_once } => {
            let sealed = medium::seal(world, *kind, data, mimetype)?;
            let message = medium::message(*kind, sealed, caption.clone(), options.thumbnail.as_ref());
            let message = if *view_once { medium::seen_once(message) } else { message };
            (message, Style { medium: Some(kind.name()), ..style("media") })
        }
        Content::Location { latitude_micro, longitude_micro, name } => {
            let degrees = |micro: i32| Some(f64::from(micro) / 1e6);
            let location = parts::LocationMessage {
                degrees_latitude: degrees(*latitude_micro),
                degrees_longitude: degrees(*longitude_micro),
                name: Some(name.clone()),
                ..Default::default()
            };
            let message = wa::Message { location_message: MessageField::some(location), ..Default::default() };
            (message, Style { medium: Some("location"), ..style("media") })
        }
        Content::Contact { name, number } => {
            let vcard = format!("BEGIN:VCARD\nVERSION:3.0\nFN:{name}\nTEL;waid={number}:+{number}\nEND:VCARD");
            let contact =
                parts::ContactMessage { display_name: Some(name.clone()), vcard: Some(vcard), ..Default::default() };
            let message = wa::Message { contact_message: MessageField::some(contact), ..Default::default() };
            (message, Style { medium: Some("vcard"), ..style("media") })
        }
        Content::Disappearing { seconds } => (disappearing(*seconds), style("text")),
    };
    if let Some(context) = author.context(options)? {
        medium::set_context(&mut message, &context);
    }
    Ok((message, style))
}

fn now_ms() -> Option<i64> {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn text_message(text: &str) -> Result<wa::Message, PhoneError> {
    if text.len() > TEXT_BYTES {
        return Err(PhoneError::Invalid("the text is too long".into()));
    }
    Ok(wa::Message { conversation: Some(text.to_string()), ..Default::default() })
}

fn protocol(protocol: parts::ProtocolMessage) -> wa::Message {
    wa::Message { protocol_message: MessageField::some(protocol), ..Default::default() }
}

fn disappearing(seconds: u32) -> wa::Message {
    protocol(parts::ProtocolMessage {
        r#type: Some(parts::protocol_message::Type::EPHEMERAL_SETTING),
        ephemeral_expiration: Some(seconds),
        ephemeral_setting_timestamp: i64::try_from(unix_now()).ok(),
        ..Default::default()
    })
}

fn poll(question: &str, options: &[String]) -> Result<wa::Message, PhoneError> {
    if !OPTIONS.contains(&options.len()) {
        return Err(PhoneError::Invalid(format!("a poll has {} to {} options", OPTIONS.start(), OPTIONS.end())));
    }
    let options = options
        .iter()
        .map(|name| parts::poll_creation_message::Option { option_name: Some(name.clone()), ..Default::default() })
        .collect();
    let poll = parts::PollCreationMessage {
        name: Some(question.to_string()),
        options,
        selectable_options_count: Some(1),
        ..Default::default()
    };
    let secret =
        wa::MessageContextInfo { message_secret: Some(rand::random::<[u8; 32]>().to_vec()), ..Default::default() };
    Ok(wa::Message {
        poll_creation_message_v3: MessageField::some(poll),
        message_context_info: MessageField::some(secret),
        ..Default::default()
    })
}

impl Author<'_> {
    fn user(&self, account: &Account) -> Jid {
        if self.by_lid { account.lid(0) } else { account.pn(0) }
    }

    /// A message that the phone knows.
    fn known(&self, id: &str) -> Result<Arc<Known>, PhoneError> {
        let known = lock(&self.account.phone.known).get(id);
        known.ok_or_else(|| PhoneError::UnknownMessage(id.to_string()))
    }

    /// The JID of a message's author, as this message names people.
    fn author_of(&self, known: &Known) -> Option<Jid> {
        self.world.account(&known.author).map(|a| self.user(&a))
    }

    /// The key of a message that the phone knows, as this message names people.
    fn key(&self, id: &str) -> Result<wa::MessageKey, PhoneError> {
        let known = self.known(id)?;
        let in_a_room = !matches!(self.chat, Chat::User(_));
        let participant = self.author_of(&known).filter(|_| in_a_room && !known.from_me);
        Ok(wa::MessageKey {
            remote_jid: Some(self.chat.jid(self.by_lid).to_string()),
            participant: participant.map(|p| p.to_string()),
            ..known.key()
        })
    }

    fn reaction(&self, id: &str, emoji: &str) -> Result<wa::Message, PhoneError> {
        let reaction = parts::ReactionMessage {
            key: MessageField::some(self.key(id)?),
            text: Some(emoji.to_string()),
            sender_timestamp_ms: now_ms(),
            ..Default::default()
        };
        Ok(wa::Message { reaction_message: MessageField::some(reaction), ..Default::default() })
    }

    fn edit(&self, id: &str, text: &str) -> Result<wa::Message, PhoneError> {
        let key = self.key(id)?;
        if key.from_me != Some(true) {
            return Err(PhoneError::Invalid("the message is of somebody else".into()));
        }
        Ok(protocol(parts::ProtocolMessage {
            key: MessageField::some(key),
            r#type: Some(parts::protocol_message::Type::MESSAGE_EDIT),
            edited_message: MessageField::some(text_message(text)?),
            timestamp_ms: now_ms(),
            ..Default::default()
        }))
    }

    fn revoke(&self, id: &str) -> Result<wa::Message, PhoneError> {
        let key = self.key(id)?;
        let admin = match self.chat {
            Chat::Group(group) => group.is_admin(&self.account.number),
            _ => false,
        };
        if key.from_me != Some(true) && !admin {
            return Err(PhoneError::Invalid("the message is of somebody else".into()));
        }
        Ok(protocol(parts::ProtocolMessage {
            key: MessageField::some(key),
            r#type: Some(parts::protocol_message::Type::REVOKE),
            ..Default::default()
        }))
    }

    fn vote(&self, id: &str, chosen: &[String]) -> Result<wa::Message, PhoneError> {
        let invalid = |why: &str| PhoneError::Invalid(why.to_string());
        let known = self.known(id)?;
        let poll = known.poll().ok_or_else(|| invalid("the message is no poll"))?;
        if !chosen.iter().all(|option| poll.options.contains(option)) {
            return Err(invalid("the poll has no such option"));
        }
        let creator = self.author_of(&known).ok_or_else(|| invalid("the poll's author is unknown"))?;
        let hashes: Vec<Vec<u8>> =
            chosen.iter().map(|option| wacore::poll::compute_option_hash(option).to_vec()).collect();
        let (creator, voter) = (creator.to_string(), self.user(self.account).to_string());
        let (payload, iv) = wacore::poll::encrypt_poll_vote_with_secret(&hashes, &poll.secret, id, &creator, &voter)
            .map_err(|e| invalid(&e.to_string()))?;
        let vote = parts::PollUpdateMessage {
            poll_creation_message_key: MessageField::some(self.key(id)?),
            vote: MessageField::some(parts::PollEncValue { enc_payload: Some(payload), enc_iv: Some(iv.to_vec()) }),
            sender_timestamp_ms: now_ms(),
            ..Default::default()
        };
        Ok(wa::Message { poll_update_message: MessageField::some(vote), ..Default::default() })
    }

    /// What a message answers and when it disappears.
    fn context(&self, options: &SendOptions) -> Result<Option<wa::ContextInfo>, PhoneError> {
        if options.reply_to.is_none() && options.ephemeral_seconds == 0 {
            return Ok(None);
        }
        let mut context = wa::ContextInfo {
            expiration: (options.ephemeral_seconds > 0).then_some(options.ephemeral_seconds),
            ..Default::default()
        };
        if let Some(id) = &options.reply_to {
            let known = self.known(id)?;
            context.stanza_id = Some(id.clone());
            context.participant = self.author_of(&known).map(|a| a.to_string());
            context.quoted_message = MessageField::some(known.message.clone());
        }
        Ok(Some(context))
    }
}
