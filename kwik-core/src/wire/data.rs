//! The data plane: carriers, packets, and the frames inside them.
//!
//! A carrier is a header, then packets. A packet is its number, its length, and frames that fill it exactly.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    WireError,
    coding::{Decoder, Field, bytes_len, put_bytes, put_varint, varint_len},
    control::{SignedPayload, put_range, take_range},
    frame::DataType,
};
use crate::{
    id::{Epoch, GrantId, PacketNumber, PathId, StreamId, StreamOffset},
    limits::{CONTROL_FRAME_BYTES_MAX, DATA_FRAME_PAYLOAD_MAX, PACKET_BYTES_MAX, TICKET_BYTES_MAX, VARINT_MAX},
};

/// What every carrier begins with.
pub(super) const CARRIER_HEADER: u64 = 0x4b57;

/// What a carrier yields, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CarrierItem {
    /// A packet of `len` bytes begins.
    PacketStart {
        /// Its number.
        number: PacketNumber,
        /// The bytes of its frames.
        len: u64,
    },
    /// A piece of a STREAM frame, as long as the chunk it came in allowed.
    Stream {
        /// The stream it belongs to.
        stream: StreamId,
        /// Where the piece begins.
        offset: StreamOffset,
        /// The piece, a slice of what was received. Empty only if the whole frame is.
        data: Bytes,
        /// Where the whole frame ends.
        frame_end: StreamOffset,
        /// Whether the stream ends with this piece.
        fin: bool,
    },
    /// A whole GRANT frame.
    Grant(GrantOpen),
    /// A whole RAW frame.
    Raw(RawForward),
    /// The packet is complete.
    PacketEnd {
        /// Its number.
        number: PacketNumber,
        /// The bytes of its frames.
        len: u64,
    },
}

impl CarrierItem {
    /// The name in PROTOCOL.md of what it belongs to.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Stream { .. } => "STREAM",
            Self::Grant(_) => "GRANT",
            Self::Raw(_) => "RAW",
            Self::PacketStart { .. } | Self::PacketEnd { .. } => "PACKET",
        }
    }
}

/// Client → secondary: opens a delegated stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrantOpen {
    pub(crate) grant: GrantId,
    pub(crate) epoch: Epoch,
    pub(crate) stream: StreamId,
    pub(crate) start: StreamOffset,
    /// At least 1; the range ends at 2^62 - 1 at most.
    pub(crate) len: u64,
    /// How far the stream may be written now.
    pub(crate) limit: StreamOffset,
    /// The request, from the primary.
    pub(crate) signed: SignedPayload,
}

impl GrantOpen {
    /// Appends the frame: type, length, body.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_frame(out, DataType::Grant, self.body_len(), self);
    }

    fn body_len(&self) -> usize {
        let numbers = [self.grant.0, self.epoch.0, self.stream.0, self.start.0, self.len, self.limit.0];
        numbers.into_iter().map(varint_len).sum::<usize>() + self.signed.encoded_len()
    }
}

impl Field for GrantOpen {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let grant = from.field()?;
        let epoch = from.field()?;
        let stream = from.field()?;
        let (start, len) = take_range(from)?;
        Ok(Self { grant, epoch, stream, start, len, limit: from.field()?, signed: from.field()? })
    }

    fn put(&self, out: &mut BytesMut) {
        self.grant.put(out);
        self.epoch.put(out);
        self.stream.put(out);
        put_range(out, self.start, self.len);
        self.limit.put(out);
        self.signed.put(out);
    }
}

/// Client → server: a raw packet another server signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawForward {
    pub(crate) from: PathId,
    /// What lets the receiver believe the sender's identity, at most [`TICKET_BYTES_MAX`]; it may be empty.
    pub(crate) forwarded_ticket: Bytes,
    pub(crate) signed: SignedPayload,
}

impl RawForward {
    /// Appends the frame: type, length, body.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_frame(out, DataType::Raw, self.body_len(), self);
    }

    fn body_len(&self) -> usize {
        varint_len(u64::from(self.from.0)) + bytes_len(&self.forwarded_ticket) + self.signed.encoded_len()
    }
}

impl Field for RawForward {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Self { from: from.field()?, forwarded_ticket: from.bytes(TICKET_BYTES_MAX)?, signed: from.field()? })
    }

    fn put(&self, out: &mut BytesMut) {
        debug_assert!(self.forwarded_ticket.len() <= TICKET_BYTES_MAX);
        self.from.put(out);
        put_bytes(out, &self.forwarded_ticket);
        self.signed.put(out);
    }
}

/// Appends what a carrier begins with.
pub(crate) fn encode_carrier_header(out: &mut BytesMut) {
    put_varint(out, CARRIER_HEADER);
}

/// Appends the header of a packet whose frames are `len` bytes, 1 to [`PACKET_BYTES_MAX`].
pub(crate) fn encode_packet_header(number: PacketNumber, len: usize, out: &mut impl BufMut) {
    debug_assert!(number.0 < VARINT_MAX && (1..=PACKET_BYTES_MAX).contains(&len), "{number:?} of {len} bytes");
    put_varint(out, number.0);
    put_varint(out, len as u64);
}

/// The bytes [`encode_packet_header`] appends.
pub(crate) fn packet_header_len(number: PacketNumber, len: usize) -> usize {
    varint_len(number.0) + varint_len(len as u64)
}

/// Appends the header of a STREAM frame; `payload_len` bytes, at most [`DATA_FRAME_PAYLOAD_MAX`], are to follow it.
pub(crate) fn encode_stream_header(
    stream: StreamId,
    offset: StreamOffset,
    payload_len: usize,
    fin: bool,
    out: &mut BytesMut,
) {
    debug_assert!(payload_len <= DATA_FRAME_PAYLOAD_MAX && offset.checked_add(payload_len as u64).is_some());
    let frame_type = if fin { DataType::StreamFin } else { DataType::Stream };
    put_varint(out, frame_type.to_wire());
    put_varint(out, stream_body_len(stream, offset, payload_len) as u64);
    put_varint(out, stream.0);
    put_varint(out, offset.0);
}

fn stream_body_len(stream: StreamId, offset: StreamOffset, payload_len: usize) -> usize {
    varint_len(stream.0) + varint_len(offset.0) + payload_len
}

fn frame_header_len(frame_type: DataType, body_len: usize) -> usize {
    varint_len(frame_type.to_wire()) + varint_len(body_len as u64)
}

fn put_frame(out: &mut BytesMut, frame_type: DataType, body_len: usize, body: &impl Field) {
    debug_assert!(body_len <= CONTROL_FRAME_BYTES_MAX, "{} of {body_len} bytes", frame_type.name());
    out.reserve(frame_header_len(frame_type, body_len) + body_len);
    put_varint(out, frame_type.to_wire());
    put_varint(out, body_len as u64);
    body.put(out);
}
