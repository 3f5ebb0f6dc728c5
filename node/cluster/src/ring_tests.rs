use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

fn node(number: usize) -> NodeId {
    format!("node-{number}").parse().unwrap()
}

fn ring(nodes: impl IntoIterator<Item = usize>) -> Ring {
    Ring::new(nodes.into_iter().map(|number| (node(number), FULL_WEIGHT)))
}

fn session(number: u128) -> SessionId {
    SessionId::from_bytes(number.to_be_bytes())
}

/// Nodes of different builds share one cluster: a change of any of these needs a new protocol version.
#[test]
fn golden_vectors() {
    assert_eq!(Position::of(&session(0)).0, 0xf5a5_9018_5dc0_e90c);
    assert_eq!(Position::of(&session(u128::MAX)).0, 0xb3e9_5c50_c646_5085);
    let ring = Ring::new([("a".parse().unwrap(), 100), ("b.example".parse().unwrap(), 50), (node(3), 200)]);
    let order = |number| ring.candidates(&session(number)).map(NodeId::as_str).collect::<Vec<_>>().join(" ");
    assert_eq!(
        (0..8).map(order).collect::<Vec<_>>(),
        [
            "a node-3 b.example",
            "node-3 b.example a",
            "b.example node-3 a",
            "node-3 a b.example",
            "node-3 a b.example",
            "node-3 b.example a",
            "node-3 a b.example",
            "node-3 a b.example",
        ]
    );
    let ends: Vec<u64> = ring.arcs().iter().take(3).map(|arc| arc.end).collect();
    assert_eq!(ends, [0x0006_eebb_6985_c9a2, 0x0009_7502_f28a_3d5a, 0x000b_c47b_505b_a4fd]);
    assert_eq!(ring.arcs().len(), 2048 + 1024 + 4096);
}

#[test]
fn no_node_has_more_than_its_part() {
    for nodes in [3, 10] {
        let ring = ring(0..nodes);
        let mut counts = std::collections::HashMap::new();
        for number in 0..10_000 {
            *counts.entry(ring.candidates(&session(number)).next().unwrap()).or_insert(0) += 1;
        }
        let most = *counts.values().max().unwrap();
        assert!(most * nodes <= 11_000, "{most} of 10000 on one of {nodes}");
    }
}

#[test]
fn an_empty_ring_and_a_ring_without_weight_place_nothing() {
    for ring in [ring([]), Ring::new([(node(1), 0)])] {
        assert_eq!(ring.candidates(&session(1)).count(), 0);
        assert_eq!(ring.first(Position::of(&session(1))), None);
        assert!(ring.shares().iter().all(|(_, share)| *share == 0.0));
    }
}

#[test]
fn the_weight_sets_the_share() {
    let ring = Ring::new([(node(1), 100), (node(2), 300), (node(3), 0), (node(4), 1)]);
    let shares: Vec<f64> = ring.shares().into_iter().map(|(_, share)| share).collect();
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    assert!((shares[0] - 0.25).abs() < 0.03 && (shares[1] - 0.75).abs() < 0.03, "{shares:?}");
    assert!(shares[2] == 0.0 && shares[3] > 0.0 && shares[3] < 0.02);
}

#[test]
fn a_full_node_is_passed_over() {
    let ring = ring(0..5);
    let full = node(2);
    let mut heirs = HashSet::new();
    for number in 0..2_000 {
        let session = session(number);
        let placed = ring.place(&session, |node| *node == full).unwrap();
        assert_ne!(*placed, full);
        if *ring.candidates(&session).next().unwrap() == full {
            heirs.insert(placed.clone());
        } else {
            assert_eq!(placed, ring.candidates(&session).next().unwrap());
        }
    }
    assert_eq!(heirs.len(), 4, "all others take a part");
    assert_eq!(ring.place(&session(1), |_| true), None);
}

proptest! {
    #[test]
    fn candidates_are_every_node_once_and_begin_with_the_owner_of_the_arc(
        weights in prop::collection::vec(1_u16..300, 1..12),
        sessions in prop::collection::vec(any::<u128>(), 50),
    ) {
        let ring = Ring::new(weights.iter().enumerate().map(|(number, weight)| (node(number), *weight)));
        for number in sessions {
            let candidates: Vec<_> = ring.candidates(&session(number)).collect();
            prop_assert_eq!(candidates.len(), weights.len());
            prop_assert_eq!(candidates.iter().collect::<HashSet<_>>().len(), weights.len());
            prop_assert_eq!(ring.first(Position::of(&session(number))), Some(candidates[0]));
        }
    }

    /// I7. The measured part is of the ring itself: what a sample of sessions adds is not the ring's.
    #[test]
    fn a_node_more_takes_its_part_and_moves_nothing_else(
        names in prop::collection::hash_set("[a-z0-9]{1,12}", 3..24),
        seed in any::<u64>(),
    ) {
        let mut names: Vec<NodeId> = names.iter().map(|name| name.parse().unwrap()).collect();
        names.sort();
        let added = names.remove(seed as usize % names.len());
        let before = Ring::new(names.iter().map(|name| (name.clone(), FULL_WEIGHT)));
        let after = Ring::new(names.iter().chain([&added]).map(|name| (name.clone(), FULL_WEIGHT)));
        let mut moved = 0;
        for number in 0..4_000_u128 {
            let session = session(number << 64 | u128::from(seed));
            let (old, new) = (before.candidates(&session).next(), after.candidates(&session).next());
            if old != new {
                prop_assert_eq!(new, Some(&added));
                moved += 1;
            }
        }
        let ideal = 1.0 / (names.len() + 1) as f64;
        let share = after.shares().iter().find(|(node, _)| **node == added).map(|(_, share)| *share).unwrap();
        // The points of a node take the ideal within 2.2 % at one standard deviation.
        prop_assert!(share <= 1.1 * ideal, "{share} of {ideal}");
        prop_assert!((f64::from(moved) / 4_000.0 - share).abs() < 0.04);
    }
}
