//! The measurements and counters of a path.

use std::time::{Duration, Instant};

use super::{Path, health};
use crate::protocol_event::BlockedBy;

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

    pub(crate) fn bytes_per_second(&self, now: Instant) -> u64 {
        self.meter.bytes_per_second(now)
    }

    pub(crate) fn rtt_min(&self) -> Duration {
        self.quic.min_rtt()
    }

    /// QUIC packets sent, and how many of them were lost.
    pub(crate) fn quic_packets(&self) -> (u64, u64) {
        let path = self.quic.stats().path;
        (path.sent_packets, path.lost_packets)
    }

    pub(crate) fn congestion_window(&self) -> u64 {
        self.quic.congestion_state().window()
    }

    pub(crate) fn bytes_in_flight(&self) -> u64 {
        self.probe.bytes_in_flight()
    }

    /// Why no more is sent now.
    pub(crate) fn blocked_by(&self) -> BlockedBy {
        let mtu = u64::from(self.quic.current_mtu());
        let is_full = self.bytes_in_flight().saturating_add(mtu) > self.congestion_window();
        if is_full || self.pacer.deadline().is_some() {
            BlockedBy::Window
        } else if self.control.is_flushed() && self.carriers.is_flushed() {
            BlockedBy::Application
        } else {
            BlockedBy::Credit
        }
    }

    pub(crate) fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    pub(crate) fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Packet bytes that the peer acknowledged.
    pub(crate) fn bytes_acknowledged(&self) -> u64 {
        self.sent.bytes_acknowledged()
    }

    /// Packet bytes handed to QUIC that the peer did not acknowledge yet.
    pub(crate) fn bytes_outstanding(&self) -> u64 {
        self.sent.bytes_outstanding()
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
