//! The two tables of frame types. A type of frame is a row here, a struct with its fields, and nothing else.

use bytes::{Bytes, BytesMut};

use super::{
    WireError,
    coding::{Decoder, Field, put_varint},
    control::{
        AddPath, Close, Grant, GrantEnd, GrantStatusFrame, Hello, Join, Lease, MaxStreamData, MaxStreams, OpenStream,
        PacketAck, PathStatus, Raw, RawStatus, RemovePath, ResetStream, Revoke, StopSending, Welcome,
    },
};
use crate::limits::CONTROL_FRAME_BYTES_MAX;

macro_rules! frame_types {
    ($(#[$doc:meta])* $types:ident { $($name:ident = $value:literal, $frame:ident;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $types {
            $($frame),*
        }

        impl $types {
            $(pub(crate) const $name: u64 = $value;)*

            /// Every type, in the order of their numbers.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$frame),*];

            /// The type a number on the wire stands for, if this version knows it.
            pub(crate) fn from_wire(value: u64) -> Option<Self> {
                match value {
                    $(Self::$name => Some(Self::$frame),)*
                    _ => None,
                }
            }

            /// The number on the wire.
            pub(crate) fn to_wire(self) -> u64 {
                match self {
                    $(Self::$frame => Self::$name),*
                }
            }

            /// The name in PROTOCOL.md.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$frame => stringify!($name)),*
                }
            }
        }
    };
}

macro_rules! control_frames {
    ($($name:ident = $value:literal, $frame:ident($body:ident);)*) => {
        frame_types! {
            /// The types of frames on the control plane (PROTOCOL.md §5).
            ControlType { $($name = $value, $frame;)* }
        }

        /// A frame of the control plane.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum ControlFrame {
            $($frame($body)),*
        }

        impl ControlFrame {
            /// The type of the frame.
            pub(crate) fn frame_type(&self) -> ControlType {
                match self {
                    $(Self::$frame(_) => ControlType::$frame),*
                }
            }

            /// Reads a whole body; its byte strings become slices of it.
            pub(super) fn decode(frame_type: ControlType, body: &Bytes) -> Result<Self, WireError> {
                let mut from = Decoder::new(frame_type.name(), body);
                let frame = match frame_type {
                    $(ControlType::$frame => Self::$frame(from.field()?)),*
                };
                from.finish()?;
                Ok(frame)
            }

            fn put_body(&self, out: &mut BytesMut) {
                match self {
                    $(Self::$frame(frame) => frame.put(out)),*
                }
            }
        }

        $(impl From<$body> for ControlFrame {
            fn from(frame: $body) -> Self {
                Self::$frame(frame)
            }
        })*
    };
}

control_frames! {
    HELLO = 0x01, Hello(Hello);
    JOIN = 0x02, Join(Join);
    WELCOME = 0x03, Welcome(Welcome);
    ADD_PATH = 0x04, AddPath(AddPath);
    REMOVE_PATH = 0x05, RemovePath(RemovePath);
    PATH_STATUS = 0x06, PathStatus(PathStatus);
    OPEN_STREAM = 0x07, OpenStream(OpenStream);
    RESET_STREAM = 0x08, ResetStream(ResetStream);
    STOP_SENDING = 0x09, StopSending(StopSending);
    MAX_STREAM_DATA = 0x0a, MaxStreamData(MaxStreamData);
    MAX_STREAMS = 0x0b, MaxStreams(MaxStreams);
    PACKET_ACK = 0x0c, PacketAck(PacketAck);
    GRANT = 0x0d, Grant(Grant);
    REVOKE = 0x0e, Revoke(Revoke);
    GRANT_STATUS = 0x0f, GrantStatus(GrantStatusFrame);
    GRANT_END = 0x10, GrantEnd(GrantEnd);
    RAW = 0x11, Raw(Raw);
    RAW_STATUS = 0x12, RawStatus(RawStatus);
    CLOSE = 0x13, Close(Close);
    LEASE = 0x14, Lease(Lease);
}

frame_types! {
    /// The types of frames inside a data packet (PROTOCOL.md §6).
    DataType {
        STREAM = 0x01, Stream;
        STREAM_FIN = 0x02, StreamFin;
        GRANT = 0x03, Grant;
        RAW = 0x04, Raw;
    }
}

impl ControlFrame {
    /// Appends the frame: type, length, body. The fields are inside the limits their structs name.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        self.put_body(out);
        let body_len = out.len() - start;
        debug_assert!(body_len <= CONTROL_FRAME_BYTES_MAX, "{} of {body_len} bytes", self.name());
        put_varint(out, self.frame_type().to_wire());
        put_varint(out, body_len as u64);
        // The length is known only now, so the header was written behind the body; it belongs in front.
        let header_len = out.len() - start - body_len;
        out[start..].rotate_right(header_len);
    }

    /// The name in PROTOCOL.md.
    pub(crate) fn name(&self) -> &'static str {
        self.frame_type().name()
    }
}
