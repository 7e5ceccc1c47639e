//! What of a stream nobody was given yet.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::id::PathId;

/// Ranges, disjoint, each with who was given it last and did not deliver it.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// By start.
    ranges: BTreeMap<u64, OpenRange>,
    left: u64,
}

#[derive(Debug, Clone, Copy)]
struct OpenRange {
    end: u64,
    lost_by: Option<PathId>,
}

impl Open {
    /// How many bytes there are.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Where the first of them is.
    pub(super) fn start(&self) -> Option<u64> {
        self.ranges.first_key_value().map(|(start, _)| *start)
    }

    /// Where the lowest range begins that may be left to `path`: not what it lost last, unless `is_last` says that there
    /// is nobody else.
    pub(super) fn start_for(&self, path: PathId, is_last: bool) -> Option<u64> {
        let suits = |range: &OpenRange| is_last || range.lost_by != Some(path);
        self.ranges.iter().find(|(_, range)| suits(range)).map(|(start, _)| *start)
    }

    /// Takes the first bytes of the range that begins at `start`, at most `max`.
    pub(super) fn take(&mut self, start: u64, max: u64) -> Option<Range<u64>> {
        let OpenRange { end, lost_by } = self.ranges.remove(&start)?;
        let to = start.saturating_add(max).min(end);
        self.left -= end - start;
        self.insert(to..end, lost_by);
        Some(start..to)
    }

    /// Takes bytes of the last range that begins below `limit`, at most `max` and none beyond the limit, that begin at `at`
    /// or as near as there are any.
    pub(super) fn take_ahead(&mut self, at: u64, max: u64, limit: u64) -> Option<Range<u64>> {
        let (start, OpenRange { end, lost_by }) =
            self.ranges.range(..limit).next_back().map(|(at, range)| (*at, *range))?;
        self.ranges.remove(&start);
        let last = end.min(limit);
        let from = at.min(last.saturating_sub(max)).max(start);
        let to = from.saturating_add(max).min(last);
        self.left -= end - start;
        self.insert(start..from, lost_by);
        self.insert(to..end, lost_by);
        Some(from..to)
    }

    /// More of the stream is to be written.
    pub(super) fn add(&mut self, range: Range<u64>) {
        self.insert(range, None);
    }

    /// A range is to be written by somebody again.
    pub(super) fn give_back(&mut self, range: Range<u64>, lost_by: Option<PathId>) {
        self.insert(range, lost_by);
    }

    fn insert(&mut self, mut range: Range<u64>, lost_by: Option<PathId>) {
        if range.is_empty() {
            return;
        }
        self.left += range.end - range.start;
        // Neighbours of the same kind become one, so that what is lost in pieces can be left to somebody in one piece.
        if let Some((start, before)) = self.ranges.range(..range.start).next_back().map(|(start, open)| (*start, *open))
            && before.end == range.start
            && before.lost_by == lost_by
        {
            self.ranges.remove(&start);
            range.start = start;
        }
        if let Some(after) = self.ranges.get(&range.end).copied().filter(|after| after.lost_by == lost_by) {
            self.ranges.remove(&range.end);
            range.end = after.end;
        }
        self.ranges.insert(range.start, OpenRange { end: range.end, lost_by });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: PathId = PathId(1);

    #[test]
    fn lowest_bytes_are_taken_first_and_each_once() {
        let mut open = Open::default();
        open.add(0..1000);
        assert_eq!(open.take(0, 100), Some(0..100));
        assert_eq!(open.take(100, 600), Some(100..700));
        open.give_back(50..150, None);
        assert_eq!((open.left(), open.start()), (400, Some(50)));
        assert_eq!(open.take(50, 1000), Some(50..150), "what was lost comes first");
        assert_eq!(open.take(700, 1000), Some(700..1000));
        assert!(open.is_empty() && open.take(0, 1).is_none());
    }

    #[test]
    fn bytes_far_ahead_can_be_taken() {
        let mut open = Open::default();
        open.add(0..1000);
        assert_eq!(open.take_ahead(600, 100, 1000), Some(600..700));
        assert_eq!(open.take_ahead(2000, 100, 1000), Some(900..1000), "as near as there are any");
        assert_eq!(open.take_ahead(0, 100, 1000), Some(700..800));
        assert_eq!((open.left(), open.start()), (700, Some(0)));
        assert_eq!(open.take_ahead(900, 100, 850), Some(800..850), "none beyond the limit");
        assert_eq!(open.take_ahead(900, 100, 0), None);
    }

    #[test]
    fn what_a_path_lost_is_left_to_others_first() {
        let mut open = Open::default();
        open.add(0..1000);
        let lost = open.take(0, 100).unwrap();
        open.give_back(lost, Some(PATH));
        assert_eq!(open.start_for(PATH, false), Some(100));
        assert_eq!(open.start_for(PathId(2), false), Some(0));
        assert_eq!(open.start_for(PATH, true), Some(0), "there is nobody else");
    }

    #[test]
    fn neighbours_that_the_same_path_lost_are_one_range() {
        let mut open = Open::default();
        for range in [0..10, 20..30, 10..20] {
            open.give_back(range, Some(PATH));
        }
        open.add(30..40);
        assert_eq!(open.take(0, 100), Some(0..30));
        assert_eq!(open.left(), 10);
    }
}
