//! A WhatsApp server with phones, for tests and for development without a phone.
//!
//! It speaks the real protocol (Noise XX and IK, binary stanzas, Signal) and answers as WhatsApp
//! does, so that client libraries of any author pair with it and exchange messages. Every account has
//! a phone: a Signal endpoint of its own that a test drives through [`Phone`].
//!
//! ```no_run
//! # async fn example(qr: &str) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use whatsapp_simulator::{Config, Simulator};
//!
//! let simulator = Simulator::start(Config::default()).await?;
//! println!("point a client at {}", simulator.websocket_url());
//! let phone = simulator.phone("15550001");
//! phone.scan(qr)?;
//! simulator.phone("15550002").send_text("15550001", "hello")?;
//! let message = phone.wait_for(Duration::from_secs(5), |m| m.text == "hello").await?;
//! assert_eq!(message.from, "15550002");
//! assert!(simulator.violations().is_empty());
//! simulator.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//!
//! - Bytes: [`transport`], [`handshake`], [`frames`], [`decode`], [`connection`], [`link`].
//! - Stanzas: [`router`] and one module a topic ([`pairing`], [`prekeys`], [`usync`], [`messages`],
//!   [`phash`], [`receipts`], [`groups`], [`status`], [`app_state`], [`presence`], [`profile`], [`settings`],
//!   [`calls`]); what cannot be handled: [`refusals`].
//! - State: [`world`] (the registry), [`account`] (one lock an account), [`queue`] (what a device has
//!   not acknowledged), [`media`].
//! - Phones: [`phones`].
//! - Control: [`faults`], [`oracle`], [`ledger`], [`stats`], [`admin`].
//!
//! # Locks
//!
//! A phone's Signal lock may be held while an account's state lock is taken, never the reverse, and no
//! two account state locks are ever held at once. No lock is held across an await.

#![allow(rustdoc::private_intra_doc_links)] // the map above is for readers of the source as well

mod account;
mod admin;
mod app_state;
mod calls;
mod config;
mod connection;
mod decode;
mod error;
mod faults;
mod frames;
#[doc(hidden)]
pub mod fuzzing;
mod groups;
mod handshake;
mod ledger;
mod link;
mod media;
mod messages;
mod oracle;
mod pairing;
mod phash;
mod phones;
mod prekeys;
mod presence;
mod profile;
mod queue;
mod receipts;
mod refusals;
mod router;
mod server;
mod settings;
mod stanza;
mod stats;
mod status;
mod transport;
mod usync;
mod world;

pub use admin::{admin_openapi, admin_routes};
pub use app_state::{ChatState, StateChange};
pub use config::{Config, Limits};
pub use error::{PhoneError, StartError};
pub use faults::{Faults, MediaFault};
pub use groups::GroupOptions;
pub use ledger::{Acknowledged, Cause, Delivery, DeviceTrace, Lost, Trace};
pub use oracle::{Connection, Notice, NoticeKind, Violation, ViolationKind};
pub use phones::{
    Activity, CallState, Content, DeviceInfo, HistorySize, InboxMessage, MediumKind, MessageKind, Phone, PhoneEvent,
    Receipt, ReceiptKind, SendOptions,
};
pub use profile::BusinessProfile;
pub use server::{Handle, Simulator};
pub use stats::Stats;
