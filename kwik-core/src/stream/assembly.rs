//! What a stream received, in as little memory as that takes.

use super::reassembly::{Chunk, Conflict, IllegalOrderedRead, Inserted, Reassembly, SPAN_BYTES};
use crate::id::{PathId, StreamOffset};
use bytes::Bytes;
use std::ops::Range;

/// The received bytes of one stream. Most streams were read as far as they came, in order: one number tells all of that.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// Everything below was received and read, and nothing else came, unless bytes wait.
    read_to: u64,
    /// Bytes wait, or are missing, or were read out of order.
    waiting: Option<Box<Reassembly>>,
}

impl Assembly {
    /// As [`Reassembly::insert`].
    pub(super) fn insert(&mut self, from: PathId, offset: u64, data: Bytes) -> Result<Inserted, Conflict> {
        let inserted = self.waiting(from).insert(from, offset, data)?;
        if inserted.new.is_empty() {
            self.settle();
        }
        Ok(inserted)
    }

    /// As [`Reassembly::insert_discarded`].
    pub(super) fn insert_discarded(&mut self, from: PathId, range: Range<u64>) -> Inserted {
        let inserted = self.waiting(from).insert_discarded(from, range);
        self.settle();
        inserted
    }

    /// As [`Reassembly::read`].
    pub(super) fn read(&mut self, max: usize) -> Result<Option<Chunk>, IllegalOrderedRead> {
        let Some(waiting) = &mut self.waiting else { return Ok(None) };
        let chunk = waiting.read(max);
        self.settle();
        chunk
    }

    /// As [`Reassembly::read_unordered`].
    pub(super) fn read_unordered(&mut self, max: usize) -> Option<Chunk> {
        self.waiting(PathId::PRIMARY).read_unordered(max)
    }

    /// As [`Reassembly::discard`].
    pub(super) fn discard(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.discard();
            self.settle();
        }
    }

    /// As [`Reassembly::own_slice`].
    pub(super) fn own_slice(&mut self, end: u64) {
        if let Some(waiting) = &mut self.waiting {
            waiting.own_slice(end);
        }
    }

    /// As [`Reassembly::has_slice`].
    pub(super) fn has_slice(&self, end: u64) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.has_slice(end))
    }

    /// What a read of no bytes gives, at once.
    pub(super) fn empty_chunk(&self) -> Chunk {
        Chunk { offset: StreamOffset(self.consumed()), data: Bytes::new(), source: None }
    }

    /// As [`Reassembly::is_readable`].
    pub(super) fn is_readable(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.is_readable())
    }

    /// As [`Reassembly::consumed`].
    pub(super) fn consumed(&self) -> u64 {
        self.waiting.as_ref().map_or(self.read_to, |waiting| waiting.consumed())
    }

    /// As [`Reassembly::floor`].
    pub(super) fn floor(&self) -> u64 {
        self.waiting.as_ref().map_or(self.read_to, |waiting| waiting.floor())
    }

    /// How many bytes were received.
    pub(super) fn received_bytes(&self) -> u64 {
        self.waiting.as_ref().map_or(self.read_to, |waiting| waiting.received().total())
    }

    /// The parts of a range that were not received, in order.
    pub(super) fn missing_in(&self, range: Range<u64>) -> Vec<Range<u64>> {
        match &self.waiting {
            Some(waiting) => waiting.received().gaps_in(range),
            None => Some(range.start.max(self.read_to)..range.end).into_iter().filter(|gap| !gap.is_empty()).collect(),
        }
    }

    /// The separate ranges that were received: one more than there are gaps between them.
    pub(super) fn spans(&self) -> usize {
        self.waiting.as_ref().map_or_else(|| usize::from(self.read_to > 0), |waiting| waiting.received().len())
    }

    /// As [`Reassembly::main_opener`].
    pub(super) fn main_opener(&self) -> Option<PathId> {
        self.waiting.as_ref()?.main_opener()
    }

    /// As [`Reassembly::buffered_bytes`].
    pub(super) fn buffered_bytes(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.buffered_bytes())
    }

    /// As [`Reassembly::slice_bytes`].
    pub(super) fn slice_bytes(&self) -> &[(PathId, usize)] {
        self.waiting.as_ref().map_or(&[], |waiting| waiting.slice_bytes())
    }

    /// As [`Reassembly::memory_bytes`].
    pub(super) fn memory_bytes(&self) -> usize {
        self.waiting.as_ref().map_or_else(|| self.spans() * SPAN_BYTES, |waiting| waiting.memory_bytes())
    }

    /// Bytes may wait from now on. Who goes on with a stream counts as who began it, which is forgotten.
    fn waiting(&mut self, from: PathId) -> &mut Reassembly {
        self.waiting.get_or_insert_with(|| Box::new(Reassembly::read_to(self.read_to, from)))
    }

    /// Forgets what one number tells.
    fn settle(&mut self) {
        if let Some(end) = self.waiting.as_ref().and_then(|waiting| waiting.is_read_to()) {
            *self = Self { read_to: end, waiting: None };
        }
    }
}
