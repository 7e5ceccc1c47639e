//! The sums of the table, counted anew.

use super::StreamTable;

impl StreamTable {
    /// Panics if a sum the table keeps is not what its parts add up to.
    pub(crate) fn assert_ledger(&self) {
        let recvs = || self.streams.values().filter_map(|stream| stream.recv.as_ref()).map(|half| &half.stream);
        let sends = || self.streams.values().filter_map(|stream| stream.send.as_ref()).map(|half| &half.stream);
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
        let is_known = |stream: &super::Stream| {
            let send = stream.send.as_ref().filter(|_| stream.grant.is_some());
            send.is_none_or(|half| !half.stream.is_part_over())
        };
        let known = self.streams.iter().filter(|(_, stream)| is_known(stream));
        let known: std::collections::BTreeSet<_> = known.map(|(handle, stream)| (stream.id, *handle)).collect();
        assert_eq!(self.handles, known, "one id entry for each stream, but parts that are over");
        assert_eq!(self.requests, self.streams.values().map(|stream| stream.request).sum::<usize>(), "requests");
        assert_eq!(self.draining, sends().filter(|send| send.is_draining()).count(), "draining");
        self.assert_turns();
    }
}
