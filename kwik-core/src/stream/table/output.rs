//! The output of the table: control frames for the peer, events for the application, and the stream whose bytes go
//! next. All of it is state of a stream with a place in a queue, so nothing here grows with what the peer does.

use super::streams::{Queue, SendQueue, Streams, Wait};
use super::{Stop, StreamTable};
use crate::error::ErrorCode;
use crate::id::{Dir, GrantId, RangeConflict, StreamHandle, StreamId};
use crate::protocol_event::BlockedBy;
use crate::stream::send::Segment;
use std::collections::BTreeSet;

/// Something to announce to the peer on the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamControl {
    /// A stream was opened here. `limit` is how far the peer may write on it; 0 for a unidirectional one.
    Open { id: StreamId, priority: i32, limit: u64 },
    /// A sending half ended early.
    Reset { id: StreamId, code: ErrorCode, final_size: u64 },
    /// No more is wanted. To every path that may write the stream.
    Stop { id: StreamId, code: ErrorCode, conflict: Option<RangeConflict> },
    /// How far the stream may be written. To every path that may write the stream.
    MaxStreamData { id: StreamId, limit: u64 },
    /// How many streams the peer may open.
    MaxStreams { dir: Dir, max: u64 },
    /// A granted part ends at `end`, short of its range.
    PartEnd { grant: GrantId, end: u64, code: ErrorCode },
}

/// Something the application may want to act on. At most one of each kind waits for each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamEvent {
    /// A stream can be accepted.
    Opened {
        /// Its direction.
        dir: Dir,
    },
    /// A stream can be opened again.
    Available {
        /// Its direction.
        dir: Dir,
    },
    /// Reading would bring bytes or the end.
    Readable(StreamHandle),
    /// Writing would succeed again, or fail for another reason than a full buffer.
    Writable(StreamHandle),
    /// The peer wants no more of the stream.
    Stopped {
        /// The stream.
        stream: StreamHandle,
        /// The peer's code.
        code: ErrorCode,
    },
    /// Everything written was sent and acknowledged.
    Finished(StreamHandle),
}

/// The control frames that wait for one stream.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Signals {
    pub(super) open: bool,
    pub(super) reset: bool,
    pub(super) stop: bool,
    pub(super) credit: bool,
    pub(super) part_end: bool,
}

impl Signals {
    pub(super) fn any(self) -> bool {
        self.open || self.reset || self.stop || self.credit || self.part_end
    }
}

/// The events that wait for one stream.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Events {
    readable: bool,
    writable: bool,
    stopped: bool,
    finished: bool,
}

impl Events {
    fn any(self) -> bool {
        self.readable || self.writable || self.stopped || self.finished
    }
}

/// What waits for one direction of streams.
#[derive(Debug, Default)]
struct DirOutput {
    /// The peer is to hear how many streams it may open.
    max_streams: bool,
    /// The application is to hear that a stream can be accepted, or opened.
    opened: bool,
    available: bool,
    /// The application wants to hear when it can open a stream.
    is_awaited: bool,
}

/// Where a granted part stands among those of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PartPlace {
    stream: StreamId,
    priority: i32,
    start: u64,
    part: StreamHandle,
}

#[derive(Debug)]
pub(super) struct Outbox {
    sendable: SendQueue,
    /// The granted parts among those: of each stream by priority, the lowest first.
    parts: BTreeSet<PartPlace>,
    controls: Queue,
    events: Queue,
    bidi: DirOutput,
    uni: DirOutput,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            sendable: SendQueue::default(),
            parts: BTreeSet::new(),
            controls: Queue::new(Wait::Control),
            events: Queue::new(Wait::Event),
            bidi: DirOutput::default(),
            uni: DirOutput::default(),
        }
    }

    /// The application wants to hear when it can open a stream.
    pub(super) fn await_stream(&mut self, dir: Dir) {
        self.dir_mut(dir).is_awaited = true;
    }

    pub(super) fn announce_opened(&mut self, dir: Dir) {
        self.dir_mut(dir).opened = true;
    }

    pub(super) fn announce_max_streams(&mut self, dir: Dir) {
        self.dir_mut(dir).max_streams = true;
    }

    /// Drops frames and events of a stream that goes.
    pub(super) fn forget(&mut self, streams: &mut Streams, handle: StreamHandle) {
        self.controls.remove(streams, handle);
        self.events.remove(streams, handle);
    }

    pub(super) fn is_stream_awaited(&self, dir: Dir) -> bool {
        self.dir(dir).is_awaited
    }

    pub(super) fn has_sendable(&self) -> bool {
        !self.sendable.is_empty()
    }

    fn dir(&self, dir: Dir) -> &DirOutput {
        match dir {
            Dir::Bi => &self.bidi,
            Dir::Uni => &self.uni,
        }
    }

    fn dir_mut(&mut self, dir: Dir) -> &mut DirOutput {
        match dir {
            Dir::Bi => &mut self.bidi,
            Dir::Uni => &mut self.uni,
        }
    }
}

impl StreamTable {
    /// The next control frame for the peer. Each carries the latest value.
    pub(crate) fn poll_control(&mut self) -> Option<StreamControl> {
        for dir in Dir::ALL {
            if std::mem::take(&mut self.outbox.dir_mut(dir).max_streams) {
                return Some(StreamControl::MaxStreams { dir, max: self.ids.limit_here(dir) });
            }
        }
        while let Some(handle) = self.outbox.controls.pop(&mut self.streams) {
            let control = self.next_control(handle);
            if self.streams.get(handle).is_some_and(|stream| stream.signals.any()) {
                self.outbox.controls.push(&mut self.streams, handle);
            }
            // A frame that waited may have been the last thing that kept the stream.
            self.free_if_done(handle);
            if control.is_some() {
                return control;
            }
        }
        None
    }

    /// The next event for the application.
    pub(crate) fn poll_event(&mut self) -> Option<StreamEvent> {
        for dir in Dir::ALL {
            if std::mem::take(&mut self.outbox.dir_mut(dir).opened) {
                return Some(StreamEvent::Opened { dir });
            }
            let fits = dir == Dir::Uni || self.budget.free_to_open() >= self.rules.initial;
            let can_open = self.ids.can_open(dir) && fits;
            let output = self.outbox.dir_mut(dir);
            if output.available || (output.is_awaited && can_open) {
                (output.available, output.is_awaited) = (false, output.is_awaited && !can_open);
                return Some(StreamEvent::Available { dir });
            }
        }
        while let Some(handle) = self.outbox.events.pop(&mut self.streams) {
            let event = self.next_event(handle);
            // Its other events wait behind those of others.
            if self.streams.get(handle).is_some_and(|stream| stream.events.any()) {
                self.outbox.events.push(&mut self.streams, handle);
            }
            if event.is_some() {
                return event;
            }
        }
        None
    }

    fn next_event(&mut self, handle: StreamHandle) -> Option<StreamEvent> {
        let stream = self.streams.get_mut(handle)?;
        let events = &mut stream.events;
        if std::mem::take(&mut events.readable) {
            return Some(StreamEvent::Readable(handle));
        }
        if std::mem::take(&mut events.writable) {
            return Some(StreamEvent::Writable(handle));
        }
        if std::mem::take(&mut events.stopped)
            && let Some(code) = stream.send.as_ref().and_then(|half| half.stream.stop_code())
        {
            return Some(StreamEvent::Stopped { stream: handle, code });
        }
        std::mem::take(&mut events.finished).then_some(StreamEvent::Finished(handle))
    }

    /// Notes that an event of a stream is due.
    fn announce(&mut self, handle: StreamHandle, set: impl FnOnce(&mut Events)) {
        let Some(stream) = self.streams.get_mut(handle) else { return };
        let had_any = stream.events.any();
        set(&mut stream.events);
        if !had_any {
            self.outbox.events.push(&mut self.streams, handle);
        }
    }

    pub(super) fn announce_writable(&mut self, handle: StreamHandle) {
        self.announce(handle, |events| events.writable = true);
    }

    /// The stream whose bytes go next: the highest priority, in turns among equals; of the parts of one stream, the
    /// one with the lowest bytes. It leaves the queue; see [`Self::push_sendable`].
    pub(crate) fn pop_sendable(&mut self) -> Option<StreamHandle> {
        loop {
            let handle = self.outbox.sendable.pop(&mut self.streams)?;
            let place = self.part_place(handle);
            if let Some(place) = place {
                self.outbox.parts.remove(&place);
            }
            if self.is_sendable(handle) {
                return Some(place.map_or(handle, |place| self.yield_turn(place)));
            }
        }
    }

    /// As [`Self::pop_sendable`], if all that the stream has to send are at most `max_len` bytes. Not a part, which may have
    /// to yield.
    pub(crate) fn pop_short(&mut self, max_len: usize) -> Option<StreamHandle> {
        let handle = self.outbox.sendable.front(&self.streams)?;
        let stream = self.streams.get(handle).filter(|stream| stream.grant.is_none())?;
        let is_short = stream.send.as_ref().is_some_and(|half| half.stream.buffered_bytes() <= max_len);
        if is_short && self.is_sendable(handle) { self.outbox.sendable.pop(&mut self.streams) } else { None }
    }

    /// The next bytes of a stream, at most `max_len`. They count as handed out; call [`Self::on_segment_packed`].
    pub(crate) fn segment(&mut self, handle: StreamHandle, max_len: usize) -> Option<Segment> {
        let segment = self.with_send(handle, |send| send.next_segment(max_len))??;
        self.wake_writers(handle);
        Some(segment)
    }

    /// Puts a stream behind its equals, if it has something to send.
    pub(crate) fn push_sendable(&mut self, handle: StreamHandle) {
        if self.is_sendable(handle) {
            self.outbox.sendable.push(&mut self.streams, handle);
            self.outbox.parts.extend(self.part_place(handle));
        }
    }

    /// Takes a stream out of the queue. Returns whether it waited there.
    pub(super) fn dequeue(&mut self, handle: StreamHandle) -> bool {
        if let Some(place) = self.part_place(handle) {
            self.outbox.parts.remove(&place);
        }
        self.outbox.sendable.remove(&mut self.streams, handle)
    }

    /// A packet was made of segments of the stream.
    pub(crate) fn on_segment_packed(&mut self, handle: StreamHandle) {
        self.with_send(handle, |send| send.on_segment_packed());
    }

    /// Such a packet was acknowledged. To be called once for each [`Self::on_segment_packed`].
    pub(crate) fn on_packet_acked(&mut self, handle: StreamHandle) {
        self.with_send(handle, |send| send.on_packet_acked());
        self.announce_finished(handle);
        self.free_if_done(handle);
    }

    /// Streams that were finished here, and not reset or stopped, and of which the peer may not have all.
    pub(crate) fn undelivered(&self) -> Vec<StreamId> {
        let draining = |stream: &super::Stream| stream.send.as_ref().is_some_and(|half| half.stream.is_draining());
        let mut undelivered: Vec<StreamId> =
            self.streams.iter().filter(|stream| draining(stream)).map(|stream| stream.id).collect();
        undelivered.sort_unstable();
        undelivered
    }

    /// Whether everything finished was sent and acknowledged, and every control frame taken.
    pub(crate) fn is_drained(&self) -> bool {
        let has_control =
            !self.outbox.controls.is_empty() || Dir::ALL.iter().any(|dir| self.outbox.dir(*dir).max_streams);
        !has_control && self.draining == 0
    }

    /// Ends the session for the application. What is buffered stays readable; everything that waits is woken.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.left = Some(self.memory_bytes() as u64);
        self.outbox.controls.clear(&mut self.streams);
        self.outbox.sendable.clear(&mut self.streams);
        self.outbox.parts.clear();
        self.writers.clear(&mut self.streams);
        // Whoever waits to accept or to open a stream is to learn that the session is over.
        for dir in Dir::ALL {
            let output = self.outbox.dir_mut(dir);
            (output.max_streams, output.opened, output.available) = (false, true, true);
        }
        for handle in self.streams.handles() {
            let Some(stream) = self.streams.get(handle).filter(|stream| stream.accepted) else { continue };
            let is_read = stream.recv.as_ref().is_some_and(|half| !half.released);
            let is_written = stream.send.as_ref().is_some_and(|half| !half.released);
            if is_read || is_written {
                self.announce(handle, |events| {
                    events.readable |= is_read;
                    events.writable |= is_written;
                });
            }
        }
    }

    /// Notes that a control frame about a stream is due.
    pub(super) fn signal(&mut self, handle: StreamHandle, set: impl FnOnce(&mut Signals)) {
        let Some(stream) = self.streams.get_mut(handle) else { return };
        set(&mut stream.signals);
        if stream.signals.any() && !self.closed {
            self.outbox.controls.push(&mut self.streams, handle);
        }
    }

    /// Notifies the application that a read would bring something, if that is so.
    pub(super) fn announce_readable(&mut self, handle: StreamHandle) {
        let Some(stream) = self.streams.get(handle).filter(|stream| stream.accepted) else { return };
        if stream.recv.as_ref().is_some_and(|half| !half.released && half.stream.is_readable()) {
            self.announce(handle, |events| events.readable = true);
        }
    }

    pub(super) fn announce_stopped(&mut self, handle: StreamHandle) {
        let Some(stream) = self.streams.get(handle) else { return };
        if stream.send.as_ref().is_some_and(|half| !half.released) {
            self.announce(handle, |events| events.stopped = true);
        }
    }

    /// Notifies the application once that its sending half is complete.
    pub(super) fn announce_finished(&mut self, handle: StreamHandle) {
        let half = self.streams.get_mut(handle).and_then(|stream| stream.send.as_mut());
        let Some(half) = half.filter(|half| !half.released && !half.announced_finished) else { return };
        if half.stream.is_done() && half.stream.reset_code().is_none() {
            half.announced_finished = true;
            self.announce(handle, |events| events.finished = true);
        }
    }

    pub(crate) fn is_sendable(&self, handle: StreamHandle) -> bool {
        let half = self.streams.get(handle).and_then(|stream| stream.send.as_ref());
        !self.closed && half.is_some_and(|half| half.stream.is_sendable())
    }

    /// What a stream waits for, if it has nothing to send now and something may follow.
    pub(crate) fn blocked_by(&self, handle: StreamHandle) -> Option<BlockedBy> {
        self.streams.get(handle)?.send.as_ref()?.stream.blocked_by()
    }

    /// The part of the same stream that uses the turn of another, which then waits in the place of that part: the
    /// reader waits for the lowest bytes, and has no use for a little of everything.
    fn yield_turn(&mut self, own: PartPlace) -> StreamHandle {
        let first = PartPlace { start: 0, part: StreamHandle::FIRST, ..own };
        let Some(lowest) = self.outbox.parts.range(first..own).next().copied() else { return own.part };
        self.outbox.parts.remove(&lowest);
        self.outbox.parts.insert(own);
        self.outbox.sendable.replace(&mut self.streams, lowest.part, own.part);
        lowest.part
    }

    /// Where a part stands among those of its stream. Parts that are not over share no bytes unless their grants do.
    fn part_place(&self, handle: StreamHandle) -> Option<PartPlace> {
        let stream = self.streams.get(handle)?;
        let start = stream.send.as_ref()?.stream.part_range()?.start;
        Some(PartPlace { stream: stream.id, priority: stream.priority, start, part: handle })
    }

    /// Panics if the parts that wait are not those in the queue.
    #[cfg(any(test, feature = "__test_exports"))]
    pub(super) fn assert_turns(&self) {
        let waiting = self.streams.handles().into_iter().filter(|handle| self.streams.waits(*handle, Wait::Send));
        let places = waiting.filter_map(|handle| self.part_place(handle)).collect();
        assert_eq!(self.outbox.parts, places, "the parts that wait for their turn");
        let mut parts = self.outbox.parts.iter();
        assert!(
            self.closed || parts.all(|place| self.is_sendable(place.part)),
            "a part that waits and has nothing to send"
        );
    }

    /// The next control frame of one stream: its opening comes before anything else about it.
    fn next_control(&mut self, handle: StreamHandle) -> Option<StreamControl> {
        let stream = self.streams.get_mut(handle)?;
        let (id, signals) = (stream.id, &mut stream.signals);
        let (send, recv) = (stream.send.as_ref(), stream.recv.as_ref());
        if std::mem::take(&mut signals.open) {
            let limit = recv.map_or(0, |half| half.stream.limit());
            return Some(StreamControl::Open { id, priority: stream.priority, limit });
        }
        if std::mem::take(&mut signals.reset) {
            let send = &send?.stream;
            return Some(StreamControl::Reset { id, code: send.reset_code()?, final_size: send.reset_size() });
        }
        if std::mem::take(&mut signals.stop) {
            let Stop { code, conflict } = **recv?.stop.as_ref()?;
            return Some(StreamControl::Stop { id, code, conflict });
        }
        if std::mem::take(&mut signals.part_end) {
            let (end, code) = send?.stream.part_end()?;
            return Some(StreamControl::PartEnd { grant: stream.grant.as_ref()?.id, end, code });
        }
        if std::mem::take(&mut signals.credit) {
            return Some(StreamControl::MaxStreamData { id, limit: recv?.stream.limit() });
        }
        None
    }
}
