//! What a phone does with what it receives: decrypt, keep, acknowledge to the sender, echo.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use buffa::Message as _;
use wacore_binary::jid::Server;
use wacore_binary::{Jid, Node};
use waproto::whatsapp as wa;

use super::content::{Content, SendOptions};
use super::events::PhoneEvent;
use super::inbox::{Arrival, InboxMessage, Receipt, ReceiptKind, Received};
use super::kind::{self, MessageKind};
use super::known::Known;
use super::outbound::Chat;
use super::replies::{self, Reply};
use super::signal::DecryptError;
use super::{media_retry, medium, outbound, peers, votes};
use crate::account::{Account, lock};
use crate::messages::is_peer;
use crate::stanza::{children, content, jid_of, text_of, unix_now};
use crate::world::World;

/// What begins the answer of an echo phone.
const ECHO: &str = "echo: ";
/// How often a phone asks for a message that it cannot read: as often as WhatsApp answers.
const RETRIES: u8 = 5;
/// How long it waits for the answer before it asks once more.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Messages that a phone asks for at a time.
const ASKING: usize = 1_024;

/// Stanzas that wait for a phone.
#[derive(Default)]
pub(crate) struct Backlog {
    stanzas: VecDeque<Node>,
    /// A task works on them.
    running: bool,
}

/// Gives a stanza to a phone, which handles it soon.
pub(crate) fn receive(world: &Arc<World>, account: &Arc<Account>, node: Node) {
    let mut backlog = lock(&account.phone.backlog);
    if backlog.stanzas.len() >= world.config.limits.phone_backlog {
        world.stats.count("overflow phone backlog");
        return;
    }
    backlog.stanzas.push_back(node);
    if backlog.running {
        return;
    }
    backlog.running = true;
    drop(backlog);
    let work = work(world.clone(), account.clone());
    world.tasks.spawn_on(work, &world.runtime);
}

async fn work(world: Arc<World>, account: Arc<Account>) {
    loop {
        let node = {
            let mut backlog = lock(&account.phone.backlog);
            let next = backlog.stanzas.pop_front();
            if next.is_none() || world.stop.is_cancelled() {
                backlog.running = false;
                backlog.stanzas = VecDeque::new();
                return;
            }
            next
        };
        match node {
            Some(node) if node.tag == "message" => message(&world, &account, &node),
            Some(node) => receipt(&world, &account, &node),
            None => {}
        }
        tokio::task::yield_now().await;
    }
}

/// Where a message comes from.
struct Origin {
    /// The device that sent it.
    device: Jid,
    sender: Arc<Account>,
    /// The group, or the status.
    room: Option<Jid>,
}

fn origin(world: &World, node: &Node) -> Option<Origin> {
    let from = jid_of(node, "from")?;
    let room = matches!(from.server, Server::Group | Server::Broadcast);
    let (device, room) = if room { (jid_of(node, "participant")?, Some(from)) } else { (from, None) };
    let sender = world.resolve(&device)?;
    Some(Origin { device, sender, room })
}

fn message(world: &Arc<World>, account: &Arc<Account>, node: &Node) {
    let Some(origin) = origin(world, node) else {
        world.stats.count("phone: unknown sender");
        return;
    };
    let decrypted = decrypt(account, &origin, node);
    if !matches!(decrypted, Err(DecryptError::Failed(_))) {
        world.ledger.acknowledged(&origin.sender.number, &text_of(node, "id"), &account.key(0));
    }
    match decrypted {
        Ok(message) => {
            replies::delivered(world, account, &origin.sender, &reply(&origin, node), is_peer(node));
            keep(world, account, &origin, node, message);
        }
        Err(DecryptError::Duplicate) => {
            world.stats.count("phone: duplicate");
            replies::delivered(world, account, &origin.sender, &reply(&origin, node), is_peer(node));
        }
        Err(DecryptError::Failed(error)) => {
            world.stats.count("phone: undecryptable");
            tracing::debug!(error, "a phone cannot decrypt");
            ask_again(world, account, &origin, reply(&origin, node), text_of(node, "t"));
        }
    }
}

/// Asks for a message until it can be read: the sender may have gone down with the first request.
fn ask_again(world: &Arc<World>, account: &Arc<Account>, origin: &Origin, reply: Reply, time: String) {
    let (world, account, sender) = (world.clone(), account.clone(), origin.sender.clone());
    {
        let mut asking = lock(&account.phone.asking);
        if asking.len() >= ASKING || !asking.insert(reply.id.clone()) {
            return;
        }
    }
    let (tasks, runtime) = (world.tasks.clone(), world.runtime.clone());
    let asking = async move {
        for count in 1..=RETRIES {
            replies::retry(&world, &account, &sender, &reply, &time, count);
            let pause = tokio::time::sleep(RETRY_AFTER);
            let stopped = world.stop.run_until_cancelled(pause).await.is_none();
            if stopped || world.ledger.is_acknowledged(&sender.number, &reply.id, &account.key(0)) {
                break;
            }
        }
        lock(&account.phone.asking).remove(&reply.id);
    };
    tasks.spawn_on(asking, &runtime);
}

fn reply(origin: &Origin, node: &Node) -> Reply {
    Reply { id: text_of(node, "id"), device: origin.device.clone(), room: origin.room.clone() }
}

/// Decrypts all that a stanza carries. A group's message may come with its sender key in an `<enc>` of
/// its own, before the shared one.
fn decrypt(account: &Account, origin: &Origin, node: &Node) -> Result<wa::Message, DecryptError> {
    let mut signal = lock(&account.phone.signal);
    let (peer, device) = (&*origin.sender.number, origin.device.device);
    let group = origin.room.as_ref().map(ToString::to_string);
    let mut latest = None;
    for enc in node.get_children_by_tag("enc") {
        let kind = text_of(enc, "type");
        let ciphertext = content(enc).ok_or_else(|| DecryptError::Failed("empty".into()))?;
        let plaintext = match (&group, kind.as_str()) {
            (Some(group), "skmsg") => signal.group_decrypt(group, peer, device, ciphertext)?,
            _ => signal.decrypt(peer, device, &kind, ciphertext)?,
        };
        let message =
            wacore::messages::decode_plaintext(&plaintext, 2).map_err(|e| DecryptError::Failed(e.to_string()))?;
        let key = message
            .sender_key_distribution_message
            .as_option()
            .and_then(|k| k.axolotl_sender_key_distribution_message.clone());
        if let (Some(group), Some(key)) = (&group, key) {
            signal.group_key(group, peer, device, &key)?;
        }
        latest = Some(message);
    }
    latest.ok_or_else(|| DecryptError::Failed("no ciphertext".into()))
}

fn keep(world: &Arc<World>, account: &Arc<Account>, origin: &Origin, node: &Node, message: wa::Message) {
    let (own, id) = (origin.sender.number == account.number, text_of(node, "id"));
    if own && peers::answer(world, account, origin.device.device, &id, &message) {
        return;
    }
    let (inner, destination) = unwrap(message);
    let Some(mut seen) = kind::read(&inner) else { return };
    let limit = world.config.limits.inbox_messages;
    let key = hash(&(&*origin.sender.number, &id));
    let arrival = lock(&account.phone.inbox).note(key, content_hash(inner.clone()), limit);
    match arrival {
        Arrival::New => {}
        Arrival::Known => return,
        Arrival::Changed => {
            let from = origin.sender.key(origin.device.device);
            world.oracle.content_changed(&from, &account.number, &id);
            return;
        }
    }
    if let Some(chosen) = votes::read(world, account, &origin.sender, &inner) {
        seen.text = chosen;
    }
    let timestamp = text_of(node, "t").parse().unwrap_or_else(|_| unix_now());
    let context = medium::context_of(kind::inner(&inner));
    let received = Received {
        message: InboxMessage {
            from: origin.sender.number.to_string(),
            chat: chat(world, origin, node, own, destination.as_deref()),
            from_me: own,
            timestamp,
            text: seen.text,
            kind: seen.kind,
            target: seen.target,
            view_once: inner.view_once_message_v2.is_set() || inner.view_once_message.is_set(),
            ephemeral_seconds: context.and_then(|c| c.expiration).unwrap_or(0),
            reply_to: context.and_then(|c| c.stanza_id.clone()),
            by_lid: origin.device.is_lid(),
            id: id.clone(),
        },
        sender: origin.device.clone(),
        room: origin.room.clone(),
    };
    let counterpart = jid_of(node, "recipient").filter(|_| own).unwrap_or_else(|| origin.device.to_non_ad());
    lock(&account.phone.known).add(Known {
        chat: origin.room.as_ref().unwrap_or(&counterpart).to_non_ad().to_string(),
        author: origin.sender.number.clone(),
        participant: origin.room.as_ref().map(|_| origin.device.to_non_ad().to_string()),
        from_me: own,
        time: timestamp,
        message: inner,
        id,
    });
    let answer = account.phone.echo.load(Ordering::Relaxed).then(|| echo_of(&received)).flatten();
    lock(&account.phone.inbox).push(received, limit);
    account.phone.arrived.notify_waiters();
    world.stats.count("phone: received");
    if let Some(text) = answer {
        let (chat, text) = (Chat::User(origin.sender.clone()), Content::Text(text));
        if let Err(error) = outbound::send(world, account, &chat, &text, &SendOptions::default()) {
            tracing::debug!(%error, "no echo");
        }
    }
}

/// What an echo phone answers: nothing to its own account, to groups, to echoes and to what is no text.
fn echo_of(received: &Received) -> Option<String> {
    let InboxMessage { from_me, kind, text, .. } = &received.message;
    let about = matches!(kind, MessageKind::Reaction | MessageKind::Edit | MessageKind::Revoke | MessageKind::PollVote);
    let silent = *from_me || received.room.is_some() || about || text.starts_with(ECHO) || text.starts_with('<');
    (!silent).then(|| format!("{ECHO}{text}"))
}

/// The chat's name: a group's JID, or the number of the other party.
fn chat(world: &World, origin: &Origin, node: &Node, own: bool, destination: Option<&str>) -> String {
    if let Some(room) = &origin.room {
        return room.to_string();
    }
    if !own {
        return origin.sender.number.to_string();
    }
    let destination = jid_of(node, "recipient").or_else(|| destination?.parse().ok());
    let other = destination.and_then(|d| world.resolve(&d));
    other.map_or_else(|| origin.sender.number.to_string(), |a| a.number.to_string())
}

/// A message of an own device comes wrapped, with the chat that it was sent to.
fn unwrap(message: wa::Message) -> (wa::Message, Option<String>) {
    let Some(sent) = message.device_sent_message.as_option() else {
        return (message, None);
    };
    let destination = sent.destination_jid.clone();
    let mut inner = sent.message.as_option().cloned().unwrap_or_default();
    if !inner.message_context_info.is_set() {
        inner.message_context_info = message.message_context_info;
    }
    (inner, destination)
}

/// Of what the message says, without what a client makes anew each time it encrypts it.
fn content_hash(mut message: wa::Message) -> u64 {
    message.message_context_info = buffa::MessageField::none();
    message.sender_key_distribution_message = buffa::MessageField::none();
    hash(&message.encode_to_vec())
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A receipt for what the phone sent, or a companion's word about what it got of the phone.
fn receipt(world: &Arc<World>, account: &Arc<Account>, node: &Node) {
    let Some(origin) = origin(world, node) else {
        return;
    };
    let id = text_of(node, "id");
    let kind = match text_of(node, "type").as_str() {
        "" | "inactive" => ReceiptKind::Delivered,
        "read" => ReceiptKind::Read,
        "played" => ReceiptKind::Played,
        "retry" => ReceiptKind::Retry,
        "server-error" => return media_retry::answer(world, account, origin.device.device, node),
        "hist_sync" => {
            let device = origin.device.device;
            return account.phone.events.note(PhoneEvent::HistoryTaken { device, message_id: id });
        }
        _ => return,
    };
    let receipt = Receipt { from: format!("{}:{}", origin.sender.number, origin.device.device), kind, at: unix_now() };
    let more = node.get_optional_child("list").map_or(&[][..], children);
    {
        let mut sent = lock(&account.phone.sent);
        sent.receipt(&id, receipt.clone());
        for item in more {
            sent.receipt(&text_of(item, "id"), receipt.clone());
        }
    }
    if kind == ReceiptKind::Retry {
        outbound::send_again(world, account, &id, &origin.sender, origin.device.device);
    }
}
