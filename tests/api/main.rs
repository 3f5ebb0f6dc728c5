//! The gateway from outside: the real binary as a child process, a simulated WhatsApp in this one.
//!
//! Tests see what a user sees: HTTP, phones, signals, exit codes and files. Every test has a simulator, a gateway
//! and a data directory of its own, so they run side by side. `ROOKERY_SEED` repeats what is random in them.

mod amendments;
mod bad_input;
mod bucket;
mod chats;
mod client;
mod cluster;
mod config;
mod contacts;
mod cql;
mod crash;
mod crash_mixed;
mod demo;
mod errors;
mod faults;
mod fuzz;
mod history;
mod history_sync;
mod hosts;
mod lifecycle;
mod media;
mod media_hostile;
mod media_https;
mod media_received;
mod media_retry;
mod media_shape;
mod media_store;
mod messages;
mod metrics;
mod node;
mod openapi;
mod oracle;
mod ordering;
mod pace;
mod pairing;
mod receipts;
mod search;
mod secrets;
mod service;
mod sessions;
mod storage;
mod supervision;
mod tokens;
mod wire;
mod world;
