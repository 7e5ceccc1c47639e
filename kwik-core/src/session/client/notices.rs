//! What a client notifies each secondary of: renewed leases, credit of the streams it writes, and grants and streams
//! that ended (PROTOCOL.md §4, §8). Notices are state: a server that reads slowly gets the latest value only.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::ErrorCode;
use crate::id::{GrantId, PathId, StreamId};
use crate::limits::Limits;
use crate::wire::Lease;

/// The notices that wait, by path.
pub(super) struct Notices {
    endings_max: usize,
    paths: BTreeMap<PathId, PathNotices>,
}

/// The notices that wait for one path.
#[derive(Default)]
struct PathNotices {
    /// The newest renewal.
    leased: Option<Lease>,
    revoked: BTreeSet<GrantId>,
    stopped: BTreeMap<StreamId, ErrorCode>,
    /// Streams whose limit rose.
    raised: BTreeSet<StreamId>,
}

/// One notice for a secondary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    Leased(Lease),
    Revoked(GrantId),
    Stopped(StreamId, ErrorCode),
    Raised(StreamId),
}

impl Notices {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { endings_max: limits.control_queue_frames_max, paths: BTreeMap::new() }
    }

    pub(super) fn push(&mut self, path: PathId, notice: Notice) {
        let waiting = self.paths.entry(path).or_default();
        match notice {
            Notice::Leased(lease) => waiting.leased = Some(lease),
            Notice::Revoked(grant) => {
                waiting.revoked.insert(grant);
            }
            Notice::Stopped(stream, code) => {
                // A server that is to stop needs no credit. Its first code counts, as at the server.
                waiting.raised.remove(&stream);
                waiting.stopped.entry(stream).or_insert(code);
            }
            Notice::Raised(stream) => {
                waiting.raised.insert(stream);
            }
        }
    }

    pub(super) fn pop(&mut self, path: PathId) -> Option<Notice> {
        let waiting = self.paths.get_mut(&path)?;
        if let Some(lease) = waiting.leased.take() {
            return Some(Notice::Leased(lease));
        }
        let revoked = waiting.revoked.pop_first().map(Notice::Revoked);
        let stopped = || waiting.stopped.pop_first().map(|(stream, code)| Notice::Stopped(stream, code));
        revoked.or_else(stopped).or_else(|| waiting.raised.pop_first().map(Notice::Raised))
    }

    /// A path whose server reads so little that too many endings wait for it.
    pub(super) fn overfull(&self) -> Option<PathId> {
        // Only endings pile up: of leases the newest waits, and of credit one notice for each stream.
        let endings = |waiting: &PathNotices| waiting.revoked.len() + waiting.stopped.len();
        self.paths.iter().find(|(_, waiting)| endings(waiting) > self.endings_max).map(|(path, _)| *path)
    }

    /// A stream is gone, so its credit is not announced any more.
    pub(super) fn forget_stream(&mut self, stream: StreamId) {
        for waiting in self.paths.values_mut() {
            waiting.raised.remove(&stream);
        }
    }

    pub(super) fn on_path_lost(&mut self, path: PathId) {
        self.paths.remove(&path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TransportCode;

    #[test]
    fn newest_is_told_once_and_credit_not_after_the_end() {
        let mut notices = Notices::new(&Limits::default());
        let (path, code) = (PathId(1), ErrorCode::from(TransportCode::STREAM_GONE));
        for stream in [4, 0, 4, 8, 0] {
            notices.push(path, Notice::Raised(StreamId(stream)));
        }
        notices.push(path, Notice::Stopped(StreamId(4), code));
        notices.push(path, Notice::Revoked(GrantId(3)));
        let lease = |issued_at_ms| Lease { path, issued_at_ms, signature: [0; 64] };
        [1, 2, 3].into_iter().for_each(|issued| notices.push(path, Notice::Leased(lease(issued))));
        notices.forget_stream(StreamId(8));
        let told: Vec<_> = std::iter::from_fn(|| notices.pop(path)).collect();
        let [revoked, stopped] = [Notice::Revoked(GrantId(3)), Notice::Stopped(StreamId(4), code)];
        assert_eq!(told, [Notice::Leased(lease(3)), revoked, stopped, Notice::Raised(StreamId(0))]);
    }

    // [P-5.15]
    #[test]
    fn path_that_hears_of_no_end_is_found() {
        let mut notices = Notices::new(&Limits { control_queue_frames_max: 2, ..Limits::default() });
        (0..100).for_each(|stream| notices.push(PathId(1), Notice::Raised(StreamId(stream))));
        (0..2).for_each(|grant| notices.push(PathId(2), Notice::Revoked(GrantId(grant))));
        assert_eq!(notices.overfull(), None);
        notices.push(PathId(2), Notice::Revoked(GrantId(2)));
        assert_eq!(notices.overfull(), Some(PathId(2)));
        notices.on_path_lost(PathId(2));
        assert_eq!(notices.overfull(), None);
    }
}
