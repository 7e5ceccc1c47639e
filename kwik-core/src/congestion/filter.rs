//! The largest and the smallest of what was measured lately.

use std::time::{Duration, Instant};

/// The largest value of the last two periods: the one that runs, and the one before (draft-ietf-ccwg-bbr §5.5.5).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MaxOfTwo {
    values: [u64; 2],
}

impl MaxOfTwo {
    pub(super) fn get(&self) -> u64 {
        self.values[0].max(self.values[1])
    }

    pub(super) fn update(&mut self, value: u64) {
        self.values[1] = self.values[1].max(value);
    }

    /// A period ends. If nothing was measured in it, it goes on.
    pub(super) fn advance(&mut self) {
        if self.values[1] > 0 {
            self.values = [self.values[1], 0];
        }
    }
}

/// The shortest round trip of some time, and when it was seen last (draft-ietf-ccwg-bbr §5.5.7).
#[derive(Debug, Clone, Copy)]
pub(super) struct MinRtt {
    value: Option<Duration>,
    at: Instant,
}

impl MinRtt {
    pub(super) fn new(now: Instant) -> Self {
        Self { value: None, at: now }
    }

    pub(super) fn get(&self) -> Option<Duration> {
        self.value
    }

    /// How long ago that was.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    /// A round trip that is hardly longer shows that the shortest is still true: without that, the smallest jitter would
    /// have it looked for every few seconds.
    pub(super) fn update(&mut self, now: Instant, rtt: Duration) {
        match self.value {
            Some(value) if rtt > value.saturating_add(value / 32) => {}
            Some(value) => self.set(now, rtt.min(value)),
            None => self.set(now, rtt),
        }
    }

    pub(super) fn set(&mut self, now: Instant, rtt: Duration) {
        (self.value, self.at) = (Some(rtt), now);
    }
}
