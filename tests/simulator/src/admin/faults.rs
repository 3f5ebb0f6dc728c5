//! `/fault/...`: faults by HTTP, on all, on an account or on a device.

use std::time::Duration;

use warp::http::StatusCode;

use super::Request;
use super::answer::{Answer, Failure, done, text};
use super::route::{Kind, Param, Reply, Route, Run};
use super::verbs::post;
use crate::faults::{Faults, MediaFault};

/// The code of a stream error without one.
const INTERNAL_ERROR: u16 = 500;
/// How long a slow media host takes.
const SLOW_MS: usize = 5_000;

const PHONE: Param = Param::optional("phone", Kind::Phone, "the devices of this account; without it of all");
const DEVICE: Param = Param::optional("device", Kind::Integer, "this device of the account");
const ON: Param = Param::required("on", Kind::Flag, "from now on, or no longer");
const SEED: Param = Param::optional("seed", Kind::Integer, "decides what is random; 0");
const SCOPE: &[Param] = &[PHONE, DEVICE];
const SCOPE_ON: &[Param] = &[PHONE, DEVICE, ON];
const STATES: &[&str] = &["down", "slow", "lying", "well"];

/// The routes of this module.
pub(super) const ROUTES: &[Route] = &[
    hit("/fault/drop", "drops connections without a word", SCOPE, |r| Ok(r.faults()?.drop_connections())),
    hit("/fault/freeze", "stops reading and writing on connections, or resumes", SCOPE_ON, |r| {
        Ok(r.faults()?.freeze_connections(r.on()?))
    }),
    hit("/fault/cut", "breaks connections in the middle of a frame", SCOPE, |r| Ok(r.faults()?.cut_frames())),
    hit(
        "/fault/stream-error",
        "ends streams with an error",
        &[PHONE, DEVICE, Param::optional("code", Kind::Integer, "500")],
        |r| Ok(r.faults()?.stream_errors(r.error_code("code")?.unwrap_or(INTERNAL_ERROR))),
    ),
    hit("/fault/second-login", "tells connections that another login has replaced them", SCOPE, |r| {
        Ok(r.faults()?.second_logins())
    }),
    hit("/fault/unknown", "sends a stanza that no client knows", SCOPE, |r| Ok(r.faults()?.unknown_stanzas())),
    hit("/fault/remove-device", "removes devices from their accounts", SCOPE, |r| Ok(r.faults()?.remove_devices())),
    hit("/fault/end-stream", "ends streams as a server does that goes away", SCOPE, |r| Ok(r.faults()?.end_streams())),
    count("/fault/redeliver", "sends again what is not acknowledged; how much", |r| Ok(r.faults()?.redeliver_all())),
    count("/fault/exhaust-prekeys", "takes one-time prekeys away; how many", |r| Ok(r.faults()?.exhaust_all_prekeys())),
    hold(
        "/fault/refuse-logins",
        "refuses logins; without a reason: no longer",
        &[PHONE, DEVICE, Param::optional("reason", Kind::Integer, "of the `<failure>`, such as 401, 403, 405, 503")],
        |r| {
            r.faults()?.refuse_logins(r.error_code("reason")?);
            Ok(done())
        },
    ),
    hold("/fault/hold-acks", "keeps acknowledgements of messages back, or releases them", SCOPE_ON, |r| {
        r.faults()?.hold_acks(r.on()?);
        Ok(done())
    }),
    hold("/fault/duplicate", "delivers everything twice", SCOPE_ON, |r| {
        r.faults()?.duplicate(r.on()?);
        Ok(done())
    }),
    hold(
        "/fault/hold-receipts",
        "keeps receipts back, or releases them in another order",
        &[PHONE, DEVICE, ON, SEED],
        |r| {
            r.faults()?.hold_receipts(r.on()?, r.seed()?);
            Ok(done())
        },
    ),
    hold(
        "/fault/reject",
        "refuses messages; without a code: no longer",
        &[PHONE, DEVICE, Param::optional("code", Kind::Integer, "such as 463 or 479")],
        |r| {
            r.faults()?.reject(r.error_code("code")?);
            Ok(done())
        },
    ),
    hold(
        "/fault/delay",
        "slows connections down; 0 and 0: no longer",
        &[
            PHONE,
            DEVICE,
            Param::optional("ms", Kind::Integer, "of each write; 0"),
            Param::optional("jitter-ms", Kind::Integer, "at most so much more; 0"),
            SEED,
        ],
        |r| {
            let ms = |key| Ok::<_, Failure>(Duration::from_millis(r.number(key, 0)? as u64));
            r.faults()?.delay(ms("ms")?, ms("jitter-ms")?, r.seed()?);
            Ok(done())
        },
    ),
    hold(
        "/fault/break",
        "breaks connections at random; 0: no longer",
        &[PHONE, DEVICE, Param::required("probability", Kind::Number, "of each write, 0 to 1"), SEED],
        |r| {
            let probability: f64 = r.parsed("probability")?;
            if !(0.0..=1.0).contains(&probability) {
                return Err(Failure::bad("`probability` is not between 0 and 1"));
            }
            r.faults()?.break_at_random(probability, r.seed()?);
            Ok(done())
        },
    ),
    hold(
        "/fault/clock",
        "puts the server's clock ahead",
        &[Param::required("ahead", Kind::Integer, "seconds; negative: behind")],
        |r| {
            r.faults()?.clock_ahead(r.parsed("ahead")?);
            Ok(done())
        },
    ),
    Route {
        query: &[Param::optional("path", Kind::Text, "its `direct_path`; without it all media")],
        ..count("/fault/expire-media", "lets media expire; how many there were", |r| {
            Ok(r.faults()?.expire_media(r.query.get("path").map(String::as_str)))
        })
    },
    Route {
        query: &[Param::optional("path", Kind::Text, "its `direct_path`; without it all media")],
        ..count("/fault/forget-media", "lets the media host and phones forget media; how many there were", |r| {
            Ok(r.faults()?.forget_media(r.query.get("path").map(String::as_str)))
        })
    },
    hold("/fault/silent-about-media", "phones do not answer who asks them for a medium again", &[ON], |r| {
        r.faults()?.silent_about_media(r.on()?);
        Ok(done())
    }),
    hold(
        "/fault/media",
        "the media host is ill, or well",
        &[
            Param::required("state", Kind::OneOf(STATES), "how it is"),
            Param::optional("ms", Kind::Integer, "how slow; 5000"),
        ],
        media,
    ),
];

/// A fault that connections feel at once; how many is answered.
const fn hit(
    path: &'static str,
    about: &'static str,
    query: &'static [Param],
    act: fn(&Request) -> Result<usize, Failure>,
) -> Route {
    let route = post(path, about, Run::Hit(act));
    Route { query, reply: Reply::Text("how many were hit"), ..route }
}

/// A fault that is felt at once; how much it was is answered.
const fn count(path: &'static str, about: &'static str, act: fn(&Request) -> Result<usize, Failure>) -> Route {
    let route = post(path, about, Run::Count(act));
    Route { query: SCOPE, reply: Reply::Text("a number"), ..route }
}

/// A fault that holds until it is taken back.
const fn hold(path: &'static str, about: &'static str, query: &'static [Param], act: fn(&Request) -> Answer) -> Route {
    let route = post(path, about, Run::Now(act));
    Route { query, ..route }
}

/// The answer to a fault on connections. One that was to hit a device that has none has failed.
pub(super) fn hits(request: &Request, hits: usize) -> Answer {
    if hits == 0 && request.query.contains_key("device") {
        return Err(Failure(StatusCode::NOT_FOUND, "the device has no connection".into()));
    }
    Ok(text(hits.to_string()))
}

fn media(request: &Request) -> Answer {
    let fault = match request.required("state")? {
        "down" => Some(MediaFault::Down),
        "slow" => Some(MediaFault::Slow(Duration::from_millis(request.number("ms", SLOW_MS)? as u64))),
        "lying" => Some(MediaFault::Lying),
        "well" => None,
        _ => return Err(Failure::bad(format!("`state` is none of {}", STATES.join(", ")))),
    };
    request.faults()?.media(fault);
    Ok(done())
}

impl Request {
    /// Faults on whom the query names.
    fn faults(&self) -> Result<Faults, Failure> {
        let faults = Faults::new(self.world.clone());
        match (self.query.contains_key("phone"), self.query.contains_key("device")) {
            (false, false) => Ok(faults),
            (true, false) => Ok(faults.of_account(self.phone("phone")?.number())),
            _ => Ok(faults.of_device(self.phone("phone")?.number(), self.device()?)),
        }
    }

    fn seed(&self) -> Result<u64, Failure> {
        Ok(self.number("seed", 0)? as u64)
    }

    fn error_code(&self, key: &str) -> Result<Option<u16>, Failure> {
        let code = self.query.get(key).map(|c| c.parse());
        code.transpose().map_err(|_| Failure::bad(format!("`{key}` is no error code")))
    }
}
