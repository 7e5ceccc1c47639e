//! Received chunks, and what is read from them when a chunk may end anywhere.

use std::{collections::VecDeque, mem};

use bytes::{Buf, Bytes, BytesMut};

use super::{WireError, coding::varint_size};
use crate::limits::{UNKNOWN_BYTES_PER_PATH_MAX, UNKNOWN_FRAME_BYTES_MAX};

/// Received chunks, read from the front.
///
/// A read that finds too little keeps what it found and goes on when it is called again with more, so the result does
/// not depend on where chunks end. What is kept is copied; a chunk is not held for the sake of its last bytes.
#[derive(Debug, Default)]
pub(super) struct ChunkBuffer {
    chunks: VecDeque<Bytes>,
    varint: PartialVarint,
    body: BytesMut,
    unknown_bytes: u64,
}

impl ChunkBuffer {
    pub(super) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// The next varint, and its size in bytes; `None` until all of it is here.
    pub(super) fn varint(&mut self) -> Option<(u64, u64)> {
        if self.varint.missing == 0 {
            let front = self.chunks.front_mut()?;
            let size = usize::from(varint_size(*front.first()?));
            // As most often, one chunk has all of it, and more.
            if front.len() > size {
                let value = match size {
                    1 => u64::from(front[0]),
                    2 => u64::from(front.get_u16() & 0x3fff),
                    4 => u64::from(front.get_u32() & 0x3fff_ffff),
                    _ => front.get_u64() & (u64::MAX >> 2),
                };
                if size == 1 {
                    front.advance(1);
                }
                return Some((value, size as u64));
            }
            self.varint = PartialVarint::begin(self.byte()?);
        }
        while self.varint.missing > 0 {
            let byte = self.byte()?;
            self.varint.append(byte);
        }
        Some((self.varint.value, self.varint.size))
    }

    /// A varint of at most `room` bytes, and its size.
    ///
    /// # Errors
    ///
    /// It is longer.
    pub(super) fn varint_within(&mut self, room: u64) -> Result<Option<(u64, u64)>, Overrun> {
        // A varint that was begun fitted when its first byte was here. Before that byte, one byte is the least it
        // takes.
        let size = match self.chunks.front().and_then(|chunk| chunk.first()) {
            Some(first) if self.varint.missing == 0 => varint_size(*first).into(),
            _ => 1,
        };
        if size > room { Err(Overrun) } else { Ok(self.varint()) }
    }

    /// The next bytes, 1 to `max` of them, without a copy.
    pub(super) fn next_slice(&mut self, max: u64) -> Option<Bytes> {
        let front = self.chunks.front_mut()?;
        let len = usize::try_from(max).map_or(front.len(), |max| max.min(front.len()));
        let slice = front.split_to(len);
        if front.is_empty() {
            self.chunks.pop_front();
        }
        Some(slice)
    }

    /// The next `len` bytes: a slice of a chunk if one holds them all, else a copy that grows with what arrives.
    pub(super) fn body(&mut self, len: usize) -> Option<Bytes> {
        while self.body.len() < len {
            let slice = self.next_slice((len - self.body.len()) as u64)?;
            // Only at the first slice: no chunk but one that holds the whole body is passed on without a copy.
            if slice.len() == len {
                return Some(slice);
            }
            self.body.extend_from_slice(&slice);
        }
        Some(mem::take(&mut self.body).freeze())
    }

    /// Drops `len` bytes, or as many as there are; returns how many are still to be dropped.
    pub(super) fn skip(&mut self, len: u64) -> u64 {
        let mut left = len;
        while left > 0
            && let Some(slice) = self.next_slice(left)
        {
            left -= slice.len() as u64;
        }
        left
    }

    /// Counts an unknown frame of `len` bytes that is about to be skipped.
    ///
    /// # Errors
    ///
    /// It is too long, or too much was skipped already.
    pub(super) fn admit_unknown(&mut self, len: u64) -> Result<(), WireError> {
        if len > UNKNOWN_FRAME_BYTES_MAX {
            return Err(WireError::violation("UNKNOWN", "an unknown frame is longer than its limit"));
        }
        // An empty frame counts as a byte, so that a flood of them ends too.
        self.unknown_bytes += len.max(1);
        if self.unknown_bytes > UNKNOWN_BYTES_PER_PATH_MAX {
            return Err(WireError::violation("UNKNOWN", "too many bytes of unknown frames"));
        }
        Ok(())
    }

    /// Bytes of unknown frames so far.
    pub(super) fn unknown_bytes(&self) -> u64 {
        self.unknown_bytes
    }

    /// Whether nothing was pushed that was not read.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.varint.missing == 0 && self.body.is_empty()
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.chunks.front()?.first()?;
        self.consume(1);
        Some(byte)
    }

    /// Drops bytes of the first chunk, which has them.
    fn consume(&mut self, len: usize) {
        let Some(front) = self.chunks.front_mut() else { return };
        if front.len() > len {
            front.advance(len);
        } else {
            self.chunks.pop_front();
        }
    }
}

/// A varint is longer than the structure it is in.
#[derive(Debug)]
pub(super) struct Overrun;

#[derive(Debug, Default)]
struct PartialVarint {
    value: u64,
    size: u64,
    missing: u64,
}

impl PartialVarint {
    fn begin(first: u8) -> Self {
        let size = u64::from(varint_size(first));
        Self { value: u64::from(first & 0x3f), size, missing: size - 1 }
    }

    fn append(&mut self, byte: u8) {
        self.value = self.value << 8 | u64::from(byte);
        self.missing -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CONTROL_FRAME_BYTES_MAX;

    #[test]
    fn memory_follows_received_bytes_and_not_the_claimed_length() {
        let mut buffer = ChunkBuffer::default();
        for received in 1..=64 {
            buffer.push(Bytes::from_static(b"x"));
            assert_eq!(buffer.body(CONTROL_FRAME_BYTES_MAX), None);
            assert_eq!(buffer.body.len(), received);
            assert!(buffer.body.capacity() <= 128, "{} bytes held for {received}", buffer.body.capacity());
        }
    }

    #[test]
    fn unfinished_reads_hold_no_chunk() {
        let mut buffer = ChunkBuffer::default();
        buffer.push(Bytes::from_static(&[0xc0, 0, 0]));
        assert_eq!(buffer.varint(), None);
        assert!(buffer.chunks.is_empty() && !buffer.is_empty());
        buffer.push(Bytes::from_static(&[0, 0, 0, 1, 2]));
        assert_eq!(buffer.varint(), Some((0x102, 8)));
        assert!(buffer.is_empty());
    }
}
