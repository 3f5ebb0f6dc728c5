//! History that a phone gives its companions: when they are new, when they ask, and when a test wants it.
//!
//! It comes in chunks, each made when the one before has been taken, so that a million messages need no more
//! memory than two thousand. A chunk is an encrypted medium that a message announces; a small one is in the
//! message itself.

mod archive;

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use buffa::{Message as _, MessageField};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use waproto::whatsapp as wa;
use waproto::whatsapp::history_sync::HistorySyncType as Kind;
use waproto::whatsapp::message as parts;
use waproto::whatsapp::message::HistorySyncType as Announced;

pub use archive::HistorySize;
use archive::Slice;

use super::peers;
use crate::account::{Account, lock};
use crate::error::PhoneError;
use crate::media;
use crate::stanza::unix_now;
use crate::world::World;

/// Bytes of a chunk that is sent within its message.
const INLINE_BYTES: usize = 16 << 10;
/// Stanzas that may wait for a companion before it gets the next chunk.
const WAITING: usize = 8;
/// How often it is looked whether the companion has taken what waits.
const PAUSE: Duration = Duration::from_millis(20);
/// Messages of one answer to a companion that asks for more.
const ON_DEMAND: i32 = 500;
/// How long before now the history that is made up begins, in seconds.
const AGE: u64 = 20 * 86_400;
/// People of the made-up history whose names are given.
const NAMES: u32 = 1_000;
/// Announcements that are kept, so that a companion can ask for them again.
const ANNOUNCED: usize = 1_024;
/// Messages that [`send`] gives at once.
const MESSAGES: u64 = 1_000_000;

/// A chunk, and what its announcement says besides where it is.
struct Chunk {
    sync: wa::HistorySync,
    /// The request that it answers.
    request: Option<String>,
}

fn announced(kind: Kind) -> Announced {
    match kind {
        Kind::INITIAL_BOOTSTRAP => Announced::INITIAL_BOOTSTRAP,
        Kind::PUSH_NAME => Announced::PUSH_NAME,
        Kind::ON_DEMAND => Announced::ON_DEMAND,
        Kind::FULL => Announced::FULL,
        _ => Announced::RECENT,
    }
}

impl Chunk {
    fn new(kind: Kind, conversations: Vec<wa::Conversation>, order: u32, progress: Option<u32>) -> Self {
        let sync = wa::HistorySync {
            sync_type: kind,
            conversations,
            chunk_order: Some(order),
            progress,
            ..Default::default()
        };
        Self { sync, request: None }
    }

    /// Stores the chunk and makes its announcement.
    fn announce(&self, world: &World) -> Result<parts::HistorySyncNotification, PhoneError> {
        let invalid = |e: &dyn std::fmt::Display| PhoneError::Invalid(e.to_string());
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.sync.encode_to_vec()).map_err(|e| invalid(&e))?;
        let compressed = encoder.finish().map_err(|e| invalid(&e))?;
        let notice = parts::HistorySyncNotification {
            sync_type: Some(announced(self.sync.sync_type)),
            chunk_order: self.sync.chunk_order,
            progress: self.sync.progress,
            peer_data_request_session_id: self.request.clone(),
            ..Default::default()
        };
        if compressed.len() <= INLINE_BYTES {
            return Ok(parts::HistorySyncNotification {
                initial_hist_bootstrap_inline_payload: Some(compressed),
                ..notice
            });
        }
        let kind = wacore::download::MediaType::History;
        let encrypted = wacore::upload::encrypt_media(&compressed, kind).map_err(|e| invalid(&e))?;
        let name = format!("history-{}", world.next_number());
        if !media::store(world, &name, Bytes::from(encrypted.data_to_upload)) {
            return Err(PhoneError::Invalid("the history is too large".into()));
        }
        Ok(parts::HistorySyncNotification {
            file_sha256: Some(encrypted.file_sha256.to_vec()),
            file_length: Some(compressed.len() as u64),
            media_key: Some(encrypted.media_key.to_vec()),
            file_enc_sha256: Some(encrypted.file_enc_sha256.to_vec()),
            direct_path: Some(media::direct_path(&name)),
            ..notice
        })
    }

    fn send(&self, world: &Arc<World>, account: &Arc<Account>, device: u16) -> Result<(), PhoneError> {
        announce_to(world, account, device, self.announce(world)?)
    }
}

fn announce_to(
    world: &Arc<World>,
    account: &Arc<Account>,
    device: u16,
    notice: parts::HistorySyncNotification,
) -> Result<(), PhoneError> {
    let message = parts::ProtocolMessage {
        r#type: Some(parts::protocol_message::Type::HistorySyncNotification),
        history_sync_notification: MessageField::some(notice),
        ..Default::default()
    };
    world.stats.count("phone: history chunk");
    let kept = message.history_sync_notification.clone();
    let id = peers::send(world, account, device, message)?;
    if let Some(notice) = kept.into_option() {
        lock(&account.phone.announced).add(id, notice);
    }
    Ok(())
}

/// The latest announcements of history, by the id of their message.
#[derive(Default)]
pub(super) struct Announcements(VecDeque<(String, parts::HistorySyncNotification)>);

impl Announcements {
    fn add(&mut self, id: String, notice: parts::HistorySyncNotification) {
        if self.0.len() == ANNOUNCED {
            self.0.pop_front();
        }
        self.0.push_back((id, notice));
    }

    fn get(&self, id: &str) -> Option<parts::HistorySyncNotification> {
        self.0.iter().find(|(known, _)| known == id).map(|(_, notice)| notice.clone())
    }
}

/// Announces a chunk again, to a companion that could not take it.
pub(super) fn again(
    world: &Arc<World>,
    account: &Arc<Account>,
    device: u16,
    asked: &parts::peer_data_operation_request_message::HistorySyncChunkRetryRequest,
) -> Result<(), PhoneError> {
    let id = asked.chunk_notification_id.as_deref().unwrap_or_default();
    let notice = lock(&account.phone.announced).get(id);
    let notice = notice.ok_or_else(|| PhoneError::UnknownMessage(id.to_string()))?;
    world.stats.count("phone: history chunk again");
    announce_to(world, account, device, notice)
}

fn start() -> u64 {
    unix_now().saturating_sub(AGE)
}

fn count(slices: &[Slice]) -> u64 {
    slices.iter().map(|s| s.messages.end - s.messages.start).sum()
}

fn conversations(slices: &[Slice], start: u64) -> Vec<wa::Conversation> {
    slices.iter().map(|slice| archive::conversation(slice, start)).collect()
}

/// What the phone has really sent and received, by chat.
fn real(world: &World, account: &Account) -> Vec<wa::Conversation> {
    let chats = lock(&account.phone.known).by_chat();
    let conversation = |(jid, messages): (String, Vec<Arc<super::known::Known>>)| {
        let messages = messages.iter().rev().map(|known| wa::HistorySyncMsg {
            message: MessageField::some(known.web_message_info()),
            ..Default::default()
        });
        let contact = jid.parse().ok().and_then(|j| world.resolve(&j));
        wa::Conversation {
            messages: messages.collect(),
            name: contact.as_ref().map(|c| c.push_name()),
            lid_jid: contact.as_ref().map(|c| c.lid(0).to_string()),
            pn_jid: contact.as_ref().map(|c| c.pn(0).to_string()),
            id: jid,
            ..Default::default()
        }
    };
    chats.into_iter().filter(|(jid, _)| !jid.ends_with("@broadcast")).map(conversation).collect()
}

/// The names of those whom the phone has written with.
fn push_names(world: &World, account: &Account) -> wa::HistorySync {
    let contacts = lock(&account.phone.sent).contacts();
    let contacts: Vec<Arc<Account>> = contacts.iter().filter_map(|number| world.account(number)).collect();
    let name = |c: &Arc<Account>| wa::Pushname { id: Some(c.pn(0).to_string()), pushname: Some(c.push_name()) };
    let mapping = |c: &Arc<Account>| wa::PhoneNumberToLIDMapping {
        pn_jid: Some(c.pn(0).to_string()),
        lid_jid: Some(c.lid(0).to_string()),
    };
    let made_up = 0..lock(&account.phone.history).chats.min(NAMES);
    let made_up_name = |chat| wa::Pushname { id: Some(archive::jid(chat)), pushname: Some(archive::push_name(chat)) };
    let made_up_mapping =
        |chat| wa::PhoneNumberToLIDMapping { pn_jid: Some(archive::jid(chat)), lid_jid: Some(archive::lid(chat)) };
    wa::HistorySync {
        sync_type: Kind::PUSH_NAME,
        pushnames: contacts.iter().map(name).chain(made_up.clone().map(made_up_name)).collect(),
        phone_number_to_lid_mappings: contacts.iter().map(mapping).chain(made_up.map(made_up_mapping)).collect(),
        chunk_order: Some(1),
        progress: Some(100),
        ..Default::default()
    }
}

/// Gives a companion everything: first what is latest and small, then names, then chunk after chunk.
pub(super) fn give(world: &Arc<World>, account: &Arc<Account>, device: u16) {
    let size = *lock(&account.phone.history);
    let start = start();
    let mut chunks = size.chunks();
    let mut latest = real(world, account);
    let first = chunks.next().unwrap_or_default();
    latest.extend(conversations(&first, start));
    let bootstrap =
        Chunk::new(Kind::INITIAL_BOOTSTRAP, latest, 1, Some(if count(&first) == size.messages { 100 } else { 1 }));
    let names = Chunk { sync: push_names(world, account), request: None };
    for chunk in [bootstrap, names] {
        if let Err(error) = chunk.send(world, account, device) {
            tracing::warn!(%error, "cannot give history");
        }
    }
    if size.chats > 0 {
        let rest = stream(world.clone(), account.clone(), device, chunks, size, count(&first));
        world.tasks.spawn_on(rest, &world.runtime);
    }
}

/// Gives chunk after chunk, each when the companion has taken those before; `given` messages it has already.
async fn stream(
    world: Arc<World>,
    account: Arc<Account>,
    device: u16,
    chunks: archive::Chunks,
    size: HistorySize,
    mut given: u64,
) {
    let start = start();
    for (order, slices) in chunks.enumerate() {
        given += count(&slices);
        let progress = u32::try_from(given * 100 / size.messages.max(1)).unwrap_or(100).min(100);
        let order = u32::try_from(order + 1).unwrap_or(u32::MAX);
        let (making, maker) = (world.clone(), slices);
        // Compressing takes too long for a task that others wait for.
        let made = tokio::task::spawn_blocking(move || {
            Chunk::new(Kind::RECENT, conversations(&maker, start), order, Some(progress)).announce(&making)
        });
        let sent = match made.await {
            Ok(Ok(notice)) => announce_to(&world, &account, device, notice),
            Ok(Err(error)) => Err(error),
            Err(_) => return,
        };
        if let Err(error) = sent {
            tracing::warn!(%error, "cannot give history");
            return;
        }
        let taken = taken(&account, device);
        if world.stop.run_until_cancelled(taken).await != Some(true) {
            return;
        }
    }
}

/// Waits until little waits for the companion. False when it is gone.
async fn taken(account: &Account, device: u16) -> bool {
    loop {
        let waiting = account.state().devices.get(&device).map(|d| d.queue.len());
        match waiting {
            None => return false,
            Some(waiting) if waiting <= WAITING => return true,
            Some(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Answers a companion that wants messages before one that it has.
pub(super) fn on_demand(
    world: &Arc<World>,
    account: &Arc<Account>,
    device: u16,
    request: &str,
    asked: &parts::peer_data_operation_request_message::HistorySyncOnDemandRequest,
) -> Result<(), PhoneError> {
    let count = asked.on_demand_msg_count.unwrap_or(50).clamp(1, ON_DEMAND);
    let chat = asked.chat_jid.clone().unwrap_or_default();
    let oldest = asked.oldest_msg_id.clone().unwrap_or_default();
    let made_up = archive::number_of(&oldest).filter(|(number, _)| archive::jid(*number) == chat);
    let conversation = if let Some((chat, before)) = made_up {
        let from = before.saturating_sub(u64::from(count.unsigned_abs()));
        archive::conversation(&Slice { chat, messages: from..before, last: from == 0 }, start())
    } else {
        let earlier = lock(&account.phone.known).before(&chat, &oldest, count.unsigned_abs() as usize);
        let message = |known: &Arc<super::known::Known>| wa::HistorySyncMsg {
            message: MessageField::some(known.web_message_info()),
            ..Default::default()
        };
        let end_of_history_transfer = Some(earlier.len() < count.unsigned_abs() as usize);
        let messages = earlier.iter().map(message).collect();
        wa::Conversation { id: chat, messages, end_of_history_transfer, ..Default::default() }
    };
    let mut chunk = Chunk::new(Kind::ON_DEMAND, vec![conversation], 1, Some(100));
    chunk.request = Some(request.to_string());
    chunk.send(world, account, device)
}

/// Whether a message of this id is one of those that history is made up of.
pub(crate) fn is_in_archive(id: &str) -> bool {
    archive::number_of(id).is_some()
}

/// Gives every companion `chats` chats with `messages` messages each, besides what the phone has.
pub(super) fn send(
    world: &Arc<World>,
    account: &Arc<Account>,
    chats: usize,
    messages: usize,
) -> Result<(), PhoneError> {
    let size = HistorySize {
        chats: u32::try_from(chats).unwrap_or(u32::MAX),
        messages: (chats as u64).saturating_mul(messages as u64),
    };
    if size.messages > MESSAGES || u64::from(size.chats) > MESSAGES {
        return Err(PhoneError::Invalid(format!("more than {MESSAGES} messages")));
    }
    let companions = account.state().companions();
    for companion in companions {
        if size.messages <= archive::CHUNK {
            let slices: Vec<Slice> = size.chunks().flatten().collect();
            let merged = merge(slices);
            Chunk::new(Kind::RECENT, conversations(&merged, start()), 1, Some(100)).send(world, account, companion)?;
        } else {
            let rest = stream(world.clone(), account.clone(), companion, size.chunks(), size, 0);
            world.tasks.spawn_on(rest, &world.runtime);
        }
    }
    Ok(())
}

/// Puts the slices of one chat together again.
fn merge(slices: Vec<Slice>) -> Vec<Slice> {
    let mut merged: Vec<Slice> = Vec::new();
    for slice in slices {
        match merged.last_mut() {
            Some(last) if last.chat == slice.chat => {
                last.messages.start = slice.messages.start;
                last.last = slice.last;
            }
            _ => merged.push(slice),
        }
    }
    merged
}
