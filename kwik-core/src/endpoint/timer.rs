//! When each part of an endpoint wants to run next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Deadlines by key; the earliest is at hand.
#[derive(Debug)]
pub(super) struct Timers<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
    /// Deadlines that are far are put off to the next multiple of `slack` since then.
    begin: Instant,
    slack: Duration,
}

impl<K: Copy + Ord> Timers<K> {
    /// Deadlines that are so many times as far as the slack, or farther, may be late by it.
    const FAR: u32 = 6;
    const SLACK_MAX: Duration = Duration::from_secs(1);

    /// How late a far deadline may be.
    pub(super) fn slack(&self) -> Duration {
        self.slack
    }

    pub(super) fn new(begin: Instant, slack: Duration) -> Self {
        Self { by_time: BTreeSet::new(), by_key: BTreeMap::new(), begin, slack: slack.min(Self::SLACK_MAX) }
    }

    /// As [`Self::set`]; if the deadline is far, it is put off a little, to be due together with others.
    pub(super) fn set_coarse(&mut self, key: K, at: Option<Instant>, now: Instant) {
        self.set(key, at.map(|at| self.coarse(at, now)));
    }

    fn coarse(&self, at: Instant, now: Instant) -> Instant {
        if self.slack.is_zero() || at.saturating_duration_since(now) < self.slack * Self::FAR {
            return at;
        }
        let past = at.saturating_duration_since(self.begin).as_nanos() % self.slack.as_nanos();
        let late = u64::try_from(past).map_or(Duration::ZERO, Duration::from_nanos);
        if late.is_zero() { at } else { at.checked_add(self.slack - late).unwrap_or(at) }
    }

    /// Sets or clears the deadline of `key`.
    pub(super) fn set(&mut self, key: K, at: Option<Instant>) {
        let old = match at {
            Some(at) => self.by_key.insert(key, at),
            None => self.by_key.remove(&key),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.by_time.remove(&(old, key));
        }
        if let Some(at) = at {
            self.by_time.insert((at, key));
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes a key whose deadline is not after `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, key) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    #[test]
    fn earliest_deadline_comes_first_and_once() {
        let start = instant();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::new(start, Duration::ZERO);
        timers.set('a', Some(at(3)));
        timers.set('b', Some(at(1)));
        timers.set('a', Some(at(2)));
        timers.set('c', Some(at(1)));
        timers.set('c', None);
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop_due(at(0)), None);
        assert_eq!(timers.pop_due(at(5)), Some('b'));
        assert_eq!(timers.pop_due(at(5)), Some('a'));
        assert_eq!(timers.pop_due(at(5)), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn deadlines_that_are_far_come_together_and_the_others_in_time() {
        let start = instant();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut timers = Timers::new(start, Duration::from_millis(250));
        let cases = [
            (1501, 0, 1750),
            (1750, 0, 1750),
            (1751, 0, 2000),
            (1499, 0, 1499),
            (1501, 2, 1501),
            (1500, 0, 1500),
            (900, 1000, 900),
        ];
        for (wanted, now, got) in cases {
            timers.set_coarse('a', Some(at(wanted)), at(now));
            assert_eq!(timers.next(), Some(at(got)), "{wanted} ms, set at {now} ms");
        }
        timers.set_coarse('a', None, at(0));
        assert_eq!(timers.next(), None);
    }
}
