//! What waits as slices of datagrams, and how long it may.
//!
//! A slice keeps all of its datagram, and all that QUIC put together with it. So the slices that a path brought are kept
//! while nearly everything that it brought since the oldest of them still waits as well, as when a reader pauses. As soon
//! as much else came, the oldest are copied. A reader that keeps up never has a byte copied, and no byte is copied twice.

use crate::id::{PathId, StreamHandle};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// What may have come over a path since its oldest slice, beside its slices and three eighths of them, bytes.
const SLACK_BYTES: u64 = 64 * 1024;
/// Paths of which nothing waits are forgotten when there are more of them.
const IDLE_PATHS_MAX: usize = 16;

/// How many bytes of a stream wait as slices, by the path that brought them.
pub(super) type SliceBytes = SmallVec<[(PathId, usize); 4]>;

/// The slices of a session.
#[derive(Debug, Default)]
pub(super) struct Slices {
    paths: Vec<PathSlices>,
    /// Whether something came that was not all handled.
    has_arrived: bool,
}

/// The slices that one path brought, the oldest first. Those that were read in the meantime are still among them.
#[derive(Debug)]
struct PathSlices {
    path: PathId,
    queue: VecDeque<Slice>,
    /// Bytes of datagrams that came, and how many they were when all that they brought was last handled.
    arrived: u64,
    handled: u64,
    /// Bytes of the slices that wait.
    bytes: usize,
}

/// A slice: where it ends, since it is read from the front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    pub(super) stream: StreamHandle,
    pub(super) end: u64,
    born: u64,
}

impl Slices {
    /// Datagrams of so many bytes came over a path; what they brought comes next.
    pub(super) fn on_arrived(&mut self, path: PathId, bytes: u64) {
        self.has_arrived = true;
        let path_slices = self.of_path(path);
        path_slices.arrived = path_slices.arrived.saturating_add(bytes);
        if path_slices.bytes == 0 {
            // As most often, everything was read.
            path_slices.queue.clear();
        }
    }

    /// All that they brought was handled.
    pub(super) fn on_handled(&mut self) {
        self.has_arrived = false;
        for path_slices in &mut self.paths {
            path_slices.handled = path_slices.arrived;
            if path_slices.queue.capacity() > 64 + 4 * path_slices.queue.len() {
                path_slices.queue.shrink_to(2 * path_slices.queue.len());
            }
        }
        if self.paths.len() > IDLE_PATHS_MAX {
            self.paths.retain(|path_slices| path_slices.bytes > 0);
        }
    }

    pub(super) fn push(&mut self, path: PathId, stream: StreamHandle, end: u64) {
        let path_slices = self.of_path(path);
        path_slices.queue.push_back(Slice { stream, end, born: path_slices.handled });
    }

    /// What waits of one stream was `before` and is `after`.
    pub(super) fn on_changed(&mut self, before: &[(PathId, usize)], after: &[(PathId, usize)]) {
        if before.is_empty() && after.is_empty() {
            return;
        }
        // As most often, the same paths as before, and one of them with more bytes or fewer.
        if before.len() == after.len() && before.iter().zip(after).all(|(before, after)| before.0 == after.0) {
            for ((path, before), (_, after)) in before.iter().zip(after).filter(|(before, after)| before != after) {
                let path_slices = self.of_path(*path);
                path_slices.bytes = path_slices.bytes - before + after;
            }
            return;
        }
        after.iter().for_each(|(path, bytes)| self.of_path(*path).bytes += bytes);
        before.iter().for_each(|(path, bytes)| self.of_path(*path).bytes -= bytes);
    }

    /// The next slice that may not wait any longer. None is any more once all was handled, until more arrives.
    pub(super) fn pop_old(&mut self) -> Option<Slice> {
        if !self.has_arrived {
            return None;
        }
        self.paths.iter_mut().find_map(PathSlices::pop_old)
    }

    /// What slices keep beside their own bytes at most, if `waits` tells which of them are still there.
    pub(super) fn memory_bytes(&self, waits: impl Fn(&Slice) -> bool) -> usize {
        self.paths
            .iter()
            .filter(|path_slices| path_slices.bytes > 0)
            .map(|path_slices| path_slices.memory_bytes(&waits))
            .sum()
    }

    /// Bytes that wait as slices.
    #[cfg(any(test, feature = "__test_exports"))]
    pub(super) fn bytes(&self) -> usize {
        self.paths.iter().map(|path_slices| path_slices.bytes).sum()
    }

    fn of_path(&mut self, path: PathId) -> &mut PathSlices {
        let index = self.paths.iter().position(|path_slices| path_slices.path == path).unwrap_or_else(|| {
            self.paths.push(PathSlices { path, queue: VecDeque::new(), arrived: 0, handled: 0, bytes: 0 });
            self.paths.len() - 1
        });
        &mut self.paths[index]
    }
}

impl PathSlices {
    fn pop_old(&mut self) -> Option<Slice> {
        let kept = self.bytes as u64;
        let allowed = (kept + kept / 8 * 3).saturating_add(SLACK_BYTES);
        let oldest = self.queue.front()?;
        if self.arrived - oldest.born <= allowed { None } else { self.queue.pop_front() }
    }

    fn memory_bytes(&self, waits: impl Fn(&Slice) -> bool) -> usize {
        let oldest = self.queue.iter().find(|slice| waits(slice));
        let span = oldest.map_or(0, |slice| self.arrived - slice.born);
        let kept = usize::try_from(span).unwrap_or(usize::MAX).saturating_sub(self.bytes);
        kept.saturating_add(self.queue.capacity() * size_of::<Slice>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: PathId = PathId(1);

    fn set(slices: &mut Slices, bytes: usize) {
        slices.of_path(PATH).bytes = bytes;
    }

    fn arrive(slices: &mut Slices, datagram: u64, slice: usize, end: u64) {
        slices.on_handled();
        slices.on_arrived(PATH, datagram);
        slices.push(PATH, StreamHandle::FIRST, end);
        slices.on_changed(&[], &[(PATH, slice)]);
    }

    #[test]
    fn nothing_is_old_while_nearly_all_that_the_path_brought_waits() {
        let mut slices = Slices::default();
        for number in 1..=10_000 {
            arrive(&mut slices, 1500, 1400, number * 1400);
            slices.on_arrived(PathId(2), 100_000);
            assert!(slices.pop_old().is_none());
        }
        let queue = slices.of_path(PATH).queue.capacity() * size_of::<Slice>();
        assert_eq!(slices.memory_bytes(|_| true) - queue, 10_000 * 100);
        assert_eq!(slices.memory_bytes(|slice| slice.end > 1400 * 9_000) - queue, 0);
    }

    #[test]
    fn oldest_are_copied_when_much_else_came() {
        let mut slices = Slices::default();
        for number in 1..=1_000 {
            arrive(&mut slices, 16 * 1024, 1400, number * 1400);
            while let Some(old) = slices.pop_old() {
                let bytes = slices.bytes();
                set(&mut slices, bytes - 1400);
                assert!(old.end < number * 1400);
            }
            assert!(slices.memory_bytes(|_| true) as u64 <= SLACK_BYTES + 24 * 1024);
        }
        slices.on_arrived(PATH, SLACK_BYTES * 2);
        let ends: Vec<_> = std::iter::from_fn(|| slices.pop_old()).map(|slice| slice.end).collect();
        assert!(ends.is_sorted() && ends.last() == Some(&(1_000 * 1400)));
    }

    #[test]
    fn what_was_read_is_forgotten() {
        let mut slices = Slices::default();
        arrive(&mut slices, 1500, 1400, 1400);
        set(&mut slices, 0);
        slices.on_arrived(PATH, 1500);
        assert!(slices.of_path(PATH).queue.is_empty() && slices.memory_bytes(|_| true) == 0);
        for number in 0..1000 {
            slices.on_arrived(PathId(number), 1);
            slices.on_handled();
        }
        assert!(slices.paths.len() <= IDLE_PATHS_MAX + 1);
    }
}
