//! Incremental readers: the same bytes give the same frames, in whatever chunks they arrive.

use bytes::Bytes;

use super::{
    WireError,
    chunk_buffer::{ChunkBuffer, Overrun},
    coding::{Decoder, Field},
    data::{CARRIER_HEADER, CarrierItem},
    frame::{ControlFrame, ControlType, DataType},
};
use crate::{
    id::{PacketNumber, StreamId, StreamOffset},
    limits::{CONTROL_FRAME_BYTES_MAX, DATA_FRAME_PAYLOAD_MAX, PACKET_BYTES_MAX, VARINT_MAX},
};

/// The most that a stream id and an offset occupy in front of a payload, in bytes.
const STREAM_FIELDS_BYTES_MAX: usize = 16;

/// Reads the frames of one control plane.
///
/// Between calls it keeps one unfinished frame at most, besides chunks that were pushed and not asked for.
#[derive(Debug, Default)]
pub(crate) struct ControlReader {
    buffer: ChunkBuffer,
    state: ControlState,
    failed: Option<WireError>,
}

#[derive(Debug, Default, Clone, Copy)]
enum ControlState {
    #[default]
    Type,
    Length {
        frame_type: u64,
    },
    Body {
        frame_type: ControlType,
        len: usize,
    },
    Skip {
        left: u64,
    },
}

impl ControlReader {
    /// Takes the next chunk. After an error it is dropped.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if self.failed.is_none() {
            self.buffer.push(chunk);
        }
    }

    /// The next frame, or `None` until more is pushed. Unknown frames are passed over.
    ///
    /// # Errors
    ///
    /// The bytes break the protocol; every later call returns the same error.
    pub(crate) fn next(&mut self) -> Result<Option<ControlFrame>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.advance().inspect_err(|error| {
            self.failed = Some(*error);
            // Nothing more is read, so nothing is kept.
            self.buffer = ChunkBuffer::default();
        })
    }

    /// Whether the bytes so far end where a frame ends, and each of those frames was returned.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && matches!(self.state, ControlState::Type)
    }

    fn advance(&mut self) -> Result<Option<ControlFrame>, WireError> {
        loop {
            self.state = match self.state {
                ControlState::Type => {
                    let Some((frame_type, _)) = self.buffer.varint() else { return Ok(None) };
                    ControlState::Length { frame_type }
                }
                ControlState::Length { frame_type } => {
                    let Some((len, _)) = self.buffer.varint() else { return Ok(None) };
                    self.begin_body(frame_type, len)?
                }
                ControlState::Body { frame_type, len } => {
                    let Some(body) = self.buffer.body(len) else { return Ok(None) };
                    self.state = ControlState::Type;
                    return ControlFrame::decode(frame_type, &body).map(Some);
                }
                ControlState::Skip { left } => match self.buffer.skip(left) {
                    0 => ControlState::Type,
                    left => {
                        self.state = ControlState::Skip { left };
                        return Ok(None);
                    }
                },
            };
        }
    }

    fn begin_body(&mut self, frame_type: u64, len: u64) -> Result<ControlState, WireError> {
        let Some(frame_type) = ControlType::from_wire(frame_type) else {
            self.buffer.admit_unknown(len)?;
            return Ok(ControlState::Skip { left: len });
        };
        // Judged before a byte of the body is kept ([P-5.2]).
        let len = body_len(frame_type.name(), len, CONTROL_FRAME_BYTES_MAX)?;
        Ok(ControlState::Body { frame_type, len })
    }
}

/// The claimed length of a body, once it is known to be at most `max`.
fn body_len(frame: &'static str, len: u64, max: usize) -> Result<usize, WireError> {
    let len = usize::try_from(len).ok().filter(|len| *len <= max);
    len.ok_or_else(|| WireError::too_large(frame, "the frame is longer than its limit"))
}

/// Reads the packets of one carrier.
///
/// Between calls it keeps at most a header, and an unfinished GRANT or RAW frame, besides chunks that were pushed and
/// not asked for. Payload of streams is passed on as it arrives.
#[derive(Debug, Default)]
pub(crate) struct CarrierReader {
    buffer: ChunkBuffer,
    state: CarrierState,
    packet: Packet,
    failed: Option<WireError>,
}

/// The packet being read; `left` of its `len` bytes belong to frames that have not begun.
#[derive(Debug, Default, Clone, Copy)]
struct Packet {
    number: PacketNumber,
    len: u64,
    left: u64,
}

#[derive(Debug, Default, Clone, Copy)]
enum CarrierState {
    #[default]
    CarrierHeader,
    PacketNumber,
    PacketLength {
        number: PacketNumber,
    },
    FrameType,
    FrameLength {
        frame_type: u64,
    },
    /// Of a STREAM frame with `left` bytes to come.
    StreamId {
        fin: bool,
        left: u64,
    },
    StreamOffset {
        fin: bool,
        stream: StreamId,
        left: u64,
    },
    Payload(Payload),
    Grant {
        len: usize,
    },
    Raw {
        len: usize,
    },
    Skip {
        left: u64,
    },
}

/// What is still to come of a STREAM frame's payload.
#[derive(Debug, Clone, Copy)]
struct Payload {
    stream: StreamId,
    offset: StreamOffset,
    len: u64,
    frame_end: StreamOffset,
    fin: bool,
}

/// What one step of the reader led to.
enum ReadStep {
    To(CarrierState),
    Yield(CarrierState, CarrierItem),
    Starved,
}

impl CarrierReader {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk. After an error it is dropped.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if self.failed.is_none() {
            self.buffer.push(chunk);
        }
    }

    /// The next item, or `None` until more is pushed. Unknown frames are passed over.
    ///
    /// # Errors
    ///
    /// The bytes break the protocol; every later call returns the same error.
    pub(crate) fn next(&mut self) -> Result<Option<CarrierItem>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.advance().inspect_err(|error| {
            self.failed = Some(*error);
            // Nothing more is read, so nothing is kept.
            self.buffer = ChunkBuffer::default();
        })
    }

    /// Bytes of unknown frames passed over so far.
    pub(crate) fn unknown_bytes(&self) -> u64 {
        self.buffer.unknown_bytes()
    }

    /// Tells whether the carrier may end here. To be asked when [`Self::next`] has nothing more.
    ///
    /// # Errors
    ///
    /// The last packet is not complete, or an error came before.
    pub(crate) fn finish(&self) -> Result<(), WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let between_packets = matches!(self.state, CarrierState::CarrierHeader | CarrierState::PacketNumber);
        if between_packets && self.buffer.is_empty() {
            Ok(())
        } else {
            Err(WireError::violation("PACKET", "the carrier ended inside a packet"))
        }
    }

    fn advance(&mut self) -> Result<Option<CarrierItem>, WireError> {
        loop {
            let step = match self.state {
                CarrierState::CarrierHeader => self.read_carrier_header()?,
                CarrierState::PacketNumber => self.read_packet_number()?,
                CarrierState::PacketLength { number } => self.read_packet_length(number)?,
                CarrierState::FrameType => self.read_frame_type()?,
                CarrierState::FrameLength { frame_type } => self.read_frame_length(frame_type)?,
                CarrierState::StreamId { fin, left } => self.read_stream_id(fin, left)?,
                CarrierState::StreamOffset { fin, stream, left } => self.read_stream_offset(fin, stream, left)?,
                CarrierState::Payload(payload) => self.read_payload(payload),
                CarrierState::Grant { len } => self.read_body(DataType::Grant, len, CarrierItem::Grant)?,
                CarrierState::Raw { len } => self.read_body(DataType::Raw, len, CarrierItem::Raw)?,
                CarrierState::Skip { left } => match self.buffer.skip(left) {
                    0 => ReadStep::To(CarrierState::FrameType),
                    left => {
                        self.state = CarrierState::Skip { left };
                        ReadStep::Starved
                    }
                },
            };
            match step {
                ReadStep::To(state) => self.state = state,
                ReadStep::Yield(state, item) => {
                    self.state = state;
                    return Ok(Some(item));
                }
                ReadStep::Starved => return Ok(None),
            }
        }
    }

    fn read_carrier_header(&mut self) -> Result<ReadStep, WireError> {
        match self.buffer.varint() {
            None => Ok(ReadStep::Starved),
            Some((CARRIER_HEADER, _)) => Ok(ReadStep::To(CarrierState::PacketNumber)),
            Some(_) => Err(WireError::violation("CARRIER", "the stream is not a carrier")),
        }
    }

    fn read_packet_number(&mut self) -> Result<ReadStep, WireError> {
        match self.buffer.varint() {
            None => Ok(ReadStep::Starved),
            // A range of packets ends above its last number, and that end must fit a varint too.
            Some((VARINT_MAX, _)) => Err(WireError::violation("PACKET", "the packet number is too large")),
            Some((number, _)) => Ok(ReadStep::To(CarrierState::PacketLength { number: PacketNumber(number) })),
        }
    }

    fn read_packet_length(&mut self, number: PacketNumber) -> Result<ReadStep, WireError> {
        let Some((len, _)) = self.buffer.varint() else { return Ok(ReadStep::Starved) };
        if len == 0 {
            return Err(WireError::violation("PACKET", "the packet is empty"));
        }
        body_len("PACKET", len, PACKET_BYTES_MAX)?;
        self.packet = Packet { number, len, left: len };
        Ok(ReadStep::Yield(CarrierState::FrameType, CarrierItem::PacketStart { number, len }))
    }

    fn read_frame_type(&mut self) -> Result<ReadStep, WireError> {
        let Packet { number, len, left } = self.packet;
        if left == 0 {
            return Ok(ReadStep::Yield(CarrierState::PacketNumber, CarrierItem::PacketEnd { number, len }));
        }
        let Some((frame_type, size)) = self.buffer.varint_within(left).map_err(packet_overrun)? else {
            return Ok(ReadStep::Starved);
        };
        self.packet.left -= size;
        Ok(ReadStep::To(CarrierState::FrameLength { frame_type }))
    }

    fn read_frame_length(&mut self, frame_type: u64) -> Result<ReadStep, WireError> {
        let Some((len, size)) = self.buffer.varint_within(self.packet.left).map_err(packet_overrun)? else {
            return Ok(ReadStep::Starved);
        };
        let state = match DataType::from_wire(frame_type) {
            Some(DataType::Stream) => begin_stream(false, len)?,
            Some(DataType::StreamFin) => begin_stream(true, len)?,
            Some(DataType::Grant) => {
                CarrierState::Grant { len: body_len(DataType::Grant.name(), len, CONTROL_FRAME_BYTES_MAX)? }
            }
            Some(DataType::Raw) => {
                CarrierState::Raw { len: body_len(DataType::Raw.name(), len, CONTROL_FRAME_BYTES_MAX)? }
            }
            None => {
                self.buffer.admit_unknown(len)?;
                CarrierState::Skip { left: len }
            }
        };
        // The frame must fit into its packet before anything of its body is passed on.
        let left = (self.packet.left - size).checked_sub(len);
        self.packet.left = left.ok_or(Overrun).map_err(packet_overrun)?;
        Ok(ReadStep::To(state))
    }

    fn read_stream_id(&mut self, fin: bool, left: u64) -> Result<ReadStep, WireError> {
        let Some((stream, size)) = self.buffer.varint_within(left).map_err(stream_overrun)? else {
            return Ok(ReadStep::Starved);
        };
        Ok(ReadStep::To(CarrierState::StreamOffset { fin, stream: StreamId(stream), left: left - size }))
    }

    fn read_stream_offset(&mut self, fin: bool, stream: StreamId, left: u64) -> Result<ReadStep, WireError> {
        let Some((offset, size)) = self.buffer.varint_within(left).map_err(stream_overrun)? else {
            return Ok(ReadStep::Starved);
        };
        let offset = StreamOffset(offset);
        let len = left - size;
        // `begin_stream` knew only the length of the whole body; this is the payload's own.
        body_len(DataType::Stream.name(), len, DATA_FRAME_PAYLOAD_MAX)?;
        let frame_end = offset.checked_add(len);
        let frame_end = frame_end
            .ok_or_else(|| WireError::violation(DataType::Stream.name(), "the payload ends above 2^62 - 1"))?;
        Ok(ReadStep::To(CarrierState::Payload(Payload { stream, offset, len, frame_end, fin })))
    }

    fn read_payload(&mut self, payload: Payload) -> ReadStep {
        let Payload { stream, offset, len, frame_end, fin } = payload;
        // A frame without data is passed on too: it may name the end of the stream.
        let data = if len == 0 { Some(Bytes::new()) } else { self.buffer.next_slice(len) };
        let Some(data) = data else { return ReadStep::Starved };
        let read = data.len() as u64;
        let state = if read == len {
            CarrierState::FrameType
        } else {
            // This does not overflow, since the end of the whole frame was checked.
            CarrierState::Payload(Payload { offset: StreamOffset(offset.0 + read), len: len - read, ..payload })
        };
        ReadStep::Yield(state, CarrierItem::Stream { stream, offset, data, frame_end, fin: fin && read == len })
    }

    fn read_body<F: Field>(
        &mut self,
        frame_type: DataType,
        len: usize,
        item: fn(F) -> CarrierItem,
    ) -> Result<ReadStep, WireError> {
        let Some(body) = self.buffer.body(len) else { return Ok(ReadStep::Starved) };
        let mut from = Decoder::new(frame_type.name(), &body);
        let frame = from.field()?;
        from.finish()?;
        Ok(ReadStep::Yield(CarrierState::FrameType, item(frame)))
    }
}

fn begin_stream(fin: bool, len: u64) -> Result<CarrierState, WireError> {
    body_len(DataType::Stream.name(), len, STREAM_FIELDS_BYTES_MAX + DATA_FRAME_PAYLOAD_MAX)?;
    Ok(CarrierState::StreamId { fin, left: len })
}

fn packet_overrun(_: Overrun) -> WireError {
    WireError::violation("PACKET", "a frame runs past the end of its packet")
}

fn stream_overrun(_: Overrun) -> WireError {
    WireError::violation(DataType::Stream.name(), "the body is shorter than its fields")
}
