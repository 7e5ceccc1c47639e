//! What the primary writes itself.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::open::Open;
use crate::id::PathId;

/// A range that the stream took, and that did not arrive as far as is known.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) range: Range<u64>,
    pub(super) at: Instant,
    /// How long its delivery was expected to take.
    pub(super) expected: Duration,
    /// Another was asked to write it too.
    pub(super) is_copied: bool,
}

/// Ranges of the primary, from when they are left to it until they arrived.
#[derive(Debug, Default)]
pub(super) struct OwnPart {
    /// The application was not asked for these yet, by start.
    wanted: BTreeMap<u64, u64>,
    /// It was asked for these.
    asked: BTreeMap<u64, u64>,
    /// What it supplied and the stream did not take yet.
    supplied: BTreeMap<u64, Bytes>,
    pub(super) sent: VecDeque<Sent>,
    /// Bytes of `sent`.
    sent_bytes: u64,
    /// Bytes in the stream's buffer.
    buffered: u64,
    /// Bytes that QUIC has and the client did not acknowledge.
    outstanding: u64,
    /// What the client had acknowledged when the distribution began.
    acknowledged_before: Option<u64>,
}

impl OwnPart {
    /// Leaves a range to the primary.
    pub(super) fn assign(&mut self, range: Range<u64>) {
        self.wanted.insert(range.start, range.end);
    }

    /// The next range that the application is to supply.
    pub(super) fn ask(&mut self) -> Option<Range<u64>> {
        let (start, end) = self.wanted.pop_first()?;
        self.asked.insert(start, end);
        Some(start..end)
    }

    /// Bytes of a range that was asked for. What was not is dropped; what is missing of it is asked for again.
    pub(super) fn supply(&mut self, offset: u64, data: &Bytes) {
        let Some(end) = self.asked.remove(&offset) else { return };
        let supplied = offset.saturating_add(data.len() as u64).min(end);
        if supplied < end {
            self.wanted.insert(supplied, end);
        }
        let len = usize::try_from(supplied - offset).unwrap_or(data.len());
        if len > 0 {
            self.supplied.insert(offset, data.slice(..len));
        }
    }

    /// The lowest bytes that were supplied.
    pub(super) fn next_supplied(&self) -> Option<(u64, Bytes)> {
        self.supplied.first_key_value().map(|(offset, data)| (*offset, data.clone()))
    }

    /// The stream took so many of the lowest bytes.
    pub(super) fn on_written(&mut self, now: Instant, expected: Duration, taken: u64) {
        let Some((offset, data)) = self.supplied.pop_first() else { return };
        let taken = taken.min(data.len() as u64);
        let end = offset + taken;
        self.buffered += taken;
        self.sent_bytes += taken;
        if taken > 0 {
            self.sent.push_back(Sent { range: offset..end, at: now, expected, is_copied: false });
        }
        let len = usize::try_from(taken).unwrap_or(data.len());
        if len < data.len() {
            self.supplied.insert(end, data.slice(len..));
        }
    }

    /// What the stream buffers, what QUIC has, and what the client acknowledged in all. Returns what it acknowledged since
    /// the distribution began.
    pub(super) fn on_measured(&mut self, buffered: u64, outstanding: u64, acknowledged: u64) -> u64 {
        (self.buffered, self.outstanding) = (buffered, outstanding);
        // The first that were written arrive first, nearly.
        let on_its_way = buffered.saturating_add(outstanding);
        while let Some(first) = self.sent.front()
            && self.sent_bytes - (first.range.end - first.range.start) >= on_its_way
        {
            self.sent_bytes -= first.range.end - first.range.start;
            self.sent.pop_front();
        }
        let before = *self.acknowledged_before.get_or_insert(acknowledged);
        acknowledged.saturating_sub(before)
    }

    /// Bytes that the stream did not take yet.
    pub(super) fn unwritten(&self) -> u64 {
        let ranges = self.wanted.iter().chain(&self.asked).map(|(start, end)| end - start).sum::<u64>();
        ranges + self.supplied.values().map(|data| data.len() as u64).sum::<u64>()
    }

    /// Bytes that did not arrive, and those of them that did not leave.
    pub(super) fn owes(&self) -> (u64, u64) {
        let unsent = self.unwritten() + self.buffered;
        (unsent + self.outstanding, unsent)
    }

    /// The lowest byte that did not arrive, as far as is known.
    pub(super) fn floor(&self) -> Option<u64> {
        let starts = [&self.wanted, &self.asked].into_iter().filter_map(|ranges| ranges.first_key_value());
        let unwritten = starts.map(|(start, _)| *start).chain(self.supplied.first_key_value().map(|(start, _)| *start));
        unwritten.chain(self.sent.iter().map(|sent| sent.range.start)).min()
    }

    /// What the stream did not take is left to others. Returns how many bytes that are.
    pub(super) fn give_back(&mut self, open: &mut Open) -> u64 {
        let bytes = self.unwritten();
        let ranges = std::mem::take(&mut self.wanted).into_iter().chain(std::mem::take(&mut self.asked));
        ranges.for_each(|(start, end)| open.give_back(start..end, Some(PathId::PRIMARY)));
        for (start, data) in std::mem::take(&mut self.supplied) {
            open.give_back(start..start + data.len() as u64, Some(PathId::PRIMARY));
        }
        bytes
    }
}
