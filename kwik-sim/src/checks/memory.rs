//! What a session may hold at most, as its limits say.

use kwik_core::limits::{CONTROL_FRAME_BYTES_MAX, GRANTS_PATH_MAX, REQUEST_BYTES_MAX};
use kwik_core::{Limits, Role};

/// Streams that may be open at one end: both ends may open as many as the other end allows.
pub(super) fn streams_max(limits: &Limits) -> u64 {
    let streams = limits.streams_bidi_max.saturating_add(limits.streams_uni_max);
    streams.max(limits.grants_path_max as u64).saturating_mul(2)
}

/// Bytes that may wait for the application and for QUIC.
pub(super) fn buffers_max(limits: &Limits) -> u64 {
    /// Writes that may be sent at once.
    const MARGIN: u64 = 4 << 20;
    // A quarter more for what pieces pin.
    let with_a_quarter = |bytes: u64| bytes.saturating_add(bytes / 4);
    with_a_quarter(limits.reassembly_budget_bytes)
        .saturating_add(with_a_quarter(limits.send_buffer_session_bytes as u64))
        .saturating_add(MARGIN)
}

/// What is wrong if a session holds so many bytes of its endpoint's memory, if anything is.
pub(super) fn excess(limits: &Limits, role: Role, held: u64) -> Option<String> {
    let most = session_max(limits, role);
    (held > most).then(|| format!("{held} bytes of memory are taken; at most {most}"))
}

fn session_max(limits: &Limits, role: Role) -> u64 {
    const SESSION_BYTES: u64 = 16 * 1024;
    const CONNECTION_BYTES: u64 = 64 * 1024;
    const WINDOW_MIN: u64 = 64 * 1024;
    const STREAM_BYTES: u64 = 1536;
    const SPAN_BYTES: u64 = 128;
    let window_max = limits.bandwidth_delay_bytes_max.saturating_mul(2).max(WINDOW_MIN);
    let path = CONNECTION_BYTES
        .saturating_add(window_max.max(limits.quic_receive_window_bytes.into()))
        .saturating_add(window_max);
    let paths = if role == Role::Client { limits.paths_max as u64 } else { 1 };
    let streams = streams_max(limits);
    // A secondary bears with twice what the protocol allows a primary.
    let requests = 2 * (GRANTS_PATH_MAX * REQUEST_BYTES_MAX) as u64;
    let spans = streams.saturating_mul(8).saturating_add(limits.reassembly_spans_session as u64);
    let parts = [
        SESSION_BYTES,
        (limits.command_bytes_max as u64).saturating_add(CONTROL_FRAME_BYTES_MAX as u64),
        // A path that ends may stay for a while beside the one that takes its place.
        path.saturating_mul(2 * paths),
        buffers_max(limits),
        requests,
        streams.saturating_mul(STREAM_BYTES),
        spans.saturating_mul(SPAN_BYTES),
    ];
    parts.into_iter().fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_that_holds_more_than_its_limits_say_is_seen() {
        let limits = Limits::default();
        for (role, most) in [(Role::Client, 3 << 30), (Role::Primary, 1 << 30), (Role::Secondary, 1 << 30)] {
            assert_eq!(excess(&limits, role, 32 << 20), None);
            assert!(excess(&limits, role, most).is_some(), "{role:?}: {}", session_max(&limits, role));
        }
    }

    #[test]
    fn limits_without_end_allow_everything() {
        let mut limits = Limits::default();
        (limits.send_buffer_session_bytes, limits.bandwidth_delay_bytes_max) = (usize::MAX, u64::MAX);
        assert_eq!(excess(&limits, Role::Client, u64::MAX), None);
    }
}
