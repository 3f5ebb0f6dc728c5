//! `/fault/...`: faults by HTTP.

use warp::http::StatusCode;

use super::Request;
use super::answer::{Answer, Failure, done, not_found, text};
use crate::faults::Faults;

impl Request {
    /// Injects the fault that a path names.
    pub(super) fn fault(&self, path: &str) -> Answer {
        let faults = Faults::new(self.world.clone());
        let target = || Ok::<_, Failure>((self.phone("phone")?, self.device()?));
        let hit = match path {
            "/fault/drop" => {
                let (phone, device) = target()?;
                faults.drop_connection(phone.number(), device)
            }
            "/fault/freeze" => {
                let (phone, device) = target()?;
                faults.freeze(phone.number(), device, self.on()?)
            }
            "/fault/redeliver" => {
                let (phone, device) = target()?;
                let sent = faults.redeliver(phone.number(), device);
                return Ok(text(sent.to_string()));
            }
            "/fault/refuse-logins" => {
                let reason = self.query.get("reason").map(|r| r.parse());
                faults.refuse_logins(reason.transpose().map_err(|_| Failure::bad("reason"))?);
                true
            }
            "/fault/hold-acks" => {
                faults.hold_acks(self.on()?);
                true
            }
            _ => return Err(not_found()),
        };
        if hit {
            return Ok(done());
        }
        Err(Failure(StatusCode::NOT_FOUND, "the device has no connection".into()))
    }
}
