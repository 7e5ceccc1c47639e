//! What of a stream nobody was given yet.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges, disjoint.
#[derive(Debug)]
pub(super) struct Open {
    /// Ends by starts.
    ranges: BTreeMap<u64, u64>,
    left: u64,
}

impl Open {
    /// All of a stream.
    pub(super) fn new(bytes: u64) -> Self {
        let mut open = Self { ranges: BTreeMap::new(), left: 0 };
        open.give_back(0..bytes);
        open
    }

    /// How many bytes there are.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Takes the first bytes of all, at most `max`.
    pub(super) fn take(&mut self, max: u64) -> Option<Range<u64>> {
        let (start, end) = self.ranges.pop_first()?;
        let to = start.saturating_add(max).min(end);
        self.left -= end - start;
        self.give_back(to..end);
        Some(start..to)
    }

    /// A range is to be written by somebody again.
    pub(super) fn give_back(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.left += range.end - range.start;
            self.ranges.insert(range.start, range.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_bytes_are_taken_first_and_each_once() {
        let mut open = Open::new(1000);
        assert_eq!(open.take(100), Some(0..100));
        assert_eq!(open.take(600), Some(100..700));
        open.give_back(50..150);
        assert_eq!(open.left(), 400);
        assert_eq!(open.take(1000), Some(50..150), "what was lost comes first");
        assert_eq!(open.take(1000), Some(700..1000));
        assert!(open.is_empty() && open.take(1).is_none());
    }
}
