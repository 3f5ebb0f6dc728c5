//! Turns to take files in: so many at a time and, of one user, at most half of them.
//!
//! A user whose hosts hang keeps the others waiting for no longer than it takes to see that these have turns of their own.
//! Whoever is behind others waits, and gives up after a time. What is kept of a user goes with the last of the turns.

use rookery_protocol::UserId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// Why there was no turn in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// The user has as many as a user may have.
    User,
    /// All are taken.
    All,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _of_user: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// The turns of all users.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    share: usize,
    /// Of those who have turns, or wait for them.
    users: Mutex<HashMap<UserId, Weak<Semaphore>>>,
}

impl Turns {
    /// So many at a time.
    pub(super) fn new(count: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(count)), share: (count / 2).max(1), users: Mutex::default() }
    }

    /// Waits for a turn of this user.
    pub(super) async fn take(&self, user: UserId, patience: Duration) -> Result<Turn, Late> {
        let deadline = Instant::now() + patience;
        // The user's own first, so that nobody has one of all while waiting for that.
        let of_user = timeout_at(deadline, self.of_user(user).acquire_owned()).await;
        let Ok(Ok(of_user)) = of_user else { return Err(Late::User) };
        let of_all = timeout_at(deadline, Arc::clone(&self.all).acquire_owned()).await;
        let Ok(Ok(of_all)) = of_all else { return Err(Late::All) };
        Ok(Turn { _of_user: of_user, _of_all: of_all })
    }

    fn of_user(&self, user: UserId) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = users.get(&user).and_then(Weak::upgrade) {
            return known;
        }
        users.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(self.share));
        users.insert(user, Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    fn known(turns: &Turns) -> usize {
        turns.users.lock().unwrap().len()
    }

    #[tokio::test]
    async fn one_user_leaves_half_to_the_others() {
        let turns = Turns::new(5);
        let [greedy, other, third] = [1, 2, 3].map(|n| UserId::from_bytes([n; 16]));
        let held = [turns.take(greedy, SOON).await.unwrap(), turns.take(greedy, SOON).await.unwrap()];
        assert_eq!(turns.take(greedy, SOON).await.err(), Some(Late::User));
        let others = [turns.take(other, SOON).await.unwrap(), turns.take(other, SOON).await.unwrap()];
        let last = turns.take(third, SOON).await.unwrap();
        assert_eq!(turns.take(third, SOON).await.err(), Some(Late::All));
        drop(others);
        let again = turns.take(third, SOON).await.unwrap();
        drop(held);
        // Who waits has the turn that becomes free.
        let waiting = turns.take(third, Duration::from_secs(60));
        let freed = async {
            tokio::task::yield_now().await;
            drop(last);
        };
        let (waited, ()) = tokio::join!(waiting, freed);
        waited.unwrap();
        drop(again);
        drop(turns.take(greedy, SOON).await.unwrap());
        let _one = turns.take(other, SOON).await.unwrap();
        assert_eq!(known(&turns), 1, "nothing is kept of those who have none");
    }

    #[tokio::test]
    async fn where_there_is_one_turn_it_is_anybodys() {
        let turns = Turns::new(1);
        let [one, other] = [1, 2].map(|n| UserId::from_bytes([n; 16]));
        let turn = turns.take(one, SOON).await.unwrap();
        assert_eq!(turns.take(other, SOON).await.err(), Some(Late::All));
        drop(turn);
        turns.take(other, SOON).await.unwrap();
    }
}
