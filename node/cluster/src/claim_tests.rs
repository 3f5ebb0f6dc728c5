use super::*;

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn me() -> Me {
    Me { node: node("me"), incarnation: Incarnation(1), open: true, draining: false }
}

fn row(epoch: u64, holder: Option<(&str, u64)>) -> OwnerRow {
    OwnerRow { epoch: Epoch(epoch), holder: holder.map(|(name, number)| (node(name), Incarnation(number))) }
}

fn decided(me: &Me, row: &OwnerRow, running: Option<u64>, fate: Fate, place: Option<&str>) -> Decision {
    decide(me, row, running.map(Epoch), fate, place.map(node).as_ref())
}

#[test]
fn what_nobody_has_goes_where_the_ring_says() {
    for (row, fate) in [
        (row(0, None), Fate::Unknown),
        (row(4, None), Fate::Unknown),
        (row(4, Some(("b", 2))), Fate::Dead),
        (row(4, Some(("me", 2))), Fate::Dead),
    ] {
        assert_eq!(decided(&me(), &row, None, fate, Some("me")), Decision::Claim);
        assert_eq!(decided(&me(), &row, None, fate, Some("c")), Decision::Forward(node("c")));
        assert_eq!(decided(&me(), &row, None, fate, None), Decision::Wait(Wait::NoRoom));
        let frozen = Me { open: false, ..me() };
        assert_eq!(decided(&frozen, &row, None, fate, Some("me")), Decision::Wait(Wait::Frozen));
        let draining = Me { draining: true, ..me() };
        assert_eq!(decided(&draining, &row, None, fate, Some("me")), Decision::Wait(Wait::Leaving));
    }
}

#[test]
fn a_living_owner_keeps_what_it_has() {
    for fate in [Fate::Alive, Fate::Draining] {
        for place in [Some("me"), Some("c"), None] {
            assert_eq!(decided(&me(), &row(4, Some(("b", 2))), None, fate, place), Decision::Forward(node("b")));
        }
    }
    let unknown = decided(&me(), &row(4, Some(("b", 2))), None, Fate::Unknown, Some("me"));
    assert_eq!(unknown, Decision::Wait(Wait::Unjudged));
}

#[test]
fn a_younger_incarnation_of_our_name_is_somebody_else() {
    assert_eq!(
        decided(&me(), &row(4, Some(("me", 9))), None, Fate::Unknown, Some("me")),
        Decision::Wait(Wait::Unjudged)
    );
}

#[test]
fn what_is_ours_is_served_or_claimed_anew() {
    let ours = row(4, Some(("me", 1)));
    assert_eq!(decided(&me(), &ours, Some(4), Fate::Alive, Some("c")), Decision::Serve(Epoch(4)));
    assert_eq!(decided(&me(), &ours, None, Fate::Alive, Some("c")), Decision::Claim);
    let frozen = Me { open: false, ..me() };
    assert_eq!(decided(&frozen, &ours, Some(4), Fate::Alive, None), Decision::Wait(Wait::Frozen));
    assert_eq!(decided(&frozen, &ours, None, Fate::Alive, None), Decision::Wait(Wait::Frozen));
    let draining = Me { draining: true, ..me() };
    assert_eq!(decided(&draining, &ours, Some(4), Fate::Alive, None), Decision::Serve(Epoch(4)));
    assert_eq!(decided(&draining, &ours, None, Fate::Alive, None), Decision::Wait(Wait::Leaving));
}

#[test]
fn what_runs_under_an_epoch_that_is_over_stops() {
    for over in [row(5, Some(("me", 1))), row(5, Some(("b", 2))), row(4, None), row(4, Some(("me", 2)))] {
        assert_eq!(decided(&me(), &over, Some(4), Fate::Alive, Some("me")), Decision::Stop);
        assert_eq!(replaced(&me(), &over, Epoch(4)), Replaced::Superseded);
    }
    assert_eq!(replaced(&me(), &row(4, Some(("me", 1))), Epoch(4)), Replaced::Foreign);
}

#[test]
fn a_request_is_decided_twice_at_most() {
    let mut retries = Retries::default();
    assert!(retries.again(Setback::ClaimLost));
    assert!(!retries.again(Setback::NotOwner));
    assert!(!retries.again(Setback::NotOwner));
}
