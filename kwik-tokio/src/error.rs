//! What the operations of this crate can fail with, one small enum each.

use std::{io, net::SocketAddr, ops::Range, time::Duration};

use kwik_core::{
    ConfigError, ConnectError, DeadReason, DelegateError, DistributionReport, ErrorCode, PathError, PathId,
    SessionError, StreamId, limits::RAW_BYTES_MAX,
};

use crate::session::SessionRef;

/// Why [`dial`](crate::dial()) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The server was not given as `host:port`.
    #[error("`{0}` does not name a server: write `host:port`, such as `example.com:4433`")]
    InvalidServer(String),
    /// The name could not be resolved.
    #[error("the name of `{server}` could not be resolved: {source}; check the name and the network's DNS")]
    Resolve {
        /// The server as it was given.
        server: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name resolved to nothing.
    #[error("`{0}` resolves to no address; check the name")]
    NoAddress(String),
    /// No socket could be opened, or the system gave no randomness.
    #[error("the system refused what a dial needs: {0}")]
    System(#[from] io::Error),
    /// The configuration cannot be used.
    #[error("the client configuration cannot be used: {0}")]
    Config(#[from] ConfigError),
    /// The endpoint was closed, or its runtime shut down.
    #[error("the endpoint was closed; make another one")]
    EndpointClosed,
    /// The dial could not start.
    #[error("the dial of {address} could not start: {source}")]
    Connect {
        /// The address tried.
        address: SocketAddr,
        /// Why it could not start.
        source: ConnectError,
    },
    /// Nothing reaches the address, as the system or the network says.
    #[error("{address} cannot be reached: {reason}; check the address, and that a server runs there")]
    Unreachable {
        /// The address tried.
        address: SocketAddr,
        /// What was said.
        reason: String,
    },
    /// The handshake failed.
    #[error("the handshake with {address} failed: {source}")]
    Handshake {
        /// The address tried.
        address: SocketAddr,
        /// How it ended.
        source: SessionError,
    },
    /// Nobody answered in time.
    #[error(
        "{address} did not complete a handshake within {after:?}; check that a server listens there and that UDP passes"
    )]
    NoAnswer {
        /// The address tried.
        address: SocketAddr,
        /// How long was waited.
        after: Duration,
    },
}

impl From<BindError> for DialError {
    fn from(error: BindError) -> Self {
        match error {
            BindError::Config(error) => Self::Config(error),
            BindError::System(error) | BindError::Bind { source: error, .. } => Self::System(error),
            BindError::AddressInUse { .. } => Self::System(io::ErrorKind::AddrInUse.into()),
            BindError::EndpointClosed => Self::EndpointClosed,
        }
    }
}

/// Why an [`Endpoint`](crate::Endpoint) could not be made, or bound anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another socket has the port.
    #[error("{address} is in use by another socket; stop that program or choose another port")]
    AddressInUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The system refused the address.
    #[error("{address} could not be bound: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused a socket or gave no randomness, or there is no tokio runtime.
    #[error("the system refused what an endpoint needs: {0}")]
    System(#[from] io::Error),
    /// The configuration cannot work.
    #[error("the endpoint configuration cannot be used: {0}")]
    Config(#[from] ConfigError),
    /// The endpoint was closed, or its runtime shut down.
    #[error("the endpoint was closed; make another one")]
    EndpointClosed,
}

/// Why a [`Distribution`](crate::Distribution) cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistributeError {
    /// The client wants no more of the stream.
    #[error("the client stopped the stream with {0}")]
    Stopped(ErrorCode),
    /// The stream was reset here or dropped.
    #[error("the stream is not open for writing")]
    ClosedStream,
    /// The session ended.
    #[error("the session ended: {0}")]
    Session(SessionError),
    /// A range could not be left to a server: it overlaps what was written otherwise, or its request is too long.
    #[error("a range could not be delegated: {0}")]
    Refused(DelegateError),
    /// There is nobody any more who could write what is left: every path is dead or was removed, and the primary writes
    /// nothing or failed to read.
    #[error("no source is left for the rest of the stream; add another path")]
    NoSource {
        /// Why the primary does not write any more, if it did.
        #[source]
        cause: Option<io::Error>,
        /// What the sources did until then.
        report: DistributionReport,
    },
}

/// Why [`listen`](crate::listen()) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// There is no socket to listen on.
    #[error(transparent)]
    Bind(BindError),
    /// The address could not be resolved.
    #[error("the address to listen on could not be resolved: {0}")]
    Resolve(#[from] io::Error),
    /// The address resolved to nothing.
    #[error("the address to listen on resolves to nothing; give an IP address and a port")]
    NoAddress,
    /// The configuration cannot be used.
    #[error("the server configuration cannot be used: {0}")]
    Config(#[from] ConfigError),
    /// The endpoint has a listener.
    #[error("the endpoint has a listener; drop it first, or give it the new configuration")]
    AlreadyListening,
    /// The endpoint was closed, or its runtime shut down.
    #[error("the endpoint was closed; make another one")]
    EndpointClosed,
}

impl From<BindError> for ListenError {
    fn from(error: BindError) -> Self {
        match error {
            // A server brings the limits of its endpoint.
            BindError::Config(error) => Self::Config(error),
            error => Self::Bind(error),
        }
    }
}

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The writer gave the stream up.
    #[error("the peer reset the stream with {0}; its remaining bytes will not come")]
    Reset(ErrorCode),
    /// The stream was stopped here.
    #[error("the stream was stopped by this side and cannot be read")]
    Stopped,
    /// The stream was read to its end.
    #[error("the stream was read to its end; nothing of it is left to stop")]
    Finished,
    /// An ordered read after an unordered one.
    #[error("an ordered read followed an unordered one; keep to unordered reads on this stream")]
    IllegalOrderedRead,
    /// The session ended.
    #[error("the session ended before the stream did: {0}")]
    Session(SessionError),
}

/// Why [`read_exact`](crate::RecvStream::read_exact) failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadExactError {
    /// The stream ended before the buffer was full.
    #[error("the stream ended after {read} of the {wanted} bytes asked for")]
    FinishedEarly {
        /// Bytes read.
        read: usize,
        /// Bytes asked for.
        wanted: usize,
    },
    /// The read failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why [`read_to_end`](crate::RecvStream::read_to_end) failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadToEndError {
    /// The stream is longer than the caller allows.
    #[error("the stream is longer than the {limit} bytes allowed; raise the limit or read it in pieces")]
    TooLong {
        /// The limit given.
        limit: usize,
    },
    /// The read failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why bytes could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The reader does not want the stream.
    #[error("the peer stopped the stream with {0}; write no more to it")]
    Stopped(ErrorCode),
    /// The stream was finished here.
    #[error("the stream was finished by this side and takes no more")]
    Finished,
    /// The stream was reset here.
    #[error("the stream was reset by this side")]
    Reset,
    /// The bytes were written or delegated before.
    #[error("bytes {start} to {end} of the stream are written or delegated already; write only into holes")]
    Overlap {
        /// The first byte that is taken.
        start: u64,
        /// The end of the taken bytes.
        end: u64,
    },
    /// The write leaves what the primary granted.
    #[error("the grant covers bytes {start} to {end} of the stream only; `grant()` tells the range")]
    BeyondGrant {
        /// Where the grant begins.
        start: u64,
        /// Where the grant ends.
        end: u64,
    },
    /// The stream would be longer than the protocol can express.
    #[error("a stream holds at most 2^62 - 1 bytes")]
    TooLong,
    /// The session ended.
    #[error("the session ended before the stream did: {0}")]
    Session(SessionError),
}

/// Streams that were finished did not arrive whole at the peer, as far as this end knows, when their session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} finished streams may not have arrived whole when the session ended", streams.len())]
pub struct Undelivered {
    /// The streams.
    pub streams: Vec<StreamId>,
}

/// A delegated range did not arrive whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of the delegated bytes did not arrive ({code}); write or delegate them again", self.missing_bytes())]
pub struct Lost {
    /// Why.
    pub code: ErrorCode,
    /// The ranges of the stream that are missing.
    pub missing: Vec<Range<u64>>,
}

impl Lost {
    /// How many bytes are missing.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        self.missing.iter().map(|range| range.end.saturating_sub(range.start)).sum()
    }
}

/// Why a path did not become active.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddPathError {
    /// This server is not the session's primary.
    #[error("only the primary of a session adds paths; this server is a secondary of it")]
    NotPrimary,
    /// The session has as many paths as it may.
    #[error("the session has its limit of {limit} paths; remove one first")]
    LimitReached {
        /// The limit.
        limit: usize,
    },
    /// The name cannot stand in a certificate.
    #[error("`{0}` is not a server name; give the name in the server's certificate")]
    InvalidServerName(String),
    /// The address names no host that could be dialled.
    #[error("{0} is no address to dial; give one that the client reaches")]
    InvalidAddress(SocketAddr),
    /// The path died before it was active.
    #[error("{path} did not become active: {reason}")]
    Died {
        /// The path.
        path: PathId,
        /// Why it died.
        reason: DeadReason,
    },
    /// The client said nothing of the path for [`Limits::answer_timeout`](kwik_core::Limits). It was told to leave it.
    #[error("the client did not say what became of {path}; close the session if it answers nothing else either")]
    Unanswered {
        /// The path.
        path: PathId,
    },
    /// The session ended.
    #[error("the session ended: {0}")]
    Session(SessionError),
}

/// Why a path was not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemovePathError {
    /// There is no such path to remove.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The client did not say for [`Limits::answer_timeout`](kwik_core::Limits) that it left the path. It counts as dead
    /// here all the same.
    #[error("the client did not say that it left {path}; close the session if it answers nothing else either")]
    Unanswered {
        /// The path.
        path: PathId,
    },
}

/// Why a raw packet was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendRawError {
    /// The packet is too long.
    #[error("the raw packet has {len} bytes, more than the {} one carries; split it", RAW_BYTES_MAX)]
    TooLong {
        /// Bytes of the packet.
        len: usize,
    },
    /// The session has no such path, or it is dead.
    #[error("{0} does not exist or is dead; send raw packets to one of `active_paths`")]
    PathUnknown(PathId),
    /// A server cannot send to itself.
    #[error("{0} is this server's own; send raw packets to other paths")]
    OwnPath(PathId),
    /// The client or the other server refused it.
    #[error("the raw packet was not delivered: {0}")]
    Refused(ErrorCode),
    /// No receipt came for [`Limits::answer_timeout`](kwik_core::Limits); the packet may or may not have been delivered.
    #[error(
        "no receipt for the raw packet came in time; it may or may not have arrived, send it again if twice does no harm"
    )]
    Unanswered,
    /// The session ended; the packet may or may not have been delivered.
    #[error("the session ended before the raw packet was acknowledged: {0}")]
    Session(SessionError),
}

impl ReadError {
    pub(crate) fn from_core(session: &SessionRef, error: kwik_core::ReadError) -> Self {
        use kwik_core::ReadError as Core;
        match error {
            Core::Reset(code) => Self::Reset(code),
            Core::IllegalOrderedRead => Self::IllegalOrderedRead,
            Core::Finished => Self::Finished,
            // A handle holds its half open: what closed it is a stop, or the end of the session.
            Core::ClosedStream => session.closed_now().map_or(Self::Stopped, Self::Session),
            Core::Blocked | Core::SessionClosed => Self::Session(session.end()),
        }
    }
}

impl WriteError {
    pub(crate) fn from_core(session: &SessionRef, error: kwik_core::WriteError) -> Self {
        use kwik_core::WriteError as Core;
        match error {
            Core::Stopped(code) => Self::Stopped(code),
            Core::Finished => Self::Finished,
            Core::Reset => Self::Reset,
            Core::Overlap { start, end } => Self::Overlap { start, end },
            Core::BeyondGrant { start, end } => Self::BeyondGrant { start, end },
            Core::TooLong => Self::TooLong,
            // A handle holds its half open: what closed it is a reset, or the end of the session.
            Core::ClosedStream | Core::WrongDirection => session.closed_now().map_or(Self::Reset, Self::Session),
            Core::Blocked | Core::SessionClosed => Self::Session(session.end()),
        }
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Reset(_) => io::ErrorKind::ConnectionReset,
            ReadError::Stopped | ReadError::Finished | ReadError::IllegalOrderedRead => io::ErrorKind::InvalidInput,
            ReadError::Session(session) => session_kind(session),
        };
        Self::new(kind, error)
    }
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match &error {
            WriteError::Stopped(_) | WriteError::Finished => io::ErrorKind::BrokenPipe,
            WriteError::Reset => io::ErrorKind::ConnectionReset,
            WriteError::Overlap { .. } | WriteError::BeyondGrant { .. } | WriteError::TooLong => {
                io::ErrorKind::InvalidInput
            }
            WriteError::Session(session) => session_kind(session),
        };
        Self::new(kind, error)
    }
}

fn session_kind(error: &SessionError) -> io::ErrorKind {
    match error {
        SessionError::TimedOut => io::ErrorKind::TimedOut,
        SessionError::ClosedByPeer { .. } => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::NotConnected,
    }
}
