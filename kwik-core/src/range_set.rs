//! A set of positions, kept as few ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of `u64` positions. Its ranges are disjoint and never adjacent, so their number is the least possible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    spans: BTreeMap<u64, u64>,
    total: u64,
}

impl RangeSet {
    /// Adds a range. Returns how many of its positions were not in the set.
    pub(crate) fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let before = self.total;
        // What goes on where a span ends makes that longer, as most often.
        if self.spans.range(range.start..=range.end).next().is_none()
            && let Some((_, end)) = self.spans.range_mut(..range.start).next_back()
            && *end == range.start
        {
            *end = range.end;
            self.total += range.end - range.start;
            return range.end - range.start;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&span_start, &span_end)) = self.spans.range(..=end).next_back() {
            if span_end < start {
                break;
            }
            start = start.min(span_start);
            end = end.max(span_end);
            self.take_span(span_start, span_end);
        }
        self.put_span(start, end);
        self.total - before
    }

    /// Removes a range. Returns how many of its positions were in the set.
    pub(crate) fn remove(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let before = self.total;
        while let Some((&span_start, &span_end)) = self.spans.range(..range.end).next_back() {
            if span_end <= range.start {
                break;
            }
            self.take_span(span_start, span_end);
            if span_start < range.start {
                self.put_span(span_start, range.start);
            }
            if span_end > range.end {
                self.put_span(range.end, span_end);
            }
        }
        before - self.total
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
        let first = self.span_at(range.start).map_or(range.start, |span| span.start);
        let (start, end) = (range.start, range.end.max(range.start));
        self.spans
            .range(first..end.max(first))
            .map(move |(&span_start, &span_end)| span_start.max(start)..span_end.min(end))
            .filter(|part| !part.is_empty())
    }

    /// The ranges that overlap or touch a range, in order.
    pub(crate) fn touching(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let before = self.spans.range(..range.start).next_back().filter(|(_, end)| **end >= range.start);
        before.into_iter().chain(self.spans.range(range.start..=range.end)).map(|(&start, &end)| start..end)
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
        self.spans.iter().map(|(&start, &end)| start..end)
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
        self.iter().next()
    }

    /// The position after the last one; 0 when the set is empty.
    pub(crate) fn end(&self) -> u64 {
        self.spans.last_key_value().map_or(0, |(_, &end)| end)
    }

    /// The number of positions.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The range that holds the position.
    pub(crate) fn span_at(&self, position: u64) -> Option<Range<u64>> {
        let (&start, &end) = self.spans.range(..=position).next_back()?;
        (position < end).then_some(start..end)
    }

    fn put_span(&mut self, start: u64, end: u64) {
        self.spans.insert(start, end);
        self.total += end - start;
    }

    fn take_span(&mut self, start: u64, end: u64) {
        self.spans.remove(&start);
        self.total -= end - start;
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
            prop_assert_eq!(set.touching(&probe).collect::<Vec<_>>(), touching.collect::<Vec<_>>());
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
