//! What is known of the path (draft-ietf-ccwg-bbr §5.5): how much it delivers, how long it is, and how much it holds.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::bytes;
use super::filter::{MaxOfTwo, MinRtt};
use super::phase::Phase;
use super::rate::Sample;

/// Estimates of a path.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// Bytes a second.
    max_bandwidth: MaxOfTwo,
    /// What losses leave of it until it is probed for again.
    bandwidth_low: Option<u64>,
    /// Bytes in flight that were too many when they were probed for.
    inflight_max: Option<u64>,
    /// What losses leave of the window until bandwidth is probed for again.
    inflight_low: Option<u64>,
    /// The share of bytes that is lost though nothing is queued.
    random_loss: f64,
    min_rtt: MinRtt,
    srtt: Duration,
    /// The last one.
    rtt: Duration,
    /// The best of this round.
    latest: Latest,
    aggregation: Aggregation,
    /// Bytes that were delivered when that was last noted.
    delivered: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Latest {
    bandwidth: u64,
    delivered: u64,
    rtt: Option<Duration>,
    /// Round trips that were measured.
    rtts: u32,
}

/// How much is acknowledged at once beyond what the path delivers meanwhile (§5.5.9).
#[derive(Debug, Clone, Copy)]
struct Aggregation {
    since: Instant,
    acked: u64,
    extra: MaxOfTwo,
    rounds: u32,
}

impl Model {
    /// What a loss leaves (§2.7).
    const BETA: f64 = 0.7;
    /// The share of losses that is too much (§2.7).
    const LOSS_MAX: f64 = 0.02;
    /// The share that is too much while nothing is probed for: others fill the path. The draft knows no difference, and
    /// leaves CUBIC a tenth of its share of a path of 100 ms with a queue of 20 ms. With what follows from it here, CUBIC
    /// has four tenths.
    const LOSS_STEADY_MAX: f64 = 0.005;
    /// What those losses leave of what arrived.
    const BETA_CROWDED: f64 = 0.85;
    /// With more random loss than that, losses do not tell of others.
    const RANDOM_LOSS_NONE: f64 = 0.002;
    /// Losses are taken for congestion without a queue only if there are so many.
    const LOSS_WITHOUT_QUEUE_MAX: f64 = 0.2;
    /// More than that is no path's own.
    const RANDOM_LOSS_MAX: f64 = 0.1;
    /// The share of the largest tolerated amount in flight that is used while nothing is probed for.
    const HEADROOM: f64 = 0.85;
    /// The least that losses leave to probes, in bandwidth-delay products, and to all else.
    const PROBE_FLOOR: f64 = 1.1;
    const INFLIGHT_FLOOR: f64 = 1.25;
    /// The same where others keep a queue.
    const INFLIGHT_FLOOR_QUEUE: f64 = 1.0;
    /// A shortest round trip is not taken for true any longer than that, unless it is seen again.
    const MIN_RTT_MAX_AGE: Duration = Duration::from_secs(10);

    pub(super) fn new(now: Instant) -> Self {
        Self {
            max_bandwidth: MaxOfTwo::default(),
            bandwidth_low: None,
            inflight_max: None,
            inflight_low: None,
            random_loss: 0.0,
            min_rtt: MinRtt::new(now),
            srtt: Duration::ZERO,
            rtt: Duration::ZERO,
            latest: Latest::default(),
            aggregation: Aggregation { since: now, acked: 0, extra: MaxOfTwo::default(), rounds: 0 },
            delivered: 0,
        }
    }

    pub(super) fn on_sample(&mut self, now: Instant, sample: &Sample, acked: u64, window: u64) {
        if let Some(rate) = sample.rate {
            // Samples that the application limited show at least so much (§5.5.5). After losses it is the path that limits,
            // though QUIC may have nothing to send before they are repaired.
            if !sample.is_app_limited || rate >= self.max_bandwidth.get() || self.bandwidth_low.is_some() {
                self.max_bandwidth.update(rate);
            }
            self.latest.bandwidth = self.latest.bandwidth.max(rate);
        }
        self.latest.delivered = self.latest.delivered.max(self.delivered.saturating_sub(sample.prior_delivered));
        self.latest.rtt = Some(self.latest.rtt.map_or(sample.rtt, |rtt| rtt.min(sample.rtt)));
        self.latest.rtts += 1;
        self.rtt = sample.rtt;
        self.min_rtt.update(now, sample.rtt);
        let bandwidth = self.bandwidth();
        self.aggregation.on_acked(now, acked, bandwidth, window);
    }

    pub(super) fn begin_round(&mut self) {
        self.latest = Latest::default();
        self.aggregation.on_round();
    }

    /// What was sent in the last probe for bandwidth is known to be delivered or lost.
    pub(super) fn end_cycle(&mut self) {
        self.max_bandwidth.advance();
    }

    // ---- bandwidth and window

    /// Bytes a second, as probed.
    pub(super) fn max_bandwidth(&self) -> u64 {
        self.max_bandwidth.get()
    }

    /// Bytes a second, as used.
    pub(super) fn bandwidth(&self) -> u64 {
        self.max_bandwidth().min(self.bandwidth_low.unwrap_or(u64::MAX))
    }

    /// So many times what the path holds without a queue, in bytes; `None` if that is not known.
    pub(super) fn bdp(&self, gain: f64) -> Option<u64> {
        let rtt = self.min_rtt.get()?;
        Some(bytes(self.bandwidth() as f64 * rtt.as_secs_f64() * gain))
    }

    pub(super) fn extra_acked(&self) -> u64 {
        self.aggregation.extra.get()
    }

    /// What may be in flight after losses (§5.6.4.7).
    pub(super) fn inflight_bound(&self, phase: Phase) -> u64 {
        let most = match phase {
            Phase::Up => self.inflight_max.unwrap_or(u64::MAX),
            Phase::Down | Phase::Cruise | Phase::Refill | Phase::ProbeRtt => self.with_headroom(),
            Phase::Startup | Phase::Settle | Phase::Drain => u64::MAX,
        };
        most.min(self.inflight_low.unwrap_or(u64::MAX))
    }

    /// What leaves room for others. Less than the floor would leave the path idle: it is paced anyhow.
    fn with_headroom(&self) -> u64 {
        let gives_way = self.has_queue() && self.random_loss < Self::RANDOM_LOSS_NONE;
        let gain = if gives_way { Self::INFLIGHT_FLOOR_QUEUE } else { Self::INFLIGHT_FLOOR };
        let floor = self.bdp(gain).unwrap_or(0);
        self.inflight_max.map_or(u64::MAX, |most| floor.max(bytes(most as f64 * Self::HEADROOM)))
    }

    // ---- losses

    /// Whether so many bytes lost of so many in flight mean that the path is full. Losses that come without a queue are
    /// the path's own: strictly after the draft (§5.5.10), 1 % of random loss leaves 71 % of a path of 50 Mbit/s and
    /// 40 ms, since 2 % of a small window are exceeded by chance.
    /// `is_steady` if the packet was sent while nothing was probed for.
    pub(super) fn is_loss_congestion(&self, lost: u64, in_flight: u64, is_steady: bool) -> bool {
        let share = lost as f64 / in_flight.max(1) as f64;
        let is_strict = is_steady && self.random_loss < Self::RANDOM_LOSS_NONE;
        let usual = if is_strict { Self::LOSS_STEADY_MAX } else { Self::LOSS_MAX } + 2.0 * self.random_loss;
        share > Self::LOSS_WITHOUT_QUEUE_MAX || (share > usual && self.has_queue())
    }

    /// By how much more must be sent for as much to arrive as the path carries. Not quite as much: what only looks like
    /// random loss, as that of a policer, goes away again.
    pub(super) fn redundancy(&self) -> f64 {
        const SHARE: f64 = 0.8;
        1.0 / (1.0 - SHARE * self.random_loss)
    }

    /// A round in which nothing was probed for lost such a share of its bytes.
    pub(super) fn on_round_lost(&mut self, share: f64) {
        if !self.has_queue() && share < Self::RANDOM_LOSS_MAX {
            self.random_loss += (share - self.random_loss) / 8.0;
        }
    }

    /// Whether packets wait somewhere.
    pub(super) fn has_queue(&self) -> bool {
        let shortest = self.min_rtt.get().unwrap_or(Duration::MAX);
        self.srtt.max(self.rtt) > shortest.saturating_add(shortest / 16).saturating_add(Duration::from_millis(2))
    }

    /// So much in flight was too much while bandwidth was probed for. Probes may add `more` bytes to what the path holds.
    pub(super) fn set_inflight_max(&mut self, in_flight: u64, more: u64) {
        let floor = self.bdp(Self::PROBE_FLOOR).unwrap_or(0).saturating_add(more);
        self.inflight_max = Some(in_flight.max(floor));
    }

    /// More is in flight, and nothing tells that it is too much.
    pub(super) fn raise_inflight_max(&mut self) {
        self.inflight_max = self.inflight_max.map(|most| most.saturating_add(most / 8));
    }

    /// A round had losses while nothing was probed for (§5.5.10.3). What arrived is kept, unless others fill the path.
    pub(super) fn lower(&mut self, window: u64, is_crowded: bool) {
        let kept = if is_crowded { Self::BETA_CROWDED } else { 1.0 };
        let lowered = |before: u64, latest: u64| bytes(latest as f64 * kept).max(bytes(before as f64 * Self::BETA));
        let bandwidth = self.bandwidth_low.unwrap_or_else(|| self.max_bandwidth());
        let inflight = self.inflight_low.unwrap_or(window);
        self.bandwidth_low = Some(lowered(bandwidth, self.latest.bandwidth));
        self.inflight_low = Some(lowered(inflight, self.latest.delivered));
    }

    /// Bandwidth is probed for again, whatever was lost.
    pub(super) fn forget_losses(&mut self) {
        (self.bandwidth_low, self.inflight_low) = (None, None);
    }

    // ---- round trips

    pub(super) fn min_rtt(&self) -> Option<Duration> {
        self.min_rtt.get()
    }

    pub(super) fn min_rtt_age(&self, now: Instant) -> Duration {
        self.min_rtt.age(now)
    }

    /// Whether every round trip of this round was much longer than the shortest known.
    pub(super) fn is_round_long(&self) -> bool {
        self.latest.rtt.is_some_and(|rtt| self.is_long(rtt))
    }

    /// Whether so many round trips of this round were all longer than the shortest known that a queue must be growing
    /// (RFC 9406 §4.2).
    pub(super) fn is_round_queued(&self) -> bool {
        const RTTS: u32 = 8;
        const MARGIN: RangeInclusive<Duration> = Duration::from_millis(4)..=Duration::from_millis(16);
        let (Some(shortest), Some(rtt)) = (self.min_rtt.get(), self.latest.rtt) else { return false };
        let margin = (shortest / 8).clamp(*MARGIN.start(), *MARGIN.end());
        self.latest.rtts >= RTTS && rtt > shortest.saturating_add(margin)
    }

    fn is_long(&self, rtt: Duration) -> bool {
        const MARGIN: Duration = Duration::from_millis(5);
        self.min_rtt.get().is_some_and(|shortest| rtt > (shortest + shortest / 2).saturating_add(MARGIN))
    }

    /// The shortest round trip with little in flight. If it is still long, the path is.
    pub(super) fn end_probe_rtt(&mut self, now: Instant, shortest: Duration, is_jump: bool) {
        if (is_jump && self.is_long(shortest)) || self.min_rtt.age(now) > Self::MIN_RTT_MAX_AGE {
            self.min_rtt.set(now, shortest);
        }
    }

    pub(super) fn srtt(&self) -> Duration {
        self.srtt
    }

    pub(super) fn set_srtt(&mut self, srtt: Duration) {
        self.srtt = srtt;
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(super) fn set_delivered(&mut self, delivered: u64) {
        self.delivered = delivered;
    }
}

impl Aggregation {
    /// Rounds after which the largest of a period is forgotten with the next one.
    const ROUNDS: u32 = 5;

    fn on_acked(&mut self, now: Instant, acked: u64, bandwidth: u64, window: u64) {
        let expected = |since| bytes(now.saturating_duration_since(since).as_secs_f64() * bandwidth as f64);
        if self.acked <= expected(self.since) {
            (self.since, self.acked) = (now, 0);
        }
        self.acked = self.acked.saturating_add(acked);
        self.extra.update(self.acked.saturating_sub(expected(self.since)).min(window));
    }

    fn on_round(&mut self) {
        self.rounds += 1;
        if self.rounds >= Self::ROUNDS {
            self.rounds = 0;
            self.extra.advance();
        }
    }
}
