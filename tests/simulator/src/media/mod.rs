//! Media: what clients and phones uploaded, encrypted, and what else is too large for a stanza: history,
//! snapshots of app state, profile pictures.
//!
//! Clients hardcode `https://HOST/PATH`, so that the advertised host is a TLS port of its own with the
//! self-signed certificate, which leads to the same routes as the admin port ([`http`]).

pub(crate) mod http;
mod store;

use bytes::Bytes;
use wacore_binary::Node;

pub(crate) use store::{Found, MediaStore};

use crate::account::lock;
use crate::router::Session;
use crate::stanza::element;
use crate::world::World;

/// Where media are served.
const PATH: &str = "/v/sim/";
/// Where they are uploaded.
const UPLOAD_PATH: &str = "/mms/";
/// Clients append `&hash=...` to the path, so that it must have a query already.
const QUERY: &str = "?ccb=11-4";
/// How long an authorization to upload is valid, in seconds.
const TTL_SECONDS: u32 = 3_600;
/// The authorization to upload.
const AUTH: &str = "simulator";

/// The path under which clients ask for a medium.
pub(crate) fn direct_path(name: &str) -> String {
    format!("{PATH}{name}{QUERY}")
}

/// The URL under which clients ask for a medium.
pub(crate) fn url(world: &World, name: &str) -> String {
    let host = world.media_host.get().map_or("", String::as_str);
    format!("https://{host}{}", direct_path(name))
}

/// The name in a [`direct_path`].
pub(crate) fn name(direct_path: &str) -> Option<&str> {
    direct_path.strip_prefix(PATH)?.split('?').next()
}

/// Keeps a medium. False when it is too large.
pub(crate) fn store(world: &World, name: &str, data: Bytes) -> bool {
    lock(&world.media).put(name, data, true)
}

/// A medium, if it can be downloaded.
pub(crate) fn get(world: &World, name: &str) -> Option<Bytes> {
    match lock(&world.media).find(name) {
        Found::Whole(data) => Some(data),
        _ => None,
    }
}

/// Answers `<media_conn>`: where to upload.
pub(crate) fn connection(session: &Session, node: &Node) {
    let host = session.world.media_host.get().cloned().unwrap_or_default();
    let host = element("host").attr("hostname", host).attr("type", "primary").build();
    let connection = element("media_conn")
        .attr("auth", AUTH)
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
    fn a_path_leads_back_to_its_name() {
        assert_eq!(name(&direct_path("medium-7")), Some("medium-7"));
        assert_eq!(name("/v/sim/medium-7?ccb=11-4&hash=x"), Some("medium-7"));
        assert_eq!(name("/v/other/medium-7"), None);
    }
}
