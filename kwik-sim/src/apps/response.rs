//! A primary's answering half of a stream: some ranges it writes itself, others it leaves to secondaries; what they lose
//! is issued again.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use kwik_core::{
    DelegateError, DistributeError, ErrorCode, FinishError, GrantId, GrantStatus, PathId, PathState, SessionMut,
    StreamHandle, StreamOffset, TransportCode, WriteError,
};

use super::distributed::Distributed;
use super::message::GrantRequest;
use super::server::Tools;
use super::writer::PIECE_BYTES;
use crate::checks::Flow;
use crate::content::bytes_at;

/// The answering half of one stream.
#[derive(Debug)]
pub(super) struct Response {
    stream: StreamHandle,
    flow: Flow,
    size: u64,
    pieces: VecDeque<PlannedRange>,
    /// Who writes it instead of the plan.
    distributed: Option<Distributed>,
    grants: BTreeMap<GrantId, (PathId, Range<u64>)>,
    revokes: Vec<(Instant, GrantId)>,
    /// After how many issued bytes it is reset.
    reset_after: Option<u64>,
    issued: u64,
    finished: bool,
    over: bool,
}

/// A range that was not issued yet.
#[derive(Debug, Clone)]
struct PlannedRange {
    range: Range<u64>,
    delegate: bool,
    at_cursor: bool,
}

/// The code of a response that was asked to be reset.
pub(super) const RESET_CODE: u32 = 77;

impl Response {
    const PIECES_MAX: u64 = 16;
    /// So many of a hundred are distributed.
    const DISTRIBUTED: u32 = 33;

    pub(super) fn new(
        stream: StreamHandle,
        flow: Flow,
        size: u64,
        reset_after: Option<u64>,
        tools: &mut Tools<'_>,
    ) -> Self {
        let distributed = tools.chance(Self::DISTRIBUTED).then(|| Distributed::new(stream, size, tools));
        let explicit = tools.chance(tools.plan.explicit);
        let mut pieces = Vec::new();
        let mut start = 0;
        while start < size {
            let longest = (size / 4).max(size / Self::PIECES_MAX * 2).max(64);
            let end = size.min(start + 1 + tools.rng.below(longest));
            let delegate = tools.chance(tools.plan.delegate);
            pieces.push(PlannedRange { range: start..end, delegate, at_cursor: !explicit });
            start = end;
        }
        if explicit {
            tools.rng.shuffle(&mut pieces);
        }
        Self {
            stream,
            flow,
            size,
            pieces: pieces.into(),
            distributed,
            grants: BTreeMap::new(),
            revokes: Vec::new(),
            reset_after,
            issued: 0,
            finished: false,
            over: false,
        }
    }

    pub(super) fn flow(&self) -> Flow {
        self.flow
    }

    /// Whether nothing more is to be written.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn abandon(&mut self) {
        self.over = true;
    }

    /// When the next grant is to be revoked, or the distribution is to be looked at.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let distributed = self.distributed.as_ref().filter(|_| !self.over && !self.finished);
        let look = distributed.and_then(Distributed::wake_at);
        self.revokes.iter().map(|(at, _)| *at).chain(look).min()
    }

    /// Whether delegations that nobody knows may be its.
    pub(super) fn is_distributed(&self) -> bool {
        self.distributed.is_some()
    }

    /// Nobody asks any more what becomes of what was left to others.
    pub(super) fn release(&mut self, session: &mut SessionMut<'_>) {
        if let Some(distributed) = &mut self.distributed {
            distributed.release(session);
        }
    }

    /// Revokes what is due.
    pub(super) fn wake(&mut self, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        let now = tools.now;
        let due: Vec<GrantId> = self.revokes.iter().filter(|(at, _)| *at <= now).map(|(_, grant)| *grant).collect();
        self.revokes.retain(|(at, _)| *at > now);
        for grant in due.into_iter().filter(|grant| self.grants.contains_key(grant)) {
            if session.revoke(grant).is_ok() {
                tools.model.coverage.work("revoke");
            }
        }
    }

    /// Issues what there is room for.
    pub(super) fn pump(&mut self, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        if self.distributed.is_some() {
            return self.distribute(session, tools);
        }
        while !self.over {
            if self.reset_after.is_some_and(|after| self.issued >= after) {
                return self.reset(session, tools);
            }
            let Some(piece) = self.pieces.front().cloned() else { return self.finish(session, tools) };
            let path = if piece.delegate { pick_path(session, tools) } else { None };
            let issued = match path {
                Some(path) => self.delegate(path, &piece, session, tools),
                None => self.write(&piece, session, tools),
            };
            if !issued && !self.bring_forward() {
                return;
            }
        }
    }

    /// Has its distribution act, if it has one that is not through.
    pub(super) fn distribute(&mut self, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        let Some(distributed) = self.distributed.as_mut().filter(|_| !self.over && !self.finished) else { return };
        let (acted, is_done) = (distributed.act(self.flow, session, tools), distributed.is_done());
        match acted {
            Ok(issued) => {
                self.issued += issued;
                if self.reset_after.is_some_and(|after| self.issued >= after) {
                    self.release(session);
                    self.reset(session, tools);
                } else if is_done {
                    self.finish(session, tools);
                }
            }
            Err(DistributeError::Stopped(code)) => self.on_stopped(code, tools),
            Err(DistributeError::SessionClosed | DistributeError::ClosedStream) => self.over = true,
            Err(error) => drop(self.fail(&format!("its distribution: {error}"), tools)),
        }
    }

    /// A delegation changed. Returns whether it is one of these.
    pub(super) fn on_delegation(
        &mut self,
        grant: GrantId,
        session: &mut SessionMut<'_>,
        tools: &mut Tools<'_>,
    ) -> bool {
        let Some((path, range)) = self.grants.get(&grant).cloned() else { return false };
        let (code, missing) = match session.delegation(grant) {
            Some(GrantStatus::Progress { delivered }) => {
                if delivered > range.end - range.start {
                    tools.model.violate(format!("{grant:?} of {range:?} delivered {delivered} bytes"));
                }
                return true;
            }
            Some(GrantStatus::Delivered) => (None, Vec::new()),
            Some(GrantStatus::Lost { code, missing }) => (Some(code), missing),
            None => return true,
        };
        session.forget_delegation(grant);
        self.grants.remove(&grant);
        self.revokes.retain(|(_, other)| *other != grant);
        tools.model.coverage.work(if code.is_some() { "delegation lost" } else { "delegation delivered" });
        if let Some(code) = code {
            tools.model.coverage.code(code);
        }
        for lost in missing {
            if lost.start < range.start || lost.end > range.end {
                tools.model.violate(format!("{grant:?} of {path} lost {lost:?}, outside of its {range:?}"));
            }
            // Who was too slow once is not asked again.
            let delegate = code != Some(TransportCode::REVOKED.into()) && tools.chance(tools.plan.delegate / 2);
            self.pieces.push_back(PlannedRange { range: lost, delegate, at_cursor: false });
        }
        if !self.pieces.is_empty() {
            self.pump(session, tools);
        }
        true
    }

    pub(super) fn on_stopped(&mut self, code: ErrorCode, tools: &mut Tools<'_>) {
        if !self.over {
            self.over = true;
            tools.model.notified_of_stop(self.flow, code);
        }
    }

    fn write(&mut self, piece: &PlannedRange, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) -> bool {
        let Range { start, end } = piece.range;
        let bytes = bytes_at(self.flow.key(), start..end.min(start + PIECE_BYTES));
        let mut stream = session.stream_mut(self.stream);
        let written =
            if piece.at_cursor { stream.write_chunk(bytes) } else { stream.write_at(StreamOffset(start), bytes) };
        match written {
            Ok(taken) => {
                let reached = start + taken as u64;
                tools.model.wrote(self.flow, start..reached);
                self.issued += taken as u64;
                self.advance(reached);
                true
            }
            Err(WriteError::Blocked) => {
                tools.model.coverage.limit("send buffer");
                false
            }
            Err(WriteError::Stopped(code)) => {
                self.on_stopped(code, tools);
                false
            }
            Err(WriteError::SessionClosed | WriteError::ClosedStream) => self.end(),
            Err(error) => self.fail(&format!("a write of {start}..{end}: {error}"), tools),
        }
    }

    fn delegate(
        &mut self,
        path: PathId,
        piece: &PlannedRange,
        session: &mut SessionMut<'_>,
        tools: &mut Tools<'_>,
    ) -> bool {
        let request = GrantRequest { token: self.flow.token, stream: self.flow.stream.0 };
        let request = request.encode(tools.rng.index(200));
        let range = piece.range.clone();
        let mut stream = session.stream_mut(self.stream);
        let granted = if piece.at_cursor {
            stream.delegate(path, range.end - range.start, request)
        } else {
            stream.delegate_range(path, range.clone(), request)
        };
        match granted {
            Ok(grant) if grant.range == range => {
                tools.model.coverage.work("delegate");
                tools.model.delegated(self.flow, path, range.clone());
                self.issued += range.end - range.start;
                let hasty = tools.chance(tools.plan.revoke);
                let hurry = Duration::from_millis(tools.rng.below(400));
                let longer = Duration::from_millis((range.end - range.start) / 20);
                let patience = if hasty { Some(hurry) } else { tools.plan.patience.map(|least| least + longer) };
                self.revokes.extend(patience.map(|patience| (tools.now + patience, grant.grant)));
                self.grants.insert(grant.grant, (path, range));
                self.pieces.pop_front();
                true
            }
            Ok(grant) => self.fail(&format!("{:?} was delegated instead of {range:?}", grant.range), tools),
            Err(DelegateError::TooMany) => {
                tools.model.coverage.limit("grants");
                self.write(piece, session, tools)
            }
            Err(DelegateError::Stopped(code)) => {
                self.on_stopped(code, tools);
                false
            }
            Err(DelegateError::SessionClosed | DelegateError::ClosedStream) => self.end(),
            Err(error) => self.fail(&format!("the delegation of {range:?} to {path}: {error}"), tools),
        }
    }

    /// What lies far ahead may wait for credit that only comes when what lies before it was read: puts the lowest
    /// range first. Those at the cursor ascend, and keep their order. Returns whether it was not first before.
    fn bring_forward(&mut self) -> bool {
        let lowest = self.pieces.iter().enumerate().min_by_key(|(_, piece)| piece.range.start).map(|(index, _)| index);
        let Some(piece) = lowest.filter(|index| *index > 0).and_then(|index| self.pieces.remove(index)) else {
            return false;
        };
        self.pieces.push_front(piece);
        true
    }

    fn advance(&mut self, reached: u64) {
        let Some(piece) = self.pieces.front_mut() else { return };
        piece.range.start = reached;
        if piece.range.is_empty() {
            self.pieces.pop_front();
        }
    }

    fn finish(&mut self, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        if self.finished {
            return;
        }
        self.finished = true;
        match session.stream_mut(self.stream).finish() {
            Ok(()) => tools.model.finished(self.flow, self.size),
            Err(FinishError::Stopped(code)) => self.on_stopped(code, tools),
            Err(FinishError::ClosedStream) => self.over = true,
        }
    }

    fn reset(&mut self, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        self.over = true;
        if session.stream_mut(self.stream).reset(RESET_CODE).is_ok() {
            tools.model.reset(self.flow, RESET_CODE);
            tools.model.coverage.work("reset");
        }
    }

    fn end(&mut self) -> bool {
        self.over = true;
        false
    }

    fn fail(&mut self, what: &str, tools: &mut Tools<'_>) -> bool {
        tools.model.violate(format!("{:?}: {what}", self.flow));
        self.end()
    }
}

/// A secondary that is not known to be gone.
fn pick_path(session: &SessionMut<'_>, tools: &mut Tools<'_>) -> Option<PathId> {
    let usable = |state: &PathState| !state.is_dead() && *state != PathState::Closing;
    let paths: Vec<PathId> = session
        .all_paths()
        .into_iter()
        .filter(|path| !path.id.is_primary() && usable(&path.state))
        .map(|path| path.id)
        .collect();
    tools.rng.pick(&paths).copied()
}
