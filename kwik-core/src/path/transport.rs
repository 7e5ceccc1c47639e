//! QUIC transport settings of a path.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, VarInt};

use super::probe::{Probe, ProbedFactory};
use crate::config::{AckFrequency, MtuBounds, TransportConfig};
use crate::id::Side;
use crate::limits::{KEEP_ALIVE_MAX, Limits};
use crate::protocol_event::EventDetail;

/// What the endpoint decides for a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PathSettings {
    pub(crate) transport: TransportConfig,
    /// What the path's congestion controller draws follows from it.
    pub(crate) seed: u64,
    pub(crate) mtu: MtuBounds,
    /// By how much the endpoint may be late with a keep-alive.
    pub(crate) timer_slack: Duration,
    /// How much paths note of what they do.
    pub(crate) event_detail: EventDetail,
}

/// QUIC's own limits before the peer has authenticated: one control stream, a few carriers, 64 KiB in all.
pub(super) const UNAUTHENTICATED_RECEIVE_WINDOW: u32 = 64 * 1024;
const UNAUTHENTICATED_CARRIERS: u32 = 8;

/// Settings for one connection. A connection has its own, since its congestion controller reports to its `probe`. The
/// client keeps idle paths alive, since it is the client that must notice a silent server. A server does so only where
/// its own idle timeout, which the client does not know, is shorter than clients count on.
pub(super) fn transport_config(
    side: Side,
    limits: &Limits,
    settings: PathSettings,
    probe: &Arc<Probe>,
) -> quinn_proto::TransportConfig {
    let TransportConfig { congestion, rtt_initial, ack_frequency, .. } = settings.transport;
    let mut transport = quinn_proto::TransportConfig::default();
    let idle = u32::try_from(limits.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    let keep_alive = match side {
        Side::Client => Some(limits.keep_alive.saturating_sub(settings.timer_slack).max(limits.keep_alive / 2)),
        Side::Server => Some(limits.idle_timeout / 3).filter(|third| *third < KEEP_ALIVE_MAX),
    };
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(settings.mtu.max);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(u32::from(side == Side::Server)))
        .max_concurrent_uni_streams(VarInt::from_u32(UNAUTHENTICATED_CARRIERS))
        // An idle timeout of zero would mean none at all (RFC 9000 §18.2).
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle.max(1)))))
        .receive_window(VarInt::from_u32(UNAUTHENTICATED_RECEIVE_WINDOW))
        .stream_receive_window(VarInt::from_u32(limits.quic_stream_receive_window_bytes))
        .send_window(limits.path_window_bytes_max())
        // Without turns, quinn-proto ends the stream it is at before it looks at those of higher priority, and the
        // control plane would wait for a carrier that never runs dry.
        .send_fairness(true)
        .keep_alive_interval(keep_alive)
        .datagram_receive_buffer_size(None)
        .initial_mtu(settings.mtu.initial)
        .mtu_discovery_config(Some(mtu))
        .initial_rtt(rtt_initial)
        .ack_frequency_config(ack_frequency.map(ack_frequency_config))
        .congestion_controller_factory(Arc::new(ProbedFactory {
            probe: probe.clone(),
            congestion,
            seed: settings.seed,
        }));
    transport
}

fn ack_frequency_config(asked: AckFrequency) -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config
        .ack_eliciting_threshold(VarInt::from_u32(asked.ack_eliciting_threshold))
        .max_ack_delay(asked.max_ack_delay)
        .reordering_threshold(VarInt::from_u32(asked.reordering_threshold));
    config
}

/// Lets an authenticated peer open carriers.
pub(super) fn open_carriers(connection: &mut quinn_proto::Connection, limits: &Limits) {
    let carriers = u32::try_from(limits.carriers_max).unwrap_or(u32::MAX).saturating_add(UNAUTHENTICATED_CARRIERS);
    connection.set_max_concurrent_streams(quinn_proto::Dir::Uni, VarInt::from_u32(carriers));
}
