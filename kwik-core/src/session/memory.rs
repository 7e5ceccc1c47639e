//! What a session holds of its endpoint's memory, and what it may take of it. The endpoint says before each turn, and before
//! the application does anything with the session, how much it has left, and asks afterwards what was taken.

use super::{RoleState, Session};
use crate::limits::Limits;
use crate::path::Path;
use crate::stream::Room;

impl Session {
    /// What a session costs beside its paths and streams, in bytes.
    const SESSION_BYTES: u64 = 16 * 1024;

    /// What a session with these limits may cost before anything was sent in it, in bytes: the credit that the peer has for
    /// streams of its own, unless it can open none, and one path.
    pub(crate) fn usual_bytes(limits: &Limits, has_streams: bool) -> u64 {
        Self::with_streams(limits, has_streams).saturating_add(Path::usual_bytes(limits))
    }

    /// As [`Self::usual_bytes`], while memory is short.
    pub(crate) fn least_bytes(limits: &Limits, has_streams: bool) -> u64 {
        Self::with_streams(limits, has_streams).saturating_add(Path::LEAST_BYTES)
    }

    fn with_streams(limits: &Limits, has_streams: bool) -> u64 {
        let slots = if has_streams { limits.streams_bidi_max.saturating_add(limits.streams_uni_max) } else { 0 };
        Self::SESSION_BYTES.saturating_add(slots.saturating_mul(limits.stream_window_initial_bytes))
    }

    /// What the session holds of the endpoint's memory, in bytes: all that its peers may make it keep, and what is kept to
    /// be sent.
    pub(crate) fn claim(&self) -> u64 {
        let commands = match &self.role {
            RoleState::Primary(primary) => primary.commands.held_bytes() as u64,
            RoleState::Client(_) | RoleState::Secondary(_) => 0,
        };
        Self::SESSION_BYTES
            .saturating_add(commands)
            .saturating_add(self.common.paths.window_bytes())
            .saturating_add(self.common.streams.claim())
    }

    /// The endpoint can spare so much more. Returns whether the application is to hear of that.
    pub(crate) fn set_room(&mut self, room: Room) -> bool {
        self.common.streams.set_room(room)
    }

    /// Whether the session would take more if there was more.
    pub(crate) fn wants_memory(&self) -> bool {
        let common = &self.common;
        !common.phase.is_closed() && (common.paths.want_memory() || common.streams.awaits_memory())
    }

    /// Lets the windows of all paths grow and shrink, if there may be a reason to.
    pub(super) fn fit_windows(&mut self) {
        let (common, role) = (&mut self.common, &self.role);
        common.paths.fit_windows(&mut common.streams, |id| match role {
            RoleState::Client(client) => client.relay.has_frames(id),
            RoleState::Primary(_) | RoleState::Secondary(_) => false,
        });
    }

    /// Panics if a path came, went or changed its windows and that was not counted.
    #[cfg(any(test, feature = "__test_exports"))]
    pub(crate) fn assert_claim(&self) {
        self.common.paths.assert_windows();
    }
}
