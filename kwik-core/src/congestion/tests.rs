//! The controller on paths that are a few lines: packets leave at its rate, and come back after a round trip.

use std::collections::VecDeque;

use super::*;
use crate::test_support::instant;

const MTU: u64 = 1200;
const MILLISECOND: Duration = Duration::from_millis(1);

/// A controller, and a path of a rate and a round trip with a queue.
struct Run {
    now: Instant,
    bbr: Bbr,
    counter: Arc<AtomicU64>,
    /// Bytes a second.
    rate: u64,
    rtt: Duration,
    queue: Duration,
    /// One packet of so many is lost.
    loses: u64,
    policer: Option<Policer>,
    sent: u64,
    arrived: u64,
    /// When the last byte leaves the queue.
    busy: Instant,
    tokens: f64,
    /// When it was sent, when its end is known, and whether it was lost.
    flight: VecDeque<(Instant, Instant, bool)>,
}

/// Drops what is above a rate, in bytes a second, once `burst` bytes were.
struct Policer {
    rate: f64,
    burst: f64,
    taken: f64,
    at: Instant,
}

impl Policer {
    fn passes(&mut self, now: Instant) -> bool {
        self.taken = (self.taken - self.rate * (now - self.at).as_secs_f64()).max(0.0);
        self.at = now;
        let passes = self.taken + MTU as f64 <= self.burst;
        if passes {
            self.taken += MTU as f64;
        }
        passes
    }
}

impl Run {
    fn new(rate: u64, rtt: Duration) -> Self {
        let (now, counter) = (instant(), Arc::new(AtomicU64::new(0)));
        let bbr = Bbr::new(now, 1200, 12_000, 1, counter.clone());
        Self {
            now,
            bbr,
            counter,
            rate,
            rtt,
            queue: 10 * rtt,
            loses: u64::MAX,
            policer: None,
            sent: 0,
            arrived: 0,
            busy: now,
            tokens: 0.0,
            flight: VecDeque::new(),
        }
    }

    fn in_flight(&self) -> u64 {
        self.flight.len() as u64 * MTU
    }

    fn send(&mut self) {
        self.counter.store(self.in_flight(), Ordering::Relaxed);
        self.bbr.on_sent(self.now, MTU, self.sent);
        self.sent += 1;
        let waits = self.busy.saturating_duration_since(self.now);
        let is_policed = self.policer.as_mut().is_some_and(|policer| !policer.passes(self.now));
        let is_lost = is_policed || self.sent.is_multiple_of(self.loses) || waits > self.queue;
        if !is_lost {
            self.busy = self.busy.max(self.now) + Duration::from_secs_f64(MTU as f64 / self.rate as f64);
        }
        self.flight.push_back((self.now, self.busy.max(self.now) + self.rtt, is_lost));
    }

    /// One millisecond: what came back is told, then `most` packets are sent as far as the controller allows.
    fn step(&mut self, most: usize) {
        self.now += MILLISECOND;
        let (mut acked, mut lost, mut last_lost) = (0, 0, self.now);
        while let Some((sent, at, is_lost)) = self.flight.front().copied()
            && at <= self.now
        {
            self.flight.pop_front();
            if is_lost {
                (lost, last_lost) = (lost + MTU, sent);
            } else {
                acked += MTU;
                self.bbr.model.set_srtt(self.now - sent);
                self.bbr.sampler.on_acked(self.now, sent, MTU);
            }
        }
        self.arrived += acked;
        if acked > 0 {
            self.counter.store(self.in_flight(), Ordering::Relaxed);
            self.bbr.on_end_acks(self.now, self.in_flight(), most < usize::MAX, None);
        }
        if lost > 0 {
            self.bbr.on_congestion_event(self.now, last_lost, false, lost);
        }
        let rate = self.bbr.pacing_rate.map_or(f64::MAX, |rate| rate as f64 / 1000.0);
        self.tokens = (self.tokens + rate).min(2.0 * rate.max(MTU as f64));
        let mut left = most;
        while left > 0 && self.tokens >= MTU as f64 && self.in_flight() + MTU < self.bbr.window() {
            self.tokens -= MTU as f64;
            left -= 1;
            self.send();
        }
    }

    fn run(&mut self, span: Duration) {
        for _ in 0..span.as_millis() {
            self.step(usize::MAX);
        }
    }

    /// The share of the path that is used from now on.
    fn share(&mut self, span: Duration) -> f64 {
        let before = self.arrived;
        self.run(span);
        (self.arrived - before) as f64 / (self.rate as f64 * span.as_secs_f64())
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn startup_finds_the_path_and_leaves_no_queue() {
    let mut run = Run::new(2_500_000, 40 * MILLISECOND);
    assert_eq!(run.bbr.pacing_rate, None, "nothing is known before the first round trip");
    run.run(secs(3));
    assert!(run.bbr.is_full && !matches!(run.bbr.phase, Phase::Startup | Phase::Drain), "{:?}", run.bbr.phase);
    let bandwidth = run.bbr.model.max_bandwidth() as f64 / run.rate as f64;
    assert!((0.97..1.05).contains(&bandwidth), "{bandwidth}");
    assert_eq!(run.bbr.model.min_rtt().map(|rtt| rtt.as_millis()), Some(41));
    let share = run.share(secs(5));
    assert!(share > 0.95, "{share}");
    // Most of the time nothing is queued, though ten round trips would fit.
    let mut queued = 0;
    for _ in 0..5000 {
        run.step(usize::MAX);
        queued += u64::from(run.busy > run.now + 10 * MILLISECOND);
    }
    assert!(queued < 1000, "{queued} ms of 5000");
}

#[test]
fn doubling_ends_when_a_queue_grows() {
    let mut run = Run::new(2_500_000, 200 * MILLISECOND);
    run.queue = 100 * MILLISECOND;
    run.run(secs(3));
    let lost = run.sent * MTU - run.in_flight() - run.arrived;
    // 352,000 bytes if the window doubles until packets are lost.
    assert!(lost < 320_000, "{lost} bytes");
    let bandwidth = run.bbr.model.max_bandwidth() as f64 / run.rate as f64;
    assert!((0.95..1.05).contains(&bandwidth), "{bandwidth}");
}

/// What others queue says nothing of the path to who sends little.
#[test]
fn queue_of_others_does_not_end_the_start_of_an_application_that_sends_little() {
    let mut run = Run::new(2_500_000, 40 * MILLISECOND);
    for _ in 0..2000 {
        run.busy = run.busy.max(run.now + 20 * MILLISECOND);
        run.step(1);
    }
    assert_eq!(run.bbr.phase, Phase::Startup);
}

/// Others fill the queue, and lose packets as well.
#[test]
fn losses_between_probes_cost_bandwidth_where_there_is_a_queue() {
    let lowest = |queue: Duration| {
        let mut run = Run::new(2_500_000, 100 * MILLISECOND);
        run.run(secs(3));
        run.loses = 100;
        let mut lowest = 1.0_f64;
        for _ in 0..2000 {
            run.busy = run.busy.max(run.now + queue);
            run.step(usize::MAX);
            lowest = lowest.min(run.bbr.model.bandwidth() as f64 / run.rate as f64);
        }
        lowest
    };
    let (random, crowded) = (lowest(Duration::ZERO), lowest(30 * MILLISECOND));
    assert!(random > 0.95 && crowded < 0.9, "{random} if the path loses, {crowded} if others fill it");
}

#[test]
fn random_loss_costs_no_more_than_itself() {
    for loses in [100, 50, 20] {
        let mut run = Run::new(2_500_000, 40 * MILLISECOND);
        run.loses = loses;
        run.run(secs(3));
        let share = run.share(secs(10));
        assert!(share > 0.98 - 2.0 / loses as f64, "1 of {loses} lost: {share}");
    }
}

#[test]
fn shallow_queue_loses_little() {
    let mut run = Run::new(2_500_000, 100 * MILLISECOND);
    run.queue = 10 * MILLISECOND;
    run.run(secs(3));
    let (sent, arrived) = (run.sent * MTU - run.in_flight(), run.arrived);
    let share = run.share(secs(10));
    assert!(share > 0.9, "{share}");
    let (sent, arrived) = (run.sent * MTU - run.in_flight() - sent, run.arrived - arrived);
    let lost = 1.0 - arrived as f64 / sent as f64;
    assert!(lost < 0.04, "{lost}");
}

/// Nothing is queued, so that what a probe adds is gone within a round trip. The end of the probe was missed then, and with
/// it all losses from then on: 62 of 100 packets.
#[test]
fn regression_probe_that_leaves_no_queue_is_over_all_the_same() {
    let mut run = Run::new(25_000_000, 40 * MILLISECOND);
    run.policer = Some(Policer { rate: 2_500_000.0, burst: 250_000.0, taken: 0.0, at: run.now });
    run.run(secs(3));
    let (sent, arrived) = (run.sent * MTU - run.in_flight(), run.arrived);
    run.run(secs(10));
    let (sent, arrived) = (run.sent * MTU - run.in_flight() - sent, run.arrived - arrived);
    assert!(arrived as f64 > 0.9 * 25_000_000.0, "{arrived} bytes");
    let lost = 1.0 - arrived as f64 / sent as f64;
    assert!(lost < 0.08, "{lost}");
}

#[test]
fn bandwidth_that_changes_is_found_again() {
    let mut run = Run::new(2_500_000, 40 * MILLISECOND);
    run.run(secs(4));
    run.rate /= 4;
    run.run(secs(8));
    let share = run.share(secs(4));
    assert!(share > 0.93, "slower: {share}");
    assert!(run.bbr.model.max_bandwidth() < run.rate * 11 / 10, "{}", run.bbr.model.max_bandwidth());
    run.rate *= 4;
    run.run(secs(4));
    let share = run.share(secs(4));
    assert!(share > 0.9, "faster: {share}");
}

#[test]
fn path_that_becomes_longer_is_measured_anew() {
    let mut run = Run::new(2_500_000, 40 * MILLISECOND);
    run.run(secs(4));
    run.rtt *= 3;
    run.run(secs(4));
    let shortest = run.bbr.model.min_rtt().unwrap_or_default();
    assert!(shortest >= run.rtt, "{shortest:?}");
    run.rtt /= 3;
    run.run(secs(1));
    let shortest = run.bbr.model.min_rtt().unwrap_or_default();
    assert!(shortest < 60 * MILLISECOND, "a shorter one is known at once: {shortest:?}");
}

#[test]
fn application_that_sends_little_does_not_hide_the_path() {
    let mut run = Run::new(2_500_000, 40 * MILLISECOND);
    run.run(secs(4));
    let before = run.bbr.model.max_bandwidth();
    for _ in 0..10_000 {
        run.step(0);
        if run.sent.is_multiple_of(2) || run.flight.is_empty() {
            run.step(1);
        }
    }
    assert!(run.bbr.model.max_bandwidth() > before * 9 / 10, "{} of {before}", run.bbr.model.max_bandwidth());
    let share = run.share(secs(2));
    assert!(share > 0.9, "{share}");
}

#[test]
fn everything_lost_leaves_a_small_window_that_grows_again() {
    let mut run = Run::new(2_500_000, 40 * MILLISECOND);
    run.run(secs(4));
    let before = run.bbr.window();
    let sent = run.now;
    run.bbr.on_congestion_event(run.now, sent, true, 10 * MTU);
    assert_eq!(run.bbr.window(), 4 * MTU);
    run.run(secs(1));
    assert!(run.bbr.window() > before / 2, "{} of {before}", run.bbr.window());
}

#[test]
fn marks_are_heeded_as_losses_are() {
    let mut run = Run::new(2_500_000, 40 * MILLISECOND);
    run.run(secs(3));
    while run.bbr.phase != Phase::Up {
        run.step(usize::MAX);
    }
    let sent = run.now;
    run.run(MILLISECOND);
    run.bbr.on_congestion_event(run.now, sent, false, 0);
    assert_eq!(run.bbr.phase, Phase::Down, "the probe ends");
}

#[test]
fn same_seed_probes_at_the_same_moments_and_another_at_others() {
    let probes = |seed| {
        let mut run = Run::new(2_500_000, 40 * MILLISECOND);
        run.bbr = Bbr::new(run.now, 1200, 12_000, seed, run.counter.clone());
        (0..20_000)
            .filter(|_| {
                let before = run.bbr.phase;
                run.step(usize::MAX);
                before != Phase::Up && run.bbr.phase == Phase::Up
            })
            .collect::<Vec<u32>>()
    };
    assert_eq!(probes(7), probes(7));
    assert_ne!(probes(7), probes(8));
}

/// What is asked of it, and when, is a peer's to choose.
#[test]
fn nothing_that_a_peer_acknowledges_makes_it_panic_or_stop() {
    let now = instant();
    let mut bbr = Bbr::new(now, 1200, 12_000, 1, Arc::default());
    let at = |ms: u64| now + Duration::from_millis(ms);
    for ms in 0..3000 {
        bbr.on_sent(at(ms), if ms.is_multiple_of(3) { 0 } else { u64::MAX / 4 }, ms);
        bbr.model.set_srtt(if ms.is_multiple_of(5) { Duration::ZERO } else { Duration::MAX });
        bbr.sampler.on_acked(at(ms), at(ms.saturating_sub(ms % 700)), u64::MAX / 3);
        bbr.on_end_acks(at(ms / 2), u64::MAX - ms, ms.is_multiple_of(7), None);
        bbr.on_congestion_event(at(ms), at(ms), ms.is_multiple_of(11), u64::MAX / 5);
        assert!(bbr.window() >= 4 * MTU && bbr.pacing_rate != Some(0));
    }
}
