//! Clients of other authors, unmodified, with the simulator and with the gateway: Baileys and whatsmeow.
//!
//! They pair, log in again, receive what has waited, and exchange texts, media, receipts, reactions and group
//! messages with each other, with simulated phones and with the gateway through its REST. If they can, so can every
//! client that speaks to WhatsApp: the simulator is no friend of our own client alone.
//!
//! Each client is a program of its own that is driven by lines of JSON (`README.md`). Where its tools (Node.js, Go)
//! are missing, a test says so on standard error and passes; with `CI=true` it fails.
//!
//! Messages between two devices go one way at a time: whatsmeow loses some when they cross, with WhatsApp as well,
//! because it sends with the ratchet state that it had before it received.

mod account;
mod devices;
mod exchange;
mod gateway;
mod groups;
mod pairing;
mod peer;
mod tools;

#[path = "../api/client.rs"]
#[expect(dead_code, reason = "the tests of the API ask for more")]
mod client;
#[path = "../api/node.rs"]
#[expect(dead_code, reason = "the tests of the API do more to a gateway")]
mod node;
#[path = "../api/storage.rs"]
mod storage;
#[path = "../api/world.rs"]
#[expect(dead_code, reason = "the tests of the API need more of it")]
mod world;
