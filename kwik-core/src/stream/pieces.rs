//! The pieces of a stream that wait, in rows of neighbours.

use super::piece::Piece;
use crate::range_set::shrink;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::ops::Range;

/// Pieces by where they begin; none overlaps another. Those without a gap between them are one row. So a stream that comes
/// in order, or in as many parts as there are servers, has few rows, and a piece is added to one of them without moving
/// others.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// In order. None is empty, unless it is the only one.
    rows: SmallVec<[Row; 1]>,
}

#[derive(Debug, Default)]
struct Row(VecDeque<(u64, Piece)>);

impl Row {
    /// Places that an empty row may keep.
    const SPARE: usize = 4;

    fn start(&self) -> u64 {
        self.0.front().map_or(0, |(start, _)| *start)
    }

    fn end(&self) -> u64 {
        self.0.back().map_or(0, end_of)
    }

    /// Takes in the row that follows this one. Of the two, the shorter is moved.
    fn join(&mut self, mut next: Self) {
        if self.0.len() < next.0.len() {
            while let Some(piece) = self.0.pop_back() {
                next.0.push_front(piece);
            }
            *self = next;
        } else {
            self.0.append(&mut next.0);
        }
    }

    /// Gives back places that stay empty.
    fn shrink(&mut self) {
        if self.0.capacity() > 16 + 4 * self.0.len() {
            self.0.shrink_to(2 * self.0.len());
        }
    }
}

fn end_of((start, piece): &(u64, Piece)) -> u64 {
    start + piece.len() as u64
}

impl Pieces {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.first().is_none_or(|row| row.0.is_empty())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.rows.iter().map(|row| row.0.len()).sum()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Where the first piece begins.
    pub(super) fn start(&self) -> Option<u64> {
        self.rows.first()?.0.front().map(|(start, _)| *start)
    }

    /// Adds a piece where there is none.
    pub(super) fn insert(&mut self, start: u64, piece: Piece) {
        let end = start + piece.len() as u64;
        if self.is_empty() {
            self.rows.resize_with(1, Row::default);
            self.rows[0].0.push_back((start, piece));
            return;
        }
        let at = self.row_at(start);
        let follows = at > 0 && self.rows[at - 1].end() == start;
        let is_followed = self.rows.get(at).is_some_and(|row| row.start() == end);
        match (follows, is_followed) {
            (true, false) => self.rows[at - 1].0.push_back((start, piece)),
            (false, true) => self.rows[at].0.push_front((start, piece)),
            (false, false) => self.rows.insert(at, Row(VecDeque::from([(start, piece)]))),
            (true, true) => {
                let next = self.rows.remove(at);
                self.rows[at - 1].0.push_back((start, piece));
                self.rows[at - 1].join(next);
                shrink(&mut self.rows);
            }
        }
    }

    /// The first piece; see [`Self::shorten_first`].
    pub(super) fn first_mut(&mut self) -> Option<(u64, &mut Piece)> {
        self.rows.first_mut()?.0.front_mut().map(|(start, piece)| (*start, piece))
    }

    /// `len` bytes were taken from the front of the first piece. If there are no more in it, it goes.
    pub(super) fn shorten_first(&mut self, len: usize) {
        let Some(row) = self.rows.first_mut() else { return };
        let Some((start, piece)) = row.0.front_mut() else { return };
        *start += len as u64;
        if piece.len() > 0 {
            return;
        }
        row.0.pop_front();
        row.shrink();
        if row.0.is_empty() && (self.rows.len() > 1 || self.rows[0].0.capacity() > Row::SPARE) {
            self.rows.remove(0);
            shrink(&mut self.rows);
        }
    }

    /// The piece that ends at a position.
    pub(super) fn ending_at(&self, end: u64) -> Option<&Piece> {
        let row = &self.rows[self.row_at(end).checked_sub(1)?];
        let place = row.0.partition_point(|piece| end_of(piece) < end);
        row.0.get(place).filter(|piece| end_of(piece) == end).map(|(_, piece)| piece)
    }

    /// As [`Self::ending_at`].
    pub(super) fn ending_at_mut(&mut self, end: u64) -> Option<&mut Piece> {
        let at = self.row_at(end).checked_sub(1)?;
        let row = &mut self.rows[at];
        // Mostly it is the last of a row.
        let place = if row.end() == end {
            row.0.len().saturating_sub(1)
        } else {
            row.0.partition_point(|piece| end_of(piece) < end)
        };
        row.0.get_mut(place).filter(|piece| end_of(piece) == end).map(|(_, piece)| piece)
    }

    /// The pieces that have bytes of a range.
    pub(super) fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Piece)> {
        let first = self.rows.partition_point(|row| row.end() <= range.start);
        let rows = self.rows[first..].iter().take_while(move |row| row.start() < range.end);
        rows.flat_map(move |row| {
            let first = row.0.partition_point(|piece| end_of(piece) <= range.start);
            row.0.range(first..).take_while(move |(start, _)| *start < range.end).map(|(start, piece)| (*start, piece))
        })
    }

    /// All pieces, in order.
    pub(super) fn into_iter(self) -> impl Iterator<Item = (u64, Piece)> {
        self.rows.into_iter().flat_map(|row| row.0)
    }

    /// Where the first row is that begins at a position or behind it.
    fn row_at(&self, position: u64) -> usize {
        match &self.rows[..] {
            [only] => usize::from(only.start() < position),
            rows => rows.partition_point(|row| row.start() < position),
        }
    }
}
