//! A set of positions, kept as few ranges.

use std::ops::Range;

use smallvec::SmallVec;

/// A set of `u64` positions. Its ranges are disjoint and never adjacent, so their number is the least possible. The first
/// one needs no memory of its own, since most sets have one or none; inserting among many moves those behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// In order.
    spans: SmallVec<[Range<u64>; 1]>,
    total: u64,
}

impl RangeSet {
    /// Adds a range. Returns how many of its positions were not in the set.
    pub(crate) fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let len = range.end - range.start;
        // Most ranges go on where the last span ends, or lie behind it.
        match self.spans.last_mut() {
            Some(last) if last.end > range.start => self.insert_among(range),
            Some(last) if last.end == range.start => {
                last.end = range.end;
                self.total += len;
                len
            }
            Some(_) | None => {
                self.spans.push(range);
                self.total += len;
                len
            }
        }
    }

    fn insert_among(&mut self, range: Range<u64>) -> u64 {
        let touched = self.touched(&range);
        let met = &self.spans[touched.clone()];
        let known: u64 = met.iter().map(|span| span.end - span.start).sum();
        let start = met.first().map_or(range.start, |first| first.start.min(range.start));
        let end = met.last().map_or(range.end, |last| last.end.max(range.end));
        if touched.is_empty() {
            self.spans.insert(touched.start, start..end);
        } else {
            self.spans[touched.start] = start..end;
            self.spans.drain(touched.start + 1..touched.end);
            shrink(&mut self.spans);
        }
        let added = end - start - known;
        self.total += added;
        added
    }

    /// Removes a range. Returns how many of its positions were in the set.
    pub(crate) fn remove(&mut self, range: Range<u64>) -> u64 {
        let met = self.overlapped(&range);
        let spans = &self.spans[met.clone()];
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return 0 };
        let (left, right) = (first.start..range.start, range.end..last.end);
        let removed = spans.iter().map(|span| span.end.min(range.end) - span.start.max(range.start)).sum();
        self.spans.drain(met.clone());
        for rest in [right, left].into_iter().filter(|rest| !rest.is_empty()) {
            self.spans.insert(met.start, rest);
        }
        shrink(&mut self.spans);
        self.total -= removed;
        removed
    }

    /// Whether the position is in the set.
    pub(crate) fn contains(&self, position: u64) -> bool {
        self.span_at(position).is_some()
    }

    /// Whether every position of the range is in the set. True of an empty range.
    pub(crate) fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.span_at(range.start).is_some_and(|span| span.end >= range.end)
    }

    /// Whether some position of the range is in the set.
    pub(crate) fn intersects(&self, range: &Range<u64>) -> bool {
        self.overlaps(range.clone()).next().is_some()
    }

    /// The parts of the range that are in the set, in order.
    pub(crate) fn overlaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let spans = &self.spans[self.overlapped(&range)];
        spans.iter().map(move |span| span.start.max(range.start)..span.end.min(range.end))
    }

    /// The ranges that overlap or touch a range, in order.
    pub(crate) fn touching(&self, range: &Range<u64>) -> &[Range<u64>] {
        &self.spans[self.touched(range)]
    }

    /// The parts of the range that are not in the set, in order.
    pub(crate) fn gaps_in(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut position = range.start;
        for part in self.overlaps(range.clone()) {
            if position < part.start {
                gaps.push(position..part.start);
            }
            position = part.end;
        }
        if position < range.end {
            gaps.push(position..range.end);
        }
        gaps
    }

    /// The ranges, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.spans.iter().cloned()
    }

    /// The number of ranges.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the set has no position.
    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The first range.
    pub(crate) fn first(&self) -> Option<Range<u64>> {
        self.spans.first().cloned()
    }

    /// The position after the last one; 0 when the set is empty.
    pub(crate) fn end(&self) -> u64 {
        self.spans.last().map_or(0, |last| last.end)
    }

    /// The number of positions.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The range that holds the position.
    pub(crate) fn span_at(&self, position: u64) -> Option<Range<u64>> {
        self.spans.get(self.index_of(position)).filter(|span| span.contains(&position)).cloned()
    }

    /// Where the first span is that ends after a position.
    fn index_of(&self, position: u64) -> usize {
        match &self.spans[..] {
            [] => 0,
            [only] => usize::from(only.end <= position),
            spans => spans.partition_point(|span| span.end <= position),
        }
    }

    /// The places of the spans that have positions of the range.
    fn overlapped(&self, range: &Range<u64>) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        let first = self.index_of(range.start);
        first..first + self.spans[first..].partition_point(|span| span.start < range.end)
    }

    /// The places of the spans that have positions of the range, or are next to it.
    fn touched(&self, range: &Range<u64>) -> Range<usize> {
        let first = self.spans.partition_point(|span| span.end < range.start);
        first..first + self.spans[first..].partition_point(|span| span.start <= range.end)
    }
}

/// Gives back the room of a short list that was much longer.
pub(crate) fn shrink<T>(list: &mut SmallVec<[T; 1]>) {
    if list.capacity() > 16 + 4 * list.len() {
        list.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPACE: usize = 64;

    /// The set as one flag for each position.
    #[derive(Default)]
    struct Naive(Vec<bool>);

    fn index(position: u64) -> usize {
        usize::try_from(position).expect("within the space")
    }

    impl Naive {
        fn set(&mut self, range: Range<u64>, value: bool) -> u64 {
            self.0.resize(SPACE, false);
            let slice = &mut self.0[index(range.start)..index(range.end)];
            let changed = slice.iter().filter(|bit| **bit != value).count();
            slice.fill(value);
            changed as u64
        }

        fn runs(&self, range: Range<u64>, value: bool) -> Vec<Range<u64>> {
            let mut set: Vec<Range<u64>> = Vec::new();
            for position in range.filter(|position| self.0[index(*position)] == value) {
                match set.last_mut() {
                    Some(last) if last.end == position => last.end += 1,
                    _ => set.push(position..position + 1),
                }
            }
            set
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_flag_for_each_position(
            operations in prop::collection::vec((any::<bool>(), 0..SPACE as u64, 0..SPACE as u64), 1..60),
            probe in (0..SPACE as u64, 0..SPACE as u64),
        ) {
            let (mut set, mut naive) = (RangeSet::default(), Naive::default());
            for (add, a, b) in operations {
                let range = a.min(b)..a.max(b);
                let changed = if add { set.insert(range.clone()) } else { set.remove(range.clone()) };
                prop_assert_eq!(changed, naive.set(range, add));
                let whole = naive.runs(0..SPACE as u64, true);
                prop_assert_eq!(set.iter().collect::<Vec<_>>(), whole.clone());
                prop_assert_eq!(set.len(), whole.len());
                prop_assert_eq!(set.total(), whole.iter().map(|run| run.end - run.start).sum::<u64>());
                prop_assert_eq!(set.end(), whole.last().map_or(0, |run| run.end));
                prop_assert_eq!(set.first(), whole.first().cloned());
            }
            let probe = probe.0.min(probe.1)..probe.0.max(probe.1);
            let (inside, outside) = (naive.runs(probe.clone(), true), naive.runs(probe.clone(), false));
            prop_assert_eq!(set.covers(&probe), outside.is_empty());
            prop_assert_eq!(set.intersects(&probe), !inside.is_empty());
            prop_assert_eq!(set.contains(probe.start), naive.0[index(probe.start)]);
            prop_assert_eq!(set.overlaps(probe.clone()).collect::<Vec<_>>(), inside);
            prop_assert_eq!(set.gaps_in(probe.clone()), outside);
            let touching = set.iter().filter(|span| span.start <= probe.end && span.end >= probe.start);
            prop_assert_eq!(set.touching(&probe).to_vec(), touching.collect::<Vec<_>>());
        }
    }

    #[test]
    fn holds_the_ends_of_the_number_space() {
        let mut set = RangeSet::default();
        assert_eq!(set.insert(u64::MAX - 1..u64::MAX), 1);
        assert_eq!(set.insert(0..1), 1);
        assert_eq!(set.gaps_in(0..u64::MAX), vec![1..u64::MAX - 1]);
        assert_eq!(set.insert(0..u64::MAX), u64::MAX - 2);
        assert_eq!(set.len(), 1);
    }
}
