//! Who writes what: the question, and the simple answers to it that [`Adaptive`](super::Adaptive) is compared with.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use crate::id::PathId;

/// What is known of a source when a policy is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceView {
    /// Its path; path 0 is the primary itself.
    pub path: PathId,
    /// What it delivers, in bytes a second, measured while it had enough to do; 0 as long as it is unknown.
    pub rate: u64,
    /// Whether it may soon deliver far more, since it did not fail to keep up yet.
    pub is_starting: bool,
    /// Whether its path is active. Before, it can be granted ranges as well.
    pub is_joined: bool,
    /// It stopped to deliver, and nothing came of what it was given since. It writes far ahead of the reader.
    pub is_on_probation: bool,
    /// Whether it can take a range now, and there is one for it.
    pub can_take: bool,
    /// Bytes that were left to it and did not arrive, as far as is known.
    pub owes: u64,
    /// Of those, the ones that the primary itself has not sent; 0 of others.
    pub unsent: u64,
    /// Bytes that it delivered.
    pub delivered: u64,
    /// Ranges that it has.
    pub ranges: usize,
    /// From when a range is left to it until it is known that it arrived, at the least.
    pub control_loop: Duration,
    /// When the first byte of a range that is left to it now would arrive.
    pub ready_in: Duration,
}

impl SourceView {
    /// Whether it is the primary itself.
    pub(super) fn is_own(&self) -> bool {
        self.path.is_primary()
    }
}

/// What is known when a policy is asked.
#[derive(Debug)]
pub struct View<'a> {
    /// The time.
    pub now: Instant,
    /// Those that can write.
    pub sources: &'a [SourceView],
    /// Bytes that nobody was given.
    pub left: u64,
    /// Bytes of all that is to be distributed, as far as known.
    pub total: u64,
    /// How far ahead of the lowest byte that did not arrive the client lets the stream be written, in bytes.
    pub window: u64,
    /// All that the client lets be written was given to somebody: whoever is through waits for those who are not.
    pub is_blocked: bool,
}

/// A range that a source has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRange {
    /// The index of the source among [`View::sources`].
    pub source: usize,
    /// Bytes of it that did not arrive, as far as is known.
    pub missing: u64,
    /// Bytes that the source owes before it, and of it.
    pub owed_up_to: u64,
    /// How far behind the lowest byte that did not arrive it begins.
    pub ahead: u64,
    /// For how long the source has it.
    pub age: Duration,
    /// How long its delivery was expected to take when it was given.
    pub expected: Duration,
    /// The source stopped to deliver, or nearly.
    pub is_stalled: bool,
}

/// What is left to a source: the lowest bytes that it may have, so many at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// The index of the source among [`View::sources`].
    pub source: usize,
    /// Bytes.
    pub bytes: u64,
}

/// Decides who writes what. A [`Distributor`](super::Distributor) asks again until there is nothing more to assign or to
/// take back, whenever something happened.
pub trait Policy: Debug + Send {
    /// Who gets the lowest bytes that nobody was given, and how many. Only a source that can take some.
    fn next(&mut self, view: &View<'_>) -> Option<Assignment>;

    /// Whether a source is to lose what it has of a range, for another to write it.
    fn takes_back(&mut self, view: &View<'_>, held: &HeldRange) -> bool;
}

/// As many bytes for each source, decided at the beginning. Nothing is taken back from a source that still delivers.
#[derive(Debug, Default)]
pub struct EqualSplit {
    share: Option<u64>,
}

impl Policy for EqualSplit {
    fn next(&mut self, view: &View<'_>) -> Option<Assignment> {
        let sources = view.sources.len().max(1) as u64;
        let share = *self.share.get_or_insert_with(|| view.total.div_ceil(sources));
        let free = |source: &SourceView| source.can_take && source.owes.saturating_add(source.delivered) < share;
        let unused = |source: &SourceView| source.can_take && source.ranges == 0 && source.owes == 0;
        let source = view.sources.iter().position(free).or_else(|| view.sources.iter().position(unused))?;
        Some(Assignment { source, bytes: share })
    }

    fn takes_back(&mut self, _: &View<'_>, held: &HeldRange) -> bool {
        held.is_stalled
    }
}

/// Chunks of one size, so many under way at each source.
#[derive(Debug)]
pub struct FixedChunks {
    /// Bytes of a chunk.
    pub bytes: u64,
    /// Chunks of one source at a time.
    pub under_way: u64,
}

impl Default for FixedChunks {
    fn default() -> Self {
        Self { bytes: 1024 * 1024, under_way: 3 }
    }
}

impl Policy for FixedChunks {
    fn next(&mut self, view: &View<'_>) -> Option<Assignment> {
        let most = self.bytes.saturating_mul(self.under_way);
        let free =
            |(_, source): &(usize, &SourceView)| source.can_take && source.owes.saturating_add(self.bytes) <= most;
        let sources = view.sources.iter().enumerate().filter(free);
        let (source, _) = sources.min_by_key(|(_, source)| source.owes)?;
        Some(Assignment { source, bytes: self.bytes })
    }

    fn takes_back(&mut self, _: &View<'_>, held: &HeldRange) -> bool {
        held.is_stalled
    }
}

/// Large pieces, each to the source that was fastest lately among those that do not have too many. Nothing is taken back
/// from a source that still delivers.
#[derive(Debug, Default)]
pub struct Pieces;

impl Pieces {
    const BYTES: u64 = 4 * 1024 * 1024;
    const UNDER_WAY: u64 = 8;
}

impl Policy for Pieces {
    fn next(&mut self, view: &View<'_>) -> Option<Assignment> {
        let under_way: u64 = view.sources.iter().map(|source| source.owes.div_ceil(Self::BYTES)).sum();
        if under_way >= Self::UNDER_WAY {
            return None;
        }
        let free = view.sources.iter().enumerate().filter(|(_, source)| source.can_take);
        // Who was not tried is tried.
        let order = |source: &SourceView| if source.rate == 0 && source.owes == 0 { u64::MAX } else { source.rate };
        let (source, _) = free.max_by_key(|(index, source)| (order(source), usize::MAX - index))?;
        Some(Assignment { source, bytes: Self::BYTES })
    }

    fn takes_back(&mut self, _: &View<'_>, held: &HeldRange) -> bool {
        held.is_stalled
    }
}
