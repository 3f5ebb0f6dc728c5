//! Drives the simulator with real clients, and with clients that misbehave.

#[path = "simulator/bad_input.rs"]
mod bad_input;
#[path = "simulator/client.rs"]
mod client;
#[path = "simulator/content.rs"]
mod content;
#[path = "simulator/devices.rs"]
mod devices;
#[path = "simulator/exchange.rs"]
mod exchange;
#[path = "simulator/faults.rs"]
mod faults;
#[path = "simulator/groups.rs"]
mod groups;
#[path = "simulator/messaging.rs"]
mod messaging;
#[path = "simulator/pairing.rs"]
mod pairing;
#[path = "simulator/raw.rs"]
mod raw;
#[path = "simulator/state.rs"]
mod state;
#[path = "simulator/wrong.rs"]
mod wrong;
