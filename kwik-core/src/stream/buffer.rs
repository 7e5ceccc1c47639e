//! Bytes that wait to be sent: as the application gave them, or small pieces gathered in one allocation.

use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

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
            // All of it needs no counted reference.
            Self::Gathered(data) if len >= data.len() => std::mem::take(data).freeze(),
            Self::Gathered(data) => data.split_to(len).freeze(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Slice(data) => data.len(),
            Self::Gathered(data) => data.len(),
        }
    }
}

/// Buffers by where they begin; none overlaps another. Mostly there is one, which needs no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The lowest.
    first: Option<(u64, Buffer)>,
    /// Absent while there is none.
    #[expect(clippy::box_collection, reason = "most streams have none, for which eight bytes are enough")]
    rest: Option<Box<BTreeMap<u64, Buffer>>>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    /// Where the lowest begins.
    pub(super) fn start(&self) -> Option<u64> {
        self.first.as_ref().map(|(start, _)| *start)
    }

    pub(super) fn insert(&mut self, start: u64, buffer: Buffer) {
        match &self.first {
            None => self.first = Some((start, buffer)),
            Some((first, _)) if start < *first => {
                let first = self.first.replace((start, buffer));
                self.rest.get_or_insert_default().extend(first);
            }
            Some(_) => drop(self.rest.get_or_insert_default().insert(start, buffer)),
        }
    }

    pub(super) fn pop_first(&mut self) -> Option<(u64, Buffer)> {
        let next = self.rest.as_mut().and_then(|rest| rest.pop_first());
        if next.is_none() {
            self.rest = None;
        }
        std::mem::replace(&mut self.first, next)
    }

    /// The buffer that ends at a position.
    pub(super) fn ending_at_mut(&mut self, end: u64) -> Option<&mut Buffer> {
        let before = self.rest.as_mut().and_then(|rest| rest.range_mut(..end).next_back());
        let (start, buffer) = match before.map(|(start, buffer)| (*start, buffer)) {
            Some(before) => before,
            None => self.first.as_mut().map(|(start, buffer)| (*start, buffer))?,
        };
        (start + buffer.len() as u64 == end).then_some(buffer)
    }

    /// Those that begin below a position.
    pub(super) fn below(&self, end: u64) -> impl Iterator<Item = &Buffer> {
        let first = self.first.as_ref().filter(|(start, _)| *start < end).map(|(_, buffer)| buffer);
        let rest = self.rest.iter().flat_map(move |rest| rest.range(..end));
        first.into_iter().chain(rest.map(|(_, buffer)| buffer))
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
