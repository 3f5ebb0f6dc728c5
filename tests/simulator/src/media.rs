//! Media: what clients uploaded, encrypted, and the history that phones provide.
//!
//! Clients hardcode `https://HOST/PATH`, so that the advertised host is a TLS port of its own with the
//! self-signed certificate, which leads to the same routes as the admin port. Bounded: the oldest media
//! are forgotten.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use wacore_binary::Node;

use crate::account::lock;
use crate::router::Session;
use crate::stanza::element;
use crate::world::World;

/// Where media are served.
pub(crate) const PATH: &str = "/v/sim/";
/// Clients append `&hash=...` to the path, so that it must have a query already.
const QUERY: &str = "?ccb=11-4";
/// How long an authorization to upload is valid, in seconds.
const TTL_SECONDS: u32 = 3_600;

/// Media by name.
pub(crate) struct MediaStore {
    media: HashMap<String, Bytes>,
    order: VecDeque<String>,
    bytes: usize,
    limit: usize,
}

impl MediaStore {
    /// A store of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { media: HashMap::new(), order: VecDeque::new(), bytes: 0, limit }
    }

    /// Keeps a medium; the oldest make room. False when it is larger than the whole store.
    pub(crate) fn put(&mut self, name: &str, data: Bytes) -> bool {
        if data.len() > self.limit {
            return false;
        }
        self.remove(name);
        while self.bytes + data.len() > self.limit {
            let Some(oldest) = self.order.front().cloned() else {
                break;
            };
            self.remove(&oldest);
        }
        self.bytes += data.len();
        self.order.push_back(name.to_string());
        self.media.insert(name.to_string(), data);
        true
    }

    /// A medium.
    pub(crate) fn get(&self, name: &str) -> Option<Bytes> {
        self.media.get(name).cloned()
    }

    /// Forgets a medium.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(data) = self.media.remove(name) {
            self.bytes -= data.len();
            self.order.retain(|n| n != name);
        }
    }
}

/// The path under which clients ask for a medium.
pub(crate) fn direct_path(name: &str) -> String {
    format!("{PATH}{name}{QUERY}")
}

/// Keeps a medium. False when it is too large.
pub(crate) fn store(world: &World, name: &str, data: Bytes) -> bool {
    lock(&world.media).put(name, data)
}

/// Answers `<media_conn>`: where to upload.
pub(crate) fn connection(session: &Session, node: &Node) {
    let host = session.world.media_host.get().cloned().unwrap_or_default();
    let host = element("host").attr("hostname", host).attr("type", "primary").build();
    let connection = element("media_conn")
        .attr("auth", "simulator")
        .attr("ttl", TTL_SECONDS)
        .attr("auth_ttl", TTL_SECONDS)
        .attr("max_buckets", 12)
        .children([host]);
    session.reply(node, Some(connection.build()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_media_make_room() {
        let mut store = MediaStore::new(100);
        assert!(!store.put("huge", Bytes::from(vec![0; 101])));
        for name in ["a", "b", "c"] {
            assert!(store.put(name, Bytes::from(vec![0; 40])));
        }
        assert!(store.get("a").is_none());
        assert!(store.get("b").is_some() && store.get("c").is_some());
        assert!(store.put("b", Bytes::from(vec![0; 60])), "replaced");
        assert_eq!(store.bytes, 100);
    }
}
