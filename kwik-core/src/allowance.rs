//! How often something may happen: so many times at once, and so many more each span of time.

use std::time::{Duration, Instant};

/// A bucket of tokens, counted without rounding: a token is as many parts as a span has nanoseconds.
#[derive(Debug)]
pub(crate) struct Allowance {
    burst: u64,
    per_span: u64,
    span_parts: u128,
    parts: u128,
    since: Instant,
}

impl Allowance {
    /// `burst` times at once, and `per_second` times more each second.
    pub(crate) fn new(now: Instant, burst: u32, per_second: u32) -> Self {
        Self::over(now, burst.into(), per_second.into(), Duration::from_secs(1))
    }

    /// `burst` times at once, and `per_span` times more each `span`, which counts as a nanosecond if it is zero.
    pub(crate) fn over(now: Instant, burst: u64, per_span: u64, span: Duration) -> Self {
        let span_parts = span.as_nanos().max(1);
        Self { burst, per_span, span_parts, parts: u128::from(burst).saturating_mul(span_parts), since: now }
    }

    /// Whether it may happen once more; counts it if so.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.take_up_to(now, 1) == 1
    }

    /// How many more times it may happen, at most `wanted`; counts them.
    pub(crate) fn take_up_to(&mut self, now: Instant, wanted: u64) -> u64 {
        self.refill(now);
        let taken = u64::try_from(self.parts / self.span_parts).unwrap_or(u64::MAX).min(wanted);
        self.parts -= u128::from(taken) * self.span_parts;
        taken
    }

    /// Whether it may happen once more.
    pub(crate) fn has(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.parts >= self.span_parts
    }

    /// Whether nothing of it is used up.
    pub(crate) fn is_whole(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.parts == self.most()
    }

    /// Something useful happened so many times, which makes up for as many.
    pub(crate) fn give_back(&mut self, times: u64) {
        self.add(u128::from(times).saturating_mul(self.span_parts));
    }

    /// When `wanted` may happen at once, at most the burst; `None` if that is never. A moment that is past is now.
    pub(crate) fn ready_at(&self, wanted: u64) -> Option<Instant> {
        let missing = u128::from(wanted.min(self.burst)).saturating_mul(self.span_parts).saturating_sub(self.parts);
        if missing == 0 {
            return Some(self.since);
        }
        let nanos = missing.div_ceil(u128::from(self.per_span.max(1)));
        let wait = Duration::from_nanos(u64::try_from(nanos).ok()?);
        (self.per_span > 0).then(|| self.since.checked_add(wait)).flatten()
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since).as_nanos();
        self.since = self.since.max(now);
        self.add(elapsed.saturating_mul(u128::from(self.per_span)));
    }

    fn add(&mut self, parts: u128) {
        self.parts = self.parts.saturating_add(parts).min(self.most());
    }

    fn most(&self) -> u128 {
        u128::from(self.burst).saturating_mul(self.span_parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn burst_is_spent_and_comes_back_with_time() {
        let start = instant();
        let at = |ms| start + Duration::from_millis(ms);
        let mut allowance = Allowance::new(start, 10, 100);
        assert_eq!((0..20).filter(|_| allowance.take(start)).count(), 10);
        assert!(!allowance.take(at(9)));
        assert!(allowance.take(at(10)));
        assert!(!allowance.take(at(19)), "half a token was counted as one");
        assert_eq!(allowance.take_up_to(at(60), 20), 5);
        assert_eq!(allowance.take_up_to(at(50), 20), 0, "time went back");
        assert_eq!(allowance.take_up_to(at(100_000), 20), 10);
        assert_eq!(allowance.take_up_to(start + Duration::from_secs(1 << 40), 20), 10);
    }

    #[test]
    fn what_was_given_back_never_exceeds_the_burst() {
        let start = instant();
        let mut allowance = Allowance::new(start, 2, 0);
        allowance.give_back(1);
        assert_eq!(allowance.take_up_to(start, 5), 2);
        allowance.give_back(1);
        assert!(allowance.take(start) && !allowance.take(start));
        allowance.give_back(u64::MAX);
        assert_eq!(allowance.take_up_to(start, 5), 2);
    }

    #[test]
    fn as_many_as_are_awaited_are_there_at_the_moment_told_and_not_before() {
        let start = instant();
        for (burst, per_span, span, wanted) in
            [(10, 3, SECOND, 4), (1 << 32, 1 << 32, SECOND, 1 << 28), (16, 16, Duration::from_secs(3600), 1)]
        {
            let mut allowance = Allowance::over(start, burst, per_span, span);
            assert!(allowance.is_whole(start));
            assert_eq!(allowance.ready_at(wanted), Some(start));
            assert_eq!(allowance.take_up_to(start, u64::MAX), burst);
            let at = allowance.ready_at(wanted).expect("a rate");
            assert!(allowance.take_up_to(at - Duration::from_nanos(1), u64::MAX) < wanted);
            let mut allowance = Allowance::over(start, burst, per_span, span);
            allowance.take_up_to(start, u64::MAX);
            assert!(allowance.take_up_to(at, u64::MAX) >= wanted);
        }
        let mut never = Allowance::new(start, 1, 0);
        assert!(never.take(start));
        assert_eq!(never.ready_at(1), None);
        let mut far = Allowance::over(start, 1 << 32, 1, Duration::MAX);
        assert_eq!(far.take_up_to(start, u64::MAX), 1 << 32);
        assert_eq!(far.ready_at(1), None);
    }
}
