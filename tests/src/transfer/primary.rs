//! The primary: whoever is free writes the next range, and what was lost comes first.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use kwik_core::{
    AddPathError, Dir, GrantId, GrantStatus, PathEvent, PathId, PathState, PathTarget, SessionEvent, SessionMut,
    StreamEvent, StreamHandle, StreamOffset, WriteError,
};

use super::bytes_of;
use super::client::StreamRequest;
use super::recorder::{Loss, Recorder};
use super::server::PIECE;

/// One session.
pub(super) struct TransferPrimary {
    recorder: Rc<RefCell<Recorder>>,
    others: Vec<Other>,
    uploads: BTreeMap<StreamHandle, Upload>,
    grants: BTreeMap<GrantId, (PathId, StreamHandle, Range<u64>)>,
}

/// A secondary.
struct Other {
    target: PathTarget,
    path: Option<PathId>,
    add_at: Option<Instant>,
}

/// One stream.
#[derive(Default)]
struct Upload {
    asked: Vec<u8>,
    request: Option<StreamRequest>,
    /// Everything below was given to somebody.
    cursor: u64,
    lost: VecDeque<Range<u64>>,
    /// What the primary writes itself now.
    own: Range<u64>,
    is_finished: bool,
}

impl TransferPrimary {
    pub(super) fn new(recorder: Rc<RefCell<Recorder>>, others: Vec<PathTarget>) -> Self {
        let others = others.into_iter().map(|target| Other { target, path: None, add_at: None }).collect();
        Self { recorder, others, uploads: BTreeMap::new(), grants: BTreeMap::new() }
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.others.iter().filter_map(|other| other.add_at).min()
    }

    pub(super) fn wake(&mut self, now: Instant, session: &mut SessionMut<'_>) {
        for other in &mut self.others {
            if other.add_at.is_none_or(|at| at > now) {
                continue;
            }
            other.add_at = None;
            match session.add_path(now, other.target.clone()) {
                Ok(path) => other.path = Some(path),
                Err(AddPathError::SessionClosed) => {}
                Err(error) => panic!("a path was not added: {error}"),
            }
        }
    }

    pub(super) fn on_event(&mut self, now: Instant, event: &SessionEvent, session: &mut SessionMut<'_>) {
        match event {
            SessionEvent::Incoming => {
                for other in &mut self.others {
                    other.add_at = Some(now);
                }
                self.wake(now, session);
            }
            SessionEvent::Stream(event) => self.on_stream(event, session),
            SessionEvent::Path(event) => self.on_path(now, event, session),
            SessionEvent::Delegation(grant) => self.on_delegation(now, *grant, session),
            SessionEvent::Closed(error) => {
                let mut recorder = self.recorder.borrow_mut();
                let at = recorder.time(now);
                recorder.closed_at_primary = Some((at, error.clone()));
                return;
            }
            _ => return,
        }
        self.pump(session);
    }

    fn on_stream(&mut self, event: &StreamEvent, session: &mut SessionMut<'_>) {
        match event {
            StreamEvent::Opened { .. } => {
                while let Some(stream) = session.accept_stream(Dir::Bi) {
                    self.uploads.insert(stream, Upload::default());
                    self.read(stream, session);
                }
            }
            StreamEvent::Readable(stream) => self.read(*stream, session),
            StreamEvent::Finished(stream) => {
                self.uploads.remove(stream);
                session.stream_mut(*stream).release_send();
            }
            StreamEvent::Available { .. } | StreamEvent::Writable(_) | StreamEvent::Stopped { .. } => {}
        }
    }

    fn read(&mut self, stream: StreamHandle, session: &mut SessionMut<'_>) {
        let Some(upload) = self.uploads.get_mut(&stream) else { return };
        let mut view = session.stream_mut(stream);
        while let Ok(chunk) = view.read(usize::MAX) {
            upload.asked.extend_from_slice(&chunk.data);
        }
        if let (None, Some(request)) = (upload.request, StreamRequest::decode(&upload.asked)) {
            upload.request = Some(request);
            view.release_recv();
        }
    }

    fn on_path(&mut self, now: Instant, event: &PathEvent, session: &mut SessionMut<'_>) {
        let mut recorder = self.recorder.borrow_mut();
        let at = recorder.time(now);
        recorder.paths.push((at, event.clone()));
        match event {
            PathEvent::Dead { path, .. } => {
                let Some(other) = self.others.iter_mut().find(|other| other.path == Some(*path)) else { return };
                other.path = None;
                other.add_at = recorder.plan.rejoin.map(|span| now + span);
            }
            PathEvent::Suspect(path) if recorder.plan.revokes => {
                for (grant, _) in self.grants.iter().filter(|(_, (of, ..))| of == path) {
                    let _ = session.revoke(*grant);
                }
            }
            PathEvent::Suspect(_) | PathEvent::Joined(_) | PathEvent::Recovered(_) | PathEvent::Conflict { .. } => {}
        }
    }

    fn on_delegation(&mut self, now: Instant, grant: GrantId, session: &mut SessionMut<'_>) {
        let state = session.delegation(grant);
        if matches!(state, Some(GrantStatus::Progress { .. })) {
            return;
        }
        session.forget_delegation(grant);
        let Some((path, stream, range)) = self.grants.remove(&grant) else { return };
        let mut recorder = self.recorder.borrow_mut();
        let Some(GrantStatus::Lost { code, missing }) = state else {
            recorder.delivered += 1;
            return;
        };
        let Some(upload) = self.uploads.get_mut(&stream) else { return };
        upload.lost.extend(missing.iter().cloned());
        let (at, stream) = (recorder.time(now), upload.request.map_or(0, |request| request.stream));
        recorder.losses.push(Loss { at, path, code, stream, range, missing });
    }

    // ---- who writes what

    fn pump(&mut self, session: &mut SessionMut<'_>) {
        let (ahead, range, primary_writes) = {
            let plan = &self.recorder.borrow().plan;
            (plan.ahead, plan.range, plan.primary_writes)
        };
        let active = session.active_paths();
        let active: Vec<PathId> = active
            .iter()
            .filter(|path| path.state == PathState::Active && !path.id.is_primary())
            .map(|path| path.id)
            .collect();
        for path in &active {
            self.delegate(*path, ahead, range, session);
        }
        for (stream, upload) in &mut self.uploads {
            upload.write(*stream, if primary_writes { range } else { 0 }, session);
            upload.finish(*stream, session);
        }
    }

    fn delegate(&mut self, path: PathId, ahead: usize, range: u64, session: &mut SessionMut<'_>) {
        let under_way = self.grants.values().filter(|(of, ..)| *of == path).count();
        let mut free = ahead.saturating_sub(under_way);
        for (stream, upload) in &mut self.uploads {
            // What was lost cannot wait: it may be what all other ranges wait for.
            while free > 0 || !upload.lost.is_empty() {
                let Some(next) = upload.next(range) else { break };
                let Some(request) = upload.request else { break };
                match session.stream_mut(*stream).delegate_range(path, next.clone(), request.encode()) {
                    Ok(info) => {
                        self.grants.insert(info.grant, (path, *stream, next));
                        free = free.saturating_sub(1);
                    }
                    Err(_) => {
                        upload.lost.push_front(next);
                        return;
                    }
                }
            }
        }
    }
}

impl Upload {
    /// The next bytes that nobody has to write yet, at most `most` of them.
    fn next(&mut self, most: u64) -> Option<Range<u64>> {
        let total = self.request?.bytes;
        if let Some(lost) = self.lost.pop_front() {
            let end = lost.end.min(lost.start + most);
            if end < lost.end {
                self.lost.push_front(end..lost.end);
            }
            return Some(lost.start..end);
        }
        let begin = self.cursor;
        self.cursor = total.min(begin + most);
        (begin < self.cursor).then_some(begin..self.cursor)
    }

    /// Writes as much as there is room for; takes ranges of up to `most` bytes, and none if that is 0.
    fn write(&mut self, stream: StreamHandle, most: u64, session: &mut SessionMut<'_>) {
        let Some(request) = self.request else { return };
        loop {
            if !self.own.is_empty() && self.lost.front().is_some_and(|lost| lost.start < self.own.start) {
                // Bytes that wait for credit keep no others out.
                self.lost.push_back(std::mem::take(&mut self.own));
            }
            if self.own.is_empty() {
                let Some(next) = (most > 0).then(|| self.next(most)).flatten() else { return };
                self.own = next;
            }
            let begin = self.own.start;
            let data = bytes_of(request.stream, begin..self.own.end.min(begin + PIECE));
            match session.stream_mut(stream).write_at(StreamOffset(begin), data) {
                Ok(taken) => self.own.start += taken as u64,
                Err(WriteError::Blocked | WriteError::SessionClosed) => return,
                Err(error) => panic!("the primary could not write at {begin}: {error}"),
            }
        }
    }

    /// Tells the end once somebody has to write each byte below it.
    fn finish(&mut self, stream: StreamHandle, session: &mut SessionMut<'_>) {
        let all_given = self.request.is_some_and(|request| request.bytes == self.cursor);
        if all_given && self.lost.is_empty() && self.own.is_empty() && !self.is_finished {
            self.is_finished = true;
            let _ = session.stream_mut(stream).finish();
        }
    }
}
