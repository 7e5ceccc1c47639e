//! The client carries grants and raw packets to servers, and receipts back (PROTOCOL.md §7). It reads none of them.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::error::TransportCode;
use crate::id::{GrantId, PathId, StreamId, StreamOffset};
use crate::limits::Limits;
use crate::stream::Fault;
use crate::wire::{GrantOpen, RawForward, RawStatus, Seal};

/// Something to carry to one server.
#[derive(Debug)]
pub(super) enum Cargo {
    Grant(GrantOpen),
    Raw(RawForward),
}

impl Cargo {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Grant(frame) => frame.encode(&mut out),
            Self::Raw(frame) => frame.encode(&mut out),
        }
        out.freeze()
    }

    /// What to remember until the server acknowledged it.
    pub(super) fn record(&self) -> CargoRecord {
        match self {
            Self::Grant(frame) => CargoRecord::Grant { grant: frame.grant, stream: frame.stream, limit: frame.limit },
            Self::Raw(_) => CargoRecord::Raw,
        }
    }
}

/// What travels in a packet that only carries cargo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CargoRecord {
    Grant { grant: GrantId, stream: StreamId, limit: StreamOffset },
    Raw,
}

/// Queues to and receipts from each server. Grants are bounded by the grant caps, raw packets by caps of their own.
#[derive(Default)]
pub(super) struct Relay {
    to: BTreeMap<PathId, VecDeque<Cargo>>,
    /// Raw packets without a receipt, by sender and receiver.
    waiting: BTreeMap<(PathId, PathId), Waiting>,
    receipts: BTreeMap<PathId, VecDeque<RawStatus>>,
}

#[derive(Default)]
struct Waiting {
    packets: BTreeMap<u64, usize>,
    bytes: usize,
}

impl Relay {
    /// Takes a grant for `to`. Those that were settled while they waited are left out once they are many: a primary may
    /// grant and revoke faster than a server takes it.
    pub(super) fn push_grant(
        &mut self,
        to: PathId,
        grant: GrantOpen,
        is_open: impl Fn(GrantId) -> bool,
        limits: &Limits,
    ) {
        let queue = self.to.entry(to).or_default();
        if queue.len() >= limits.grants_path_max {
            queue.retain(|cargo| match cargo {
                Cargo::Grant(waiting) => is_open(waiting.grant),
                Cargo::Raw(_) => true,
            });
        }
        queue.push_back(Cargo::Grant(grant));
    }

    /// Takes a raw packet for `to`, or answers its sender with the code.
    pub(super) fn push_raw(
        &mut self,
        from: PathId,
        to: PathId,
        endorsement: Bytes,
        seal: Seal,
        limits: &Limits,
    ) -> Result<(), Fault> {
        let (sequence, len) = (seal.sequence, seal.payload.len());
        let waiting = self.waiting.entry((from, to)).or_default();
        let full = waiting.packets.len() >= limits.raw_packets_max || waiting.bytes + len > limits.raw_queue_bytes_max;
        if full || waiting.packets.contains_key(&sequence) {
            return self.refuse_raw(from, to, sequence, TransportCode::RAW_LIMIT, limits);
        }
        waiting.packets.insert(sequence, len);
        waiting.bytes += len;
        self.to.entry(to).or_default().push_back(Cargo::Raw(RawForward { from, endorsement, seal }));
        Ok(())
    }

    /// Answers a sender. One that sends on without reading its answers commits a fault.
    pub(super) fn refuse_raw(
        &mut self,
        from: PathId,
        to: PathId,
        sequence: u64,
        code: TransportCode,
        limits: &Limits,
    ) -> Result<(), Fault> {
        if self.receipts.get(&from).is_some_and(|queue| queue.len() >= limits.control_queue_frames_max) {
            return Err(Fault::new(TransportCode::CONTROL_FLOOD, "raw packets sent on without reading the answers"));
        }
        self.push_receipt(RawStatus { from, to, sequence, code: code.into() });
        Ok(())
    }

    /// A receipt came from the receiver. Returns whether a packet was waiting for it.
    pub(super) fn on_receipt(&mut self, status: RawStatus) -> bool {
        let Some(waiting) = self.waiting.get_mut(&(status.from, status.to)) else { return false };
        let Some(len) = waiting.packets.remove(&status.sequence) else { return false };
        waiting.bytes -= len;
        self.push_receipt(status);
        true
    }

    /// The server at `path` is gone: nothing more reaches it, and it wants no receipts.
    pub(super) fn on_path_lost(&mut self, path: PathId) {
        self.to.remove(&path);
        self.receipts.remove(&path);
        let concerned: Vec<_> =
            self.waiting.keys().copied().filter(|(from, to)| *from == path || *to == path).collect();
        for (from, to) in concerned {
            let Some(waiting) = self.waiting.remove(&(from, to)) else { continue };
            if from != path {
                for sequence in waiting.packets.into_keys() {
                    self.push_receipt(RawStatus { from, to, sequence, code: TransportCode::SOURCE_LOST.into() });
                }
            }
        }
    }

    pub(super) fn pop_cargo(&mut self, to: PathId) -> Option<Cargo> {
        self.to.get_mut(&to)?.pop_front()
    }

    pub(super) fn has_cargo(&self, to: PathId) -> bool {
        self.to.get(&to).is_some_and(|queue| !queue.is_empty())
    }

    pub(super) fn pop_receipt(&mut self, for_path: PathId) -> Option<RawStatus> {
        self.receipts.get_mut(&for_path)?.pop_front()
    }

    fn push_receipt(&mut self, status: RawStatus) {
        self.receipts.entry(status.from).or_default().push_back(status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;

    fn open(number: u64) -> GrantOpen {
        GrantOpen {
            grant: GrantId(number),
            epoch: Epoch(number),
            stream: StreamId(0),
            start: StreamOffset(0),
            len: 1,
            limit: StreamOffset(1),
            seal: Seal { sequence: number, payload: Bytes::new(), signature: [0; 64] },
        }
    }

    /// A primary that granted and revoked in turns filled the client's memory while the secondary took nothing.
    #[test]
    fn regression_grants_settled_while_they_wait_do_not_pile_up() {
        let limits = Limits::default();
        let mut relay = Relay::default();
        for number in 0..10_000 {
            // The last is open, those before it were revoked.
            relay.push_grant(PathId(1), open(number), |grant| grant == GrantId(number), &limits);
        }
        let waiting = relay.to.get(&PathId(1)).map_or(0, VecDeque::len);
        assert!(waiting <= limits.grants_path_max, "{waiting} grants wait");
    }
}
