//! The clock of leases: it never steps, and counts the time for which the machine was suspended.
//!
//! A lease on a clock that stands still during a suspension would be valid again on waking up, long after others have
//! taken over. Moments of different machines are never compared.

use std::{ops::Add, time::Duration};

/// A moment on the clock of one machine, in nanoseconds since some fixed moment before the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment this many nanoseconds after the clock's zero.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's zero.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero when it is yet to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Where `now` comes from, so that tests can hold it still, and step it.
pub trait Clock: Send + Sync + 'static {
    /// The present moment; never before an earlier answer.
    fn now(&self) -> Moment;
}

/// `CLOCK_BOOTTIME`: monotonic, and running while the machine is suspended.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Moment {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Time since boot: neither part is negative, and 64 bits of nanoseconds last for centuries.
        Moment(time.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec.cast_unsigned()))
    }
}

impl<F: Fn() -> Moment + Send + Sync + 'static> Clock for F {
    fn now(&self) -> Moment {
        self()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs_forward() {
        let first = BootClock.now();
        assert!(first > Moment::default());
        let second = BootClock.now();
        assert!(second >= first);
        assert_eq!(first.since(second + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!((first + Duration::from_secs(1)).since(first), Duration::from_secs(1));
    }
}
