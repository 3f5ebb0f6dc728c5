//! Points in time, in microseconds, as the REST contract writes them.

use jiff::fmt::temporal::Pieces;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// The last point in time, in microseconds: 9999-12-30T22:00:00Z.
const LAST: i64 = 253_402_207_200_000_000;

/// A point in time: microseconds since the Unix epoch, UTC.
///
/// In JSON it is RFC 3339 with exactly six fractional digits (`2025-08-19T11:46:21.638578Z`); in a binary
/// encoding it is the bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The present by the system clock.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }

    /// From microseconds since the Unix epoch; clamped to 1970 and the last point in time that has a text.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros.clamp(0, LAST))
    }

    /// From seconds since the Unix epoch, the unit of WhatsApp's stanzas.
    pub fn from_secs(secs: i64) -> Self {
        Self::from_micros(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the Unix epoch.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This point in time plus `secs` seconds.
    pub fn plus_secs(self, secs: i64) -> Self {
        Self::from_micros(self.0.saturating_add(secs.saturating_mul(1_000_000)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_microsecond(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{time:.6}")
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => Ok(Self::from_micros(time.as_microsecond())),
            Err(error) => beyond(text).ok_or(error),
        }
    }
}

/// The first or the last point in time, for a valid text that says an earlier or a later one: RFC 3339 goes a day
/// further than a [`jiff::Timestamp`] does, and `9999-12-31T23:59:59Z` is what many write for "whenever".
fn beyond(text: &str) -> Option<Timestamp> {
    let pieces = Pieces::parse(text).ok()?;
    let time = pieces.date().to_datetime(pieces.time()?);
    let out_of_range = pieces.to_numeric_offset()?.to_timestamp(time).is_err();
    out_of_range.then(|| Timestamp::from_micros(if time.year() > 0 { i64::MAX } else { i64::MIN }))
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            i64::deserialize(deserializer).map(Self::from_micros)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_six_fractional_digits() {
        assert_eq!(Timestamp::from_secs(1_755_603_981).to_string(), "2025-08-19T11:46:21.000000Z");
        assert_eq!(Timestamp::from_micros(1_755_603_981_638_578).to_string(), "2025-08-19T11:46:21.638578Z");
    }

    #[test]
    fn the_years_end_where_texts_do() {
        let (first, last) = (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
        for text in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999+23:59", "9999-12-31T00:00:00-12:00"] {
            assert_eq!(text.parse::<Timestamp>().unwrap(), last, "{text}");
        }
        for text in ["0000-01-01T00:00:00Z", "-009999-01-01T00:00:00Z", "1969-12-31T23:59:59Z"] {
            assert_eq!(text.parse::<Timestamp>().unwrap(), first, "{text}");
        }
        for text in ["10000-01-01T00:00:00Z", "9999-12-31", "9999-12-31T23:59:59", "9999-12-32T00:00:00Z", "9999"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
        assert_eq!(last.to_string().parse::<Timestamp>().unwrap(), last);
    }

    #[test]
    fn text_round_trips() {
        let time = Timestamp::from_micros(1_755_603_981_638_578);
        assert_eq!(serde_json::from_str::<Timestamp>(&serde_json::to_string(&time).unwrap()).unwrap(), time);
    }
}
