//! Bytes that wait to be sent: as the application gave them, or small pieces gathered in one allocation.

use bytes::{Bytes, BytesMut};

/// Writes shorter than this are copied, bytes.
pub(super) const SMALL_BYTES: usize = 1024;
/// What an entry of a map of buffers costs beside its bytes.
pub(super) const ENTRY_BYTES: usize = 64;
/// The most bytes gathered in one allocation.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(super) enum Buffer {
    Slice(Bytes),
    Gathered(BytesMut),
}

impl Buffer {
    /// Copies the bytes.
    pub(super) fn copy(data: &[u8]) -> Self {
        Self::Gathered(BytesMut::from(data))
    }

    /// Appends what fits one allocation, and returns how many bytes that was. Slices take none.
    pub(super) fn append(&mut self, data: &[u8]) -> usize {
        let Self::Gathered(gathered) = self else { return 0 };
        let len = data.len().min(GATHERED_BYTES_MAX.saturating_sub(gathered.len()));
        gathered.extend_from_slice(&data[..len]);
        len
    }

    /// Takes the first `len` bytes, at most all.
    pub(super) fn split_to(&mut self, len: usize) -> Bytes {
        match self {
            Self::Slice(data) => data.split_to(len.min(data.len())),
            Self::Gathered(data) => data.split_to(len.min(data.len())).freeze(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Slice(data) => data.len(),
            Self::Gathered(data) => data.len(),
        }
    }
}
