//! A plain set of ranges: a second oracle, written apart from the core's set of ranges, which is under test.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Disjoint ranges by their start.
#[derive(Default, Clone)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        self.0.iter().try_for_each(|(start, end)| write!(f, " {start}..{end}"))?;
        f.write_str(" }")
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a range and returns how many of its offsets were new.
    pub(super) fn insert(&mut self, range: Range<u64>) -> u64 {
        let Range { mut start, mut end } = range;
        if start >= end {
            return 0;
        }
        let before = self.total_in(start..end);
        let len = end - start;
        let touching: Vec<u64> =
            self.0.range(..=end).rev().take_while(|(_, stop)| **stop >= start).map(|(begin, _)| *begin).collect();
        for begin in touching {
            if let Some(stop) = self.0.remove(&begin) {
                start = start.min(begin);
                end = end.max(stop);
            }
        }
        self.0.insert(start, end);
        len - before
    }

    pub(super) fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.0.range(..=range.start).next_back().is_some_and(|(_, end)| *end >= range.end)
    }

    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    fn total_in(&self, range: Range<u64>) -> u64 {
        let overlap = |(start, end): (&u64, &u64)| (*end).min(range.end).saturating_sub((*start).max(range.start));
        self.0.range(..range.end).rev().take_while(|(_, end)| **end > range.start).map(overlap).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_count_what_is_new() {
        let mut ranges = Ranges::default();
        assert_eq!(ranges.insert(10..20), 10);
        assert_eq!(ranges.insert(30..40), 10);
        assert_eq!(ranges.insert(15..35), 10);
        assert_eq!(ranges.insert(5..50), 15);
        assert_eq!(ranges.insert(7..7), 0);
        assert!(ranges.covers(&(5..50)) && !ranges.covers(&(4..6)) && ranges.covers(&(99..99)));
        assert_eq!(ranges.insert(50..60), 10);
        assert_eq!((ranges.total(), ranges.0.len()), (55, 1));
    }
}
