//! Integers, byte strings and identifiers, as fields of a frame's body.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::WireError;
use crate::{
    error::ErrorCode,
    id::{Epoch, GrantId, PathId, SessionId, StreamId, StreamOffset},
    limits::VARINT_MAX,
};

/// The size of a varint, in bytes, told from its first byte.
pub(super) fn varint_size(first: u8) -> u8 {
    1 << (first >> 6)
}

/// The shortest encoding of `value`, in bytes.
pub(super) fn varint_len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Appends the shortest encoding of `value`, which is at most [`VARINT_MAX`].
pub(super) fn put_varint(out: &mut impl BufMut, value: u64) {
    debug_assert!(value <= VARINT_MAX, "{value} does not fit a varint");
    let len = varint_len(value);
    let tag = u64::from(len.trailing_zeros()) << (8 * len - 2);
    out.put_uint(value.min(VARINT_MAX) | tag, len);
}

/// The encoded size of a byte string with its length, in bytes.
pub(super) fn bytes_len(bytes: &[u8]) -> usize {
    varint_len(bytes.len() as u64) + bytes.len()
}

/// Appends the length of `bytes`, then `bytes`.
pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Appends ranges that ascend and neither overlap nor touch, each as its distance from the one before and its length
/// less one.
pub(super) fn put_ranges(out: &mut BytesMut, ranges: &[Range<u64>]) {
    put_varint(out, ranges.len() as u64);
    let mut previous_end = None;
    for range in ranges {
        debug_assert!(range.start < range.end && previous_end.is_none_or(|end| end < range.start), "{ranges:?}");
        put_varint(out, range.start.saturating_sub(previous_end.unwrap_or(0)));
        put_varint(out, range.end.saturating_sub(range.start).saturating_sub(1));
        previous_end = Some(range.end);
    }
}

/// A value with one encoding inside a frame's body. A frame is such a value itself: its body.
pub(super) trait Field: Sized {
    /// Reads the value and checks what can be checked without context.
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError>;

    /// Appends the value.
    fn put(&self, out: &mut BytesMut);
}

/// Encodes a struct as its fields, in the order they are named here.
macro_rules! fields_in_order {
    ($($frame:ident { $($field:ident),* })*) => {
        $(impl $crate::wire::coding::Field for $frame {
            fn take(from: &mut $crate::wire::coding::Decoder<'_>) -> Result<Self, $crate::wire::WireError> {
                Ok(Self { $($field: from.field()?),* })
            }

            fn put(&self, out: &mut bytes::BytesMut) {
                $(self.$field.put(out);)*
            }
        })*
    };
}
pub(super) use fields_in_order;

/// A position in a body, which it cannot leave.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    frame: &'static str,
    body: &'a Bytes,
    position: usize,
}

impl<'a> Decoder<'a> {
    /// A decoder at the start of `body`. Errors will name `frame`.
    pub(super) fn new(frame: &'static str, body: &'a Bytes) -> Self {
        Self { frame, body, position: 0 }
    }

    /// A decoder of a byte string inside this body.
    pub(super) fn nested<'b>(&self, bytes: &'b Bytes) -> Decoder<'b> {
        Decoder::new(self.frame, bytes)
    }

    pub(super) fn field<F: Field>(&mut self) -> Result<F, WireError> {
        F::take(self)
    }

    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        let first = *self.body.get(self.position).ok_or_else(|| self.short())?;
        let bytes = self.slice(usize::from(varint_size(first)))?;
        Ok(bytes.iter().skip(1).fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
    }

    pub(super) fn varint_u32(&mut self) -> Result<u32, WireError> {
        u32::try_from(self.varint()?).map_err(|_| self.violation("a number is above 2^32 - 1"))
    }

    /// A byte string of at most `max` bytes, in memory of its own: it may be kept for long, and the body is a slice of
    /// what was received.
    pub(super) fn bytes(&mut self, max: usize) -> Result<Bytes, WireError> {
        let len = usize::try_from(self.varint()?).ok().filter(|len| *len <= max);
        let len = len.ok_or_else(|| self.violation("a field is longer than its limit"))?;
        self.slice(len).map(Bytes::copy_from_slice)
    }

    /// What [`put_ranges`] wrote: 1 to `max` ranges.
    pub(super) fn ranges<C: FromIterator<Range<u64>>>(&mut self, max: usize) -> Result<C, WireError> {
        let count = usize::try_from(self.varint()?).ok().filter(|count| (1..=max).contains(count));
        let count = count.ok_or_else(|| self.violation("too many ranges or none"))?;
        let mut previous_end = None;
        (0..count)
            .map(|_| {
                let range = self.range_after(previous_end)?;
                previous_end = Some(range.end);
                Ok(range)
            })
            .collect()
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// There is more of it.
    pub(super) fn finish(self) -> Result<(), WireError> {
        if self.position == self.body.len() {
            Ok(())
        } else {
            Err(self.violation("the body is longer than its fields"))
        }
    }

    /// An error that names this frame.
    pub(super) fn violation(&self, detail: &'static str) -> WireError {
        WireError::violation(self.frame, detail)
    }

    fn range_after(&mut self, previous_end: Option<u64>) -> Result<Range<u64>, WireError> {
        let gap = self.varint()?;
        if previous_end.is_some() && gap == 0 {
            return Err(self.violation("ranges touch"));
        }
        let len_less_one = self.varint()?;
        let start = StreamOffset(previous_end.unwrap_or(0)).checked_add(gap);
        let end = start.and_then(|start| start.checked_add(len_less_one)?.checked_add(1));
        let range = start.zip(end).map(|(start, end)| start.0..end.0);
        range.ok_or_else(|| self.violation("a range ends above 2^62 - 1"))
    }

    fn short(&self) -> WireError {
        self.violation("the body is shorter than its fields")
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let end = self.position.checked_add(len);
        let slice = end.and_then(|end| self.body.get(self.position..end)).ok_or_else(|| self.short())?;
        self.position += len;
        Ok(slice)
    }
}

impl Field for u64 {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        from.varint()
    }

    fn put(&self, out: &mut BytesMut) {
        put_varint(out, *self);
    }
}

impl Field for PathId {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        from.varint_u32().map(Self)
    }

    fn put(&self, out: &mut BytesMut) {
        put_varint(out, u64::from(self.0));
    }
}

impl<const N: usize> Field for [u8; N] {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Self::try_from(from.slice(N)?).map_err(|_| from.short())
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_slice(self);
    }
}

impl Field for ErrorCode {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        from.varint().map(Self::from_wire)
    }

    fn put(&self, out: &mut BytesMut) {
        put_varint(out, self.to_wire());
    }
}

macro_rules! newtype_fields {
    ($($name:ident),*) => {
        $(impl Field for $name {
            fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
                from.field().map(Self)
            }

            fn put(&self, out: &mut BytesMut) {
                self.0.put(out);
            }
        })*
    };
}

newtype_fields!(SessionId, StreamId, StreamOffset, GrantId, Epoch);
