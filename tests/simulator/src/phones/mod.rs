//! Phones: each account has one, and a test or a person drives it.
//!
//! A phone is device 0 of its account and a Signal endpoint of its own. What it receives waits in a
//! queue and is decrypted by a task that exists only while there is something to do.

mod calls;
mod content;
mod events;
mod group_verbs;
mod history;
mod inbound;
mod inbox;
mod kind;
mod known;
mod media_retry;
mod medium;
mod outbound;
mod peers;
mod prekeys;
mod profile_verbs;
mod replies;
mod rooms;
pub(crate) mod signal;
mod stores;
mod votes;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;
use wacore::libsignal::protocol::KeyPair;

pub use content::{Content, SendOptions};
pub(crate) use events::Events;
pub use events::{Activity, CallState, PhoneEvent};
pub use history::HistorySize;
pub(crate) use history::is_in_archive;
pub(crate) use inbound::receive;
pub use inbox::{InboxMessage, Receipt, ReceiptKind};
pub use kind::MessageKind;
pub use medium::MediumKind;
pub(crate) use peers::welcome;
pub(crate) use prekeys::OneTimeKeys;

use crate::account::{Account, lock};
use crate::error::PhoneError;
use crate::handshake::public_bytes;
use crate::pairing;
use crate::prekeys::{Bundle, Issued, SignedPreKey};
use crate::router;
use crate::world::World;
use inbox::{Inbox, Sent};
use known::KnownMessages;
use signal::Endpoint;

/// What an account keeps of its phone.
pub(crate) struct PhoneState {
    registration: u32,
    identity: [u8; 32],
    signed: SignedPreKey,
    one_time: OneTimeKeys,
    signal: Mutex<Endpoint>,
    backlog: Mutex<inbound::Backlog>,
    inbox: Mutex<Inbox>,
    arrived: Notify,
    sent: Mutex<Sent>,
    /// What it has written and not sent yet.
    held: Mutex<HashMap<String, outbound::Held>>,
    /// What it has sent and received lately, whole.
    known: Mutex<KnownMessages>,
    /// The history that it is made up to have.
    history: Mutex<HistorySize>,
    /// What of it was announced.
    announced: Mutex<history::Announcements>,
    /// Messages that it cannot read and asks for.
    asking: Mutex<HashSet<String>>,
    pub(crate) events: Events,
    echo: AtomicBool,
}

impl PhoneState {
    /// A phone with fresh keys, but for the account's identity.
    pub(crate) fn new(identity: &KeyPair) -> Self {
        let one_time = OneTimeKeys::default();
        let (signal, signed) = Endpoint::new(identity, one_time.clone());
        Self {
            registration: signal.registration(),
            identity: public_bytes(identity),
            signed,
            one_time,
            signal: Mutex::new(signal),
            backlog: Mutex::default(),
            inbox: Mutex::default(),
            arrived: Notify::new(),
            sent: Mutex::default(),
            held: Mutex::default(),
            known: Mutex::default(),
            history: Mutex::default(),
            announced: Mutex::default(),
            asking: Mutex::default(),
            events: Events::default(),
            echo: AtomicBool::new(false),
        }
    }

    /// Its keys for somebody who wants to write to it.
    pub(crate) fn bundle(&self) -> Issued {
        Issued {
            registration: self.registration.to_be_bytes(),
            identity: self.identity,
            signed: self.signed,
            one_time: Some(self.one_time.issue()),
            device_identity: None,
        }
    }
}

/// A companion device as its phone lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// Its number, 1 or more.
    pub device: u16,
    /// It has a connection.
    pub connected: bool,
    /// It has asked for its stanzas on that connection.
    pub active: bool,
    /// Stanzas that wait for it or for its acknowledgement.
    pub queued: usize,
    /// One-time prekeys that it has uploaded and nobody has taken.
    pub prekeys: usize,
}

/// A phone. Cheap to clone; does not keep the simulator running.
#[derive(Clone)]
pub struct Phone {
    world: Arc<World>,
    account: Arc<Account>,
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phone").field("number", &self.number()).finish_non_exhaustive()
    }
}

impl Phone {
    pub(crate) fn new(world: Arc<World>, account: Arc<Account>) -> Self {
        Self { world, account }
    }

    /// Its number, digits only.
    pub fn number(&self) -> &str {
        &self.account.number
    }

    /// The user part of its account's LID.
    pub fn lid(&self) -> String {
        self.account.lid.to_string()
    }

    /// Scans the QR code of a client, plain or as a `https://wa.me/settings/linked_devices#` link.
    /// Returns the new device as `number:device`.
    pub fn scan(&self, qr: &str) -> Result<String, PhoneError> {
        let device = pairing::scan(&self.world, &self.account, qr)?;
        Ok(format!("{}:{device}", self.number()))
    }

    /// Types the pairing code that a client shows, with or without dashes. Whether it was the right one
    /// shows on the client. Takes some hundred milliseconds of computing.
    pub fn enter_code(&self, code: &str) -> Result<(), PhoneError> {
        pairing::enter_code(&self.world, &self.account, code)
    }

    /// Sends a text to another account: to its phone, to its companions, and to the companions of this
    /// account; or to all devices of a group that is named by its JID. Returns the message id.
    pub fn send_text(&self, to_number: &str, text: &str) -> Result<String, PhoneError> {
        self.send(to_number, &Content::Text(text.to_string()))
    }

    /// Sends anything to a number or a group's JID, as [`Phone::send_text`] does.
    pub fn send(&self, to: &str, content: &Content) -> Result<String, PhoneError> {
        self.send_with(to, content, &SendOptions::default())
    }

    /// The same, in another way than the usual one.
    pub fn send_with(&self, to: &str, content: &Content, options: &SendOptions) -> Result<String, PhoneError> {
        let chat = outbound::chat(&self.world, to)?;
        outbound::send(&self.world, &self.account, &chat, content, options)
    }

    /// Sends a message that was [held back](SendOptions::held), with the time at which it was written: what refers to
    /// it may have been sent before.
    pub fn release(&self, message_id: &str) -> Result<(), PhoneError> {
        outbound::release(&self.world, &self.account, message_id)
    }

    /// Shows something as the account's status: to these numbers, or, when none are named, to all whom the phone
    /// has written to. Returns the message id.
    pub fn post_status(&self, content: &Content, numbers: &[&str]) -> Result<String, PhoneError> {
        let audience = rooms::audience(&self.world, &self.account, numbers)?;
        let chat = outbound::Chat::Status(audience);
        outbound::send(&self.world, &self.account, &chat, content, &SendOptions::default())
    }

    /// How much history a companion gets when it is linked, besides what the phone has really sent and received.
    pub fn set_history(&self, size: HistorySize) {
        *lock(&self.account.phone.history) = size;
    }

    /// Sends history to every companion: `chats` chats with `messages` messages each, in as many chunks as it
    /// takes.
    pub fn send_history(&self, chats: usize, messages: usize) -> Result<(), PhoneError> {
        history::send(&self.world, &self.account, chats, messages)
    }

    /// What it has received and what its account's other devices sent, oldest first.
    pub fn inbox(&self) -> Vec<InboxMessage> {
        lock(&self.account.phone.inbox).messages()
    }

    /// Waits for a message that matches; one that is already in the inbox will do.
    pub async fn wait_for(
        &self,
        timeout: Duration,
        mut matches: impl FnMut(&InboxMessage) -> bool,
    ) -> Result<InboxMessage, PhoneError> {
        let phone = &self.account.phone;
        let mut from = 0;
        let search = async {
            loop {
                let arrived = phone.arrived.notified();
                match lock(&phone.inbox).find(from, &mut matches) {
                    Ok(message) => return message,
                    Err(next) => from = next,
                }
                arrived.await;
            }
        };
        tokio::time::timeout(timeout, search).await.map_err(|_| PhoneError::Timeout(timeout))
    }

    /// The receipts that it got for a message that it sent, in order of arrival.
    pub fn receipts(&self, message_id: &str) -> Vec<Receipt> {
        lock(&self.account.phone.sent).receipts(message_id)
    }

    /// Opens the chat at a received message: its sender gets a read receipt.
    pub fn mark_read(&self, message_id: &str) -> Result<(), PhoneError> {
        replies::seen(&self.world, &self.account, message_id, "read")
    }

    /// Plays a received sound or film: its sender gets a receipt.
    pub fn mark_played(&self, message_id: &str) -> Result<(), PhoneError> {
        replies::seen(&self.world, &self.account, message_id, "played")
    }

    /// Its companion devices by number.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        let state = self.account.state();
        let device = |(number, device): (&u16, &crate::account::Device)| DeviceInfo {
            device: *number,
            connected: device.link.is_some(),
            active: device.active,
            queued: device.queue.len(),
            prekeys: device.bundle.as_deref().map_or(0, Bundle::one_time_left),
        };
        state.devices.iter().map(device).collect()
    }

    /// Logs a companion out: it is told so, its connection ends, and it can never log in again.
    pub fn unlink(&self, device: u16) -> Result<(), PhoneError> {
        if router::remove_device(&self.world, &self.account, device) {
            Ok(())
        } else {
            Err(PhoneError::UnknownDevice(device))
        }
    }

    /// Loses its Signal sessions, as a phone does that is restored from a backup: it asks for what it
    /// cannot read to be sent again.
    pub fn forget_sessions(&self) {
        lock(&self.account.phone.signal).forget_sessions();
    }

    /// Answers every text from others with `echo: TEXT`, or no longer. Echoes are not echoed.
    pub fn set_echo(&self, echo: bool) {
        self.account.phone.echo.store(echo, Ordering::Relaxed);
    }
}
