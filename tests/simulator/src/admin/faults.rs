//! `/fault/...`: faults by HTTP.

use std::time::Duration;

use warp::http::StatusCode;

use super::Request;
use super::answer::{Answer, Failure, done, not_found, text};
use crate::faults::{Faults, MediaFault};
use crate::phones::Phone;

/// The code of a stream error without one.
const INTERNAL_ERROR: u16 = 500;
/// How long a slow media host takes.
const SLOW: Duration = Duration::from_secs(5);

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
            "/fault/cut" => {
                let (phone, device) = target()?;
                faults.cut_frame(phone.number(), device)
            }
            "/fault/stream-error" => {
                let (phone, device) = target()?;
                faults.stream_error(phone.number(), device, self.error_code()?.unwrap_or(INTERNAL_ERROR))
            }
            "/fault/unknown" => {
                let (phone, device) = target()?;
                faults.unknown_stanza(phone.number(), device)
            }
            "/fault/exhaust-prekeys" => {
                let (phone, device) = target()?;
                return Ok(text(faults.exhaust_prekeys(phone.number(), device).to_string()));
            }
            _ => return self.general_fault(&faults, path),
        };
        if hit {
            return Ok(done());
        }
        Err(Failure(StatusCode::NOT_FOUND, "the device has no connection".into()))
    }

    /// Faults that are no single device's.
    fn general_fault(&self, faults: &Faults, path: &str) -> Answer {
        let seed = || Ok::<_, Failure>(self.number("seed", 0)? as u64);
        match path {
            "/fault/refuse-logins" => {
                let reason = self.query.get("reason").map(|r| r.parse());
                faults.refuse_logins(reason.transpose().map_err(|_| Failure::bad("reason"))?);
            }
            "/fault/hold-acks" => faults.hold_acks(self.on()?),
            "/fault/duplicate" => faults.duplicate(self.on()?),
            "/fault/hold-receipts" => faults.hold_receipts(self.on()?, seed()?),
            "/fault/reject" => {
                let phone = self.query.get("phone").map(|_| self.phone("phone")).transpose()?;
                faults.reject_messages(phone.as_ref().map(Phone::number), self.error_code()?);
            }
            "/fault/delay" => {
                let ms = |key| Ok::<_, Failure>(Duration::from_millis(self.number(key, 0)? as u64));
                faults.delay(ms("ms")?, ms("jitter-ms")?, seed()?);
            }
            "/fault/clock" => {
                let seconds = self.required("ahead")?.parse().map_err(|_| Failure::bad("`ahead` is no number"))?;
                faults.clock_ahead(seconds);
            }
            "/fault/media" => faults.media(match self.required("state")? {
                "down" => Some(MediaFault::Down),
                "slow" => Some(MediaFault::Slow(SLOW)),
                "lying" => Some(MediaFault::Lying),
                "well" => None,
                _ => return Err(Failure::bad("`state` is none of down, slow, lying, well")),
            }),
            _ => return Err(not_found()),
        }
        Ok(done())
    }

    fn error_code(&self) -> Result<Option<u16>, Failure> {
        let code = self.query.get("code").map(|c| c.parse());
        code.transpose().map_err(|_| Failure::bad("`code` is no error code"))
    }
}
