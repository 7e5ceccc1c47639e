//! Identifiers and positions. Every number that names something has a type of its own.

use std::fmt;

/// The side of a session: the client dialled, the server was dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The end that dialled.
    Client,
    /// The end that was dialled.
    Server,
}

impl Side {
    /// The other side.
    #[must_use]
    pub fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Whether a stream carries bytes one way or both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dir {
    /// Bytes flow both ways.
    Bi,
    /// Bytes flow from the side that opened the stream to the other.
    Uni,
}

impl Dir {
    /// Both directions, in wire order.
    pub const ALL: [Self; 2] = [Self::Bi, Self::Uni];
}

/// A 128-bit session identifier, drawn by the primary (PROTOCOL.md §3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// One QUIC connection of a session. Never reused within the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u32);

impl PathId {
    /// The path to the server that was dialled.
    pub const PRIMARY: Self = Self(0);

    /// Whether this is the path to the primary.
    #[must_use]
    pub fn is_primary(self) -> bool {
        self == Self::PRIMARY
    }
}

/// Two writers of a stream wrote different bytes at one offset (PROTOCOL.md §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeConflict {
    /// The first byte that differs.
    pub offset: StreamOffset,
    /// The path that wrote it first, and the one that wrote it otherwise. Twice the latter, if several wrote there first, a
    /// few bytes each.
    pub paths: [PathId; 2],
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path {}", self.0)
    }
}

/// A logical stream. As in QUIC, bit 0 names the initiator and bit 1 the direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The `index`-th stream of its kind. `index` must be below 2^60.
    #[must_use]
    pub fn new(initiator: Side, dir: Dir, index: u64) -> Self {
        let initiator = match initiator {
            Side::Client => 0,
            Side::Server => 1,
        };
        let dir = match dir {
            Dir::Bi => 0,
            Dir::Uni => 2,
        };
        Self(index << 2 | dir | initiator)
    }

    /// The side that opened the stream. The primary opens a session's server-side streams.
    #[must_use]
    pub fn initiator(self) -> Side {
        if self.0 & 1 == 0 { Side::Client } else { Side::Server }
    }

    /// Whether the stream is bidirectional.
    #[must_use]
    pub fn dir(self) -> Dir {
        if self.0 & 2 == 0 { Dir::Bi } else { Dir::Uni }
    }

    /// How many streams of the same kind were opened before this one.
    #[must_use]
    pub fn index(self) -> u64 {
        self.0 >> 2
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}", self.0)
    }
}

/// A position in a logical stream, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamOffset(pub u64);

impl StreamOffset {
    /// The start of every stream.
    pub const ZERO: Self = Self(0);

    /// The position `len` bytes further on, if the wire can express it.
    #[must_use]
    pub fn checked_add(self, len: u64) -> Option<Self> {
        self.0.checked_add(len).filter(|end| *end <= crate::limits::VARINT_MAX).map(Self)
    }
}

impl fmt::Display for StreamOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}", self.0)
    }
}

/// A permission for one path to write one range of one stream. Drawn by the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(pub u64);

/// The primary's counter of path and grant commands; later commands carry larger epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// The number of a packet, counted by path and direction from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct PacketNumber(pub(crate) u64);

/// A local name of a session at one endpoint. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionHandle(pub(crate) u64);

impl SessionHandle {
    /// How many sessions the endpoint had before this one.
    #[must_use]
    pub fn index(self) -> u64 {
        self.0
    }
}

/// A local name of an open stream in one session. Never reused. A secondary may hold several handles of one
/// [`StreamId`], one for each grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamHandle {
    /// How many streams the session had before this one.
    pub(crate) number: u64,
    /// Where the stream is kept. Another stream may come there later.
    pub(crate) place: u32,
}

impl StreamHandle {
    /// No handle comes before it.
    pub(crate) const FIRST: Self = Self { number: 0, place: 0 };
}
