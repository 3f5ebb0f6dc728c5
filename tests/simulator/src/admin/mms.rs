//! Media: upload and download.

use warp::http::StatusCode;

use super::Request;
use super::answer::{Answer, Failure, done, json, not_found, respond};
use crate::account::lock;
use crate::faults::MediaFault;
use crate::media;

impl Request {
    /// The media host may be down, slow or lying.
    pub(super) async fn medium(&self, method: &str, path: &str) -> Answer {
        let fault = self.world.faults.media();
        match fault {
            Some(MediaFault::Down) => {
                return Err(Failure(StatusCode::SERVICE_UNAVAILABLE, "the media host is down".into()));
            }
            Some(MediaFault::Slow(pause)) => tokio::time::sleep(pause).await,
            _ => {}
        }
        match method {
            "POST" => self.upload(path),
            "DELETE" => {
                lock(&self.world.media).remove(&path[media::PATH.len()..]);
                Ok(done())
            }
            _ => self.download(path, fault == Some(MediaFault::Lying)),
        }
    }

    /// Keeps a medium and says where it is.
    fn upload(&self, path: &str) -> Answer {
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
    fn download(&self, path: &str, lying: bool) -> Answer {
        let medium = lock(&self.world.media).get(&path[media::PATH.len()..]);
        let mut medium = medium.ok_or_else(not_found)?;
        if lying {
            medium = medium.iter().map(|byte| !byte).collect::<Vec<_>>().into();
        }
        Ok(respond(StatusCode::OK, "application/octet-stream", medium))
    }
}
