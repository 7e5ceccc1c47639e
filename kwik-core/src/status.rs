//! How paths and grants fare, in the words that the wire, the session and its application share.

use std::ops::Range;

use crate::error::{DeadReason, ErrorCode};

/// Where a path stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathState {
    /// The QUIC handshake is under way.
    Connecting,
    /// The handshake is done; HELLO or JOIN has not been answered.
    Authenticating,
    /// In use.
    Active,
    /// In use, but the peer owes an answer for longer than it should.
    Suspect,
    /// Closing; nothing new is sent.
    Closing,
    /// Gone, and why.
    Dead(DeadReason),
}

impl PathState {
    /// Whether the path was authenticated and may carry data.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Active | Self::Suspect)
    }

    /// Whether the path is gone for good.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self, Self::Dead(_))
    }
}

/// What became of a granted range, as the client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantStatus {
    /// Its bytes are on their way.
    Progress {
        /// Bytes of the range that arrived at least.
        delivered: u64,
    },
    /// All of it arrived.
    Delivered,
    /// Part of it will not arrive from this source.
    Lost {
        /// Why.
        code: ErrorCode,
        /// The stream offsets that the client may lack, ascending and disjoint. It has the rest of the range.
        missing: Vec<Range<u64>>,
    },
}

impl GrantStatus {
    /// Whether nothing more becomes of the grant.
    pub(crate) fn is_settled(&self) -> bool {
        !matches!(self, Self::Progress { .. })
    }
}
