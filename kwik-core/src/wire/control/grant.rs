//! Grants, and raw packets between servers: what the primary signs and the client carries.

use bytes::{Bytes, BytesMut};

use crate::{
    error::ErrorCode,
    id::{Epoch, GrantId, PathId, StreamId, StreamOffset},
    limits::{MISSING_RANGES_MAX, RAW_BYTES_MAX, REQUEST_BYTES_MAX},
    status::GrantStatus,
    wire::{
        WireError,
        coding::{Decoder, Field, bytes_len, fields_in_order, put_bytes, put_ranges, put_varint, varint_len},
    },
};

const SIGNED_PAYLOAD_BYTES_MAX: usize =
    if REQUEST_BYTES_MAX > RAW_BYTES_MAX { REQUEST_BYTES_MAX } else { RAW_BYTES_MAX };

/// Primary → client: `path` may write `len` bytes of a stream from `start` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) grant: GrantId,
    pub(crate) epoch: Epoch,
    pub(crate) path: PathId,
    pub(crate) stream: StreamId,
    pub(crate) start: StreamOffset,
    /// At least 1; the range ends at 2^62 - 1 at most.
    pub(crate) len: u64,
    /// The request, for the secondary.
    pub(crate) signed: SignedPayload,
}

impl Field for Grant {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let grant = from.field()?;
        let epoch = from.field()?;
        let path = from.field()?;
        let stream = from.field()?;
        let (start, len) = take_range(from)?;
        Ok(Self { grant, epoch, path, stream, start, len, signed: from.field()? })
    }

    fn put(&self, out: &mut BytesMut) {
        self.grant.put(out);
        self.epoch.put(out);
        self.path.put(out);
        self.stream.put(out);
        put_range(out, self.start, self.len);
        self.signed.put(out);
    }
}

/// Reads a granted range: its start, and its length of at least 1.
pub(in crate::wire) fn take_range(from: &mut Decoder<'_>) -> Result<(StreamOffset, u64), WireError> {
    let start: StreamOffset = from.field()?;
    let len = from.varint()?;
    if len == 0 {
        return Err(from.violation("the range is empty"));
    }
    if start.checked_add(len).is_none() {
        return Err(from.violation("the range ends above 2^62 - 1"));
    }
    Ok((start, len))
}

/// Appends a granted range.
pub(in crate::wire) fn put_range(out: &mut BytesMut, start: StreamOffset, len: u64) {
    debug_assert!(len > 0 && start.checked_add(len).is_some(), "{len} bytes at {start}");
    start.put(out);
    len.put(out);
}

/// Primary → client: the grant is void.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revoke {
    pub(crate) grant: GrantId,
    pub(crate) epoch: Epoch,
}

/// Client → primary: how a grant fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrantStatusFrame {
    pub(crate) grant: GrantId,
    pub(crate) status: GrantStatus,
}

impl Field for GrantStatus {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        match from.varint()? {
            1 => Ok(Self::Progress { delivered: from.field()? }),
            2 => Ok(Self::Delivered),
            3 => {
                let code = from.field()?;
                Ok(Self::Lost { code, missing: from.ranges(MISSING_RANGES_MAX)? })
            }
            _ => Err(from.violation("no such grant status")),
        }
    }

    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Progress { delivered } => {
                put_varint(out, 1);
                delivered.put(out);
            }
            Self::Delivered => put_varint(out, 2),
            Self::Lost { code, missing } => {
                debug_assert!((1..=MISSING_RANGES_MAX).contains(&missing.len()));
                put_varint(out, 3);
                code.put(out);
                put_ranges(out, missing);
            }
        }
    }
}

/// Secondary → client: its part of a stream ended at `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrantEnd {
    pub(crate) grant: GrantId,
    pub(crate) end: StreamOffset,
    pub(crate) code: ErrorCode,
}

/// Server → client: a raw packet for the server of another path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) to: PathId,
    pub(crate) signed: SignedPayload,
}

/// Client → server: what became of a raw packet it sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawStatus {
    pub(crate) from: PathId,
    pub(crate) to: PathId,
    /// The sequence number of its signature.
    pub(crate) sequence: u64,
    /// `NO_ERROR` if it was delivered.
    pub(crate) code: ErrorCode,
}

/// Bytes from one server to another, signed so that the client that carries them can neither change, repeat nor
/// reorder them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedPayload {
    pub(crate) sequence: u64,
    /// A request of at most [`REQUEST_BYTES_MAX`], or a raw packet of at most [`RAW_BYTES_MAX`].
    pub(crate) payload: Bytes,
    pub(crate) signature: [u8; 64],
}

impl SignedPayload {
    /// The size on the wire, in bytes.
    pub(in crate::wire) fn encoded_len(&self) -> usize {
        varint_len(self.sequence) + bytes_len(&self.payload) + self.signature.len()
    }
}

impl Field for SignedPayload {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Self { sequence: from.field()?, payload: from.bytes(SIGNED_PAYLOAD_BYTES_MAX)?, signature: from.field()? })
    }

    fn put(&self, out: &mut BytesMut) {
        debug_assert!(self.payload.len() <= SIGNED_PAYLOAD_BYTES_MAX);
        self.sequence.put(out);
        put_bytes(out, &self.payload);
        self.signature.put(out);
    }
}

fields_in_order! {
    Revoke { grant, epoch }
    GrantStatusFrame { grant, status }
    GrantEnd { grant, end, code }
    Raw { to, signed }
    RawStatus { from, to, sequence, code }
}
