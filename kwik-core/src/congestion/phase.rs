//! What the controller tries out, and when (draft-ietf-ccwg-bbr §5.3).

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::Rng;

use super::Bbr;
use super::rate::Sample;

/// How often a round trip without a queue is looked for, if none was seen by chance (§5.3.4).
pub(super) const PROBE_RTT_EVERY: Duration = Duration::from_secs(5);
/// How long nothing was looked for before, however long round trips are.
pub(super) const PROBE_RTT_PAUSE: Duration = Duration::from_secs(2);
/// For how long little is in flight then.
pub(super) const PROBE_RTT_FOR: Duration = Duration::from_millis(200);
/// After so many long rounds the path is taken to have become longer.
pub(super) const LONG_ROUNDS: u32 = 10;

/// ```text
///   Startup ──▶ Settle ──▶ Drain ──▶ Down ──▶ Cruise ──▶ Refill ──▶ Up ─┐
///      └────────────────────▲         ▲                                 │
///                                     └─────────────────────────────────┘        any of them ──▶ ProbeRtt ──▶ Cruise
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Twice as fast each round trip, until no more is delivered (§5.3.1).
    Startup,
    /// A queue has begun to grow: no faster, for one round trip in which as much arrives as the path carries. The draft goes
    /// on until three rounds brought no more, or packets are lost; what those rounds queue is more than many queues hold.
    /// With 200 ms and a queue of 100 ms, 3.3 % of a download of three seconds are lost instead of 4.2 %. After HyStart++
    /// (RFC 9406).
    Settle,
    /// What Startup queued is let out (§5.3.2).
    Drain,
    /// A little slower, until nothing is queued and room is left to others (§5.3.3.1).
    Down,
    /// As fast as the path (§5.3.3.2).
    Cruise,
    /// The path is filled, so that the next probe does not show what room was left (§5.3.3.3).
    Refill,
    /// Faster, to see whether more is delivered (§5.3.3.4).
    Up,
    /// Little in flight, to see how long the path is (§5.3.4).
    ProbeRtt,
}

impl Phase {
    pub(super) fn pacing_gain(self) -> f64 {
        match self {
            Self::Startup => 2.77,
            Self::Drain => 0.35,
            Self::Down => 0.9,
            Self::Settle | Self::Cruise | Self::Refill | Self::ProbeRtt => 1.0,
            Self::Up => 1.25,
        }
    }

    pub(super) fn window_gain(self) -> f64 {
        match self {
            Self::Up => 2.25,
            _ => 2.0,
        }
    }

    /// By how much a round must deliver more than the one before, for the path not to be full.
    pub(super) fn growth(self) -> f64 {
        match self {
            Self::Startup => 1.25,
            _ => 1.1,
        }
    }

    /// Whether losses are what the phase looks for.
    pub(super) fn is_probing(self) -> bool {
        matches!(self, Self::Startup | Self::Settle | Self::Refill | Self::Up)
    }
}

/// Counts round trips by packets (§5.5.1).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rounds {
    pub(super) count: u64,
    next_delivered: u64,
    /// What was delivered and lost before this one, in bytes.
    delivered: u64,
    lost: u64,
}

impl Rounds {
    /// If a round trip is over, the share of its bytes that was lost.
    pub(super) fn on_sample(&mut self, sample: &Sample, delivered: u64, lost: u64) -> Option<f64> {
        if sample.prior_delivered < self.next_delivered {
            return None;
        }
        let (arrived, missing) = (delivered - self.delivered, lost - self.lost);
        *self = Self { count: self.count + 1, next_delivered: delivered, delivered, lost };
        Some(missing as f64 / arrived.saturating_add(missing).max(1) as f64)
    }
}

impl Bbr {
    /// Rounds without growth after which the path is full (§5.3.1.2).
    const FULL_ROUNDS: u32 = 3;
    /// Losses of one round that end Startup (§5.3.1.3).
    const STARTUP_LOSSES: u32 = 6;
    /// What a probe adds in a round trip, besides.
    const PROBE_PACKETS: u64 = 20;
    /// Rounds between two probes for bandwidth at least.
    const CYCLE_ROUNDS_MIN: u64 = 10;
    /// In so many rounds, what a probe queued is gone if it is the only one.
    const DRAIN_ROUNDS: u32 = 6;
    /// Rounds between two probes for bandwidth at most, so that a flow that shares with Reno or CUBIC takes no more than
    /// those would (§5.3.3.5).
    const CYCLE_ROUNDS_MAX: u64 = 63;

    /// Rounds of cruising after which nothing of the last probe is under way or queued.
    pub(super) const STEADY_ROUNDS: u64 = 2;

    pub(super) fn enter(&mut self, phase: Phase) {
        (self.phase, self.phase_rounds, self.steady_since) = (phase, 0, None);
    }

    pub(super) fn pacing_gain(&self) -> f64 {
        match self.phase {
            // What jitter of the round trip adds to the bandwidth would stay as a queue.
            Phase::Cruise if self.is_draining() => Phase::Down.pacing_gain(),
            // More of a queue would tell no more.
            Phase::Up if self.phase_rounds > 0 && self.model.has_queue() => Phase::Cruise.pacing_gain(),
            Phase::Up => Phase::Up.pacing_gain() + self.additive_gain(),
            phase => phase.pacing_gain(),
        }
    }

    /// A probe adds some packets beside its share of the bandwidth. So who has little of a shared path gains more.
    fn additive_gain(&self) -> f64 {
        let bdp = self.model.bdp(1.0).unwrap_or(u64::MAX).max(1);
        (self.probe_bytes() as f64 / bdp as f64).min(0.1)
    }

    pub(super) fn probe_bytes(&self) -> u64 {
        Self::PROBE_PACKETS * self.mtu
    }

    /// Whether more is in flight than the path holds, and bursts account for.
    fn has_excess(&self) -> bool {
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        in_flight > self.inflight(1.15).saturating_add(self.model.extra_acked() / 2)
    }

    /// Whether it is worth while to send less: what did not go away within some rounds is not this flow's.
    fn is_draining(&self) -> bool {
        self.drain_rounds < Self::DRAIN_ROUNDS && self.has_excess()
    }

    /// Counts the rounds in a row in which less is sent than the path carries.
    pub(super) fn count_drain_round(&mut self) {
        let is_less = self.phase == Phase::Down || (self.phase == Phase::Cruise && self.has_excess());
        self.drain_rounds = if is_less { self.drain_rounds.saturating_add(1) } else { 0 };
    }

    /// Moves from phase to phase.
    pub(super) fn advance(&mut self, now: Instant, in_flight: u64) {
        match self.phase {
            Phase::Startup | Phase::Settle => {
                let is_lossy = self.losses >= Self::STARTUP_LOSSES;
                // The round in which the queue was seen, and a whole one.
                let is_settled = self.phase == Phase::Settle && self.phase_rounds >= 2;
                if self.full_rounds >= Self::FULL_ROUNDS || is_settled || is_lossy {
                    self.is_full = true;
                    if is_lossy {
                        self.model.set_inflight_max(self.inflight(1.0), self.probe_bytes());
                    }
                    self.enter(Phase::Drain);
                }
            }
            Phase::Drain if in_flight <= self.inflight(1.0) => self.begin_down(now),
            Phase::Down => {
                if self.is_time_to_probe(now) {
                    self.begin_refill();
                } else if in_flight <= self.inflight(1.0) || self.drain_rounds >= Self::DRAIN_ROUNDS {
                    self.enter(Phase::Cruise);
                }
            }
            Phase::Cruise if self.is_time_to_probe(now) => self.begin_refill(),
            Phase::Refill if self.phase_rounds > 0 => {
                self.enter(Phase::Up);
                (self.is_probing, self.has_probe_lost) = (true, false);
                (self.full_bandwidth, self.full_rounds) = (self.model.max_bandwidth(), 0);
            }
            // One round to send more, and one to see what that brought. Who has little of a shared path gains more by that
            // than who has much, and goes on.
            Phase::Up if self.phase_rounds >= 2 => {
                if self.full_rounds > 0 {
                    self.model.raise_inflight_max();
                    self.begin_down(now);
                } else {
                    self.enter(Phase::Up);
                }
            }
            _ => {}
        }
    }

    /// The next cycle begins, at a moment that other flows do not share (§5.3.3.5). A probe that lost packets may
    /// have cost others theirs, who take long to recover from that: the next one comes later.
    pub(super) fn begin_cycle(&mut self, now: Instant) {
        self.cycle_since = now;
        let wait = Duration::from_millis(self.rng.random_range(1000..2000));
        self.cycle_wait = if self.has_probe_lost { 2 * wait } else { wait };
        self.cycle_round = self.rounds.count;
    }

    pub(super) fn begin_down(&mut self, now: Instant) {
        self.begin_cycle(now);
        self.is_probe_ending = true;
        self.drain_rounds = 0;
        self.enter(Phase::Down);
    }

    fn begin_refill(&mut self) {
        self.model.forget_losses();
        self.enter(Phase::Refill);
    }

    fn is_time_to_probe(&self, now: Instant) -> bool {
        let rounds = self.rounds.count - self.cycle_round;
        let packets = self.model.bdp(1.0).unwrap_or(0) / self.mtu.max(1);
        let most = packets.clamp(Self::CYCLE_ROUNDS_MIN, Self::CYCLE_ROUNDS_MAX);
        let has_waited = now.saturating_duration_since(self.cycle_since) >= self.cycle_wait;
        rounds >= most || (has_waited && rounds >= Self::CYCLE_ROUNDS_MIN)
    }
}
