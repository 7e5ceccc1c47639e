//! The windows of a path: how much of the endpoint's memory its connection may hold. They follow what comes and what is
//! sent within a round trip.

use std::time::{Duration, Instant};

use quinn_proto::VarInt;

use super::Path;
use super::transport::UNAUTHENTICATED_RECEIVE_WINDOW;
use crate::limits::Limits;

/// What QUIC may hold of what came, and of what is to be sent, in bytes.
#[derive(Debug)]
pub(super) struct Windows {
    receive: u64,
    /// Credit beyond `receive` that the peer was given when the window was larger, and did not use yet.
    excess: u64,
    send_max: u64,
}

impl Default for Windows {
    fn default() -> Self {
        Self { receive: Self::RECEIVE_MIN, excess: 0, send_max: Self::SEND_MIN }
    }
}

impl Windows {
    const RECEIVE_MIN: u64 = UNAUTHENTICATED_RECEIVE_WINDOW as u64;
    const SEND_MIN: u64 = 64 * 1024;
    /// By how much a receive window grows at least, unless it is whole then.
    const STEP: u64 = 64 * 1024;

    /// Twice the congestion window, as far as there is memory.
    pub(super) fn send(&self, congestion_window: u64) -> u64 {
        congestion_window.saturating_mul(2).clamp(Self::SEND_MIN, self.send_max)
    }

    /// So many bytes were read. As long as there is credit beyond the window, QUIC gives none anew for them.
    fn on_read(&mut self, bytes: u64) {
        self.excess = self.excess.saturating_sub(bytes);
    }

    /// Whether the credit that the peer has is smaller than `wanted` by so much that more is worth a frame.
    fn is_short_of(&self, wanted: u64) -> bool {
        let credit = self.receive.saturating_add(self.excess);
        wanted > credit.saturating_add(credit / 4)
    }

    /// Lets the window to receive into grow towards `wanted` as far as there is `room`, or shrink if it is much too large.
    /// Returns whether it changed.
    fn fit_receive(&mut self, wanted: u64, room: u64) -> bool {
        if self.is_short_of(wanted) {
            // A window that grows again gives no credit that the peer still has from before it shrank.
            let missing = wanted - self.receive - self.excess;
            let step = missing.min(room);
            if step < Self::STEP && step < missing {
                return false;
            }
            self.receive += step;
            return true;
        }
        let shrinks = wanted <= self.receive / 2;
        if shrinks {
            // The peer may use all credit that it was given.
            self.excess = self.excess.saturating_add(self.receive - wanted);
            self.receive = wanted;
        }
        shrinks
    }
}

/// How much comes over a path within a round trip: the most lately.
#[derive(Debug)]
pub(super) struct RoundTrips {
    round_start: Instant,
    round_bytes: u64,
    period_start: Instant,
    /// The most of the period before, and of this one.
    most: [u64; 2],
}

impl RoundTrips {
    const PERIOD: Duration = Duration::from_secs(5);
    /// Clocks and drivers are not more exact than that.
    const ROUND_MIN: Duration = Duration::from_millis(1);

    pub(super) fn new(now: Instant) -> Self {
        Self { round_start: now, round_bytes: 0, period_start: now, most: [0; 2] }
    }

    pub(super) fn on_bytes(&mut self, now: Instant, rtt: Duration, bytes: u64) {
        let round = rtt.max(Self::ROUND_MIN);
        if now.saturating_duration_since(self.round_start) >= round {
            (self.round_start, self.round_bytes) = (now, 0);
        }
        if now.saturating_duration_since(self.period_start) >= Self::PERIOD.max(round.saturating_mul(8)) {
            (self.period_start, self.most) = (now, [self.most[1], 0]);
        }
        self.round_bytes = self.round_bytes.saturating_add(bytes);
        self.most[1] = self.most[1].max(self.round_bytes);
    }

    pub(super) fn most(&self) -> u64 {
        self.most[0].max(self.most[1])
    }
}

impl Path {
    /// How many round trips a window holds: one until its credit is heard of, one for what was lost and comes again, and as
    /// much as the sender's congestion window grows meanwhile.
    pub(crate) const WINDOW_ROUND_TRIPS: u32 = 4;
    /// What a connection costs beside its windows, its control plane included.
    const CONNECTION_BYTES: u64 = 64 * 1024;
    /// What a connection costs until its peer has authenticated, in bytes.
    pub(crate) const UNAUTHENTICATED_BYTES: u64 = Self::CONNECTION_BYTES + Windows::RECEIVE_MIN;
    /// The least that a path costs, in bytes.
    pub(crate) const LEAST_BYTES: u64 = Self::UNAUTHENTICATED_BYTES + Windows::SEND_MIN;

    /// What a path with these limits may cost before it sends, in bytes.
    pub(crate) fn usual_bytes(limits: &Limits) -> u64 {
        Self::LEAST_BYTES - Windows::RECEIVE_MIN + u64::from(limits.quic_receive_window_bytes)
    }

    /// What the connection may make this end hold, in bytes.
    pub(crate) fn claim(&self) -> u64 {
        let Windows { receive, excess, send_max } = self.windows;
        Self::CONNECTION_BYTES.saturating_add(receive).saturating_add(excess).saturating_add(send_max)
    }

    /// The last moment noted.
    pub(crate) fn looked_at(&self) -> Instant {
        self.health.looked_at()
    }

    pub(crate) fn suspect_after(&self) -> Duration {
        self.limits.suspect_after
    }

    /// How much comes within a round trip, in bytes, and how long that is.
    pub(crate) fn bandwidth_delay(&self) -> (u64, Duration) {
        (if self.ended { 0 } else { self.round_trips.most() }, self.quic.rtt().max(RoundTrips::ROUND_MIN))
    }

    fn wanted_window(&self) -> u64 {
        let first = u64::from(self.limits.quic_receive_window_bytes);
        let most = self.limits.path_window_bytes_max().max(first);
        self.round_trips.most().saturating_mul(Self::WINDOW_ROUND_TRIPS.into()).clamp(first, most)
    }

    /// Whether the window to receive into is smaller than it should be.
    pub(crate) fn wants_window(&self) -> bool {
        self.data_open && !self.ended && self.windows.is_short_of(self.wanted_window())
    }

    /// Lets the windows grow and shrink to what they should be, or to what there is `room` for, of which half is left to
    /// others. A path on which nothing is sent gives back what it took for that.
    pub(crate) fn fit_windows(&mut self, is_sending: impl FnOnce() -> bool, room: u64) {
        let mut room = room;
        let read = self.inbound.take_read_bytes();
        self.windows.on_read(read);
        if self.data_open && !self.ended {
            let (before, wanted) = (self.windows.receive, self.wanted_window());
            if self.windows.fit_receive(wanted, room / 2) {
                room = room.saturating_sub(self.windows.receive.saturating_sub(before));
                self.quic.set_receive_window(VarInt::from_u64(self.windows.receive).unwrap_or(VarInt::MAX));
            }
        }
        if self.ended {
            return;
        }
        let before = self.windows.send_max;
        if !self.is_settled() || is_sending() {
            let congestion_window = self.quic.congestion_state().window();
            let wanted = congestion_window.saturating_mul(2).min(self.limits.path_window_bytes_max());
            self.windows.send_max += wanted.saturating_sub(self.windows.send_max).min(room / 2);
        } else {
            self.windows.send_max = Windows::SEND_MIN;
        }
        if self.windows.send_max != before {
            // QUIC hears of it with the next flush.
            self.quic.touch();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn receive_window_grows_as_far_as_there_is_room_and_shrinks_as_its_credit_is_used() {
        let mut windows = Windows { receive: 2 * MIB, ..Windows::default() };
        assert!(!windows.fit_receive(2 * MIB + 1, u64::MAX), "not worth a frame");
        assert!(windows.fit_receive(16 * MIB, 4 * MIB));
        assert_eq!(windows.receive, 6 * MIB);
        assert!(!windows.fit_receive(16 * MIB, 1024), "no room");
        assert!(windows.fit_receive(16 * MIB, 10 * MIB));
        assert!(!windows.fit_receive(9 * MIB, 0), "it may come back");
        assert!(windows.fit_receive(2 * MIB, 0));
        assert_eq!((windows.receive, windows.excess), (2 * MIB, 14 * MIB), "the peer may use what it was given");
        windows.on_read(10 * MIB);
        assert_eq!(windows.excess, 4 * MIB);
        windows.on_read(10 * MIB);
        assert_eq!(windows.excess, 0);
    }

    /// QUIC gives credit for all by which a window grows, also for what it had before it shrank.
    #[test]
    fn regression_window_that_shrank_and_grew_gave_its_credit_twice() {
        let mut windows = Windows { receive: 2 * MIB, ..Windows::default() };
        let credit = |windows: &Windows| windows.receive + windows.excess;
        assert!(windows.fit_receive(16 * MIB, u64::MAX));
        for _ in 0..20 {
            windows.fit_receive(2 * MIB, 0);
            windows.on_read(MIB);
            windows.fit_receive(16 * MIB, u64::MAX);
            assert!(credit(&windows) <= 16 * MIB, "{windows:?}");
        }
        windows.on_read(16 * MIB);
        windows.fit_receive(16 * MIB, u64::MAX);
        assert_eq!((windows.receive, windows.excess), (16 * MIB, 0));
    }

    #[test]
    fn round_trip_counts_at_once_and_is_forgotten_when_less_comes() {
        let (start, rtt) = (instant(), Duration::from_millis(100));
        let at = |ms| start + Duration::from_millis(ms);
        let mut trips = RoundTrips::new(start);
        (0..10).for_each(|step| trips.on_bytes(at(10 * step), rtt, 1_000));
        assert_eq!(trips.most(), 10_000);
        trips.on_bytes(at(100), rtt, 500);
        assert_eq!(trips.most(), 10_000, "the next has begun");
        trips.on_bytes(at(5_000), rtt, 500);
        assert_eq!(trips.most(), 10_000);
        trips.on_bytes(at(10_000), rtt, 700);
        assert_eq!(trips.most(), 700);
    }
}
