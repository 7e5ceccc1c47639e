//! Some of the worlds that the binary runs by the thousand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kwik_sim::swarm::{Options, Sweep, coverage_table, run, sweep};

/// As many as take about two minutes on two cores without optimization.
const WORLDS: u64 = 1000;

fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn no_world_breaks_a_rule() {
    let plan = Sweep { from: 0, seeds: WORLDS, jobs: jobs(), time: None, failures_max: 1 };
    let found = sweep(plan, |_| ());
    if let Some(failure) = found.failures.first() {
        let (seed, options) = (failure.seed, Options::from_seed(failure.seed));
        panic!(
            "{:#?}\n{options}\nagain with: cargo run --release -p kwik-sim -- replay --seed {seed} --trace",
            failure.violations
        );
    }
    assert_eq!(found.worlds, WORLDS);
    assert!(found.coverage.work.contains_key("delegation delivered"), "{}", coverage_table(&found.coverage));
    assert!(found.virtual_time > Duration::from_secs(WORLDS));
}

#[test]
fn same_seed_is_the_same_world() {
    let next = AtomicU64::new(0);
    let twice = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= 200 {
            return;
        }
        let once = || run(&Options::from_seed(seed), 0, None, |_, _| ()).hash;
        assert_eq!(once(), once(), "seed {seed}");
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs() {
            scope.spawn(twice);
        }
    });
}

#[test]
fn different_seeds_are_different_worlds() {
    let hash = |seed| run(&Options::from_seed(seed), 0, None, |_, _| ()).hash;
    assert_ne!(hash(1), hash(2));
}
