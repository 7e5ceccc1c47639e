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

    /// Takes at most `max` bytes, `lead` beyond the first of all if there are some, else as far on as possible.
    pub(super) fn take(&mut self, lead: u64, max: u64) -> Option<Range<u64>> {
        let (first, _) = self.ranges.first_key_value()?;
        let wanted = first.saturating_add(lead);
        let (start, end) = self
            .ranges
            .range(..=wanted)
            .next_back()
            .filter(|(_, end)| **end > wanted)
            .or_else(|| self.ranges.range(wanted..).next())
            .or_else(|| self.ranges.last_key_value())
            .map(|(start, end)| (*start, *end))?;
        let from = wanted.clamp(start, end.saturating_sub(max).max(start));
        let to = from.saturating_add(max).min(end);
        self.ranges.remove(&start);
        self.left -= end - start;
        self.give_back(start..from);
        self.give_back(to..end);
        Some(from..to)
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
    fn chunks_are_taken_ahead_and_each_byte_once() {
        let mut open = Open::new(1000);
        assert_eq!(open.take(0, 100), Some(0..100));
        assert_eq!(open.take(500, 100), Some(600..700));
        assert_eq!(open.take(500, 100), Some(700..800), "what is taken is left out");
        assert_eq!(open.take(5000, 100), Some(900..1000), "as far on as there is something");
        assert_eq!(open.take(0, 600), Some(100..600));
        assert_eq!(open.left(), 100);
        open.give_back(0..100);
        assert_eq!(open.take(0, 1000), Some(0..100), "what was lost comes first");
        assert_eq!(open.take(0, 1000), Some(800..900));
        assert!(open.is_empty() && open.take(0, 1).is_none());
    }
}
