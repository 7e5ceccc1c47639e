//! How often something may happen: so many times at once, and so many more each second.

use std::time::{Duration, Instant};

/// A bucket of tokens.
#[derive(Debug)]
pub(crate) struct Allowance {
    burst: u32,
    per_second: u32,
    left: u32,
    /// When the last whole token was added.
    since: Instant,
}

impl Allowance {
    pub(crate) fn new(now: Instant, burst: u32, per_second: u32) -> Self {
        Self { burst, per_second, left: burst, since: now }
    }

    /// Whether it may happen once more; counts it if so.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let free = self.has(now);
        self.left = self.left.saturating_sub(1);
        free
    }

    /// Whether it may happen once more.
    pub(crate) fn has(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left > 0
    }

    /// Whether nothing of it is used up.
    pub(crate) fn is_whole(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left == self.burst
    }

    /// Something useful happened, which makes up for one time.
    pub(crate) fn give_back(&mut self) {
        self.left = self.left.saturating_add(1).min(self.burst);
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        let tokens = elapsed.as_micros().saturating_mul(u128::from(self.per_second)) / 1_000_000;
        let Ok(tokens) = u32::try_from(tokens) else {
            (self.left, self.since) = (self.burst, now);
            return;
        };
        self.left = self.left.saturating_add(tokens).min(self.burst);
        // What is left of a token is kept.
        if let Some(each) = Duration::from_secs(1).checked_div(self.per_second) {
            self.since += each.saturating_mul(tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    #[test]
    fn burst_is_spent_and_comes_back_with_time() {
        let start = instant();
        let at = |ms| start + Duration::from_millis(ms);
        let mut allowance = Allowance::new(start, 10, 100);
        assert_eq!((0..20).filter(|_| allowance.take(start)).count(), 10);
        assert!(!allowance.take(at(9)));
        assert!(allowance.take(at(10)));
        assert!(!allowance.take(at(19)), "half a token was counted as one");
        assert_eq!((0..20).filter(|_| allowance.take(at(60))).count(), 5);
        assert_eq!((0..20).filter(|_| allowance.take(at(100_000))).count(), 10);
        assert_eq!((0..20).filter(|_| allowance.take(start + Duration::from_secs(1 << 40))).count(), 10);
    }

    #[test]
    fn what_was_given_back_never_exceeds_the_burst() {
        let start = instant();
        let mut allowance = Allowance::new(start, 2, 0);
        allowance.give_back();
        assert_eq!((0..5).filter(|_| allowance.take(start)).count(), 2);
        allowance.give_back();
        assert!(allowance.take(start) && !allowance.take(start));
    }
}
