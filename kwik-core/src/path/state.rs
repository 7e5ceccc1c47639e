//! The life of a path, changed only by `move_to_*`.

use crate::error::DeadReason;
use crate::status::PathState;

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
