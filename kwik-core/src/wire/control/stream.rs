//! Logical streams: their beginning, their end, and credit for them.

use bytes::BytesMut;

use crate::{
    error::ErrorCode,
    id::{Dir, RangeConflict, StreamId, StreamOffset},
    wire::{
        WireError,
        coding::{Decoder, Field, fields_in_order, put_varint},
        params::CREDIT_MAX,
    },
};

/// Both ways: a stream exists, though nothing was written on it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenStream {
    pub(crate) stream: StreamId,
    pub(crate) priority: i32,
    /// How far the peer may write on it; zero if it is unidirectional.
    pub(crate) limit: StreamOffset,
}

/// Both ways: the sender gave the stream up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResetStream {
    pub(crate) stream: StreamId,
    pub(crate) code: ErrorCode,
    pub(crate) final_size: StreamOffset,
}

/// Both ways: the receiver reads no more of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StopSending {
    pub(crate) stream: StreamId,
    pub(crate) code: ErrorCode,
    /// Which two paths wrote different bytes, if that is why.
    pub(crate) conflict: Option<RangeConflict>,
}

impl Field for StopSending {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (stream, code) = (from.field()?, from.field()?);
        let conflict = match from.varint()? {
            0 => None,
            1 => Some(RangeConflict { offset: from.field()?, paths: [from.field()?, from.field()?] }),
            _ => return Err(from.violation("more than one conflict")),
        };
        Ok(Self { stream, code, conflict })
    }

    fn put(&self, out: &mut BytesMut) {
        self.stream.put(out);
        self.code.put(out);
        put_varint(out, u64::from(self.conflict.is_some()));
        if let Some(conflict) = &self.conflict {
            conflict.offset.put(out);
            conflict.paths.iter().for_each(|path| path.put(out));
        }
    }
}

/// From the receiver, on every path that may write the stream: how far it may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MaxStreamData {
    pub(crate) stream: StreamId,
    pub(crate) limit: StreamOffset,
}

/// Both ways: how many streams the peer may open, over the life of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MaxStreams {
    pub(crate) dir: Dir,
    /// At most 2^60.
    pub(crate) max: u64,
}

impl Field for MaxStreams {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let dir = from.field()?;
        let max = from.varint()?;
        if max > CREDIT_MAX {
            return Err(from.violation("more than 2^60 streams"));
        }
        Ok(Self { dir, max })
    }

    fn put(&self, out: &mut BytesMut) {
        debug_assert!(self.max <= CREDIT_MAX);
        self.dir.put(out);
        self.max.put(out);
    }
}

fields_in_order! {
    OpenStream { stream, priority, limit }
    ResetStream { stream, code, final_size }
    MaxStreamData { stream, limit }
}

impl Field for Dir {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        match from.varint()? {
            0 => Ok(Self::Bi),
            1 => Ok(Self::Uni),
            _ => Err(from.violation("no such direction")),
        }
    }

    fn put(&self, out: &mut BytesMut) {
        let wire = match self {
            Self::Bi => 0,
            Self::Uni => 1,
        };
        put_varint(out, wire);
    }
}

/// Zigzag: small numbers of either sign are short.
impl Field for i32 {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let zigzag = from.varint_u32()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    fn put(&self, out: &mut BytesMut) {
        put_varint(out, u64::from(((self << 1) ^ (self >> 31)).cast_unsigned()));
    }
}
