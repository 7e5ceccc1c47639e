//! Which bytes of the file are asked of a source next.

use std::{collections::BTreeMap, ops::Range};

/// The smallest and the largest chunk, in bytes.
const CHUNK_BYTES: Range<u64> = 64 * 1024..1024 * 1024;

/// Chunks that every source gets at least, when the file is large enough.
const CHUNKS_PER_SOURCE: u64 = 8;

/// Chunks of every source that the window has room for at least.
const WINDOW_CHUNKS_PER_SOURCE: u64 = 4;

/// The ranges of a file that are to be written, and those that somebody is writing.
///
/// Nothing is given out further than a window beyond the first missing byte, so that whoever fills a lost range always
/// finds the client ready to take it.
#[derive(Debug)]
pub(crate) struct Plan {
    length: u64,
    chunk_bytes: u64,
    window_bytes: u64,
    /// Where the part begins that was never given out.
    next: u64,
    /// Start and end of the ranges that are being written.
    taken: BTreeMap<u64, u64>,
    /// Start and end of the ranges that came back.
    returned: BTreeMap<u64, u64>,
}

impl Plan {
    pub(crate) fn new(length: u64, sources: usize, window_bytes: u64) -> Self {
        let sources = (sources as u64).max(1);
        let fair = (length / (CHUNKS_PER_SOURCE * sources)).min(window_bytes / (WINDOW_CHUNKS_PER_SOURCE * sources));
        let chunk_bytes = fair.clamp(CHUNK_BYTES.start, CHUNK_BYTES.end);
        let window_bytes = window_bytes.max(chunk_bytes);
        Self { length, chunk_bytes, window_bytes, next: 0, taken: BTreeMap::new(), returned: BTreeMap::new() }
    }

    /// The next range to write, those that came back first. `None` while there is nothing to give out.
    pub(crate) fn take(&mut self) -> Option<Range<u64>> {
        let (start, end) = self.returned.pop_first().or_else(|| self.take_fresh())?;
        self.taken.insert(start, end);
        Some(start..end)
    }

    /// A range that was taken is over, except for the `missing` parts of it.
    pub(crate) fn settle(&mut self, range: &Range<u64>, missing: &[Range<u64>]) {
        self.taken.remove(&range.start);
        self.returned.extend(missing.iter().map(|part| (part.start, part.end)));
    }

    /// Whether every byte was written.
    pub(crate) fn is_done(&self) -> bool {
        self.next == self.length && self.taken.is_empty() && self.returned.is_empty()
    }

    fn take_fresh(&mut self) -> Option<(u64, u64)> {
        let first_missing = self.taken.first_key_value().map_or(self.next, |(start, _)| *start);
        let (start, end) = (self.next, self.length.min(self.next + self.chunk_bytes));
        if start == end || end - first_missing > self.window_bytes {
            return None;
        }
        self.next = end;
        Some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn every_byte_is_given_out_once() {
        let mut plan = Plan::new(10 * MIB + 1, 1, 4 * MIB);
        let mut end = 0;
        while let Some(range) = plan.take() {
            assert_eq!(range.start, end);
            end = range.end;
            plan.settle(&range, &[]);
        }
        assert_eq!(end, 10 * MIB + 1);
        assert!(plan.is_done());
    }

    #[test]
    fn nothing_is_given_out_beyond_the_window() {
        let mut plan = Plan::new(64 * MIB, 1, 4 * MIB);
        let first = plan.take().unwrap();
        let second = plan.take().unwrap();
        assert_eq!((plan.take(), plan.take()), (Some(2 * MIB..3 * MIB), Some(3 * MIB..4 * MIB)));
        assert_eq!(plan.take(), None, "four chunks fill the window");
        plan.settle(&second, &[]);
        assert_eq!(plan.take(), None, "the first byte is still missing");
        plan.settle(&first, &[]);
        assert_eq!((plan.take(), plan.take()), (Some(4 * MIB..5 * MIB), Some(5 * MIB..6 * MIB)));
        assert_eq!(plan.take(), None, "the third chunk is missing now");
    }

    #[test]
    fn what_came_back_goes_first_and_holds_up_the_end() {
        let mut plan = Plan::new(2 * MIB, 1, 16 * MIB);
        let ranges: Vec<_> = std::iter::from_fn(|| plan.take()).collect();
        let missing = [100..200, 300..400];
        plan.settle(&ranges[0], &missing);
        ranges[1..].iter().for_each(|range| plan.settle(range, &[]));
        assert!(!plan.is_done());
        assert_eq!((plan.take(), plan.take(), plan.take()), (Some(100..200), Some(300..400), None));
        missing.iter().for_each(|range| plan.settle(range, &[]));
        assert!(plan.is_done());
    }

    #[test]
    fn every_source_finds_something_to_do() {
        for (length, sources) in [(4 * MIB, 3), (1024 * MIB, 8), (1024 * MIB, 3)] {
            let mut plan = Plan::new(length, sources, 16 * MIB);
            let chunks = std::iter::from_fn(|| plan.take()).count();
            assert!(chunks >= 4 * sources, "{chunks} chunks of {length} bytes for {sources} sources");
        }
        assert!(Plan::new(0, 3, 0).is_done());
    }
}
