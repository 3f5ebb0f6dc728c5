//! What a phone does with what it receives: decrypt, keep, acknowledge to the sender, echo.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use buffa::Message as _;
use wacore_binary::jid::Server;
use wacore_binary::{Jid, Node};
use waproto::whatsapp as wa;

use super::content::Content;
use super::inbox::{Arrival, InboxMessage, Receipt, ReceiptKind, Received};
use super::kind::{self, MessageKind};
use super::outbound;
use super::signal::DecryptError;
use crate::account::{Account, lock};
use crate::messages::is_peer;
use crate::stanza::{children, content, jid_of, text_of, unix_now};
use crate::world::World;

/// What begins the answer of an echo phone.
const ECHO: &str = "echo: ";
/// How often a phone asks for a message again.
const RETRY_COUNT: u8 = 1;

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
    group: Option<Jid>,
}

fn origin(world: &World, node: &Node) -> Option<Origin> {
    let from = jid_of(node, "from")?;
    let (device, group) =
        if from.server == Server::Group { (jid_of(node, "participant")?, Some(from)) } else { (from, None) };
    let sender = world.resolve(&device)?;
    Some(Origin { device, sender, group })
}

fn message(world: &Arc<World>, account: &Arc<Account>, node: &Node) {
    let Some(origin) = origin(world, node) else {
        world.stats.count("phone: unknown sender");
        return;
    };
    let decrypted = decrypt(account, &origin, node);
    if !matches!(decrypted, Err(DecryptError::Failed(_))) {
        world.ledger.acknowledged(&text_of(node, "id"), &account.key(0));
    }
    match decrypted {
        Ok(message) => {
            outbound::delivered(world, account, &origin.sender, &reply(&origin, node), is_peer(node));
            keep(world, account, &origin, node, message);
        }
        Err(DecryptError::Duplicate) => {
            world.stats.count("phone: duplicate");
            outbound::delivered(world, account, &origin.sender, &reply(&origin, node), is_peer(node));
        }
        Err(DecryptError::Failed(error)) => {
            world.stats.count("phone: undecryptable");
            tracing::debug!(error, "a phone cannot decrypt");
            let time = text_of(node, "t");
            outbound::retry(world, account, &origin.sender, &reply(&origin, node), &time, RETRY_COUNT);
        }
    }
}

fn reply(origin: &Origin, node: &Node) -> outbound::Reply {
    outbound::Reply { id: text_of(node, "id"), device: origin.device.clone(), group: origin.group.clone() }
}

/// Decrypts all that a stanza carries. A group's message may come with its sender key in an `<enc>` of
/// its own, before the shared one.
fn decrypt(account: &Account, origin: &Origin, node: &Node) -> Result<wa::Message, DecryptError> {
    let mut signal = lock(&account.phone.signal);
    let (peer, device) = (&*origin.sender.number, origin.device.device);
    let group = origin.group.as_ref().map(ToString::to_string);
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
    if asks_for_app_state_key(&message) {
        outbound::welcome(world, account, origin.device.device);
        return;
    }
    let own = origin.sender.number == account.number;
    let (inner, destination) = unwrap(message);
    let Some(seen) = kind::read(&inner) else { return };
    let id = text_of(node, "id");
    let limit = world.config.limits.inbox_messages;
    let key = hash(&(&*origin.sender.number, &id));
    let arrival = lock(&account.phone.inbox).note(key, content_hash(inner), limit);
    match arrival {
        Arrival::New => {}
        Arrival::Known => return,
        Arrival::Changed => {
            let from = origin.sender.key(origin.device.device);
            world.oracle.content_changed(&from, &account.number, &id);
            return;
        }
    }
    let received = Received {
        message: InboxMessage {
            id,
            from: origin.sender.number.to_string(),
            chat: chat(world, origin, node, own, destination.as_deref()),
            from_me: own,
            timestamp: text_of(node, "t").parse().unwrap_or_else(|_| unix_now()),
            text: seen.text,
            kind: seen.kind,
            target: seen.target,
        },
        sender: origin.device.clone(),
        group: origin.group.clone(),
    };
    let echo = account.phone.echo.load(Ordering::Relaxed)
        && !own
        && origin.group.is_none()
        && !matches!(received.message.kind, MessageKind::Reaction | MessageKind::Edit | MessageKind::Revoke)
        && !received.message.text.starts_with(ECHO)
        && !received.message.text.starts_with('<');
    let answer = echo.then(|| (received.message.from.clone(), received.message.text.clone()));
    lock(&account.phone.inbox).push(received, limit);
    account.phone.arrived.notify_waiters();
    world.stats.count("phone: received");
    if let Some((to, text)) = answer
        && let Err(error) = outbound::send(world, account, &to, &Content::Text(format!("{ECHO}{text}")))
    {
        tracing::debug!(%error, "no echo");
    }
}

/// The chat's name: a group's JID, or the number of the other party.
fn chat(world: &World, origin: &Origin, node: &Node, own: bool, destination: Option<&str>) -> String {
    if let Some(group) = &origin.group {
        return group.to_string();
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
    let inner = sent.message.as_option().cloned().unwrap_or_default();
    (inner, destination)
}

fn asks_for_app_state_key(message: &wa::Message) -> bool {
    message.protocol_message.as_option().is_some_and(|p| p.app_state_sync_key_request.is_set())
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

/// A receipt for what the phone sent.
fn receipt(world: &Arc<World>, account: &Arc<Account>, node: &Node) {
    let Some(origin) = origin(world, node) else {
        return;
    };
    let kind = match text_of(node, "type").as_str() {
        "" | "inactive" => ReceiptKind::Delivered,
        "read" => ReceiptKind::Read,
        "played" => ReceiptKind::Played,
        "retry" => ReceiptKind::Retry,
        _ => return,
    };
    let receipt = Receipt { from: format!("{}:{}", origin.sender.number, origin.device.device), kind, at: unix_now() };
    let id = text_of(node, "id");
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
