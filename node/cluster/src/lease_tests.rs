use super::*;

const ME: Incarnation = Incarnation(7);

fn at(millis: u64) -> Moment {
    Moment::from_nanos(1_000_000_000_000 + millis * 1_000_000)
}

fn keeper() -> (Keeper, Lease) {
    let lease = Lease::new(|| at(0));
    (Keeper::joined(ME, 0, at(0), Timings::default(), lease.clone()), lease)
}

fn row(seq: u64, status: Status) -> RenewalOutcome {
    RenewalOutcome::Refused(Some(OwnRow { incarnation: ME, seq, status }))
}

#[test]
fn the_lease_is_counted_from_the_sending() {
    let (mut keeper, lease) = keeper();
    assert_eq!(keeper.due(), Some(at(1_000)));
    let renewal = keeper.renew(at(1_000)).unwrap();
    assert_eq!(keeper.renew(at(1_001)), None, "one at a time");
    assert_eq!(keeper.due(), None);
    assert_eq!(keeper.renewed(renewal, RenewalOutcome::Applied, at(3_500)), Standing::Open);
    assert!(lease.is_open_at(at(6_999)) && !lease.is_open_at(at(7_000)));
    assert_eq!(keeper.due(), Some(at(2_000)), "late, so at once");
}

#[test]
fn an_answer_that_comes_after_its_lease_opens_nothing() {
    let (mut keeper, lease) = keeper();
    let renewal = keeper.renew(at(1_000)).unwrap();
    assert_eq!(keeper.renewed(renewal, RenewalOutcome::Applied, at(60_000)), Standing::Frozen);
    assert!(!lease.is_open_at(at(60_000)));
    let renewal = keeper.renew(at(60_000)).unwrap();
    assert_eq!(renewal.expected, 1);
    assert_eq!(keeper.renewed(renewal, RenewalOutcome::Applied, at(60_010)), Standing::Open, "thawed");
}

#[test]
fn of_unknown_renewals_the_first_counts() {
    let (mut keeper, lease) = keeper();
    for sent in [1_000, 4_000] {
        let renewal = keeper.renew(at(sent)).unwrap();
        keeper.renewed(renewal, RenewalOutcome::Unknown, at(sent + 3_000));
    }
    let renewal = keeper.renew(at(7_250)).unwrap();
    assert_eq!(renewal.expected, 0);
    assert_eq!(keeper.renewed(renewal, row(1, Status::Active), at(7_260)), Standing::Frozen);
    assert_eq!(lease.deadline(), at(7_000));
    assert_eq!(keeper.due(), Some(at(7_260)));
    let renewal = keeper.renew(at(7_260)).unwrap();
    assert_eq!(renewal.expected, 1);
    assert_eq!(keeper.renewed(renewal, RenewalOutcome::Applied, at(7_300)), Standing::Open);
}

#[test]
fn a_number_that_nobody_sent_extends_nothing() {
    let (mut keeper, lease) = keeper();
    let renewal = keeper.renew(at(1_000)).unwrap();
    assert_eq!(keeper.renewed(renewal, row(9, Status::Draining), at(1_010)), Standing::Open);
    assert_eq!(lease.deadline(), at(6_000));
    assert_eq!(keeper.renew(at(1_010)).unwrap().expected, 9);
}

#[test]
fn dead_is_final() {
    let other = Some(OwnRow { incarnation: Incarnation(8), seq: 0, status: Status::Active });
    for outcome in [row(0, Status::Dead), RenewalOutcome::Refused(other), RenewalOutcome::Refused(None)] {
        let (mut keeper, lease) = keeper();
        let renewal = keeper.renew(at(1_000)).unwrap();
        assert_eq!(keeper.renewed(renewal, outcome, at(1_010)), Standing::Dead);
        assert!(!lease.is_open_at(at(0)));
        lease.extend(at(99_000));
        assert!(!lease.is_open_at(at(1_020)), "nothing opens it again");
        assert_eq!((keeper.due(), keeper.renew(at(2_000))), (None, None));
    }
}

#[test]
fn a_node_sees_its_own_death_in_a_read() {
    let (mut keeper, lease) = keeper();
    let row = OwnRow { incarnation: Incarnation(3), seq: 4, status: Status::Dead };
    assert_eq!(keeper.seen(row, at(10)), Standing::Open, "an old read of the one before");
    assert_eq!(keeper.seen(OwnRow { incarnation: ME, ..row }, at(10)), Standing::Dead);
    assert!(!lease.is_open());
}

#[test]
fn a_lease_that_was_never_extended_is_closed() {
    let lease = Lease::new(crate::clock::BootClock);
    assert!(!lease.is_open());
    assert_eq!(lease.remaining(), Duration::ZERO);
    lease.extend(lease.now() + Duration::from_secs(60));
    assert!(lease.is_open() && lease.remaining() > Duration::from_secs(50));
}
