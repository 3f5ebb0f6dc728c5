//! The figures of placement, printed: balance, what a node more moves, and a change of the view of a large cluster.
//!
//! `cargo run -p rookery-cluster --example placement [sessions] [nodes]`; by default 10,000,000 on 1,000.

use rookery_cluster::{
    placement::Placement,
    ring::{FULL_WEIGHT, Ring},
};
use rookery_protocol::{NodeId, SessionId};
use std::{collections::HashMap, time::Instant};

fn ring(prefix: &str, nodes: usize) -> Ring {
    let name = |number| format!("{prefix}{number}").parse::<NodeId>().expect("a legal name");
    Ring::new((0..nodes).map(|number| (name(number), FULL_WEIGHT)))
}

fn sessions(count: usize) -> impl Iterator<Item = SessionId> {
    (0..count).map(|_| SessionId::generate())
}

/// The largest number of sessions on a node, over the mean.
fn balance(ring: &Ring, placement: &Placement) -> f64 {
    let most = ring.nodes().iter().map(|node| placement.of(ring, node).count()).max().unwrap_or(0);
    most as f64 * ring.nodes().len() as f64 / placement.len() as f64
}

fn balances(nodes: usize) {
    let placement: Placement = sessions(10_000).collect();
    let mut all: Vec<f64> = (0..200).map(|set| balance(&ring(&format!("{set}-"), nodes), &placement)).collect();
    all.sort_by(f64::total_cmp);
    let plain = balance(&ring("node-", nodes), &placement);
    let over = all.iter().filter(|balance| **balance > 1.1).count();
    println!(
        "10000 sessions on {nodes} nodes: max/mean {plain:.3} (node-0, ...); of 200 sets of names median {:.3}, \
         largest {:.3}, over 1.1: {over}",
        all[100], all[199]
    );
}

fn one_more(nodes: usize) {
    let placement: Placement = sessions(100_000).collect();
    let (before, after) = (ring("node-", nodes), ring("node-", nodes + 1));
    let added: NodeId = format!("node-{nodes}").parse().expect("a legal name");
    let moved: Vec<_> = placement.moved(&before, &after).collect();
    let elsewhere = moved.iter().filter(|moved| moved.to != Some(&added)).count();
    let share = moved.len() as f64 / placement.len() as f64 * (nodes + 1) as f64;
    println!(
        "{nodes} -> {} nodes: {share:.3}/(n+1) of the sessions move, {elsewhere} of them to an old node",
        nodes + 1
    );
}

/// Memory of this process in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) * 1024
}

fn large(count: usize, nodes: usize) {
    let before = resident();
    let mut placement = Placement::default();
    for session in sessions(count) {
        placement.insert(session);
    }
    println!(
        "{count} sessions: {:.1} bytes each, one inserted after the other",
        (resident() - before) as f64 / count as f64
    );
    let old = ring("node-", nodes);
    for (what, after) in [("a node more", nodes + 1), ("a node less", nodes - 1), ("half of the nodes", nodes / 2)] {
        let begun = Instant::now();
        let new = ring("node-", after);
        let built = begun.elapsed();
        let mut gains: HashMap<Option<&NodeId>, u64> = HashMap::new();
        for moved in placement.moved(&old, &new) {
            *gains.entry(moved.to).or_default() += 1;
        }
        println!(
            "{what} of {nodes}: {} sessions to {} nodes; the ring {:.0} ms, all {:.0} ms",
            gains.values().sum::<u64>(),
            gains.len(),
            built.as_secs_f64() * 1e3,
            begun.elapsed().as_secs_f64() * 1e3,
        );
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    [3, 10].into_iter().for_each(balances);
    [1, 2, 3, 10, 50].into_iter().for_each(one_more);
    large(numbers.first().copied().unwrap_or(10_000_000), numbers.get(1).copied().unwrap_or(1_000));
}
