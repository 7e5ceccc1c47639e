//! What a distribution came to.

use crate::id::PathId;

/// What one source did in a distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceReport {
    /// Its path; path 0 is the primary itself.
    pub path: PathId,
    /// Bytes that arrived of it; of the primary, bytes that it wrote.
    pub bytes: u64,
    /// Ranges that it was given.
    pub ranges: u64,
    /// Bytes that were taken back from it, to be written by another.
    pub taken_back_bytes: u64,
    /// Bytes that it gave back of itself, or lost when its path died.
    pub lost_bytes: u64,
    /// How often it stopped to deliver, or nearly, while it had something to do.
    pub stalls: u64,
}

impl SourceReport {
    pub(super) fn new(path: PathId) -> Self {
        Self { path, bytes: 0, ranges: 0, taken_back_bytes: 0, lost_bytes: 0, stalls: 0 }
    }
}

/// How a distribution stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DistributionReport {
    /// Bytes that were written or delivered.
    pub bytes: u64,
    /// Every source that there was, in the order they were added.
    pub sources: Vec<SourceReport>,
}
