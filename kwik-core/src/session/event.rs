//! What a session tells its application, and what it answers when asked about itself.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::auth::PublicIdentity;
use crate::error::{DeadReason, ErrorCode, SessionError};
use crate::id::{GrantId, PathId, RangeConflict, StreamId};
use crate::limits;
use crate::protocol_event::BlockedBy;
use crate::status::PathState;
use crate::stream::{ReserveError, StreamEvent};

/// Something the application may want to react to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// A client authenticated here: a new session, as primary or as secondary. The first event of a server's session.
    Incoming,
    /// Client: streams flow. The handshake with the primary is done and, if its identity was pinned, that is proven.
    Connected,
    /// Client: the primary's WELCOME was verified, and the session id is known.
    Welcomed,
    /// Something happened to streams.
    Stream(StreamEvent),
    /// Primary: something happened to a path.
    Path(PathEvent),
    /// Server: [`SessionMut::recv_raw`](super::SessionMut::recv_raw) has a packet.
    RawReadable,
    /// Server: a raw packet was taken by the far server's session, or refused.
    RawStatus {
        /// The path it went to.
        to: PathId,
        /// What [`SessionMut::send_raw`](super::SessionMut::send_raw) returned.
        sequence: u64,
        /// The receipt.
        result: Result<(), ErrorCode>,
    },
    /// Primary: a delegation progressed or ended; ask
    /// [`Session::delegation`](super::Session::delegation).
    Delegation(GrantId),
    /// Primary: after [`DelegateError::TooMany`] for this path, one more delegation to it may be made. Once for each time
    /// that there was no room.
    DelegationRoom(PathId),
    /// The session ended; its last event. What streams had buffered stays readable until the session is released.
    Closed(SessionError),
}

/// What happened to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathEvent {
    /// It is active.
    Joined(PathId),
    /// Its server owes the client an answer.
    Suspect(PathId),
    /// Its server answered after all.
    Recovered(PathId),
    /// It is gone.
    Dead {
        /// The path.
        path: PathId,
        /// Why.
        reason: DeadReason,
    },
    /// Two servers wrote different bytes of one stream, which the client has ended. One of them is wrong; both go on.
    Conflict {
        /// The stream.
        stream: StreamId,
        /// Where, and which paths.
        conflict: RangeConflict,
    },
}

impl PathEvent {
    /// The path it is about; of a conflict, the later one.
    #[must_use]
    pub fn path(&self) -> PathId {
        match self {
            Self::Joined(path) | Self::Suspect(path) | Self::Recovered(path) | Self::Dead { path, .. } => *path,
            Self::Conflict { conflict, .. } => conflict.paths[1],
        }
    }
}

/// The part one end plays in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It dialled.
    Client,
    /// It was dialled by the application.
    Primary,
    /// It was added by the primary.
    Secondary,
}

/// A server to add to the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTarget {
    /// Where the client reaches it.
    pub address: SocketAddr,
    /// The name its certificate is checked against.
    pub server_name: String,
    /// The identity it must prove.
    pub identity: PublicIdentity,
}

/// What a server knows of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The path.
    pub id: PathId,
    /// The server's address, as the client reaches it. For path 0 seen from the primary: the client's address.
    pub address: SocketAddr,
    /// The identity of its server.
    pub identity: PublicIdentity,
    /// Where it stands, as last reported.
    pub state: PathState,
    /// Round trip between client and server, as last reported.
    pub rtt: Duration,
    /// The least of their round trips. What `rtt` is more than that, datagrams wait in queues.
    pub rtt_min: Duration,
    /// Payload the client received lately, in bytes a second; it decays while nothing comes.
    pub rate_bytes_per_second: u64,
    /// Payload the client received in all, in bytes; over this server's own path, what it acknowledged.
    pub bytes: u64,
    /// Of this server's own path: bytes handed to QUIC that the client did not acknowledge yet. 0 of others.
    pub bytes_outstanding: u64,
}

/// One path as measured at this end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStats {
    /// The path.
    pub id: PathId,
    /// The address of the far end.
    pub address: SocketAddr,
    /// Where the path stands.
    pub state: PathState,
    /// Payload received of streams while they were wanted, in bytes.
    pub bytes_received: u64,
    /// Packet bytes handed to QUIC.
    pub bytes_sent: u64,
    /// Of those, the ones the peer acknowledged.
    pub bytes_acknowledged: u64,
    /// Packets received whole.
    pub packets_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Carriers open in both directions.
    pub carriers: usize,
    /// Round trip.
    pub rtt: Duration,
    /// The least round trip.
    pub rtt_min: Duration,
    /// Payload received lately, in bytes a second, as of the session's last turn. It decays while nothing comes.
    pub rate_bytes_per_second: u64,
    /// QUIC packets sent, acknowledgements included.
    pub quic_packets_sent: u64,
    /// Of those, the ones that were lost.
    pub quic_packets_lost: u64,
    /// What may be in flight, in bytes.
    pub congestion_window: u64,
    /// Sent and neither acknowledged nor lost, in bytes.
    pub bytes_in_flight: u64,
    /// Why this end sends no more.
    pub blocked_by: BlockedBy,
    /// The UDP payload QUIC uses, in bytes.
    pub mtu: u16,
}

/// A session as measured at this end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStats {
    /// Every path, the dead ones too, by id.
    pub paths: Vec<PathStats>,
    /// Streams that are not done at this end.
    pub streams_open: usize,
    /// Bytes buffered for and by the application, as allocated.
    pub bytes_buffered: usize,
}

/// Opaque bytes from another server of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawPacket {
    /// The path of the server that sent them.
    pub from: PathId,
    /// The bytes.
    pub data: Bytes,
}

/// A delegated range, at the primary that gave it and at the secondary that got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantInfo {
    /// The grant.
    pub grant: GrantId,
    /// The stream offsets that are the secondary's to write.
    pub range: Range<u64>,
}

/// Why a delegation was not made. Nothing was reserved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DelegateError {
    /// This end is not the primary.
    #[error("only the primary delegates; this end is not the primary of the session")]
    NotPrimary,
    /// No such path.
    #[error("{0} was never added to the session; delegate to a path of `active_paths`")]
    PathUnknown(PathId),
    /// The path is gone, or is the primary's own.
    #[error("{0} is dead; delegate to a path of `active_paths`, or write the bytes here")]
    PathDead(PathId),
    /// The primary delegated to itself.
    #[error("path 0 is the primary itself; write the bytes instead")]
    OwnPath,
    /// Part of the range was written or delegated before.
    #[error("offsets {start} to {end} were written or delegated before")]
    Overlap {
        /// First offset.
        start: u64,
        /// One past the last offset.
        end: u64,
    },
    /// Part of a range that a second server was to write is nobody's yet.
    #[error("offsets {start} to {end} were not all written or delegated; delegate them first")]
    Uncovered {
        /// First offset.
        start: u64,
        /// One past the last offset.
        end: u64,
    },
    /// The request does not fit a grant.
    #[error("the request has {len} bytes; at most {max} fit in a grant", max = limits::REQUEST_BYTES_MAX)]
    RequestTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// As many unfinished delegations as allowed, or the client does not take the commands it was given so far. A
    /// [`SessionEvent::DelegationRoom`] tells when there is room.
    #[error("too many unfinished delegations in the session or on the path; wait for one to be delivered")]
    TooMany,
    /// The range is empty, or ends beyond the largest offset.
    #[error("the range is empty or ends beyond offset 2^62 - 1")]
    EmptyRange,
    /// The grant is unknown or over.
    #[error("grant {0:?} is unknown or over")]
    GrantUnknown(GrantId),
    /// The stream was finished; only holes below its end may be delegated.
    #[error("the stream is finished; delegate before `finish`, or a hole below its end")]
    Finished,
    /// The client wants no more of the stream.
    #[error("the client stopped the stream with {0}")]
    Stopped(ErrorCode),
    /// The stream has no open sending half.
    #[error("the stream is not open for writing")]
    ClosedStream,
    /// The session is closed.
    #[error("the session is closed")]
    SessionClosed,
}

impl From<ReserveError> for DelegateError {
    fn from(error: ReserveError) -> Self {
        match error {
            ReserveError::NotPrimary => Self::NotPrimary,
            ReserveError::Empty | ReserveError::TooLong => Self::EmptyRange,
            ReserveError::Overlap { start, end } => Self::Overlap { start, end },
            ReserveError::Uncovered { start, end } => Self::Uncovered { start, end },
            ReserveError::Finished => Self::Finished,
            ReserveError::Stopped(code) => Self::Stopped(code),
            ReserveError::ClosedStream => Self::ClosedStream,
            ReserveError::SessionClosed => Self::SessionClosed,
        }
    }
}

/// Why a path was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddPathError {
    /// This end is not the primary.
    #[error("only the primary adds paths; this end is not the primary of the session")]
    NotPrimary,
    /// The session has as many paths as it may.
    #[error("the session has {limit} paths, the most it may; remove one first")]
    LimitReached {
        /// The limit.
        limit: usize,
    },
    /// The name cannot be one of a server.
    #[error("{0:?} is no server name: 1 to 255 visible ASCII characters")]
    InvalidServerName(String),
    /// The address names no host that could be dialled.
    #[error("{0} is no address to dial")]
    InvalidAddress(SocketAddr),
    /// The session is closed.
    #[error("the session is closed")]
    SessionClosed,
}

/// Why a path command failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// This end is not the primary.
    #[error("only the primary removes paths; this end is not the primary of the session")]
    NotPrimary,
    /// No such path.
    #[error("{0} was never added to the session")]
    Unknown(PathId),
    /// Path 0 is the session itself.
    #[error("path 0 is the primary's own; close the session instead")]
    Primary,
}

/// Why a raw packet was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RawError {
    /// The packet is too long.
    #[error("the raw packet has {len} bytes; at most {max} are carried", max = limits::RAW_BYTES_MAX)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// As many packets for the path are on their way as allowed; a
    /// [`SessionEvent::RawStatus`] for it tells of room.
    #[error("raw packets to this path wait for their receipts; try again after one came")]
    Blocked,
    /// No such path, or it is dead.
    #[error("{0} does not exist or is dead")]
    PathUnknown(PathId),
    /// The path is this server's own.
    #[error("{0} is this server's own path")]
    OwnPath(PathId),
    /// Clients send none.
    #[error("only servers send raw packets")]
    NotServer,
    /// The session is closed.
    #[error("the session is closed")]
    SessionClosed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        let error = RawError::TooLong { len: 99_999 };
        assert!(error.to_string().contains(&limits::RAW_BYTES_MAX.to_string()));
        let error = DelegateError::RequestTooLong { len: 99_999 };
        assert!(error.to_string().contains("99999"));
    }
}
