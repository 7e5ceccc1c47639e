//! The object that a client fetches in pieces: which of them are begun, what is here, and what its readers see of it.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::serve::KEY;
use crate::content::RepeatedContent;

/// What readers of the object have seen so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// Bytes that are here, each counted once.
    pub(super) bytes: u64,
    /// Bytes that came although they were here.
    pub(super) bytes_twice: u64,
    /// The longest time in which the bytes from the object's beginning did not grow.
    gap: Duration,
    /// When they grew last.
    grew_at: Instant,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self { bytes: 0, bytes_twice: 0, gap: Duration::ZERO, grew_at: now }
    }

    /// The longest gap, if the one that is not over counts until `now`.
    pub(super) fn gap(&self, now: Instant) -> Duration {
        self.gap.max(now.saturating_duration_since(self.grew_at))
    }

    /// The longest gap of those that are over.
    pub(super) fn gap_before_last_growth(&self) -> Duration {
        self.gap
    }
}

/// The object.
pub(super) struct Object {
    bytes: u64,
    piece_bytes: u64,
    pieces: Vec<Piece>,
    /// Pieces that nobody fetches and that are not whole.
    unbegun: BTreeSet<usize>,
    /// The first piece that is not whole.
    first: usize,
    content: RepeatedContent,
    progress: Rc<Cell<Progress>>,
}

/// A part of the object.
#[derive(Clone, Default)]
struct Piece {
    /// How many of its bytes are here, from its beginning on: every fetch brings them in order.
    here: u64,
    /// How many sources fetch it.
    fetches: usize,
}

impl Object {
    pub(super) fn new(bytes: u64, piece_bytes: u64, progress: Rc<Cell<Progress>>) -> Self {
        let count = usize::try_from(bytes.div_ceil(piece_bytes)).expect("as many pieces as memory has room for");
        Self {
            bytes,
            piece_bytes,
            pieces: vec![Piece::default(); count],
            unbegun: (0..count).collect(),
            first: 0,
            content: RepeatedContent::new(KEY),
            progress,
        }
    }

    /// Where a piece lies in the object.
    pub(super) fn range(&self, piece: usize) -> Range<u64> {
        let begin = piece as u64 * self.piece_bytes;
        begin..self.bytes.min(begin + self.piece_bytes)
    }

    /// The first piece to fetch.
    pub(super) fn lowest_unbegun(&self) -> Option<usize> {
        self.unbegun.first().copied()
    }

    /// Of the pieces that one source fetches, the one with most bytes missing.
    pub(super) fn most_missing(&self) -> Option<usize> {
        let fetched_once = (self.first..self.pieces.len()).filter(|piece| self.pieces[*piece].fetches == 1);
        fetched_once.max_by_key(|piece| (self.missing(*piece), Reverse(*piece)))
    }

    fn missing(&self, piece: usize) -> u64 {
        let range = self.range(piece);
        range.end - range.start - self.pieces[piece].here
    }

    /// A source begins to fetch a piece.
    pub(super) fn begin(&mut self, piece: usize) {
        self.unbegun.remove(&piece);
        self.pieces[piece].fetches += 1;
    }

    /// A source fetches a piece no more. Others may do so, if the piece is not whole.
    pub(super) fn end(&mut self, piece: usize) {
        self.pieces[piece].fetches -= 1;
        if self.pieces[piece].fetches == 0 && self.missing(piece) > 0 {
            self.unbegun.insert(piece);
        }
    }

    /// Bytes came for a piece, that begin `at` bytes after its beginning.
    ///
    /// # Panics
    /// If they are not the bytes of that place.
    pub(super) fn on_bytes(&mut self, now: Instant, piece: usize, at: u64, data: &[u8]) {
        let wrong = self.content.first_difference(self.range(piece).start + at, data);
        assert_eq!(wrong, None, "wrong bytes in piece {piece}");
        let (len, here) = (data.len() as u64, &mut self.pieces[piece].here);
        let new = (at + len).saturating_sub(*here);
        *here += new;
        let mut progress = self.progress.get();
        progress.bytes += new;
        progress.bytes_twice += len - new;
        if piece == self.first && new > 0 {
            progress.gap = progress.gap(now);
            progress.grew_at = now;
            while self.first < self.pieces.len() && self.missing(self.first) == 0 {
                self.first += 1;
            }
        }
        self.progress.set(progress);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::VirtualClock;

    #[test]
    fn bytes_count_once_and_gaps_are_those_of_a_reader_in_order() {
        let start = VirtualClock::new().now();
        let at = |millis| start + Duration::from_millis(millis);
        let progress = Rc::new(Cell::new(Progress::new(start)));
        let mut object = Object::new(25, 10, progress.clone());
        let content = RepeatedContent::new(KEY);
        assert_eq!((object.range(2), object.lowest_unbegun()), (20..25, Some(0)));
        object.begin(0);
        object.begin(1);
        object.on_bytes(at(1), 0, 0, &content.at(0, 4));
        // The second piece is whole before the first, which is fetched twice.
        object.on_bytes(at(50), 1, 0, &content.at(10, 10));
        object.end(1);
        object.begin(0);
        object.on_bytes(at(80), 0, 0, &content.at(0, 10));
        assert_eq!((progress.get().bytes, progress.get().bytes_twice), (20, 4));
        assert_eq!(progress.get().gap_before_last_growth(), Duration::from_millis(79));
        assert_eq!(progress.get().gap(at(180)), Duration::from_millis(100));
        assert_eq!((object.lowest_unbegun(), object.most_missing()), (Some(2), None));
    }

    #[test]
    fn pieces_given_back_are_unbegun_unless_another_fetches_them() {
        let start = VirtualClock::new().now();
        let mut object = Object::new(30, 10, Rc::new(Cell::new(Progress::new(start))));
        for piece in [0, 1, 1, 2] {
            object.begin(piece);
        }
        object.on_bytes(start, 0, 0, &RepeatedContent::new(KEY).at(0, 1));
        assert_eq!(object.most_missing(), Some(2), "the second is fetched twice");
        object.end(1);
        assert_eq!((object.lowest_unbegun(), object.most_missing()), (None, Some(1)));
        object.end(1);
        assert_eq!(object.lowest_unbegun(), Some(1));
    }
}
