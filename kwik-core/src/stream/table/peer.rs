//! What the peer says about streams.

use super::{RecvHalf, SendHalf, Stream, StreamTable, TableRole};
use crate::error::{ErrorCode, Fault, FrameEffect, TransportCode};
use crate::id::{Dir, PathId, RangeConflict, StreamHandle, StreamId, StreamOffset};
use crate::limits::VARINT_MAX;
use crate::stream::flow::Window;
use crate::stream::ids::Half;
use crate::stream::piece::SLICE_BYTES_MIN;
use crate::stream::reassembly::Conflict;
use crate::stream::recv::{DataOutcome, Overflow, RecvStream};
use crate::stream::send::SendStream;
use bytes::Bytes;
use smallvec::SmallVec;

impl StreamTable {
    /// The peer's parameters: how many streams it accepts, and how far each may be written at first. They never
    /// lower what every endpoint accepts.
    pub(crate) fn on_peer_params(&mut self, bidi: u64, uni: u64, stream_window_initial: u64) -> Result<(), Fault> {
        self.ids.raise_limit_of_peer(Dir::Bi, bidi)?;
        self.ids.raise_limit_of_peer(Dir::Uni, uni)?;
        self.initial_limit_of_peer = self.initial_limit_of_peer.max(stream_window_initial.min(VARINT_MAX));
        // The limit of a granted stream comes with its grant; parameters do not matter to it ([P-3.6]).
        if self.role != TableRole::Secondary {
            for handle in self.streams.handles() {
                self.raise_send_limit(handle, self.initial_limit_of_peer);
            }
        }
        Ok(())
    }

    /// The peer opened a stream. `limit` is how far this end may write on it.
    pub(crate) fn on_open(&mut self, id: StreamId, priority: i32, limit: u64) -> Result<FrameEffect, Fault> {
        let was_opened = self.ids.was_opened(id);
        let Some(handle) = self.resolve(id, Half::Open)? else { return Ok(self.no_op()) };
        if self.streams.get(handle).is_some_and(|stream| !stream.priority_chosen) {
            self.prioritize(handle, priority);
        }
        self.raise_send_limit(handle, limit);
        Ok(if was_opened { self.no_op() } else { FrameEffect::Progress })
    }

    /// Bytes of a stream: a slice of a frame that ends at `frame_end`, where the stream ends too if `fin`. Opens the
    /// stream, and all lower ones of its kind, if need be. Whether `from` may write there is not checked here.
    pub(crate) fn on_data(
        &mut self,
        from: PathId,
        id: StreamId,
        offset: u64,
        data: Bytes,
        frame_end: u64,
        fin: bool,
    ) -> Result<DataOutcome, Fault> {
        // The client refuses this before, with FINAL_SIZE ([P-6.10]).
        if fin && !from.is_primary() {
            return Err(Fault::new(TransportCode::FINAL_SIZE, "a secondary ended a stream"));
        }
        let handle = self.resolve(id, Half::Recv)?;
        // Counted even if the stream is gone: no end needs to send a byte twice ([P-5.10]).
        if from.is_primary() && !self.credit.take(data.len() as u64) {
            return Err(Fault::new(TransportCode::FLOW_CONTROL, "more bytes than the credit of all streams together"));
        }
        let Some(handle) = handle else { return Ok(DataOutcome::default()) };
        let outcome = self.with_recv(handle, |recv| recv.on_data(from, offset, data, frame_end, fin));
        let mut outcome = outcome.unwrap_or_else(|| Ok(DataOutcome::default()))?;
        if let Some(conflict) = outcome.conflict {
            self.on_conflict(handle, conflict)?;
            return Ok(outcome);
        }
        for new in &outcome.inserted.new {
            // Pieces of this size wait as slices, shorter ones were copied.
            if new.end - new.start >= SLICE_BYTES_MIN as u64 {
                self.slices.push(from, handle, new.end);
            }
        }
        outcome.overflow = self.check_spans(handle, from);
        self.advance_credit(handle);
        if fin || !outcome.inserted.new.is_empty() {
            self.announce_readable(handle);
        }
        self.free_if_done(handle);
        Ok(outcome)
    }

    /// Datagrams of so many bytes came over a path; what they brought is handled next.
    pub(crate) fn on_arrived(&mut self, path: PathId, datagram_bytes: u64) {
        self.slices.on_arrived(path, datagram_bytes);
    }

    /// All that arrived was handled: what waits and would keep too much of it is copied.
    pub(crate) fn own_old_slices(&mut self) {
        while let Some(slice) = self.slices.pop_old() {
            self.with_recv(slice.stream, |recv| recv.own_slice(slice.end));
        }
        self.slices.on_handled();
    }

    /// The peer ended a stream early. Other writers of the stream are not notified here.
    pub(crate) fn on_reset(&mut self, id: StreamId, code: ErrorCode, final_size: u64) -> Result<FrameEffect, Fault> {
        let Some(handle) = self.resolve(id, Half::Recv)? else { return Ok(self.no_op()) };
        let changes = self.with_recv(handle, |recv| {
            let (was_open, was_done) = (recv.is_open(), recv.is_done());
            recv.on_reset(code, final_size)?;
            // A stop of this side is answered with a reset.
            Ok((was_open && !recv.is_open(), recv.is_done() && !was_done))
        });
        let (is_abandoned, is_answered) = changes.unwrap_or(Ok((false, false)))?;
        if is_abandoned {
            self.note_abandoned(handle);
        }
        self.announce_readable(handle);
        self.free_if_done(handle);
        Ok(if is_abandoned || is_answered { FrameEffect::Progress } else { self.no_op() })
    }

    /// The peer wants no more of a stream. The stream is reset with the peer's code.
    pub(crate) fn on_stop(&mut self, id: StreamId, code: ErrorCode) -> Result<FrameEffect, Fault> {
        self.resolve(id, Half::Send)?;
        let mut changes = false;
        for handle in self.handles_of(id) {
            if self.with_send(handle, |send| send.on_stop(code)) == Some(true) {
                changes = true;
                self.note_abandoned(handle);
                self.on_cut_short(handle);
            }
        }
        Ok(if changes { FrameEffect::Progress } else { self.no_op() })
    }

    /// The peer allows a stream to be written up to `limit`. A lower limit than before changes nothing.
    pub(crate) fn on_max_stream_data(&mut self, id: StreamId, limit: u64) -> Result<FrameEffect, Fault> {
        self.resolve(id, Half::Send)?;
        let mut changes = false;
        for handle in self.handles_of(id) {
            changes |= self.raise_send_limit(handle, limit);
        }
        Ok(if changes { FrameEffect::Progress } else { self.no_op() })
    }

    /// The peer allows `max` streams since the session began. A lower limit than before changes nothing.
    pub(crate) fn on_max_streams(&mut self, dir: Dir, max: u64) -> Result<FrameEffect, Fault> {
        if self.role == TableRole::Secondary {
            return Err(Fault::new(TransportCode::PROTOCOL_VIOLATION, "a secondary opens no streams"));
        }
        let rises = max > self.ids.limit_of_peer(dir);
        self.ids.raise_limit_of_peer(dir, max)?;
        Ok(if rises { FrameEffect::Progress } else { FrameEffect::NoOp })
    }

    /// How far a stream may be written by the peer; `None` when its bytes are no longer wanted. Opens the stream if
    /// need be, as data for it would.
    pub(crate) fn receive_limit(&mut self, id: StreamId) -> Result<Option<u64>, Fault> {
        let Some(handle) = self.resolve(id, Half::Recv)? else { return Ok(None) };
        let half = self.streams.get(handle).and_then(|stream| stream.recv.as_ref());
        Ok(half.filter(|half| half.stream.is_open()).map(|half| half.stream.limit()))
    }

    /// The stream that an id of the peer means, opened if need be. `None` when it is gone, or when there may be
    /// several: a secondary's parts.
    fn resolve(&mut self, id: StreamId, half: Half) -> Result<Option<StreamHandle>, Fault> {
        if self.role == TableRole::Secondary {
            return match half {
                // Several granted streams may have this id; the caller looks them up.
                Half::Send => Ok(None),
                Half::Open | Half::Recv => {
                    Err(Fault::new(TransportCode::PROTOCOL_VIOLATION, "a stream's bytes sent to a secondary"))
                }
            };
        }
        for index in self.ids.check(id, half)? {
            let id = StreamId::new(id.initiator(), id.dir(), index);
            let send = match id.dir() {
                Dir::Bi => Some(SendHalf::new(SendStream::new(self.initial_limit_of_peer))),
                Dir::Uni => None,
            };
            let recv = RecvHalf::new(RecvStream::new(Window::covered(self.rules), false));
            if let Some(handle) = self.insert(Stream::new(id, None, send, Some(recv))) {
                self.offer(handle, id.dir());
            }
        }
        Ok(self.streams.of_id(id))
    }

    /// A frame about a stream changed nothing. For each stream a few may: they crossed what made them useless.
    pub(super) fn no_op(&mut self) -> FrameEffect {
        match self.crossings.checked_sub(1) {
            Some(left) => {
                self.crossings = left;
                FrameEffect::Progress
            }
            None => FrameEffect::NoOp,
        }
    }

    /// The handles of a stream: one, or one for each of its parts at a secondary that are not over.
    pub(super) fn handles_of(&self, id: StreamId) -> SmallVec<[StreamHandle; 2]> {
        if self.role == TableRole::Secondary {
            let parts = self.granted.range((id, StreamHandle::FIRST)..);
            return parts.take_while(|(of, _)| *of == id).map(|(_, handle)| *handle).collect();
        }
        self.streams.of_id(id).into_iter().collect()
    }

    pub(super) fn handle_of(&self, id: StreamId) -> Option<StreamHandle> {
        if self.role == TableRole::Secondary { self.handles_of(id).first().copied() } else { self.streams.of_id(id) }
    }

    /// Returns whether the limit rose.
    fn raise_send_limit(&mut self, handle: StreamHandle, limit: u64) -> bool {
        let rose = self.with_send(handle, |send| send.raise_limit(limit.min(VARINT_MAX))) == Some(true);
        if rose {
            self.push_sendable(handle);
            self.wake_writers(handle);
        }
        rose
    }

    /// Two bytes of a stream differ. The owner's word counts, and nobody may contradict itself. Where it was two
    /// secondaries, or bytes of a secondary may have been read before the owner wrote others, the stream ends.
    fn on_conflict(&mut self, handle: StreamHandle, conflict: Conflict) -> Result<(), Fault> {
        let Conflict { at, first, second } = conflict;
        if !second.is_primary() && first == Some(second) {
            return Err(Fault::new(TransportCode::RANGE_CONFLICT, "bytes that differ from the path's own"));
        }
        if !second.is_primary() && first.is_some_and(PathId::is_primary) {
            return Err(Fault::new(TransportCode::RANGE_CONFLICT, "bytes that differ from the primary's"));
        }
        let paths = [first.unwrap_or(second), second];
        let conflict = RangeConflict { offset: StreamOffset(at), paths };
        let conflict = Some(conflict).filter(|_| self.role == TableRole::Client);
        self.fail_recv(handle, TransportCode::RANGE_CONFLICT, conflict);
        Ok(())
    }

    /// Ends a stream of too many gaps; that of the most, if all streams together have too many. To blame is who opened
    /// most of them: the one that makes them too many may be anybody's.
    fn check_spans(&mut self, handle: StreamHandle, from: PathId) -> Option<Overflow> {
        let spans = |stream: &Stream| stream.recv.as_ref().map_or(0, |half| half.stream.spans());
        let worst = if self.streams.get(handle).map_or(0, spans) > self.caps.spans_stream {
            handle
        } else if self.spans > self.caps.spans_session {
            let most = self.streams.iter().max_by_key(|stream| spans(stream));
            most.map_or(handle, |worst| worst.handle)
        } else {
            return None;
        };
        let stream = self.streams.get(worst)?;
        let offender = stream.recv.as_ref().and_then(|half| half.stream.main_opener()).unwrap_or(from);
        let overflow = Overflow { stream: stream.id, offender };
        self.fail_recv(worst, TransportCode::REASSEMBLY_LIMIT, None);
        Some(overflow)
    }
}
