//! The life of a path, changed only by `move_to_*`.

use std::time::Instant;

use crate::error::DeadReason;
use crate::protocol_event::{EventDetail, EventLog, ProtocolEventKind};
use crate::status::PathState;

/// Owns the state of a path and until when it must have left it; asserts that moves are legal, and notes each.
///
/// ```text
///               handshake done        HELLO, JOIN or WELCOME believed
///   Connecting ───────────────▶ Authenticating ───────────────▶ Active
///       │                             │                         │    ▲
///       │                             │      silent for too long│    │heard again
///       │                             │                         ▼    │
///       │                             │                        Suspect
///       │                             │                            │
///       │                             │   CLOSE of the server ┌────┴───▶ Closing
///       ▼                             ▼                       ▼             │
///      Dead ◀──────────── closed here or there, overdue, timed out ◀────────┘
/// ```
#[derive(Debug)]
pub(super) struct Lifecycle {
    state: PathState,
    deadline: Option<Instant>,
    log: EventLog,
}

impl Lifecycle {
    pub(super) fn new(detail: EventDetail) -> Self {
        Self { state: PathState::Connecting, deadline: None, log: EventLog::new(detail) }
    }

    pub(super) fn state(&self) -> &PathState {
        &self.state
    }

    /// What the path did.
    pub(super) fn log(&mut self) -> &mut EventLog {
        &mut self.log
    }

    /// Until when the path must have left its state, or have become active if it connects; `None` if ever.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn expect_move_by(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    pub(super) fn move_to_authenticating(&mut self) {
        debug_assert_eq!(self.state, PathState::Connecting);
        self.move_to(PathState::Authenticating);
    }

    pub(super) fn move_to_active(&mut self) {
        debug_assert_eq!(self.state, PathState::Authenticating);
        self.deadline = None;
        self.move_to(PathState::Active);
    }

    /// Returns whether the path moved: only an active one does.
    pub(super) fn move_to_suspect(&mut self) -> bool {
        self.move_from(&PathState::Active, PathState::Suspect)
    }

    /// Returns whether the path moved: only a suspect one does.
    pub(super) fn move_to_recovered(&mut self) -> bool {
        self.move_from(&PathState::Suspect, PathState::Active)
    }

    /// Returns whether the path moved: only one in use does.
    pub(super) fn move_to_closing(&mut self, deadline: Option<Instant>) -> bool {
        let moves = self.state.is_usable();
        if moves {
            self.deadline = deadline;
            self.move_to(PathState::Closing);
        }
        moves
    }

    /// The first reason stays.
    pub(super) fn move_to_dead(&mut self, reason: DeadReason) {
        if !self.state.is_dead() {
            self.deadline = None;
            self.move_to(PathState::Dead(reason));
        }
    }

    fn move_from(&mut self, from: &PathState, to: PathState) -> bool {
        let moves = self.state == *from;
        if moves {
            self.move_to(to);
        }
        moves
    }

    fn move_to(&mut self, state: PathState) {
        self.log.change(None, || ProtocolEventKind::PathChanged { state: state.clone() });
        self.state = state;
    }
}
