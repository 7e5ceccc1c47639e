//! The received bytes of one stream, from several writers, until the application takes them.

use super::piece::{GATHERED_BYTES_MAX, PIECE_BYTES, Piece, SLICE_BYTES_MIN};
use super::pieces::Pieces;
use super::slices::SliceBytes;
use crate::id::{PathId, StreamOffset};
use crate::range_set::{RangeSet, shrink};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use std::collections::BTreeMap;
use std::ops::Range;

/// What a span costs: its places among the spans and their openers.
pub(super) const SPAN_BYTES: usize = 64;
/// What pieces may cost beyond what their bytes and spans justify before they are gathered, bytes.
pub(super) const GATHER_SLACK_BYTES: usize = 8 * 1024;
/// Neighbours of one source are gathered if one of them is shorter than this.
const GATHER_BELOW: usize = 4 * 1024;
/// Neighbours of different sources too: who brought a few bytes between others is not worth what it costs to know.
const MIX_BELOW: usize = 512;

/// A piece of a stream, as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where the piece begins in the stream.
    pub offset: StreamOffset,
    /// The bytes.
    pub data: Bytes,
    /// The path that brought them first. `None` if several did, some few bytes each, and had to wait so long that they
    /// were put together.
    pub source: Option<PathId>,
}

/// Two writers wrote different bytes at one offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The first byte that differs.
    pub(crate) at: u64,
    /// Who wrote it first; `None` if that was one of several.
    pub(crate) first: Option<PathId>,
    /// Who wrote another byte there later.
    pub(crate) second: PathId,
}

/// The result of an insertion.
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
    pub(super) pieces: Pieces,
    received: RangeSet,
    /// Who opened each received span, by where it begins.
    pub(super) openers: SmallVec<[(u64, PathId); 1]>,
    read_offset: u64,
    read_unordered: bool,
    consumed: u64,
    buffered: usize,
    memory: usize,
    /// The part of `buffered` that is slices.
    slices: SliceBytes,
}

impl Reassembly {
    /// As if everything below `end` had come over one path and been read in order.
    pub(super) fn read_to(end: u64, from: PathId) -> Self {
        let mut assembly = Self { read_offset: end, consumed: end, ..Self::default() };
        if assembly.received.insert(0..end) > 0 {
            assembly.openers.push((0, from));
        }
        assembly
    }

    /// Where the bytes end, if they have no gap, and all were read in order or dropped.
    pub(super) fn is_read_to(&self) -> Option<u64> {
        let is_whole = self.received.total() == self.received.end();
        let end = self.received.end();
        (self.pieces.is_empty() && !self.read_unordered && is_whole && self.consumed == end).then_some(end)
    }

    /// Takes in bytes. `offset + data.len()` must not exceed `u64::MAX`. A conflict changes nothing.
    pub(crate) fn insert(&mut self, from: PathId, offset: u64, data: Bytes) -> Result<Inserted, Conflict> {
        let range = offset..offset.saturating_add(data.len() as u64);
        if offset >= self.received.end() && !data.is_empty() {
            return Ok(self.insert_last(from, range, data));
        }
        let spans = self.spans_at(&range);
        if !is_new(&range, &spans)
            && let Some(conflict) = self.conflict(from, offset, &data)
        {
            return Err(conflict);
        }
        let inserted = self.mark(from, range, &spans);
        for new in &inserted.new {
            self.store(from, new.start, slice(&data, offset, new));
        }
        self.gather_if_due();
        Ok(inserted)
    }

    /// Takes in bytes behind all others, as most often.
    fn insert_last(&mut self, from: PathId, range: Range<u64>, data: Bytes) -> Inserted {
        let opens = self.received.is_empty() || range.start > self.received.end();
        self.received.insert(range.clone());
        if opens {
            self.openers.push((range.start, from));
        }
        self.store(from, range.start, data);
        self.gather_if_due();
        Inserted { new: smallvec![range], duplicate_bytes: 0 }
    }

    /// Notes bytes as received and consumed without keeping them.
    pub(crate) fn insert_discarded(&mut self, from: PathId, range: Range<u64>) -> Inserted {
        let spans = self.spans_at(&range);
        let inserted = self.mark(from, range, &spans);
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
        (self.buffered, self.memory) = (0, 0);
        self.slices.clear();
        self.consumed = self.received.total();
    }

    /// Copies the slice that ends at `end` into memory of its own, if one does.
    pub(crate) fn own_slice(&mut self, end: u64) {
        let Some(piece) = self.pieces.ending_at_mut(end).filter(|piece| piece.is_slice()) else { return };
        let own = Piece::own(piece.source, piece.as_slice());
        let (slice, memory) = (std::mem::replace(piece, own), piece.memory_bytes());
        self.on_taken(&slice);
        self.memory += memory;
    }

    /// Whether a slice that waits ends at `end`.
    pub(crate) fn has_slice(&self, end: u64) -> bool {
        self.pieces.ending_at(end).is_some_and(Piece::is_slice)
    }

    /// Whether a read would return bytes.
    pub(crate) fn is_readable(&self) -> bool {
        self.has_next() || (self.read_unordered && !self.pieces.is_empty())
    }

    /// Bytes the application took, or that were dropped on its behalf.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Below it everything was taken, or dropped on behalf of the application.
    pub(crate) fn floor(&self) -> u64 {
        let gap = self.received.span_at(0).map_or(0, |span| span.end);
        self.pieces.start().map_or(gap, |start| gap.min(start))
    }

    /// Every position ever received.
    pub(crate) fn received(&self) -> &RangeSet {
        &self.received
    }

    /// The path that opened most of the spans. Bytes in a row are one span, in however many pieces they came, so they
    /// are nobody's fault.
    pub(crate) fn main_opener(&self) -> Option<PathId> {
        let mut counts = BTreeMap::<PathId, usize>::new();
        self.openers.iter().for_each(|(_, opener)| *counts.entry(*opener).or_default() += 1);
        counts.into_iter().max_by_key(|(opener, count)| (*count, *opener)).map(|(opener, _)| opener)
    }

    /// Bytes that wait for the application.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.buffered
    }

    /// Those of them that wait as slices of datagrams.
    pub(super) fn slice_bytes(&self) -> &SliceBytes {
        &self.slices
    }

    /// What the waiting bytes are accounted for, in bytes, beside what slices keep of their datagrams.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory + self.received.len() * SPAN_BYTES
    }

    fn has_next(&self) -> bool {
        self.pieces.start() == Some(self.read_offset)
    }

    /// The received spans that overlap or touch a range.
    fn spans_at(&self, range: &Range<u64>) -> SmallVec<[Range<u64>; 2]> {
        if range.start > self.received.end() { SmallVec::new() } else { self.received.touching(range).into() }
    }

    fn mark(&mut self, from: PathId, range: Range<u64>, spans: &[Range<u64>]) -> Inserted {
        let (len, start) = (range.end - range.start, range.start);
        if len == 0 {
            return Inserted::default();
        }
        let new = if is_new(&range, spans) {
            smallvec![range.clone()]
        } else {
            // Looked up before the range fills its gaps.
            SmallVec::from_vec(self.received.gaps_in(range.clone()))
        };
        let duplicate_bytes = len - self.received.insert(range);
        // A span stays that of who opened it, however it grows.
        let Some((first, rest)) = spans.split_first() else {
            self.openers.insert(self.opener_at(start), (start, from));
            return Inserted { new, duplicate_bytes };
        };
        let at = self.opener_at(first.start);
        // Spans that are joined become one, which belongs to who opened the first of them.
        self.openers.drain(at + 1..at + 1 + rest.len());
        self.openers[at].0 = start.min(first.start);
        shrink(&mut self.openers);
        Inserted { new, duplicate_bytes }
    }

    /// Where the opener is of the first span that begins at a position or behind it.
    fn opener_at(&self, position: u64) -> usize {
        self.openers.partition_point(|(start, _)| *start < position)
    }

    fn conflict(&self, from: PathId, offset: u64, data: &Bytes) -> Option<Conflict> {
        let end = offset.saturating_add(data.len() as u64);
        // Only bytes that wait can be compared.
        self.pieces.overlapping(offset..end).find_map(|(start, piece)| {
            let piece_end = start + piece.len() as u64;
            let shared = start.max(offset)..piece_end.min(end);
            let (ours, theirs) = (part(piece.as_slice(), start, &shared), part(data, offset, &shared));
            if ours == theirs {
                return None;
            }
            let same = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
            Some(Conflict { at: shared.start + same as u64, first: piece.source, second: from })
        })
    }

    fn store(&mut self, source: PathId, offset: u64, data: Bytes) {
        self.buffered += data.len();
        if data.len() >= SLICE_BYTES_MIN {
            self.put(offset, Piece::slice(source, data));
        } else if !self.append(Some(source), offset, &data) {
            self.put(offset, Piece::own(Some(source), &data));
        }
    }

    /// Appends to the piece that ends where the bytes begin, if it is of the same source and has room.
    fn append(&mut self, source: Option<PathId>, offset: u64, data: &[u8]) -> bool {
        let piece = self.pieces.ending_at_mut(offset).filter(|piece| piece.source == source);
        let Some(piece) = piece else { return false };
        let before = piece.memory_bytes();
        let appended = piece.append(data);
        self.memory = self.memory - before + piece.memory_bytes();
        appended
    }

    fn put(&mut self, offset: u64, piece: Piece) {
        self.memory += piece.memory_bytes();
        if let Some(source) = piece.source.filter(|_| piece.is_slice()) {
            match self.slices.iter_mut().find(|(path, _)| *path == source) {
                Some((_, bytes)) => *bytes += piece.len(),
                None => self.slices.push((source, piece.len())),
            }
        }
        self.pieces.insert(offset, piece);
    }

    fn on_taken(&mut self, piece: &Piece) {
        self.memory -= piece.memory_bytes();
        if piece.is_slice() {
            self.count_slice(piece.source, piece.len());
        }
    }

    /// So many bytes of slices of a source do not wait any more.
    fn count_slice(&mut self, source: Option<PathId>, len: usize) {
        let Some(index) = self.slices.iter().position(|(path, _)| Some(*path) == source) else { return };
        self.slices[index].1 -= len;
        if self.slices[index].1 == 0 {
            self.slices.swap_remove(index);
        }
    }

    fn take_first(&mut self, max: usize) -> Option<Chunk> {
        let (start, piece) = self.pieces.first_mut()?;
        let (before, is_slice) = (piece.memory_bytes(), piece.is_slice());
        let (data, source) = (piece.split_to(max), piece.source);
        // What stays of the piece is accounted anew: a split may move it to other memory.
        let (len, after) = (data.len(), if piece.len() > 0 { piece.memory_bytes() } else { 0 });
        self.pieces.shorten_first(len);
        if is_slice {
            self.count_slice(source, len);
        }
        self.memory = self.memory - before + after;
        self.buffered -= len;
        self.consumed += len as u64;
        self.read_offset = start + len as u64;
        Some(Chunk { offset: StreamOffset(start), data, source })
    }

    fn gather_if_due(&mut self) {
        // Each span needs a piece of its own. Beyond that, pieces may cost three eighths of their bytes.
        let justified = self.buffered + self.buffered / 8 * 3 + self.received.len() * PIECE_BYTES;
        if self.memory > justified + GATHER_SLACK_BYTES {
            self.gather();
        }
    }

    /// Puts short neighbours together, so that what pieces cost stays a part of their bytes. It takes many new pieces
    /// before that is due again.
    fn gather(&mut self) {
        // Everything is taken out and put back, so both sums are made anew.
        let pieces = std::mem::take(&mut self.pieces);
        self.memory = 0;
        self.slices.clear();
        let mut run = Run::default();
        for (start, piece) in pieces.into_iter() {
            if !run.takes(start, &piece)
                && let Some((start, gathered)) = std::mem::take(&mut run).finish()
            {
                self.put(start, gathered);
            }
            run.push(start, piece);
        }
        if let Some((start, gathered)) = run.finish() {
            self.put(start, gathered);
        }
    }
}

/// Neighbours that become one piece.
#[derive(Default)]
struct Run {
    start: u64,
    len: usize,
    source: Option<PathId>,
    pieces: SmallVec<[Piece; 4]>,
}

impl Run {
    fn takes(&self, start: u64, piece: &Piece) -> bool {
        let is_next = self.start + self.len as u64 == start && self.len + piece.len() <= GATHERED_BYTES_MAX;
        let short = if self.source == piece.source { GATHER_BELOW } else { MIX_BELOW };
        self.pieces.is_empty() || (is_next && self.len.min(piece.len()) < short)
    }

    fn push(&mut self, start: u64, piece: Piece) {
        if self.pieces.is_empty() {
            (self.start, self.source) = (start, piece.source);
        }
        if self.source != piece.source {
            self.source = None;
        }
        self.len += piece.len();
        self.pieces.push(piece);
    }

    fn finish(mut self) -> Option<(u64, Piece)> {
        if self.pieces.len() < 2 {
            return Some((self.start, self.pieces.pop()?));
        }
        Some((self.start, Piece::gather(self.source, self.len, &self.pieces)))
    }
}

/// Whether nothing of a range was received, by the spans it meets.
fn is_new(range: &Range<u64>, spans: &[Range<u64>]) -> bool {
    spans.iter().all(|span| span.end <= range.start || span.start >= range.end)
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
