use super::*;

fn at(millis: u64) -> Moment {
    Moment::from_nanos(1_000_000_000_000 + millis * 1_000_000)
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn row(name: &str, incarnation: u64, seq: u64, status: Status) -> Member {
    Member {
        node: node(name),
        incarnation: Incarnation(incarnation),
        seq,
        status,
        weight: 100,
        link_address: String::new(),
        api_address: String::new(),
        protocol: 1,
    }
}

fn active(name: &str, seq: u64) -> Member {
    row(name, 1, seq, Status::Active)
}

/// Node b, which looks at a and c.
fn membership() -> Membership {
    let mut membership = Membership::new(active("b", 0), None, Timings::default(), at(0));
    let changes = membership.rows(vec![active("a", 0), active("b", 0), active("c", 0)], at(0), at(0), true);
    assert_eq!(changes, [Change::Joined(active("a", 0)), Change::Joined(active("c", 0))]);
    membership
}

/// Reads once a second from `from` to `until`, with a standing still and the others renewing.
fn watch(membership: &mut Membership, from: u64, until: u64, open: bool) -> Vec<Change> {
    let rows = |second| vec![active("a", 0), active("b", second), active("c", second)];
    (from..=until)
        .flat_map(|second| membership.rows(rows(second), at(second * 1_000), at(second * 1_000), open))
        .collect()
}

fn death(seq: u64) -> Death {
    Death { node: node("a"), incarnation: Incarnation(1), seq }
}

fn died() -> Change {
    Change::Died { node: node("a"), incarnation: Incarnation(1) }
}

#[test]
fn a_row_that_stands_still_is_suspected_and_then_declared_dead() {
    let mut membership = membership();
    assert_eq!(watch(&mut membership, 1, 8, true), [Change::Suspected(node("a"))]);
    assert_eq!(membership.due(at(8_999)), []);
    watch(&mut membership, 9, 9, true);
    assert_eq!(membership.due(at(9_000)), [death(0)]);
    assert_eq!(membership.due(at(9_001)), [], "under way");
    assert_eq!(membership.due(at(12_000)), [death(0)], "its outcome stayed unknown");
    assert_eq!(membership.declared(&death(0), DeathOutcome::Applied, at(12_010)), [died()]);
    assert_eq!(membership.view().living().count(), 2);
    assert_eq!(membership.due(at(99_000)), []);
    let changes = membership.rows(vec![active("a", 5)], at(13_000), at(13_000), true);
    assert_eq!(changes, [], "dead is final");
}

#[test]
fn the_next_in_the_order_of_names_declares_first() {
    let mut membership = Membership::new(active("c", 0), None, Timings::default(), at(0));
    watch(&mut membership, 0, 9, true);
    assert_eq!(membership.due(at(9_000)), [], "b comes first");
    watch(&mut membership, 10, 10, true);
    assert_eq!(membership.due(at(10_000)), [death(0)]);
}

#[test]
fn a_renewal_takes_the_suspicion_away() {
    let mut membership = membership();
    watch(&mut membership, 1, 8, true);
    let changes = membership.rows(vec![active("a", 1)], at(9_000), at(9_000), true);
    assert_eq!(changes, [Change::Recovered(node("a"))]);
    assert_eq!(membership.due(at(9_500)), []);
    let refused = DeathOutcome::Refused(Some(active("a", 2)));
    assert_eq!(membership.declared(&death(0), refused, at(9_600)), []);
    assert_eq!(membership.view().get(&node("a")).unwrap().member.seq, 2);
}

#[test]
fn an_outage_of_the_database_kills_nobody() {
    let mut membership = membership();
    watch(&mut membership, 1, 3, true);
    // No read was answered for a minute, and nobody could renew.
    watch(&mut membership, 63, 64, true);
    assert_eq!(membership.due(at(64_000)), []);
    // Reads work, conditional writes do not: this node is frozen like all others.
    watch(&mut membership, 65, 90, false);
    assert_eq!(membership.due(at(90_000)), []);
    watch(&mut membership, 91, 94, true);
    assert_eq!(membership.due(at(94_000)), [death(0)], "3 s, 2 s and 4 s were watched");
}

#[test]
fn the_fast_path_takes_a_reset_and_refusals_in_a_row() {
    let (a, incarnation) = (node("a"), Incarnation(1));
    let mut membership = membership();
    for _ in 0..5 {
        membership.connect_refused(&a, incarnation, at(100));
    }
    assert_eq!(membership.due(at(100)), [], "no reset");
    assert_eq!(membership.link_reset(&a, incarnation), Some(Change::Suspected(a.clone())));
    membership.connect_refused(&a, incarnation, at(200));
    membership.connect_refused(&a, incarnation, at(300));
    membership.connect_undecided(&a, false);
    membership.connect_refused(&a, incarnation, at(400));
    membership.connect_refused(&a, Incarnation(9), at(400));
    membership.connect_refused(&a, incarnation, at(450));
    assert_eq!(membership.due(at(450)), []);
    membership.connect_refused(&a, incarnation, at(500));
    assert_eq!(membership.due(at(500)), [death(0)]);
    // Its last renewal was not seen yet.
    let refused = DeathOutcome::Refused(Some(active("a", 1)));
    assert_eq!(membership.declared(&death(0), refused, at(510)), []);
    assert_eq!(membership.due(at(510)), [death(1)]);
    assert_eq!(membership.declared(&death(1), DeathOutcome::Applied, at(520)), [died()]);
}

#[test]
fn a_node_that_goes_on_renewing_is_not_gone() {
    let (a, incarnation) = (node("a"), Incarnation(1));
    let mut membership = membership();
    membership.link_reset(&a, incarnation);
    for _ in 0..3 {
        membership.connect_refused(&a, incarnation, at(100));
    }
    for seq in 1..=3 {
        membership.rows(vec![active("a", seq)], at(seq * 1_000), at(seq * 1_000), true);
    }
    assert_eq!(membership.due(at(3_000)), []);
    assert!(!membership.view().get(&a).unwrap().suspected);
}

#[test]
fn the_fast_path_can_be_switched_off() {
    let timings = Timings { fast_death: false, ..Timings::default() };
    let mut membership = Membership::new(active("b", 0), None, timings, at(0));
    membership.rows(vec![active("a", 0)], at(0), at(0), true);
    membership.link_reset(&node("a"), Incarnation(1));
    for _ in 0..9 {
        membership.connect_refused(&node("a"), Incarnation(1), at(100));
    }
    assert_eq!(membership.due(at(8_000)), []);
}

#[test]
fn a_new_incarnation_ends_the_old_one() {
    let mut membership = membership();
    let again = row("a", 2, 0, Status::Active);
    let changes = membership.rows(vec![again.clone()], at(1_000), at(1_010), true);
    assert_eq!(changes, [died(), Change::Joined(again)]);
    assert_eq!(membership.fate(&node("a"), Incarnation(1), at(9_000)), Fate::Dead);
    assert_eq!(membership.fate(&node("a"), Incarnation(2), at(9_000)), Fate::Alive);
    let changes = membership.rows(vec![active("a", 77)], at(2_000), at(2_010), true);
    assert_eq!(changes, [], "an old read");
}

#[test]
fn a_name_is_judged_only_by_a_row_that_was_read_after_it() {
    let mut membership = membership();
    let (a, other) = (node("a"), Incarnation(5));
    assert_eq!(membership.fate(&a, other, at(500)), Fate::Unknown);
    membership.rows(vec![active("a", 1)], at(400), at(900), true);
    assert_eq!(membership.fate(&a, other, at(500)), Fate::Unknown, "begun before the name was known");
    membership.rows(vec![active("a", 2)], at(1_000), at(1_010), true);
    assert_eq!(membership.fate(&a, other, at(1_005)), Fate::Dead, "it was first named before");
    assert_eq!(membership.fate(&a, other, at(9_000)), Fate::Dead, "remembered");
    assert_eq!(membership.fate(&node("x"), other, at(0)), Fate::Unknown, "no row, no verdict");
}

#[test]
fn draining_is_seen_once_and_leaves_the_ring() {
    let mut membership = membership();
    let draining = row("a", 1, 1, Status::Draining);
    assert_eq!(membership.rows(vec![draining], at(1), at(1), true), [Change::Draining(node("a"))]);
    assert_eq!(membership.rows(vec![active("a", 1)], at(2), at(2), true), [], "no way back");
    assert_eq!(membership.fate(&node("a"), Incarnation(1), at(9)), Fate::Draining);
    assert_eq!(membership.view().ring().nodes(), [node("b"), node("c")]);
}

#[test]
fn a_node_hears_of_its_own_death() {
    let mut membership = membership();
    let changes = membership.rows(vec![row("b", 1, 4, Status::Dead)], at(1), at(1), true);
    assert_eq!(changes, [Change::Died { node: node("b"), incarnation: Incarnation(1) }]);
}
