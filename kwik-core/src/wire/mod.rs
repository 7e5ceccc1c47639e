//! The bytes of the control plane and of the carriers (PROTOCOL.md §5, §6).
//!
//! A decoded frame is legal in itself: its fields are inside their limits and its body was used up exactly. Whether a
//! frame may come from this peer, on this path, at this time, is not known here.

mod chunk_buffer;
mod coding;
mod control;
mod data;
mod frame;
mod params;
mod reader;
#[cfg(test)]
mod tests;

pub(crate) use control::{
    AddPath, Close, Grant, GrantEnd, GrantStatusFrame, Hello, Join, Lease, MaxStreamData, MaxStreams, OpenStream,
    PacketAck, PathStatus, Raw, RawStatus, RemovePath, ResetStream, Revoke, SignedPayload, StopSending, Welcome,
    WirePathState,
};
pub(crate) use data::{
    CarrierItem, GrantOpen, RawForward, encode_carrier_header, encode_packet_header, encode_stream_header,
    packet_header_len,
};
pub(crate) use frame::ControlFrame;
#[cfg(test)]
pub(crate) use frame::{ControlType, DataType};
pub(crate) use params::Params;
pub(crate) use reader::{CarrierReader, ControlReader};

use crate::error::TransportCode;

/// Why bytes from the peer could not be read. The path they came from cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{frame}: {detail}: {code}")]
pub(crate) struct WireError {
    /// `PROTOCOL_VIOLATION` or `FRAME_TOO_LARGE`.
    pub(crate) code: TransportCode,
    /// The frame, as PROTOCOL.md names it, or the structure around the frames.
    pub(crate) frame: &'static str,
    /// What was wrong with it.
    pub(crate) detail: &'static str,
}

impl WireError {
    fn violation(frame: &'static str, detail: &'static str) -> Self {
        Self { code: TransportCode::PROTOCOL_VIOLATION, frame, detail }
    }

    fn too_large(frame: &'static str, detail: &'static str) -> Self {
        Self { code: TransportCode::FRAME_TOO_LARGE, frame, detail }
    }
}
