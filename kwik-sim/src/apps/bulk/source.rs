//! One server as the primary sees it: how fast it brings bytes, and how many it still owes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kwik_core::{GrantInfo, GrantStatus, PathId, PathInfo, SessionMut};

use super::open::Open;

/// Bytes a second, of what is counted in all.
#[derive(Debug, Default)]
pub(super) struct Speed {
    mark: Option<(Instant, u64)>,
    bytes_per_second: u64,
    most: u64,
    /// Samples that were not much larger than the most before.
    level: u32,
}

impl Speed {
    const SPAN: Duration = Duration::from_millis(100);
    /// After so many samples that did not grow, the rate is taken for what the server can bring.
    const LEVEL: u32 = 3;

    /// `total` bytes have come by now.
    pub(super) fn on_total(&mut self, now: Instant, rtt: Duration, total: u64) {
        let Some((since, before)) = self.mark else {
            self.mark = (total > 0).then_some((now, total));
            return;
        };
        let span = now.saturating_duration_since(since);
        if span < Self::SPAN.max(rtt) {
            return;
        }
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let sample = (total - before).saturating_mul(1_000_000) / micros;
        if self.is_starting() {
            self.level = if sample > self.most / 20 * 23 { 0 } else { self.level + 1 };
            self.most = self.most.max(sample);
        }
        self.bytes_per_second = sample.max(self.bytes_per_second / 4 * 3);
        self.mark = Some((now, total));
    }

    pub(super) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Whether the server may soon bring much more, since its congestion window still grows.
    fn is_starting(&self) -> bool {
        self.level < Self::LEVEL
    }
}

/// A secondary.
#[derive(Debug)]
pub(super) struct RangeSource {
    pub(super) path: PathId,
    speed: Speed,
    grants: VecDeque<GrantInfo>,
    /// Bytes of delegations that are over.
    settled: u64,
    /// Bytes that were left to it and did not come yet, as far as known.
    owes: u64,
    /// Bytes that came, as far as known.
    brought: u64,
    rtt: Option<Duration>,
    is_alive: bool,
    /// Whether ranges are left to it: at once, or when it has joined.
    is_ready: bool,
}

impl RangeSource {
    /// What it owes beyond what is on its way: as much as it brings in so long, and not less than that many bytes.
    const SPARE_TIME: Duration = Duration::from_millis(50);
    const SPARE_BYTES: u64 = 128 * 1024;
    /// While its congestion window grows, it will bring so many times as much when it hears of what is left to it now.
    const START_GAIN: u64 = 3;

    /// A server that is added again must join before anything is left to it: it may be out of reach, and the reader would wait.
    pub(super) fn new(path: PathId, is_known: bool) -> Self {
        Self {
            path,
            speed: Speed::default(),
            grants: VecDeque::new(),
            settled: 0,
            owes: 0,
            brought: 0,
            rtt: None,
            is_alive: true,
            is_ready: !is_known,
        }
    }

    pub(super) fn on_granted(&mut self, grant: GrantInfo) {
        self.owes += grant.range.end - grant.range.start;
        self.grants.push_back(grant);
    }

    /// Looks at what became of its delegations. What will not come is given back.
    pub(super) fn look(&mut self, now: Instant, session: &mut SessionMut<'_>, open: &mut Open) {
        let (mut owes, mut delivered) = (0, 0);
        let settled = &mut self.settled;
        self.grants.retain(|GrantInfo { grant, range }| {
            let bytes = range.end - range.start;
            match session.delegation(*grant) {
                Some(GrantStatus::Progress { delivered: so_far }) => {
                    owes += bytes - so_far;
                    delivered += so_far;
                    return true;
                }
                Some(GrantStatus::Lost { missing, .. }) => {
                    missing.into_iter().for_each(|range| open.give_back(range));
                }
                Some(GrantStatus::Delivered) | None => {}
            }
            session.forget_delegation(*grant);
            *settled += bytes;
            false
        });
        (self.owes, self.brought) = (owes, self.settled + delivered);
        self.speed.on_total(now, self.rtt.unwrap_or_default(), self.brought);
    }

    /// Round trips as the client reports them; the least counts, so that a queue that fills does not ask for more.
    pub(super) fn on_info(&mut self, info: &PathInfo) {
        self.is_alive = !info.state.is_dead();
        self.is_ready |= info.state.is_usable();
        if !info.rtt.is_zero() {
            self.rtt = Some(self.rtt.map_or(info.rtt, |rtt| rtt.min(info.rtt)));
        }
    }

    /// How many bytes it should owe: what it brings until more could be left to it, and some.
    pub(super) fn wanted(&self, primary_rtt: Duration) -> u64 {
        if !self.is_ready {
            return 0;
        }
        let rate = self.speed.bytes_per_second();
        let usual = bytes_in(rate, self.round(primary_rtt));
        let start = if self.speed.is_starting() { self.brought.max(Self::START_GAIN * usual) } else { 0 };
        usual.max(start) + bytes_in(rate, Self::SPARE_TIME).max(Self::SPARE_BYTES)
    }

    /// When the first byte of what is left to it now would arrive; unknown before anything did.
    pub(super) fn eta(&self, primary_rtt: Duration) -> Option<Duration> {
        let wait = time_for(self.owes, self.speed.bytes_per_second())?;
        Some(wait.max(self.round(primary_rtt) / 2))
    }

    /// Whether nothing will come of it any more.
    pub(super) fn is_dead(&self) -> bool {
        !self.is_alive && self.grants.is_empty()
    }

    pub(super) fn owes(&self) -> u64 {
        self.owes
    }

    pub(super) fn bytes_per_second(&self) -> u64 {
        self.speed.bytes_per_second()
    }

    /// How long it takes from a grant to its receipt, at the least.
    fn round(&self, primary_rtt: Duration) -> Duration {
        primary_rtt + self.rtt.unwrap_or(primary_rtt)
    }
}

/// What comes at a rate in a time.
pub(super) fn bytes_in(bytes_per_second: u64, time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    bytes_per_second.saturating_mul(micros) / 1_000_000
}

/// How long so many bytes take at a rate, if it is known.
pub(super) fn time_for(bytes: u64, bytes_per_second: u64) -> Option<Duration> {
    bytes.saturating_mul(1_000_000).checked_div(bytes_per_second).map(Duration::from_micros)
}
