//! The times of the cluster, checked against each other.
//!
//! One owner a session rests on this: whoever declares a node dead has waited longer than the node may act.

use std::time::Duration;

/// The times of membership and leases. All nodes of a cluster should have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// How often a node renews its row. `cluster.renew_ms`
    pub renew: Duration,
    /// How long a renewal may take before its outcome counts as unknown. `cluster.renew_timeout_ms`
    pub renew_timeout: Duration,
    /// How long a node may act after it sent a renewal that succeeded. `cluster.lease_ms`
    pub lease: Duration,
    /// How long an observer sees no renewal before it declares a node dead. `cluster.observe_ms`
    pub observe: Duration,
    /// How often the rows of all nodes are read. `cluster.poll_ms`
    pub poll: Duration,
    /// Whether a node whose link was reset and whose port refuses connections is declared dead at once.
    /// `cluster.fast_death`
    pub fast_death: bool,
    /// How many refused connections in a row that takes. `cluster.refusals`
    pub refusals: u32,
    /// How long each observer after the first waits for those before it to declare a death, so that a node's death
    /// is not declared by all others at once. `cluster.stagger_ms`
    pub stagger: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            renew: Duration::from_secs(1),
            renew_timeout: Duration::from_secs(3),
            lease: Duration::from_secs(6),
            observe: Duration::from_secs(9),
            poll: Duration::from_secs(1),
            fast_death: true,
            refusals: 3,
            stagger: Duration::from_millis(100),
        }
    }
}

/// Two times do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct TimingError {
    /// The field of the configuration, as it is written there.
    pub field: &'static str,
    /// What it must be.
    pub reason: String,
}

impl Timings {
    /// Refuses times under which a node could lose its lease for nothing, or be succeeded while it still acts.
    pub fn validate(&self) -> Result<(), TimingError> {
        let least = |field, value: Duration, least: Duration, why: &str| {
            let reason = format!("must be at least {}: {why}", least.as_millis());
            if value < least { Err(TimingError { field, reason }) } else { Ok(()) }
        };
        least("cluster.renew_ms", self.renew, Duration::from_millis(100), "every renewal is a conditional write")?;
        least("cluster.renew_timeout_ms", self.renew_timeout, self.renew, "no less than renew_ms")?;
        least("cluster.poll_ms", self.poll, Duration::from_millis(100), "every poll reads the rows of all nodes")?;
        least(
            "cluster.lease_ms",
            self.lease,
            self.renew * 2 + self.renew_timeout,
            "one renewal may be lost, so twice renew_ms and renew_timeout_ms must fit",
        )?;
        least(
            "cluster.observe_ms",
            self.observe,
            self.lease * 5 / 4,
            "a quarter more than lease_ms, since clocks run differently and a node needs time to stop",
        )?;
        least("cluster.observe_ms", self.observe, self.poll * 3, "three times poll_ms, since a read may be lost")?;
        least("cluster.observe_ms", self.observe, self.stagger * 4, "four times stagger_ms")?;
        let longest = Duration::from_secs(600);
        if self.observe > longest {
            let reason = format!("must be at most {}", longest.as_millis());
            return Err(TimingError { field: "cluster.observe_ms", reason });
        }
        if self.refusals == 0 {
            return Err(TimingError { field: "cluster.refusals", reason: "must be at least 1".to_owned() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl Fn(&mut Timings)) -> &'static str {
        let mut timings = Timings::default();
        change(&mut timings);
        timings.validate().unwrap_err().field
    }

    #[test]
    fn times_that_do_not_go_together_are_refused_by_name() {
        Timings::default().validate().unwrap();
        let ms = Duration::from_millis;
        assert_eq!(refused(|t| t.renew = ms(50)), "cluster.renew_ms");
        assert_eq!(refused(|t| t.renew_timeout = ms(500)), "cluster.renew_timeout_ms");
        assert_eq!(refused(|t| t.poll = ms(0)), "cluster.poll_ms");
        assert_eq!(refused(|t| t.lease = ms(4_999)), "cluster.lease_ms");
        assert_eq!(refused(|t| t.observe = ms(7_499)), "cluster.observe_ms");
        assert_eq!(refused(|t| t.poll = ms(3_001)), "cluster.observe_ms");
        assert_eq!(refused(|t| t.stagger = ms(3_001)), "cluster.observe_ms");
        assert_eq!(refused(|t| t.observe = ms(600_001)), "cluster.observe_ms");
        assert_eq!(refused(|t| t.refusals = 0), "cluster.refusals");
        let error = Timings { observe: ms(7_000), ..Timings::default() }.validate().unwrap_err();
        assert!(error.to_string().starts_with("cluster.observe_ms must be at least 7500: "), "{error}");
    }
}
