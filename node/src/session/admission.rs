//! How fast this node may log sessions in: a token bucket over all of them and a limit on logins under way.
//!
//! WhatsApp sees one address; thousands of logins in one second look like an attack. [`Bucket`] decides,
//! purely; [`Admission`] waits.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A token bucket; time is the caller's.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket that gets `per_second` tokens a second and holds at most `burst`.
    pub(crate) fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, tokens: burst, at: Duration::ZERO }
    }

    /// Takes a token at `now` (since any fixed start); answers how long to wait before using it. Callers that
    /// wait stand in line: the tokens they took are debts that later ones wait behind.
    pub(crate) fn take(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst) - 1.0;
        if self.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.tokens / self.per_second) }
    }

    /// Takes a token at `now` if there is one; otherwise nothing changes, and the answer is how long until there is.
    pub(crate) fn try_take(&mut self, now: Duration) -> Result<(), Duration> {
        let wait = self.take(now);
        if wait.is_zero() {
            return Ok(());
        }
        self.refund();
        Err(wait)
    }

    /// Gives a token back that was not used.
    pub(crate) fn refund(&mut self) {
        self.tokens = (self.tokens + 1.0).min(self.burst);
    }
}

/// Admits logins. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Admission {
    start: Instant,
    bucket: Arc<Mutex<Bucket>>,
    under_way: Arc<Semaphore>,
}

impl Admission {
    /// At most `per_second` logins a second after a burst of `burst`, and `concurrent` under way.
    pub(crate) fn new(per_second: f64, burst: u32, concurrent: usize) -> Self {
        Self {
            start: Instant::now(),
            bucket: Arc::new(Mutex::new(Bucket::new(per_second, f64::from(burst)))),
            under_way: Arc::new(Semaphore::new(concurrent)),
        }
    }

    /// Waits for the turn of a session that is started; the permit is kept until its login has ended.
    pub(crate) async fn enter(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.under_way).acquire_owned().await.expect("the semaphore is never closed");
        let wait = self.bucket().take(self.start.elapsed());
        tokio::time::sleep(wait).await;
        permit
    }

    /// Admits a connection that a running client makes again, if its turn comes within `patience`.
    pub(crate) async fn reenter(&self, patience: Duration) -> bool {
        let wait = {
            let mut bucket = self.bucket();
            let wait = bucket.take(self.start.elapsed());
            if wait > patience {
                bucket.refund();
                return false;
            }
            wait
        };
        tokio::time::sleep(wait).await;
        true
    }

    fn bucket(&self) -> std::sync::MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_and_the_rest_is_paced() {
        let mut bucket = Bucket::new(10.0, 2.0);
        let now = Duration::from_secs(1);
        let waits: Vec<_> = (0..4).map(|_| bucket.take(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 100, 200]);
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_burst_and_rate(gaps in prop::collection::vec(0_u64..500, 1..200)) {
            let (rate, burst) = (20.0, 5.0);
            let mut bucket = Bucket::new(rate, burst);
            let mut now = Duration::ZERO;
            let mut uses: Vec<f64> = vec![];
            for gap in gaps {
                now += Duration::from_millis(gap);
                uses.push((now + bucket.take(now)).as_secs_f64());
            }
            uses.sort_by(f64::total_cmp);
            for (i, from) in uses.iter().enumerate() {
                for (j, to) in uses.iter().enumerate().skip(i) {
                    let count = (j - i + 1) as f64;
                    prop_assert!(count <= burst + (to - from) * rate + 1.001);
                }
            }
        }
    }
}
