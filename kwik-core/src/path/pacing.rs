//! How much may leave a path now, if its congestion controller says how fast to send: a bucket of bytes that fills at that
//! rate (RFC 9002 §7.7).

use std::time::{Duration, Instant};

use crate::congestion;

/// Bytes that may be sent. There may be less than none: a datagram that is long for its path leaves as soon as there is one
/// byte, and those that come later wait for what it took in advance. It is not held back until all of it is saved up.
#[derive(Debug)]
pub(super) struct Pacer {
    bytes: f64,
    filled: Instant,
    /// More waits to be sent, and may be from then on.
    waits_until: Option<Instant>,
}

impl Pacer {
    /// Quanta that may leave at once if nothing left for a while.
    const BURST_QUANTA: f64 = 2.0;
    /// Datagrams that may leave at once after an idle time, which are as many as may at the begin of a connection (RFC 9002
    /// §7.7): what an application sends now and then waits for nothing.
    const IDLE_DATAGRAMS: u64 = 10;
    /// What a late timer held up may leave in addition, as long as it was not later than that.
    const LATE_MAX: Duration = Duration::from_millis(10);
    /// Deadlines are so far ahead at least.
    const WAIT_MIN: Duration = Duration::from_micros(20);

    pub(super) fn new(now: Instant) -> Self {
        // As much as ever may be saved up.
        Self { bytes: f64::INFINITY, filled: now, waits_until: None }
    }

    /// How many datagrams of `mtu` bytes may leave now at `rate` bytes a second. If none may, there is a deadline. `is_idle`
    /// if nothing is in flight.
    pub(super) fn datagrams(&mut self, now: Instant, rate: u64, mtu: u64, is_idle: bool) -> usize {
        let idle = if is_idle { Self::IDLE_DATAGRAMS.saturating_mul(mtu) as f64 } else { 0.0 };
        let burst = Self::BURST_QUANTA * congestion::quantum(rate, mtu) as f64;
        self.fill(now, rate as f64, burst.max(idle));
        // Who waits, waits for a millisecond's worth: what leaves together costs less. Where a datagram is more than that, it
        // is not waited for.
        let (together, datagram) = (rate as f64 / 1000.0, mtu as f64);
        let (awaited, needed) = if together < datagram { (1.0, 1.0) } else { (together, datagram) };
        let least = if self.waits_until.is_some() { awaited } else { needed };
        // Deadlines are rounded.
        if self.bytes + 0.5 >= least {
            self.waits_until = None;
            let datagrams = congestion::bytes((self.bytes + 0.5) / mtu.max(1) as f64).max(1);
            return usize::try_from(datagrams).unwrap_or(usize::MAX);
        }
        let wait = Duration::try_from_secs_f64((awaited - self.bytes) / rate.max(1) as f64).unwrap_or(Duration::MAX);
        self.waits_until = now.checked_add(wait.max(Self::WAIT_MIN));
        0
    }

    /// `burst` bytes may be saved up.
    fn fill(&mut self, now: Instant, rate: f64, burst: f64) {
        let passed = now.saturating_duration_since(self.filled);
        self.filled = self.filled.max(now);
        let late = match self.waits_until {
            Some(at) => now.saturating_duration_since(at).min(Self::LATE_MAX),
            None => Duration::ZERO,
        };
        let most = burst + late.as_secs_f64() * rate;
        self.bytes = (self.bytes + passed.as_secs_f64() * rate).min(most);
    }

    /// Bytes were sent that the controller counts.
    pub(super) fn on_sent(&mut self, bytes: usize) {
        self.bytes -= bytes as f64;
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

    /// Sends what may be sent for a second, with something in flight always, waking `late` after each deadline. Returns the
    /// bytes beside those saved up at the begin, and the wakings.
    fn second(rate: u64, mtu: u64, late: Duration) -> (u64, u32) {
        let begin = instant();
        let (mut pacer, mut now, mut bytes, mut wakings) = (Pacer::new(begin), begin, 0, 0);
        while now < begin + Duration::from_secs(1) {
            let datagrams = pacer.datagrams(now, rate, mtu, false);
            if datagrams > 0 {
                bytes += datagrams as u64 * mtu;
                pacer.on_sent(datagrams * usize::try_from(mtu).unwrap_or(usize::MAX));
                assert_eq!(pacer.deadline(), None);
                continue;
            }
            let deadline = pacer.deadline().unwrap_or(now);
            assert!(deadline > now, "a deadline that is past");
            now = deadline + late;
            wakings += 1;
        }
        (bytes - 2 * congestion::quantum(rate, mtu), wakings)
    }

    #[test]
    fn rate_is_kept_however_late_timers_are_and_however_long_datagrams() {
        for rate in [10_000, 150_000, 1_250_000, 125_000_000, 1_250_000_000] {
            for late in [Duration::ZERO, Duration::from_millis(2), Duration::from_millis(9)] {
                for mtu in [MTU, 9000, 65_507] {
                    let (bytes, wakings) = second(rate, mtu, late);
                    let (most, least) = (rate as f64 * 1.01 + 2.0 * mtu as f64, rate as f64 * 0.97 - 2.0 * mtu as f64);
                    assert!((least..=most).contains(&(bytes as f64)), "{rate}, {mtu}, {late:?}: {bytes}");
                    // The part of a datagram that is left over makes the next wait shorter.
                    assert!(wakings <= 2000, "{rate}, {mtu}, {late:?}: {wakings}");
                }
            }
        }
    }

    #[test]
    fn pause_saves_up_two_milliseconds_and_no_more() {
        let begin = instant();
        let mut pacer = Pacer::new(begin);
        pacer.on_sent(usize::MAX);
        let datagrams = pacer.datagrams(begin + Duration::from_secs(60), 12_000_000, MTU, false);
        assert_eq!(datagrams, 20);
    }

    #[test]
    fn first_flight_and_those_after_idle_times_wait_for_nothing() {
        const SLOW: u64 = 120_000;
        let begin = instant();
        let mut pacer = Pacer::new(begin);
        assert_eq!(pacer.datagrams(begin, SLOW, MTU, true), 10);
        pacer.on_sent(12_000);
        assert_eq!(pacer.datagrams(begin, SLOW, MTU, false), 0);
        pacer.stop_waiting();
        assert_eq!(pacer.datagrams(begin + Duration::from_millis(50), SLOW, MTU, true), 5, "as much as time brought");
        assert_eq!(pacer.datagrams(begin + Duration::from_secs(60), SLOW, MTU, true), 10);
    }

    #[test]
    fn long_datagram_leaves_at_once_and_is_paid_for_later() {
        const LONG: u64 = 65_507;
        let begin = instant();
        let mut pacer = Pacer::new(begin);
        assert_eq!(pacer.datagrams(begin, 100_000, LONG, false), 2);
        pacer.on_sent(131_000);
        assert_eq!(pacer.datagrams(begin, 100_000, LONG, false), 1, "14 bytes are left");
        pacer.on_sent(65_507);
        assert_eq!(pacer.datagrams(begin, 100_000, LONG, false), 0);
        let wait = pacer.deadline().map(|at| (at - begin).as_millis());
        assert_eq!(wait, Some(654), "as long as the debt, and no longer");
        assert_eq!(pacer.datagrams(begin + Duration::from_millis(655), 100_000, LONG, false), 1);
    }

    #[test]
    fn what_waits_is_sent_a_millisecond_at_a_time() {
        let begin = instant();
        let mut pacer = Pacer::new(begin);
        let full = pacer.datagrams(begin, 12_000_000, MTU, false);
        pacer.on_sent(full * 1200);
        assert_eq!(pacer.datagrams(begin, 12_000_000, MTU, false), 0);
        let half = begin + Duration::from_micros(500);
        assert_eq!(pacer.datagrams(half, 12_000_000, MTU, false), 0, "five would be allowed, ten are worth a call");
        let at = pacer.deadline();
        assert_eq!(at.map(|at| (at - begin).as_micros()), Some(1000));
        assert_eq!(pacer.datagrams(begin + Duration::from_millis(1), 12_000_000, MTU, false), 10);
    }
}
