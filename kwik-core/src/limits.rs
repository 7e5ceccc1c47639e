//! Every limit of the protocol and of this implementation, in one place.
//!
//! Constants are wire rules: both ends must agree on them (PROTOCOL.md §10). [`Limits`] holds what an endpoint may choose
//! for itself.

use std::time::Duration;

/// The largest value of a QUIC varint.
pub const VARINT_MAX: u64 = (1 << 62) - 1;
/// The largest UDP payload over IPv4, in bytes.
pub const UDP_BYTES_MAX: usize = 65_507;
/// The largest control frame body, in bytes.
pub const CONTROL_FRAME_BYTES_MAX: usize = 16 * 1024;
/// The largest encoded ticket, in bytes.
pub const TICKET_BYTES_MAX: usize = 2 * 1024;
/// The most payload in one data frame, in bytes.
pub const DATA_FRAME_PAYLOAD_MAX: usize = 64 * 1024;
/// The largest data packet: one full frame and room for frame headers, in bytes.
pub const PACKET_BYTES_MAX: usize = DATA_FRAME_PAYLOAD_MAX + 1024;
/// The largest unknown frame that is skipped, in bytes.
pub const UNKNOWN_FRAME_BYTES_MAX: u64 = 4 * 1024;
/// How many bytes of unknown frames one path may send in its life.
pub const UNKNOWN_BYTES_PER_PATH_MAX: u64 = 64 * 1024;
/// The longest application request in a grant, in bytes.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// The longest raw packet, in bytes.
pub const RAW_BYTES_MAX: usize = 12 * 1024;
/// The longest credential in HELLO, in bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 4 * 1024;
/// The longest server name, in bytes.
pub const SERVER_NAME_BYTES_MAX: usize = 255;
/// The longest close reason, in bytes.
pub const CLOSE_REASON_BYTES_MAX: usize = 256;
/// Packet ranges in one PACKET_ACK frame.
pub const ACK_RANGES_MAX: usize = 64;
/// Missing ranges in one GRANT_STATUS frame; more are merged with their neighbours.
pub const MISSING_RANGES_MAX: usize = 256;
/// Unfinished grants that one more grant of the same stream may overlap; a client may refuse it beyond that.
pub const GRANT_OVERLAP_MAX: usize = 16;
/// Newly delivered bytes of a grant after which the primary is told of its progress.
pub const GRANT_PROGRESS_BYTES: u64 = 256 * 1024;
/// Paths whose raw packets one server of a session accepts. Path ids are never reused.
pub const RAW_SENDERS_MAX: usize = 1024;
/// How much of a control plane that waits a peer reads within [`Limits::control_stall_timeout`], at least.
pub const CONTROL_PROGRESS_BYTES: usize = 512;
/// Paths that a primary remembers, the live ones included; of the dead ones it forgets the first.
pub const PATHS_REMEMBERED_MAX: usize = 1024;
/// Packets a sender may have unacknowledged on a path. A receiver closes the path beyond it.
pub const PACKETS_OUTSTANDING_MAX: u64 = 4096;
/// Streams of each direction every endpoint accepts before its parameters are known.
pub const FLOOR_STREAMS: u64 = 16;
/// Bytes of each stream every endpoint accepts before its parameters are known.
pub const FLOOR_STREAM_BYTES: u64 = 16 * 1024;

/// What an endpoint chooses for itself, for each of its sessions unless said otherwise.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Bidirectional streams the peer may have open at once. At least [`FLOOR_STREAMS`].
    pub streams_bidi_max: u64,
    /// Unidirectional streams the peer may have open at once. At least [`FLOOR_STREAMS`].
    pub streams_uni_max: u64,
    /// Opened but not yet accepted streams of one direction; beyond it no new stream credit is given.
    pub accept_queue_streams: usize,
    /// Bytes of a stream that a peer may send before it hears of any further credit. At least
    /// [`FLOOR_STREAM_BYTES`].
    pub stream_window_initial_bytes: u64,
    /// The window of a stream once it is in use.
    pub stream_window_bytes: u64,
    /// The most a stream's window grows to, by consumption.
    pub stream_window_bytes_max: u64,
    /// Sum over streams of (limit − consumed) that a session gives out.
    pub reassembly_budget_bytes: u64,
    /// Separate ranges in which one stream may be received: one more than there are gaps between them.
    pub reassembly_spans_stream: usize,
    /// Separate ranges in which all streams of a session may be received, the first 8 of each not counted.
    pub reassembly_spans_session: usize,
    /// Bytes written but not yet handed to QUIC, by stream; a write waits beyond it.
    pub send_buffer_stream_bytes: usize,
    /// Bytes written but not yet handed to QUIC, by session.
    pub send_buffer_session_bytes: usize,
    /// Active streams that share one carrier, 1 to 16.
    pub streams_per_carrier: usize,
    /// Carriers of one path and direction.
    pub carriers_max: usize,
    /// Bytes after which a carrier is finished and replaced.
    pub carrier_bytes_max: u64,
    /// Paths of a session, the primary's included.
    pub paths_max: usize,
    /// Dials a client runs at the same time.
    pub dials_parallel_max: usize,
    /// Dials in one minute that do not succeed, to addresses where none did before; at least as many as `paths_max`.
    /// All dials together may be `paths_max` times as many.
    pub dials_per_minute_max: usize,
    /// How long a dial and its authentication may take.
    pub dial_timeout: Duration,
    /// How long a server waits for what the client is to say of a path it was told to add or to remove, and for the
    /// receipt of a raw packet. At least `dial_timeout`; the client may have to dial several servers before, and the
    /// primary may be out of reach for a while.
    pub answer_timeout: Duration,
    /// Grants that may be outstanding in a session.
    pub grants_session_max: usize,
    /// Grants that may be outstanding on one path.
    pub grants_path_max: usize,
    /// Bytes of a primary's commands that the client did not take yet, requests included.
    pub command_bytes_max: usize,
    /// Separate ranges that a session remembers as granted or revoked, of all its streams and paths.
    pub grant_spans_session: usize,
    /// Bytes of a revoked grant that are dropped silently.
    pub fence_bytes_max: u64,
    /// Raw packets from one path to another whose receipt was not passed on, and those received but not yet taken by the
    /// application. Of all paths together, `paths_max` times as many.
    pub raw_packets_max: usize,
    /// Bytes of such raw packets.
    pub raw_queue_bytes_max: usize,
    /// Wrong seals of raw packets that are looked at, by sender; more are refused unseen.
    pub forged_seals_burst: u32,
    /// Such seals by sender and second, beyond the burst.
    pub forged_seals_per_second: u32,
    /// Control frames queued on a path whose peer does not read them, and answers that wait to be queued.
    pub control_queue_frames_max: usize,
    /// Bytes of such control frames.
    pub control_queue_bytes_max: usize,
    /// Frames that achieve nothing which a path may bring at once: repeated credit or status, empty data, refused
    /// commands. A packet that was acknowledged or brought data makes up for one.
    pub idle_frames_burst: u32,
    /// Such frames by path and second, beyond the burst.
    pub idle_frames_per_second: u32,
    /// The time in which stream credit comes back of streams that the peer opened and gave up before they were done: as
    /// many streams as it may have open, and as many at once besides. A stream that ends well makes up for one.
    pub stream_credit_refill: Duration,
    /// Sessions of one endpoint.
    pub sessions_max: usize,
    /// Sessions that were accepted but not yet taken by the application, by endpoint.
    pub accept_queue_sessions: usize,
    /// Handshakes in progress, by endpoint.
    pub incoming_max: usize,
    /// Connections that have not authenticated, by endpoint, above which addresses are validated with a Retry.
    pub incoming_before_retry: usize,
    /// The same by network: an IPv4 address, or 56 bits of an IPv6 address.
    pub incoming_network_before_retry: usize,
    /// Connections that have not authenticated, by endpoint. One more takes the place of the first that came from the
    /// network that has most.
    pub unauthenticated_max: usize,
    /// The same by network. One more takes the place of the first. As many as `handshakes_network_per_second` lets in
    /// within a round trip, or honest clients behind one address would put each other out.
    pub unauthenticated_network_max: usize,
    /// How long a connection may stay unauthenticated.
    pub auth_timeout: Duration,
    /// Handshakes begun each second, by endpoint, and as many at once. More are not answered, and QUIC asks again.
    pub handshakes_per_second: u32,
    /// The same by network.
    pub handshakes_network_per_second: u32,
    /// First frames whose signatures are verified each second, by endpoint, and as many at once. More are refused.
    pub verifications_per_second: u32,
    /// The same by network.
    pub verifications_network_per_second: u32,
    /// Spent tickets remembered until they expire, by endpoint.
    pub tickets_remembered_max: usize,
    /// QUIC connection-level receive window of a path.
    pub quic_receive_window_bytes: u32,
    /// QUIC stream-level receive window.
    pub quic_stream_receive_window_bytes: u32,
    /// QUIC send window of a path; the sender keeps less ahead when the path is slow.
    pub quic_send_window_bytes: u64,
    /// Silence after which a path that owes an answer is suspect.
    pub suspect_after: Duration,
    /// Silence after which a secondary's path is dead.
    pub dead_after: Duration,
    /// How often an idle path is probed.
    pub keep_alive: Duration,
    /// QUIC's idle timeout, and how long a silent primary is waited for.
    pub idle_timeout: Duration,
    /// How long a secondary may serve a client on one ticket.
    pub path_lease: Duration,
    /// How long a close waits for what was finished.
    pub drain_timeout: Duration,
    /// How long a peer may leave its control plane unread, or read less than [`CONTROL_PROGRESS_BYTES`] of it.
    pub control_stall_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        const MIB_USIZE: usize = 1024 * 1024;
        const MIB_U32: u32 = 1024 * 1024;
        Self {
            streams_bidi_max: 128,
            streams_uni_max: 128,
            accept_queue_streams: 128,
            stream_window_initial_bytes: FLOOR_STREAM_BYTES,
            stream_window_bytes: MIB,
            stream_window_bytes_max: 16 * MIB,
            reassembly_budget_bytes: 16 * MIB,
            reassembly_spans_stream: 1024,
            reassembly_spans_session: 8192,
            send_buffer_stream_bytes: MIB_USIZE,
            send_buffer_session_bytes: 16 * MIB_USIZE,
            streams_per_carrier: 4,
            carriers_max: 64,
            carrier_bytes_max: 8 * MIB,
            paths_max: 8,
            dials_parallel_max: 2,
            dials_per_minute_max: 8,
            dial_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(60),
            grants_session_max: 1024,
            grants_path_max: 256,
            command_bytes_max: MIB_USIZE,
            grant_spans_session: 16 * 1024,
            fence_bytes_max: 4 * MIB,
            raw_packets_max: 64,
            raw_queue_bytes_max: 256 * 1024,
            forged_seals_burst: 16,
            forged_seals_per_second: 1,
            control_queue_frames_max: 1024,
            control_queue_bytes_max: 64 * 1024,
            idle_frames_burst: 1000,
            idle_frames_per_second: 100,
            stream_credit_refill: Duration::from_secs(1),
            sessions_max: 10_000,
            accept_queue_sessions: 64,
            incoming_max: 1024,
            incoming_before_retry: 128,
            incoming_network_before_retry: 16,
            unauthenticated_max: 1024,
            unauthenticated_network_max: 256,
            auth_timeout: Duration::from_secs(5),
            handshakes_per_second: 1000,
            handshakes_network_per_second: 200,
            verifications_per_second: 1000,
            verifications_network_per_second: 200,
            tickets_remembered_max: 16 * 1024,
            quic_receive_window_bytes: 2 * MIB_U32,
            quic_stream_receive_window_bytes: MIB_U32,
            quic_send_window_bytes: 2 * MIB,
            suspect_after: Duration::from_millis(500),
            dead_after: Duration::from_secs(3),
            keep_alive: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(30),
            path_lease: Duration::from_secs(24 * 60 * 60),
            drain_timeout: Duration::from_secs(10),
            control_stall_timeout: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Checks the limits against the protocol and each other.
    ///
    /// # Errors
    /// Says which limit to change.
    pub fn check(&self) -> Result<(), &'static str> {
        let rules = [
            (self.streams_bidi_max >= FLOOR_STREAMS, "streams_bidi_max must be at least FLOOR_STREAMS"),
            (self.streams_uni_max >= FLOOR_STREAMS, "streams_uni_max must be at least FLOOR_STREAMS"),
            (self.streams_bidi_max <= 1 << 32, "streams_bidi_max must be at most 2^32"),
            (self.streams_uni_max <= 1 << 32, "streams_uni_max must be at most 2^32"),
            (
                self.stream_window_initial_bytes >= FLOOR_STREAM_BYTES,
                "stream_window_initial_bytes must be at least FLOOR_STREAM_BYTES",
            ),
            (
                self.stream_window_bytes >= self.stream_window_initial_bytes,
                "stream_window_bytes must be at least stream_window_initial_bytes",
            ),
            (
                self.stream_window_bytes_max >= self.stream_window_bytes,
                "stream_window_bytes_max must be at least stream_window_bytes",
            ),
            (
                self.streams_bidi_max
                    .checked_add(self.streams_uni_max)
                    .and_then(|streams| streams.checked_mul(self.stream_window_initial_bytes))
                    .is_some_and(|bytes| bytes <= self.reassembly_budget_bytes / 2),
                "reassembly_budget_bytes must be at least twice (streams_bidi_max + streams_uni_max) × \
                 stream_window_initial_bytes",
            ),
            ((1..=16).contains(&self.streams_per_carrier), "streams_per_carrier must be 1 to 16"),
            ((2..=1024).contains(&self.carriers_max), "carriers_max must be 2 to 1024"),
            ((1..=16).contains(&self.paths_max), "paths_max must be 1 to 16"),
            (self.answer_timeout >= self.dial_timeout, "answer_timeout must be at least dial_timeout"),
            (self.send_buffer_stream_bytes > 0, "send_buffer_stream_bytes must not be 0"),
            (self.forged_seals_burst > 0, "forged_seals_burst must not be 0"),
            (self.unauthenticated_network_max > 0, "unauthenticated_network_max must not be 0"),
            (self.handshakes_per_second > 0, "handshakes_per_second must not be 0"),
            (self.handshakes_network_per_second > 0, "handshakes_network_per_second must not be 0"),
            (self.verifications_per_second > 0, "verifications_per_second must not be 0"),
            (self.verifications_network_per_second > 0, "verifications_network_per_second must not be 0"),
            (
                self.idle_timeout >= self.dead_after && self.dead_after >= self.suspect_after,
                "suspect_after, dead_after and idle_timeout must ascend",
            ),
            (
                u64::from(self.quic_receive_window_bytes) >= 64 * 1024
                    && u64::from(self.quic_stream_receive_window_bytes) >= 64 * 1024
                    && self.quic_send_window_bytes >= 64 * 1024,
                "the QUIC windows must be at least 64 KiB",
            ),
        ];
        rules.iter().try_for_each(|(holds, rule)| if *holds { Ok(()) } else { Err(*rule) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_limits_hold_together() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn limits_that_contradict_each_other_are_named() {
        let usual = Limits::default;
        for (limits, name) in [
            (Limits { streams_bidi_max: 1 << 20, ..usual() }, "reassembly_budget_bytes"),
            (Limits { streams_uni_max: u64::MAX, ..usual() }, "streams_uni_max"),
            (Limits { streams_uni_max: FLOOR_STREAMS - 1, ..usual() }, "streams_uni_max"),
            (Limits { stream_window_initial_bytes: 1, ..usual() }, "stream_window_initial_bytes"),
            (Limits { stream_window_bytes_max: 1, ..usual() }, "stream_window_bytes_max"),
            (Limits { dead_after: usual().idle_timeout * 2, ..usual() }, "suspect_after"),
        ] {
            assert!(limits.check().unwrap_err().starts_with(name), "{:?} is not about {name}", limits.check());
        }
    }

    // [P-10.1]
    #[test]
    fn the_bounds_of_the_protocol_do_not_move() {
        assert_eq!((CONTROL_FRAME_BYTES_MAX, DATA_FRAME_PAYLOAD_MAX, PACKET_BYTES_MAX), (16_384, 65_536, 66_560));
        assert_eq!((UNKNOWN_FRAME_BYTES_MAX, UNKNOWN_BYTES_PER_PATH_MAX), (4_096, 65_536));
        assert_eq!((TICKET_BYTES_MAX, CREDENTIAL_BYTES_MAX, REQUEST_BYTES_MAX), (2_048, 4_096, 8_192));
        assert_eq!((RAW_BYTES_MAX, SERVER_NAME_BYTES_MAX, CLOSE_REASON_BYTES_MAX), (12_288, 255, 256));
        assert_eq!((ACK_RANGES_MAX, MISSING_RANGES_MAX, PACKETS_OUTSTANDING_MAX), (64, 256, 4_096));
        assert_eq!((FLOOR_STREAMS, FLOOR_STREAM_BYTES), (16, 16_384));
        assert_eq!((GRANT_OVERLAP_MAX, GRANT_PROGRESS_BYTES), (16, 262_144));
    }
}
