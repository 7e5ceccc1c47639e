//! What happens to a datagram between two addresses.

use std::time::{Duration, Instant};

use kwik_core::EcnCodepoint;

use crate::link::{Ecn, Link, LinkStats};
use crate::rng::SimRng;
use crate::trace::Delivery;

/// What a wire made of one datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passage {
    pub(crate) delivery: Delivery,
    /// When it arrives; not, if it is lost.
    pub(crate) at: Option<Instant>,
    /// When its copy arrives.
    pub(crate) again: Option<Instant>,
    pub(crate) ecn: Option<EcnCodepoint>,
}

/// A link in use.
#[derive(Debug)]
pub(crate) struct Wire {
    link: Link,
    /// What the world was built with: what healing restores.
    base: Link,
    /// Nothing gets through: a partition or a black hole.
    pub(crate) blocked: bool,
    pub(crate) stats: LinkStats,
    /// When the last byte accepted so far will have left the queue.
    busy_until: Option<Instant>,
    /// When the last datagram accepted so far arrives.
    last_arrival: Option<Instant>,
    /// Tokens of the policer that were taken, in bytes, and when that was true.
    policed: (f64, Option<Instant>),
    /// In the bad state of [`Bursts`](crate::link::Bursts).
    in_burst: bool,
    rng: SimRng,
}

impl Wire {
    pub(crate) fn new(link: Link, rng: SimRng) -> Self {
        Self {
            base: link.clone(),
            link,
            blocked: false,
            stats: LinkStats::default(),
            busy_until: None,
            last_arrival: None,
            policed: (0.0, None),
            in_burst: false,
            rng,
        }
    }

    /// What the link is from now on, until it heals.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Link)) {
        change(&mut self.link);
    }

    /// What the link is.
    pub(crate) fn rebuild(&mut self, link: Link) {
        self.base = link.clone();
        self.link = link;
    }

    pub(crate) fn heal(&mut self) {
        self.blocked = false;
        self.link = self.base.clone();
        self.in_burst = false;
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Takes a datagram now.
    pub(crate) fn send(&mut self, now: Instant, bytes: usize, ecn: Option<EcnCodepoint>) -> Passage {
        self.stats.sent += 1;
        self.stats.sent_bytes += bytes as u64;
        let passage = match self.pass(now, bytes, ecn) {
            Ok(passage) => passage,
            Err(delivery) => Passage { delivery, at: None, again: None, ecn: None },
        };
        self.stats.lost += u64::from(passage.delivery.is_loss());
        self.stats.queue_full += u64::from(passage.delivery == Delivery::QueueFull);
        self.stats.corrupted += u64::from(passage.delivery == Delivery::Corrupted);
        self.stats.reordered += u64::from(passage.delivery == Delivery::Late);
        self.stats.duplicated += u64::from(passage.again.is_some());
        passage
    }

    fn pass(&mut self, now: Instant, bytes: usize, ecn: Option<EcnCodepoint>) -> Result<Passage, Delivery> {
        if !self.link.up || self.blocked {
            return Err(Delivery::Blocked);
        }
        if bytes > self.link.mtu {
            return Err(Delivery::TooBig);
        }
        if self.rng.chance(self.link.loss) {
            return Err(Delivery::Lost);
        }
        if self.is_lost_in_burst() {
            return Err(Delivery::LostInBurst);
        }
        if self.is_policed(now, bytes) {
            return Err(Delivery::QueueFull);
        }
        let (waits, leaves) = self.leave_queue(now, bytes)?;
        let ecn = self.mark(waits, ecn);
        let plain = leaves + self.link.delay + self.rng.within(self.link.jitter);
        if self.rng.chance(self.link.reordering) {
            let at = Some(plain + self.link.reordering_delay);
            return Ok(Passage { delivery: Delivery::Late, at, again: None, ecn });
        }
        let at = self.last_arrival.map_or(plain, |last| last.max(plain));
        self.last_arrival = Some(at);
        let again = self.rng.chance(self.link.duplication).then_some(at);
        let delivery = if self.rng.chance(self.link.corruption) { Delivery::Corrupted } else { Delivery::Arrives };
        Ok(Passage { delivery, at: Some(at), again, ecn })
    }

    fn is_lost_in_burst(&mut self) -> bool {
        let Some(bursts) = self.link.bursts else { return false };
        let change = if self.in_burst { bursts.to_good } else { bursts.to_bad };
        if self.rng.chance(change) {
            self.in_burst = !self.in_burst;
        }
        self.in_burst && self.rng.chance(bursts.loss)
    }

    fn is_policed(&mut self, now: Instant, bytes: usize) -> bool {
        let Some(policer) = self.link.policer else { return false };
        let (taken, since) = self.policed;
        let passed = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let taken = (taken - passed.as_secs_f64() * policer.rate as f64 / 8.0).max(0.0);
        let is_over = taken + bytes as f64 > policer.burst_bytes as f64;
        self.policed = (if is_over { taken } else { taken + bytes as f64 }, Some(now));
        is_over
    }

    /// How long a datagram waits for the rate, and when its last byte is out.
    fn leave_queue(&mut self, now: Instant, bytes: usize) -> Result<(Duration, Instant), Delivery> {
        let Some(rate) = self.link.rate else { return Ok((Duration::ZERO, now)) };
        let begin = self.busy_until.map_or(now, |busy| busy.max(now));
        let waits = begin.duration_since(now);
        if waits > self.link.queue_time || waits > transmission(self.link.queue_bytes, rate) {
            return Err(Delivery::QueueFull);
        }
        let end = begin.checked_add(transmission(bytes, rate)).ok_or(Delivery::QueueFull)?;
        self.busy_until = Some(end);
        Ok((waits, end))
    }

    fn mark(&mut self, waits: Duration, ecn: Option<EcnCodepoint>) -> Option<EcnCodepoint> {
        let ecn = ecn?;
        let marks = match self.link.ecn {
            Ecn::Bleach => return None,
            Ecn::Pass => false,
            Ecn::MarkAfter(most) => waits > most,
            Ecn::Mark(probability) => self.rng.chance(probability),
        };
        self.stats.marked += u64::from(marks);
        Some(if marks { EcnCodepoint::Ce } else { ecn })
    }
}

fn transmission(bytes: usize, bits_per_second: u64) -> Duration {
    let bits = (bytes as u64).saturating_mul(8);
    Duration::from_nanos(bits.saturating_mul(1_000_000_000) / bits_per_second.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::VirtualClock;
    use crate::link::{Bursts, Policer};

    const COUNT: u64 = 20_000;

    /// Sends many datagrams, a millisecond apart, and returns what became of them.
    fn passages(link: Link) -> (Instant, Vec<Passage>, LinkStats) {
        let start = VirtualClock::new().now();
        let mut wire = Wire::new(link, SimRng::new(1, &[]));
        let send = |count| wire.send(start + Duration::from_millis(count), 1000, Some(EcnCodepoint::Ect0));
        let passages = (0..COUNT).map(send).collect();
        (start, passages, wire.stats)
    }

    fn share(count: u64) -> f64 {
        count as f64 / COUNT as f64
    }

    #[test]
    fn faults_come_as_often_as_told() {
        let link = Link { loss: 0.1, duplication: 0.2, corruption: 0.3, reordering: 0.25, ..Link::default() };
        let (_, _, stats) = passages(link);
        assert!((share(stats.lost) - 0.1).abs() < 0.01, "{stats:?}");
        assert!((share(stats.reordered) - 0.9 * 0.25).abs() < 0.01, "{stats:?}");
        assert!((share(stats.duplicated) - 0.9 * 0.75 * 0.2).abs() < 0.01, "{stats:?}");
        assert!((share(stats.corrupted) - 0.9 * 0.75 * 0.3).abs() < 0.01, "{stats:?}");
    }

    #[test]
    fn bursts_have_their_length() {
        let bursts = Bursts { to_bad: 0.01, to_good: 0.25, loss: 1.0 };
        let (_, passages, stats) = passages(Link { bursts: Some(bursts), ..Link::default() });
        let begins =
            passages.windows(2).filter(|pair| !pair[0].delivery.is_loss() && pair[1].delivery.is_loss()).count();
        let length = stats.lost as f64 / begins as f64;
        assert!((length - 4.0).abs() < 0.5, "{length}");
        assert!((share(stats.lost) - 0.01 / 0.26).abs() < 0.01, "{stats:?}");
    }

    #[test]
    fn rate_and_queue_bound_what_gets_through() {
        // 1000 bytes each millisecond are twice the rate.
        let link = Link { rate: Some(4_000_000), queue_bytes: 10_000, ..Link::default() };
        let (_, passages, stats) = passages(link);
        assert_eq!(stats.lost, stats.queue_full);
        assert!((share(stats.lost) - 0.5).abs() < 0.01, "{stats:?}");
        let arrivals: Vec<_> = passages.iter().filter_map(|passage| passage.at).collect();
        assert!(arrivals.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_millis(2)));
        let by_time = Link {
            queue_bytes: usize::MAX,
            queue_time: Duration::from_millis(20),
            ..Link::with_rate(4_000_000, Duration::ZERO)
        };
        assert!((share(self::passages(by_time).2.queue_full) - 0.5).abs() < 0.01);
    }

    #[test]
    fn policer_drops_what_is_above_its_rate_and_nothing_waits() {
        // 1000 bytes each millisecond are twice the rate.
        let policer = Policer { rate: 4_000_000, burst_bytes: 100_000 };
        let (start, passages, stats) = passages(Link { policer: Some(policer), ..Link::default() });
        assert!((share(stats.queue_full) - 0.5).abs() < 0.01, "{stats:?}");
        assert!(passages[..150].iter().all(|passage| passage.at.is_some()), "the burst passes");
        assert_eq!(passages[100].at, Some(start + Duration::from_millis(101)));
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let ordered = |link| {
            let arrivals: Vec<_> = passages(link).1.iter().filter_map(|passage| passage.at).collect();
            arrivals.is_sorted()
        };
        assert!(ordered(Link { jitter: Duration::from_millis(10), ..Link::default() }));
        assert!(!ordered(Link { reordering: 0.1, ..Link::default() }));
    }

    #[test]
    fn marks_are_made_erased_and_left() {
        let marks = |ecn| {
            let link = Link { ecn, queue_bytes: 10_000, ..Link::with_rate(4_000_000, Duration::ZERO) };
            let (_, passages, stats) = passages(link);
            let ce = passages.iter().filter(|passage| passage.ecn == Some(EcnCodepoint::Ce)).count() as u64;
            assert_eq!(ce, stats.marked);
            (ce, passages.iter().filter(|passage| passage.ecn.is_some()).count() as u64)
        };
        assert_eq!(marks(Ecn::Bleach), (0, 0));
        assert_eq!(marks(Ecn::Pass).0, 0);
        let (ce, arrived) = marks(Ecn::MarkAfter(Duration::from_millis(5)));
        assert!(ce > arrived / 2 && ce < arrived);
        assert!(marks(Ecn::Mark(0.1)).0 > 0);
    }

    #[test]
    fn down_blocked_and_narrow_links_deliver_nothing() {
        assert_eq!(passages(Link { up: false, ..Link::default() }).2.lost, COUNT);
        assert_eq!(passages(Link { mtu: 999, ..Link::default() }).2.lost, COUNT);
        let mut wire = Wire::new(Link::default(), SimRng::new(1, &[]));
        wire.blocked = true;
        wire.change(|link| link.mtu = 10);
        let now = VirtualClock::new().now();
        assert_eq!(wire.send(now, 100, None).delivery, Delivery::Blocked);
        wire.heal();
        assert_eq!(wire.send(now, 100, None).delivery, Delivery::Arrives);
        let (start, passages, _) = passages(Link::with_delay(Duration::from_millis(7)));
        assert_eq!(passages[0].at, Some(start + Duration::from_millis(7)));
    }
}
