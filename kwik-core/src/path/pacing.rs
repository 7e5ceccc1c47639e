//! How much may leave a path now, if its congestion controller says how fast to send: a bucket of bytes that fills at that
//! rate (RFC 9002 §7.7).

use std::time::{Duration, Instant};

use crate::congestion;

/// Bytes that may be sent.
#[derive(Debug)]
pub(super) struct Pacer {
    bytes: f64,
    filled: Instant,
    /// More waits to be sent, and may be from then on.
    waits_until: Option<Instant>,
}

impl Pacer {
    /// Quanta that may leave at once after an idle time.
    const BURST_QUANTA: f64 = 2.0;
    /// What a late timer held up may leave in addition, as long as it was not later than that.
    const LATE_MAX: Duration = Duration::from_millis(10);
    /// Deadlines are so far ahead at least.
    const WAIT_MIN: Duration = Duration::from_micros(20);

    pub(super) fn new(now: Instant) -> Self {
        Self { bytes: 0.0, filled: now, waits_until: None }
    }

    /// How many datagrams of `mtu` bytes may leave now at `rate` bytes a second. If none may, there is a deadline.
    pub(super) fn datagrams(&mut self, now: Instant, rate: u64, mtu: u64) -> usize {
        let quantum = congestion::quantum(rate, mtu) as f64;
        self.fill(now, rate as f64, quantum);
        // Who waits, waits for a quantum: what leaves together costs less.
        let least = if self.waits_until.is_some() { quantum } else { mtu as f64 };
        if self.bytes + 1.0 >= least {
            self.waits_until = None;
            // At least one, which may be a fraction of a byte too large.
            let datagrams = congestion::bytes(self.bytes / mtu.max(1) as f64).max(1);
            return usize::try_from(datagrams).unwrap_or(usize::MAX);
        }
        let wait = Duration::from_secs_f64((quantum - self.bytes) / rate.max(1) as f64);
        self.waits_until = now.checked_add(wait.max(Self::WAIT_MIN));
        0
    }

    fn fill(&mut self, now: Instant, rate: f64, quantum: f64) {
        let passed = now.saturating_duration_since(self.filled);
        self.filled = self.filled.max(now);
        let late = match self.waits_until {
            Some(at) => now.saturating_duration_since(at).min(Self::LATE_MAX),
            None => Duration::ZERO,
        };
        let most = Self::BURST_QUANTA * quantum + late.as_secs_f64() * rate;
        self.bytes = (self.bytes + passed.as_secs_f64() * rate).min(most);
    }

    /// Bytes were sent that the controller counts.
    pub(super) fn on_sent(&mut self, bytes: usize) {
        self.bytes = (self.bytes - bytes as f64).max(0.0);
    }

    /// Nothing that waits is paced any more.
    pub(super) fn stop_waiting(&mut self) {
        self.waits_until = None;
    }

    /// When more may leave, if something waits for that.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waits_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    const MTU: u64 = 1200;

    /// Sends what may be sent for a second, waking `late` after each deadline. Returns the bytes and the wakings.
    fn second(rate: u64, late: Duration) -> (u64, u32) {
        let begin = instant();
        let (mut pacer, mut now, mut bytes, mut wakings) = (Pacer::new(begin), begin, 0, 0);
        while now < begin + Duration::from_secs(1) {
            let datagrams = pacer.datagrams(now, rate, MTU);
            if datagrams > 0 {
                bytes += datagrams as u64 * MTU;
                pacer.on_sent(datagrams * 1200);
                assert_eq!(pacer.deadline(), None);
                continue;
            }
            let deadline = pacer.deadline().unwrap_or(now);
            assert!(deadline > now, "a deadline that is past");
            now = deadline + late;
            wakings += 1;
        }
        (bytes, wakings)
    }

    #[test]
    fn rate_is_kept_however_late_timers_are() {
        for rate in [10_000, 150_000, 1_250_000, 125_000_000, 1_250_000_000] {
            for late in [Duration::ZERO, Duration::from_millis(2), Duration::from_millis(9)] {
                let (bytes, wakings) = second(rate, late);
                let share = bytes as f64 / rate as f64;
                assert!((0.97..1.02).contains(&share) || rate == 10_000 && share < 1.2, "{rate}, {late:?}: {share}");
                assert!(wakings <= 1010, "{rate}, {late:?}: {wakings}");
            }
        }
    }

    #[test]
    fn idle_time_saves_up_two_milliseconds_and_no_more() {
        let begin = instant();
        let mut pacer = Pacer::new(begin);
        let datagrams = pacer.datagrams(begin + Duration::from_secs(60), 12_000_000, MTU);
        assert_eq!(datagrams, 20);
    }

    #[test]
    fn what_waits_is_sent_a_millisecond_at_a_time() {
        let begin = instant();
        let mut pacer = Pacer::new(begin);
        assert_eq!(pacer.datagrams(begin, 12_000_000, MTU), 0);
        let half = begin + Duration::from_micros(500);
        assert_eq!(pacer.datagrams(half, 12_000_000, MTU), 0, "five would be allowed, ten are worth a call");
        let at = pacer.deadline();
        assert_eq!(at.map(|at| (at - begin).as_micros()), Some(1000));
        assert_eq!(pacer.datagrams(begin + Duration::from_millis(1), 12_000_000, MTU), 10);
    }
}
