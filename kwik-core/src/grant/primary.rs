//! The primary's table of delegations: the grants it issued, and what the client reports of them.

use std::collections::BTreeMap;
use std::ops::Range;

use super::violation;
use crate::error::{ErrorCode, Fault};
use crate::id::{GrantId, PathId, StreamId};
use crate::limits::{GRANT_OVERLAP_MAX, Limits};
use crate::status::GrantStatus;

/// What a status changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) grant: GrantId,
    pub(crate) stream: StreamId,
    /// What the client has for good, now that the delegation is over.
    pub(crate) arrived: Vec<Range<u64>>,
    /// What the client may lack for good, and nobody else is to write.
    pub(crate) missing: Vec<Range<u64>>,
}

/// The session has as many unfinished delegations as it may, in all or on the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many unfinished delegations in the session or on the path")]
pub(crate) struct TooManyDelegations;

/// The delegations of one session.
#[derive(Debug)]
pub(crate) struct Delegations {
    grants_session_max: usize,
    grants_path_max: usize,
    next: u64,
    known: BTreeMap<GrantId, DelegationEntry>,
    /// Grants of each path whose last status did not come yet. The client counts the same.
    outstanding: BTreeMap<PathId, usize>,
    /// Those of all paths.
    outstanding_total: usize,
}

impl Delegations {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            grants_session_max: limits.grants_session_max,
            grants_path_max: limits.grants_path_max,
            next: 0,
            known: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            outstanding_total: 0,
        }
    }

    /// Whether one more range may be granted to `path`.
    pub(crate) fn has_room(&self, path: PathId) -> bool {
        self.outstanding_total < self.grants_session_max && self.outstanding_on(path) < self.grants_path_max
    }

    /// Enters a grant for `path` to write `range` of a stream; a copy, if another is to write it already, so that nothing of
    /// it is missing when it is lost. The entry stays until it was forgotten here and its last status came.
    pub(crate) fn issue(
        &mut self,
        path: PathId,
        stream: StreamId,
        range: Range<u64>,
        is_copy: bool,
    ) -> Result<GrantId, TooManyDelegations> {
        if !self.has_room(path) || self.overlapping(stream, &range) >= GRANT_OVERLAP_MAX {
            return Err(TooManyDelegations);
        }
        let id = GrantId(self.next);
        self.next += 1;
        *self.outstanding.entry(path).or_default() += 1;
        self.outstanding_total += 1;
        let state = GrantStatus::Progress { delivered: 0 };
        let (is_outstanding, is_revoked, is_forgotten) = (true, false, false);
        let entry = DelegationEntry { path, stream, range, state, is_copy, is_outstanding, is_revoked, is_forgotten };
        self.known.insert(id, entry);
        Ok(id)
    }

    /// Grants without a last status that overlap a range ([P-8.8]).
    fn overlapping(&self, stream: StreamId, range: &Range<u64>) -> usize {
        let overlaps = |entry: &&DelegationEntry| {
            entry.is_outstanding
                && entry.stream == stream
                && entry.range.start < range.end
                && range.start < entry.range.end
        };
        self.known.values().filter(overlaps).count()
    }

    /// The client reports a status of a grant. Returns what that changes, if anything: a status of a delegation that
    /// was given up here already is checked and then ignored.
    ///
    /// # Errors
    /// PROTOCOL_VIOLATION if the grant was never issued or its last status was given before, if more bytes than granted
    /// or fewer than before are said to be delivered, or if what is missing is not part of the range.
    pub(crate) fn on_status(&mut self, id: GrantId, report: GrantStatus) -> Result<Option<Change>, Fault> {
        let Some(entry) = self.known.get_mut(&id).filter(|entry| entry.is_outstanding) else {
            return Err(violation("a status of no outstanding grant"));
        };
        let is_last = report.is_settled();
        let change = entry.on_report(id, report)?;
        if is_last {
            entry.is_outstanding = false;
            let (path, is_forgotten) = (entry.path, entry.is_forgotten);
            self.free(path);
            if is_forgotten {
                self.known.remove(&id);
            }
        }
        Ok(change)
    }

    /// Takes back a grant whose GRANT did not leave. All of its range is missing.
    pub(crate) fn annul(&mut self, id: GrantId, code: ErrorCode) -> Option<Change> {
        let missing = vec![self.known.get(&id)?.range.clone()];
        // As if the client had reported it, so that all counts are kept in one place.
        self.on_status(id, GrantStatus::Lost { code, missing }).ok().flatten()
    }

    /// Gives up the active delegations of a path without waiting for what the client says. Everything they granted is
    /// reported missing, although the client may have some of it.
    pub(crate) fn path_lost(&mut self, path: PathId, code: ErrorCode) -> Vec<Change> {
        self.give_up(code, |entry| entry.path == path)
    }

    /// As [`Self::path_lost`], for every path.
    pub(crate) fn session_lost(&mut self, code: ErrorCode) -> Vec<Change> {
        self.give_up(code, |_| true)
    }

    /// How far a delegation came. `None` once it was forgotten.
    pub(crate) fn state(&self, id: GrantId) -> Option<&GrantStatus> {
        self.known.get(&id).filter(|entry| !entry.is_forgotten).map(|entry| &entry.state)
    }

    /// The application takes a delegation back. `None` if it is unknown or over, and otherwise whether this is news, so
    /// that REVOKE is sent once.
    pub(crate) fn revoke(&mut self, id: GrantId) -> Option<bool> {
        let entry = self.known.get_mut(&id).filter(|entry| !entry.is_forgotten && entry.is_active())?;
        Some(!std::mem::replace(&mut entry.is_revoked, true))
    }

    /// Whether the last status of every grant came.
    pub(crate) fn is_settled(&self) -> bool {
        self.outstanding_total == 0
    }

    /// The application does not ask for this delegation any more. Its bytes are still awaited.
    pub(crate) fn forget(&mut self, id: GrantId) {
        let Some(entry) = self.known.get_mut(&id) else { return };
        entry.is_forgotten = true;
        if !entry.is_outstanding {
            self.known.remove(&id);
        }
    }

    fn give_up(&mut self, code: ErrorCode, concerns: impl Fn(&DelegationEntry) -> bool) -> Vec<Change> {
        let active = self.known.iter_mut().filter(|(_, entry)| entry.is_active() && concerns(entry));
        active
            .map(|(id, entry)| {
                let missing = vec![entry.range.clone()];
                entry.move_to(GrantStatus::Lost { code, missing: missing.clone() });
                Change { grant: *id, stream: entry.stream, arrived: Vec::new(), missing: entry.freed(missing) }
            })
            .collect()
    }

    fn outstanding_on(&self, path: PathId) -> usize {
        self.outstanding.get(&path).copied().unwrap_or_default()
    }

    fn free(&mut self, path: PathId) {
        if let Some(count) = self.outstanding.get_mut(&path) {
            *count -= 1;
            self.outstanding_total -= 1;
            if *count == 0 {
                self.outstanding.remove(&path);
            }
        }
    }
}

/// Its state is what the client said last, or what was concluded without it:
///
/// ```text
///              delivered
///   Progress ─────────────────────────────────▶ Delivered
///      │  ▲    lost, annulled before the client
///      └──┘    heard of it, or given up
///     more    ────────────────────────────────▶ Lost
/// ```
///
/// The entry stays until the client said its last and the application forgot it.
#[derive(Debug)]
struct DelegationEntry {
    path: PathId,
    stream: StreamId,
    range: Range<u64>,
    state: GrantStatus,
    /// Another is to write the range already.
    is_copy: bool,
    /// Whether the last status did not come yet.
    is_outstanding: bool,
    is_revoked: bool,
    is_forgotten: bool,
}

impl DelegationEntry {
    fn is_active(&self) -> bool {
        matches!(self.state, GrantStatus::Progress { .. })
    }

    fn on_report(&mut self, grant: GrantId, report: GrantStatus) -> Result<Option<Change>, Fault> {
        let (arrived, missing) = match &report {
            GrantStatus::Progress { delivered } if !self.is_news(*delivered)? => return Ok(None),
            GrantStatus::Progress { .. } => (Vec::new(), Vec::new()),
            GrantStatus::Delivered => (vec![self.range.clone()], Vec::new()),
            GrantStatus::Lost { missing, .. } => (self.rest(missing)?, missing.clone()),
        };
        // A status of a delegation that was given up is checked like any other, and only then ignored ([P-8.19]).
        if !self.is_active() {
            return Ok(None);
        }
        self.move_to(report);
        Ok(Some(Change { grant, stream: self.stream, arrived, missing: self.freed(missing) }))
    }

    /// What may be written anew of what is missing: another is to write all of a copy already.
    fn freed(&self, missing: Vec<Range<u64>>) -> Vec<Range<u64>> {
        if self.is_copy { Vec::new() } else { missing }
    }

    /// A delegation that is settled stays as it is.
    fn move_to(&mut self, state: GrantStatus) {
        debug_assert!(self.is_active(), "{:?} to {state:?}", self.state);
        self.state = state;
    }

    fn is_news(&self, delivered: u64) -> Result<bool, Fault> {
        if delivered > self.range.end - self.range.start {
            return Err(violation("more was delivered than granted"));
        }
        match self.state {
            GrantStatus::Progress { delivered: before } if delivered < before => {
                Err(violation("less was delivered than before"))
            }
            GrantStatus::Progress { delivered: before } => Ok(delivered > before),
            _ => Ok(false),
        }
    }

    /// The range without its missing parts, which must be ascending and disjoint.
    fn rest(&self, missing: &[Range<u64>]) -> Result<Vec<Range<u64>>, Fault> {
        if missing.is_empty() {
            return Err(violation("a grant was lost of which nothing is missing"));
        }
        let mut rest = Vec::new();
        let mut position = self.range.start;
        for part in missing {
            if part.is_empty() || part.start < position || part.end > self.range.end {
                return Err(violation("a missing range is not part of the grant"));
            }
            if position < part.start {
                rest.push(position..part.start);
            }
            position = part.end;
        }
        if position < self.range.end {
            rest.push(position..self.range.end);
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests;
