//! Whether the far end still answers, and how fast bytes come (PROTOCOL.md §9).

use std::time::{Duration, Instant};

use crate::limits::Limits;

/// What silence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Alive,
    Suspect,
    Dead,
}

/// Judges a path by when it was last heard. Times come from the caller; nothing here wakes up by itself.
#[derive(Debug)]
pub(super) struct Health {
    heard: Instant,
    /// Since when something is in flight that the peer must acknowledge, and nothing was heard.
    waiting_since: Option<Instant>,
    /// Since when the peer acknowledged nothing, although something is in flight.
    owing_since: Option<Instant>,
    looked: Instant,
    /// When a silent peer was last asked to answer.
    probed: Instant,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: now, waiting_since: None, owing_since: None, looked: now, probed: now }
    }

    /// Notes that time is passing here. Returns whether this end itself slept so long that the peer's silence proves
    /// nothing: it is then to be probed, and judged anew.
    pub(super) fn look(&mut self, now: Instant, rtt: Duration, limits: &Limits) -> bool {
        let slept = now.saturating_duration_since(self.looked) >= dead_after(rtt, limits);
        self.looked = now;
        if slept {
            // The silence counts from now on, as if the peer had just been heard ([P-9.3]).
            self.on_heard(now);
        }
        slept
    }

    /// The last moment noted.
    pub(super) fn looked_at(&self) -> Instant {
        self.looked
    }

    pub(super) fn on_heard(&mut self, now: Instant) {
        self.heard = now;
        self.waiting_since = None;
    }

    /// For how long nothing was heard.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }

    /// The peer acknowledged something.
    pub(super) fn on_acknowledged(&mut self, now: Instant) {
        self.owing_since = self.owing_since.map(|_| now);
    }

    /// For how long the peer acknowledged nothing of what is in flight. It may be heard all the same, if only one
    /// direction is dead.
    pub(super) fn owing(&self, now: Instant) -> Duration {
        self.owing_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// For how long nothing may have reached the peer: it is silent, or owes acknowledgements.
    pub(super) fn unreached(&self, now: Instant) -> Duration {
        self.silence(now).max(self.owing(now))
    }

    /// Notes whether anything is in flight.
    pub(super) fn observe(&mut self, now: Instant, bytes_in_flight: u64) {
        if bytes_in_flight == 0 {
            (self.waiting_since, self.owing_since) = (None, None);
        } else {
            self.waiting_since.get_or_insert(now);
            self.owing_since.get_or_insert(now);
        }
    }

    pub(super) fn verdict(&self, now: Instant, rtt: Duration, limits: &Limits) -> Verdict {
        if self.dead_at(rtt, limits).is_some_and(|at| now >= at) {
            Verdict::Dead
        } else if self.suspect_at(rtt, limits).is_some_and(|at| now >= at) {
            Verdict::Suspect
        } else {
            Verdict::Alive
        }
    }

    /// Whether a suspect peer is to be asked again; notes it if so. QUIC's own probes are ever farther apart: none
    /// might fall between the end of an outage and the death of the path.
    pub(super) fn probe(&mut self, now: Instant, limits: &Limits) -> bool {
        let due = self.probe_at(limits).is_none_or(|at| now >= at);
        if due {
            self.probed = now;
        }
        due
    }

    /// When the verdict may change, or the peer is to be asked again, if nothing more is heard.
    pub(super) fn deadline(&self, now: Instant, rtt: Duration, limits: &Limits) -> Option<Instant> {
        let dead_at = self.dead_at(rtt, limits);
        let suspect_at = self.suspect_at(rtt, limits);
        let probe_at = suspect_at.filter(|at| *at <= now).and_then(|_| self.probe_at(limits));
        // A moment that is past was judged already: to wake again would change nothing.
        suspect_at.into_iter().chain(dead_at).chain(probe_at).filter(|at| *at > now).min()
    }

    fn probe_at(&self, limits: &Limits) -> Option<Instant> {
        self.probed.max(self.heard).checked_add(limits.suspect_after)
    }

    fn suspect_at(&self, rtt: Duration, limits: &Limits) -> Option<Instant> {
        self.waiting_since.and_then(|since| since.checked_add(patience(rtt, limits)))
    }

    /// A silence that nobody asked the peer to break is no sign of its death, however long it is.
    fn dead_at(&self, rtt: Duration, limits: &Limits) -> Option<Instant> {
        self.waiting_since.and_then(|since| since.checked_add(dead_after(rtt, limits)))
    }
}

/// How long the peer may take to answer at most, with a probe lost on the way.
pub(super) fn answer_time(rtt: Duration) -> Duration {
    probe_timeout(rtt).saturating_mul(3)
}

fn patience(rtt: Duration, limits: &Limits) -> Duration {
    limits.suspect_after.max(probe_timeout(rtt).saturating_mul(3))
}

fn dead_after(rtt: Duration, limits: &Limits) -> Duration {
    limits.dead_after.max(probe_timeout(rtt).saturating_mul(6))
}

/// QUIC's probe timeout, with half the round trip for the variance that quinn-proto does not tell.
fn probe_timeout(rtt: Duration) -> Duration {
    rtt.saturating_add(rtt / 2).saturating_add(Duration::from_millis(25))
}

/// Bytes a second, averaged over about the last second. It decays while nothing comes.
#[derive(Debug)]
pub(super) struct RateMeter {
    window_start: Instant,
    window_bytes: u64,
    rate: u64,
    /// Whether nothing was averaged since the beginning, or since a pause.
    is_fresh: bool,
}

impl RateMeter {
    const WINDOW: Duration = Duration::from_millis(200);
    const IDLE: Duration = Duration::from_secs(1);

    pub(super) fn new(now: Instant) -> Self {
        Self { window_start: now, window_bytes: 0, rate: 0, is_fresh: true }
    }

    pub(super) fn on_bytes(&mut self, now: Instant, bytes: u64) {
        let elapsed = now.saturating_duration_since(self.window_start);
        if elapsed >= Self::WINDOW {
            // A window that ended in a pause says nothing of the rate at which bytes come again.
            let is_pause = elapsed >= Self::IDLE;
            self.rate = match (is_pause, self.is_fresh) {
                (true, _) => self.bytes_per_second(now),
                (false, true) => per_second(self.window_bytes, elapsed),
                (false, false) => self.rate / 4 * 3 + per_second(self.window_bytes, elapsed) / 4,
            };
            self.is_fresh = is_pause;
            self.window_start = now;
            self.window_bytes = 0;
        }
        self.window_bytes = self.window_bytes.saturating_add(bytes);
    }

    /// The last average; 0 before the first whole window. Once its window is over, what came counts over all the time since.
    pub(super) fn bytes_per_second(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.window_start);
        if elapsed <= Self::WINDOW {
            return self.rate;
        }
        let before = self.rate.saturating_mul(micros(Self::WINDOW)) / 1_000_000;
        self.rate.min(per_second(before.saturating_add(self.window_bytes), elapsed))
    }
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    bytes.saturating_mul(1_000_000) / micros(elapsed).max(1)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    const RTT: Duration = Duration::from_millis(20);

    // [P-9.2] [P-9.3]
    #[test]
    fn silence_with_bytes_in_flight_is_suspect_then_dead() {
        let (start, limits) = (instant(), Limits::default());
        let mut health = Health::new(start);
        health.observe(start, 1200);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(health.verdict(at(499), RTT, &limits), Verdict::Alive);
        assert_eq!(health.deadline(at(0), RTT, &limits), Some(at(500)));
        assert_eq!(health.verdict(at(500), RTT, &limits), Verdict::Suspect);
        assert!(health.probe(at(500), &limits) && !health.probe(at(999), &limits));
        assert_eq!(health.deadline(at(500), RTT, &limits), Some(at(1000)));
        assert!([1000, 1500, 2000, 2500].into_iter().all(|ms| health.probe(at(ms), &limits)));
        assert_eq!(health.deadline(at(2500), RTT, &limits), Some(at(3000)));
        assert_eq!(health.verdict(at(3000), RTT, &limits), Verdict::Dead);
        health.on_heard(at(3001));
        assert_eq!(health.verdict(at(3002), RTT, &limits), Verdict::Alive);
    }

    // [P-9.2]
    #[test]
    fn idle_path_is_not_suspect() {
        let (start, limits) = (instant(), Limits::default());
        let mut health = Health::new(start);
        health.observe(start, 0);
        assert_eq!(health.verdict(start + Duration::from_secs(2), RTT, &limits), Verdict::Alive);
    }

    // [P-9.2] [P-9.3]
    #[test]
    fn slow_path_gets_more_patience() {
        let (start, limits) = (instant(), Limits::default());
        let mut health = Health::new(start);
        health.observe(start, 1);
        let rtt = Duration::from_millis(1500);
        assert_eq!(health.verdict(start + Duration::from_secs(5), rtt, &limits), Verdict::Alive);
        assert_eq!(health.verdict(start + Duration::from_secs(7), rtt, &limits), Verdict::Suspect);
        assert_eq!(health.verdict(start + Duration::from_secs(14), rtt, &limits), Verdict::Dead);
    }

    // [P-9.3]
    #[test]
    fn silence_that_nobody_broke_is_not_held_against_the_peer() {
        let (start, limits) = (instant(), Limits::default());
        let mut health = Health::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(
            (health.verdict(at(9000), RTT, &limits), health.deadline(at(9000), RTT, &limits)),
            (Verdict::Alive, None)
        );
        health.observe(at(9000), 1200);
        assert_eq!(health.verdict(at(9499), RTT, &limits), Verdict::Alive);
        assert_eq!(health.verdict(at(9500), RTT, &limits), Verdict::Suspect);
        assert_eq!(health.verdict(at(11_999), RTT, &limits), Verdict::Suspect);
        assert_eq!(health.verdict(at(12_000), RTT, &limits), Verdict::Dead);
    }

    // [P-9.3]
    #[test]
    fn own_sleep_does_not_speak_against_the_peer() {
        let (start, limits) = (instant(), Limits::default());
        let mut health = Health::new(start);
        health.observe(start, 1200);
        let late = start + Duration::from_secs(3600);
        assert!(health.look(late, RTT, &limits));
        assert_eq!(health.verdict(late, RTT, &limits), Verdict::Alive);
        // It is asked, and has its time to answer.
        health.observe(late, 1200);
        assert!(!health.look(late + Duration::from_secs(2), RTT, &limits));
        assert_eq!(health.verdict(late + Duration::from_secs(3), RTT, &limits), Verdict::Dead);
    }

    #[test]
    fn rate_follows_the_bytes() {
        let start = instant();
        let mut meter = RateMeter::new(start);
        for step in 1..=100_u32 {
            meter.on_bytes(start + Duration::from_millis(10) * step, 10_000);
        }
        let at = |ms| start + Duration::from_millis(ms);
        let rate = meter.bytes_per_second(at(1000));
        assert!((900_000..1_100_000).contains(&rate), "{rate}");
        let rates = [1000, 2000, 4000, 60_000].map(|ms| meter.bytes_per_second(at(ms)));
        assert!(rates.is_sorted_by(|earlier, later| earlier / 2 >= *later), "it decays: {rates:?}");
        // What comes after a pause counts by itself.
        meter.on_bytes(at(60_000), 10_000);
        assert!(meter.bytes_per_second(at(60_000)) < 10_000);
        (1..=30).for_each(|step| meter.on_bytes(at(60_000 + 10 * step), 5_000));
        let rate = meter.bytes_per_second(at(60_300));
        assert!((450_000..550_000).contains(&rate), "{rate}");
    }
}
