//! What the client reports to the primary of its paths: states, and measurements at their pace (PROTOCOL.md §8).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::error::{ErrorCode, TransportCode};
use crate::id::PathId;
use crate::limits::VARINT_MAX;
use crate::path::Path;
use crate::session::paths::Paths;
use crate::status::PathState;
use crate::wire::{PathStatus, WirePathState};

/// The paths whose state is to be reported, each once.
#[derive(Default)]
pub(super) struct Reports {
    due: BTreeMap<PathId, PathReport>,
    /// When the measurements of all paths were last reported.
    measured_at: Option<Instant>,
}

/// What is reported of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PathReport {
    /// Its state as it is when the report leaves.
    Alive,
    Dead(ErrorCode),
}

impl Reports {
    const MEASURED_EVERY: Duration = Duration::from_millis(250);

    /// The path became active, suspect, or active again.
    pub(super) fn on_changed(&mut self, path: PathId) {
        // If the death of the path waits to be reported, it stays the last report ([P-8.6]).
        self.due.entry(path).or_insert(PathReport::Alive);
    }

    pub(super) fn on_dead(&mut self, path: PathId, code: ErrorCode) {
        self.due.insert(path, PathReport::Dead(code));
    }

    /// Has the measurements of every secondary reported, if the last report is long enough ago. They go with the
    /// progress of grants, since that is when a primary compares its servers.
    pub(super) fn measure(&mut self, now: Instant, joined: impl Iterator<Item = PathId>) {
        if self.measured_at.is_some_and(|at| now.saturating_duration_since(at) < Self::MEASURED_EVERY) {
            return;
        }
        self.measured_at = Some(now);
        joined.for_each(|path| self.on_changed(path));
    }

    /// The next report. A path that closes is reported as active until it is dead: the primary waits for an answer.
    pub(super) fn pop(&mut self, paths: &Paths) -> Option<PathStatus> {
        let (id, report) = self.due.pop_first()?;
        let state = match report {
            PathReport::Dead(code) => return Some(dead(paths, id, code)),
            PathReport::Alive => paths.get(id).map(Path::state),
        };
        let state = match state {
            Some(PathState::Suspect) => WirePathState::Suspect,
            _ => WirePathState::Active,
        };
        Some(status(paths, id, state, TransportCode::NO_ERROR.into()))
    }
}

/// The report of a path that is dead, or was refused.
pub(super) fn dead(paths: &Paths, id: PathId, code: ErrorCode) -> PathStatus {
    status(paths, id, WirePathState::Dead, code)
}

fn status(paths: &Paths, id: PathId, state: WirePathState, code: ErrorCode) -> PathStatus {
    let path = paths.get(id);
    PathStatus {
        path: id,
        state,
        code,
        rtt: path.map(Path::rtt).unwrap_or_default(),
        rtt_min: path.map(Path::rtt_min).unwrap_or_default(),
        rate: path.map_or(0, |path| path.bytes_per_second(paths.now())).min(VARINT_MAX),
        bytes: path.map_or(0, Path::bytes_received).min(VARINT_MAX),
    }
}
