//! What the silence of a peer does to its path (PROTOCOL.md §9).

use std::time::Instant;

use super::health::Verdict;
use super::{Path, PathInput};
use crate::error::{DeadReason, TransportCode};

/// Whether silence ends a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdlePolicy {
    /// Silence makes it suspect, then dead.
    Close,
    /// Silence makes it suspect; QUIC's idle timeout ends it.
    Suspect,
    /// The far end does the judging.
    Off,
}

impl Path {
    /// Whether the peer is silent for too long, as of now.
    pub(super) fn check_liveness(&mut self, now: Instant) -> Option<PathInput> {
        // What a moment means for a path does not change within the moment.
        let is_judged = self.idle_policy == IdlePolicy::Off || self.health.looked_at() == now;
        if is_judged || !self.lifecycle.state().is_usable() {
            return None;
        }
        if self.health.look(now, self.quic.rtt(), &self.limits) {
            self.quic.ping();
        }
        let verdict = self.health.verdict(now, self.quic.rtt(), &self.limits);
        if verdict != Verdict::Alive && self.health.probe(now, &self.limits) {
            self.quic.ping();
        }
        match verdict {
            Verdict::Dead if self.idle_policy == IdlePolicy::Close => {
                let reason = DeadReason::new(TransportCode::TIMED_OUT, "");
                // `close` ends the reading of the path, so the loss is reported here.
                self.close(now, reason.clone());
                Some(PathInput::Lost(reason))
            }
            // Dead under another policy is suspect only: QUIC's idle timeout ends the primary's path ([P-9.4]).
            Verdict::Dead | Verdict::Suspect => self.lifecycle.move_to_suspect().then_some(PathInput::Suspect),
            Verdict::Alive => None,
        }
    }
}
