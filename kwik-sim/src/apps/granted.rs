//! What a secondary was granted of streams: it writes what it was granted, whole or not.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kwik_core::{ErrorCode, PathId, ReadError, SessionMut, Side, StreamHandle, StreamId, WriteError};

use super::message::GrantRequest;
use super::writer::PIECE_BYTES;
use crate::checks::{Flow, FlowModel};
use crate::content::bytes_at;
use crate::rng::SimRng;

/// How reliable a secondary is, in percent of its grants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reliability {
    /// Grants ended short.
    pub short: u32,
    /// Grants reset midway.
    pub reset: u32,
    /// Grants begun late.
    pub late: u32,
}

/// What was granted in one session.
#[derive(Debug, Default)]
pub(super) struct GrantedStreams(BTreeMap<StreamHandle, GrantedStream>);

#[derive(Debug)]
struct GrantedStream {
    request: BytesMut,
    range: Range<u64>,
    /// Known once the request was read.
    flow: Option<Flow>,
    cursor: u64,
    /// Where it stops, and whether by a reset.
    stop_at: u64,
    resets: bool,
    begins_at: Option<Instant>,
}

impl GrantedStreams {
    /// A granted stream was accepted.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        stream: StreamHandle,
        session: &mut SessionMut<'_>,
        (rng, reliability): (&mut SimRng, Reliability),
    ) {
        let Some(grant) = session.stream(stream).grant() else { return };
        let range = grant.range;
        let dice = rng.below(100);
        let ends_early = dice < u64::from(reliability.short + reliability.reset);
        let stop_at = if ends_early { range.start + rng.below(range.end - range.start) } else { range.end };
        let late = rng.below(100) < u64::from(reliability.late);
        let delay = Duration::from_millis(1 + rng.below(500));
        let granted = GrantedStream {
            request: BytesMut::new(),
            cursor: range.start,
            range,
            flow: None,
            stop_at,
            resets: ends_early && dice >= u64::from(reliability.short),
            begins_at: late.then(|| now + delay),
        };
        self.0.insert(stream, granted);
    }

    /// The next moment at which a late one begins.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.0.values().filter_map(|granted| granted.begins_at).min()
    }

    /// Goes on with every granted stream that was to begin by now.
    pub(super) fn wake(&mut self, now: Instant, own: PathId, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        let is_due = |granted: &GrantedStream| granted.begins_at.is_some_and(|at| at <= now);
        let due: Vec<_> = self.0.iter().filter(|(_, granted)| is_due(granted)).map(|(stream, _)| *stream).collect();
        for stream in due {
            self.pump(now, own, stream, session, model);
        }
    }

    /// Reads the request and writes as far as there is room.
    pub(super) fn pump(
        &mut self,
        now: Instant,
        own: PathId,
        stream: StreamHandle,
        session: &mut SessionMut<'_>,
        model: &mut FlowModel,
    ) {
        let Some(granted) = self.0.get_mut(&stream) else { return };
        if granted.begins_at.is_some_and(|at| at > now) {
            return;
        }
        granted.begins_at = None;
        if granted.flow.is_none() {
            granted.read_request(own, stream, session, model);
        }
        if granted.flow.is_some() && granted.write(stream, session, model) {
            session.stream_mut(stream).release_send();
            session.stream_mut(stream).release_recv();
            self.0.remove(&stream);
        }
    }

    /// The client, or the primary, wants no more of a granted stream.
    pub(super) fn on_stopped(
        &mut self,
        stream: StreamHandle,
        code: ErrorCode,
        session: &mut SessionMut<'_>,
        model: &mut FlowModel,
    ) {
        model.coverage.code(code);
        if self.0.remove(&stream).is_some() {
            session.stream_mut(stream).release_send();
            session.stream_mut(stream).release_recv();
        }
    }
}

impl GrantedStream {
    fn read_request(&mut self, own: PathId, stream: StreamHandle, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        loop {
            match session.stream_mut(stream).read(usize::MAX) {
                Ok(chunk) => self.request.extend_from_slice(&chunk.data),
                Err(ReadError::Finished) => break,
                Err(_) => return,
            }
        }
        let (Some(request), Some(id)) = (GrantRequest::decode(&self.request), session.stream(stream).id()) else {
            let what = format!("{own} was granted {:?} with a request that nobody wrote", self.range);
            return model.misgranted(session.id(), what);
        };
        let flow = Flow { token: request.token, stream: StreamId(request.stream), writer: Side::Server };
        if id != flow.stream {
            return model.misgranted(session.id(), format!("{own} was granted {id} with a request for {flow:?}"));
        }
        if let Some(session) = session.id() {
            model.granted(session, own, flow, &self.range);
        }
        model.coverage.work("grant served");
        self.flow = Some(flow);
    }

    /// Returns whether it is over.
    fn write(&mut self, stream: StreamHandle, session: &mut SessionMut<'_>, model: &mut FlowModel) -> bool {
        let Some(flow) = self.flow else { return false };
        while self.cursor < self.stop_at {
            let bytes = bytes_at(flow.key(), self.cursor..self.stop_at.min(self.cursor + PIECE_BYTES));
            match session.stream_mut(stream).write_chunk(bytes) {
                Ok(taken) => self.cursor += taken as u64,
                Err(WriteError::Blocked) => return false,
                Err(WriteError::Stopped(_) | WriteError::SessionClosed | WriteError::ClosedStream) => return true,
                Err(error) => {
                    model.violate(format!(
                        "a write of {flow:?} at {} within {:?} failed: {error}",
                        self.cursor, self.range
                    ));
                    return true;
                }
            }
        }
        if self.resets {
            model.coverage.work("grant reset");
            // What was written may be stopped already.
            let _ = session.stream_mut(stream).reset(9);
        } else {
            if self.stop_at < self.range.end {
                model.coverage.work("grant ended short");
            }
            let _ = session.stream_mut(stream).finish();
        }
        true
    }
}
