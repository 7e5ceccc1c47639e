//! Reads one stream, checks every byte of it, and knows when to pause or to stop.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kwik_core::{Chunk, ReadError, SessionMut, Side, StreamHandle, StreamId};

use super::message::Header;
use crate::checks::{Flow, FlowModel, ReadEnd};

/// How a stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadStyle {
    /// The most bytes of one read.
    pub chunk: usize,
    /// Whether the bytes are wanted in order.
    pub ordered: bool,
    /// After how many bytes to pause, and for how long.
    pub pause: Option<(u64, Duration)>,
    /// After how many bytes to stop, and the code.
    pub stop: Option<(u64, u32)>,
}

impl ReadStyle {
    /// Bytes that one read brings at least, as long as some are there, if it may bring that many.
    const USUAL_READ: usize = 512;

    /// How long a reader of `bytes` pauses in all, about.
    pub(crate) fn pauses(&self, bytes: u64) -> Duration {
        let Some((after, span)) = self.pause else { return Duration::ZERO };
        let step = after.max(self.chunk.min(Self::USUAL_READ) as u64).max(1);
        span.saturating_mul(u32::try_from(bytes / step).unwrap_or(u32::MAX))
    }
}

impl Default for ReadStyle {
    fn default() -> Self {
        Self { chunk: usize::MAX, ordered: true, pause: None, stop: None }
    }
}

/// The reader of one stream.
#[derive(Debug)]
pub(super) struct StreamReader {
    stream: StreamHandle,
    style: ReadStyle,
    source: FlowSource,
    taken: u64,
    since_pause: u64,
    paused_until: Option<Instant>,
    has_paused: bool,
    end: Option<ReadEnd>,
}

/// What is known of whose bytes they are.
#[derive(Debug)]
enum FlowSource {
    /// The header tells, once it is here.
    Header {
        id: StreamId,
        writer: Side,
        head: BytesMut,
    },
    Known(Flow),
}

impl StreamReader {
    /// Windows are full by then, and timers have run.
    const LONG_PAUSE: Duration = Duration::from_secs(1);

    /// Reads the answering half of a stream.
    pub(super) fn of(stream: StreamHandle, flow: Flow, style: ReadStyle) -> Self {
        Self::new(stream, FlowSource::Known(flow), style)
    }

    /// Reads a stream that begins with a header. The header is always read in order.
    pub(super) fn of_header(stream: StreamHandle, id: StreamId, writer: Side, style: ReadStyle) -> Self {
        let style = ReadStyle { ordered: true, ..style };
        Self::new(stream, FlowSource::Header { id, writer, head: BytesMut::new() }, style)
    }

    fn new(stream: StreamHandle, source: FlowSource, style: ReadStyle) -> Self {
        Self { stream, style, source, taken: 0, since_pause: 0, paused_until: None, has_paused: false, end: None }
    }

    pub(super) fn end(&self) -> Option<ReadEnd> {
        self.end
    }

    /// When to go on after a pause.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until.filter(|_| self.end.is_none())
    }

    /// Reads what there is. Returns the header when it just became known.
    pub(super) fn pump(&mut self, now: Instant, session: &mut SessionMut<'_>, model: &mut FlowModel) -> Option<Header> {
        let mut header = None;
        if self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        self.paused_until = None;
        while self.end.is_none() {
            if let Some((_, code)) = self.style.stop.filter(|(after, _)| self.taken >= *after) {
                self.stop(session, code, model);
                break;
            }
            match self.read(session) {
                Ok(chunk) => header = self.take(&chunk, session, model).or(header),
                Err(ReadError::Blocked) => break,
                Err(error) => self.finish(end_of(error), model),
            }
            if let Some((_, span)) = self.style.pause.filter(|(after, _)| self.since_pause >= *after) {
                self.since_pause = 0;
                self.has_paused |= span >= Self::LONG_PAUSE;
                self.paused_until = Some(now + span);
                break;
            }
        }
        header
    }

    /// The session is over: reads what is buffered, without a pause.
    pub(super) fn drain(&mut self, now: Instant, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        self.paused_until = None;
        self.style.pause = None;
        self.pump(now, session, model);
        if self.end.is_none() {
            self.finish(ReadEnd::SessionOver, model);
        }
    }

    /// Wants no more.
    pub(super) fn stop(&mut self, session: &mut SessionMut<'_>, code: u32, model: &mut FlowModel) {
        let FlowSource::Known(flow) = self.source else { return };
        if self.end.is_some() {
            return;
        }
        if session.stream_mut(self.stream).stop(code).is_ok() {
            model.stopped(flow, code);
            model.coverage.work("stop");
        }
        self.finish(ReadEnd::Unwanted, model);
    }

    /// Is not read any more: who lets go of the stream stops it.
    pub(super) fn leave(&mut self, model: &mut FlowModel) {
        let FlowSource::Known(flow) = self.source else { return };
        if self.end.is_none() {
            model.stopped(flow, 0);
            self.finish(ReadEnd::Unwanted, model);
        }
    }

    fn read(&self, session: &mut SessionMut<'_>) -> Result<Chunk, ReadError> {
        let max = match &self.source {
            FlowSource::Header { head, .. } => Header::LEN - head.len(),
            FlowSource::Known(_) => self.style.chunk,
        };
        let mut stream = session.stream_mut(self.stream);
        if self.style.ordered { stream.read(max) } else { stream.read_unordered(max) }
    }

    fn take(&mut self, chunk: &Chunk, session: &SessionMut<'_>, model: &mut FlowModel) -> Option<Header> {
        let expected = self.style.ordered.then_some(self.taken);
        let len = chunk.data.len() as u64;
        self.taken += len;
        self.since_pause += len;
        match &mut self.source {
            FlowSource::Known(flow) => {
                model.read(*flow, chunk, expected);
                None
            }
            FlowSource::Header { id, writer, head } => {
                head.extend_from_slice(&chunk.data);
                if head.len() < Header::LEN {
                    return None;
                }
                let (id, writer, head): (_, _, Bytes) = (*id, *writer, head.split().freeze());
                let header = Header::decode(&head)?;
                let flow = Flow { token: header.token, stream: id, writer };
                self.source = FlowSource::Known(flow);
                if let Some(session) = session.id() {
                    model.bind(session, header.token);
                }
                model.read_header(flow, &head, chunk);
                Some(header)
            }
        }
    }

    fn finish(&mut self, end: ReadEnd, model: &mut FlowModel) {
        self.end = Some(end);
        if self.has_paused && end == ReadEnd::Finished {
            model.coverage.work("all read after a long pause");
        }
        match &self.source {
            FlowSource::Known(flow) => model.read_end(*flow, end),
            FlowSource::Header { id, .. } if end == ReadEnd::Finished => {
                model.violate(format!("{id} ended before its header did"));
            }
            FlowSource::Header { .. } => {}
        }
    }
}

fn end_of(error: ReadError) -> ReadEnd {
    match error {
        ReadError::Finished => ReadEnd::Finished,
        ReadError::Reset(code) => ReadEnd::Reset(code),
        ReadError::Blocked | ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::SessionClosed => {
            ReadEnd::SessionOver
        }
    }
}
