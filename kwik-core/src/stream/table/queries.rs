//! What can be looked at.

use super::StreamTable;
use super::memory::STREAM_BYTES;
use crate::error::ErrorCode;
use crate::id::{GrantId, StreamHandle, StreamId};
use crate::stream::slices::Slice;
use std::ops::Range;

impl StreamTable {
    pub(crate) fn stream_id(&self, handle: StreamHandle) -> Option<StreamId> {
        self.streams.get(handle).map(|stream| stream.id)
    }

    /// The grant behind a stream of a secondary, and its range.
    pub(crate) fn grant(&self, handle: StreamHandle) -> Option<(GrantId, Range<u64>)> {
        let stream = self.streams.get(handle)?;
        Some((stream.grant.as_ref()?.id, stream.send.as_ref()?.stream.part_range()?))
    }

    /// Whether the bytes of a stream are wanted here. `None` if it was never opened.
    pub(crate) fn is_receiving(&self, id: StreamId) -> Option<bool> {
        let Some(handle) = self.handle_of(id) else {
            return self.ids.was_opened(id).then_some(false);
        };
        let half = self.streams.get(handle).and_then(|stream| stream.recv.as_ref());
        Some(half.is_some_and(|half| half.stream.is_open()))
    }

    /// Whether every byte of a stream arrived.
    pub(crate) fn is_received(&self, id: StreamId) -> bool {
        let stream = self.handle_of(id).and_then(|handle| self.streams.get(handle));
        let recv = stream.and_then(|stream| stream.recv.as_ref());
        recv.is_none_or(|half| half.stream.is_received())
    }

    /// Whether everything of a sending half was sent and acknowledged, or it ended otherwise.
    pub(crate) fn is_send_done(&self, handle: StreamHandle) -> bool {
        let send = self.streams.get(handle).and_then(|stream| stream.send.as_ref());
        send.is_none_or(|half| half.stream.is_done())
    }

    /// Whether the application still reads a stream that has not ended.
    pub(crate) fn can_stop(&self, handle: StreamHandle) -> bool {
        let recv = self.streams.get(handle).and_then(|stream| stream.recv.as_ref());
        !self.closed && recv.is_some_and(|half| !half.released && half.stream.is_open())
    }

    /// How far a sending half may be written.
    pub(crate) fn send_limit(&self, handle: StreamHandle) -> Option<u64> {
        Some(self.streams.get(handle)?.send.as_ref()?.stream.limit())
    }

    /// What a sending half buffers, in bytes.
    pub(crate) fn send_buffered(&self, handle: StreamHandle) -> usize {
        let send = self.streams.get(handle).and_then(|stream| stream.send.as_ref());
        send.map_or(0, |half| half.stream.buffered_bytes())
    }

    /// The code the peer stopped a sending half with.
    pub(crate) fn stop_code(&self, handle: StreamHandle) -> Option<ErrorCode> {
        self.streams.get(handle)?.send.as_ref()?.stream.stop_code()
    }

    /// The next stream that is gone.
    pub(crate) fn poll_gone(&mut self) -> Option<StreamId> {
        self.gone.pop()
    }

    /// The next sending half that ended before everything was sent.
    pub(crate) fn poll_cut_short(&mut self) -> Option<StreamHandle> {
        self.cut_short.pop()
    }

    /// The parts of a range that were not received. All of it for a stream that ended early or is gone.
    pub(crate) fn gaps(&self, id: StreamId, range: Range<u64>) -> Vec<Range<u64>> {
        let stream = self.handle_of(id).and_then(|handle| self.streams.get(handle));
        let recv = stream.and_then(|stream| stream.recv.as_ref());
        recv.map_or_else(|| vec![range.clone()], |half| half.stream.missing_in(range.clone()))
    }

    /// Streams that are not gone.
    pub(crate) fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// What the table holds, as accounted, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let halves = self.streams.iter().map(|stream| {
            let send = stream.send.as_ref().map_or(0, |half| half.stream.memory_bytes());
            let recv = stream.recv.as_ref().map_or(0, |half| half.stream.memory_bytes());
            STREAM_BYTES + send + recv
        });
        let waits = |slice: &Slice| {
            let recv = self.streams.get(slice.stream).and_then(|stream| stream.recv.as_ref());
            recv.is_some_and(|half| half.stream.has_slice(slice.end))
        };
        halves.sum::<usize>() + self.slices.memory_bytes(waits)
    }
}
