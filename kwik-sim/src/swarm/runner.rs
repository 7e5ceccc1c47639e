//! Runs worlds on every core: each world has one thread, and shares nothing.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::options::Options;
use super::run::{WorldOutcome, run};
use crate::checks::Coverage;

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Swarm {
    /// Worlds that ran.
    pub worlds: u64,
    /// Things that happened in them.
    pub events: u64,
    /// Virtual time that passed in them.
    pub virtual_time: Duration,
    /// The longest recovery, and whose it was.
    pub slowest: (Duration, u64),
    /// What was reached.
    pub coverage: Coverage,
    /// Worlds in which something was that must not have been.
    pub failures: Vec<WorldOutcome>,
}

/// How a sweep is run.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// The first seed.
    pub from: u64,
    /// How many seeds.
    pub seeds: u64,
    /// How many threads.
    pub jobs: usize,
    /// No world begins after so long.
    pub time: Option<Duration>,
    /// No world begins after so many failures.
    pub failures_max: usize,
}

/// Events kept of a world that failed, for the report.
const TAIL: usize = 60;

/// Runs the worlds of a sweep. `progress` is told after each how many failed so far.
pub fn sweep(sweep: Sweep, progress: impl Fn(usize) + Sync) -> Swarm {
    let next = AtomicU64::new(sweep.from);
    let found = Mutex::new(Swarm::default());
    let end = sweep.from.saturating_add(sweep.seeds);
    let until = sweep.time.map(|time| now() + time);
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        let enough = found.lock().unwrap_or_else(PoisonError::into_inner).failures.len() >= sweep.failures_max;
        if seed >= end || enough || until.is_some_and(|until| now() >= until) {
            return;
        }
        let outcome = run_seed(seed);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.add(outcome);
        progress(found.failures.len());
    };
    std::thread::scope(|scope| {
        for _ in 0..sweep.jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.failures.sort_by_key(|failure| failure.seed);
    found
}

/// Runs the world of a seed; again, with its last events kept, if something is wrong.
fn run_seed(seed: u64) -> WorldOutcome {
    let options = Options::from_seed(seed);
    let outcome = run(&options, 0, None, |_, _| ());
    if outcome.violations.is_empty() { outcome } else { run(&options, TAIL, None, |_, _| ()) }
}

#[expect(clippy::disallowed_methods, reason = "a sweep is bounded in real time; no world knows of it")]
fn now() -> Instant {
    Instant::now()
}

impl Swarm {
    fn add(&mut self, outcome: WorldOutcome) {
        self.worlds += 1;
        self.events += outcome.events;
        self.virtual_time += outcome.elapsed;
        self.slowest = self.slowest.max((outcome.recovery, outcome.seed));
        self.coverage.add(&outcome.coverage);
        if !outcome.violations.is_empty() {
            self.failures.push(outcome);
        }
    }
}
