//! A congestion controller that measures how fast the path delivers and how long a round trip takes without a queue, and
//! sends no more than that: BBR, version 3, after draft-ietf-ccwg-bbr, whose sections are named beside the code. Where it
//! departs from the draft, the reason stands there, with what it is worth.
//!
//! It says how much may be in flight and how fast to send; [`crate::path`] keeps to the latter.

mod filter;
mod model;
mod phase;
mod rate;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerMetrics};
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::model::Model;
use self::phase::{Phase, Rounds};
use self::rate::{Sample, Sampler};

/// The controller of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Bbr {
    rng: StdRng,
    /// Bytes in flight, counted by whoever owns the connection.
    in_flight: Arc<AtomicU64>,
    initial_window: u64,
    mtu: u64,
    sampler: Sampler,
    model: Model,
    rounds: Rounds,
    phase: Phase,
    /// Rounds since the phase began.
    phase_rounds: u64,
    /// Rounds in a row in which less was sent than the path carries.
    drain_rounds: u32,
    /// When the last cycle of probing for bandwidth began, in time and in rounds, and how long it takes.
    cycle_since: Instant,
    cycle_wait: Duration,
    cycle_round: u64,
    /// The path was once as full as it gets.
    is_full: bool,
    /// The bandwidth that the next rounds are compared with, and how many of them had no more.
    full_bandwidth: u64,
    full_rounds: u32,
    /// What is acknowledged or lost now was sent to probe for bandwidth.
    is_probing: bool,
    /// The probe is over, and a round trip later all that was sent in it is acknowledged or lost, whatever the phase is then.
    is_probe_ending: bool,
    /// Some of it was lost, and that counts.
    has_probe_lost: bool,
    /// Losses of this round that count.
    losses: u32,
    /// Some of them hit what was sent while nothing was probed for: others fill the path.
    is_crowded: bool,
    /// Since when nothing was probed for, and what the last probe queued is gone.
    steady_since: Option<Instant>,
    probe_rtt: ProbeRtt,
    window: u64,
    /// The window to return to after a probe for the round trip, or after everything was lost.
    window_before: u64,
    pacing_rate: Option<u64>,
}

/// A probe for the shortest round trip (§5.3.4).
#[derive(Debug, Clone, Copy)]
struct ProbeRtt {
    /// When it began, or the last one ended.
    at: Instant,
    /// Until when little is in flight, once little is.
    until: Option<Instant>,
    /// The round that must be over by then.
    round: u64,
    shortest: Option<Duration>,
    /// The path is longer than it was: what is found now replaces what was found before.
    is_jump: bool,
    /// Rounds in a row that were all much longer than the shortest known.
    long_rounds: u32,
}

impl ProbeRtt {
    fn new(at: Instant) -> Self {
        Self { at, until: None, round: 0, shortest: None, is_jump: false, long_rounds: 0 }
    }
}

impl Bbr {
    /// Packets that may be in flight whatever the model says (§2.7).
    const WINDOW_PACKETS_MIN: u64 = 4;

    /// Begins with `initial_window` bytes. `in_flight` tells how many are in flight before something is sent.
    pub(crate) fn new(now: Instant, mtu: u16, initial_window: u64, seed: u64, in_flight: Arc<AtomicU64>) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            in_flight,
            initial_window,
            mtu: mtu.into(),
            sampler: Sampler::new(now),
            model: Model::new(now),
            rounds: Rounds::default(),
            phase: Phase::Startup,
            phase_rounds: 0,
            drain_rounds: 0,
            cycle_since: now,
            cycle_wait: Duration::ZERO,
            cycle_round: 0,
            is_full: false,
            full_bandwidth: 0,
            full_rounds: 0,
            is_probing: false,
            is_probe_ending: false,
            has_probe_lost: false,
            losses: 0,
            is_crowded: false,
            steady_since: None,
            probe_rtt: ProbeRtt::new(now),
            window: initial_window,
            window_before: 0,
            pacing_rate: None,
        }
    }

    fn window_min(&self) -> u64 {
        Self::WINDOW_PACKETS_MIN * self.mtu
    }

    /// What leaves at once, in bytes (§5.6.3).
    fn quantum(&self) -> u64 {
        quantum(self.pacing_rate.unwrap_or(0), self.mtu)
    }

    /// What the path holds with a gain, and what bursts of sending and acknowledging add (§5.6.4.2).
    fn inflight(&self, gain: f64) -> u64 {
        let bdp = self.model.bdp(gain).unwrap_or(self.initial_window);
        bdp.saturating_add(3 * self.quantum()).max(self.window_min())
    }

    // ---- upon acknowledgements (§5.2.3)

    fn on_sample(&mut self, now: Instant, sample: Sample, acked: u64, in_flight: u64) {
        let lost = self.rounds.on_sample(&sample, self.sampler.delivered(), self.sampler.lost());
        self.model.on_sample(now, &sample, acked, self.window);
        if let Some(lost) = lost {
            self.phase_rounds += 1;
            self.count_drain_round();
            self.on_round(lost, sample.is_app_limited);
        }
        if self.phase == Phase::Startup && !sample.is_app_limited && self.model.is_round_queued() {
            self.enter(Phase::Settle);
        }
        if self.phase == Phase::Cruise && self.phase_rounds >= Self::STEADY_ROUNDS {
            self.steady_since.get_or_insert(now);
        }
        self.advance(now, in_flight);
        self.check_probe_rtt(now, sample.rtt, in_flight);
        self.set_pacing_rate();
        self.set_window(acked);
    }

    /// A round trip is over.
    fn on_round(&mut self, lost: f64, is_app_limited: bool) {
        if self.losses > 0 && !self.phase.is_probing() {
            self.model.lower(self.window, self.is_crowded);
        }
        if std::mem::take(&mut self.is_probe_ending) {
            // All that was sent to probe is acknowledged or lost (§5.3.3.6).
            self.is_probing = false;
            self.model.end_cycle();
        }
        if self.phase != Phase::Up {
            self.model.on_round_lost(lost);
        }
        self.check_full(is_app_limited);
        self.probe_rtt.long_rounds = if self.model.is_round_long() { self.probe_rtt.long_rounds + 1 } else { 0 };
        (self.losses, self.is_crowded) = (0, false);
        self.model.begin_round();
    }

    /// Whether more was sent without more being delivered (§5.3.1.2).
    fn check_full(&mut self, is_app_limited: bool) {
        // An application that sends little says nothing of the path, and ends Startup no sooner.
        let is_checked = match self.phase {
            Phase::Startup => !is_app_limited,
            // What is acknowledged in the first round was sent before.
            Phase::Up => self.phase_rounds >= 2,
            _ => false,
        };
        if !is_checked {
            return;
        }
        let bandwidth = self.model.max_bandwidth();
        if bandwidth as f64 >= self.full_bandwidth as f64 * self.phase.growth() {
            (self.full_bandwidth, self.full_rounds) = (bandwidth, 0);
        } else {
            self.full_rounds += 1;
        }
    }

    fn check_probe_rtt(&mut self, now: Instant, rtt: Duration, in_flight: u64) {
        if self.phase != Phase::ProbeRtt {
            let pause = now.saturating_duration_since(self.probe_rtt.at);
            let is_jump = self.probe_rtt.long_rounds >= phase::LONG_ROUNDS && pause > phase::PROBE_RTT_PAUSE;
            if self.is_full && (is_jump || self.model.min_rtt_age(now).min(pause) > phase::PROBE_RTT_EVERY) {
                self.probe_rtt = ProbeRtt { is_jump, ..ProbeRtt::new(now) };
                self.window_before = self.window;
                self.enter(Phase::ProbeRtt);
            }
            return;
        }
        let window = self.probe_rtt_window();
        let probe = &mut self.probe_rtt;
        probe.shortest = Some(probe.shortest.map_or(rtt, |shortest| shortest.min(rtt)));
        match probe.until {
            None if in_flight <= window => {
                self.probe_rtt.until = now.checked_add(phase::PROBE_RTT_FOR);
                self.probe_rtt.round = self.rounds.count + 1;
                // Only what is measured with little in flight counts.
                self.probe_rtt.shortest = None;
            }
            Some(until) if now >= until && self.rounds.count > probe.round => {
                if let Some(shortest) = probe.shortest {
                    self.model.end_probe_rtt(now, shortest, probe.is_jump);
                }
                self.probe_rtt = ProbeRtt::new(now);
                self.window = self.window.max(self.window_before);
                self.begin_cycle(now);
                self.enter(Phase::Cruise);
            }
            _ => {}
        }
    }

    fn probe_rtt_window(&self) -> u64 {
        self.model.bdp(0.5).unwrap_or(0).max(self.window_min())
    }

    // ---- what follows from the model (§5.6)

    /// A little less than the path carries, so that a queue does not stay (§5.6.2).
    fn set_pacing_rate(&mut self) {
        const MARGIN: f64 = 0.99;
        let gain = self.pacing_gain();
        let rate = bytes(self.model.bandwidth() as f64 * gain * MARGIN * self.model.redundancy());
        // With less than the smallest window in a round trip, losses would take all of the rate with them.
        let least = bytes(self.window_min() as f64 / self.model.srtt().as_secs_f64().max(1e-6));
        let is_starting = self.phase == Phase::Startup;
        let rate = rate.max(if is_starting { self.startup_rate() } else { least });
        // The application may have had little to send so far.
        if !is_starting || self.pacing_rate.is_none_or(|before| rate > before) {
            self.pacing_rate = Some(rate.max(1));
        }
    }

    /// How fast to send at least as long as it is not known how fast the path is, in bytes a second.
    fn startup_rate(&self) -> u64 {
        const PACKETS: u64 = 32;
        let rtt = self.model.srtt().max(Duration::from_micros(100)).as_secs_f64();
        bytes((PACKETS * self.mtu) as f64 * Phase::Startup.pacing_gain() / rtt)
    }

    /// §5.6.4.6, bound by what the model says (§5.6.4.7).
    fn set_window(&mut self, acked: u64) {
        let most = self.inflight(self.phase.window_gain()).saturating_add(self.model.extra_acked());
        let grown = self.window.saturating_add(acked);
        if self.is_full {
            self.window = grown.min(most);
        } else if self.window < most || self.sampler.delivered() < self.initial_window {
            self.window = grown;
        }
        self.window = self.window.min(self.model.inflight_bound(self.phase)).max(self.window_min());
        if self.phase == Phase::ProbeRtt {
            self.window = self.window.min(self.probe_rtt_window());
        }
    }

    // ---- upon losses and marks (§5.5.10)

    fn on_loss(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.sampler.on_lost(bytes);
        let Some(record) = self.sampler.at(sent).copied() else { return };
        let lost = self.sampler.lost().saturating_sub(record.lost);
        // No bytes: a router marked packets, since its queue is long.
        let is_steady = self.steady_since.is_some_and(|since| sent >= since);
        if bytes > 0 && !self.model.is_loss_congestion(lost, record.in_flight, is_steady) {
            return;
        }
        if !self.is_probing {
            self.losses += 1;
            // Who gives way to a policer lets it save up for the next probe.
            self.is_crowded |= is_steady && self.model.has_queue();
            return;
        }
        // The first loss tells how much was too much; those after it were under way already.
        if !std::mem::replace(&mut self.has_probe_lost, true) {
            self.model.set_inflight_max(record.in_flight, self.probe_bytes());
        }
        if self.phase == Phase::Up {
            self.begin_down(now);
        }
    }
}

/// Whole bytes, at least none.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a fraction of a byte does not matter, and what is too large saturates"
)]
pub(crate) fn bytes(value: f64) -> u64 {
    value as u64
}

/// What is sent at once at a rate in bytes a second: a millisecond's worth, and one or two packets at least.
pub(crate) fn quantum(rate: u64, mtu: u64) -> u64 {
    const SLOW: u64 = 150_000;
    let packets = if rate < SLOW { 1 } else { 2 };
    (rate / 1000).max(packets * mtu)
}

impl Controller for Bbr {
    fn on_sent(&mut self, now: Instant, bytes: u64, _: u64) {
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        self.sampler.on_sent(now, bytes, in_flight, self.model.srtt());
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _: bool, rtt: &RttEstimator) {
        self.model.set_srtt(rtt.get());
        self.sampler.on_acked(now, sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _: Option<u64>) {
        let before = self.model.delivered();
        let shortest = self.model.min_rtt().unwrap_or_default();
        if let Some(sample) = self.sampler.on_batch(now, in_flight, app_limited, shortest) {
            let acked = self.sampler.delivered().saturating_sub(before);
            self.model.set_delivered(self.sampler.delivered());
            self.on_sample(now, sample, acked, in_flight);
        }
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.on_loss(now, sent, lost_bytes);
        if is_persistent_congestion {
            // It grows with what is acknowledged (§5.6.4.4).
            self.window = self.window_min();
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
        self.window = self.window.max(self.window_min());
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window;
        metrics.pacing_rate = self.pacing_rate.map(|rate| rate.saturating_mul(8));
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.initial_window
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
