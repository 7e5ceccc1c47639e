//! The measurements and counters of a path.

use std::time::Duration;

use super::{Path, health};

impl Path {
    /// How long an answer may take.
    pub(crate) fn answer_time(&self) -> Duration {
        health::answer_time(self.quic.rtt())
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.quic.rtt()
    }

    pub(crate) fn mtu(&self) -> u16 {
        self.quic.current_mtu()
    }

    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.meter.bytes_per_second()
    }

    pub(crate) fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    pub(crate) fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    pub(crate) fn packets_received(&self) -> u64 {
        self.inbound.packets.received()
    }

    pub(crate) fn packets_sent(&self) -> u64 {
        self.sent.sent()
    }

    /// How many carriers are open, in both directions together.
    pub(crate) fn carriers(&self) -> usize {
        self.carriers.count() + self.inbound.count()
    }
}
