//! What can be looked at.

use super::StreamTable;
use crate::error::ErrorCode;
use crate::id::{Dir, GrantId, StreamHandle, StreamId};
use std::ops::Range;

/// What every stream is accounted for beside its bytes.
const STREAM_BYTES: usize = 1024;

/// The state of a sending half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SendInfo {
    /// Where the next plain write begins.
    pub(crate) cursor: u64,
    /// How far the peer allows to send.
    pub(crate) limit: u64,
    /// Bytes written and not yet handed out.
    pub(crate) buffered_bytes: usize,
    /// Packets that carry bytes of the stream and are not acknowledged.
    pub(crate) outstanding: u64,
    /// Where the stream ends, once that is known.
    pub(crate) final_size: Option<u64>,
    /// Ranges that nobody wrote and that are left to nobody.
    pub(crate) holes: Vec<Range<u64>>,
}

/// The state of a receiving half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecvInfo {
    /// Bytes the application took, or that were dropped on its behalf.
    pub(crate) consumed: u64,
    /// How far the peer may write.
    pub(crate) limit: u64,
    /// Bytes that wait for the application.
    pub(crate) buffered_bytes: usize,
    /// Separate pieces that are held.
    pub(crate) spans: usize,
    /// Where the stream ends, once that is known.
    pub(crate) final_size: Option<u64>,
}

impl StreamTable {
    pub(crate) fn stream_id(&self, handle: StreamHandle) -> Option<StreamId> {
        self.streams.get(&handle).map(|stream| stream.id)
    }

    /// The direction the application sees: a granted part is bidirectional, since its request can be read.
    pub(crate) fn dir(&self, handle: StreamHandle) -> Option<Dir> {
        let stream = self.streams.get(&handle)?;
        Some(if stream.grant.is_some() { Dir::Bi } else { stream.id.dir() })
    }

    pub(crate) fn priority(&self, handle: StreamHandle) -> Option<i32> {
        self.streams.get(&handle).map(|stream| stream.priority)
    }

    /// The grant behind a stream of a secondary, and its range.
    pub(crate) fn grant(&self, handle: StreamHandle) -> Option<(GrantId, Range<u64>)> {
        let stream = self.streams.get(&handle)?;
        Some((stream.grant?, stream.send.as_ref()?.stream.part_range()?))
    }

    /// Whether the bytes of a stream are wanted here. `None` if it was never opened.
    pub(crate) fn is_receiving(&self, id: StreamId) -> Option<bool> {
        let all = (id, StreamHandle(0))..=(id, StreamHandle(u64::MAX));
        let Some((_, handle)) = self.handles.range(all).next() else {
            return self.ids.was_opened(id).then_some(false);
        };
        let half = self.streams.get(handle).and_then(|stream| stream.recv.as_ref());
        Some(half.is_some_and(|half| half.stream.is_open()))
    }

    /// Whether every byte of a stream arrived.
    pub(crate) fn is_received(&self, id: StreamId) -> bool {
        let stream = self.handles_of(id).first().and_then(|handle| self.streams.get(handle));
        let recv = stream.and_then(|stream| stream.recv.as_ref());
        recv.is_none_or(|half| half.stream.is_received())
    }

    /// Whether everything of a sending half was sent and acknowledged, or it ended otherwise.
    pub(crate) fn is_send_done(&self, handle: StreamHandle) -> bool {
        let send = self.streams.get(&handle).and_then(|stream| stream.send.as_ref());
        send.is_none_or(|half| half.stream.is_done())
    }

    /// The code the peer stopped a sending half with.
    pub(crate) fn stop_code(&self, handle: StreamHandle) -> Option<ErrorCode> {
        self.streams.get(&handle)?.send.as_ref()?.stream.stop_code()
    }

    /// The next stream that is gone.
    pub(crate) fn poll_gone(&mut self) -> Option<StreamId> {
        self.gone.pop()
    }

    /// The parts of a range that were not received. All of it for a stream that ended early or is gone.
    pub(crate) fn gaps(&self, id: StreamId, range: Range<u64>) -> Vec<Range<u64>> {
        let stream = self.handles_of(id).first().and_then(|handle| self.streams.get(handle));
        let recv = stream.and_then(|stream| stream.recv.as_ref());
        recv.map_or_else(|| vec![range.clone()], |half| half.stream.received().gaps_in(range.clone()))
    }

    pub(crate) fn send_info(&self, handle: StreamHandle) -> Option<SendInfo> {
        let send = &self.streams.get(&handle)?.send.as_ref()?.stream;
        Some(SendInfo {
            cursor: send.cursor(),
            limit: send.limit(),
            buffered_bytes: send.buffered_bytes(),
            outstanding: send.outstanding(),
            final_size: send.final_size(),
            holes: send.holes(),
        })
    }

    pub(crate) fn recv_info(&self, handle: StreamHandle) -> Option<RecvInfo> {
        let recv = &self.streams.get(&handle)?.recv.as_ref()?.stream;
        Some(RecvInfo {
            consumed: recv.consumed(),
            limit: recv.limit(),
            buffered_bytes: recv.buffered_bytes(),
            spans: recv.spans(),
            final_size: recv.final_size(),
        })
    }

    /// Streams that are not gone.
    pub(crate) fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Streams with bytes the peer's credit lets through.
    pub(crate) fn has_sendable(&self) -> bool {
        !self.outbox.sendable.is_empty()
    }

    /// What the table holds, as accounted, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let halves = self.streams.values().map(|stream| {
            let send = stream.send.as_ref().map_or(0, |half| half.stream.memory_bytes());
            let recv = stream.recv.as_ref().map_or(0, |half| half.stream.memory_bytes());
            STREAM_BYTES + send + recv
        });
        halves.sum()
    }

    /// Every sum the table keeps, counted anew.
    #[cfg(test)]
    pub(crate) fn assert_ledger(&self) {
        let recvs = || self.streams.values().filter_map(|stream| stream.recv.as_ref()).map(|half| &half.stream);
        let sends = || self.streams.values().filter_map(|stream| stream.send.as_ref()).map(|half| &half.stream);
        let needed: u128 = recvs().map(|recv| u128::from(recv.needed())).sum();
        let charged: u64 = recvs().map(super::RecvStream::charged).sum();
        let slots = self.ids.slots() * self.rules.initial;
        assert_eq!(self.budget.reserved(), charged + slots, "the reservation is what streams and slots hold");
        assert!(needed <= u128::from(self.budget.reserved()), "credit beyond the reservation");
        assert!(recvs().all(|recv| recv.needed() <= recv.charged()), "credit beyond the charge of a stream");
        assert_eq!(self.spans, recvs().map(super::RecvStream::spans).sum::<usize>(), "spans");
        assert_eq!(self.send_buffered, sends().map(super::SendStream::buffered_bytes).sum::<usize>(), "send buffer");
        assert_eq!(self.handles.len(), self.streams.len(), "one id entry for each stream");
    }
}
