//! The output of the table: control frames for the peer, events for the application, and the stream whose bytes go
//! next. All of it is state of a stream with a place in a queue, so nothing here grows with what the peer does.

use super::StreamTable;
use crate::error::ErrorCode;
use crate::id::{Dir, GrantId, RangeConflict, StreamHandle, StreamId};
use crate::protocol_event::BlockedBy;
use crate::stream::fair::FairQueue;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ControlKey {
    MaxStreams(Dir),
    Stream(StreamHandle),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EventKey {
    Opened(Dir),
    Available(Dir),
    Readable(StreamHandle),
    Writable(StreamHandle),
    Stopped(StreamHandle),
    Finished(StreamHandle),
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
    sendable: FairQueue<StreamHandle>,
    /// The granted parts among those: of each stream by priority, the lowest first.
    parts: BTreeSet<PartPlace>,
    controls: FairQueue<ControlKey>,
    events: FairQueue<EventKey>,
    bidi_awaited: bool,
    uni_awaited: bool,
}

impl Outbox {
    pub(super) const fn new() -> Self {
        Self {
            sendable: FairQueue::new(),
            parts: BTreeSet::new(),
            controls: FairQueue::new(),
            events: FairQueue::new(),
            bidi_awaited: false,
            uni_awaited: false,
        }
    }

    /// The application wants to hear when it can open a stream.
    pub(super) fn await_stream(&mut self, dir: Dir) {
        *self.awaited(dir) = true;
    }

    pub(super) fn announce_opened(&mut self, dir: Dir) {
        self.events.push(EventKey::Opened(dir), 0);
    }

    pub(super) fn announce_max_streams(&mut self, dir: Dir) {
        self.controls.push(ControlKey::MaxStreams(dir), 0);
    }

    pub(super) fn announce_writable(&mut self, handle: StreamHandle) {
        self.events.push(EventKey::Writable(handle), 0);
    }

    /// Drops frames and events of a stream that is gone.
    pub(super) fn forget(&mut self, handle: StreamHandle) {
        self.controls.remove(ControlKey::Stream(handle));
        for key in [EventKey::Readable, EventKey::Writable, EventKey::Stopped, EventKey::Finished] {
            self.events.remove(key(handle));
        }
    }

    pub(super) fn is_stream_awaited(&self, dir: Dir) -> bool {
        match dir {
            Dir::Bi => self.bidi_awaited,
            Dir::Uni => self.uni_awaited,
        }
    }

    pub(super) fn has_sendable(&self) -> bool {
        !self.sendable.is_empty()
    }

    fn awaited(&mut self, dir: Dir) -> &mut bool {
        match dir {
            Dir::Bi => &mut self.bidi_awaited,
            Dir::Uni => &mut self.uni_awaited,
        }
    }
}

impl StreamTable {
    /// The next control frame for the peer. Each carries the latest value.
    pub(crate) fn poll_control(&mut self) -> Option<StreamControl> {
        while let Some(key) = self.outbox.controls.pop() {
            match key {
                ControlKey::MaxStreams(dir) => {
                    return Some(StreamControl::MaxStreams { dir, max: self.ids.limit_here(dir) });
                }
                ControlKey::Stream(handle) => {
                    let control = self.next_control(handle);
                    if self.streams.get(&handle).is_some_and(|stream| stream.signals.any()) {
                        self.outbox.controls.push(key, 0);
                    }
                    // A frame that waited may have been the last thing that kept the stream.
                    self.free_if_done(handle);
                    if control.is_some() {
                        return control;
                    }
                }
            }
        }
        None
    }

    /// The next event for the application.
    pub(crate) fn poll_event(&mut self) -> Option<StreamEvent> {
        for dir in Dir::ALL {
            let fits = dir == Dir::Uni || self.budget.free_to_open() >= self.rules.initial;
            if *self.outbox.awaited(dir) && self.ids.can_open(dir) && fits {
                *self.outbox.awaited(dir) = false;
                self.outbox.events.push(EventKey::Available(dir), 0);
            }
        }
        while let Some(key) = self.outbox.events.pop() {
            match key {
                EventKey::Opened(dir) => return Some(StreamEvent::Opened { dir }),
                EventKey::Available(dir) => return Some(StreamEvent::Available { dir }),
                EventKey::Readable(handle) => return Some(StreamEvent::Readable(handle)),
                EventKey::Writable(handle) => return Some(StreamEvent::Writable(handle)),
                EventKey::Finished(handle) => return Some(StreamEvent::Finished(handle)),
                EventKey::Stopped(handle) => {
                    let half = self.streams.get(&handle).and_then(|stream| stream.send.as_ref());
                    // The stream may be gone since.
                    if let Some(code) = half.and_then(|half| half.stream.stop_code()) {
                        return Some(StreamEvent::Stopped { stream: handle, code });
                    }
                }
            }
        }
        None
    }

    /// The stream whose bytes go next: the highest priority, in turns among equals; of the parts of one stream, the
    /// one with the lowest bytes. It leaves the queue; see [`Self::push_sendable`].
    pub(crate) fn pop_sendable(&mut self) -> Option<StreamHandle> {
        loop {
            let handle = self.outbox.sendable.pop()?;
            let place = self.part_place(handle);
            if let Some(place) = place {
                self.outbox.parts.remove(&place);
            }
            if self.is_sendable(handle) {
                return Some(place.map_or(handle, |place| self.yield_turn(place)));
            }
        }
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
            let priority = self.streams.get(&handle).map_or(0, |stream| stream.priority);
            self.outbox.sendable.push(handle, priority);
            self.outbox.parts.extend(self.part_place(handle));
        }
    }

    /// Takes a stream out of the queue. Returns whether it waited there.
    pub(super) fn dequeue(&mut self, handle: StreamHandle) -> bool {
        if let Some(place) = self.part_place(handle) {
            self.outbox.parts.remove(&place);
        }
        self.outbox.sendable.remove(handle)
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
        self.streams.values().filter(|stream| draining(stream)).map(|stream| stream.id).collect()
    }

    /// Whether everything finished was sent and acknowledged, and every control frame taken.
    pub(crate) fn is_drained(&self) -> bool {
        self.outbox.controls.is_empty() && self.draining == 0
    }

    /// Ends the session for the application. What is buffered stays readable; everything that waits is woken.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.left = Some(self.memory_bytes() as u64);
        self.outbox.controls.clear();
        self.outbox.sendable.clear();
        self.outbox.parts.clear();
        self.writers.clear();
        // Whoever waits to accept or to open a stream is to learn that the session is over.
        for dir in Dir::ALL {
            self.outbox.events.push(EventKey::Opened(dir), 0);
            self.outbox.events.push(EventKey::Available(dir), 0);
        }
        for (handle, stream) in self.streams.iter().filter(|(_, stream)| stream.accepted) {
            if stream.recv.as_ref().is_some_and(|half| !half.released) {
                self.outbox.events.push(EventKey::Readable(*handle), 0);
            }
            if stream.send.as_ref().is_some_and(|half| !half.released) {
                self.outbox.events.push(EventKey::Writable(*handle), 0);
            }
        }
    }

    /// Notes that a control frame about a stream is due.
    pub(super) fn signal(&mut self, handle: StreamHandle, set: impl FnOnce(&mut Signals)) {
        let Some(stream) = self.streams.get_mut(&handle) else { return };
        set(&mut stream.signals);
        if stream.signals.any() && !self.closed {
            self.outbox.controls.push(ControlKey::Stream(handle), 0);
        }
    }

    /// Notifies the application that a read would bring something, if that is so.
    pub(super) fn announce_readable(&mut self, handle: StreamHandle) {
        let Some(stream) = self.streams.get(&handle).filter(|stream| stream.accepted) else { return };
        if stream.recv.as_ref().is_some_and(|half| !half.released && half.stream.is_readable()) {
            self.outbox.events.push(EventKey::Readable(handle), 0);
        }
    }

    pub(super) fn announce_stopped(&mut self, handle: StreamHandle) {
        let Some(stream) = self.streams.get(&handle) else { return };
        if stream.send.as_ref().is_some_and(|half| !half.released) {
            self.outbox.events.push(EventKey::Stopped(handle), 0);
        }
    }

    /// Notifies the application once that its sending half is complete.
    pub(super) fn announce_finished(&mut self, handle: StreamHandle) {
        let half = self.streams.get_mut(&handle).and_then(|stream| stream.send.as_mut());
        let Some(half) = half.filter(|half| !half.released && !half.announced_finished) else { return };
        if half.stream.is_done() && half.stream.reset_code().is_none() {
            half.announced_finished = true;
            self.outbox.events.push(EventKey::Finished(handle), 0);
        }
    }

    pub(crate) fn is_sendable(&self, handle: StreamHandle) -> bool {
        let half = self.streams.get(&handle).and_then(|stream| stream.send.as_ref());
        !self.closed && half.is_some_and(|half| half.stream.is_sendable())
    }

    /// What a stream waits for, if it has nothing to send now and something may follow.
    pub(crate) fn blocked_by(&self, handle: StreamHandle) -> Option<BlockedBy> {
        self.streams.get(&handle)?.send.as_ref()?.stream.blocked_by()
    }

    /// The part of the same stream that uses the turn of another, which then waits in the place of that part: the
    /// reader waits for the lowest bytes, and has no use for a little of everything.
    fn yield_turn(&mut self, own: PartPlace) -> StreamHandle {
        let first = PartPlace { start: 0, part: StreamHandle(0), ..own };
        let Some(lowest) = self.outbox.parts.range(first..own).next().copied() else { return own.part };
        self.outbox.parts.remove(&lowest);
        self.outbox.parts.insert(own);
        self.outbox.sendable.replace(lowest.part, own.part);
        lowest.part
    }

    /// Where a part stands among those of its stream. Parts that are not over share no bytes unless their grants do.
    fn part_place(&self, handle: StreamHandle) -> Option<PartPlace> {
        let stream = self.streams.get(&handle)?;
        let start = stream.send.as_ref()?.stream.part_range()?.start;
        Some(PartPlace { stream: stream.id, priority: stream.priority, start, part: handle })
    }

    /// Panics if the parts that wait are not those in the queue.
    #[cfg(any(test, feature = "__test_exports"))]
    pub(super) fn assert_turns(&self) {
        let waiting = self.streams.keys().filter(|handle| self.outbox.sendable.contains(**handle));
        let places = waiting.filter_map(|handle| self.part_place(*handle)).collect();
        assert_eq!(self.outbox.parts, places, "the parts that wait for their turn");
        let mut parts = self.outbox.parts.iter();
        assert!(
            self.closed || parts.all(|place| self.is_sendable(place.part)),
            "a part that waits and has nothing to send"
        );
    }

    /// The next control frame of one stream: its opening comes before anything else about it.
    fn next_control(&mut self, handle: StreamHandle) -> Option<StreamControl> {
        let stream = self.streams.get_mut(&handle)?;
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
            let half = recv?;
            return Some(StreamControl::Stop { id, code: half.stop_code?, conflict: half.conflict });
        }
        if std::mem::take(&mut signals.part_end) {
            let (end, code) = send?.stream.part_end()?;
            return Some(StreamControl::PartEnd { grant: stream.grant?, end, code });
        }
        if std::mem::take(&mut signals.credit) {
            return Some(StreamControl::MaxStreamData { id, limit: recv?.stream.limit() });
        }
        None
    }
}
