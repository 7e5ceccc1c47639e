//! The life of a path, changed only by `move_to_*`.

use crate::error::DeadReason;

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

/// Owns the state; asserts that changes are legal.
#[derive(Debug)]
pub(super) struct Lifecycle(PathState);

impl Lifecycle {
    pub(super) fn new() -> Self {
        Self(PathState::Connecting)
    }

    pub(super) fn state(&self) -> &PathState {
        &self.0
    }

    pub(super) fn move_to_authenticating(&mut self) {
        debug_assert_eq!(self.0, PathState::Connecting);
        self.0 = PathState::Authenticating;
    }

    pub(super) fn move_to_active(&mut self) {
        debug_assert_eq!(self.0, PathState::Authenticating);
        self.0 = PathState::Active;
    }

    /// Returns whether the state changed.
    pub(super) fn move_to_suspect(&mut self) -> bool {
        let changes = self.0 == PathState::Active;
        if changes {
            self.0 = PathState::Suspect;
        }
        changes
    }

    /// Returns whether the state changed.
    pub(super) fn move_to_recovered(&mut self) -> bool {
        let changes = self.0 == PathState::Suspect;
        if changes {
            self.0 = PathState::Active;
        }
        changes
    }

    pub(super) fn move_to_closing(&mut self) {
        if !self.0.is_dead() {
            self.0 = PathState::Closing;
        }
    }

    /// The first reason stays.
    pub(super) fn move_to_dead(&mut self, reason: DeadReason) {
        if !self.0.is_dead() {
            self.0 = PathState::Dead(reason);
        }
    }
}
