//! Received bytes that wait: in memory of their own, or as a slice of the datagram they came in.

use crate::id::PathId;
use bytes::{Bytes, BytesMut};

/// Fewer bytes than this are copied as they come.
pub(super) const SLICE_BYTES_MIN: usize = 1024;
/// What a piece costs beside its bytes: its place in the map, and what the allocator and the reference count take.
pub(super) const PIECE_BYTES: usize = 144;
/// The most bytes gathered in one allocation.
pub(super) const GATHERED_BYTES_MAX: usize = 16 * 1024;

/// Some bytes of a stream.
#[derive(Debug)]
pub(super) struct Piece {
    data: Data,
    /// Who brought them; `None` once bytes of several were gathered.
    pub(super) source: Option<PathId>,
}

#[derive(Debug)]
enum Data {
    Slice(Bytes),
    /// The bytes, and how much memory they hold.
    Own(BytesMut, usize),
}

impl Piece {
    /// Keeps the bytes as they are.
    pub(super) fn slice(source: PathId, data: Bytes) -> Self {
        Self { data: Data::Slice(data), source: Some(source) }
    }

    /// Copies the bytes.
    pub(super) fn own(source: Option<PathId>, data: &[u8]) -> Self {
        Self { data: Data::Own(BytesMut::from(data), data.len()), source }
    }

    /// Copies the bytes of neighbours, of which there are `len`.
    pub(super) fn gather(source: Option<PathId>, len: usize, pieces: &[Self]) -> Self {
        let mut data = BytesMut::with_capacity(len);
        pieces.iter().for_each(|piece| data.extend_from_slice(piece.as_slice()));
        Self { data: Data::Own(data, len), source }
    }

    /// Appends all of `data`, if the bytes are in memory of their own and do not become too many.
    pub(super) fn append(&mut self, data: &[u8]) -> bool {
        let Data::Own(own, allocated) = &mut self.data else { return false };
        let len = own.len() + data.len();
        if len > GATHERED_BYTES_MAX {
            return false;
        }
        if own.capacity() < len {
            // What is left free is a small part.
            let capacity = len.max(own.len() / 4 * 5 + 16).min(GATHERED_BYTES_MAX);
            let mut grown = BytesMut::with_capacity(capacity);
            grown.extend_from_slice(own);
            (*own, *allocated) = (grown, capacity);
        }
        own.extend_from_slice(data);
        true
    }

    /// Takes the first `len` bytes, at most all. What little is left of much moves to memory of its own.
    pub(super) fn split_to(&mut self, len: usize) -> Bytes {
        match &mut self.data {
            Data::Slice(data) => data.split_to(len.min(data.len())),
            // All of it needs no counted reference.
            Data::Own(data, _) if len >= data.len() => std::mem::take(data).freeze(),
            Data::Own(data, allocated) => {
                let head = data.split_to(len.min(data.len())).freeze();
                if !data.is_empty() && data.len() < *allocated / 2 {
                    (*data, *allocated) = (BytesMut::from(&data[..]), data.len());
                }
                head
            }
        }
    }

    pub(super) fn is_slice(&self) -> bool {
        matches!(self.data, Data::Slice(_))
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match &self.data {
            Data::Slice(data) => data,
            Data::Own(data, _) => data,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// What the piece is accounted for. Of a slice only its own bytes: see [`Slices`](super::slices::Slices).
    pub(super) fn memory_bytes(&self) -> usize {
        PIECE_BYTES
            + match &self.data {
                Data::Slice(data) => data.len(),
                Data::Own(_, allocated) => *allocated,
            }
    }
}
