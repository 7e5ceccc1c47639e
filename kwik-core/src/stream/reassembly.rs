//! The received bytes of one stream, from several writers, until the application takes them.

use super::buffer::{Buffer, SMALL_BYTES};
use crate::id::{PathId, StreamOffset};
use crate::range_set::RangeSet;
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Small pieces that may be added before neighbours are merged again.
const COMPACT_AFTER: usize = 64;
/// Merging leaves pieces of this size alone, so that no byte is copied often.
const COMPACTED_BYTES: usize = 16 * 1024;

/// A piece of a stream, as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where the piece begins in the stream.
    pub offset: StreamOffset,
    /// The bytes.
    pub data: Bytes,
    /// The path that brought them first.
    pub source: PathId,
}

/// Two sources wrote different bytes at one offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The first byte that differs.
    pub(crate) at: u64,
    /// Who wrote it first, and who wrote it otherwise.
    pub(crate) sources: [PathId; 2],
}

/// What an insertion brought.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Inserted {
    /// The ranges that were not yet received.
    pub(crate) new: SmallVec<[Range<u64>; 2]>,
    /// How many bytes had been received before.
    pub(crate) duplicate_bytes: u64,
}

/// Reading in order is not possible any more: bytes were read out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IllegalOrderedRead;

/// The bytes of one stream. The first writer of a byte wins; later ones are compared while the byte is buffered.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    pieces: BTreeMap<u64, Piece>,
    received: RangeSet,
    /// Who opened each received span, by where it began. Holds some that were joined since.
    openers: BTreeMap<u64, PathId>,
    read_offset: u64,
    read_unordered: bool,
    consumed: u64,
    buffered: usize,
    memory: usize,
    small: usize,
    small_after_compaction: usize,
}

#[derive(Debug)]
struct Piece {
    data: Buffer,
    source: PathId,
}

impl Piece {
    fn is_small(&self) -> bool {
        self.data.len() < SMALL_BYTES
    }
}

impl Reassembly {
    /// Takes in bytes. `offset + data.len()` must not exceed `u64::MAX`. A conflict changes nothing.
    pub(crate) fn insert(&mut self, from: PathId, offset: u64, data: Bytes) -> Result<Inserted, Conflict> {
        let len = data.len() as u64;
        let range = offset..offset.saturating_add(len);
        if let Some(conflict) = self.conflict(from, offset, &data) {
            return Err(conflict);
        }
        let inserted = self.mark(from, range);
        for new in &inserted.new {
            self.store(from, new.start, slice(&data, offset, new));
        }
        if self.small >= self.small_after_compaction + COMPACT_AFTER {
            self.compact();
        }
        Ok(inserted)
    }

    /// Notes bytes as received and consumed without keeping them.
    pub(crate) fn insert_discarded(&mut self, from: PathId, range: Range<u64>) -> Inserted {
        let inserted = self.mark(from, range);
        self.consumed = self.received.total();
        inserted
    }

    /// The next bytes in order, at most `max`. `None` when they have not arrived.
    pub(crate) fn read(&mut self, max: usize) -> Result<Option<Chunk>, IllegalOrderedRead> {
        if self.read_unordered {
            return Err(IllegalOrderedRead);
        }
        if max == 0 || !self.has_next() {
            return Ok(None);
        }
        Ok(self.take_first(max))
    }

    /// The lowest bytes that wait, wherever they belong, at most `max`. From then on reading in order is an error.
    pub(crate) fn read_unordered(&mut self, max: usize) -> Option<Chunk> {
        self.read_unordered = true;
        if max == 0 { None } else { self.take_first(max) }
    }

    /// Drops what is buffered and counts it as consumed.
    pub(crate) fn discard(&mut self) {
        self.pieces.clear();
        (self.buffered, self.memory, self.small, self.small_after_compaction) = (0, 0, 0, 0);
        self.consumed = self.received.total();
    }

    /// Whether a read would return bytes.
    pub(crate) fn is_readable(&self) -> bool {
        self.has_next() || (self.read_unordered && !self.pieces.is_empty())
    }

    /// Bytes the application took, or that were dropped on its behalf.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Every position ever received.
    pub(crate) fn received(&self) -> &RangeSet {
        &self.received
    }

    /// What the separateness of this stream costs: received spans, or small pieces where that is more.
    pub(crate) fn spans(&self) -> usize {
        self.received.len().max(self.small)
    }

    /// Who made the stream as separate as it is: by the spans it opened, and the small pieces of it that wait. Long runs
    /// of bytes in a row are nobody's fault, in however many pieces they came.
    pub(crate) fn main_source(&self) -> Option<PathId> {
        let mut counts = BTreeMap::<PathId, usize>::new();
        let openers = self.received.iter().filter_map(|span| self.openers.get(&span.start));
        let small = self.pieces.values().filter(|piece| piece.is_small()).map(|piece| &piece.source);
        openers.chain(small).for_each(|source| *counts.entry(*source).or_default() += 1);
        counts.into_iter().max_by_key(|(source, count)| (*count, *source)).map(|(source, _)| source)
    }

    /// Bytes that wait for the application.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.buffered
    }

    /// What the waiting bytes are accounted for, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory + (self.received.len() + self.openers.len()) * super::buffer::ENTRY_BYTES
    }

    fn has_next(&self) -> bool {
        self.pieces.first_key_value().is_some_and(|(&start, _)| start == self.read_offset)
    }

    fn mark(&mut self, from: PathId, range: Range<u64>) -> Inserted {
        let (len, start, before) = (range.end - range.start, range.start, self.received.len());
        let new = SmallVec::from_vec(self.received.gaps_in(range.clone()));
        let duplicate_bytes = len - self.received.insert(range);
        if self.received.len() > before {
            self.openers.insert(start, from);
            if self.openers.len() > 2 * self.received.len() + COMPACT_AFTER {
                let starts: BTreeSet<u64> = self.received.iter().map(|span| span.start).collect();
                self.openers.retain(|start, _| starts.contains(start));
            }
        }
        Inserted { new, duplicate_bytes }
    }

    fn conflict(&self, from: PathId, offset: u64, data: &Bytes) -> Option<Conflict> {
        let end = offset.saturating_add(data.len() as u64);
        let first = self.pieces.range(..=offset).next_back().map_or(offset, |(&start, _)| start);
        self.pieces.range(first..end).find_map(|(&start, piece)| {
            let piece_end = start + piece.data.len() as u64;
            let shared = start.max(offset)..piece_end.min(end);
            let (ours, theirs) = (part(piece.data.as_slice(), start, &shared), part(data, offset, &shared));
            if ours == theirs {
                return None;
            }
            let same = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
            Some(Conflict { at: shared.start + same as u64, sources: [piece.source, from] })
        })
    }

    fn store(&mut self, source: PathId, offset: u64, mut data: Bytes) {
        self.buffered += data.len();
        let mut offset = offset;
        if data.len() < SMALL_BYTES {
            let appended = self.append(source, offset, &data);
            offset += appended as u64;
            let _ = data.split_to(appended);
        }
        if !data.is_empty() {
            self.put(offset, Piece { data: Buffer::new(data), source });
        }
    }

    /// Appends to the piece that ends where the bytes begin, if it is of the same source.
    fn append(&mut self, source: PathId, offset: u64, data: &[u8]) -> usize {
        let Some((&start, piece)) = self.pieces.range_mut(..offset).next_back() else { return 0 };
        if piece.source != source || start + piece.data.len() as u64 != offset {
            return 0;
        }
        let (was_small, memory) = (piece.is_small(), piece.data.memory_bytes());
        let appended = piece.data.append(data);
        self.memory = self.memory - memory + piece.data.memory_bytes();
        self.small -= usize::from(was_small && !piece.is_small());
        appended
    }

    fn put(&mut self, offset: u64, piece: Piece) {
        self.memory += piece.data.memory_bytes();
        self.small += usize::from(piece.is_small());
        self.pieces.insert(offset, piece);
    }

    fn take_first(&mut self, max: usize) -> Option<Chunk> {
        let (start, mut piece) = self.pieces.pop_first()?;
        self.memory -= piece.data.memory_bytes();
        self.small -= usize::from(piece.is_small());
        let data = piece.data.split_to(max);
        let (source, len) = (piece.source, data.len());
        self.buffered -= len;
        self.consumed += len as u64;
        self.read_offset = start + len as u64;
        if piece.data.len() > 0 {
            self.put(self.read_offset, piece);
        }
        self.small_after_compaction = self.small_after_compaction.min(self.small);
        Some(Chunk { offset: StreamOffset(start), data, source })
    }

    /// Merges small neighbours of one source. Bytes that came in descending order, or that filled gaps, end up here.
    fn compact(&mut self) {
        let pieces = std::mem::take(&mut self.pieces);
        (self.memory, self.small) = (0, 0);
        let mut last: Option<(u64, Piece)> = None;
        for (start, piece) in pieces {
            if let Some((last_start, last_piece)) = &mut last {
                let adjacent = *last_start + last_piece.data.len() as u64 == start;
                let fits = last_piece.data.len() + piece.data.len() <= COMPACTED_BYTES;
                let mergeable = adjacent && fits && last_piece.source == piece.source && piece.is_small();
                if mergeable && last_piece.data.append(piece.data.as_slice()) == piece.data.len() {
                    continue;
                }
            }
            if let Some((start, piece)) = last.replace((start, piece)) {
                self.put(start, piece);
            }
        }
        if let Some((start, piece)) = last {
            self.put(start, piece);
        }
        self.small_after_compaction = self.small;
    }
}

/// The part of `data`, which begins at `offset`, that `range` names.
fn part<'a>(data: &'a [u8], offset: u64, range: &Range<u64>) -> &'a [u8] {
    let (start, end) = indices(data.len(), offset, range);
    &data[start..end]
}

fn slice(data: &Bytes, offset: u64, range: &Range<u64>) -> Bytes {
    let (start, end) = indices(data.len(), offset, range);
    data.slice(start..end)
}

fn indices(len: usize, offset: u64, range: &Range<u64>) -> (usize, usize) {
    let index = |position: u64| usize::try_from(position.saturating_sub(offset)).map_or(len, |index| index.min(len));
    let start = index(range.start);
    (start, index(range.end).max(start))
}
