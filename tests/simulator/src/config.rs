//! What can be set when a simulator starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Settings of one simulator. The default listens on free ports of the loopback interface, over TLS.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect by websocket.
    pub listen: SocketAddr,
    /// Where the admin routes and the media are served over plain HTTP.
    pub admin: SocketAddr,
    /// Serve `ws://` instead of `wss://` with a self-signed certificate. Media are served over TLS on a
    /// port of their own in both cases, because clients hardcode `https://` for them.
    pub plain: bool,
    /// How long a pairing reference (the first field of a QR code) can be scanned.
    pub pairing_refs_ttl: Duration,
    /// How long a connection may take from its TCP accept to its login payload.
    pub handshake_timeout: Duration,
    /// How long the server waits for a client to close after it was told to go (`515`, `replaced`,
    /// `<failure>`). Closing at once could overtake the stanza that says why.
    pub close_grace: Duration,
    /// How long a connection may still send stanzas that were on their way when it was told `replaced`.
    pub replaced_grace: Duration,
    /// Groups that clients make address their members by LID. Phones choose for each group.
    pub lid_groups: bool,
    /// How long a medium can be downloaded; then the media host answers 410, and a phone that has it may upload
    /// it again.
    pub media_ttl: Duration,
    /// Bounds on what clients can make the simulator keep.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: loopback,
            admin: loopback,
            plain: false,
            pairing_refs_ttl: Duration::from_secs(180),
            handshake_timeout: Duration::from_secs(20),
            close_grace: Duration::from_secs(5),
            replaced_grace: Duration::from_secs(2),
            lid_groups: false,
            media_ttl: Duration::from_secs(30 * 86_400),
            limits: Limits::default(),
        }
    }
}

/// Bounds on memory and sizes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; further ones are closed at accept.
    pub connections: usize,
    /// Bytes of one frame after the handshake. A longer one ends the connection.
    pub frame_bytes: usize,
    /// Bytes of one frame during the handshake.
    pub handshake_frame_bytes: usize,
    /// Companion devices an account may have. WhatsApp allows 4.
    pub companion_devices: usize,
    /// One-time prekeys that are kept for a device.
    pub prekeys: usize,
    /// Stanzas that wait for a device or for its acknowledgement.
    pub queued_stanzas: usize,
    /// Bytes of those stanzas.
    pub queued_bytes: usize,
    /// Replies that may wait for a client that does not read, before its requests are no longer read.
    pub pending_replies: usize,
    /// Messages that a phone's inbox keeps; older ones are forgotten.
    pub inbox_messages: usize,
    /// Stanzas that wait for a phone to decrypt them.
    pub phone_backlog: usize,
    /// Bytes of one uploaded medium.
    pub media_bytes: u64,
    /// Bytes of all media together; the oldest are forgotten.
    pub media_total_bytes: usize,
    /// Members of a group.
    pub group_members: usize,
    /// Patches of one app state collection.
    pub app_state_patches: usize,
    /// Acknowledgements that `hold_acks` keeps back.
    pub held_acks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            frame_bytes: 4 << 20,
            handshake_frame_bytes: 64 << 10,
            companion_devices: 4,
            prekeys: 2_000,
            queued_stanzas: 200_000,
            queued_bytes: 256 << 20,
            pending_replies: 20_000,
            inbox_messages: 200_000,
            phone_backlog: 200_000,
            media_bytes: 100 << 20,
            media_total_bytes: 512 << 20,
            group_members: 1_024,
            app_state_patches: 10_000,
            held_acks: 200_000,
        }
    }
}
