//! What one direction between two nodes is like.

use std::time::Duration;

/// One direction between two nodes.
///
/// Datagrams leave in the order they were sent, unless [`reordering`](Self::reordering) holds some back.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Propagation delay.
    pub delay: Duration,
    /// Each datagram is delayed by up to this much more.
    pub jitter: Duration,
    /// Bits a second; `None` for no limit.
    pub rate: Option<u64>,
    /// Bytes that wait for the rate; more are dropped.
    pub queue_bytes: usize,
    /// How long a datagram waits for the rate at most; later ones are dropped.
    pub queue_time: Duration,
    /// Lets through what comes at a rate, and drops the rest without a queue.
    pub policer: Option<Policer>,
    /// Probability that a datagram is lost.
    pub loss: f64,
    /// Loss in bursts, besides.
    pub bursts: Option<Bursts>,
    /// Probability that a datagram is held back, so that later ones overtake it.
    pub reordering: f64,
    /// How long such a datagram is held back.
    pub reordering_delay: Duration,
    /// Probability that a datagram arrives twice.
    pub duplication: f64,
    /// Probability that a datagram arrives with some bits flipped.
    pub corruption: f64,
    /// The largest UDP payload that gets through, in bytes.
    pub mtu: usize,
    /// What happens to ECN marks.
    pub ecn: Ecn,
    /// Whether anything gets through at all.
    pub up: bool,
}

/// Gilbert and Elliott's loss: a link is in a good or a bad state, and may change it with every datagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bursts {
    /// Probability to turn bad.
    pub to_bad: f64,
    /// Probability to turn good again: bursts have `1 / to_good` datagrams on average.
    pub to_good: f64,
    /// Probability that a datagram is lost in the bad state.
    pub loss: f64,
}

/// A bucket of tokens that datagrams take or are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policer {
    /// Bits a second.
    pub rate: u64,
    /// Bytes that may pass at once.
    pub burst_bytes: u64,
}

/// What a link does to ECN marks.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Ecn {
    /// They pass.
    #[default]
    Pass,
    /// They are erased.
    Bleach,
    /// Datagrams that wait longer than this for the rate are marked "congestion experienced" if they may be.
    MarkAfter(Duration),
    /// Datagrams are marked with this probability if they may be.
    Mark(f64),
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(1),
            jitter: Duration::ZERO,
            rate: None,
            queue_bytes: 1 << 20,
            queue_time: Duration::MAX,
            policer: None,
            loss: 0.0,
            bursts: None,
            reordering: 0.0,
            reordering_delay: Duration::from_millis(5),
            duplication: 0.0,
            corruption: 0.0,
            mtu: 1472,
            ecn: Ecn::Pass,
            up: true,
        }
    }
}

impl Link {
    /// A link without losses or a limit to its rate.
    #[must_use]
    pub fn with_delay(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// A link of a rate in bits a second and a delay, without losses but those of its queue, which holds 100 ms.
    #[must_use]
    pub fn with_rate(rate: u64, delay: Duration) -> Self {
        let queue_time = Duration::from_millis(100);
        Self { rate: Some(rate), queue_bytes: usize::MAX, queue_time, ..Self::with_delay(delay) }
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
    /// Of those, the ones that its queue had no room for.
    pub queue_full: u64,
    /// Datagrams it corrupted.
    pub corrupted: u64,
    /// Datagrams it delivered twice.
    pub duplicated: u64,
    /// Datagrams it held back.
    pub reordered: u64,
    /// Datagrams it marked "congestion experienced".
    pub marked: u64,
}

impl std::ops::Add for LinkStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            lost: self.lost + other.lost,
            queue_full: self.queue_full + other.queue_full,
            corrupted: self.corrupted + other.corrupted,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            marked: self.marked + other.marked,
        }
    }
}
