//! A cluster on a virtual clock, in many seeded schedules, with the product's decisions in every process.
//!
//! `ROOKERY_SEED` runs one schedule and prints it; `ROOKERY_SCHEDULES` is how many are run otherwise. What holds in
//! each: I1 to I4 and I8. Of I1, what acts is a socket opened, a write that counts, and a login; a frame that a stopped
//! process puts on the wire late is allowed as long as no counter goes out twice (I2). What a schedule may do is in `world.rs`; that the exploration can fail is shown by designs
//! with one fault each.

mod database;
mod oracle;
mod policy;
mod process;
mod random;
mod session;
mod world;

use oracle::Counts;
use policy::Policy;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};
use world::explore;

/// How many schedules the design itself is run through.
const SCHEDULES: u64 = 100_000;
/// How many a design with a fault may take to be found out.
const PATIENCE: u64 = 60_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Where schedules begin: elsewhere in every run, unless a seed is given.
fn first_seed() -> u64 {
    let fresh =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let seed = number("ROOKERY_SEED").unwrap_or_else(fresh);
    println!("ROOKERY_SEED={seed}");
    seed
}

/// Runs schedules on all cores until one breaks a rule; that one's seed, and what was counted.
fn search(first: u64, schedules: u64, policy: Policy) -> (Option<u64>, u64, Counts) {
    let (next, stop, found) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(u64::MAX));
    let work = || {
        let mut counts = Counts::default();
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= schedules {
                break;
            }
            let oracle = explore(first.wrapping_add(number), policy, false).oracle;
            counts.add(&oracle.counts);
            if oracle.violation.is_some() {
                found.fetch_min(number, Ordering::Relaxed);
                stop.store(true, Ordering::Relaxed);
            }
        }
        counts
    };
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let counts = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a schedule panicked")).fold(
            Counts::default(),
            |mut all, part| {
                all.add(&part);
                all
            },
        )
    });
    let found = found.into_inner();
    ((found != u64::MAX).then(|| first.wrapping_add(found)), next.into_inner().min(schedules), counts)
}

/// Prints the schedule step by step.
fn tell(seed: u64, policy: Policy) -> String {
    let env = explore(seed, policy, true);
    for line in env.trace.unwrap_or_default() {
        println!("{line}");
    }
    let what = env
        .oracle
        .violation
        .map_or("no rule is broken".to_owned(), |broken| format!("{}: {}", broken.rule, broken.what));
    println!("ROOKERY_SEED={seed}: {what}");
    what
}

fn holds(policy: Policy, schedules: u64) -> Counts {
    let first = first_seed();
    let alone = number("ROOKERY_SEED").is_some() && number("ROOKERY_SCHEDULES").is_none();
    let schedules = if alone { 1 } else { number("ROOKERY_SCHEDULES").unwrap_or(schedules) };
    let begun = Instant::now();
    let (found, run, counts) = search(first, schedules, policy);
    println!("{run} schedules in {:.1} s: {counts:?}", begun.elapsed().as_secs_f64());
    if alone {
        tell(first, policy);
    }
    if let Some(seed) = found {
        panic!("schedule {seed} breaks {}", tell(seed, policy));
    }
    counts
}

#[test]
fn the_design_holds_in_every_schedule() {
    let counts = holds(Policy::default(), SCHEDULES);
    if counts.joins > 10_000 {
        assert!(counts.reaches_everything(), "the schedules are too tame: {counts:?}");
    }
}

/// A design with one fault is found out, by one of these rules.
fn caught(name: &str, policy: Policy, rules: &[&str]) {
    let first = number("ROOKERY_MUTANT_SEED").unwrap_or(1);
    let (found, run, _) = search(first, PATIENCE, policy);
    let seed = found.unwrap_or_else(|| panic!("{name}: {run} schedules from {first} on break no rule"));
    let broken = explore(seed, policy, false).oracle.violation.expect("the same seed, the same schedule");
    let design = Policy { faults: policy::Faults::default(), ..policy };
    assert!(explore(seed, design, false).oracle.violation.is_none(), "schedule {seed} breaks the design itself");
    println!("{name}: caught by schedule {seed} after {run}: {}: {}", broken.rule, broken.what);
    assert!(rules.contains(&broken.rule), "{name} breaks {}: {}", broken.rule, broken.what);
}

#[test]
fn a_lease_counted_from_the_reply_is_caught() {
    caught("deadline from the reply", Policy::with(|faults| faults.deadline_from_reply = true), &["I1", "I2", "I4"]);
}

#[test]
fn a_claim_without_the_epoch_is_caught() {
    let policy = Policy::with(|faults| faults.claim_without_epoch = true);
    caught("claim without the epoch", policy, &["I1", "I2", "I3", "I4"]);
}

#[test]
fn a_death_without_the_number_of_renewals_is_caught() {
    let policy = Policy::with(|faults| faults.death_without_seq = true);
    caught("death without the number of renewals", policy, &["I1", "I2", "I4"]);
}

#[test]
fn stealing_from_a_living_node_is_caught() {
    caught("steal from a living node", Policy::with(|faults| faults.steal_from_living = true), &["I1", "I2", "I4"]);
}

#[test]
fn a_flush_after_the_wire_is_caught() {
    caught("flush after the wire", Policy::with(|faults| faults.flush_after_wire = true), &["I2"]);
}

#[test]
fn no_look_at_the_lease_after_a_write_is_caught() {
    let policy = Policy::with(|faults| faults.no_check_after_write = true);
    caught("no look at the lease after a write", policy, &["I1", "I2"]);
}

#[test]
fn a_name_judged_by_an_older_row_is_caught() {
    let policy = Policy::with(|faults| faults.mismatch_is_death = true);
    caught("a name judged by an older row", policy, &["I1", "I2", "I4"]);
}

#[test]
fn an_epoch_kept_after_a_release_in_doubt_is_caught() {
    let policy = Policy::with(|faults| faults.epoch_kept_after_release = true);
    caught("an epoch kept after a release in doubt", policy, &["I1", "I2", "I4"]);
}

#[test]
fn a_takeover_without_a_seal_is_caught() {
    caught("no seal", Policy::with(|faults| faults.no_seal = true), &["I1", "I2"]);
}

#[test]
fn no_look_at_the_lease_before_the_login_is_caught() {
    let policy = Policy::with(|faults| faults.no_check_at_login = true);
    caught("no look at the lease before the login", policy, &["I1", "I4"]);
}

#[test]
fn a_clock_that_stands_still_with_the_process_is_caught() {
    let policy = Policy::with(|faults| faults.clock_stands_still = true);
    caught("a clock that stands still", policy, &["I1", "I2", "I4"]);
}

/// A firewall that resets links and refuses connections makes the others believe that a process is gone. With the fast
/// path off nothing comes of it.
#[test]
fn forged_resets_do_nothing_when_the_fast_path_is_off() {
    holds(Policy { forged_resets: true, fast_death: Some(false), ..Policy::default() }, SCHEDULES / 10);
}

/// What the look at the owner row is for: a write of the older owner that was under way when the newer one loaded.
#[test]
fn forged_resets_without_a_look_at_the_owner_row_are_caught() {
    let policy = Policy { forged_resets: true, fast_death: Some(true), ..Policy::default() };
    let (found, run, _) = search(1, PATIENCE, policy);
    let broken = found.and_then(|seed| explore(seed, policy, false).oracle.violation);
    println!("no look at the owner row: after {run}: {broken:?}");
    assert_eq!(broken.map(|broken| broken.rule), Some("I2"));
}

/// With the fast path on two may act at once until the next renewal is refused, or the lease ends. No ratchet goes out twice when an owner
/// looks at its owner row between the write and the wire.
#[test]
fn forged_resets_reuse_no_ratchet_when_the_owner_is_read_before_the_wire() {
    let policy =
        Policy { forged_resets: true, fast_death: Some(true), owner_read_before_wire: true, ..Policy::default() };
    let counts = holds(policy, SCHEDULES / 10);
    println!("longest overlap: {} ms", counts.overlap / 1_000);
}
