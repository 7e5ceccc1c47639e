//! Transport parameters: what an end tells of its limits before anything else.

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};

use super::{
    WireError,
    coding::{Decoder, Field, put_varint, varint_len},
};
use crate::limits::{CONTROL_FRAME_BYTES_MAX, FLOOR_STREAM_BYTES, FLOOR_STREAMS};

/// The largest count of streams and the largest initial window, as in QUIC.
pub(super) const CREDIT_MAX: u64 = 1 << 60;
const PARAMS_MAX: u64 = 32;

const STREAMS_BIDI: u64 = 0x01;
const STREAMS_UNI: u64 = 0x02;
const STREAM_WINDOW_INITIAL: u64 = 0x03;

/// Transport parameters. No value is below its floor or above 2^60.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Params {
    /// Bidirectional streams the peer may open at first.
    pub(crate) streams_bidi: u64,
    /// Unidirectional streams the peer may open at first.
    pub(crate) streams_uni: u64,
    /// Bytes of each stream the peer may send at first.
    pub(crate) stream_window_initial: u64,
}

impl Field for Params {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let count = from.varint()?;
        if count > PARAMS_MAX {
            return Err(from.violation("too many parameters"));
        }
        let (mut streams_bidi, mut streams_uni, mut stream_window_initial) = (None, None, None);
        for _ in 0..count {
            let id = from.varint()?;
            let value = from.bytes(CONTROL_FRAME_BYTES_MAX)?;
            let (slot, range) = match id {
                STREAMS_BIDI => (&mut streams_bidi, FLOOR_STREAMS..=CREDIT_MAX),
                STREAMS_UNI => (&mut streams_uni, FLOOR_STREAMS..=CREDIT_MAX),
                STREAM_WINDOW_INITIAL => (&mut stream_window_initial, FLOOR_STREAM_BYTES..=CREDIT_MAX),
                _ => continue,
            };
            if slot.replace(known_value(from, &value, range)?).is_some() {
                return Err(from.violation("a parameter came twice"));
            }
        }
        let required = |value: Option<u64>| value.ok_or_else(|| from.violation("a required parameter is missing"));
        Ok(Self {
            streams_bidi: required(streams_bidi)?,
            streams_uni: required(streams_uni)?,
            stream_window_initial: required(stream_window_initial)?,
        })
    }

    fn put(&self, out: &mut BytesMut) {
        let params = [
            (STREAMS_BIDI, self.streams_bidi),
            (STREAMS_UNI, self.streams_uni),
            (STREAM_WINDOW_INITIAL, self.stream_window_initial),
        ];
        put_varint(out, params.len() as u64);
        for (id, value) in params {
            put_varint(out, id);
            put_varint(out, varint_len(value) as u64);
            put_varint(out, value);
        }
    }
}

fn known_value(frame: &Decoder<'_>, value: &Bytes, range: RangeInclusive<u64>) -> Result<u64, WireError> {
    let mut from = frame.nested(value);
    let value = from.varint()?;
    from.finish()?;
    if range.contains(&value) { Ok(value) } else { Err(frame.violation("a parameter is outside its range")) }
}
