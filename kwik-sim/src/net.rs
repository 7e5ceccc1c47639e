//! What happens to a datagram between two nodes.

use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

/// One direction between two nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Propagation delay.
    pub delay: Duration,
    /// Bits a second; `None` for no limit.
    pub rate: Option<u64>,
    /// Bytes that wait for the rate; more are dropped.
    pub queue_bytes: usize,
    /// Probability that a datagram is lost.
    pub loss: f64,
    /// The largest UDP payload that gets through, in bytes.
    pub mtu: usize,
    /// Whether anything gets through at all.
    pub up: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self { delay: Duration::from_millis(1), rate: None, queue_bytes: 1 << 20, loss: 0.0, mtu: 1472, up: true }
    }
}

impl Link {
    /// A link without losses or a limit to its rate.
    #[must_use]
    pub fn with_delay(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }
}

/// What a link did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Datagrams handed to it.
    pub sent: u64,
    /// Bytes handed to it.
    pub sent_bytes: u64,
    /// Datagrams it lost, for whatever reason.
    pub lost: u64,
}

/// A link in use.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) link: Link,
    pub(crate) stats: LinkStats,
    /// When the last byte accepted so far will have left the queue.
    busy_until: Option<Instant>,
}

impl Wire {
    /// When a datagram sent now arrives; `None` if it is lost.
    pub(crate) fn send(&mut self, now: Instant, bytes: usize, rng: &mut StdRng) -> Option<Instant> {
        self.stats.sent += 1;
        self.stats.sent_bytes += bytes as u64;
        let arrival = self.arrival(now, bytes, rng);
        self.stats.lost += u64::from(arrival.is_none());
        arrival
    }

    fn arrival(&mut self, now: Instant, bytes: usize, rng: &mut StdRng) -> Option<Instant> {
        // Drawn for every datagram, so that a change of one link does not shift the fortunes of another.
        let unlucky = rng.random::<f64>() < self.link.loss;
        if !self.link.up || bytes > self.link.mtu || unlucky {
            return None;
        }
        let Some(rate) = self.link.rate else { return now.checked_add(self.link.delay) };
        let begin = self.busy_until.map_or(now, |busy| busy.max(now));
        if begin.duration_since(now) > transmission(self.link.queue_bytes, rate) {
            return None;
        }
        let end = begin.checked_add(transmission(bytes, rate))?;
        self.busy_until = Some(end);
        end.checked_add(self.link.delay)
    }
}

fn transmission(bytes: usize, bits_per_second: u64) -> Duration {
    let bits = (bytes as u64).saturating_mul(8);
    Duration::from_nanos(bits.saturating_mul(1_000_000_000) / bits_per_second.max(1))
}
