//! The windows of a path: how much of the endpoint's memory its connection may hold.

use quinn_proto::VarInt;

use super::Path;
use super::transport::UNAUTHENTICATED_RECEIVE_WINDOW;
use crate::limits::Limits;

/// What QUIC may hold of what came, and of what is to be sent, in bytes.
#[derive(Debug)]
pub(super) struct Windows {
    receive: u64,
    send_max: u64,
}

impl Default for Windows {
    fn default() -> Self {
        Self { receive: Self::RECEIVE_MIN, send_max: Self::SEND_MIN }
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
}

impl Path {
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
        Self::CONNECTION_BYTES + self.windows.receive + self.windows.send_max
    }

    /// Whether the window to receive into is smaller than it should be.
    pub(crate) fn wants_window(&self) -> bool {
        self.data_open && !self.ended && self.windows.receive < u64::from(self.limits.quic_receive_window_bytes)
    }

    /// Lets the windows grow to what they should be, or to what there is `room` for, of which half is left to others. A
    /// path on which nothing is sent gives back what it took for that.
    pub(crate) fn fit_windows(&mut self, is_sending: impl FnOnce() -> bool, room: u64) {
        let mut room = room;
        if self.wants_window() {
            let wanted = u64::from(self.limits.quic_receive_window_bytes) - self.windows.receive;
            let step = wanted.min(room / 2);
            // A receive window never shrinks: the peer may use all credit that it was given.
            if step == wanted || step >= Windows::STEP {
                self.windows.receive += step;
                room -= step;
                self.quic.set_receive_window(VarInt::from_u64(self.windows.receive).unwrap_or(VarInt::MAX));
            }
        }
        if self.ended {
            return;
        }
        let before = self.windows.send_max;
        if !self.is_settled() || is_sending() {
            let congestion_window = self.quic.congestion_state().window();
            let wanted = congestion_window.saturating_mul(2).min(self.limits.quic_send_window_bytes);
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
