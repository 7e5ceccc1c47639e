//! What the congestion controller sees and quinn-proto does not tell: a controller that forwards to the real one.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig, NewRenoConfig};
use quinn_proto::{FrameStats, RttEstimator};

use crate::config::Congestion;
use crate::congestion::Bbr;

/// The UDP payload of Ethernet with IPv4, in bytes.
const MTU_ETHERNET: u16 = 1472;

/// Counters of one connection, shared with its congestion controller.
#[derive(Debug, Default)]
pub(super) struct Probe {
    in_flight: Arc<AtomicU64>,
    /// Frames sent that the peer must acknowledge.
    eliciting: AtomicU64,
    closing: AtomicBool,
    /// Acknowledgements of something new.
    acks: AtomicU64,
    /// A window that holds until something is sent, if it is larger than the controller's.
    lifted: AtomicU64,
}

impl Probe {
    /// Bytes sent and neither acknowledged nor lost, about.
    pub(super) fn bytes_in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// How often the peer acknowledged something.
    pub(super) fn acks(&self) -> u64 {
        self.acks.load(Ordering::Relaxed)
    }

    /// The controller hears of acknowledgements that are sent too, but no answer comes to those: if nothing else left,
    /// as much is in flight as `before`. Returns whether something else left.
    pub(super) fn on_transmit(&self, before: u64, sent: &FrameStats) -> bool {
        self.lifted.store(0, Ordering::Relaxed);
        let eliciting = eliciting_frames(sent);
        let is_eliciting = self.eliciting.swap(eliciting, Ordering::Relaxed) != eliciting;
        if !is_eliciting {
            self.in_flight.store(before, Ordering::Relaxed);
        }
        is_eliciting
    }

    /// The peer is heard again after a silence: `bytes` may leave however much is in flight. quinn-proto holds
    /// acknowledgements back with the data they would go with, until its own probe, which the silence made late; and
    /// the answer to this datagram tells what was lost.
    pub(super) fn lift_window_once(&self, bytes: u64) {
        self.lifted.store(self.bytes_in_flight().saturating_add(bytes), Ordering::Relaxed);
    }

    /// The connection is closing: its last packet must leave, however much is in flight. quinn-proto holds a
    /// CONNECTION_CLOSE back like data, and no acknowledgement makes room for it any more.
    pub(super) fn lift_window(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}

/// All frames but ACK and CONNECTION_CLOSE (RFC 9002 §2).
fn eliciting_frames(sent: &FrameStats) -> u64 {
    [
        sent.ack_frequency,
        sent.crypto,
        sent.data_blocked,
        sent.datagram,
        sent.handshake_done.into(),
        sent.immediate_ack,
        sent.max_data,
        sent.max_stream_data,
        sent.max_streams_bidi,
        sent.max_streams_uni,
        sent.new_connection_id,
        sent.new_token,
        sent.path_challenge,
        sent.path_response,
        sent.ping,
        sent.reset_stream,
        sent.retire_connection_id,
        sent.stream_data_blocked,
        sent.streams_blocked_bidi,
        sent.streams_blocked_uni,
        sent.stop_sending,
        sent.stream,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

/// Builds probed controllers for one connection.
pub(super) struct ProbedFactory {
    pub(super) probe: Arc<Probe>,
    pub(super) congestion: Congestion,
    /// What the controller draws follows from it.
    pub(super) seed: u64,
}

impl ControllerFactory for ProbedFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let initial_window = initial_window(current_mtu.into());
        let inner = match self.congestion {
            Congestion::Cubic => {
                let mut cubic = CubicConfig::default();
                cubic.initial_window(initial_window);
                Arc::new(cubic).build(now, current_mtu)
            }
            Congestion::NewReno => {
                let mut reno = NewRenoConfig::default();
                reno.initial_window(initial_window);
                Arc::new(reno).build(now, current_mtu)
            }
            Congestion::Bbr => {
                let in_flight = self.probe.in_flight.clone();
                let initial_window = paced_window(current_mtu.into());
                Box::new(Bbr::new(now, current_mtu, initial_window, self.seed, in_flight))
            }
        };
        Box::new(Probed { inner, probe: self.probe.clone(), mtu: current_mtu })
    }
}

/// What may be in flight at first, in bytes (RFC 9002 §7.2). quinn-proto takes datagrams of 1200 bytes for granted, and sends
/// nothing if a larger one does not fit.
fn initial_window(mtu: u64) -> u64 {
    (10 * mtu).min((2 * mtu).max(14_720))
}

/// What may be in flight at first of what leaves paced, in bytes: 32 datagrams of 1200 bytes instead of the ten that may leave
/// at once. A round trip of 200 ms and 20 Mbit/s are full one and a half round trips sooner: a download of three seconds
/// takes 8 % less.
fn paced_window(mtu: u64) -> u64 {
    initial_window(mtu).max(32 * 1200)
}

/// What may be in flight however much was lost, in bytes. Two datagrams are the least of every controller, and quinn-proto
/// takes as many bytes for too many: a single one is in flight then, whose acknowledgement the peer delays. With datagrams
/// of the usual size that is rare, and left as it is.
fn least_window(mtu: u16) -> u64 {
    if mtu > MTU_ETHERNET { 2 * u64::from(mtu) + 1 } else { 0 }
}

struct Probed {
    inner: Box<dyn Controller>,
    probe: Arc<Probe>,
    mtu: u16,
}

impl Controller for Probed {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
        self.probe.in_flight.fetch_add(bytes, Ordering::Relaxed);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.probe.acks.fetch_add(1, Ordering::Relaxed);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.probe.in_flight.store(in_flight, Ordering::Relaxed);
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.probe.closing.load(Ordering::Relaxed) {
            return u64::MAX;
        }
        self.inner.window().max(least_window(self.mtu)).max(self.probe.lifted.load(Ordering::Relaxed))
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), probe: self.probe.clone(), mtu: self.mtu })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    /// One datagram at a time was in flight on loopback, and each waited for a delayed acknowledgement.
    #[test]
    fn regression_two_large_datagrams_did_not_fit_into_the_least_window() {
        for congestion in [Congestion::Cubic, Congestion::NewReno, Congestion::Bbr] {
            for mtu in [8972, 65_507] {
                let build =
                    |mtu| Arc::new(ProbedFactory { probe: Arc::default(), congestion, seed: 1 }).build(instant(), mtu);
                let mut found = build(1200);
                found.on_mtu_update(mtu);
                let mut shrunk = build(mtu);
                for _ in 0..100 {
                    let now = instant() + std::time::Duration::from_secs(1);
                    shrunk.on_congestion_event(now, now, true, 1_000_000);
                }
                for window in [build(mtu).window(), found.window(), shrunk.window()] {
                    assert!(window > 2 * u64::from(mtu), "{congestion:?}, {mtu}: {window}");
                }
            }
        }
    }

    #[test]
    fn two_datagrams_fit_into_the_initial_window_whatever_their_size() {
        for congestion in [Congestion::Cubic, Congestion::NewReno, Congestion::Bbr] {
            for mtu in [1200, 1452, 9000, u16::MAX] {
                let factory = ProbedFactory { probe: Arc::default(), congestion, seed: 1 };
                let window = Arc::new(factory).build(instant(), mtu).window();
                assert!(window >= 2 * u64::from(mtu), "{congestion:?}, {mtu}: {window}");
            }
        }
        assert_eq!([1200, 1452, 9000].map(initial_window), [12_000, 14_520, 18_000]);
    }
}
