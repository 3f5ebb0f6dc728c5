//! What a claim of unknown outcome came to. Pure.

use crate::Owner;

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Claim from this owner row.
    TryFrom(Owner),
    /// Somebody else owns the session.
    Lost,
    /// There is no such session.
    Gone,
}

/// Given what was seen, what was wanted, and what is there now. A claim that turned out to be ours is made once more:
/// it may have been answered to nobody for long, and an epoch is used by the one who saw it won.
pub(super) fn settle(seen: &Owner, wanted: &Owner, now: Option<Owner>) -> Settled {
    match now {
        None => Settled::Gone,
        Some(now) if now == *wanted || now == *seen => Settled::TryFrom(now),
        Some(_) => Settled::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_protocol::{Epoch, Incarnation};

    #[test]
    fn a_claim_is_tried_again_only_from_what_is_ours_or_unchanged() {
        let owner = |epoch, incarnation| Owner {
            epoch: Epoch(epoch),
            node: Some(("n".parse().unwrap(), Incarnation(incarnation))),
        };
        let (seen, wanted, other) = (owner(1, 1), owner(2, 2), owner(2, 3));
        assert_eq!(settle(&seen, &wanted, Some(wanted.clone())), Settled::TryFrom(wanted.clone()));
        assert_eq!(settle(&seen, &wanted, Some(seen.clone())), Settled::TryFrom(seen.clone()));
        assert_eq!(settle(&seen, &wanted, Some(other)), Settled::Lost);
        assert_eq!(settle(&seen, &wanted, None), Settled::Gone);
    }
}
