//! What the streams hold of the endpoint's memory.

use super::StreamTable;
use crate::id::Dir;
use crate::stream::Room;

/// What every stream is accounted for beside its bytes.
pub(super) const STREAM_BYTES: usize = 1536;
/// What a separate range costs in which a stream was received.
const SPAN_BYTES: usize = 128;

impl StreamTable {
    /// What peers may make these streams hold, and what is kept to be sent, in bytes.
    pub(crate) fn claim(&self) -> u64 {
        if let Some(left) = self.left {
            return left;
        }
        let kept = self.send_buffered + self.requests + self.streams.len() * STREAM_BYTES + self.spans * SPAN_BYTES;
        self.budget.reserved().saturating_add(kept as u64)
    }

    /// The endpoint can spare so much more. Returns whether a writer is woken.
    pub(crate) fn set_room(&mut self, room: Room) -> bool {
        self.budget.set_room(room);
        self.wake_for_room()
    }

    /// With windows of so many bytes, what the paths can bring is never held up.
    pub(crate) fn on_wanted_window(&mut self, bytes: u64) {
        self.rules.on_wanted(bytes);
    }

    /// What is left for the windows of paths.
    pub(crate) fn room_for_windows(&self) -> u64 {
        self.budget.room().grow.min(self.budget.room().windows)
    }

    /// A window of a path took `after` bytes of the room instead of `before`.
    pub(crate) fn on_window_changed(&mut self, before: u64, after: u64) {
        self.budget.on_changed(before, after);
    }

    /// Whether a stream that the application wants to open waits for memory.
    pub(crate) fn awaits_memory(&self) -> bool {
        self.outbox.is_stream_awaited(Dir::Bi) && self.ids.can_open(Dir::Bi)
    }

    /// What may be buffered to be sent, beside what each stream always may. Half of the room is left to others.
    pub(super) fn send_room(&self) -> usize {
        let room = usize::try_from(self.budget.room().grow / 2).unwrap_or(usize::MAX);
        self.caps.send_buffer_session.saturating_sub(self.send_buffered).min(room)
    }

    /// Whether the application waits for the peer's credit to open a stream.
    pub(crate) fn awaits_stream_credit(&self) -> bool {
        Dir::ALL.into_iter().any(|dir| self.outbox.is_stream_awaited(dir) && !self.ids.can_open(dir))
    }

    /// Whether a stream waits to be sent.
    pub(crate) fn has_sendable(&self) -> bool {
        self.outbox.has_sendable()
    }
}
