//! How many streams the peer may open: a slot comes free when its stream is over and the application let go of it.

use super::StreamTable;
use crate::id::{Dir, StreamHandle};

impl StreamTable {
    /// Slots of streams that the peer abandoned and that may come free, when [`Self::free_withheld`] says so. None while too
    /// many streams wait to be accepted.
    pub(crate) fn withheld(&self, dir: Dir) -> u64 {
        let withheld = self.ids.withheld(dir);
        if withheld > 0 && self.may_give_credit(dir) { withheld } else { 0 }
    }

    /// So many slots of streams that the peer abandoned come free.
    pub(crate) fn free_withheld(&mut self, dir: Dir, slots: u64) {
        self.ids.free_withheld(dir, slots);
        self.grant_stream_credit(dir);
    }

    /// How many streams of the peer's are gone that it did not abandon, since this was last asked.
    pub(crate) fn take_completed(&mut self, dir: Dir) -> u64 {
        self.ids.take_completed(dir)
    }

    /// Gives free stream slots out again, unless too many streams wait to be accepted.
    pub(super) fn grant_stream_credit(&mut self, dir: Dir) {
        if self.may_give_credit(dir) && self.ids.grant_owed(dir) {
            self.outbox.announce_max_streams(dir);
        }
    }

    /// The peer ended a stream before it was done. One that it opened itself is abandoned.
    pub(super) fn note_abandoned(&mut self, handle: StreamHandle) {
        if let Some(stream) = self.streams.get_mut(handle) {
            stream.abandoned |= self.ids.is_of_peer(stream.id);
        }
    }

    fn may_give_credit(&self, dir: Dir) -> bool {
        let waiting = match dir {
            Dir::Bi => self.accept_bidi.len(),
            Dir::Uni => self.accept_uni.len(),
        };
        waiting < self.caps.accept_queue.max(1)
    }
}
