//! Sessions: everything between the API and WhatsApp.
//!
//! [`Sessions`] is the handle that the API holds. It finds the actor of a session, or claims the session and
//! starts one. An actor decides by its pure [`state`] machine; its `keeper` does what takes time; the `send`
//! desk and the `receive` intake carry messages past the actor, so that its mailbox stays short.

mod actor;
mod admission;
mod arrivals;
mod groups;
mod history;
mod indexer;
mod keeper;
mod media;
mod notes;
mod people;
mod placement;
mod receive;
mod registry;
mod send;
mod service;
mod sort_key;
mod state;
mod supervisor;
mod whatsapp;

pub(crate) use actor::View;
pub(crate) use admission::Admission;
pub(crate) use arrivals::{Arrival, Arrivals};
pub(crate) use media::{Found, MediaError};
pub(crate) use placement::{Alone, Place, Placement};
pub(crate) use registry::{Environment, Sessions};
pub(crate) use send::{Content, Receipt as SendReceipt, SendError, SendLimits, SendRequest, digest};
pub(crate) use service::{DeviceKey, SessionError};
pub(crate) use state::Policy;
pub(crate) use whatsapp::{ClientSettings, Connector, FileMessage, check_endpoint, file_payload, seal, sealed_length};
