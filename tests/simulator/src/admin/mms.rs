//! Media: upload and download.

use warp::http::StatusCode;

use super::Request;
use super::answer::{Answer, Failure, json, not_found, respond};
use crate::account::lock;
use crate::media;

impl Request {
    /// Keeps a medium and says where it is.
    pub(super) fn upload(&self, path: &str) -> Answer {
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.is_empty() {
            return Err(not_found());
        }
        if !media::store(&self.world, name, self.body.clone()) {
            return Err(Failure(StatusCode::PAYLOAD_TOO_LARGE, "too large".into()));
        }
        let host = self.world.media_host.get().cloned().unwrap_or_default();
        let direct_path = media::direct_path(name);
        json(&serde_json::json!({
            "url": format!("https://{host}{direct_path}"),
            "direct_path": direct_path,
        }))
    }

    /// Gives a medium.
    pub(super) fn download(&self, path: &str) -> Answer {
        let medium = lock(&self.world.media).get(&path[media::PATH.len()..]);
        let medium = medium.ok_or_else(not_found)?;
        Ok(respond(StatusCode::OK, "application/octet-stream", medium))
    }
}
