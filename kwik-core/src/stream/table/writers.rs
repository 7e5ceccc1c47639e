//! Who waits for room to write, and whom to wake: no more than there is room for.

use super::StreamTable;
use super::streams::{Queue, Streams, Wait};
use crate::id::StreamHandle;
use std::collections::BTreeSet;

/// The room that a writer is taken to use when it is woken.
const ROOM_EACH: usize = 16 * 1024;

/// The writers that were refused. Each is woken once, and waits again only if it is refused again.
#[derive(Debug)]
pub(super) struct Writers {
    /// Those that wait for their own stream: for room in its buffer, or for credit.
    own: BTreeSet<StreamHandle>,
    /// Those that wait for room in the session's buffer, in the order they came.
    queue: Queue,
    /// Those of them that were woken and did not come yet.
    woken: BTreeSet<StreamHandle>,
}

impl Writers {
    pub(super) const fn new() -> Self {
        Self { own: BTreeSet::new(), queue: Queue::new(Wait::Room), woken: BTreeSet::new() }
    }

    /// A writer was refused.
    pub(super) fn wait(&mut self, streams: &mut Streams, writer: StreamHandle, for_session: bool) {
        if for_session {
            self.queue.push(streams, writer);
        } else {
            self.own.insert(writer);
        }
    }

    /// A writer that was woken came. Another one of the same stream may still wait.
    pub(super) fn came(&mut self, writer: StreamHandle) {
        self.woken.remove(&writer);
    }

    /// A writer does not wait, whatever it waited for.
    pub(super) fn forget(&mut self, streams: &mut Streams, writer: StreamHandle) {
        self.own.remove(&writer);
        self.queue.remove(streams, writer);
        self.woken.remove(&writer);
    }

    pub(super) fn clear(&mut self, streams: &mut Streams) {
        self.queue.clear(streams);
        *self = Self::new();
    }

    /// Whether somebody waits for those that were woken and did not come yet.
    fn has_unused(&self) -> bool {
        !self.woken.is_empty() && !self.queue.is_empty()
    }

    /// Gives up those that were woken and did not come, and wakes twice as many in their place, so that many who gave
    /// up a write keep others waiting for a short time only.
    fn pass_on(&mut self, streams: &mut Streams) -> Vec<StreamHandle> {
        let given_up = std::mem::take(&mut self.woken).len();
        let next: Vec<_> = (0..2 * given_up).map_while(|_| self.queue.pop(streams)).collect();
        self.woken.extend(&next);
        next
    }

    /// Whether the writer waited for its own stream, or waited at all and has room in any case; it does no more.
    fn wake(&mut self, streams: &mut Streams, writer: StreamHandle, has_room: impl FnOnce(&Streams) -> bool) -> bool {
        self.own.remove(&writer) || (!self.queue.is_empty() && has_room(streams) && self.queue.remove(streams, writer))
    }

    /// The next writer for whom the session's buffer has room, if those that were woken before use theirs. An empty
    /// buffer with room has it for all: nothing else would wake them.
    fn wake_next(&mut self, streams: &mut Streams, room: usize, is_empty: bool) -> Option<StreamHandle> {
        let taken = self.woken.len().saturating_mul(ROOM_EACH);
        let is_enough = room.saturating_sub(taken) >= ROOM_EACH || self.woken.is_empty() || is_empty;
        let fits = room > 0 && is_enough;
        let writer = if fits { self.queue.pop(streams)? } else { return None };
        self.woken.insert(writer);
        Some(writer)
    }
}

impl StreamTable {
    /// The application does not want to write any more what was refused: the room is another's.
    pub(crate) fn cancel_write(&mut self, handle: StreamHandle) {
        self.writers.forget(&mut self.streams, handle);
        self.wake_for_room();
    }

    /// Whether there is room for writers that wait, although others were woken for it, who did not come yet.
    pub(crate) fn has_unused_wakes(&self) -> bool {
        self.writers.has_unused() && self.send_room() > 0
    }

    /// Wakes others for the room that woken writers did not come for: nothing shows when a poll is not repeated.
    pub(crate) fn pass_on_wakes(&mut self) {
        for writer in self.writers.pass_on(&mut self.streams) {
            self.announce_writable(writer);
        }
    }

    /// The bytes of a stream moved on, or may: its writer is woken, and those for whom there is room now.
    pub(super) fn wake_writers(&mut self, handle: StreamHandle) {
        let has_room = |streams: &Streams| {
            let send = streams.get(handle).and_then(|stream| stream.send.as_ref());
            send.is_some_and(|half| half.stream.has_room_at_head())
        };
        if self.writers.wake(&mut self.streams, handle, has_room) {
            self.announce_writable(handle);
        }
        self.wake_for_room();
    }

    /// The stream takes no more: its writer is to hear of that, and needs no room.
    pub(super) fn dismiss_writer(&mut self, handle: StreamHandle) {
        if self.writers.wake(&mut self.streams, handle, |_| true) {
            self.announce_writable(handle);
        }
        self.cancel_write(handle);
    }

    /// Wakes as many of those that wait for the session's buffer as it has room for. Returns whether there were any.
    pub(super) fn wake_for_room(&mut self) -> bool {
        let room = self.send_room();
        let mut is_woken = false;
        while let Some(writer) = self.writers.wake_next(&mut self.streams, room, self.send_buffered == 0) {
            self.announce_writable(writer);
            is_woken = true;
        }
        is_woken
    }
}
