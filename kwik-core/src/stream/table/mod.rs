//! Every logical stream at one end of one session, and what the application may do with them.
//!
//! Split by what changes together: this file holds the state and the application's commands, `grant` the ranges that
//! others write, `peer` what arrives, `memory` what is held of the endpoint's memory, `slots` how many streams the peer
//! may open, `output` the frames for the peer and the events for the application, and `queries` what can be asked.

mod grant;
#[cfg(test)]
mod inspect;
#[cfg(any(test, feature = "__test_exports"))]
mod ledger;
mod memory;
mod output;
mod peer;
mod queries;
mod slots;
mod streams;
mod writers;

pub(crate) use grant::ReserveError;
pub(crate) use output::StreamControl;
pub use output::StreamEvent;

use super::flow::{Budget, Credit, Window, WindowRules};
use super::ids::StreamIds;
use super::optional::OptionalCode;
use super::reassembly::Chunk;
use super::recv::{ReadError, RecvStream};
use super::send::{Position, SendStream, WriteError};
use super::slices::{SliceBytes, Slices};
use crate::error::{ErrorCode, TransportCode};
use crate::id::{Dir, GrantId, RangeConflict, Side, StreamHandle, StreamId};
use crate::limits::{FLOOR_STREAM_BYTES, FLOOR_STREAMS, GRANTS_HELD_MAX, GRANTS_PATH_MAX, Limits};
use bytes::Bytes;
use output::{Events, Outbox, Signals};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use streams::{Links, Streams};
use writers::Writers;

/// What this end is in the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableRole {
    /// Receives from several servers.
    Client,
    /// May leave ranges of its streams to secondaries.
    Primary,
    /// Has granted parts of streams only.
    Secondary,
}

/// Why no stream was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The peer allows no more streams now; an `Available` event follows.
    #[error("the peer allows {limit} streams ({dir:?}) so far")]
    LimitReached {
        /// The direction of the stream.
        dir: Dir,
        /// How many streams the peer allowed since the session began.
        limit: u64,
    },
    /// The session's receive budget is taken by other streams; an `Available` event follows.
    #[error("the receive budget of the session is taken by other streams")]
    BudgetTaken,
    /// A secondary opens no streams.
    #[error("a secondary writes what it was granted and opens no streams")]
    NotAllowed,
    /// The session ended.
    #[error("the session is closed")]
    SessionClosed,
}

/// Why a stream was not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FinishError {
    /// The peer wants no more of the stream, or the grant was revoked.
    #[error("the peer stopped the stream with {0}")]
    Stopped(ErrorCode),
    /// The stream has no open sending half.
    #[error("the stream is not open for writing")]
    ClosedStream,
}

/// The stream is unknown, was released, has no such half, or that half has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is closed in this direction")]
pub struct ClosedStream;

/// The streams of one session at one end.
#[derive(Debug)]
pub(crate) struct StreamTable {
    role: TableRole,
    rules: WindowRules,
    caps: Caps,
    ids: StreamIds,
    /// What the peer lets a stream carry that it said nothing else about.
    initial_limit_of_peer: u64,
    streams: Streams,
    /// Granted parts that are not over, by the stream that they are of.
    granted: BTreeSet<(StreamId, StreamHandle)>,
    /// Grants that are not over, or that the application holds on to.
    parts: BTreeMap<GrantId, StreamHandle>,
    /// In the order they came.
    accept_bidi: VecDeque<StreamHandle>,
    accept_uni: VecDeque<StreamHandle>,
    budget: Budget,
    /// Sum of [`RecvStream::counted_spans`].
    spans: usize,
    slices: Slices,
    credit: Credit,
    send_buffered: usize,
    /// Bytes of the requests of grants.
    requests: usize,
    /// Sending halves that were finished and are not done.
    draining: usize,
    writers: Writers,
    outbox: Outbox,
    /// Streams that are gone and were not polled as such; a client forgets their grants.
    gone: Vec<StreamId>,
    /// Frames about streams that may still change nothing, since they crossed what ended or limited a stream.
    crossings: u64,
    /// Sending halves that were reset or stopped and were not polled as such; what was set aside for them is free.
    cut_short: Vec<StreamHandle>,
    closed: bool,
    /// What was there when the session was closed, in bytes; more does not come.
    left: Option<u64>,
}

#[derive(Debug)]
struct Caps {
    accept_queue: usize,
    spans_stream: usize,
    spans_session: usize,
    send_buffer_stream: usize,
    send_buffer_session: usize,
    /// Grants that are not over.
    parts: usize,
    /// Grants that are over and that the application holds.
    parts_held: usize,
}

#[derive(Debug)]
struct Stream {
    handle: StreamHandle,
    /// Its places in the queues, by [`streams::Wait`].
    links: Links,
    id: StreamId,
    grant: Option<Box<Granted>>,
    priority: i32,
    /// Whether the application chose the priority, so that the peer's wish does not count.
    priority_chosen: bool,
    accepted: bool,
    /// Whether the peer, who opened it, gave it up before it was done.
    abandoned: bool,
    send: Option<SendHalf>,
    recv: Option<RecvHalf>,
    signals: Signals,
    events: Events,
}

impl Stream {
    fn new(id: StreamId, grant: Option<Box<Granted>>, send: Option<SendHalf>, recv: Option<RecvHalf>) -> Self {
        Self {
            handle: StreamHandle { number: u64::MAX, place: u32::MAX },
            links: Links::default(),
            id,
            grant,
            priority: 0,
            priority_chosen: false,
            accepted: false,
            abandoned: false,
            send,
            recv,
            signals: Signals::default(),
            events: Events::default(),
        }
    }
}

/// The grant that a part stands for.
#[derive(Debug)]
struct Granted {
    id: GrantId,
    /// Bytes of its request.
    request: usize,
}

#[derive(Debug)]
struct SendHalf {
    stream: SendStream,
    /// The code that was, or is being, announced to the peer if the half ended early.
    announced_end: OptionalCode,
    /// Whether the application was notified that everything was sent and acknowledged.
    announced_finished: bool,
    released: bool,
}

#[derive(Debug)]
struct RecvHalf {
    stream: RecvStream,
    stop: Option<Box<Stop>>,
    released: bool,
}

/// What STOP_SENDING says to the peer.
#[derive(Debug, Clone, Copy)]
struct Stop {
    code: ErrorCode,
    /// The conflict of two writers that is the reason.
    conflict: Option<RangeConflict>,
}

impl SendHalf {
    fn new(stream: SendStream) -> Self {
        Self { stream, announced_end: OptionalCode::NONE, announced_finished: false, released: false }
    }
}

impl RecvHalf {
    fn new(stream: RecvStream) -> Self {
        Self { stream, stop: None, released: false }
    }
}

impl StreamTable {
    /// How many frames about a stream may cross its end or the change they ask for.
    const CROSSINGS_PER_STREAM: u64 = 4;

    /// An empty table. Limits below the protocol's floor count as the floor.
    pub(crate) fn new(side: Side, role: TableRole, limits: &Limits) -> Self {
        let rules = WindowRules::new(limits);
        let (bidi, uni) = match role {
            TableRole::Client | TableRole::Primary => {
                (limits.streams_bidi_max.max(FLOOR_STREAMS), limits.streams_uni_max.max(FLOOR_STREAMS))
            }
            TableRole::Secondary => (0, 0),
        };
        Self {
            role,
            rules,
            caps: Caps {
                accept_queue: limits.accept_queue_streams,
                spans_stream: limits.reassembly_spans_stream,
                spans_session: limits.reassembly_spans_session,
                send_buffer_stream: limits.send_buffer_stream_bytes,
                send_buffer_session: limits.send_buffer_session_bytes,
                // Twice as many: what was revoked may be granted anew before this end hears of it.
                parts: 2 * GRANTS_PATH_MAX,
                parts_held: GRANTS_HELD_MAX,
            },
            ids: StreamIds::new(side, FLOOR_STREAMS, bidi, uni),
            initial_limit_of_peer: FLOOR_STREAM_BYTES,
            streams: Streams::default(),
            granted: BTreeSet::new(),
            parts: BTreeMap::new(),
            accept_bidi: VecDeque::new(),
            accept_uni: VecDeque::new(),
            budget: Budget::new(limits.reassembly_budget_bytes, bidi.saturating_add(uni), bidi, rules),
            spans: 0,
            slices: Slices::default(),
            credit: Credit::default(),
            send_buffered: 0,
            requests: 0,
            draining: 0,
            writers: Writers::new(),
            outbox: Outbox::new(),
            gone: Vec::new(),
            crossings: 0,
            cut_short: Vec::new(),
            closed: false,
            left: None,
        }
    }

    /// Opens a stream. The peer hears of it before any byte is written.
    pub(crate) fn open(&mut self, dir: Dir, priority: i32) -> Result<StreamHandle, OpenError> {
        if self.closed {
            return Err(OpenError::SessionClosed);
        }
        if self.role == TableRole::Secondary {
            return Err(OpenError::NotAllowed);
        }
        if !self.ids.can_open(dir) {
            self.outbox.await_stream(dir);
            return Err(OpenError::LimitReached { dir, limit: self.ids.limit_of_peer(dir) });
        }
        let recv = match dir {
            Dir::Uni => None,
            Dir::Bi => {
                let Some(window) = Window::reserve(&mut self.budget, self.rules) else {
                    self.outbox.await_stream(dir);
                    return Err(OpenError::BudgetTaken);
                };
                Some(RecvHalf::new(RecvStream::new(window, true)))
            }
        };
        let limit = OpenError::LimitReached { dir, limit: self.ids.limit_of_peer(dir) };
        let id = self.ids.open(dir).ok_or(limit)?;
        let send = Some(SendHalf::new(SendStream::new(self.initial_limit_of_peer)));
        let mut stream = Stream::new(id, None, send, recv);
        (stream.priority, stream.priority_chosen, stream.accepted) = (priority, true, true);
        let handle = self.insert(stream).ok_or(limit)?;
        self.signal(handle, |signals| signals.open = true);
        self.advance_credit(handle);
        Ok(handle)
    }

    /// The next stream the peer opened, or the next grant.
    pub(crate) fn accept(&mut self, dir: Dir) -> Option<StreamHandle> {
        let handle = self.accept_queue(dir).pop_front()?;
        if let Some(stream) = self.streams.get_mut(handle) {
            stream.accepted = true;
        }
        self.announce_readable(handle);
        self.grant_stream_credit(dir);
        Some(handle)
    }

    /// Takes received bytes, at most `max`: the next in order, or the lowest that arrived.
    pub(crate) fn read(&mut self, handle: StreamHandle, max: usize, ordered: bool) -> Result<Chunk, ReadError> {
        let half = self.streams.get_mut(handle).and_then(|stream| stream.recv.as_mut());
        let half = half.filter(|half| !half.released).ok_or(ReadError::ClosedStream)?;
        let result = if half.stream.is_empty() {
            // No sum of the session changes.
            half.stream.read(max, ordered)
        } else {
            self.with_recv(handle, |recv| recv.read(max, ordered)).unwrap_or(Err(ReadError::ClosedStream))
        };
        match result {
            Err(ReadError::Blocked) if self.closed => return Err(ReadError::SessionClosed),
            Err(ReadError::Finished) => self.free_if_done(handle),
            Ok(_) if !self.closed => self.advance_credit(handle),
            _ => {}
        }
        result
    }

    /// Which stream a half that is read belongs to, and below which offset everything was read.
    pub(crate) fn read_floor(&self, handle: StreamHandle) -> Option<(StreamId, u64)> {
        let stream = self.streams.get(handle)?;
        Some((stream.id, stream.recv.as_ref()?.stream.floor()))
    }

    /// Takes a copy of bytes to send, as many as there is room for, and returns how many.
    pub(crate) fn write(&mut self, handle: StreamHandle, data: &[u8]) -> Result<usize, WriteError> {
        let len = self.admit(handle, Position::Cursor, data.len())?;
        self.stored(handle, |send| send.store_copy(Position::Cursor, &data[..len]));
        Ok(len)
    }

    /// As [`Self::write`], without a copy if the bytes are many.
    pub(crate) fn write_chunk(&mut self, handle: StreamHandle, data: Bytes) -> Result<usize, WriteError> {
        self.store(handle, Position::Cursor, data)
    }

    /// Writes at an explicit offset where nothing was written or delegated. The cursor does not move. Returns how
    /// many bytes were taken, counted from the front.
    pub(crate) fn write_at(&mut self, handle: StreamHandle, offset: u64, data: Bytes) -> Result<usize, WriteError> {
        self.store(handle, Position::At(offset), data)
    }

    /// Ends plain writes: the stream ends where the furthest write or delegation does. A granted part just ends.
    pub(crate) fn finish(&mut self, handle: StreamHandle) -> Result<(), FinishError> {
        if self.closed {
            return Err(FinishError::ClosedStream);
        }
        self.send_half(handle).map_err(|_| FinishError::ClosedStream)?;
        match self.with_send(handle, SendStream::finish) {
            Some(Ok(())) => self.after_send(handle),
            Some(Err(WriteError::Stopped(code))) => return Err(FinishError::Stopped(code)),
            _ => return Err(FinishError::ClosedStream),
        }
        Ok(())
    }

    /// Drops what was not sent and announces that the stream ends early. An error if that changes nothing any more,
    /// since all was sent or the stream was reset before.
    pub(crate) fn reset(&mut self, handle: StreamHandle, code: ErrorCode) -> Result<(), ClosedStream> {
        let is_stopped = self.send_half(handle).map_err(|_| ClosedStream)?.stream.stop_code().is_some();
        if !self.closed && (self.reset_send(handle, code) || is_stopped) { Ok(()) } else { Err(ClosedStream) }
    }

    /// Drops what was not read and announces to the peer that no more is wanted.
    pub(crate) fn stop(&mut self, handle: StreamHandle, code: ErrorCode) -> Result<(), ClosedStream> {
        if !self.can_stop(handle) {
            return Err(ClosedStream);
        }
        self.stop_recv(handle, code);
        Ok(())
    }

    /// Streams of a higher priority are sent first; equals take turns.
    pub(crate) fn set_priority(&mut self, handle: StreamHandle, priority: i32) -> Result<(), ClosedStream> {
        if self.closed || self.is_send_done(handle) {
            return Err(ClosedStream);
        }
        self.streams.get_mut(handle).ok_or(ClosedStream)?.priority_chosen = true;
        self.prioritize(handle, priority);
        Ok(())
    }

    fn prioritize(&mut self, handle: StreamHandle, priority: i32) {
        // The place of a stream that waits is found by its priority, so it leaves the queue first.
        let Some(stream) = self.streams.get(handle).filter(|stream| stream.priority != priority) else { return };
        let waited = self.dequeue(stream.handle);
        if let Some(stream) = self.streams.get_mut(handle) {
            stream.priority = priority;
        }
        if waited {
            self.push_sendable(handle);
        }
    }

    /// The application dropped the sending half: an unfinished stream is finished, and reset with `SOURCE_LOST` if
    /// bytes are missing that nobody can write any more.
    pub(crate) fn release_send(&mut self, handle: StreamHandle) {
        let Ok(half) = self.send_half(handle) else { return };
        half.released = true;
        // A half that was reset or stopped has ended already.
        let _ = self.with_send(handle, SendStream::finish);
        self.after_send(handle);
        self.reset_if_abandoned(handle);
        self.free_if_done(handle);
    }

    /// The application dropped the receiving half: what is unread is dropped, and the peer must stop.
    pub(crate) fn release_recv(&mut self, handle: StreamHandle) {
        let half = self.streams.get_mut(handle).and_then(|stream| stream.recv.as_mut());
        let Some(half) = half.filter(|half| !half.released) else { return };
        half.released = true;
        self.stop_recv(handle, ErrorCode::Application(0));
    }

    fn store(&mut self, handle: StreamHandle, position: Position, data: Bytes) -> Result<usize, WriteError> {
        let len = self.admit(handle, position, data.len())?;
        self.stored(handle, |send| send.store(position, data.slice(..len)));
        Ok(len)
    }

    fn admit(&mut self, handle: StreamHandle, position: Position, len: usize) -> Result<usize, WriteError> {
        if self.closed {
            return Err(WriteError::SessionClosed);
        }
        let room_session = self.send_room();
        let cap = self.caps.send_buffer_stream;
        let send = &mut self.send_half(handle)?.stream;
        let room = cap.saturating_sub(send.buffered_bytes());
        let admitted = send.admit(position, len, room.min(room_session));
        self.writers.came(handle);
        if admitted == Err(WriteError::Blocked) {
            // A stream with room of its own is blocked by the session's buffer.
            self.writers.wait(&mut self.streams, handle, room > 0);
        }
        admitted
    }

    fn stored(&mut self, handle: StreamHandle, store: impl FnOnce(&mut SendStream)) {
        self.with_send(handle, store);
        self.push_sendable(handle);
        self.wake_for_room();
    }

    fn send_half(&mut self, handle: StreamHandle) -> Result<&mut SendHalf, WriteError> {
        let stream = self.streams.get_mut(handle).ok_or(WriteError::ClosedStream)?;
        let half = stream.send.as_mut().ok_or(WriteError::WrongDirection)?;
        if half.released { Err(WriteError::ClosedStream) } else { Ok(half) }
    }

    /// Adds a stream. `None` if there are as many as can be named.
    fn insert(&mut self, stream: Stream) -> Option<StreamHandle> {
        let (id, is_part) = (stream.id, stream.grant.is_some());
        let limit = stream.recv.as_ref().map_or(0, |half| half.stream.limit());
        let handle = self.streams.insert(Box::new(stream))?;
        if is_part {
            self.granted.insert((id, handle));
        } else {
            self.credit.on_given(limit);
        }
        self.crossings += Self::CROSSINGS_PER_STREAM;
        Some(handle)
    }

    /// Puts a new stream where the application accepts it.
    fn offer(&mut self, handle: StreamHandle, dir: Dir) {
        self.accept_queue(dir).push_back(handle);
        self.outbox.announce_opened(dir);
    }

    fn accept_queue(&mut self, dir: Dir) -> &mut VecDeque<StreamHandle> {
        match dir {
            Dir::Bi => &mut self.accept_bidi,
            Dir::Uni => &mut self.accept_uni,
        }
    }

    /// Changes a sending half and keeps the sums: of buffered bytes, of draining halves, of grants that are not over.
    fn with_send<R>(&mut self, handle: StreamHandle, change: impl FnOnce(&mut SendStream) -> R) -> Option<R> {
        let stream = self.streams.get_mut(handle)?;
        let send = &mut stream.send.as_mut()?.stream;
        let (buffered, draining) = (send.buffered_bytes(), send.is_draining());
        let result = change(send);
        self.send_buffered = self.send_buffered - buffered + send.buffered_bytes();
        self.budget.on_changed(buffered as u64, send.buffered_bytes() as u64);
        self.draining = self.draining - usize::from(draining) + usize::from(send.is_draining());
        if stream.grant.is_some() && send.is_part_over() {
            self.granted.remove(&(stream.id, handle));
        }
        Some(result)
    }

    /// Changes a receiving half and keeps the session's sums of spans, slices and credit.
    fn with_recv<R>(&mut self, handle: StreamHandle, change: impl FnOnce(&mut RecvStream) -> R) -> Option<R> {
        let recv = &mut self.streams.get_mut(handle)?.recv.as_mut()?.stream;
        let (spans, slices) = (recv.counted_spans(), SliceBytes::from_slice(recv.slice_bytes()));
        let result = change(recv);
        self.spans = self.spans - spans + recv.counted_spans();
        self.slices.on_changed(&slices, recv.slice_bytes());
        recv.settle(&mut self.budget);
        Some(result)
    }

    fn advance_credit(&mut self, handle: StreamHandle) {
        let Some(stream) = self.streams.get_mut(handle) else { return };
        let Some(recv) = &mut stream.recv else { return };
        let before = recv.stream.limit();
        if !recv.stream.advance(&mut self.budget, self.rules) {
            return;
        }
        self.credit.on_given(recv.stream.limit() - before);
        // OPEN_STREAM that still waits takes the new limit along.
        if !stream.signals.open {
            self.signal(handle, |signals| signals.credit = true);
        }
    }

    /// Returns whether that changed anything.
    fn reset_send(&mut self, handle: StreamHandle, code: ErrorCode) -> bool {
        let changed = self.with_send(handle, |send| send.reset(code)) == Some(true);
        if changed {
            self.after_send(handle);
        }
        changed
    }

    fn reset_if_abandoned(&mut self, handle: StreamHandle) {
        let half = self.streams.get(handle).and_then(|stream| stream.send.as_ref());
        if half.is_some_and(|half| half.released && half.stream.has_abandoned_holes()) {
            self.reset_send(handle, TransportCode::SOURCE_LOST.into());
        }
    }

    fn stop_recv(&mut self, handle: StreamHandle, code: ErrorCode) {
        if self.with_recv(handle, RecvStream::stop) == Some(true) {
            self.announce_stop(handle, code, None);
        }
        self.free_if_done(handle);
    }

    /// Ends a receiving half for a fault in what arrived.
    fn fail_recv(&mut self, handle: StreamHandle, code: TransportCode, conflict: Option<RangeConflict>) {
        self.note_abandoned(handle);
        let was_open = self.streams.get(handle).and_then(|stream| stream.recv.as_ref());
        let was_open = was_open.is_some_and(|half| half.stream.is_open());
        self.with_recv(handle, |recv| recv.fail(code.into()));
        if was_open {
            self.announce_stop(handle, code.into(), conflict);
        }
        self.announce_readable(handle);
        self.free_if_done(handle);
    }

    fn announce_stop(&mut self, handle: StreamHandle, code: ErrorCode, conflict: Option<RangeConflict>) {
        if let Some(half) = self.streams.get_mut(handle).and_then(|stream| stream.recv.as_mut()) {
            half.stop = Some(Box::new(Stop { code, conflict }));
        }
        self.signal(handle, |signals| (signals.stop, signals.credit) = (true, false));
    }

    /// What follows from the end of a sending half: its control output, its turn, its completion.
    fn after_send(&mut self, handle: StreamHandle) {
        let Some(half) = self.streams.get_mut(handle).and_then(|stream| stream.send.as_mut()) else { return };
        let is_part = half.stream.part_range().is_some();
        let end = if is_part { half.stream.part_end().map(|(_, code)| code) } else { half.stream.reset_code() };
        let end = end.map_or(half.announced_end, Into::into);
        let (cut_short, news) = (half.stream.reset_code().is_some(), end != half.announced_end);
        half.announced_end = end;
        if cut_short {
            self.cut_short.push(handle);
            self.dequeue(handle);
        }
        if news {
            self.signal(handle, |signals| if is_part { signals.part_end = true } else { signals.reset = true });
        }
        self.push_sendable(handle);
        self.announce_finished(handle);
        self.dismiss_writer(handle);
        self.free_if_done(handle);
    }

    /// Frees a stream of which nothing is left to do. The peer may then open another. Nobody waits for acknowledgements
    /// of a part that the application let go of.
    fn free_if_done(&mut self, handle: StreamHandle) {
        let Some(stream) = self.streams.get(handle) else { return };
        let is_done = |send: &SendStream| send.is_done() || (stream.grant.is_some() && send.is_part_over());
        let send_done = stream.send.as_ref().is_none_or(|half| half.released && is_done(&half.stream));
        let recv_done = stream.recv.as_ref().is_none_or(|half| half.released && half.stream.is_done());
        if !send_done || !recv_done || stream.signals.any() {
            return;
        }
        if stream.links.is_waiting() {
            self.dequeue(handle);
            self.outbox.forget(&mut self.streams, handle);
        }
        self.writers.forget(&mut self.streams, handle);
        let Some(stream) = self.streams.remove(handle) else { return };
        let (id, grant, abandoned) = (stream.id, stream.grant, stream.abandoned);
        self.requests -= grant.as_ref().map_or(0, |grant| grant.request);
        // Both halves give back what they hold through the sums of the session.
        if let Some(RecvHalf { stream: mut recv, .. }) = stream.recv {
            self.spans -= recv.counted_spans();
            self.slices.on_changed(recv.slice_bytes(), &[]);
            recv.fail(ErrorCode::Application(0));
            recv.settle(&mut self.budget);
        }
        if let Some(SendHalf { stream: send, .. }) = stream.send {
            self.send_buffered -= send.buffered_bytes();
            self.budget.on_changed(send.buffered_bytes() as u64, 0);
            self.draining -= usize::from(send.is_draining());
        }
        self.wake_for_room();
        if self.role == TableRole::Client {
            self.gone.push(id);
        }
        match grant {
            Some(grant) => {
                self.parts.remove(&grant.id);
                self.granted.remove(&(id, handle));
            }
            None if self.ids.is_of_peer(id) => {
                self.ids.on_freed(id.dir(), abandoned);
                self.grant_stream_credit(id.dir());
            }
            None => {}
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    // What a stream costs that does nothing, beside its place and its entry in the table of ids.
    #[test]
    fn stream_that_does_nothing_is_small() {
        assert!(size_of::<Stream>() <= 344, "{} bytes", size_of::<Stream>());
    }
}
