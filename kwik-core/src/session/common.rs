//! What a client, a primary and a secondary have in common: paths, streams, and events for the application.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::close::Phase;
use super::credit::StreamCredit;
use super::event::SessionEvent;
use super::paths::Paths;
use super::transmit::Transmit;
use super::violation;
use crate::auth::{self, Identity, PublicIdentity};
use crate::error::{Fault, FrameEffect, TransportCode};
use crate::id::{PathId, SessionId, StreamHandle, StreamId, StreamOffset};
use crate::limits::Limits;
use crate::path::Path;
use crate::protocol_event::{EventDetail, EventLog, ProtocolEventKind};
use crate::stream::{DataOutcome, StreamControl, StreamTable};
use crate::wire::{
    ControlFrame, GrantEnd, MaxStreamData, MaxStreams, OpenStream, Params, ResetStream, StopSending, Welcome,
};

/// The part of a session that its role works on.
pub(super) struct Common {
    pub(super) id: Option<SessionId>,
    pub(super) limits: Limits,
    pub(super) paths: Paths,
    pub(super) streams: StreamTable,
    pub(super) transmit: Transmit,
    pub(super) credit: StreamCredit,
    pub(super) phase: Phase,
    /// Streams that were finished here and of which the peer may not have all, once the session ended.
    pub(super) undelivered: Vec<StreamId>,
    pub(super) events: VecDeque<SessionEvent>,
    /// The application let go of the session: it gets no more events.
    pub(super) released: bool,
    /// What the protocol did, for whoever wants to know.
    pub(super) log: EventLog,
    /// When room that writers were offered and did not use is offered to others.
    wakes_due: Option<Instant>,
}

/// Bytes of a stream: a slice of a STREAM frame that ends at `frame_end`.
pub(super) struct StreamData {
    pub(super) stream: StreamId,
    pub(super) offset: u64,
    pub(super) data: Bytes,
    pub(super) frame_end: u64,
    /// Whether the stream ends with these bytes.
    pub(super) fin: bool,
}

impl StreamData {
    /// What is achieved by taking them.
    pub(super) fn effect(&self) -> FrameEffect {
        if self.data.is_empty() && !self.fin { FrameEffect::NoOp } else { FrameEffect::Progress }
    }

    /// What is left of the frame, with these bytes.
    pub(super) fn rest_of_frame(&self) -> Range<u64> {
        self.offset..self.frame_end
    }
}

impl Common {
    /// How long a writer that was woken may take to write before others are woken in its place.
    const WAKE_PATIENCE: Duration = Duration::from_millis(10);

    pub(super) fn new(
        now: Instant,
        id: Option<SessionId>,
        limits: Limits,
        (main, path): (PathId, Path),
        streams: StreamTable,
    ) -> Self {
        Self {
            id,
            paths: Paths::new(main, path),
            streams,
            transmit: Transmit::default(),
            credit: StreamCredit::new(now, &limits),
            phase: Phase::new(),
            undelivered: Vec::new(),
            events: VecDeque::new(),
            released: false,
            log: EventLog::default(),
            wakes_due: None,
            limits,
        }
    }

    pub(super) fn emit(&mut self, event: SessionEvent) {
        if !self.released {
            self.events.push_back(event);
        }
    }

    /// Whether the application may begin anything new.
    pub(super) fn is_open(&self) -> bool {
        self.phase.is_open()
    }

    pub(super) fn params(&self) -> Params {
        params(&self.limits)
    }

    pub(super) fn main_address(&self) -> Option<SocketAddr> {
        self.paths.main().map(Path::remote_address)
    }

    /// The stream, if what the application does with it is noted.
    pub(super) fn noted_stream(&self, stream: StreamHandle) -> Option<StreamId> {
        if self.log.detail() >= EventDetail::Streams { self.streams.stream_id(stream) } else { None }
    }

    /// The application did something with a stream.
    pub(super) fn note_stream(&mut self, stream: Option<StreamId>, kind: impl FnOnce(StreamId) -> ProtocolEventKind) {
        if let Some(stream) = stream {
            self.log.stream(None, || kind(stream));
        }
    }

    // ---- frames about streams

    /// Handles a frame about streams that is legal between a client and its primary in both directions. The caller has
    /// handled the frames that concern its role only.
    pub(super) fn on_stream_control(&mut self, frame: ControlFrame) -> Result<FrameEffect, Fault> {
        match frame {
            ControlFrame::OpenStream(open) => self.on_open(&open),
            ControlFrame::MaxStreamData(MaxStreamData { stream, limit }) => {
                let limit = limit.0;
                self.log.frame(self.paths.main_id(), || ProtocolEventKind::StreamLimitRaised { stream, limit });
                self.streams.on_max_stream_data(stream, limit)
            }
            ControlFrame::MaxStreams(max) => self.streams.on_max_streams(max.dir, max.max),
            ControlFrame::Close(close) => Ok(self.phase.on_peer_closing(close)),
            _ => Err(violation("a frame that this peer may not send")),
        }
    }

    fn on_open(&mut self, open: &OpenStream) -> Result<FrameEffect, Fault> {
        let effect = self.streams.on_open(open.stream, open.priority, open.limit.0)?;
        let stream = open.stream;
        self.log.stream(self.paths.main_id(), || ProtocolEventKind::StreamOpened { stream });
        Ok(effect)
    }

    pub(super) fn on_reset(&mut self, reset: &ResetStream) -> Result<FrameEffect, Fault> {
        let ResetStream { stream, code, final_size } = *reset;
        let effect = self.streams.on_reset(stream, code, final_size.0)?;
        self.log.stream(self.paths.main_id(), || ProtocolEventKind::StreamReset { stream, code });
        Ok(effect)
    }

    pub(super) fn on_stop(&mut self, stop: &StopSending) -> Result<FrameEffect, Fault> {
        let StopSending { stream, code, .. } = *stop;
        let effect = self.streams.on_stop(stream, code)?;
        self.log.stream(self.paths.main_id(), || ProtocolEventKind::StreamStopped { stream, code });
        Ok(effect)
    }

    /// Bytes of a stream came over a path that may write them.
    pub(super) fn on_stream_data(
        &mut self,
        now: Instant,
        from: PathId,
        bytes: StreamData,
    ) -> Result<DataOutcome, Fault> {
        let StreamData { stream, offset, data, frame_end, fin } = bytes;
        let outcome = self.streams.on_data(from, stream, offset, data, frame_end, fin)?;
        if fin {
            self.log.stream(from, || ProtocolEventKind::StreamFinished { stream });
        }
        // Bytes of a stream that is done with are not in `inserted`: they do not count for the path ([P-6.13]).
        let inserted = &outcome.inserted;
        let new = inserted.new.iter().map(|range| range.end - range.start).sum();
        if let Some(path) = self.paths.get_mut(from) {
            path.on_data_taken(now, new, inserted.duplicate_bytes);
        }
        for range in &inserted.new {
            self.log.frame(from, || ProtocolEventKind::StreamReceived { stream, range: range.clone() });
        }
        Ok(outcome)
    }

    /// Whether bytes that were taken are somebody's fault: they opened too many gaps, or they differ from what came
    /// before. The primary hears who contradicted whom; where it is one of the two itself, its word counts.
    pub(super) fn judge_stream_data(&mut self, stream: StreamId, outcome: &DataOutcome) -> Result<(), Fault> {
        if let Some(overflow) = &outcome.overflow {
            let fault = Fault::new(TransportCode::REASSEMBLY_LIMIT, "a stream with too many gaps");
            return Err(Fault { offender: Some(overflow.offender), ..fault });
        }
        let Some(conflict) = &outcome.conflict else { return Ok(()) };
        let offset = conflict.at;
        self.log.change(conflict.second, || ProtocolEventKind::StreamConflict { stream, offset });
        // The table refuses a secondary that contradicts itself or the primary. What is left is nobody's fault, unless
        // the primary wrote second.
        match conflict.first.filter(|first| conflict.second.is_primary() && !first.is_primary()) {
            Some(_) => {
                let fault = Fault::new(TransportCode::RANGE_CONFLICT, "bytes that differ from the primary's");
                Err(Fault { offender: conflict.first, ..fault })
            }
            None => Ok(()),
        }
    }

    // ---- what is announced of streams

    /// Announces one change of a stream on the main path. Returns the stream if its limit rose: every path that writes
    /// it is to be notified.
    pub(super) fn announce(&mut self, control: StreamControl) -> Option<StreamId> {
        let (frame, raised) = match control {
            StreamControl::Open { id, priority, limit } => {
                (OpenStream { stream: id, priority, limit: StreamOffset(limit) }.into(), None)
            }
            StreamControl::Reset { id, code, final_size } => {
                (ResetStream { stream: id, code, final_size: StreamOffset(final_size) }.into(), None)
            }
            // Secondaries were notified when the stream was over at the client: see `ClientRole::on_stream_over`.
            StreamControl::Stop { id, code, conflict } => (StopSending { stream: id, code, conflict }.into(), None),
            StreamControl::MaxStreamData { id, limit } => {
                self.log.frame(None, || ProtocolEventKind::StreamLimitRaised { stream: id, limit });
                (MaxStreamData { stream: id, limit: StreamOffset(limit) }.into(), Some(id))
            }
            StreamControl::MaxStreams { dir, max } => (MaxStreams { dir, max }.into(), None),
            StreamControl::PartEnd { grant, end, code } => {
                (ControlFrame::from(GrantEnd { grant, end: StreamOffset(end), code }), None)
            }
        };
        // A main path that is dead ends the session, and what is announced is lost with it.
        if let Some(main) = self.paths.main_mut().filter(|main| main.is_hearing()) {
            main.queue_control(&frame);
        }
        raised
    }

    // ---- writers that wait for room

    pub(super) fn wakes_deadline(&mut self, now: Instant) -> Option<Instant> {
        // The wait counts from when room was first left unused, not from the last call.
        let due = self.wakes_due.or_else(|| now.checked_add(Self::WAKE_PATIENCE));
        self.wakes_due = due.filter(|_| self.streams.has_unused_wakes());
        self.wakes_due
    }

    pub(super) fn check_wakes(&mut self, now: Instant) {
        if self.wakes_due.is_some_and(|due| due <= now) {
            self.wakes_due = None;
            self.streams.pass_on_wakes();
        }
    }

    // ---- protocol events

    /// Takes over what the paths noted of themselves.
    pub(super) fn collect_path_logs(&mut self) {
        for (id, path) in self.paths.iter_mut() {
            self.log.append_path(id, path.log_mut());
        }
    }
}

/// A server answers a client that it believes: the path is active.
pub(super) fn send_welcome(
    path: &mut Path,
    (session, id): (SessionId, PathId),
    (identity, client_key): (&Identity, &PublicIdentity),
    exporter: &[u8; 32],
    limits: &Limits,
) {
    path.set_limits(limits);
    path.queue_control(&ControlFrame::from(Welcome {
        session,
        path: id,
        params: params(limits),
        identity: *identity.public().as_bytes(),
        signature: auth::welcome_proof(identity, exporter, session, id, client_key),
    }));
    path.move_to_active();
}

/// The transport parameters that follow from the limits.
pub(super) fn params(limits: &Limits) -> Params {
    Params {
        streams_bidi: limits.streams_bidi_max,
        streams_uni: limits.streams_uni_max,
        stream_window_initial: limits.stream_window_initial_bytes,
    }
}
