//! What one peer may do on one path without getting anywhere.

use std::time::Instant;

use crate::allowance::Allowance;
use crate::limits::Limits;

/// Counts what achieves nothing, by its kind.
#[derive(Debug)]
pub(super) struct Allowances {
    /// Frames that achieve nothing.
    pub(super) idle_frames: Allowance,
    /// Streams opened and abandoned.
    pub(super) stream_churn: Allowance,
}

impl Allowances {
    pub(super) fn new(now: Instant, limits: &Limits) -> Self {
        Self {
            idle_frames: Allowance::new(now, limits.idle_frames_burst, limits.idle_frames_per_second),
            stream_churn: Allowance::new(now, limits.stream_churn_burst, limits.stream_churn_per_second),
        }
    }
}
