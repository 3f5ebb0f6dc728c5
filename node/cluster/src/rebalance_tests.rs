use super::*;
use crate::ring::FULL_WEIGHT;
use std::collections::BTreeSet;

fn at(millis: u64) -> Moment {
    Moment::from_nanos(millis * 1_000_000)
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn ring(names: &[&str]) -> Ring {
    Ring::new(names.iter().map(|name| (node(name), FULL_WEIGHT)))
}

fn sessions(count: u128) -> Placement {
    (0..count).map(|number| SessionId::from_bytes(number.to_be_bytes())).collect()
}

fn budget(under_way: u32, per_second: f64) -> Budget {
    Budget { under_way, per_second, ..Budget::default() }
}

/// Runs until nothing is left, and says how long that took and where the sessions went.
fn drain(rebalancer: &mut Rebalancer, ring: &Ring, own: &mut Placement) -> (u64, BTreeMap<NodeId, usize>) {
    let mut went = BTreeMap::new();
    for tick in 0..100_000 {
        let now = at(tick * 100);
        let moves = rebalancer.next(ring, now, |_| false);
        assert!(rebalancer.progress().under_way <= rebalancer.most_under_way() as u64);
        for Move { session, to } in moves {
            *went.entry(to).or_default() += 1;
            own.remove(&session);
            rebalancer.ended(&session, true, now);
        }
        if rebalancer.progress().left == 0 {
            return (tick * 100, went);
        }
    }
    panic!("never done: {:?}", rebalancer.progress());
}

#[test]
fn a_drain_moves_everything_at_its_part_of_the_pace() {
    let (ring, mut own) = (ring(&["b", "c"]), sessions(200));
    let mut rebalancer = Rebalancer::new(node("a"), budget(8, 20.0));
    rebalancer.plan(&ring, &own, |_| true);
    assert_eq!(rebalancer.progress().left, 200);
    let (millis, went) = drain(&mut rebalancer, &ring, &mut own);
    assert!((19_000..22_000).contains(&millis), "{millis}: 200 sessions at 10 a second");
    assert!(own.is_empty() && went.values().all(|count| *count > 60), "{went:?}");
}

#[test]
fn only_what_belongs_elsewhere_moves_and_what_is_not_connected_goes_first() {
    let (ring, own) = (ring(&["a", "b", "c"]), sessions(300));
    let mut rebalancer = Rebalancer::new(node("a"), budget(1_000, 1e6));
    let is_connected = |session: &SessionId| session.as_bytes()[15].is_multiple_of(2);
    rebalancer.plan(&ring, &own, is_connected);
    rebalancer.next(&ring, at(0), |_| true);
    let moves = rebalancer.next(&ring, at(6_000), |_| false);
    let away = own.iter().filter(|session| *ring.first(Position::of(session)).unwrap() != node("a")).count();
    assert!(moves.len() == away && away > 150, "{away}");
    let first_connected = moves.iter().position(|next| is_connected(&next.session)).unwrap();
    assert!(moves[first_connected..].iter().all(|next| is_connected(&next.session)));
}

#[test]
fn a_new_view_changes_the_plan_and_not_what_is_under_way() {
    let (all, own) = (ring(&["b", "c"]), sessions(50));
    let mut rebalancer = Rebalancer::new(node("a"), budget(10, 1e6));
    rebalancer.plan(&all, &own, |_| true);
    let begun: BTreeSet<_> = rebalancer.next(&all, at(0), |_| false).iter().map(|next| next.session).collect();
    assert_eq!(begun.len(), 1, "the first credit");
    let fewer = ring(&["c"]);
    rebalancer.plan(&fewer, &own, |_| true);
    assert_eq!(rebalancer.progress(), Progress { under_way: 1, left: 50, ..Progress::default() });
    let next = rebalancer.next(&fewer, at(1_000), |_| false);
    assert_eq!(next.len(), 9, "ten under way");
    assert!(next.iter().all(|next| next.to == node("c") && !begun.contains(&next.session)));
    rebalancer.plan(&ring(&[]), &own, |_| true);
    assert_eq!(rebalancer.progress().left, 10, "nowhere to go: only what was begun");
}

#[test]
fn what_failed_or_found_no_room_is_tried_again() {
    let (ring, own) = (ring(&["b"]), sessions(2));
    let mut rebalancer = Rebalancer::new(node("a"), budget(10, 1e6));
    rebalancer.plan(&ring, &own, |_| true);
    assert_eq!(rebalancer.next(&ring, at(0), |_| true), []);
    assert_eq!(rebalancer.progress().left, 2);
    assert_eq!(rebalancer.next(&ring, at(4_999), |_| false), []);
    let moves = rebalancer.next(&ring, at(5_000), |_| false);
    assert_eq!(moves.len(), 2);
    rebalancer.ended(&moves[0].session, false, at(6_000));
    rebalancer.ended(&moves[1].session, true, at(6_000));
    rebalancer.ended(&moves[1].session, true, at(6_000));
    assert_eq!(rebalancer.progress(), Progress { done: 1, failed: 1, under_way: 0, left: 1 });
    rebalancer.plan(&ring, &own, |_| true);
    assert_eq!(rebalancer.left().count(), 2, "the one that moved still runs here, says its caller");
    rebalancer.forget(&moves[0].session);
    rebalancer.forget(&moves[1].session);
    assert_eq!(rebalancer.progress().left, 0);
}

#[test]
fn a_full_candidate_does_not_push_a_session_past_its_owner() {
    let (ring, own) = (ring(&["a", "b", "c"]), sessions(300));
    let mut rebalancer = Rebalancer::new(node("a"), budget(10_000, 1e6));
    rebalancer.plan(&ring, &own, |_| true);
    rebalancer.next(&ring, at(0), |_| true);
    for Move { session, to } in rebalancer.next(&ring, at(60_000), |full| *full == node("b")) {
        let order: Vec<_> = ring.candidates(&session).collect();
        assert_eq!(to, node("c"));
        assert!(*order[0] == node("c") || (*order[0] == node("b") && *order[1] == node("c")));
    }
}

#[test]
fn a_death_gives_the_survivors_the_sessions_between_them() {
    let (all, ring) = (sessions(300), ring(&["a", "b"]));
    let own: Placement = all.of(&ring, &node("a")).take(40).collect();
    let (a, b) = (node("a"), node("b"));
    let mine: Vec<_> = to_claim(&all, &own, &ring, &a).collect();
    let theirs = to_claim(&all, &Placement::default(), &ring, &b).count();
    assert_eq!(mine.len() + theirs + 40, 300);
    assert!(mine.iter().all(|session| !own.contains(session)));
}
