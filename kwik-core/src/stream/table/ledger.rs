//! The sums of the table, counted anew.

use super::StreamTable;
#[cfg(feature = "__test_exports")]
use crate::id::StreamHandle;

impl StreamTable {
    /// The streams that are not gone.
    #[cfg(feature = "__test_exports")]
    pub(crate) fn handles(&self) -> Vec<StreamHandle> {
        self.streams.handles()
    }

    /// Panics if a sum the table keeps is not what its parts add up to.
    pub(crate) fn assert_ledger(&self) {
        let recvs = || self.streams.iter().filter_map(|stream| stream.recv.as_ref()).map(|half| &half.stream);
        let sends = || self.streams.iter().filter_map(|stream| stream.send.as_ref()).map(|half| &half.stream);
        let needed: u128 = recvs().map(|recv| u128::from(recv.needed())).sum();
        let charged: u64 = recvs().map(super::RecvStream::charged).sum();
        let slots = self.ids.slots() * self.rules.initial;
        assert_eq!(self.budget.reserved(), charged + slots, "the reservation is what streams and slots hold");
        assert!(needed <= u128::from(self.budget.reserved()), "credit beyond the reservation");
        assert!(recvs().all(|recv| recv.needed() <= recv.charged()), "credit beyond the charge of a stream");
        assert_eq!(self.spans, recvs().map(super::RecvStream::counted_spans).sum::<usize>(), "spans");
        let slices = recvs().flat_map(super::RecvStream::slice_bytes).map(|(_, bytes)| bytes).sum::<usize>();
        assert_eq!(self.slices.bytes(), slices, "slices");
        assert_eq!(self.send_buffered, sends().map(super::SendStream::buffered_bytes).sum::<usize>(), "send buffer");
        let is_open = |stream: &&super::Stream| {
            let part = stream.send.as_ref().filter(|_| stream.grant.is_some());
            part.is_some_and(|half| !half.stream.is_part_over())
        };
        let open = self.streams.iter().filter(is_open).map(|stream| (stream.id, stream.handle));
        assert_eq!(self.granted, open.collect(), "parts that are not over");
        for stream in self.streams.iter().filter(|stream| stream.grant.is_none()) {
            assert_eq!(self.streams.of_id(stream.id), Some(stream.handle), "the handle of a stream");
        }
        assert_eq!(
            self.requests,
            self.streams.iter().filter_map(|stream| stream.grant.as_ref()).map(|grant| grant.request).sum::<usize>(),
            "requests"
        );
        assert_eq!(self.draining, sends().filter(|send| send.is_draining()).count(), "draining");
        self.assert_turns();
    }
}
