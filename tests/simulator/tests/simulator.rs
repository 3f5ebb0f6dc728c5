//! Drives the simulator with real clients, and with clients that misbehave.

#[path = "simulator/addressing.rs"]
mod addressing;
#[path = "simulator/admin.rs"]
mod admin;
#[path = "simulator/app_state.rs"]
mod app_state;
#[path = "simulator/bad_input.rs"]
mod bad_input;
#[path = "simulator/calls.rs"]
mod calls;
#[path = "simulator/client.rs"]
mod client;
#[path = "simulator/content.rs"]
mod content;
#[path = "simulator/devices.rs"]
mod devices;
#[path = "simulator/effects.rs"]
mod effects;
#[path = "simulator/exchange.rs"]
mod exchange;
#[path = "simulator/faults.rs"]
mod faults;
#[path = "simulator/group_settings.rs"]
mod group_settings;
#[path = "simulator/groups.rs"]
mod groups;
#[path = "simulator/history.rs"]
mod history;
#[path = "simulator/http.rs"]
mod http;
#[path = "simulator/media.rs"]
mod media;
#[path = "simulator/messaging.rs"]
mod messaging;
#[path = "simulator/noticed.rs"]
mod noticed;
#[path = "simulator/oracle.rs"]
mod oracle;
#[path = "simulator/pairing.rs"]
mod pairing;
#[path = "simulator/profile.rs"]
mod profile;
#[path = "simulator/proxy.rs"]
mod proxy;
#[path = "simulator/raw.rs"]
mod raw;
#[path = "simulator/readme.rs"]
mod readme;
#[path = "simulator/refusals.rs"]
mod refusals;
#[path = "simulator/scoped.rs"]
mod scoped;
#[path = "simulator/state.rs"]
mod state;
#[path = "simulator/status.rs"]
mod status;
#[path = "simulator/wrong.rs"]
mod wrong;
