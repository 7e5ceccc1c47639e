//! Every limit of the protocol and of this implementation, in one place.
//!
//! Constants are wire rules: both ends must agree on them (PROTOCOL.md §10). [`Limits`] holds what an endpoint may choose
//! for itself.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The largest value of a QUIC varint.
pub(crate) const VARINT_MAX: u64 = (1 << 62) - 1;
/// The largest UDP payload over IPv4, in bytes.
pub(crate) const UDP_BYTES_MAX: usize = 65_507;
/// The largest control frame body, in bytes.
pub const CONTROL_FRAME_BYTES_MAX: usize = 16 * 1024;
/// The largest encoded ticket, in bytes.
pub(crate) const TICKET_BYTES_MAX: usize = 2 * 1024;
/// The most payload in one data frame, in bytes.
pub(crate) const DATA_FRAME_PAYLOAD_MAX: usize = 64 * 1024;
/// The largest data packet: one full frame and room for frame headers, in bytes.
pub(crate) const PACKET_BYTES_MAX: usize = DATA_FRAME_PAYLOAD_MAX + 1024;
/// The largest unknown frame that is skipped, in bytes.
pub(crate) const UNKNOWN_FRAME_BYTES_MAX: u64 = 4 * 1024;
/// How many bytes of unknown frames one path may send in its life.
pub(crate) const UNKNOWN_BYTES_PER_PATH_MAX: u64 = 64 * 1024;
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
pub(crate) const ACK_RANGES_MAX: usize = 64;
/// Missing ranges in one GRANT_STATUS frame; more are merged with their neighbours.
pub(crate) const MISSING_RANGES_MAX: usize = 256;
/// Grants without a last status that a primary may have in a session. A client bears with as many, and no more.
pub const GRANTS_SESSION_MAX: usize = 1024;
/// Such grants of one path. Its secondary bears with twice as many, since it hears later of what is over.
pub const GRANTS_PATH_MAX: usize = 256;
/// Grants that are over and that the application of a secondary holds on to, above which it refuses more. More than what
/// waits for acknowledgements only, which are at most [`PACKETS_OUTSTANDING_MAX`].
pub(crate) const GRANTS_HELD_MAX: usize = 4096;
/// Unfinished grants that one more grant of the same stream may overlap; a client may refuse it beyond that.
pub(crate) const GRANT_OVERLAP_MAX: usize = 16;
/// Newly delivered bytes of a grant after which the primary is told of its progress.
pub(crate) const GRANT_PROGRESS_BYTES: u64 = 256 * 1024;
/// Paths whose raw packets one server of a session accepts. Path ids are never reused.
pub(crate) const RAW_SENDERS_MAX: usize = 1024;
/// How much of a control plane that waits a peer reads within [`Limits::control_stall_timeout`], at least.
pub const CONTROL_PROGRESS_BYTES: usize = 512;
/// What the protocol did and nobody asked for yet, in events; of more, only the number is kept.
pub const PROTOCOL_EVENTS_MAX: usize = 16 * 1024;
/// The most endpoints that share one port ([`Endpoint::workers`](crate::Endpoint::workers)).
pub const WORKERS_MAX: u16 = 256;
/// Paths that a primary remembers, the live ones included; of the dead ones it forgets the first.
pub(crate) const PATHS_REMEMBERED_MAX: usize = 1024;
/// Packets a sender may have unacknowledged on a path. A receiver closes the path beyond it.
pub(crate) const PACKETS_OUTSTANDING_MAX: u64 = 4096;
/// Streams of each direction every endpoint accepts before its parameters are known.
pub const FLOOR_STREAMS: u64 = 16;
/// Bytes of each stream every endpoint accepts before its parameters are known.
pub const FLOOR_STREAM_BYTES: u64 = 16 * 1024;

/// The longest that a client leaves an idle path without a PING. A server with an idle timeout below three times that sends
/// its own.
pub const KEEP_ALIVE_MAX: Duration = Duration::from_secs(10);

const MIB: u64 = 1024 * 1024;
const KIB_USIZE: usize = 1024;
const MIB_USIZE: usize = 1024 * 1024;
const MIB_U32: u32 = 1024 * 1024;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What a parameter of HELLO, JOIN and WELCOME may say at most.
const PARAM_MAX: u64 = 1 << 60;

/// Each limit with its default, and the least and the most it may be.
macro_rules! limits {
    ($($(#[doc = $doc:literal])* $field:ident: $type:ty = $default:expr, $least:expr => $most:expr;)*) => {
        /// What an endpoint chooses for itself, for each of its sessions unless said otherwise. What is said of an endpoint
        /// holds for all that share its port together.
        ///
        /// Where a peer that goes too far loses its path, it may count on the figures of the protocol: the limit cannot
        /// be less. Where it is this end that must not ask for too much, the limit cannot be more.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub struct Limits {
            $(
                $(#[doc = $doc])*
                #[doc = concat!(
                    "\n\nBy default `", stringify!($default), "`; from `", stringify!($least), "` to `", stringify!($most), "`."
                )]
                pub $field: $type,
            )*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl Limits {
            fn check_bounds(&self) -> Result<(), LimitError> {
                $(within(stringify!($field), self.$field, $least..=$most)?;)*
                Ok(())
            }

            /// Every limit by its name, to be changed.
            #[cfg(any(test, feature = "__test_exports"))]
            #[doc(hidden)]
            pub fn fields_mut(&mut self) -> Vec<(&'static str, LimitMut<'_>)> {
                vec![$((stringify!($field), (&mut self.$field, $least..=$most).into())),*]
            }
        }
    };
}

limits! {
    /// Bidirectional streams the peer may have open at once.
    streams_bidi_max: u64 = 128, FLOOR_STREAMS => 1 << 32;
    /// Unidirectional streams the peer may have open at once.
    streams_uni_max: u64 = 128, FLOOR_STREAMS => 1 << 32;
    /// Opened but not yet accepted streams of one direction; beyond it no new stream credit is given.
    accept_queue_streams: usize = 128, 1 => usize::MAX;
    /// The time in which stream credit comes back of streams that the peer opened and gave up before they were done: as
    /// many streams as it may have open, and as many at once besides. A stream that ends well makes up for one.
    stream_credit_refill: Duration = SECOND, MILLISECOND => HOUR;
    /// Bytes of a stream that a peer may send before it hears of any further credit.
    stream_window_initial_bytes: u64 = FLOOR_STREAM_BYTES, FLOOR_STREAM_BYTES => PARAM_MAX;
    /// The window of a stream once it is in use. At least `stream_window_initial_bytes`.
    stream_window_bytes: u64 = MIB, FLOOR_STREAM_BYTES => PARAM_MAX;
    /// The largest product of bandwidth and round trip that a session is to fill, over all its paths, in bytes: the default
    /// is 1 Gbit/s for 268 ms. It bounds every window that follows the work. A path's windows to receive and to send grow
    /// to twice as much, a stream's window to four times as much, and each only to a multiple of what comes within a round
    /// trip.
    bandwidth_delay_bytes_max: u64 = 32 * MIB, 4 * 1024 => 1 << 40;
    /// Sum over streams of (limit − consumed) that a session gives out. At least twice
    /// (`streams_bidi_max` + `streams_uni_max`) × `stream_window_initial_bytes`. One stream takes at most half of it.
    reassembly_budget_bytes: u64 = 256 * MIB, MIB => u64::MAX;
    /// Separate ranges in which one stream may be received: one more than there are gaps between them. At least one for
    /// each 32 KiB of the largest window that a stream can get.
    reassembly_spans_stream: usize = 4096, 1024 => usize::MAX;
    /// Separate ranges in which all streams of a session may be received, the first 8 of each not counted. At least twice
    /// `reassembly_spans_stream`.
    reassembly_spans_session: usize = 16 * 1024, 8192 => usize::MAX;
    /// Bytes written but not yet handed to QUIC, by stream; a write waits beyond it.
    send_buffer_stream_bytes: usize = MIB_USIZE, 1 => usize::MAX;
    /// Bytes written but not yet handed to QUIC, by session.
    send_buffer_session_bytes: usize = 16 * MIB_USIZE, 1 => usize::MAX;
    /// Active streams that share one carrier.
    streams_per_carrier: usize = 4, 1 => 16;
    /// Carriers of one path and direction.
    carriers_max: usize = 64, 2 => 1024;
    /// Bytes after which a carrier is finished and replaced. With less than `quic_stream_receive_window_bytes` of the peer,
    /// no carrier ever waits for credit of its own, and a path takes as many carriers as its round trip asks for.
    carrier_bytes_max: u64 = 3 * MIB / 2, 1024 => u64::MAX;
    /// Paths of a session, the primary's included.
    paths_max: usize = 8, 1 => 16;
    /// Dials a client runs at the same time.
    dials_parallel_max: usize = 2, 1 => usize::MAX;
    /// Dials within any minute that did not succeed; as many as `paths_max` if that is more. As many to an address where one
    /// succeeded are not counted, but all dials together are at most `paths_max` times as many.
    dials_per_minute_max: usize = 8, 1 => 1000;
    /// How long a dial and its authentication may take.
    dial_timeout: Duration = 5 * SECOND, 100 * MILLISECOND => HOUR;
    /// How long a server waits for what the client is to say of a path it was told to add or to remove, and for the
    /// receipt of a raw packet. At least `dial_timeout`; the client may have to dial several servers before, and the
    /// primary may be out of reach for a while.
    answer_timeout: Duration = 60 * SECOND, 100 * MILLISECOND => DAY;
    /// Grants that a primary issues in a session before it hears of their end.
    grants_session_max: usize = GRANTS_SESSION_MAX, 1 => GRANTS_SESSION_MAX;
    /// Grants that a primary issues for one path before it hears of their end.
    grants_path_max: usize = GRANTS_PATH_MAX, 1 => GRANTS_PATH_MAX;
    /// Bytes of a primary's commands that the client did not take yet, requests included.
    command_bytes_max: usize = MIB_USIZE, 1 => usize::MAX;
    /// Separate ranges that a session remembers as granted or revoked, of all its streams and paths.
    grant_spans_session: usize = 16 * 1024, 16 * 1024 => usize::MAX;
    /// Raw packets from one path to another whose receipt was not passed on, and those received but not yet taken by the
    /// application. Of all paths together, `paths_max` times as many.
    raw_packets_max: usize = 64, 1 => 64;
    /// Bytes of such raw packets.
    raw_queue_bytes_max: usize = 256 * KIB_USIZE, RAW_BYTES_MAX => 256 * KIB_USIZE;
    /// Wrong signatures of raw packets that are looked at, by sender; more are refused unseen.
    forged_signatures_burst: u32 = 16, 1 => u32::MAX;
    /// Such signatures by sender and second, beyond the burst.
    forged_signatures_per_second: u32 = 1, 0 => 1_000_000;
    /// Control frames queued on a path whose peer does not read them, and answers that wait to be queued.
    control_queue_frames_max: usize = 1024, 1024 => 1 << 20;
    /// Bytes of such control frames.
    control_queue_bytes_max: usize = 64 * KIB_USIZE, 64 * KIB_USIZE => 1 << 30;
    /// Frames that achieve nothing which a path may bring at once: repeated credit or status, empty data, refused
    /// commands. A packet that was acknowledged or brought data makes up for one.
    no_op_frames_burst: u32 = 1000, 1000 => u32::MAX;
    /// Such frames by path and second, beyond the burst.
    no_op_frames_per_second: u32 = 100, 100 => u32::MAX;
    /// The most that all peers of an endpoint together can make it hold, in bytes: what their credit lets them send, what is
    /// kept to be sent to them, and the windows of QUIC. One network, an IPv4 address or 56 bits of an IPv6 address, takes at
    /// most as much as it leaves. Of the first half, sessions begin with what their own limits say, by default about 6 MiB.
    /// Then new ones begin with 16 streams of each direction and the least windows, about 0.7 MiB. Windows grow as far as
    /// three quarters; in the end sessions are refused. The default has room for about 2,900 idle sessions of many hosts; to
    /// keep `sessions_max` of 10,000 takes about 14 GiB.
    endpoint_memory_max: u64 = 4096 * MIB, 64 * MIB => u64::MAX;
    /// Sessions of one endpoint, as far as `endpoint_memory_max` has room for them.
    sessions_max: usize = 10_000, 1 => usize::MAX;
    /// Sessions that were accepted but not yet taken by the application, by endpoint.
    accept_queue_sessions: usize = 64, 1 => usize::MAX;
    /// Handshakes in progress, by endpoint.
    incoming_max: usize = 1024, 1 => usize::MAX;
    /// Connections that have not authenticated, by endpoint, above which addresses are validated with a Retry.
    incoming_before_retry: usize = 128, 0 => usize::MAX;
    /// The same by network: an IPv4 address, or 56 bits of an IPv6 address.
    incoming_network_before_retry: usize = 16, 0 => usize::MAX;
    /// Connections that have not authenticated, by endpoint. One more takes the place of the first that came from the
    /// network that has most.
    unauthenticated_max: usize = 1024, 1 => usize::MAX;
    /// The same by network. One more takes the place of the first. As many as `handshakes_network_per_second` lets in
    /// within a round trip, or honest clients behind one address would put each other out.
    unauthenticated_network_max: usize = 256, 1 => usize::MAX;
    /// How long a connection may stay unauthenticated.
    auth_timeout: Duration = 5 * SECOND, 100 * MILLISECOND => HOUR;
    /// Handshakes begun each second, by endpoint, and as many at once. More are not answered, and QUIC asks again.
    handshakes_per_second: u32 = 1000, 1 => u32::MAX;
    /// The same by network.
    handshakes_network_per_second: u32 = 200, 1 => u32::MAX;
    /// First frames whose signatures are verified each second, by endpoint, and as many at once. More are refused.
    verifications_per_second: u32 = 1000, 1 => u32::MAX;
    /// The same by network.
    verifications_network_per_second: u32 = 200, 1 => u32::MAX;
    /// Spent tickets remembered until they expire, by endpoint.
    tickets_remembered_max: usize = 16 * 1024, 1 => usize::MAX;
    /// QUIC connection-level receive window of a path before it follows what comes.
    quic_receive_window_bytes: u32 = 2 * MIB_U32, 64 * 1024 => u32::MAX;
    /// QUIC stream-level receive window. In more of a stream, more gaps than QUIC bears with could be lost.
    quic_stream_receive_window_bytes: u32 = 2 * MIB_U32, 64 * 1024 => 2 * MIB_U32;
    /// Silence after which a path that owes an answer is suspect.
    suspect_after: Duration = 500 * MILLISECOND, 50 * MILLISECOND => HOUR;
    /// Silence after which a secondary's path that owes an answer is dead. At least twice `suspect_after`.
    dead_after: Duration = 3 * SECOND, 100 * MILLISECOND => HOUR;
    /// How often an idle path is probed. At most half the `idle_timeout`.
    keep_alive: Duration = 2 * SECOND, 100 * MILLISECOND => KEEP_ALIVE_MAX;
    /// QUIC's idle timeout, and how long a silent primary is waited for. At least `dead_after`.
    idle_timeout: Duration = 30 * SECOND, 200 * MILLISECOND => DAY;
    /// How long a secondary serves a client that its primary does not want served any more. A primary renews the lease
    /// of a path at half this time; it is to be longer than a client may be out of reach of its primary.
    path_lease: Duration = HOUR, 100 * MILLISECOND => 365 * DAY;
    /// How long a close waits for what was finished. Zero closes at once.
    drain_timeout: Duration = 10 * SECOND, Duration::ZERO => DAY;
    /// How long a peer may leave its control plane unread, or read less than [`CONTROL_PROGRESS_BYTES`] of it.
    control_stall_timeout: Duration = 10 * SECOND, SECOND => DAY;
}

/// A limit that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{limit} {rule}")]
pub struct LimitError {
    /// The name of the limit.
    pub limit: &'static str,
    /// What it must be.
    pub rule: String,
}

impl Limits {
    /// These limits for a session that is to cost as little as may be: the fewest streams with the least windows.
    pub(crate) fn least(&self) -> Self {
        Self {
            streams_bidi_max: FLOOR_STREAMS,
            streams_uni_max: FLOOR_STREAMS,
            stream_window_initial_bytes: FLOOR_STREAM_BYTES,
            ..self.clone()
        }
    }

    /// Of honest writers, ranges are as long as that on average, with the gaps between them.
    const SPAN_BYTES_LEAST: u64 = 32 * 1024;

    /// The most that a stream's window can be, in bytes.
    pub(crate) fn stream_window_bytes_max(&self) -> u64 {
        let grown = self.bandwidth_delay_bytes_max.saturating_mul(4).max(self.stream_window_bytes);
        grown.min(self.reassembly_budget_bytes / 2).max(self.stream_window_initial_bytes)
    }

    /// The most that a path's window to receive and its window to send can be, each, in bytes.
    pub(crate) fn path_window_bytes_max(&self) -> u64 {
        self.bandwidth_delay_bytes_max.saturating_mul(2)
    }

    /// Checks the limits against the protocol and each other. With limits that pass, an endpoint works.
    ///
    /// # Errors
    /// Says which limit to change.
    pub fn check(&self) -> Result<(), LimitError> {
        self.check_bounds()?;
        let streams = u128::from(self.streams_bidi_max) + u128::from(self.streams_uni_max);
        let initial_windows = streams * u128::from(self.stream_window_initial_bytes);
        let rules = [
            (
                self.stream_window_bytes >= self.stream_window_initial_bytes,
                ("stream_window_bytes", "must be at least stream_window_initial_bytes"),
            ),
            (
                u128::from(self.reassembly_budget_bytes) >= 2 * initial_windows,
                (
                    "reassembly_budget_bytes",
                    "must be at least twice (streams_bidi_max + streams_uni_max) × stream_window_initial_bytes",
                ),
            ),
            (
                self.reassembly_spans_stream as u64 >= self.stream_window_bytes_max() / Self::SPAN_BYTES_LEAST,
                ("reassembly_spans_stream", "must be at least one for each 32 KiB of the largest stream window"),
            ),
            (
                self.reassembly_spans_session / 2 >= self.reassembly_spans_stream,
                ("reassembly_spans_session", "must be at least twice reassembly_spans_stream"),
            ),
            (
                self.dead_after >= self.suspect_after.saturating_mul(2),
                ("dead_after", "must be at least twice suspect_after"),
            ),
            (self.answer_timeout >= self.dial_timeout, ("answer_timeout", "must be at least dial_timeout")),
            (self.idle_timeout >= self.dead_after, ("idle_timeout", "must be at least dead_after")),
            (self.keep_alive <= self.idle_timeout / 2, ("keep_alive", "must be at most half the idle_timeout")),
        ];
        rules.iter().try_for_each(
            |(holds, (limit, rule))| {
                if *holds { Ok(()) } else { Err(LimitError { limit, rule: (*rule).to_owned() }) }
            },
        )
    }
}

/// Says what `value` must be unless it is within its bounds.
pub(crate) fn within<T: PartialOrd + Debug>(
    limit: &'static str,
    value: T,
    bounds: RangeInclusive<T>,
) -> Result<(), LimitError> {
    if bounds.contains(&value) {
        return Ok(());
    }
    let (least, most) = bounds.into_inner();
    Err(LimitError { limit, rule: format!("is {value:?} and must be {least:?} to {most:?}") })
}

/// One of the [`Limits`], to be changed, with its bounds.
#[cfg(any(test, feature = "__test_exports"))]
#[doc(hidden)]
#[derive(Debug)]
pub enum LimitMut<'a> {
    /// A count or a number of bytes.
    Usize(&'a mut usize, RangeInclusive<usize>),
    /// As well.
    U32(&'a mut u32, RangeInclusive<u32>),
    /// As well.
    U64(&'a mut u64, RangeInclusive<u64>),
    /// A time.
    Duration(&'a mut Duration, RangeInclusive<Duration>),
}

/// What a limit may be set to in a test.
#[cfg(any(test, feature = "__test_exports"))]
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extreme {
    /// 0.
    Zero,
    /// 1, or a nanosecond.
    One,
    /// 10, or 10 milliseconds.
    Small,
    /// The least it may be.
    Least,
    /// The most it may be.
    Most,
    /// About a million millions, or as many seconds.
    Huge,
    /// The most its type can be.
    Max,
}

#[cfg(any(test, feature = "__test_exports"))]
mod limit_mut {
    use super::{Duration, Extreme, LimitMut, RangeInclusive};

    impl Extreme {
        /// All there are.
        pub const ALL: [Self; 7] = [Self::Zero, Self::One, Self::Small, Self::Least, Self::Most, Self::Huge, Self::Max];
    }

    macro_rules! limit_types {
        ($($variant:ident($type:ty): $zero:expr, $one:expr, $small:expr, $huge:expr;)*) => {
            $(
                impl<'a> From<(&'a mut $type, RangeInclusive<$type>)> for LimitMut<'a> {
                    fn from((limit, bounds): (&'a mut $type, RangeInclusive<$type>)) -> Self {
                        Self::$variant(limit, bounds)
                    }
                }
            )*

            impl LimitMut<'_> {
                /// Sets the limit.
                pub fn set(self, extreme: Extreme) {
                    match self {
                        $(Self::$variant(limit, bounds) => *limit = match extreme {
                            Extreme::Zero => $zero,
                            Extreme::One => $one,
                            Extreme::Small => $small,
                            Extreme::Least => *bounds.start(),
                            Extreme::Most => *bounds.end(),
                            Extreme::Huge => $huge,
                            Extreme::Max => <$type>::MAX,
                        },)*
                    }
                }
            }
        };
    }

    limit_types! {
        Usize(usize): 0, 1, 10, 1 << 40;
        U32(u32): 0, 1, 10, 1 << 30;
        U64(u64): 0, 1, 10, 1 << 40;
        Duration(Duration):
            Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(10), Duration::from_secs(1 << 40);
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
            (Limits { stream_window_initial_bytes: 1 << 22, ..usual() }, "stream_window_bytes"),
            (
                Limits { bandwidth_delay_bytes_max: 64 << 20, reassembly_budget_bytes: 1 << 29, ..usual() },
                "reassembly_spans_stream",
            ),
            (Limits { reassembly_spans_stream: 8193, ..usual() }, "reassembly_spans_session"),
            (Limits { answer_timeout: usual().dial_timeout / 2, ..usual() }, "answer_timeout"),
            (Limits { suspect_after: usual().dead_after, ..usual() }, "dead_after"),
            (Limits { dead_after: usual().idle_timeout * 2, ..usual() }, "idle_timeout"),
            (Limits { keep_alive: usual().idle_timeout, ..usual() }, "keep_alive"),
        ] {
            assert_eq!(limits.check().map_err(|error| error.limit), Err(name), "{:?}", limits.check());
        }
    }

    #[test]
    fn limits_beyond_their_bounds_are_named() {
        let count = Limits::default().fields_mut().len();
        let mut refused = Vec::new();
        for (index, extreme) in (0..count).flat_map(|index| Extreme::ALL.map(|extreme| (index, extreme))) {
            let mut limits = Limits::default();
            let (name, field) = limits.fields_mut().swap_remove(index);
            field.set(extreme);
            if let Err(error) = limits.check_bounds() {
                assert_eq!(error.limit, name, "{error}");
                assert!(![Extreme::Least, Extreme::Most].contains(&extreme), "{error}");
                refused.push(name);
            }
        }
        refused.dedup();
        // Addresses may be validated always, or never.
        let free = ["incoming_before_retry", "incoming_network_before_retry"];
        assert_eq!(refused.len(), count - free.len(), "{refused:?}");
        assert!(free.iter().all(|name| !refused.contains(name)));
    }

    // [P-10.2]
    #[test]
    fn what_peers_count_on_cannot_be_less_and_what_they_bear_cannot_be_more() {
        type Change = fn(&mut Limits);
        let refuses = |change: Change| {
            let mut limits = Limits::default();
            change(&mut limits);
            limits.check().map_err(|error| error.limit)
        };
        let less: [(&str, Change); 7] = [
            ("reassembly_spans_stream", |limits| limits.reassembly_spans_stream = 1_023),
            ("reassembly_spans_session", |limits| limits.reassembly_spans_session = 8_191),
            ("grant_spans_session", |limits| limits.grant_spans_session = 16_383),
            ("control_queue_frames_max", |limits| limits.control_queue_frames_max = 1_023),
            ("control_queue_bytes_max", |limits| limits.control_queue_bytes_max = 65_535),
            ("no_op_frames_burst", |limits| limits.no_op_frames_burst = 999),
            ("no_op_frames_per_second", |limits| limits.no_op_frames_per_second = 99),
        ];
        let more: [(&str, Change); 4] = [
            ("grants_session_max", |limits| limits.grants_session_max = 1_025),
            ("grants_path_max", |limits| limits.grants_path_max = 257),
            ("raw_packets_max", |limits| limits.raw_packets_max = 65),
            ("raw_queue_bytes_max", |limits| limits.raw_queue_bytes_max = 262_145),
        ];
        for (name, change) in less.into_iter().chain(more) {
            assert_eq!(refuses(change), Err(name));
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
        assert_eq!((GRANTS_SESSION_MAX, GRANTS_PATH_MAX), (1_024, 256));
    }
}
